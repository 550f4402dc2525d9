//! How requests reach the bonds.

use std::path::Path;

use super::remote::Remote;
use super::{Where, list};
use crate::cli::{Failure, Kind, codex};
use crate::codex::key::PublicKey;
use crate::codex::plain;
use crate::peer::store::{self, Order, Place, Reply};
use crate::peer::{Broken, List, Observed, PeerView, Request};
use crate::tether::door;

/// The way to the bonds of an appliance.
#[derive(Debug)]
pub enum Transport {
    /// They are files of this machine.
    Local(Place),
    /// Its agent answers on the tether.
    Remote(Remote),
}

impl Where {
    /// The folders of this machine that the arguments name; without any, those of the appliance that runs this.
    pub fn local(&self) -> Result<Place, Failure> {
        if self.host.is_some() {
            return Err(Failure::new(Kind::Input, "this needs the bonds at hand").hint(
                "leave `--host` out, and run it on the appliance or name a folder with `--codex DIR`",
            ));
        }
        codex::place(self.codex.as_deref())
    }

    /// The appliance elsewhere that the arguments name, if they do.
    pub fn remote(&self) -> Result<Option<Remote>, Failure> {
        match &self.host {
            Some(_) if self.codex.is_some() => {
                Err(Failure::new(Kind::Input, "`--host` and `--codex` name two different bonds")
                    .hint("leave one of them out"))
            }
            host => host.as_deref().map(Remote::new).transpose(),
        }
    }
}

impl Transport {
    /// The way that the arguments describe.
    pub fn open(place: &Where) -> Result<Self, Failure> {
        match place.remote()? {
            Some(remote) => Ok(Self::Remote(remote)),
            None => place.local().map(Self::Local),
        }
    }

    /// What the agent sees; `None` where none is asked.
    pub fn observe(&self, place: &Where) -> Result<Option<Observed>, Failure> {
        match self {
            // A named folder is a workstation's, of which no agent knows.
            Self::Local(_) if place.codex.is_some() => Ok(None),
            Self::Local(_) => list::observe(Path::new(door::PATH)),
            Self::Remote(remote) => remote.observe().map(Some),
        }
    }

    /// All peers, and bonds that are broken.
    pub fn list(&self) -> Result<(Vec<PeerView>, Vec<Broken>), Failure> {
        let replies = self.send(&[Request::List(List {})], true, &mut |_| {})?;
        let (peers, broken): (Vec<_>, Vec<_>) =
            replies.into_iter().map(|reply| (reply.peers.unwrap_or_default(), reply.broken)).unzip();
        Ok((peers.concat(), broken.concat()))
    }

    /// The same, with the appliance's public key where it is given.
    #[must_use]
    pub fn with_host_key(self, key: Option<PublicKey>) -> Self {
        match self {
            Self::Local(place) => Self::Local(Place { host_key: key.or(place.host_key), ..place }),
            // It knows its own.
            Self::Remote(remote) => Self::Remote(remote),
        }
    }

    /// Carries out requests, all or none; `tell` is given the plan first.
    pub fn send(
        &self,
        requests: &[Request],
        dry_run: bool,
        tell: &mut dyn FnMut(&[String]),
    ) -> Result<Vec<Reply>, Failure> {
        let place = match self {
            Self::Local(place) => place,
            Self::Remote(remote) => {
                let replies = remote.send(requests, dry_run)?;
                let plan = replies.iter().flat_map(|reply| &reply.plan).map(|line| plain(line));
                tell(&plan.collect::<Vec<_>>());
                return Ok(replies);
            }
        };
        Ok(store::execute_all(place, Order { requests, who: &store::caller(), dry_run }, tell)?)
    }
}
