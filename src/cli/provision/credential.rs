//! What a first boot takes over: the host's identity and its first bonds.
//!
//! ```text
//! sepulcher provision 1 <SHA-256 of the rest>
//! {"appliance":…,"host-key":…,"bonds":{"phone":{"file":…,"preshared":…}},"recovery":…,"snapshot":…,"secrets":{"token":…}}
//! ```
//!
//! A snapshot is its archive in base64, without volumes and the host's private key; it stands in the place of bonds. Secrets
//! of services are in base64, too.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::secrets::Secrets;
use crate::codex::key::SharedKey;
use crate::codex::name::Name;
use crate::image::esp;
use crate::sys::wireguard::SecretKey;
use crate::tree::Sha256Digest;

/// The longest credential that is read, in bytes.
pub const LIMIT: u64 = esp::LIMIT;
/// Version of the format.
const SCHEMA: u32 = 1;
/// What a credential takes beside its snapshot, in bytes.
const CONTENT: usize = 64 << 10;
const MAGIC: &str = "sepulcher provision ";

/// A credential. It has no `Debug`: it is made of secrets.
pub struct Credential {
    /// Name of the appliance that it is for.
    pub appliance: Name,
    /// The host's private key.
    pub host: SecretKey,
    /// The first bonds.
    pub bonds: BTreeMap<Name, Bond>,
    /// Digest of the recovery phrase.
    pub recovery: Sha256Digest,
    /// The archive of a snapshot that is put back.
    pub snapshot: Option<Zeroizing<Vec<u8>>>,
    /// Secrets of services.
    pub secrets: Secrets,
}

/// A bond that is given with the disk.
pub struct Bond {
    /// Text of its file.
    pub file: String,
    /// Its preshared key.
    pub preshared: Option<SharedKey>,
}

