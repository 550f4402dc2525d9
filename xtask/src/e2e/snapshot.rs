//! Claims about bonds and volumes that are put back: on the machine, while it runs, and bonds on another one.

mod tether;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use sepulcher::peer::audit::FILE as AUDIT;
use sepulcher::snapshot::{Snapshot, archive, seal};
use sepulcher::sys::cmd::Command;

use super::around::{Bonded, until};
use super::scene::{COMMAND, Scene};
use super::site::{Keys, Site};
use super::stream::{PAUSE, Stream};
use super::{BOOT, Claim, DISK};
use crate::vm::{Running, Start, disk_from};
use crate::{Result, image};

/// How long a snapshot with volumes may take, and what puts one back.
const VOLUMES: Duration = Duration::from_secs(400);

/// A peer and the keys that it has.
type Peer = (Bonded, Keys);

/// Has a machine restored, and another one made of what was exported.
pub fn claims(site: &Site) -> Result<Vec<Claim>> {
    let mut scene = Scene::new(site)?;
    let (mut running, key) = scene.act(&scene.first, &[])?;
    running.expect(BOOT, "sepulcher: health ok")?;
    scene.talks(&scene.laptop, &site.peers[1], &key)?;
    scene.talks(&scene.phone, &site.peers[0], &key)?;
    let mut stylus = scene.bond("stylus", "192.0.2.23/24", &key)?;
    let kept =
        rig(&scene, "sepulcher snapshot create --bonds-only --with-identity --note before 2> /dev/null")?;
    let mut claims = vec![Claim::check("a snapshot of the running machine is whole", || {
        rig(&scene, &format!("sepulcher snapshot verify {kept}"))
    })];
    let tablet = scene.bond("tablet", "192.0.2.24/24", &key)?;
    let stale = rotate(&scene, &mut stylus, &key)?;
    scene.admin(&["revoke", "phone", "--reason", "it was lost"])?;
    claims.push(Claim::check("it is restored while an untouched peer's stream goes on", || {
        let mut stream = Stream::open(&site.toolbox, &scene.laptop.netns)?;
        let start = Instant::now();
        let told = rig(&scene, &format!("sepulcher snapshot restore {kept}"))?;
        until(COMMAND, "the end of who was bonded later", || {
            Ok(scene.stays_out(&tablet.0, &tablet.1, &key).is_ok())
        })?;
        // What comes of it for others may come a moment later.
        std::thread::sleep(Duration::from_secs(5));
        let pause = stream.pause_since(start, PAUSE)?;
        Ok(format!("{told}\nthe longest pause was {} ms", pause.as_millis()))
    }));
    claims.push(Claim::check("who was bonded later is out", || scene.stays_out(&tablet.0, &tablet.1, &key)));
    claims.push(Claim::check("who was revoked later stays out", || {
        scene.stays_out(&scene.phone, &site.peers[0], &key)
    }));
    claims.push(Claim::check("a key that was rotated later stays dead, and the new one lives", || {
        let told = scene.stays_out(&stylus.0, &stale, &key)?;
        scene.talks(&stylus.0, &stylus.1, &key)?;
        Ok(told)
    }));
    claims.push(Claim::check("who is revived is back with the keys of old, and it is on record", || {
        rig(&scene, &format!("sepulcher snapshot restore --revive phone {kept}"))?;
        scene.talks(&scene.phone, &site.peers[0], &key)?;
        let record = rig(&scene, "sepulcher audit verify > /dev/null && sepulcher audit show")?;
        let line = record.lines().find(|line| line.contains("revive"));
        Ok(line.ok_or_else(|| format!("no revival is on record: {record}"))?.to_owned())
    }));
    claims.push(Claim::check("a database is put back with what it held, and the machine is healthy", || {
        let create = || rig_long(&scene, "sepulcher snapshot create --note row 2> /dev/null");
        let restore =
            |kept: &str| rig_long(&scene, &format!("sepulcher snapshot restore --with-volumes {kept}"));
        database(&scene, "near", &create, &restore)
    }));
    claims.extend(tether::claims(&scene, &key));
    // Whom the law bonds, and a machine that knew nothing would let in.
    scene.admin(&["revoke", "phone", "--reason", "it was lost once more"])?;
    let taken = taken(&scene)?;
    scene.off(running)?;
    let heir = heir(&mut scene, &taken);
    claims.push(Claim::check("a new sealed machine takes the place of the lost one, with its key", || {
        let (_, told) = heir.as_ref().map_err(ToString::to_string)?;
        if *told == key {
            Ok(format!("its public key is {key}"))
        } else {
            Err(format!("its public key is {told}").into())
        }
    }));
    claims.push(Claim::check("its peers are back, and had nothing to change", || {
        for (peer, keys) in [(&scene.laptop, &site.peers[1]), (&stylus.0, &stylus.1)] {
            scene.talks(peer, keys, &key)?;
        }
        Ok(format!("laptop and {}", stylus.1.name))
    }));
    claims.push(Claim::check("whose key was dead stays out, though the law of the new one bonds it", || {
        scene.stays_out(&stylus.0, &stale, &key)?;
        scene.stays_out(&scene.phone, &site.peers[0], &key)
    }));
    claims.push(Claim::check("its log goes on where that of the lost one ended", || {
        scene.talks(&scene.laptop, &site.peers[1], &key)?;
        let log = |[sealed, identity]: &[PathBuf; 2]| -> Result<String> {
            let snapshot = opened(sealed, &fs::read_to_string(identity)?)?;
            Ok(snapshot.text(AUDIT).unwrap_or_default().to_owned())
        };
        let (before, now) = (log(&taken)?, log(&self::taken(&scene)?)?);
        let lines = before.lines().count();
        if lines > 0 && now.starts_with(&before) && now.lines().count() > lines {
            Ok(format!("{} lines behind {lines}", now.lines().count() - lines))
        } else {
            Err(format!("{before}\nbecame\n{now}").into())
        }
    }));
    Ok(claims)
}

