//! Passphrases, typed on a terminal without being shown, or read from standard input when that is none.

use std::io::{self, Read as _};

use zeroize::Zeroizing;

use super::{Failure, Kind};
use crate::sys::tty::Tty;

/// The longest passphrase, in bytes; minisign's bound.
const LONGEST: usize = 1024;
/// What the keys Ctrl-C and Ctrl-D type while nothing is shown.
const INTERRUPT: u8 = 3;

/// A new one: asked twice on a terminal.
pub fn choose() -> Result<Zeroizing<String>, Failure> {
    let Some(tty) = terminal()? else { return given(line()?) };
    let first = given(shown_nothing(&tty, "passphrase of the new key: ")?)?;
    let second = shown_nothing(&tty, "the same again: ")?;
    if first == second {
        Ok(first)
    } else {
        Err(Failure::new(Kind::Input, "the two passphrases differ").hint("try it again"))
    }
}

/// One that was chosen before.
pub fn ask(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    given(match terminal()? {
        Some(tty) => shown_nothing(&tty, prompt)?,
        None => line()?,
    })
}

fn terminal() -> Result<Option<Tty>, Failure> {
    Tty::take().map_err(|error| Failure::from_error(Kind::Io, &error))
}

fn given(passphrase: Zeroizing<String>) -> Result<Zeroizing<String>, Failure> {
    if passphrase.is_empty() {
        return Err(Failure::new(Kind::Input, "there is no passphrase")
            .hint("type one, or give a line with it on standard input"));
    }
    Ok(passphrase)
}

fn shown_nothing(tty: &Tty, prompt: &str) -> Result<Zeroizing<String>, Failure> {
    tty.set_echo(false).map_err(|error| Failure::from_error(Kind::Io, &error))?;
    eprint!("{prompt}");
    let line = line();
    eprintln!();
    line
}

/// A line of standard input without its end; what follows stays unread.
fn line() -> Result<Zeroizing<String>, Failure> {
    let wrong = |message: &str| Failure::new(Kind::Input, message);
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
    let (mut input, mut byte) = (io::stdin().lock(), Zeroizing::new([0]));
    while input.read(byte.as_mut_slice()).map_err(|error| Failure::from_error(Kind::Io, &error))? == 1 {
        match byte[0] {
            b'\n' => break,
            INTERRUPT => return Err(wrong("given up")),
            _ if line.len() == LONGEST => {
                return Err(wrong("the passphrase is longer than 1024 bytes").hint("take a shorter one"));
            }
            byte => line.push(byte),
        }
    }
    let text = std::str::from_utf8(&line).map_err(|_| wrong("the passphrase is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}
