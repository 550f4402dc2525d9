//! `sepulcher awaken`: identity and bonds of a machine, made on its first boot and told on every one.

mod provisioned;

use std::path::{Path, PathBuf};

use provisioned::Places;

use super::{Failure, Kind, rebirth};
use crate::codex::SCHEMA;
use crate::codex::key::PublicKey;
use crate::codex::migrate::{FORMS, MARKER, marker};
use crate::peer::store::{Place, caller, migrate};
use crate::snapshot::store as snapshot;
use crate::sys::codex::FILE_LIMIT;
use crate::sys::fs;
use crate::sys::wireguard::SecretKey;

const STATE: &str = "var/lib/sepulcher";
const RUNTIME: &str = "run/sepulcher";

/// Arguments of `sepulcher awaken`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Root of the machine's files
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Makes what is missing and prints the console's welcome.
pub fn run(args: &Args) -> Result<(), Failure> {
    let secrets = args.root.join(STATE).join("secrets");
    fs::create_dir_all(&secrets)?;
    fs::set_mode(&secrets, 0o700)?;
    let place = Place::appliance(&args.root);
    let Place { law, bonds, .. } = &place;
    // The peers tell whether a restore was done, as long as they are the same folder.
    bring_volumes(&place);
    bring_bonds(&place);
    let seed = |seeds| seed(seeds, law, bonds);
    let places = Places { root: &args.root, law, bonds, secrets: &secrets };
    for line in provisioned::take_over(&places, &seed)? {
        println!("{line}");
    }
    let key = host_key(&secrets)?;
    seed(Seeds::Law)?;
    let runtime = args.root.join(RUNTIME);
    fs::create_dir_all(&runtime)?;
    // The unit's umask is strict; the public key is for everybody.
    fs::set_mode(&runtime, 0o755)?;
    fs::write_atomic(&runtime.join("tether.pub"), 0o644, format!("{key}\n").as_bytes())?;
    rebirth::note_boot(&args.root);
    print!("{}", welcome(&name(law)?, key));
    Ok(())
}

/// Brings the bonds to this body's schema before anybody reads them. Where that fails the machine goes on without any:
/// they are refused to everybody who would read them, so that this body does not prove healthy.
fn bring_bonds(place: &Place) {
    match migrate::bring(place, &caller(), FORMS) {
        Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
        Err(error) => eprint!("{}", Failure::from(error)),
    }
}

/// Ends a restore of volumes that lost its power, before any service starts. Where that fails, what lies there is whole all
/// the same, and the next command that changes snapshots tries again.
fn bring_volumes(place: &Place) {
    let host = snapshot::Host::new(&|line| println!("{line}"));
    match snapshot::recover_at_boot(place, &host) {
        Ok(line) => line.iter().for_each(|line| println!("{line}")),
        Err(error) => eprint!("{}", Failure::from(error)),
    }
}

