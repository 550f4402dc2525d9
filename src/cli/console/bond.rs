//! Bonds a device at the console and shows its configuration, once.

use std::io::{self, Read, Write};

use zeroize::Zeroizing;

use super::input::Answer;
use super::proof::{self, Proof};
use super::{CLEAR, Console, Failure, machine, recovery};
use crate::cli::recovery::Phrase;
use crate::codex::name::Name;
use crate::codex::plain;
use crate::codex::time::Timestamp;
use crate::peer::store::{self, Bonds, Who};
use crate::peer::{self, Client, Kind, Request};
use crate::qr::{self, Code, Ink};
use crate::sys::wireguard::SecretKey;
use crate::sys::{clock, fs, terminal};

/// Columns of a terminal that does not tell, as a serial one.
const COLUMNS: usize = 80;
/// Questions are asked so often before they are given up.
const ATTEMPTS: usize = 3;

/// What a dialog ends with: `None` when the person went back.
pub type Asked<T> = io::Result<Option<T>>;

impl<R: Read, W: Write> Console<'_, R, W> {
    /// The whole dialog.
    pub(super) fn bond(&mut self) -> io::Result<()> {
        let proof = match self.proof() {
            Ok(proof) => proof,
            Err(failure) => return self.refuse(&failure),
        };
        if !self.prove(&proof)? {
            return Ok(());
        }
        let Some((request, secret)) = self.request(&proof)? else { return self.say("\nnothing is bonded\n") };
        let client = match self.carry_out(&request, &proof) {
            Ok(client) => client.with_private_key(secret.to_file().trim_end()),
            Err(failure) => return self.refuse(&failure),
        };
        // The bond is made: without a phrase its configuration is shown all the same.
        match self.phrase() {
            Ok(phrase) => self.show(&client, phrase.as_ref()),
            Err(failure) => self.show(&client, None).and_then(|()| self.refuse(&failure)),
        }
    }

    /// What it takes.
    pub(super) fn proof(&self) -> Result<Proof, Failure> {
        // An agent that does not answer must not stand in the way of the phrase.
        let observed = self.observed().unwrap_or_default();
        Ok(proof::needed(&self.bonds()?, self.recovery()?, observed.as_ref(), clock::now()))
    }

    /// Whether whoever sits here may do what takes that.
    pub(super) fn prove(&mut self, proof: &Proof) -> io::Result<bool> {
        let digest = match proof {
            Proof::First => return Ok(true),
            Proof::Present(name) => {
                self.say(&format!("\n{name} is online and vouches for this.\n"))?;
                return Ok(true);
            }
            Proof::Phrase(None) => {
                self.say("\nA bonded device must be online: turn its tunnel on, and ask again.\n")?;
                return Ok(false);
            }
            Proof::Phrase(Some(digest)) => *digest,
        };
        self.say("\nNo bonded device is online. Turn one on and ask again, or type the\nrecovery phrase: ")?;
        self.echo(false)?;
        let typed = match self.input.line() {
            Answer::Line(typed) => Zeroizing::new(typed),
            Answer::Back | Answer::Gone => Zeroizing::default(),
        };
        self.echo(true)?;
        self.say("\n")?;
        if typed.is_empty() {
            return Ok(false);
        }
        if proof::is_phrase(&typed, digest) {
            self.wrong = 0;
            return Ok(true);
        }
        self.wrong = self.wrong.saturating_add(1);
        (self.pause)(proof::delay(self.wrong));
        self.say("This is not the recovery phrase.\n")?;
        Ok(false)
    }

    fn echo(&self, shown: bool) -> io::Result<()> {
        self.tty.map_or(Ok(()), |tty| tty.set_echo(shown))
    }

    /// Asks what is to be bonded.
    fn request(&mut self, proof: &Proof) -> Asked<(Request, SecretKey)> {
        let Bonds { codex, broken, .. } = match self.bonds() {
            Ok(bonds) => bonds,
            Err(failure) => return self.refuse(&failure).map(|()| None),
        };
        self.say("\nEnter takes what stands in brackets, Ctrl-D goes back.\n")?;
        let free = ["phone", "laptop", "tablet"]
            .into_iter()
            .filter_map(|name| name.parse::<Name>().ok())
            .find(|name| {
                codex.peer(name).is_none()
                    && !broken.iter().any(|broken| broken.name().as_ref() == Some(name))
            });
        let Some(name) = self.ask("name", free.as_ref().map_or("", Name::as_str), |typed| {
            typed.parse::<Name>().map_err(|error| error.to_string())
        })?
        else {
            return Ok(None);
        };
        let known = codex.tether.endpoint.is_some();
        let own = if known { Vec::new() } else { machine::addresses(&codex) };
        let dial = if known {
            None
        } else {
            let address = own.first().map(String::as_str).unwrap_or_default();
            let given =
                |typed: &str| if typed.is_empty() { Err("name it".to_owned()) } else { Ok(typed.to_owned()) };
            match self.ask("address that it dials to reach this machine", address, given)? {
                None => return Ok(None),
                dial => dial,
            }
        };
        let all = if *proof == Proof::First { "* bonds" } else { "*" };
        let words = |typed: &str| {
            Ok(typed.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect())
        };
        let Some(grants) = self.ask("services that it may reach; `bonds` to manage bonds", all, words)?
        else {
            return Ok(None);
        };
        let secret = SecretKey::generate();
        let request = Request::Bond(peer::Bond {
            name,
            public_key: secret.public(),
            address: None,
            address6: None,
            kind: Kind::Device,
            grants,
            expires: None,
            preshared: true,
            dial,
            client: true,
        });
        Ok(Some((request, secret)))
    }

    pub(super) fn ask<T>(
        &mut self,
        what: &str,
        suggested: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Asked<T> {
        for _ in 0..ATTEMPTS {
            let brackets = if suggested.is_empty() { String::new() } else { format!(" [{suggested}]") };
            self.say(&format!("{what}{brackets}: "))?;
            let typed = match self.input.line() {
                Answer::Line(typed) if typed.is_empty() => suggested.to_owned(),
                Answer::Line(typed) => typed,
                Answer::Back | Answer::Gone => return Ok(None),
            };
            match read(&typed) {
                Ok(value) => return Ok(Some(value)),
                Err(why) => self.say(&format!("{}\n", plain(&why)))?,
            }
        }
        Ok(None)
    }

    /// Bonds, if it still takes no more than what was proven.
    fn carry_out(&self, request: &Request, proof: &Proof) -> Result<Client, Failure> {
        let recovery = self.recovery()?;
        let still = |bonds: &Bonds, now: Timestamp| {
            let observed = self.observed().unwrap_or_default();
            proof.still_suffices(&proof::needed(bonds, recovery, observed.as_ref(), now))
        };
        let reply = store::execute_if(&self.place, &Who::Console, request, &still)?;
        let defect =
            || Failure::new(super::Kind::Internal, "the bond is made, but its configuration is not known");
        reply.client.ok_or_else(defect)
    }

    /// A recovery phrase, where none was ever made.
    fn phrase(&self) -> Result<Option<Phrase>, Failure> {
        if self.recovery()?.is_some() {
            return Ok(None);
        }
        let phrase = Phrase::generate();
        let digest = format!("{}\n", phrase.digest());
        fs::write_atomic(&self.place.secrets.join(recovery::FILE), 0o600, digest.as_bytes())?;
        Ok(Some(phrase))
    }

    /// Shows everything that is shown once, and takes it away again.
    fn show(&mut self, client: &Client, phrase: Option<&Phrase>) -> io::Result<()> {
        let text = client.text();
        self.say(CLEAR)?;
        let drawn = Zeroizing::new(drawn(text));
        self.say(&drawn)?;
        self.say(text)?;
        if let Some(phrase) = phrase {
            let phrase = Zeroizing::new(phrase.to_string());
            self.say("\nRecovery phrase, for the day when no bonded device is at hand: write it down.\n")?;
            self.say(&format!("recovery phrase: {}\n", *phrase))?;
        }
        self.say("\nThis is the only showing. Press Enter when the device has it: ")?;
        self.input.line();
        self.say(CLEAR)?;
        self.say("Bonded. A new configuration is another key: sepulcher peer rotate\n")
    }
}

/// The QR code, or why there is none.
fn drawn(text: &str) -> String {
    let code = match Code::of(&qr::compact(text)) {
        Ok(code) => code,
        Err(error) => return format!("{error}\n\n"),
    };
    // A serial terminal says nothing of its size, and scrolls.
    let size = terminal::told_size();
    let columns = size.map_or(COLUMNS, |size| size.columns);
    if let Some(size) = size.filter(|size| code.lines() > size.lines) {
        return format!("the QR code is {} lines high and this screen {}\n\n", code.lines(), size.lines);
    }
    code.terminal(Ink::Colours, columns)
        .map_or_else(|error| format!("{error}\n\n"), |lines| format!("{lines}\n"))
}
