//! `sepulcher state`: why the state (`/var`) did not open, where that keeps the machine from going on.

use std::path::{Path, PathBuf};

use super::{Failure, codex};
use crate::codex::{Codex, Encryption};
use crate::peer::Refused;
use crate::peer::store::Place;
use crate::sys::{self, fs};

/// What a LUKS volume begins with.
const LUKS: &[u8] = b"LUKS\xba\xbe";

/// What is left where no machine opens the state.
const LOST: &str = "write the image to an empty disk: what the state held is lost then, but for a snapshot that was exported (`sepulcher provision --snapshot`)";

/// Arguments of `sepulcher state`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Root of the machine's files
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// What the machine shows of its state.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Whether the kernel knows a TPM 2.0.
    tpm: bool,
    partition: Partition,
    /// Whether it is decrypted.
    open: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Partition {
    Missing,
    Clear,
    Encrypted,
}

/// Says nothing when there is no reason to be seen.
pub fn run(args: &Args) -> Result<(), Failure> {
    let sources = sys::codex::load(&[&Place::appliance(&args.root).law]);
    let Codex { appliance, state, .. } =
        Codex::parse(&sources).map_err(|mistakes| codex::refused(&mistakes, &sources))?;
    let device = args.root.join(format!("dev/disk/by-partlabel/{}_state", appliance.name));
    let seen = Seen {
        tpm: fs::exists(&args.root.join("dev/tpmrm0"))?,
        partition: partition(&device)?,
        open: fs::exists(&args.root.join("dev/mapper/state"))?,
    };
    Ok(judge(state.encryption, seen)?)
}

fn partition(device: &Path) -> Result<Partition, fs::Error> {
    use std::io::Read as _;
    if !fs::exists(device)? {
        return Ok(Partition::Missing);
    }
    let mut start = Vec::new();
    let read = fs::open(device)?.take(LUKS.len() as u64).read_to_end(&mut start);
    fs::context(read, "read", device)?;
    Ok(if start == LUKS { Partition::Encrypted } else { Partition::Clear })
}

/// Refuses with the reason why a state that the law wants like this is not there.
fn judge(law: Encryption, Seen { tpm, partition, open }: Seen) -> Result<(), Refused> {
    let anew = format!("start the body that it was made with; or {LOST}");
    let home = format!("start the disk in its own machine with Secure Boot as it was; or {LOST}");
    let (message, hint) = match (law, partition) {
        (Encryption::Tpm2, Partition::Missing) if !tpm => (
            "the law encrypts the state to a TPM 2.0, and this machine has none: nothing is kept in clear instead",
            "turn the TPM on in the firmware, give the virtual machine one, or build with `[state] encryption = \"none\"`",
        ),
        (Encryption::Tpm2, Partition::Missing) => (
            "there is no partition for the state: it could not be made, or the TPM did not take its key",
            "use a disk of at least 2 GiB, and clear a TPM that somebody owns in the firmware; what systemd-repart said is above",
        ),
        (Encryption::None, Partition::Missing) => (
            "there is no partition for the state: it could not be made",
            "use a disk of at least 2 GiB; what systemd-repart said is above, or in the journal",
        ),
        (Encryption::Tpm2, Partition::Clear) => (
            "the law encrypts the state, and the one on this disk is in clear, or its header is damaged",
            anew.as_str(),
        ),
        (Encryption::None, Partition::Encrypted) => {
            ("the state on this disk is encrypted, and the law does not say so", anew.as_str())
        }
        (Encryption::Tpm2, Partition::Encrypted) if !tpm => (
            "the state is encrypted to a TPM 2.0, and this machine has none",
            "start the disk in the machine that it was made in, with its TPM turned on",
        ),
        (Encryption::Tpm2, Partition::Encrypted) if !open => (
            "the TPM of this machine does not open the state: it is another machine's, the TPM was cleared, or Secure Boot was changed since",
            home.as_str(),
        ),
        (Encryption::Tpm2, Partition::Encrypted) | (Encryption::None, Partition::Clear) => return Ok(()),
    };
    Err(Refused::new(message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAW: &str = "usr/share/sepulcher/codex/lychd.toml";

    /// Its path, and what it begins with.
    type Device = (&'static str, &'static [u8]);

    /// What is said of a machine with this law, and these devices.
    fn said(encryption: &str, devices: &[Device]) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        let law =
            format!("schema = 1\n[appliance]\nname = \"lychd\"\n[state]\nencryption = \"{encryption}\"\n");
        for (path, bytes) in devices.iter().copied().chain([(LAW, law.as_bytes())]) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, 0o600, bytes).unwrap();
        }
        run(&Args { root: root.path().to_owned() }).err().map(|failure| failure.to_string())
    }

    #[test]
    fn every_way_not_to_open_has_its_own_reason() {
        let tpm: Device = ("dev/tpmrm0", b"");
        let luks: Device = ("dev/disk/by-partlabel/lychd_state", b"LUKS\xba\xbe\0\x02 and more");
        let clear: Device = ("dev/disk/by-partlabel/lychd_state", b"\0\0\0\0\0\0\0\0");
        let open: Device = ("dev/mapper/state", b"");
        let reasons: [(&str, &[Device], &str); 8] = [
            ("tpm2", &[], "and this machine has none: nothing is kept in clear instead"),
            ("tpm2", &[tpm], "or the TPM did not take its key"),
            ("none", &[], "there is no partition for the state"),
            ("tpm2", &[luks], "is encrypted to a TPM 2.0, and this machine has none"),
            ("tpm2", &[tpm, luks], "the TPM of this machine does not open the state"),
            ("tpm2", &[tpm, clear], "the one on this disk is in clear"),
            ("none", &[tpm, luks], "the law does not say so"),
            ("none", &[("dev/disk/by-partlabel/lychd_state", b"LUK")], ""),
        ];
        for (law, devices, reason) in reasons {
            let said = said(law, devices);
            assert_eq!(said.is_none(), reason.is_empty(), "{law}: {said:?}");
            let said = said.unwrap_or_default();
            assert!(said.contains(reason) && said.contains("hint") != reason.is_empty(), "{law}: {said}");
        }
        assert_eq!(said("tpm2", &[tpm, luks, open]), None);
        assert_eq!(said("none", &[clear]), None);
    }
}
