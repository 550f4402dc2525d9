//! How a command ends when it cannot do what was asked.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::control::wire::Told;

/// Whose turn it is; decides the exit code.
///
/// There is none for Ctrl-C and SIGTERM: they end the process as signals do, so that a shell says 130 or 143 and a
/// script that called us stops too. No handler is needed to clean up: what is unfinished has no name or a hidden one,
/// and the next run removes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The Codex or another input is wrong, or a comparison found a difference: exit code 1.
    Input,
    /// Something that is needed cannot be had (a mirror, a package, a program): exit code 69.
    Unavailable,
    /// A defect of this program: exit code 70.
    Internal,
    /// The system refused to read or write: exit code 74.
    Io,
}

impl Kind {
    /// The exit code of the process.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Input => 1,
            Kind::Unavailable => 69,
            Kind::Internal => 70,
            Kind::Io => 74,
        }
    }

    /// The kind with that exit code.
    pub fn of_exit_code(code: u8) -> Option<Self> {
        [Self::Input, Self::Unavailable, Self::Internal, Self::Io]
            .into_iter()
            .find(|kind| kind.exit_code() == code)
    }
}

const FULL: &str = "free some space, or choose another disk: a builder's cache is in SEPULCHER_CACHE=DIR, an image where --out says, and an \
                    appliance has `sepulcher snapshot prune`";

/// A sentence, what caused it, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    /// Whose turn it is.
    pub kind: Kind,
    message: String,
    hint: Option<String>,
    /// Diagnostics that are already laid out, printed as they are before the sentence.
    report: Option<String>,
}

impl Failure {
    /// A failure told in one sentence (lower case, no full stop).
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, report: None }
    }

    /// A failure caused by `error`, whose own causes follow, one a line.
    pub fn from_error(kind: Kind, error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str("\n  caused by: ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        // Programs that we run tell it in words.
        let full = message.contains("No space left on device") || message.contains("Disk quota exceeded");
        let failure = Self::new(kind, message);
        if full { failure.of(Kind::Io).hint(FULL) } else { failure }
    }

    /// The same failure of another kind.
    #[must_use]
    pub fn of(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// Adds the remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds diagnostics that are already laid out.
    #[must_use]
    pub fn report(mut self, report: impl Into<String>) -> Self {
        self.report = Some(report.into());
        self
    }
}

impl From<&Failure> for Told {
    fn from(failure: &Failure) -> Self {
        let Failure { kind, message, hint, report } = failure;
        Self { kind: *kind, message: message.clone(), hint: hint.clone(), report: report.clone() }
    }
}

impl From<Told> for Failure {
    fn from(told: Told) -> Self {
        // What comes over the tether drives no terminal.
        let plain = |text: String| crate::codex::plain(&text);
        let Told { kind, message, hint, report } = told;
        Self { kind, message: plain(message), hint: hint.map(plain), report: report.map(plain) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(report) = &self.report {
            writeln!(f, "{}\n", report.trim_end())?;
        }
        writeln!(f, "error: {}", self.message)?;
        if let Some(hint) = &self.hint {
            writeln!(f, "hint: {hint}")?;
        }
        Ok(())
    }
}

impl From<crate::sys::fs::Error> for Failure {
    fn from(error: crate::sys::fs::Error) -> Self {
        Self::from_error(if error.is_not_found() { Kind::Input } else { Kind::Io }, &error)
    }
}
