//! `sepulcher resolv`: the pod asks the name servers that the host asks.
//!
//! Containers see one file for as long as they run, so it is written where it lies.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Failure, Kind};
use crate::sys::fs;
use crate::sys::wake::{Wake, Waker};

/// How long a change may stay unseen where the host's list cannot be watched.
const RECHECK: Duration = Duration::from_secs(30);

/// No list of name servers is longer, in bytes.
const LIMIT: u64 = 64 << 10;

/// Where systemd-resolved lists the servers of the host's networks.
const RESOLVED: &str = "run/systemd/resolve";

/// The file that the pod's containers see.
const POD: &str = "run/sepulcher/resolv.conf";

/// Arguments of `sepulcher resolv`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Root of the machine's files
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Hands the list on until it is told to stop.
pub fn run(Args { root }: &Args) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::from_error(Kind::Io, &error);
    let mut waker = Waker::new(vec![root.join(RESOLVED)]).map_err(failed)?;
    loop {
        hand_on(root)?;
        if waker.wait(RECHECK, None).map_err(failed)? == Wake::Stop {
            return Ok(());
        }
    }
}

/// Writes the list that is in force to the pod's file, where that differs.
fn hand_on(root: &Path) -> Result<(), fs::Error> {
    let read = |path: &str| fs::if_there(fs::read_bounded(&root.join(path), LIMIT));
    let list = match read(&format!("{RESOLVED}/resolv.conf"))? {
        Some(list) => list,
        None => read("etc/resolv.conf")?.unwrap_or_default(),
    };
    if read(POD)?.as_ref() == Some(&list) { Ok(()) } else { fs::write(&root.join(POD), 0o644, &list) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    #[test]
    fn who_has_the_file_open_reads_of_every_change_and_of_no_stub() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write_atomic(&path, 0o644, text.as_bytes()).unwrap();
        };
        write("run/sepulcher/resolv.conf", "");
        let mut seen = fs::open(&root.path().join(POD)).unwrap();
        let mut seen = || {
            hand_on(root.path()).unwrap();
            let mut text = String::new();
            seen.rewind().unwrap();
            seen.read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(seen(), "", "the host knows none");
        write("etc/resolv.conf", "nameserver 127.0.0.53\n");
        assert_eq!(seen(), "nameserver 127.0.0.53\n");
        for list in ["nameserver 192.0.2.1\nnameserver 192.0.2.2\n", "nameserver 192.0.2.3\n", ""] {
            write("run/systemd/resolve/resolv.conf", list);
            assert_eq!(seen(), list);
        }
    }
}
