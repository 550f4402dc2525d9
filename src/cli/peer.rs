//! `sepulcher peer`: the life of a bond, from the first QR code to the revocation.

mod bond;
mod bundle;
mod change;
pub mod deliver;
mod expiry;
pub mod list;
mod look;
mod remote;
mod transport;
pub mod watch;

use std::path::PathBuf;

use super::output::{json, print};
use super::{Failure, Kind};
use crate::peer::store::{self, Reply};
use crate::peer::{Refused, Request};
pub use remote::Remote;
pub use transport::Transport;

/// Verbs of `sepulcher peer`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Add a peer and show its configuration, once
    Bond(Box<bond::Bond>),
    /// Cut a peer off for good
    Revoke(change::Revoke),
    /// Give a peer a new key at the same name and address, and show its configuration, once
    Rotate(Box<bond::Rotate>),
    /// Let a peer reach more
    Grant(change::Granting),
    /// Let a peer reach less
    Ungrant(change::Granting),
    /// Set when a peer expires
    Extend(change::Extend),
    /// Show all peers: what the bonds say beside what the kernel holds
    List(look::List),
    /// Show all about one peer
    Show(look::Show),
    /// Print bonds as TOML, without anything secret
    Export(bundle::Export),
    /// Bond the peers of an export: all are decided before the first one is bonded
    Import(bundle::Import),
}

/// Runs a verb of `sepulcher peer`.
pub fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Bond(args) => bond::bond(args),
        Verb::Revoke(args) => change::revoke(args),
        Verb::Rotate(args) => bond::rotate(args),
        Verb::Grant(args) => change::grant(args),
        Verb::Ungrant(args) => change::ungrant(args),
        Verb::Extend(args) => change::extend(args),
        Verb::List(args) => look::list(args),
        Verb::Show(args) => look::show(args),
        Verb::Export(args) => bundle::export(args),
        Verb::Import(args) => bundle::import(args),
    }
}

/// Where the bonds are.
#[derive(Debug, clap::Args)]
pub struct Where {
    /// Folder of a Codex on a workstation [default: the bonds of this appliance]
    #[arg(long, value_name = "DIR")]
    codex: Option<PathBuf>,
    /// Appliance to ask over the tether, by its tunnel address or name; may stand before the verb too
    #[arg(long, value_name = "HOST[:PORT]")]
    host: Option<String>,
}

/// What all verbs have that change something.
#[derive(Debug, clap::Args)]
pub struct Changing {
    #[command(flatten)]
    place: Where,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the answer as JSON on standard output
    #[arg(long)]
    json: bool,
}

impl Changing {
    /// Carries out requests, all or none. The plan is told first: on standard output when it is what was asked for,
    /// else on standard error.
    fn send(&self, transport: &Transport, requests: &[Request]) -> Result<Vec<Reply>, Failure> {
        let asked_for = self.dry_run && !self.json;
        let mut told = Ok(());
        let replies = transport.send(requests, self.dry_run, &mut |plan| {
            let text: String = plan.iter().map(|line| format!("{line}\n")).collect();
            if asked_for {
                told = print(&text);
            } else {
                eprint!("{text}");
            }
        })?;
        told.map(|()| replies)
    }

    /// Carries out one request that needs no more than to be told.
    fn carry_out(&self, request: Request) -> Result<(), Failure> {
        let replies = self.send(&Transport::open(&self.place)?, &[request])?;
        replies.iter().try_for_each(|reply| self.answer(reply))
    }

    /// Prints an answer where JSON was asked for.
    fn answer(&self, reply: &Reply) -> Result<(), Failure> {
        if self.json {
            print(&json(reply)?)?;
        }
        Ok(())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        store::Error::from(refused).into()
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        use store::Error as E;
        match error {
            E::Refused(refused) => {
                let mut failure = Self::new(Kind::Input, refused.message);
                if let Some(hint) = refused.hint {
                    failure = failure.hint(hint);
                }
                if let Some(report) = refused.report {
                    failure = failure.report(report);
                }
                failure
            }
            E::Broken(count, report) => super::codex::broken(count, report),
            E::File(error) | E::Locked(store::NotLocked::File(error)) => file(&error),
            E::Unfinished(error) => {
                let failure =
                    Self::new(Kind::Io, format!("the change is done, but not its traces: {}", told(&error)));
                failure.hint("mend that; the next change of any peer does the rest")
            }
            E::Locked(busy @ store::NotLocked::Busy { .. }) => Self::from_error(Kind::Unavailable, &busy)
                .hint("nothing has changed: try again when it is done, or end it when it hangs"),
            E::HostKey(_) => Self::from_error(Kind::Input, &error).hint("restore it from a snapshot"),
            E::Log(_) => Self::from_error(Kind::Input, &error)
                .hint("`sepulcher audit verify` tells more; to begin a new log, move audit.jsonl away"),
        }
    }
}

/// A file that stood in the way of a change.
fn file(error: &crate::sys::fs::Error) -> Failure {
    use std::io::ErrorKind as K;
    let (kind, hint) = match error.source.kind() {
        K::StorageFull | K::QuotaExceeded => (Kind::Io, "nothing has changed: free some space there"),
        K::ReadOnlyFilesystem => (Kind::Io, "nothing has changed: make that file system writable"),
        K::PermissionDenied => (
            Kind::Io,
            "nothing has changed: run as the user that owns the bonds; on the appliance that is root",
        ),
        K::NotFound => (Kind::Input, "check the path; `sepulcher init DIR` writes a new Codex"),
        _ => (Kind::Io, "nothing has changed: look after that path"),
    };
    Failure::new(kind, told(error)).hint(hint)
}

/// An error with its cause in one line.
fn told(error: &crate::sys::fs::Error) -> String {
    format!("{error}: {}", error.source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::audit;
    use crate::sys::fs::Error;
    use crate::sys::journal::NotLocked;

    #[test]
    fn what_stands_in_the_way_has_its_kind_and_its_remedy() {
        let path = std::path::PathBuf::from("peers/phone.toml");
        let errno = |number: rustix::io::Errno| {
            let source = std::io::Error::from(number);
            store::Error::File(Error { action: "write", path: path.clone(), source })
        };
        let waited = std::time::Duration::from_secs(10);
        let busy = NotLocked::Busy { path: path.clone(), pid: Some(7), waited };
        for (error, kind, parts) in [
            (
                errno(rustix::io::Errno::NOSPC),
                Kind::Io,
                ["cannot write peers/phone.toml: No space", "free some space"],
            ),
            (errno(rustix::io::Errno::ROFS), Kind::Io, ["Read-only", "nothing has changed"]),
            (errno(rustix::io::Errno::ACCESS), Kind::Io, ["Permission denied", "run as the user"]),
            (errno(rustix::io::Errno::NOENT), Kind::Input, ["No such file", "sepulcher init"]),
            (busy.into(), Kind::Unavailable, ["locked by process 7 for 10 s", "nothing has changed"]),
            (audit::NoEnd.into(), Kind::Input, ["does not end in a record", "audit verify"]),
        ] {
            let failure = Failure::from(error);
            let said = failure.to_string();
            assert_eq!(failure.kind, kind, "{said}");
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
    }
}
