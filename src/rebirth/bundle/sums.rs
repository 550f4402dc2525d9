//! `SHA256SUMS` of an update.

use std::collections::BTreeMap;

use super::damaged;
use crate::image::manifest::{SUMS, checksums};
use crate::peer::Refused;
use crate::tree::Sha256Digest;

/// Digests of the files of an update, by plain name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums(BTreeMap<String, Sha256Digest>);

impl Sums {
    /// Of these files.
    pub fn new(files: BTreeMap<String, Sha256Digest>) -> Self {
        Self(files)
    }

    /// Digest of a file.
    pub fn get(&self, file: &str) -> Option<Sha256Digest> {
        self.0.get(file).copied()
    }

    /// Files and their digests, in byte order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Sha256Digest)> {
        self.0.iter().map(|(file, digest)| (file.as_str(), *digest))
    }

    /// As sha256sum(1) writes and reads it.
    pub fn to_text(&self) -> String {
        checksums(&self.iter().collect::<Vec<_>>())
    }

    /// Reads what [`Sums::to_text`] writes, and nothing else: one spelling has one digest.
    ///
    /// # Errors
    /// It is written otherwise, or a name is not plain.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let malformed =
            || damaged(format!("{SUMS} is not four lines as sha256sum writes them, sorted by name"));
        let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
        let mut files = BTreeMap::new();
        for line in text.lines() {
            let (digest, file) = line.split_once("  ").ok_or_else(malformed)?;
            if !is_plain(file) {
                return Err(damaged(format!("{SUMS} names `{}`", crate::codex::plain(file))));
            }
            files.insert(file.to_owned(), digest.parse().map_err(|_| malformed())?);
        }
        let sums = Self(files);
        if sums.0.len() == 4 && sums.to_text() == text { Ok(sums) } else { Err(malformed()) }
    }
}

/// Whether a name stays in its folder and is none of ours.
fn is_plain(file: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~^".contains(&byte);
    !file.is_empty() && !file.starts_with(['.', '-']) && file.bytes().all(plain) && !file.starts_with(SUMS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(names: &[&str]) -> String {
        names.iter().map(|name| format!("{}  {name}\n", Sha256Digest::of(name.as_bytes()))).collect()
    }

    #[test]
    fn sums_read_back_as_they_were_written() {
        let written = text(&["a.raw", "b", "c~1^2", "d.json"]);
        let sums = Sums::parse(written.as_bytes()).unwrap();
        assert_eq!(sums.get("b"), Some(Sha256Digest::of(b"b")));
        assert_eq!(sums.to_text(), written);
    }

    #[test]
    fn another_spelling_or_number_is_refused() {
        let right = text(&["a", "b", "c", "d"]);
        for wrong in [
            String::new(),
            text(&["a", "b", "c"]),
            text(&["a", "b", "c", "d", "e"]),
            text(&["b", "a", "c", "d"]),
            text(&["a", "a", "b", "c", "d"]),
            right.to_uppercase(),
            right.replace("  ", " *"),
            right.trim_end().to_owned(),
            right.replace('\n', "\r\n"),
            format!("{right}\n"),
        ] {
            let refused = Sums::parse(wrong.as_bytes()).unwrap_err();
            assert!(refused.message.contains("SHA256SUMS"), "{wrong:?}: {refused}");
        }
        assert!(Sums::parse(&[0xff]).is_err());
    }

    #[test]
    fn a_name_that_leads_out_of_the_folder_is_refused() {
        for name in ["../d", "/etc/passwd", "d/e", "..", ".d", "-d", "d e", "d\u{1b}", "SHA256SUMS", ""] {
            let refused = Sums::parse(text(&["a", "b", "c", name]).as_bytes()).unwrap_err();
            assert!(refused.message.contains("SHA256SUMS names `"), "{name:?}: {refused}");
        }
    }
}
