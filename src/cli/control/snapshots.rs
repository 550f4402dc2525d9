//! The host's end of what a peer asks about the machine's snapshots: which there are, one of them, encrypted, and intents,
//! which this program writes and another one carries out.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::cli::snapshot::list::Listed;
use crate::cli::snapshot::travel::{leaving, sealed};
use crate::cli::{Failure, Kind};
use crate::codex::Door;
use crate::codex::name::Name;
use crate::peer::store::{Place, Who};
use crate::rebirth::inbox;
use crate::rebirth::intent::Record;
use crate::snapshot::wish::Named;
use crate::snapshot::{Manifest, store};
use crate::tether::door::snapshots::{Export, Question};
use crate::tree::Sha256Digest;

/// The longest export, in bytes: its base64 has to fit into an answer ([`super::wire::ANSWER`]).
pub const LONGEST: usize = 5 << 20;

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// All snapshots.
    List(Stand),
    /// What one of them holds.
    Show(Box<Shown>),
    /// One of them, encrypted.
    Export(Exported),
    /// The wish waits; the list tells what becomes of the file of this name.
    Accepted(String),
}

/// How things stand.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stand {
    /// All snapshots, the oldest first.
    pub snapshots: Vec<Listed>,
    /// What became of what this peer wished for lately, the oldest first.
    pub asked: Vec<Record>,
}

/// A snapshot whose bonds were read, and are whole.
#[derive(Debug, Serialize, Deserialize)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// What it is and holds.
    pub manifest: Manifest,
}

/// A snapshot that leaves.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exported {
    /// Its name.
    pub name: String,
    /// Digest of what is in it.
    pub digest: Sha256Digest,
    /// Whether the host's private key is.
    pub identity: bool,
    /// Volumes that stay on the machine.
    pub without: Vec<Name>,
    /// An age file, in base64.
    pub sealed: String,
}

/// Answers one question.
pub fn answer(root: &Path, peer: &Name, question: &Question) -> Result<Told, Failure> {
    super::permitted(root, peer, Door::Snapshots)?;
    let place = Place::appliance(root);
    match question {
        Question::List {} => Ok(Told::List(Stand {
            snapshots: store::list(&place)?.into_iter().map(Listed::from).collect(),
            asked: inbox::asked(root, peer)?,
        })),
        Question::Show(Named { snapshot }) => show(&place, snapshot.as_deref()),
        Question::Export(wanted) => export(&place, peer, wanted).map(Told::Export),
        Question::Wish { nonce, wish } => {
            super::sealed(root, "run `sepulcher snapshot` on the machine itself")?;
            Ok(Told::Accepted(inbox::put(root, &Who::Peer(peer.clone()), nonce, wish)?))
        }
    }
}

/// Tells what a snapshot holds. Its volumes are not read: they may be of any size, and somebody waits.
fn show(place: &Place, name: Option<&str>) -> Result<Told, Failure> {
    let (name, snapshot) = store::read_bonds(place, name)?;
    Ok(Told::Show(Box::new(Shown { name, manifest: snapshot.manifest })))
}

/// Encrypts a snapshot without its volumes, which may be of any size. The journal tells who took it.
fn export(place: &Place, peer: &Name, wanted: &Export) -> Result<Exported, Failure> {
    let Export { snapshot, recipients, with_identity } = wanted;
    if recipients.is_empty() {
        return Err(Failure::new(Kind::Input, "a snapshot leaves for a recipient alone, encrypted")
            .hint("name an age public key: `--recipient age1…`; `age-keygen` makes one"));
    }
    let (name, snapshot) = store::read_bonds(place, snapshot.as_deref())?;
    let without = snapshot.manifest.volumes.iter().map(|volume| volume.name.clone()).collect();
    let snapshot = leaving(&name, snapshot, *with_identity)?.with_volumes(Vec::new());
    let bytes = sealed(place, &name, &snapshot, Vec::new(), recipients, Path::new("the answer"))?;
    fits(&name, bytes.len())?;
    let key =
        if snapshot.manifest.identity { "with the host's private key" } else { "without the host's key" };
    let to: Vec<String> = recipients.iter().map(ToString::to_string).collect();
    eprintln!("peer {peer} took the snapshot {name}, {key}, encrypted to {}", to.join(" "));
    Ok(Exported {
        name,
        digest: store::digest(&snapshot.manifest),
        identity: snapshot.manifest.identity,
        without,
        sealed: STANDARD.encode(bytes),
    })
}

/// Refuses an export of more bytes than go over the tether.
pub fn fits(name: &str, length: usize) -> Result<(), Failure> {
    if length <= LONGEST {
        return Ok(());
    }
    let message = format!("{name} takes {length} bytes, and no more than {LONGEST} go over the tether");
    Err(Failure::new(Kind::Input, message)
        .hint("export it on the machine; of a sealed one, keep a copy of the disk instead"))
}
