//! What the bonds of one schema become when a body of another one starts: pure. What is dead stays dead.
//!
//! Forward, every bond is migrated. Where a body of this schema ran before, its bonds were kept: of each file the side
//! wins that changed it since the two parted, and tombstones win over everything. Back, the kept bonds return, and
//! everybody who was revoked since does not.

use std::collections::{BTreeMap, BTreeSet};

use super::{Refused, tombstone};
use crate::codex::key::PublicKey;
use crate::codex::ledger::{self, LAW_LEDGER, LEDGER};
use crate::codex::migrate::{Forms, Texts};
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::codex::{Codex, Sources, is_tombstone, render_all};

/// The bonds that a machine holds when a body of another schema starts.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// Schema of those in force.
    pub schema: u32,
    /// Those in force.
    pub now: &'a Texts,
    /// Those of the starting body's schema, as they were when it was left; none when it never ran.
    pub kept: Option<&'a Texts>,
    /// Those of the schema in force, as they were when the two parted.
    pub base: Option<&'a Texts>,
}

/// The bonds from then on.
#[derive(Debug, Clone)]
pub struct Next {
    /// Their texts.
    pub texts: Texts,
    /// What they are, law and ledgers included.
    pub codex: Codex,
    /// What is worth telling, a line each.
    pub lines: Vec<String>,
}

/// Decides what the held bonds are for a body of `forms`. `law` holds its law and both ledgers.
///
/// # Errors
/// There is no way there, or its law does not hold them.
pub fn next(forms: Forms<'_>, held: Held<'_>, law: &Sources, time: Timestamp) -> Result<Next, Refused> {
    let (mut texts, may_go) = if held.schema < forms.own {
        forward(forms, held)?
    } else {
        (held.kept.ok_or_else(|| no_way(held.schema, forms.own))?.clone(), BTreeSet::new())
    };
    let mut lines = bury(&mut texts, held.now, law, time)?;
    let codex = fitting(&mut texts, &may_go, law, &mut lines)?;
    Ok(Next { texts, codex, lines })
}

/// Why bonds cannot be read, and what to do.
fn no_way(from: u32, to: u32) -> Refused {
    let hint = format!(
        "return to a body whose schema is {from}: a new body gives way after three attempts, and at once with \
         `sepulcher rebirth rollback`"
    );
    let message = format!("the bonds are of schema {from}, this body's is {to}");
    if from > to {
        Refused::new(format!("{message}, and none of schema {to} were kept"), hint)
    } else {
        Refused::new(format!("{message}, and it does not know the way"), hint)
    }
}

/// The migrated bonds and what was kept of this schema; the files that only the kept ones hold are told apart.
fn forward(forms: Forms<'_>, held: Held<'_>) -> Result<(Texts, BTreeSet<String>), Refused> {
    let Held { schema, now, kept, base } = held;
    let mut texts = forms.forward(schema, now).map_err(|_| no_way(schema, forms.own))?;
    let mut added = BTreeSet::new();
    let Some(kept) = kept else { return Ok((texts, added)) };
    let before = |file: &str| base.and_then(|base| base.get(file));
    for (file, text) in kept {
        let untouched = before(file).is_some() && before(file) == now.get(file);
        match texts.get(file) {
            None if before(file).is_none() || is_tombstone(text) => {
                added.insert(file.clone());
            }
            Some(own) if !is_tombstone(own) && (untouched || is_tombstone(text)) => {}
            _ => continue,
        }
        texts.insert(file.clone(), text.clone());
    }
    // It left under the other body, and nobody changed it here.
    texts
        .retain(|file, _| kept.contains_key(file) || before(file).is_none() || before(file) != now.get(file));
    Ok((texts, added))
}

/// Makes tombstones of the bonds whose key is in a ledger, or whose file is a tombstone now: a power loss may have come
/// between the file and the ledger.
fn bury(texts: &mut Texts, now: &Texts, law: &Sources, time: Timestamp) -> Result<Vec<String>, Refused> {
    let ledgers = [LEDGER, LAW_LEDGER].into_iter().filter_map(|file| law.text(file));
    let dead: BTreeSet<PublicKey> = ledgers.flat_map(ledger::keys).map(|(key, _)| key).collect();
    let mut lines = Vec::new();
    for (file, text) in texts.iter_mut().filter(|(_, text)| !is_tombstone(text)) {
        let Some(name) = name(file) else { continue };
        let is_dead = public_key(text).is_some_and(|key| dead.contains(&key));
        if is_dead || now.get(file).is_some_and(|now| is_tombstone(now)) {
            *text = tombstone(&name, text, time, "it was revoked, or its key replaced, under another body")?;
            lines.push(format!("- peer {name} was revoked, or its key replaced, under another body"));
        }
    }
    Ok(lines)
}

fn name(file: &str) -> Option<Name> {
    file.strip_prefix("peers/")?.strip_suffix(".toml")?.parse().ok()
}

/// The key that a bond of our own schema names.
fn public_key(text: &str) -> Option<PublicKey> {
    let table: toml::Table = text.parse().ok()?;
    table.get("public-key")?.as_str()?.parse().ok()
}

/// Reads the bonds below the law. Those of `may_go` stay out when they are at odds with others: two bodies that do not
/// know of each other may give away one address.
fn fitting(
    texts: &mut Texts,
    may_go: &BTreeSet<String>,
    law: &Sources,
    lines: &mut Vec<String>,
) -> Result<Codex, Refused> {
    loop {
        let mut sources: Sources = law.iter().filter(|(file, _)| !file.starts_with("peers/")).collect();
        for (file, text) in &*texts {
            sources.insert(file.clone(), text.as_str());
        }
        let mistakes = match Codex::parse_living(&sources) {
            Ok(codex) => return Ok(codex),
            Err(mistakes) => mistakes,
        };
        let mut gone = BTreeMap::new();
        for mistake in &mistakes {
            let related = mistake.related.iter().map(|(place, _)| place.file.to_string());
            let mut files = std::iter::once(mistake.file.clone()).chain(related);
            if let Some(file) = files.find(|file| may_go.contains(file)) {
                gone.entry(file).or_insert(&mistake.message);
            }
        }
        if gone.is_empty() {
            let hint = "return to the body before, and change the bonds or the new law";
            let refused = Refused::new("the law of this body does not hold the bonds", hint);
            return Err(Refused { report: Some(render_all(&mistakes, &sources, false)), ..refused });
        }
        for (file, why) in gone {
            texts.remove(&file);
            lines.push(format!("= {file} of the other body stays out: {why}"));
        }
    }
}

#[cfg(test)]
mod tests;
