//! Secrets of services that a disk is given: files of the workstation, which the first boot puts beside the host's key.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::cli::{Failure, Kind};
use crate::codex::Codex;
use crate::codex::name::Name;
use crate::sys::fs;

/// The longest secret, in bytes: passwords, tokens and keys are far shorter.
const LONGEST: u64 = 64 << 10;

/// Contents by their names.
pub type Secrets = BTreeMap<Name, Zeroizing<Vec<u8>>>;

/// A secret and the file that holds it. Parses from `NAME=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    name: Name,
    file: PathBuf,
}

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, file) = text.split_once('=').ok_or("write it as NAME=FILE")?;
        let name = name.parse().map_err(|error| format!("{name}: {error}"))?;
        Ok(Self { name, file: file.into() })
    }
}

/// Reads what is given; what a service wants and does not get is told, a line each.
///
/// # Errors
/// No service names such a secret, it is given twice, or its file cannot be read.
pub fn read(given: &[Given], codex: &Codex) -> Result<(Secrets, Vec<String>), Failure> {
    let mut secrets = Secrets::new();
    for Given { name, file } in given {
        if !codex.secrets().any(|(_, secret)| secret == name) {
            let named: Vec<_> = codex.secrets().map(|(_, secret)| secret.as_str()).collect();
            let hint = if named.is_empty() {
                "name it in `secrets` of a service, and build the image anew".to_owned()
            } else {
                format!("they name {}", named.join(", "))
            };
            let message = format!("no service of the Codex names the secret `{name}`");
            return Err(Failure::new(Kind::Input, message).hint(hint));
        }
        let bytes = Zeroizing::new(fs::read_bounded(file, LONGEST)?);
        if secrets.insert(name.clone(), bytes).is_some() {
            let message = format!("the secret `{name}` is given twice");
            return Err(Failure::new(Kind::Input, message).hint("leave one of the two out"));
        }
    }
    let missing = codex.secrets().filter(|(_, secret)| !secrets.contains_key(*secret));
    let told: Vec<_> = missing
        .map(|(service, secret)| {
            format!("note: {service} does not start without its secret: `--secret {secret}=FILE`")
        })
        .collect();
    Ok((secrets, told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_service_names_is_refused_and_what_is_missing_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, 0o600, b"s3cret\n").unwrap();
        let codex = |secrets: &str| {
            let law = "schema = 1\n[appliance]\nname = \"lychd\"\n".to_owned();
            let service = format!("description = \"Web\"\nrootfs = \"stand-in\"\nsecrets = [{secrets}]\n");
            Codex::parse(&[("lychd.toml", law), ("services/web.toml", service)].into_iter().collect())
                .unwrap()
        };
        let given = |text: &str| format!("{text}={}", file.display()).parse::<Given>().unwrap();
        let (secrets, told) = read(&[given("token")], &codex("\"token\", \"other\"")).unwrap();
        assert_eq!(secrets[&"token".parse().unwrap()].as_slice(), b"s3cret\n");
        assert_eq!(told, ["note: web does not start without its secret: `--secret other=FILE`"]);
        let refused = |given: &[Given], named: &str| read(given, &codex(named)).unwrap_err().to_string();
        assert!(refused(&[given("token")], "\"other\"").contains("they name other"));
        assert!(refused(&[given("token")], "").contains("in `secrets` of a service"));
        assert!(refused(&[given("token"), given("token")], "\"token\"").contains("given twice"));
        fs::write_atomic(&file, 0o600, "x".repeat((64 << 10) + 1).as_bytes()).unwrap();
        assert!(refused(&[given("token")], "\"token\"").contains("token"));
        for text in ["token", "To Ken=x", "=x"] {
            assert!(text.parse::<Given>().is_err(), "{text}");
        }
    }
}
