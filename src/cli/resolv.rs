//! `sepulcher resolv`: the pod asks the name servers that the host asks.
//!
//! Containers see one file for as long as they run, so it is written where it lies.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Failure, Kind};
use crate::sys::wake::{Wake, Waker};
use crate::sys::{fs, notify};

/// How long a change may stay unseen where the host's list cannot be watched: the host does not use systemd-resolved.
const RECHECK: Duration = Duration::from_secs(30);

/// No list of name servers is longer, in bytes.
const LIMIT: u64 = 64 << 10;

/// Lists of the host, and the one of systemd-resolved behind a stub. The appliance's first is a link to the second.
const LISTS: [&str; 2] = ["etc/resolv.conf", "run/systemd/resolve/resolv.conf"];

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
    let folders = LISTS.iter().filter_map(|list| root.join(list).parent().map(Path::to_owned));
    let mut waker = Waker::new(folders.collect()).map_err(failed)?;
    hand_on(root)?;
    notify::ready("the pod asks the host's name servers").map_err(failed)?;
    while waker.wait(RECHECK, None).map_err(failed)? != Wake::Stop {
        // What is wrong with a list now may be right in a moment; the pod keeps what it has.
        if let Err(error) = hand_on(root) {
            eprint!("{}", Failure::from(error));
        }
    }
    Ok(())
}

/// Writes the list that is in force to the pod's file, where that differs.
fn hand_on(root: &Path) -> Result<(), fs::Error> {
    let read = |path: &str| fs::if_there(fs::read_bounded(&root.join(path), LIMIT));
    let mut list = String::new();
    for path in LISTS {
        list = for_pod(&String::from_utf8_lossy(&read(path)?.unwrap_or_default()));
        if list.lines().any(|line| line.starts_with(SERVER)) {
            break;
        }
    }
    if read(POD)?.is_some_and(|old| old == list.as_bytes()) {
        Ok(())
    } else {
        fs::overwrite(&root.join(POD), list.as_bytes())
    }
}

/// The first word of a server's line.
const SERVER: &str = "nameserver";

/// What of a list is of use in the pod, which has no IPv6 way out, and whose loopback is another one.
fn for_pod(list: &str) -> String {
    let is_reached = |server: &str| server.parse().is_ok_and(|server: Ipv4Addr| !server.is_loopback());
    let is_kept = |line: &&str| {
        let mut words = line.split_whitespace();
        match words.next() {
            Some(SERVER) => words.next().is_some_and(is_reached),
            first => matches!(first, Some("search" | "options")),
        }
    };
    list.lines().filter(is_kept).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    #[test]
    fn who_has_the_file_open_reads_of_every_change() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write_atomic(&path, 0o644, text.as_bytes()).unwrap();
        };
        write(POD, "");
        let mut file = fs::open(&root.path().join(POD)).unwrap();
        let mut seen = || {
            hand_on(root.path()).unwrap();
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(seen(), "", "the host has no list");
        write(LISTS[0], "# by hand\nnameserver 127.0.0.1\n");
        assert_eq!(seen(), "", "who answers on the host's loopback does not on the pod's");
        for list in [
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions edns0\nsearch .\n",
            "nameserver\t192.0.2.3\n",
        ] {
            write(LISTS[1], list);
            assert_eq!(seen(), list, "it stands behind a stub");
        }
        write(LISTS[0], "nameserver 2001:db8::1\nnameserver fe80::1%2\nnameserver 192.0.2.4\n");
        assert_eq!(seen(), "nameserver 192.0.2.4\n", "there is no stub");
        // As on the appliance.
        fs::remove_file(&root.path().join(LISTS[0])).unwrap();
        write(LISTS[1], "# No DNS servers known.\nsearch .\n");
        assert_eq!(seen(), "search .\n");
    }
}
