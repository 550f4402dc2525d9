//! Why a package is in a lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Universe;
use crate::image::definition::Definition;
use crate::image::lock::Lock;

impl Universe {
    /// Why `package` is in `lock`: the shortest chain of dependencies from a package that was asked for, and
    /// all that depend on it. `None` when it is not in the lock.
    pub fn explain(&self, definition: &Definition, lock: &Lock, package: &str) -> Option<Vec<String>> {
        lock.get(package)?;
        let needs = self.needs(definition, lock);
        let mut from: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        let mut queue = VecDeque::new();
        for asked in definition.packages.iter().filter_map(|name| lock.get(name)) {
            from.insert(&asked.name, None);
            queue.push_back(asked.name.as_str());
        }
        while let Some(name) = queue.pop_front() {
            for &needed in needs.get(name).into_iter().flatten() {
                from.entry(needed).or_insert_with(|| {
                    queue.push_back(needed);
                    Some(name)
                });
            }
        }
        let mut chain = vec![package];
        while let Some(&Some(above)) = chain.last().and_then(|name| from.get(name)) {
            chain.push(above);
        }
        let mut lines: Vec<String> = Vec::new();
        for (depth, name) in chain.iter().rev().enumerate() {
            let version = lock.get(name).map_or("", |package| &package.version);
            let role = if depth == 0 && from.contains_key(name) { " (asked for)" } else { "" };
            lines.push(format!("{}{name} {version}{role}", "  ".repeat(depth)));
        }
        let users: Vec<&str> =
            needs.iter().filter(|(_, needs)| needs.contains(package)).map(|(name, _)| *name).collect();
        lines.push(format!(
            "needed by: {}",
            if users.is_empty() { "nothing".to_owned() } else { users.join(", ") }
        ));
        Some(lines)
    }

    /// Name → names in the lock that it depends on, directly.
    fn needs<'a>(&self, definition: &Definition, lock: &'a Lock) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let mut stanzas = BTreeMap::new();
        let mut providers: BTreeMap<&str, Vec<&'a str>> = BTreeMap::new();
        for locked in lock.packages() {
            let mut stanzas_of = self.stanzas(&locked.name).map(|(_, stanza)| stanza);
            let Some(stanza) = stanzas_of.find(|stanza| stanza.get("Version") == Some(&locked.version))
            else {
                continue;
            };
            stanzas.insert(locked.name.as_str(), stanza);
            for name in stanza.provides() {
                providers.entry(name).or_default().push(&locked.name);
            }
        }
        let in_lock = |group: Vec<&str>| -> Vec<&'a str> {
            let omitted = |name: &&str| definition.omit.iter().any(|omit| omit == name);
            if group.iter().any(omitted) {
                return Vec::new();
            }
            let named = group.iter().filter_map(|name| lock.get(name).map(|found| found.name.as_str()));
            let provided = group.iter().filter_map(|name| providers.get(name)).flatten().copied();
            named.chain(provided).collect()
        };
        stanzas
            .into_iter()
            .map(|(name, stanza)| (name, stanza.depends().into_iter().flat_map(in_lock).collect()))
            .collect()
    }
}
