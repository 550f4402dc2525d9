//! What `gpgv` says about the signatures of an index, on its status channel.
//!
//! An archive that changes its key signs with both for years: one good signature of a known key is enough, and one
//! of a key that is not known yet does no harm. A bad one always does.
//!
//! Source: GnuPG's doc/DETAILS, "Format of the --status-fd output".

/// How a clearsigned text begins.
const HEADER: &str = "-----BEGIN PGP SIGNED MESSAGE-----";

/// A signed text that is not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No valid signature.
    #[error("no signature on it is valid and of a known key")]
    None,
    /// A signature that spoils the rest, or input that is more than one signed text.
    #[error("gpgv says {0}")]
    Refused(String),
    /// Something before the signed text, or a second one.
    #[error("it is not one clearsigned text")]
    Form,
}

/// What must not be said, whatever else is.
const REFUSED: [&str; 8] =
    ["BADSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "KEYREVOKED", "NODATA", "UNEXPECTED", "ERROR"];

/// Checks that `signed` is one clearsigned text and nothing else before it.
pub fn check_form(signed: &[u8]) -> Result<(), Error> {
    // Within the text such a line begins with `- `, so that it cannot be taken for the start of another.
    let starts = |line: &[u8]| line.trim_ascii_end() == HEADER.as_bytes();
    let count = signed.split(|&byte| byte == b'\n').filter(|line| starts(line)).count();
    if count == 1 && signed.starts_with(HEADER.as_bytes()) { Ok(()) } else { Err(Error::Form) }
}

/// Judges the status lines (`[GNUPG:] KEYWORD …`) of one run.
pub fn judge(status: &str) -> Result<(), Error> {
    let said = || status.lines().filter_map(|line| line.strip_prefix("[GNUPG:] "));
    let keyword = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    if let Some(line) = said().find(|line| REFUSED.contains(&keyword(line).as_str())) {
        return Err(Error::Refused(line.to_owned()));
    }
    if said().any(|line| keyword(line) == "VALIDSIG") { Ok(()) } else { Err(Error::None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str =
        "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 64 Debian Archive\n[GNUPG:] VALIDSIG 41 2026-01-01 1767225600\n";
    const UNKNOWN: &str =
        "[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG 64 1 8 01 1767225600 9 41\n[GNUPG:] NO_PUBKEY 64\n";

    #[test]
    fn one_valid_signature_is_enough_beside_one_of_an_unknown_key() {
        for status in [
            VALID.to_owned(),
            format!("{VALID}{VALID}"),
            format!("{VALID}{UNKNOWN}"),
            format!("{UNKNOWN}{VALID}"),
        ] {
            assert_eq!(judge(&status), Ok(()), "{status}");
        }
    }

    #[test]
    fn without_a_valid_signature_nothing_is_accepted() {
        let user = "gpgv: Good signature\n[GNUPG:] GOODSIG 64 VALIDSIG\n gpgv: [GNUPG:] VALIDSIG 41\n";
        for status in ["", UNKNOWN, user, "[GNUPG:] VALIDSIGNATURE 41\n", "VALIDSIG 41\n"] {
            assert_eq!(judge(status), Err(Error::None), "{status}");
        }
    }

    #[test]
    fn a_bad_or_outlived_signature_spoils_a_valid_one() {
        for keyword in REFUSED {
            let line = format!("{keyword} 64 someone");
            for status in [format!("{VALID}[GNUPG:] {line}\n"), format!("[GNUPG:] {line}\n{VALID}")] {
                assert_eq!(judge(&status), Err(Error::Refused(line.clone())), "{status}");
            }
        }
    }

    #[test]
    fn a_signed_text_comes_alone() {
        let one = format!("{HEADER}\nHash: SHA256\n\n- {HEADER}\n-----BEGIN PGP SIGNATURE-----\n");
        assert_eq!(check_form(one.as_bytes()), Ok(()));
        for text in [
            String::new(),
            format!("Codename: x\n{one}"),
            format!("{one}{one}"),
            format!("{one}{HEADER}\r\n"),
        ] {
            assert_eq!(check_form(text.as_bytes()), Err(Error::Form), "{text}");
        }
    }
}
