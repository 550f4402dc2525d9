//! Hands a peer's configuration over, once: on the terminal, as a file, as an image.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Failure, Kind};
use crate::cli::output::print;
use crate::cli::qr;
use crate::codex::name::Name;
use crate::peer::store::Reply;
use crate::sys::wireguard::SecretKey;
use crate::sys::{fs, terminal};

/// Where the configuration goes. Without any of these: a QR code on a terminal, else text on standard output.
#[derive(Debug, clap::Args)]
pub struct Outputs {
    /// Write the configuration to FILE, for its owner alone; `-` is standard output
    #[arg(long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Write its QR code as a PNG image to FILE, for its owner alone
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Write its QR code as an SVG image to FILE, for its owner alone
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Where a file is named, standard output.
const STDOUT: &str = "-";

/// Files that are there, empty, before there is anything to write: a configuration that is made cannot be made again.
/// Until it is handed over they go with the value.
pub struct Delivery<'a> {
    to: &'a Outputs,
    json: bool,
    made: Vec<&'a Path>,
}

impl<'a> Delivery<'a> {
    /// Makes the files, none of which may exist.
    pub fn prepare(to: &'a Outputs, json: bool) -> Result<Self, Failure> {
        if json && to.conf.as_deref() == Some(Path::new(STDOUT)) {
            return Err(Failure::new(Kind::Input, "JSON and the text cannot share standard output")
                .hint("leave `--conf -` out: the JSON holds the configuration as `client`"));
        }
        let mut delivery = Self { to, json, made: Vec::new() };
        for path in to.files() {
            fs::create_atomic(path, 0o600, b"").map_err(|error| refused(&error))?;
            delivery.made.push(path);
        }
        Ok(delivery)
    }

    /// Hands over the configuration in `reply`, completed by the private key that was made here, and leaves it in
    /// there only for JSON that is its one showing.
    pub fn hand_over(
        mut self,
        name: &Name,
        reply: &mut Reply,
        secret: Option<&SecretKey>,
    ) -> Result<(), Failure> {
        let made = std::mem::take(&mut self.made);
        let Some(client) = reply.client.take() else { return Ok(()) };
        let client = match secret {
            Some(secret) => client.with_private_key(secret.to_file().trim_end()),
            None => client,
        };
        let mut written = Vec::new();
        let shown = self.write(client.text(), secret.is_some(), &mut written);
        if self.json && made.is_empty() && shown.is_ok() {
            reply.client = Some(client);
        }
        shown.map_err(|failure| unwritten(failure, name, &made, &written))?;
        if secret.is_some() {
            eprintln!(
                "This is the only showing: its private key is kept nowhere. `sepulcher peer rotate {name}` makes another."
            );
        } else {
            eprintln!("Put the peer's private key into it; it is shown this once.");
        }
        Ok(())
    }

    /// Writes it everywhere, first to where it always fits. Files that hold all of it are in `written`, also on an error.
    fn write(&self, text: &str, complete: bool, written: &mut Vec<&'a Path>) -> Result<(), Failure> {
        let Outputs { conf, png, svg } = self.to;
        let mut file =
            |path: &'a Path, bytes: &[u8]| fs::write_atomic(path, 0o600, bytes).map(|()| written.push(path));
        if let Some(path) = self.to.conf_file() {
            file(path, text.as_bytes())?;
        }
        if let Some(path) = png {
            let image = qr::code(text)?.png().map_err(|error| Failure::from_error(Kind::Internal, &error))?;
            file(path, &Zeroizing::new(image))?;
        }
        if let Some(path) = svg {
            file(path, Zeroizing::new(qr::code(text)?.svg()).as_bytes())?;
        }
        match conf {
            Some(path) if path == Path::new(STDOUT) => print(text),
            Some(_) => Ok(()),
            None if png.is_some() || svg.is_some() || self.json => Ok(()),
            // Without the private key a code is of no use.
            None if complete && terminal::size().is_some() => show(text),
            None => print(text),
        }
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        for path in &self.made {
            // The error that brought us here is the one to tell; what is left is an empty file.
            let _ = fs::remove_file(path);
        }
    }
}

impl Outputs {
    /// A file for the text.
    #[cfg(test)]
    pub fn conf(path: PathBuf) -> Self {
        Self { conf: Some(path), png: None, svg: None }
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        let Self { conf: _, png, svg } = self;
        [self.conf_file(), png.as_deref(), svg.as_deref()].into_iter().flatten()
    }

    fn conf_file(&self) -> Option<&Path> {
        self.conf.as_deref().filter(|path| *path != Path::new(STDOUT))
    }
}

/// The QR code, or the text where the terminal is too narrow for it.
fn show(text: &str) -> Result<(), Failure> {
    match qr::shown(text) {
        Ok(drawn) => print(&Zeroizing::new(drawn)),
        Err(failure) => {
            eprint!("{failure}");
            print(text)
        }
    }
}

/// Why a file cannot be made; nothing else has happened.
fn refused(error: &fs::Error) -> Failure {
    if error.source.kind() == std::io::ErrorKind::AlreadyExists {
        let message = format!("{} exists, and a configuration never replaces a file", error.path.display());
        return Failure::new(Kind::Input, message).hint("name another file, or move that one away");
    }
    super::file(error)
}

/// The bond is made, its configuration did not arrive everywhere.
fn unwritten(failure: Failure, name: &Name, made: &[&Path], written: &[&Path]) -> Failure {
    for path in made.iter().filter(|path| !written.contains(path)) {
        // Half an image helps nobody; the failure is told already.
        let _ = fs::remove_file(path);
    }
    failure.hint(match written.first() {
        Some(path) => format!("the bond is made, and its configuration is in {}", path.display()),
        None => format!(
            "the bond is made, its configuration is lost: `sepulcher peer rotate {name}` makes another"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Client;

    /// What handing over so long a text to these three files comes to, and which of them are there afterwards.
    fn handed_over(conf: bool, length: usize) -> (Result<(), Failure>, Vec<&'static str>) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Some(folder.path().join(name));
        let to = Outputs { conf: at("w.conf").filter(|_| conf), png: at("w.png"), svg: at("w.svg") };
        let delivery = Delivery::prepare(&to, false).unwrap();
        let client: Client = serde_json::from_value("x".repeat(length).into()).unwrap();
        let mut reply = Reply {
            schema: 1,
            plan: Vec::new(),
            peer: None,
            peers: None,
            broken: Vec::new(),
            client: Some(client),
        };
        let outcome = delivery.hand_over(&"wraith".parse().unwrap(), &mut reply, None);
        let there = ["w.conf", "w.png", "w.svg"].into_iter().filter(|name| folder.path().join(name).exists());
        (outcome, there.collect())
    }

    #[test]
    fn a_configuration_that_is_too_long_for_a_code_stays_where_it_fits() {
        let (outcome, there) = handed_over(true, 100);
        assert!(outcome.is_ok() && there.len() == 3, "{there:?}");
        let (outcome, there) = handed_over(true, 5000);
        assert_eq!(there, ["w.conf"]);
        let said = outcome.unwrap_err().to_string();
        assert!(said.contains("its configuration is in ") && said.contains("w.conf"), "{said}");
        let (outcome, there) = handed_over(false, 5000);
        assert!(there.is_empty(), "{there:?}");
        assert!(outcome.unwrap_err().to_string().contains("configuration is lost"));
    }
}
