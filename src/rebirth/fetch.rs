//! Brings a bundle into the machine's state, from wherever it is, before anything of it is believed.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Error;
use crate::codex::net::Net4;
use crate::codex::{Codex, PeerState, UrlPrefix};
use crate::peer::Refused;
use crate::sys::http::Client;
use crate::sys::{fs, link, netns, stage};

/// The tunnel's interface.
const INTERFACE: &str = "wg0";

/// No bundle is longer, in bytes: both slots' worth of everything.
const LIMIT: u64 = 1 << 30;
/// No bundle has more files.
const FILES: usize = 16;
/// How long a server may take to be there.
const CONNECT: Duration = Duration::from_secs(30);
/// How long it may be silent: a peer that is gone says nothing more, and holds up whoever waits for its turn.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a bundle may take to come.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Where a bundle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A folder of its files.
    Folder(&'a Path),
    /// A tar archive of these.
    Archive(&'a Path),
    /// Such an archive elsewhere.
    Address(&'a str, Way),
}

/// The way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The host's own.
    Uplink,
    /// Through `wg0`, which is in the pod.
    Tether,
}

impl<'a> Origin<'a> {
    /// What a person means by `source`; an address must begin with one that the law allows.
    pub fn of(source: &'a str, codex: &Codex) -> Result<Self, Error> {
        let allowed = &codex.rebirth.sources;
        if !source.contains("://") {
            let path = Path::new(source);
            return Ok(if path.is_dir() { Origin::Folder(path) } else { Origin::Archive(path) });
        }
        if let Some(prefix) = allowed.iter().find(|prefix| prefix.covers(source)) {
            return Ok(Origin::Address(source, way(prefix, codex)?));
        }
        let named: Vec<_> = allowed.iter().map(UrlPrefix::as_str).collect();
        let hint = if named.is_empty() {
            "its law names no `sources`: bring the update as a folder or a file, or name them in the next body"
                .to_owned()
        } else {
            format!("its law names {}", named.join(", "))
        };
        Err(Refused::new(format!("this body fetches nothing from {source}"), hint).into())
    }

    /// Copies the bundle's files to `folder`, which must not be there. `tether` tells the network namespace that has
    /// `wg0`, where that is the way.
    pub fn bring(self, folder: &Path, tether: impl FnOnce() -> Result<PathBuf, Error>) -> Result<(), Error> {
        fs::create_dir_all(folder)?;
        fs::set_mode(folder, 0o700)?;
        match self {
            Origin::Folder(from) => copy(from, folder),
            Origin::Archive(from) => {
                let file = fs::open(from)?;
                room(folder, fs::size(from)?)?;
                unpack(file, folder, &from.display().to_string())
            }
            Origin::Address(address, Way::Uplink) => download(address, folder),
            Origin::Address(address, Way::Tether) => through(&tether()?, || download(address, folder)),
        }
    }
}

/// Another server than the law's is not asked, wherever this one points to.
fn download(address: &str, folder: &Path) -> Result<(), Error> {
    unpack(Client::direct(CONNECT, SILENCE, PATIENCE).get(address, 0)?.body, folder, address)
}

/// Fetches in the network namespace at `path`, where the tunnel is. That of an agent that has just started has neither
/// ruleset nor interface, and what is asked for there would leave by the uplink; the interface comes last.
fn through(path: &Path, fetch: impl FnOnce() -> Result<(), Error> + Send) -> Result<(), Error> {
    let network = fs::if_there(fs::open(path))?.ok_or_else(without_tether)?;
    let fetched = netns::within(network.as_fd(), || {
        let found = link::exists(INTERFACE).map_err(io::Error::other);
        if fs::context(found, "find the tunnel in", path)? { fetch() } else { Err(without_tether().into()) }
    });
    fs::context(fetched, "enter", path)?
}

/// What is told where the pod has no tunnel.
pub(super) fn without_tether() -> Refused {
    let hint = "`sepulcher health` tells what is wrong; a folder or a file can be staged without it";
    Refused::new("the source lies in the tether, and its agent does not run, or not yet", hint)
}

/// How what lies below a prefix is reached. Peers and the networks behind them are in the tether also when they are not
/// there: what is meant for them never leaves by the uplink.
///
/// # Errors
/// The network was behind a peer that is revoked: nothing leads there any more.
fn way(prefix: &UrlPrefix, codex: &Codex) -> Result<Way, Refused> {
    let Some(host) = prefix.address() else { return Ok(Way::Uplink) };
    if codex.tether.contains(host) {
        return Ok(Way::Tether);
    }
    let behind = |network: &Net4| matches!(host, IpAddr::V4(address) if network.contains(address));
    let mut owners = codex.peers.iter().filter(|(_, peer)| peer.routes().iter().any(behind)).peekable();
    let Some((name, _)) = owners.peek().copied() else { return Ok(Way::Uplink) };
    if owners.any(|(_, peer)| peer.state == PeerState::Active) {
        return Ok(Way::Tether);
    }
    let hint = "bring the update as a folder or a file, or name another source in the next body";
    Err(Refused::new(format!("{host} was behind `{name}`, which is revoked"), hint))
}

/// Refuses what would fill the machine's state.
fn room(folder: &Path, wanted: u64) -> Result<(), Error> {
    let free = fs::free_space(folder)?;
    // The bonds need to be written, too.
    if wanted.saturating_add(32 << 20) <= free {
        return Ok(());
    }
    let message = format!("the bundle takes {} MiB, and the state has {} MiB left", wanted >> 20, free >> 20);
    Err(Refused::new(
        message,
        "remove snapshots (`sepulcher snapshot prune`), or give the machine a larger disk",
    )
    .into())
}

fn copy(from: &Path, folder: &Path) -> Result<(), Error> {
    let files = fs::list(from)?;
    if files.len() > FILES {
        return Err(no_bundle(&from.display().to_string(), "it has too many files"));
    }
    let sizes: Result<Vec<u64>, _> = files.iter().map(|path| fs::size(path)).collect();
    room(folder, sizes?.iter().sum())?;
    for path in files.iter().filter(|path| path.is_file()) {
        stage::copy(path, &folder.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Takes files out of an archive: flat ones, with plain names, so many and so long.
fn unpack(archive: impl Read, folder: &Path, shown: &str) -> Result<(), Error> {
    let unreadable = |error: io::Error| Error::Archive { shown: shown.to_owned(), source: error };
    let mut archive = tar::Archive::new(archive.take(LIMIT));
    let mut count = 0;
    // As they are: long names and the like would be read into memory, and no file of a bundle needs them.
    for entry in archive.entries().map_err(unreadable)?.raw(true) {
        let mut entry = entry.map_err(unreadable)?;
        let kind = entry.header().entry_type();
        // What some programs write before each file: times, owners.
        if kind.is_pax_local_extensions() || kind.is_pax_global_extensions() {
            continue;
        }
        let path = entry.path().map_err(unreadable)?.into_owned();
        let name = path.strip_prefix(".").unwrap_or(&path).to_owned();
        if kind.is_dir() && name.as_os_str().is_empty() {
            continue;
        }
        count += 1;
        let plain = name.components().count() == 1 && name.file_name() == Some(name.as_os_str());
        if !kind.is_file() || !plain || count > FILES {
            return Err(no_bundle(shown, &format!("`{}` is no file of one", path.display())));
        }
        room(folder, entry.size())?;
        let target = folder.join(&name);
        let mut file = fs::context(File::create_new(&target), "create", &target)?;
        io::copy(&mut entry, &mut file).map_err(unreadable)?;
    }
    if count == 0 { Err(no_bundle(shown, "it is empty")) } else { Ok(()) }
}

fn no_bundle(shown: &str, why: &str) -> Error {
    let hint = "`sepulcher image build --sign KEY` makes one; as one file: `tar -C FOLDER -cf FILE .`";
    Refused::new(format!("{shown} is no update bundle: {why}"), hint).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(files: &[(&str, &[u8])]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("incoming");
        fs::create_dir_all(&target).unwrap();
        unpack(&archive(files)[..], &target, "a.tar").map_err(|error| error.to_string())?;
        assert_eq!(fs::list(folder.path()).unwrap().len(), 1);
        let name = |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        Ok(fs::list(&target).unwrap().iter().map(name).collect())
    }

    #[test]
    fn flat_files_are_taken_and_nothing_else() {
        assert_eq!(unpacked(&[("./SHA256SUMS", b"x"), ("a.efi", b"y")]).unwrap(), ["SHA256SUMS", "a.efi"]);
        for path in ["../a", "/a", "a/b", "./a/../b"] {
            let error = unpacked(&[(path, b"x")]).unwrap_err();
            assert!(error.contains("is no update bundle"), "{path}: {error}");
        }
        assert!(unpacked(&[]).unwrap_err().ends_with("it is empty"));
        assert!(unpacked(&[("a", b"1"), ("a", b"2")]).is_err());
    }

    #[test]
    fn a_folder_and_its_archive_bring_the_same_files() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        fs::create_dir_all(&from).unwrap();
        fs::write(&from.join("one"), 0o644, b"1").unwrap();
        fs::write(&folder.path().join("a.tar"), 0o644, &archive(&[("one", b"1")])).unwrap();
        for (index, source) in [from.clone(), folder.path().join("a.tar")].into_iter().enumerate() {
            let target = folder.path().join(index.to_string());
            let origin = Origin::of(source.to_str().unwrap(), &codex("")).unwrap();
            origin.bring(&target, || panic!("it is on this machine")).unwrap();
            assert_eq!(fs::read(&target.join("one")).unwrap(), b"1");
        }
    }

    #[test]
    fn what_would_fill_the_state_is_not_brought() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        fs::create_dir_all(&from).unwrap();
        // More than any disk has that this test runs on; a hole takes none of it.
        let size = 1 << 43;
        File::create_new(from.join("root")).unwrap().set_len(size).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("root").unwrap();
        header.set_size(size);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        fs::write(&folder.path().join("a.tar"), 0o644, &[&header.as_bytes()[..], &[0; 512]].concat())
            .unwrap();
        for source in [from, folder.path().join("a.tar")] {
            let target = folder.path().join("incoming");
            let origin = Origin::of(source.to_str().unwrap(), &codex("")).unwrap();
            let refused = origin.bring(&target, || panic!("it is on this machine")).unwrap_err().to_string();
            assert!(refused.starts_with("the bundle takes 8388608 MiB, and the state has "), "{refused}");
            assert_eq!(fs::list(&target).unwrap(), [""; 0].map(std::path::PathBuf::from));
            fs::remove_dir_all(&target).unwrap();
        }
    }

    #[test]
    fn a_length_beyond_all_numbers_is_more_than_there_is_room_for() {
        let folder = tempfile::tempdir().unwrap();
        for wanted in [u64::MAX, u64::MAX - 2047] {
            room(folder.path(), wanted).unwrap_err();
        }
        room(folder.path(), 0).unwrap();
    }

    #[test]
    fn headers_of_others_are_passed_over_and_none_is_read_into_memory() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |kind: tar::EntryType, name: &str, size: u64, bytes: &mut dyn Read| {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(size);
            header.set_entry_type(kind);
            header.set_cksum();
            builder.append(&header, bytes).unwrap();
        };
        add(tar::EntryType::XHeader, "x", 18, &mut &b"18 path=renamed.x\n"[..]);
        add(tar::EntryType::Regular, "a.efi", 1, &mut &b"y"[..]);
        add(tar::EntryType::GNULongName, "l", 8 << 20, &mut io::repeat(b'n').take(8 << 20));
        let bytes = builder.into_inner().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut left = &bytes[..];
        let error = unpack(&mut left, folder.path(), "a.tar").unwrap_err();
        assert!(error.to_string().contains("is no file of one"), "{error}");
        assert!(left.len() > 7 << 20, "it was read");
        assert_eq!(fs::list(folder.path()).unwrap(), [folder.path().join("a.efi")]);
    }

    #[test]
    fn an_archive_that_breaks_off_cannot_be_read() {
        let whole = archive(&[("a", &[1; 4096])]);
        for length in [700, 1024, 4096] {
            let folder = tempfile::tempdir().unwrap();
            let error = unpack(&whole[..length], folder.path(), "a.tar").unwrap_err();
            assert_eq!(error.to_string(), "cannot read the update bundle a.tar", "{length}");
        }
    }

    fn codex(sources: &str) -> Codex {
        codex_with(sources, "active")
    }

    /// The same with the state of the peer that a network is behind.
    fn codex_with(sources: &str, state: &str) -> Codex {
        let key = crate::sys::wireguard::SecretKey::generate().public();
        let publisher = crate::rebirth::publisher::SigningKey::generate().unwrap().public();
        let law = format!(
            "schema = 1\n[appliance]\nname = \"lychd\"\n[tether]\nnetwork6 = \"fd4c:7963:6864::/64\"\n\
             [rebirth]\npublisher = \"{publisher}\"\nsources = [{sources}]\n"
        );
        let site = format!(
            "kind = \"lych\"\npublic-key = \"{key}\"\naddress = \"10.88.16.2\"\ngrants = []\n\
             routes = [\"192.168.7.0/24\"]\nstate = \"{state}\"\n"
        );
        let sources = [("lychd.toml", law), ("peers/site.toml", site)];
        Codex::parse(&sources.into_iter().collect()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
    }

    #[test]
    fn what_peers_have_is_reached_through_the_tether_and_nothing_else_is() {
        for (prefix, expected) in [
            ("http://10.88.16.2/", Way::Tether),
            ("http://10.88.31.254:8080/lychd/", Way::Tether),
            ("http://[fd4c:7963:6864::7]:80/", Way::Tether),
            ("http://[::ffff:10.88.16.2]/", Way::Tether),
            ("http://192.168.7.9/lychd/", Way::Tether),
            ("http://10.88.32.1/", Way::Uplink),
            ("http://192.0.2.1/lychd/", Way::Uplink),
            ("https://[fd4c:7963:6865::7]/", Way::Uplink),
            ("https://updates.example/", Way::Uplink),
        ] {
            let (address, codex) = (format!("{prefix}2.tar"), codex(&format!("{prefix:?}")));
            assert_eq!(Origin::of(&address, &codex).unwrap(), Origin::Address(&address, expected));
        }
    }

    #[test]
    fn nothing_is_fetched_from_behind_a_peer_that_is_revoked() {
        let codex = codex_with("\"http://192.168.7.9/\", \"http://10.88.16.2/\"", "revoked");
        let error = Origin::of("http://192.168.7.9/2.tar", &codex).unwrap_err();
        assert_eq!(error.to_string(), "192.168.7.9 was behind `site`, which is revoked");
        let own = "http://10.88.16.2/2.tar";
        assert_eq!(Origin::of(own, &codex).unwrap(), Origin::Address(own, Way::Tether));
    }

    #[test]
    fn nothing_is_fetched_where_the_tether_is_away() {
        let codex = codex("\"http://10.88.16.2/\"");
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::of("http://10.88.16.2/2.tar", &codex).unwrap();
        let gone = folder.path().join("gone");
        let error = origin.bring(&folder.path().join("incoming"), || Ok(gone.clone())).unwrap_err();
        assert!(error.to_string().contains("its agent does not run"), "{error}");
    }

    #[test]
    fn addresses_are_those_that_the_law_allows() {
        let allowed = codex("\"https://updates.example/lychd/\"");
        let address = "https://updates.example/lychd/2.tar";
        assert_eq!(Origin::of(address, &allowed).unwrap(), Origin::Address(address, Way::Uplink));
        for source in [
            "https://updates.example/other/2.tar",
            "http://updates.example/lychd/2.tar",
            "https://updates.example/lychd/../2.tar",
            "file:///a",
        ] {
            assert!(Origin::of(source, &allowed).unwrap_err().to_string().contains("fetches nothing from"));
        }
        assert!(Origin::of(address, &codex("")).is_err());
    }
}
