//! Claims about snapshots that a peer asks for: nobody has a shell on the machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use sepulcher::snapshot::{IDENTITY, Snapshot};
use sepulcher::sys::wireguard::SecretKey;

use super::{database, rig};
use crate::Result;
use crate::e2e::Claim;
use crate::e2e::around::{WG0, Web, until};
use crate::e2e::scene::{COMMAND, Scene};

/// Has the laptop, which holds the grant, keep, take away and put back.
pub fn claims(scene: &Scene<'_>, key: &str) -> Vec<Claim> {
    let mut kept = String::new();
    vec![
        Claim::check("a peer without the grant is told nothing about snapshots", || {
            let web = Web { toolbox: &scene.site.toolbox };
            web.stays_silent(&scene.phone.netns, &format!("http://{WG0}:51821/snapshots"))
        }),
        Claim::check("a peer with it has a snapshot made, and finds it in the list", || {
            let words = ["create", "--bonds-only", "--with-identity", "--note", "over the tether"];
            scene.remote("snapshot", &words)?.trim().clone_into(&mut kept);
            let list = scene.remote("snapshot", &["list"])?;
            let row = list.lines().find(|row| row.starts_with(&kept) && row.ends_with("over the tether"));
            Ok(row.ok_or_else(|| format!("no {kept} in: {list}"))?.to_owned())
        }),
        Claim::check("it takes the bonds away encrypted, without the host's key", || {
            let bonds = exported(scene, "bonds.age", &["--snapshot", &kept])?;
            if bonds.manifest.identity || bonds.text("peers/laptop.toml").is_none() {
                return Err(format!("it holds {:?}", bonds.parts.keys()).into());
            }
            Ok(format!("{} files", bonds.parts.len()))
        }),
        Claim::check(
            "it takes the host's key, too, where it asks for that, and the journal tells who",
            || {
                let whole = exported(scene, "whole.age", &["--snapshot", &kept, "--with-identity"])?;
                let part = whole.parts.get(IDENTITY).ok_or("the host's key is not there")?;
                let told = SecretKey::parse(part)?.public().to_string();
                if told != key {
                    return Err(format!("its public key is {told}").into());
                }
                let journal =
                    rig(scene, "journalctl --boot --no-pager --output=cat --unit='sepulcher-control@*'")?;
                let taken = format!("peer laptop took the snapshot {kept}, with the host's private key");
                let line = journal.lines().find(|line| line.contains(&taken));
                Ok(line.ok_or_else(|| format!("nobody took it: {journal}"))?.to_owned())
            },
        ),
        Claim::check("it has it put back, follows it to the end, and is on record", || {
            let late = scene.bond("late", "192.0.2.25/24", key)?;
            let told = scene.remote("snapshot", &["restore", &kept])?;
            until(COMMAND, "the end of who was bonded later", || {
                Ok(scene.stays_out(&late.0, &late.1, key).is_ok())
            })?;
            let record = rig(scene, "sepulcher audit verify > /dev/null && sepulcher audit show")?;
            let is_it = |line: &&str| line.contains("peer laptop") && line.contains("restore");
            let line = record.lines().find(is_it).ok_or_else(|| format!("not on record: {record}"))?;
            Ok(format!("{}\n{line}", told.trim_end()))
        }),
        Claim::check("a database that it keeps is put back with what it held", || {
            let create = || Ok(scene.remote("snapshot", &["create", "--note", "row"])?.trim().to_owned());
            let restore = |kept: &str| scene.remote("snapshot", &["restore", "--with-volumes", kept]);
            database(scene, "far", &create, &restore)
        }),
    ]
}

/// What the laptop takes away, opened with the key that it was encrypted to.
fn exported(scene: &Scene<'_>, file: &str, words: &[&str]) -> Result<Snapshot> {
    let path = scene.site.folder.path().join(file);
    let identity = Identity::generate();
    let (target, recipient) = (path.display().to_string(), identity.to_public().to_string());
    scene.remote("snapshot", &[&["export", &target, "--recipient", &recipient], words].concat())?;
    let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
    if mode != 0o600 {
        return Err(format!("{target} has the mode {mode:o}").into());
    }
    super::opened(&path, identity.to_string().expose_secret())
}
