//! How requests reach the bonds.

use std::path::Path;

use super::Where;
use crate::cli::{Failure, Kind};
use crate::codex::key::PublicKey;
use crate::peer::store::{self, Order, Place, Reply, Who};
use crate::peer::{List, PeerView, Request};

/// The way to the bonds of an appliance.
#[derive(Debug)]
pub enum Transport {
    /// They are files of this machine.
    Local(Place),
}

impl Where {
    /// The folders of this machine that the arguments name; without any, those of the appliance that runs this.
    pub fn local(&self) -> Result<Place, Failure> {
        let root = Path::new("/");
        match &self.codex {
            Some(folder) => Ok(Place::folder(folder)),
            None if Place::is_appliance(root)? => Ok(Place::appliance(root)),
            None => Err(Failure::new(Kind::Input, "no Codex is named, and this machine is no appliance")
                .hint("name the folder that holds lychd.toml: `--codex DIR`")),
        }
    }
}

impl Transport {
    /// The way that the arguments describe.
    pub fn open(place: &Where) -> Result<Self, Failure> {
        place.local().map(Self::Local)
    }

    /// All peers.
    pub fn list(&self) -> Result<Vec<PeerView>, Failure> {
        let replies = self.send(&[Request::List(List {})], true, &mut |_| {})?;
        Ok(replies.into_iter().filter_map(|reply| reply.peers).flatten().collect())
    }

    /// The same, with the appliance's public key where it is given.
    #[must_use]
    pub fn with_host_key(self, key: Option<PublicKey>) -> Self {
        let Self::Local(place) = self;
        Self::Local(Place { host_key: key.or(place.host_key), ..place })
    }

    /// Carries out requests, all or none; `tell` is given the plan first.
    pub fn send(
        &self,
        requests: &[Request],
        dry_run: bool,
        tell: &mut dyn FnMut(&[String]),
    ) -> Result<Vec<Reply>, Failure> {
        let Self::Local(place) = self;
        let who = Who::Uid(rustix::process::getuid().as_raw());
        Ok(store::execute_all(place, Order { requests, who: &who, dry_run }, tell)?)
    }
}
