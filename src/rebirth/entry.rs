//! Boot entries: the names of kernel images on the EFI system partition, which count the attempts to boot them.
//!
//! `lychd_2+3-0.efi` has three attempts left and none behind it; the boot loader renames it to `lychd_2+2-1.efi` before it
//! starts it, and systemd-bless-boot to `lychd_2.efi` when the body is healthy. An entry without attempts is chosen only
//! when there is no other. Source: systemd-boot(7) and the UAPI group's Boot Loader Specification.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::version::Version;

/// How many attempts a new body has.
pub const TRIES: u32 = 3;

/// An entry's counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    /// Attempts that are left.
    pub left: u32,
    /// Attempts that failed, or that one runs.
    pub done: u32,
}

impl Tries {
    /// Of a new body.
    pub const ALL: Self = Self { left: TRIES, done: 0 };
    /// Of a body that steps back behind others.
    pub const NONE: Self = Self { left: 0, done: 0 };
}

/// One entry of an appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The appliance's name.
    pub name: String,
    /// The body's version.
    pub version: Version,
    /// Its counter; `None` for a body that is proven healthy.
    pub tries: Option<Tries>,
}

impl Entry {
    /// The entry of that file name, if it is one of this appliance.
    pub fn parse(file: &str, name: &str) -> Option<Self> {
        let stem = file.strip_suffix(".efi")?.strip_prefix(name)?.strip_prefix('_')?;
        let (version, tries) = match stem.rsplit_once('+') {
            None => (stem, None),
            Some((version, counter)) => (version, Some(counter_of(counter)?)),
        };
        Some(Self { name: name.to_owned(), version: version.parse().ok()?, tries })
    }

    /// Whether the boot loader chooses others first.
    pub fn is_spent(&self) -> bool {
        self.tries.is_some_and(|tries| tries.left == 0)
    }

    /// Whether it was tried until nothing was left. One that only stepped back was not: it is chosen when all others failed.
    pub fn failed(&self) -> bool {
        self.tries.is_some_and(|tries| tries.left == 0 && tries.done > 0)
    }
}

/// `3-0`, or `3` where nothing was counted yet.
fn counter_of(text: &str) -> Option<Tries> {
    let (left, done) = text.split_once('-').unwrap_or((text, "0"));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    Some(Tries { left: number(left)?, done: number(done)? })
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.name, self.version)?;
        if let Some(Tries { left, done }) = self.tries {
            write!(f, "+{left}-{done}")?;
        }
        f.write_str(".efi")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(file: &str) -> Option<(String, Option<(u32, u32)>)> {
        let entry = Entry::parse(file, "lychd")?;
        Some((entry.version.to_string(), entry.tries.map(|tries| (tries.left, tries.done))))
    }

    #[test]
    fn names_are_read_and_written_back() {
        for (file, version, tries) in [
            ("lychd_2.efi", "2", None),
            ("lychd_2+3-0.efi", "2", Some((3, 0))),
            ("lychd_2.1~rc1+0-3.efi", "2.1~rc1", Some((0, 3))),
        ] {
            assert_eq!(parsed(file), Some((version.to_owned(), tries)), "{file}");
            assert_eq!(Entry::parse(file, "lychd").unwrap().to_string(), file);
        }
        assert_eq!(parsed("lychd_2+3.efi"), Some(("2".to_owned(), Some((3, 0)))));
    }

    #[test]
    fn files_of_others_are_none_of_ours() {
        for file in [
            "other_2.efi",
            "lychd.efi",
            "lychd_.efi",
            "lychd_2",
            "lychd_2+x.efi",
            "lychd_2+1-.efi",
            "lychd_2+1-+1.efi",
        ] {
            assert_eq!(parsed(file), None, "{file}");
        }
    }

    #[test]
    fn a_spent_entry_is_one_without_attempts() {
        let spent = |file| Entry::parse(file, "lychd").unwrap().is_spent();
        assert!(spent("lychd_2+0-3.efi") && !spent("lychd_2+1-2.efi") && !spent("lychd_2.efi"));
    }
}