/// The public half of the host's key, which is made when there is none. One that is there is never
/// replaced: it is what every client knows this host by.
fn host_key(secrets: &Path) -> Result<PublicKey, Failure> {
    let path = secrets.join("tether.key");
    match fs::read_bounded(&path, 4096) {
        Ok(bytes) => read_key(&path, &zeroize::Zeroizing::new(bytes)),
        Err(error) if error.is_not_found() => {
            let secret = SecretKey::generate();
            match fs::create_atomic(&path, 0o600, secret.to_file().as_bytes()) {
                Ok(()) => Ok(secret.public()),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn read_key(path: &Path, bytes: &[u8]) -> Result<PublicKey, Failure> {
    match SecretKey::parse(bytes) {
        Ok(secret) => {
            fs::set_mode(path, 0o600)?;
            Ok(secret.public())
        }
        Err(error) => {
            Err(Failure::new(Kind::Input, format!("the host's key {} is unusable: {error}", path.display()))
                .hint("restore it from a snapshot, or move it away: then a new one is made, and every client needs the new public key"))
        }
    }
}

/// What a machine begins with.
#[derive(Debug, Clone, Copy)]
enum Seeds {
    /// The bonds of its law.
    Law,
    /// None: bonds come from elsewhere, and those of the law were before them.
    Nothing,
}

/// Gives a machine that has no bonds yet those that it begins with, all of them or none.
fn seed(seeds: Seeds, law: &Path, bonds: &Path) -> Result<(), Failure> {
    fs::create_dir_all(bonds)?;
    let shadow = bonds.join(".peers.new");
    // What a power loss in the middle of an earlier seeding left.
    fs::remove_dir_all(&shadow)?;
    let peers = bonds.join("peers");
    if fs::exists(&peers)? {
        return Ok(());
    }
    fs::create_dir_all(&shadow)?;
    fs::set_mode(&shadow, 0o755)?;
    let seeds = match seeds {
        Seeds::Nothing => Vec::new(),
        Seeds::Law => fs::if_there(fs::list(&law.join("peers")))?.unwrap_or_default(),
    };
    for seed in seeds.iter().filter(|seed| seed.extension().is_some_and(|extension| extension == "toml")) {
        if let Some(file) = seed.file_name() {
            fs::write_atomic(&shadow.join(file), 0o644, &fs::read_bounded(seed, FILE_LIMIT)?)?;
        }
    }
    fs::write_atomic(&shadow.join(MARKER), 0o644, marker(SCHEMA).as_bytes())?;
    Ok(fs::rename(&shadow, &peers)?)
}

/// The appliance's name, straight from the law: a welcome must not depend on every bond being right.
fn name(law: &Path) -> Result<String, Failure> {
    let path = law.join("lychd.toml");
    let bytes = fs::read_bounded(&path, FILE_LIMIT)?;
    let unusable =
        |reason: &str| Failure::new(Kind::Input, format!("cannot use {}: {reason}", path.display()));
    let text = str::from_utf8(&bytes).map_err(|_| unusable("it is not UTF-8"))?;
    let table: toml::Table = text.parse().map_err(|_| unusable("it is not TOML"))?;
    let name =
        table.get("appliance").and_then(|appliance| appliance.get("name")).and_then(toml::Value::as_str);
    name.map(str::to_owned).ok_or_else(|| unusable("`appliance.name` is missing"))
}

fn welcome(name: &str, key: PublicKey) -> String {
    format!(
        "\n{name} is awake.\n\
         tether public key: {key}\n\
         To bond a device, press b at this console; a device with the grant `bonds`\n\
         bonds others: sepulcher --host ADDRESS peer bond NAME\n\n"
    )
}

#[cfg(test)]
pub mod tests {
    pub use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    pub const LAW: &str = "usr/share/sepulcher/codex";

    pub fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let law = root.path().join(LAW);
        fs::create_dir_all(&law.join("peers")).unwrap();
        fs::write_atomic(&law.join("lychd.toml"), 0o644, b"schema = 1\n[appliance]\nname = \"lychd\"\n")
            .unwrap();
        fs::write_atomic(&law.join("peers/phone.toml"), 0o644, &peer(2)).unwrap();
        fs::write_atomic(&law.join("peers/laptop.toml"), 0o644, &peer(3)).unwrap();
        root
    }

    fn peer(last: u8) -> Vec<u8> {
        let key = SecretKey::generate().public();
        format!("public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\ngrants = []\n").into_bytes()
    }

    pub fn awaken(root: &Path) -> Result<(), Failure> {
        run(&Args { root: root.to_owned() })
    }

    /// Files of a seeded folder of peers, which says in which schema they are.
    fn seeded(peers: &Path) -> Vec<String> {
        assert_eq!(fs::read(&peers.join(MARKER)).unwrap(), marker(SCHEMA).as_bytes());
        assert_eq!(mode(&peers.join(MARKER)), 0o644);
        let names = fs::list_named(peers, |name| name != MARKER).unwrap();
        names.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_first_boot_makes_a_private_key_and_tells_the_public_one() {
        let root = machine();
        awaken(root.path()).unwrap();
        let secrets = root.path().join(STATE).join("secrets");
        assert_eq!(mode(&secrets), 0o700);
        assert_eq!(mode(&secrets.join("tether.key")), 0o600);
        let secret = SecretKey::parse(&fs::read(&secrets.join("tether.key")).unwrap()).unwrap();
        let public = fs::read(&root.path().join(RUNTIME).join("tether.pub")).unwrap();
        assert_eq!(String::from_utf8(public).unwrap(), format!("{}\n", secret.public()));
        assert_eq!(fs::list(&secrets).unwrap().len(), 1);
    }

    #[test]
    fn a_boot_removes_half_of_a_snapshot_and_nothing_else_of_them() {
        let root = machine();
        awaken(root.path()).unwrap();
        let snapshots = root.path().join(STATE).join("snapshots");
        fs::create_dir_all(&snapshots).unwrap();
        let [whole, half] = ["2026-11-29T160000Z", "2026-11-29T170000Z"]
            .map(|name| snapshots.join(format!("{name}{}", snapshot::EXTENSION)));
        fs::write(&whole, 0o600, b"whole").unwrap();
        fs::open_temporary(&half, 0o600).unwrap();
        awaken(root.path()).unwrap();
        let left = fs::list_named(&snapshots, |name| name != ".lock").unwrap();
        assert_eq!(left, [whole]);
    }

    #[test]
    fn later_boots_change_neither_key_nor_bonds() {
        let root = machine();
        awaken(root.path()).unwrap();
        let key = root.path().join(STATE).join("secrets/tether.key");
        let before = fs::read(&key).unwrap();
        let peers = root.path().join(STATE).join("codex/peers");
        fs::remove_file(&peers.join("phone.toml")).unwrap();
        awaken(root.path()).unwrap();
        assert_eq!(fs::read(&key).unwrap(), before);
        assert_eq!(seeded(&peers), ["laptop.toml"]);
    }

    #[test]
    fn a_malformed_key_is_an_error_and_is_not_replaced() {
        let root = machine();
        let secrets = root.path().join(STATE).join("secrets");
        fs::create_dir_all(&secrets).unwrap();
        let key = secrets.join("tether.key");
        fs::write_atomic(&key, 0o600, b"").unwrap();
        let failure = awaken(root.path()).unwrap_err();
        assert_eq!(failure.kind, Kind::Input);
        assert!(failure.to_string().contains("tether.key is unusable"), "{failure}");
        assert_eq!(fs::read(&key).unwrap(), b"");
    }

    #[test]
    fn a_seeding_that_broke_off_is_done_anew() {
        let root = machine();
        let bonds = root.path().join(STATE).join("codex");
        fs::create_dir_all(&bonds.join(".peers.new")).unwrap();
        fs::write_atomic(&bonds.join(".peers.new/half.toml"), 0o644, b"x").unwrap();
        awaken(root.path()).unwrap();
        let peers = bonds.join("peers");
        assert_eq!(fs::list(&bonds).unwrap(), std::slice::from_ref(&peers));
        assert_eq!(seeded(&peers), ["laptop.toml", "phone.toml"]);
    }

    #[test]
    fn a_law_without_peers_seeds_an_empty_folder() {
        let root = machine();
        fs::remove_dir_all(&root.path().join(LAW).join("peers")).unwrap();
        awaken(root.path()).unwrap();
        assert!(seeded(&root.path().join(STATE).join("codex/peers")).is_empty());
    }

    #[test]
    fn an_old_body_returns_to_the_bonds_that_were_kept_before_anybody_reads_them() {
        let root = machine();
        awaken(root.path()).unwrap();
        let codex = root.path().join(STATE).join("codex");
        let peers = codex.join("peers");
        // What a body of schema 2 leaves: its own bonds, and these beside.
        fs::rename(&peers, &codex.join("peers.schema-1")).unwrap();
        fs::create_dir_all(&peers).unwrap();
        fs::write_atomic(&peers.join(MARKER), 0o644, marker(2).as_bytes()).unwrap();
        fs::write_atomic(&peers.join("phone.toml"), 0o644, b"newer").unwrap();
        awaken(root.path()).unwrap();
        assert_eq!(seeded(&peers), ["laptop.toml", "phone.toml"]);
        assert_eq!(fs::read(&codex.join("peers.schema-2/phone.toml")).unwrap(), b"newer");
    }

    #[test]
    fn bonds_that_this_body_cannot_read_keep_it_from_its_health_and_not_from_its_identity() {
        let root = machine();
        awaken(root.path()).unwrap();
        let peers = root.path().join(STATE).join("codex/peers");
        fs::write_atomic(&peers.join(MARKER), 0o644, marker(SCHEMA + 1).as_bytes()).unwrap();
        let told = root.path().join(RUNTIME).join("tether.pub");
        fs::remove_file(&told).unwrap();
        awaken(root.path()).unwrap();
        assert!(fs::exists(&told).unwrap());
        assert_eq!(fs::list(&peers).unwrap().len(), 3);
        let place = Place::appliance(root.path());
        let refused = crate::tether::source::in_force(&place.law, &place.bonds).unwrap_err();
        assert!(refused.to_string().contains("these bonds are of schema 2"), "{refused}");
    }
}