fn rig(scene: &Scene<'_>, line: &str) -> Result<String> {
    scene.first.run(line, COMMAND)
}

/// The same of what volumes take.
fn rig_long(scene: &Scene<'_>, line: &str) -> Result<String> {
    scene.first.run(line, VOLUMES)
}

/// A row of a new table is kept, changed, and put back with the volume that it is in. `create` makes a snapshot and tells
/// its name, which `restore` is given.
fn database(
    scene: &Scene<'_>,
    table: &str,
    create: &dyn Fn() -> Result<String>,
    restore: &dyn Fn(&str) -> Result<String>,
) -> Result<String> {
    sql(scene, &format!("create table {table} (value integer)"))?;
    sql(scene, &format!("insert into {table} values (1)"))?;
    let start = Instant::now();
    let kept = create()?;
    let taken = start.elapsed();
    sql(scene, &format!("update {table} set value = 2"))?;
    holds(scene, table, "2")?;
    let start = Instant::now();
    restore(&kept)?;
    let restored = start.elapsed();
    until(COMMAND, "the answer of the database that was put back", || Ok(sql(scene, "select 1").is_ok()))?;
    holds(scene, table, "1")?;
    let health = scene.first.run("sepulcher health --timeout 120s", VOLUMES)?;
    if !health.contains("sepulcher: health ok") {
        return Err(format!("the machine is not healthy: {health}").into());
    }
    Ok(format!("kept in {} s, put back in {} s", taken.as_secs(), restored.as_secs()))
}

/// What the database answers, as text without headings.
pub fn sql(scene: &Scene<'_>, statement: &str) -> Result<String> {
    rig(
        scene,
        &format!(
            "podman exec systemd-lychd-phylactery /usr/lib/postgresql/17/bin/psql --host=127.0.0.1 --username=postgres \
             --no-psqlrc --quiet --tuples-only --no-align --command '{statement}'"
        ),
    )
}

fn holds(scene: &Scene<'_>, table: &str, value: &str) -> Result<()> {
    let told = sql(scene, &format!("select value from {table}"))?;
    if told == value { Ok(()) } else { Err(format!("the row is {told}, not {value}").into()) }
}

/// Gives a peer new keys over the tether; those that it had.
fn rotate(scene: &Scene<'_>, peer: &mut Peer, key: &str) -> Result<Keys> {
    let keys = scene.handed(&peer.1.name, &["rotate", &peer.1.name])?;
    scene.talks(&peer.0, &keys, key)?;
    Ok(std::mem::replace(&mut peer.1, keys))
}

/// What the laptop takes off the machine: an export with the host's key, and the file with the key that opens it.
fn taken(scene: &Scene<'_>) -> Result<[PathBuf; 2]> {
    let folder = tempfile::tempdir_in(scene.site.folder.path())?.keep();
    let files = ["soul.age", "soul.key"].map(|name| folder.join(name));
    let identity = Identity::generate();
    fs::write(&files[1], identity.to_string().expose_secret())?;
    scene.remote("snapshot", &["create", "--bonds-only", "--with-identity", "--note", "leaves"])?;
    let (file, to) = (files[0].display().to_string(), identity.to_public().to_string());
    scene.remote("snapshot", &["export", &file, "--with-identity", "--recipient", &to])?;
    Ok(files)
}

/// What an export holds.
fn opened(sealed: &Path, identity: &str) -> Result<Snapshot> {
    let opened = seal::open(fs::File::open(sealed)?, identity).map_err(|why| why.message)?;
    Ok(archive::read(opened, &mut |_, _, _| Ok(()))?)
}

/// A machine that was never anything, with the export on its disk, as its owner boots it; its public key.
fn heir(scene: &mut Scene<'_>, [sealed, identity]: &[PathBuf; 2]) -> Result<(Running, String)> {
    let site = scene.site;
    let [provisioned, disk] = ["heir-image.raw", "heir.raw"].map(|name| site.folder.path().join(name));
    fs::copy(&site.image, &provisioned)?;
    let made = Command::new(image::program()?)
        .args(["provision", "--disk"])
        .arg(&provisioned)
        .arg("--codex")
        .arg(site.codex())
        .arg("--snapshot")
        .arg(sealed)
        .arg("--identity")
        .arg(identity);
    made.read()?;
    scene.disk = disk_from(&provisioned, &disk, DISK)?;
    let (mut running, key) = scene.power_on(Start::Disk(&scene.disk), &[])?;
    running.expect(BOOT, "sepulcher: health ok")?;
    Ok((running, key))
}
