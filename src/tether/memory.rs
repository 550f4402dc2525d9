//! The bonds that were in force last, beside the status: an agent that starts anew beside a broken file knows what
//! that file said when it was good.
//!
//! They are kept as they were written, a file each, in a folder that a reboot empties. Nothing in them is secret:
//! preshared keys are elsewhere. They are no source of bonds: what is not in the bonds' own folder is not in force,
//! and [`settle`](super::bonds::settle) judges them as it judges what it is given of the last look, so that tombstones
//! and the ledger come first.

use std::path::{Path, PathBuf};

use super::bonds::{Texts, is_bond};
use crate::sys;

/// Name of the folder beside the status.
const FOLDER: &str = "last-good";

/// What is kept: as many files as there are bonds, none longer than a bond may be.
pub(super) struct Memory {
    folder: PathBuf,
    kept: Texts,
    /// Why they could not be kept, when that was told.
    fault: Option<String>,
}

impl Memory {
    /// What an agent before this one has kept beside `status`. What cannot be read any more is not known.
    pub(super) fn open(status: &Path) -> Self {
        let folder = status.with_file_name(FOLDER);
        let sources = sys::codex::load(&[&folder]);
        let bonds = sources.iter().filter(|(file, _)| is_bond(file));
        let kept = bonds.map(|(file, text)| (file.to_owned(), text.to_owned())).collect();
        Self { folder, kept, fault: None }
    }

    /// The bonds that are kept.
    pub(super) fn bonds(&self) -> &Texts {
        &self.kept
    }

    /// Keeps the bonds among `texts` and no others. That it cannot is told once; the next look tries again.
    pub(super) fn keep(&mut self, texts: &Texts, say: &mut dyn FnMut(&str)) {
        let fault = self.update(texts).err().map(|error| super::explain(&error));
        if let Some(fault) = fault.as_deref().filter(|fault| self.fault.as_deref() != Some(fault)) {
            say(&format!("a restart will not know the last good state of bonds: {fault}"));
        }
        self.fault = fault;
    }

    fn update(&mut self, texts: &Texts) -> Result<(), sys::fs::Error> {
        let bonds = || texts.iter().filter(|(file, _)| is_bond(file));
        let gone: Vec<_> = self.kept.keys().filter(|file| !texts.contains_key(*file)).cloned().collect();
        for file in gone {
            sys::fs::remove_file(&self.folder.join(&file))?;
            self.kept.remove(&file);
        }
        let new: Vec<_> = bonds().filter(|(file, text)| self.kept.get(*file) != Some(text)).collect();
        if !new.is_empty() {
            sys::fs::create_dir_all(&self.folder.join("peers"))?;
        }
        for (file, text) in new {
            sys::fs::replace(&self.folder.join(file), 0o600, text.as_bytes())?;
            self.kept.insert(file.clone(), text.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex::Codex;
    use crate::tether::bonds::Settled;
    use crate::tether::source;

    const KEY: &str = "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=";

    fn law() -> (String, String) {
        ("lychd.toml".to_owned(), "schema = 1\n[appliance]\nname = \"lychd\"\n".to_owned())
    }

    fn phone(more: &str) -> (String, String) {
        let text = format!("public-key = \"{KEY}\"\naddress = \"10.88.16.2\"\ngrants = []\n{more}");
        ("peers/phone.toml".to_owned(), text)
    }

    fn broken() -> (String, String) {
        ("peers/phone.toml".to_owned(), "public-key = 7\n".to_owned())
    }

    /// Keeps `before`, then starts anew where the files say `now`.
    fn restart(before: &Texts, now: &Texts) -> Settled<Codex> {
        let folder = tempfile::tempdir().unwrap();
        let status = folder.path().join("tether.json");
        Memory::open(&status).keep(before, &mut |said| panic!("{said}"));
        let memory = Memory::open(&status);
        source::settle(now, &[], memory.bonds()).unwrap()
    }

    #[test]
    fn a_bond_that_broke_while_nobody_looked_keeps_its_last_good_state() {
        let settled = restart(&[law(), phone("")].into(), &[law(), broken()].into());
        assert_eq!(settled.texts, [law(), phone("")].into());
        assert!(settled.broken[0].last_good);
        assert!(restart(&[law()].into(), &[law(), broken()].into()).codex.peers.is_empty());
    }

    #[test]
    fn what_is_kept_brings_nobody_back() {
        let good: Texts = [law(), phone("")].into();
        let ledger = ("revoked".to_owned(), format!("{KEY} phone 1 2026-11-22T20:05:00Z\n"));
        let slip = ("peers/phone.toml".to_owned(), "state = \"revoked\"\nslip\n".to_owned());
        let taken = ("peers/other.toml".to_owned(), phone("state = \"revoked\"\n").1);
        for now in [vec![], vec![slip], vec![broken(), ledger], vec![broken(), taken]] {
            let settled = restart(&good, &now.iter().cloned().chain([law()]).collect());
            assert_eq!(settled.codex.active().count(), 0, "{now:?}");
        }
    }

    #[test]
    fn what_is_kept_is_what_is_in_force_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let status = folder.path().join("tether.json");
        let mut memory = Memory::open(&status);
        let mut said = Vec::new();
        let mut keep = |memory: &mut Memory, texts: &Texts| {
            memory.keep(texts, &mut |line| said.push(line.to_owned()));
            Memory::open(&status).kept
        };
        let other = ("peers/other.toml".to_owned(), "x".to_owned());
        assert_eq!(keep(&mut memory, &[law(), phone(""), other].into()).len(), 2, "the law is not kept");
        assert_eq!(keep(&mut memory, &[law(), phone("\n")].into()), [phone("\n")].into());
        sys::fs::remove_dir_all(&folder.path().join("last-good")).unwrap();
        sys::fs::write(&folder.path().join("last-good"), 0o644, b"in the way").unwrap();
        for _ in 0..2 {
            assert!(keep(&mut memory, &[phone("")].into()).is_empty());
        }
        sys::fs::remove_file(&folder.path().join("last-good")).unwrap();
        assert_eq!(keep(&mut memory, &[phone("")].into()), [phone("")].into());
        assert_eq!(said.len(), 1, "{said:?}");
    }
}