/// Why bytes are not a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Something else.
    #[error("it is not a credential of `sepulcher provision`")]
    Foreign,
    /// From another version.
    #[error("it has schema {0}, this program reads schema {SCHEMA}")]
    Schema(u32),
    /// Its digest does not match.
    #[error("it is damaged")]
    Damaged,
    /// Made wrongly.
    #[error("its {0} cannot be used")]
    Content(&'static str),
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Written {
    appliance: Name,
    host_key: String,
    bonds: BTreeMap<Name, WrittenBond>,
    recovery: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<Name, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBond {
    file: String,
    preshared: Option<String>,
}

impl Drop for Written {
    fn drop(&mut self) {
        self.host_key.zeroize();
        self.snapshot.zeroize();
        self.secrets.values_mut().for_each(Zeroize::zeroize);
        self.bonds.values_mut().for_each(|bond| bond.preshared.zeroize());
    }
}

impl Credential {
    /// The credential as it is written.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let bond = |bond: &Bond| WrittenBond {
            file: bond.file.clone(),
            preshared: bond.preshared.as_ref().map(|key| key.to_text().as_str().to_owned()),
        };
        let written = Written {
            appliance: self.appliance.clone(),
            host_key: self.host.to_file().trim_end().to_owned(),
            bonds: self.bonds.iter().map(|(name, one)| (name.clone(), bond(one))).collect(),
            recovery: self.recovery.to_string(),
            snapshot: self.snapshot.as_ref().map(|archive| STANDARD.encode(archive.as_slice())),
            secrets: self
                .secrets
                .iter()
                .map(|(name, bytes)| (name.clone(), STANDARD.encode(bytes)))
                .collect(),
        };
        let lengths = written.snapshot.iter().chain(written.secrets.values()).map(String::len);
        let secret: usize = lengths.sum();
        // Its final length from the beginning: what a vector outgrows stays in memory.
        let mut content = Zeroizing::new(Vec::with_capacity(secret + CONTENT));
        serde_json::to_writer(&mut *content, &written)?;
        let head = format!("{MAGIC}{SCHEMA} {}\n", Sha256Digest::of(&content));
        Ok(Zeroizing::new([head.as_bytes(), &content].concat()))
    }

    /// Reads a credential.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unusable> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(Unusable::Foreign)?;
        let (head, content) =
            (str::from_utf8(&bytes[..end]).map_err(|_| Unusable::Foreign)?, &bytes[end + 1..]);
        let (schema, digest) =
            head.strip_prefix(MAGIC).and_then(|rest| rest.split_once(' ')).ok_or(Unusable::Foreign)?;
        match schema.parse() {
            Ok(SCHEMA) => {}
            Ok(schema) => return Err(Unusable::Schema(schema)),
            Err(_) => return Err(Unusable::Foreign),
        }
        if digest.parse() != Ok(Sha256Digest::of(content)) {
            return Err(Unusable::Damaged);
        }
        let mut written: Written =
            serde_json::from_slice(content).map_err(|_| Unusable::Content("content"))?;
        let host =
            SecretKey::parse(written.host_key.as_bytes()).map_err(|_| Unusable::Content("host key"))?;
        let recovery = written.recovery.parse().map_err(|_| Unusable::Content("recovery digest"))?;
        let snapshot = written.snapshot.as_ref().map(|text| STANDARD.decode(text).map(Zeroizing::new));
        let snapshot = snapshot.transpose().map_err(|_| Unusable::Content("snapshot"))?;
        let secret =
            |(name, text): (&Name, &String)| Ok((name.clone(), Zeroizing::new(STANDARD.decode(text)?)));
        let secrets = written.secrets.iter().map(secret).collect::<Result<_, base64::DecodeError>>();
        let secrets = secrets.map_err(|_| Unusable::Content("secrets"))?;
        let mut bonds = BTreeMap::new();
        for (name, WrittenBond { file, preshared }) in std::mem::take(&mut written.bonds) {
            let preshared = preshared.map(Zeroizing::new).map(|text| SharedKey::parse(text.as_bytes()));
            let preshared = preshared.transpose().map_err(|_| Unusable::Content("preshared key"))?;
            bonds.insert(name, Bond { file, preshared });
        }
        Ok(Self { appliance: written.appliance.clone(), host, bonds, recovery, snapshot, secrets })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::sys::wireguard::fresh_preshared_key;

    /// A credential for `lychd` with one bond.
    pub fn credential() -> Credential {
        let public = SecretKey::generate().public();
        let file = format!(
            "public-key = \"{public}\"\naddress = \"10.88.16.9\"\ngrants = [\"*\", \"bonds\"]\npreshared = true\n"
        );
        let bond = Bond { file, preshared: Some(fresh_preshared_key()) };
        Credential {
            appliance: "lychd".parse().unwrap(),
            host: SecretKey::generate(),
            bonds: [("tablet".parse().unwrap(), bond)].into(),
            recovery: Sha256Digest::of(b"phrase"),
            snapshot: None,
            secrets: Secrets::new(),
        }
    }

    #[test]
    fn a_credential_reads_back_as_it_was_written() {
        let mut made = credential();
        made.snapshot = Some(Zeroizing::new(b"archive".to_vec()));
        made.secrets.insert("token".parse().unwrap(), Zeroizing::new(vec![0, 255]));
        let read = Credential::parse(&made.to_bytes().unwrap()).unwrap();
        assert_eq!(read.host.public(), made.host.public());
        assert_eq!(read.recovery, made.recovery);
        assert!(read.snapshot == made.snapshot && read.secrets == made.secrets);
        let (name, bond) = read.bonds.first_key_value().unwrap();
        assert_eq!(
            (name, &bond.file),
            made.bonds.iter().map(|(name, bond)| (name, &bond.file)).next().unwrap()
        );
        assert!(bond.preshared == made.bonds[name].preshared);
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let bytes = credential().to_bytes().unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            assert!(Credential::parse(&changed).is_err(), "byte {at}");
            assert!(Credential::parse(&bytes[..at]).is_err(), "first {at} bytes");
        }
    }

    #[test]
    fn other_files_are_told_apart() {
        let error = |bytes: &[u8]| Credential::parse(bytes).err().unwrap();
        assert_eq!(error(b""), Unusable::Foreign);
        assert_eq!(error(&[0; 4096]), Unusable::Foreign);
        assert_eq!(error(b"sepulcher provision 2 x\n{}"), Unusable::Schema(2));
        let head = format!("{MAGIC}1 {}\n", Sha256Digest::of(b"{}"));
        assert_eq!(error(format!("{head}{{}}").as_bytes()), Unusable::Content("content"));
    }
}
