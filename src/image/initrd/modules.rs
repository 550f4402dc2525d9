//! Kernel modules with all that they need, by the index that `depmod` made.

use std::collections::{BTreeMap, BTreeSet};

use super::{Error, read};
use crate::image::layer::{Content, Kind, Layer};

/// Release of the one kernel whose modules are in `root`, e.g. `6.12.43+deb13-cloud-amd64`.
pub fn kernel_release(root: &Layer) -> Result<&str, Error> {
    let releases: Vec<&str> = root
        .0
        .keys()
        .filter_map(|path| path.strip_prefix("usr/lib/modules/")?.strip_suffix("/modules.dep"))
        .filter(|release| !release.contains('/'))
        .collect();
    match releases[..] {
        [release] => Ok(release),
        _ => Err(Error::Kernels(releases.len())),
    }
}

/// Paths of the modules `names`, of those that they depend on, and of the index itself.
pub fn select(root: &Layer, names: &[String]) -> Result<BTreeSet<String>, Error> {
    let mut paths = BTreeSet::new();
    if names.is_empty() {
        return Ok(paths);
    }
    let folder = format!("usr/lib/modules/{}", kernel_release(root)?);
    let index = |name: &str| match root.0.get(&format!("{folder}/{name}")).map(|node| &node.kind) {
        Some(Kind::File(content)) => text(name, content),
        _ => Ok(String::new()),
    };
    let (dep, builtin, softdep) =
        (index("modules.dep")?, index("modules.builtin")?, index("modules.softdep")?);
    let graph = Graph::parse(&dep, &softdep);
    let builtin: BTreeSet<String> = builtin.lines().map(module_name).collect();
    let mut open: Vec<String> = names.iter().map(|name| name.replace('-', "_")).collect();
    if let Some(unknown) =
        open.iter().find(|name| !graph.files.contains_key(*name) && !builtin.contains(*name))
    {
        return Err(Error::Module(unknown.clone()));
    }
    while let Some(name) = open.pop() {
        let Some((file, needs)) = graph.files.get(&name) else { continue };
        if paths.insert(format!("{folder}/{file}")) {
            open.extend(needs.iter().map(|need| module_name(need)));
            open.extend(graph.soft.get(&name).into_iter().flatten().cloned());
        }
    }
    let indices = root.0.keys().filter(|path| path.starts_with(&format!("{folder}/modules.")));
    paths.extend(indices.cloned());
    Ok(paths)
}

struct Graph<'a> {
    /// Module → its file and the files it needs.
    files: BTreeMap<String, (&'a str, Vec<&'a str>)>,
    /// Module → modules that it would like to have loaded with it.
    soft: BTreeMap<String, Vec<String>>,
}

impl<'a> Graph<'a> {
    fn parse(dep: &'a str, softdep: &str) -> Self {
        let files = dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, needs)| (module_name(file), (file, needs.split_ascii_whitespace().collect())));
        let mut soft: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in softdep.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some("softdep"), Some(module)) = (words.next(), words.next()) {
                let wishes = words.filter(|word| !word.ends_with(':')).map(module_name);
                soft.entry(module_name(module)).or_default().extend(wishes);
            }
        }
        Self { files: files.collect(), soft }
    }
}

/// `kernel/drivers/md/dm-verity.ko.xz` → `dm_verity`, as the kernel names it.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn text(path: &str, content: &Content) -> Result<String, Error> {
    Ok(String::from_utf8_lossy(&read(path, content)?).into_owned())
}
