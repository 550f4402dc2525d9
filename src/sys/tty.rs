//! The terminal that a program talks to a person through.

use std::io;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Standard input as a terminal, in a mode of our own while the value lives.
pub struct Tty {
    before: Termios,
}

impl Tty {
    /// Takes the terminal on standard input: whole lines, and no key that sends a signal. `None` when it is none.
    pub fn take() -> io::Result<Option<Self>> {
        let before = match tcgetattr(io::stdin()) {
            Err(rustix::io::Errno::NOTTY) => return Ok(None),
            before => before?,
        };
        let tty = Self { before };
        tty.set_echo(true)?;
        Ok(Some(tty))
    }

    /// Whether what is typed is shown.
    pub fn set_echo(&self, shown: bool) -> io::Result<()> {
        let mut modes = self.before.clone();
        modes.local_modes |= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ECHOE | LocalModes::ECHOK;
        modes.local_modes &= !(LocalModes::ISIG | LocalModes::IEXTEN | LocalModes::TOSTOP);
        if !shown {
            modes.local_modes &= !LocalModes::ECHO;
        }
        Ok(tcsetattr(io::stdin(), OptionalActions::Now, &modes)?)
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // It fails when the terminal is gone, and then there is nothing to give back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
