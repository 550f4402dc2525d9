//! The archive's indices: `InRelease` (what is signed) and `Packages` (what there is).

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::SystemTime;

use super::lock::{Archive, Package};
use crate::tree::Sha256Digest;

/// What is needed of a verified `Release` text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Codename, e.g. `trixie-security`.
    pub codename: String,
    /// After this the text must not be used any more; `None` when it is good for ever.
    pub valid_until: Option<SystemTime>,
    /// Path below the suite's folder → digest and size in bytes.
    files: BTreeMap<String, (Sha256Digest, u64)>,
}

/// An index that says something impossible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field is missing from `Release`.
    #[error("the Release text has no field {0}")]
    Field(&'static str),
    /// A line that is not what it should be.
    #[error("the Release text has a line that cannot be understood: {0}")]
    Line(String),
    /// A package without what is needed to fetch it.
    #[error("the index entry of {0} lacks version, architecture, file name, size or SHA-256 digest")]
    Entry(String),
}

impl Release {
    /// Reads the text that was signed (not the signature around it).
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut codename = None;
        let mut valid_until = None;
        let mut files = BTreeMap::new();
        let mut section = "";
        for line in text.lines() {
            if let Some(entry) = line.strip_prefix(' ') {
                if section == "SHA256" {
                    let (path, file) = file_line(entry).ok_or_else(|| Error::Line(line.to_owned()))?;
                    files.insert(path, file);
                }
                continue;
            }
            let Some((key, value)) = line.split_once(':') else { continue };
            section = key;
            match key {
                "Codename" => codename = Some(value.trim().to_owned()),
                "Valid-Until" => {
                    let date = value.trim().replace("UTC", "GMT");
                    let time = httpdate::parse_http_date(&date).map_err(|_| Error::Line(line.to_owned()))?;
                    valid_until = Some(time);
                }
                _ => {}
            }
        }
        if files.is_empty() {
            return Err(Error::Field("SHA256"));
        }
        Ok(Self { codename: codename.ok_or(Error::Field("Codename"))?, valid_until, files })
    }

    /// Digest and size in bytes of the file at `path` below the suite's folder.
    pub fn file(&self, path: &str) -> Option<(Sha256Digest, u64)> {
        self.files.get(path).copied()
    }
}

fn file_line(entry: &str) -> Option<(String, (Sha256Digest, u64))> {
    let mut words = entry.split_whitespace();
    let digest = words.next()?.parse().ok()?;
    let size = words.next()?.parse().ok()?;
    Some((words.next()?.to_owned(), (digest, size)))
}

/// One stanza of `Packages`.
#[derive(Debug, Clone, Copy)]
pub struct Stanza<'a>(&'a str);

impl<'a> Stanza<'a> {
    /// A stanza of its text.
    pub fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// Value of a single-line field.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// The stanza as a package of `archive`.
    pub fn package(&self, archive: Archive) -> Result<Package, Error> {
        let name = self.get("Package").unwrap_or("?").to_owned();
        let package = || {
            Some(Package {
                name: name.clone(),
                version: self.get("Version")?.to_owned(),
                architecture: self.get("Architecture")?.to_owned(),
                archive,
                path: self.get("Filename")?.to_owned(),
                size: self.get("Size")?.parse().ok()?,
                sha256: self.get("SHA256")?.parse().ok()?,
            })
        };
        package().ok_or_else(|| Error::Entry(name.clone()))
    }

    /// Names of what it depends on: each group holds alternatives, the preferred one first.
    pub fn depends(&self) -> Vec<Vec<&'a str>> {
        let fields = ["Pre-Depends", "Depends"].into_iter().filter_map(|field| self.get(field));
        fields.flat_map(|value| value.split(',')).map(alternatives).collect()
    }

    /// Names that it provides besides its own.
    pub fn provides(&self) -> Vec<&'a str> {
        self.get("Provides").into_iter().flat_map(|value| value.split(',')).map(bare).collect()
    }

    /// The stanza without dependencies on the packages `omit`.
    pub fn without(&self, omit: &[String]) -> String {
        let mut text = String::with_capacity(self.0.len() + 1);
        for line in self.0.lines() {
            let Some((field @ ("Depends" | "Pre-Depends"), value)) = line.split_once(':') else {
                text.extend([line, "\n"]);
                continue;
            };
            let omitted = |name: &str| omit.iter().any(|omit| omit == name);
            let wanted = |group: &&str| !alternatives(group).into_iter().any(omitted);
            let groups: Vec<_> = value.split(',').filter(wanted).map(str::trim).collect();
            if !groups.is_empty() {
                text.extend([field, ": ", &groups.join(", "), "\n"]);
            }
        }
        text
    }
}

