//! Where packages are fetched from. No mirror is written down in this program: the caller names one, or the
//! machine's own apt sources do.

use super::lock::Archive;

/// Base addresses, tried in order, without a slash at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirrors {
    debian: Vec<String>,
    security: Vec<String>,
}

/// No mirror can be told from what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither http nor https.
    #[error("the mirror {0} is not an http:// or https:// address")]
    Scheme(String),
    /// The address does not say which archive it is.
    #[error(
        "the mirror {0} has no folder named debian or debian-security in its path (…/debian, …/debian/20260101T000000Z)"
    )]
    Archive(String),
}

impl Mirrors {
    /// Mirrors named by the user. Of each address a folder `debian` or `debian-security` tells which archive
    /// it holds; the other archive is looked for beside it unless it is named too.
    pub fn named<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let mut mirrors = Self::default();
        for address in addresses {
            if !is_http(address) {
                return Err(Error::Scheme(address.to_owned()));
            }
            mirrors.add(address).ok_or_else(|| Error::Archive(address.to_owned()))?;
        }
        mirrors.complete();
        Ok(mirrors)
    }

    /// Mirrors that apt uses: `sources` are the contents of its source files, of either format. `None` when
    /// none of them names an archive over http or https.
    pub fn from_apt_sources<'a>(sources: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut mirrors = Self::default();
        for text in sources {
            let addresses = if text.lines().any(|line| key(line, "uris").is_some()) {
                deb822_addresses(text)
            } else {
                one_line_addresses(text)
            };
            for address in addresses.into_iter().filter(|address| is_http(address)) {
                // Third-party archives have other folder names: nothing to take from them.
                let _ = mirrors.add(address);
            }
        }
        mirrors.complete();
        (!mirrors.debian.is_empty()).then_some(mirrors)
    }

    /// Addresses of a file, in the order to try them.
    pub fn addresses(&self, archive: Archive, path: &str) -> Vec<String> {
        let bases = match archive {
            Archive::Debian => &self.debian,
            Archive::DebianSecurity => &self.security,
        };
        bases.iter().map(|base| format!("{base}/{}", path.replace('%', "%25"))).collect()
    }

    fn add(&mut self, address: &str) -> Option<()> {
        let address = address.trim_end_matches('/');
        let list = match archive_of(address)? {
            Archive::Debian => &mut self.debian,
            Archive::DebianSecurity => &mut self.security,
        };
        if !list.iter().any(|known| known == address) {
            list.push(address.to_owned());
        }
        Some(())
    }

    fn complete(&mut self) {
        let beside = |from: &[String], old: Archive, new: Archive| -> Vec<String> {
            let sibling = |address: &String| {
                let swap = |part| if part == old.as_str() { new.as_str() } else { part };
                address.split('/').map(swap).collect::<Vec<_>>().join("/")
            };
            from.iter().map(sibling).collect()
        };
        if self.security.is_empty() {
            self.security = beside(&self.debian, Archive::Debian, Archive::DebianSecurity);
        } else if self.debian.is_empty() {
            self.debian = beside(&self.security, Archive::DebianSecurity, Archive::Debian);
        }
    }
}

fn is_http(address: &str) -> bool {
    let lower = address.get(..8).unwrap_or(address).to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

/// The last path component that names an archive; only a snapshot's time may follow it.
fn archive_of(address: &str) -> Option<Archive> {
    let path = address.split_once("://")?.1.split_once('/')?.1;
    let is_time = |part: &str| part.ends_with('Z') && part.starts_with(|c: char| c.is_ascii_digit());
    let folder = path.rsplit('/').find(|part| !is_time(part))?;
    [Archive::Debian, Archive::DebianSecurity].into_iter().find(|archive| archive.as_str() == folder)
}

/// Value of a deb822 line `Key: value`, whatever the key's case.
fn key<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (key, value) = line.split_once(':')?;
    key.eq_ignore_ascii_case(name).then_some(value.trim())
}

/// deb822: stanzas divided by empty lines; a value goes on in lines that start with white space.
fn deb822_addresses(text: &str) -> Vec<&str> {
    let mut addresses = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let said = |name, value: &str| {
            let words = stanza.iter().find_map(|line| key(line, name));
            words.map(|words| words.split_whitespace().any(|word| word.eq_ignore_ascii_case(value)))
        };
        if said("enabled", "no") == Some(true) || said("types", "deb") != Some(true) {
            continue;
        }
        let mut inside = false;
        for line in stanza {
            inside = match key(line, "uris") {
                Some(value) if !line.starts_with(char::is_whitespace) => {
                    addresses.extend(value.split_whitespace());
                    true
                }
                _ if inside && line.starts_with(char::is_whitespace) => {
                    addresses.extend(line.split_whitespace());
                    true
                }
                _ => false,
            };
        }
    }
    addresses
}

/// `deb [options] address suite components`, one a line.
fn one_line_addresses(text: &str) -> Vec<&str> {
    let address = |line| {
        let rest = str::strip_prefix(line, "deb")?;
        let rest = rest.strip_prefix(char::is_whitespace)?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        rest.split_whitespace().next()
    };
    text.lines().map(str::trim).filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_of_apt_sources_are_read() {
        let deb822 = "# a comment\nTypes: deb deb-src\nURIs: http://one.test/debian/\n  http://two.test/debian\n\
            Suites: trixie\n\nTypes: deb\nURIs: https://one.test/debian-security\n\n\
            Enabled: no\nTypes: deb\nURIs: http://off.test/debian\n\nTypes: deb-src\nURIs: http://src.test/debian\n";
        let mirrors = Mirrors::from_apt_sources([deb822]).unwrap();
        assert_eq!(mirrors.debian, ["http://one.test/debian", "http://two.test/debian"]);
        assert_eq!(mirrors.security, ["https://one.test/debian-security"]);

        let one_line = "# deb http://off.test/debian x main\n deb [arch=amd64 signed-by=/k] http://one.test/debian trixie main\n\
            deb-src http://src.test/debian trixie main\ndeb cdrom:[Debian]/ trixie main\n\
            deb http://vendor.test/apt stable main\n";
        let mirrors = Mirrors::from_apt_sources([one_line]).unwrap();
        assert_eq!(mirrors.debian, ["http://one.test/debian"]);
        assert_eq!(mirrors.security, ["http://one.test/debian-security"]);
    }

    #[test]
    fn sources_without_the_archive_name_no_mirror() {
        assert_eq!(Mirrors::from_apt_sources(["deb http://vendor.test/apt stable main", ""]), None);
    }

    #[test]
    fn the_security_archive_is_beside_the_main_one_unless_named() {
        let snapshot = Mirrors::named(["https://s.test/archive/debian/20260101T000000Z/"]).unwrap();
        assert_eq!(
            snapshot.addresses(Archive::DebianSecurity, "pool/x.deb"),
            ["https://s.test/archive/debian-security/20260101T000000Z/pool/x.deb"]
        );
        let both = Mirrors::named(["http://a.test/debian", "http://b.test/debian-security"]).unwrap();
        assert_eq!(both.addresses(Archive::DebianSecurity, "x"), ["http://b.test/debian-security/x"]);
    }

    #[test]
    fn an_address_that_cannot_serve_is_refused() {
        assert!(matches!(Mirrors::named(["ftp://a.test/debian"]), Err(Error::Scheme(_))));
        assert!(matches!(Mirrors::named(["http://a.test/pub"]), Err(Error::Archive(_))));
        assert!(matches!(Mirrors::named(["http://debian"]), Err(Error::Archive(_))));
    }
}
