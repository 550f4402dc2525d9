//! `sepulcher console`: what stands in the place of a login. A menu without a shell, on the machine's own screen and
//! serial port: what this machine is, how it is, the first bond, and the way back to the body before.

mod bond;
mod input;
pub(super) mod machine;
mod proof;
mod rollback;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use input::{Answer, Input};

use super::output::age;
use super::peer::list;
use super::{Failure, Kind, recovery};
use crate::codex::plain;
use crate::peer::store::{self, Bonds, Place};
use crate::peer::{Observed, PeerView, StateWord};
use crate::sys::tty::Tty;
use crate::sys::{clock, fs};
use crate::tether::door;
use crate::tree::Sha256Digest;

/// From the top left corner, everything gone, what was scrolled away too.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";
/// After a key that means nothing: whoever leans on the keyboard does not keep the machine busy.
const PAUSE: Duration = Duration::from_millis(200);
/// What there is to press.
const KEYS: &str = "b bond a device   s peers   h health   r go back to the body before\n";
/// So many peers are listed.
const LISTED: usize = 16;

/// Arguments of `sepulcher console`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Root of the machine's files
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Shows the menu until the terminal is gone. Its unit starts it again.
pub fn run(args: &Args) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::from_error(Kind::Io, &error);
    let tty = Tty::take().map_err(failed)?;
    let mut console = Console {
        root: &args.root,
        place: Place::appliance(&args.root),
        input: Input::new(io::stdin().lock()),
        out: io::stdout().lock(),
        tty: tty.as_ref(),
        pause: std::thread::sleep,
        wrong: 0,
    };
    console.run().map_err(failed)
}

/// One terminal and the machine behind it.
struct Console<'a, R, W> {
    root: &'a Path,
    place: Place,
    input: Input<R>,
    out: W,
    tty: Option<&'a Tty>,
    pause: fn(Duration),
    /// Wrong recovery phrases in a row.
    wrong: u32,
}

impl<R: Read, W: Write> Console<'_, R, W> {
    fn run(&mut self) -> io::Result<()> {
        self.menu()?;
        loop {
            self.say("> ")?;
            let done = match self.input.line() {
                Answer::Gone => return Ok(()),
                Answer::Back => self.menu(),
                Answer::Line(key) => match key.as_str() {
                    "" => self.menu(),
                    "b" => self.bond(),
                    "s" => self.peers(),
                    "h" => self.say(&plain(&machine::findings())),
                    "r" => self.roll_back(),
                    _ => {
                        (self.pause)(PAUSE);
                        self.say("b, s, h or r, then Enter.\n")
                    }
                },
            };
            done?;
        }
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Tells why something was not done.
    fn refuse(&mut self, failure: &Failure) -> io::Result<()> {
        self.say(&format!("\n{}", plain(&failure.to_string())))
    }

    fn menu(&mut self) -> io::Result<()> {
        let Bonds { codex, broken, .. } = match self.bonds() {
            Ok(bonds) => bonds,
            Err(failure) => {
                self.refuse(&failure)?;
                return self.say(&format!("\n{KEYS}"));
            }
        };
        let addresses = machine::addresses(&codex);
        let addresses = if addresses.is_empty() { "none yet".to_owned() } else { addresses.join(" ") };
        let key = machine::public_key(self.root).unwrap_or_else(|| "none yet".to_owned());
        let bonded = codex.as_of(clock::now()).active().count();
        let broken = match broken.len() {
            0 => String::new(),
            count => format!(", and {count} of which the file is broken"),
        };
        self.say(&format!(
            "\n{}\n  address  {addresses}\n  health   {}\n  bonded   {bonded}{broken}\n  tether public key: {key}\n\n{KEYS}",
            codex.appliance.name,
            machine::health(),
        ))
    }

    fn peers(&mut self) -> io::Result<()> {
        let (bonds, observed) = match self.bonds().and_then(|bonds| Ok((bonds, self.observed()?))) {
            Ok(both) => both,
            Err(failure) => return self.refuse(&failure),
        };
        let views = PeerView::all(&bonds.codex, clock::now());
        let mut text = String::from("\n");
        for broken in bonds.broken.iter().take(LISTED) {
            text += &format!("  {}\n", plain(&broken.why()).replace('\n', " "));
        }
        for view in views.iter().take(LISTED) {
            text += &format!("  {:<32} {}\n", view.name, state(view, observed.as_ref()));
        }
        match views.len() {
            0 if bonds.broken.is_empty() => text += "nobody is bonded\n",
            count if count > LISTED => text += &format!("  and {} more\n", count - LISTED),
            _ => {}
        }
        self.say(&text)
    }

    fn bonds(&self) -> Result<Bonds, Failure> {
        Ok(store::load_sound(&self.place)?)
    }

    /// What the agent sees; `None` where none runs.
    fn observed(&self) -> Result<Option<Observed>, Failure> {
        list::observe(&self.root.join(door::PATH.trim_start_matches('/')))
    }

    /// Digest of the recovery phrase; `None` when none was made.
    fn recovery(&self) -> Result<Option<Sha256Digest>, Failure> {
        let path = self.place.secrets.join(recovery::FILE);
        let Some(bytes) = fs::if_there(fs::read_bounded(&path, 4096))? else { return Ok(None) };
        let unusable = || Failure::new(Kind::Input, format!("{} is unusable", path.display()));
        String::from_utf8_lossy(&bytes).trim().parse().map(Some).map_err(|_| unusable())
    }
}

fn state(view: &PeerView, observed: Option<&Observed>) -> String {
    match view.state {
        StateWord::Expired => "expired".to_owned(),
        StateWord::Revoked => "revoked".to_owned(),
        StateWord::Active => {
            let Some(observed) = observed else { return "bonded".to_owned() };
            let mut held = observed.peers.iter().filter(|peer| peer.public_key == view.public_key);
            match held.find_map(|peer| peer.last_handshake).filter(|at| *at > 0) {
                Some(at) => format!("handshake {}", age(observed.now.saturating_sub(at))),
                None => "bonded, no handshake yet".to_owned(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