/// Stanzas of a `Packages` text, each with its place in it.
pub fn stanzas(text: &str) -> impl Iterator<Item = (Range<usize>, Stanza<'_>)> {
    let mut start = 0;
    let ranges = text.split("\n\n").map(move |stanza| {
        let range = start..start + stanza.len();
        start = range.end + 2;
        (range, Stanza(stanza))
    });
    ranges.filter(|(_, stanza)| !stanza.0.trim().is_empty())
}

fn alternatives(group: &str) -> Vec<&str> {
    group.split('|').map(bare).collect()
}

/// The name alone, of `name:any (>= 1) [amd64]`.
fn bare(term: &str) -> &str {
    let term = term.trim();
    let end = term.find([' ', ':', '(', '[']).unwrap_or(term.len());
    &term[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RELEASE: &str = "Origin: Debian\nCodename: trixie-security\nValid-Until: Sat, 28 Nov 2026 00:53:03 UTC\n\
        MD5Sum:\n 00 1 main/x\nSHA256:\n \
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/binary-amd64/Packages.xz\n";

    #[test]
    fn a_release_tells_digests_and_how_long_it_is_good() {
        let release = Release::parse(RELEASE).unwrap();
        assert_eq!(release.codename, "trixie-security");
        assert_eq!(release.file("main/binary-amd64/Packages.xz"), Some((Sha256Digest::of(b""), 0)));
        assert_eq!(release.file("main/x"), None);
        let until = release.valid_until.unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(until.as_secs(), 1_795_827_183);
    }

    #[test]
    fn a_release_without_what_is_needed_is_refused() {
        for (good, bad) in
            [("Codename", "Code"), ("SHA256", "SHA1"), ("28 Nov", "soon"), (" 0 main", " -1 main")]
        {
            assert!(Release::parse(&RELEASE.replace(good, bad)).is_err(), "{bad}");
        }
    }

    const PACKAGES: &str = "Package: aa\nVersion: 1:2-3\nArchitecture: all\nFilename: pool/main/a/aa/aa_2-3_all.deb\n\
        Size: 12\nSHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n\
        Pre-Depends: pp (>= 1)\nDepends: bb:any (>= 2) | cc, dd [amd64], ee\nProvides: ff (= 1), gg\n\nPackage: zz\n";

    #[test]
    fn a_stanza_tells_the_package_and_its_relations() {
        let all: Vec<_> = stanzas(PACKAGES).map(|(_, stanza)| stanza).collect();
        assert_eq!(all.len(), 2);
        let package = all[0].package(Archive::Debian).unwrap();
        assert_eq!((package.version.as_str(), package.size), ("1:2-3", 12));
        assert_eq!(all[0].depends(), [vec!["pp"], vec!["bb", "cc"], vec!["dd"], vec!["ee"]]);
        assert_eq!(all[0].provides(), ["ff", "gg"]);
        assert_eq!(all[1].package(Archive::Debian), Err(Error::Entry("zz".to_owned())));
    }

    #[test]
    fn an_omitted_package_leaves_every_dependency() {
        let (_, stanza) = stanzas(PACKAGES).next().unwrap();
        let text = stanza.without(&["pp".to_owned(), "cc".to_owned()]);
        assert!(text.contains("\nDepends: dd [amd64], ee\n"), "{text}");
        assert!(!text.contains("Pre-Depends"), "{text}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "(SHA256:|Depends:|Package:|[ :,|\\n(\\[]|\\PC)*") {
            let _ = Release::parse(&text);
            for (range, stanza) in stanzas(&text) {
                prop_assert_eq!(&text[range], stanza.0);
                let _ = (stanza.depends(), stanza.provides(), stanza.package(Archive::Debian), stanza.without(&[]));
            }
        }
    }
}
