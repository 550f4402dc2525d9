//! The configuration of a peer, as far as the appliance's side knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toml_edit::{DocumentMut, Item, Table, value};
use zeroize::Zeroize as _;

use super::{Change, Refused, Request, Situation};
use crate::codex::name::Name;
use crate::codex::{Codex, Diagnostic, Endpoint, LAW, Peer, Sources};
use crate::render::wireguard::{self, ClientKeys, PRIVATE_KEY_PLACEHOLDER};

/// A client configuration, with a placeholder for the private key. It may hold a preshared key: it shows itself to
/// nobody by accident, and its memory is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Client(String);

impl Client {
    /// The configuration's text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The same with the private key, in base64, in the place of its placeholder and what is said about that.
    #[must_use]
    pub fn with_private_key(&self, key: &str) -> Self {
        let mut text = String::with_capacity(self.0.len() + key.len());
        for line in self.0.split_inclusive('\n') {
            if line.trim_end().ends_with(PRIVATE_KEY_PLACEHOLDER) {
                if let Some(said) =
                    text.trim_end_matches('\n').rfind('\n').filter(|at| text[at + 1..].starts_with('#'))
                {
                    text.truncate(said + 1);
                }
                text.push_str(&line.replacen(PRIVATE_KEY_PLACEHOLDER, key, 1));
            } else {
                text.push_str(line);
            }
        }
        Self(text)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client(…)")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The configuration that `request` asks for beside its change; `None` when it asks for none.
pub fn client(
    request: &Request,
    change: &Change,
    situation: &Situation<'_>,
) -> Result<Option<Client>, Refused> {
    let dial = match request {
        Request::Bond(bond) if bond.client => &bond.dial,
        Request::Rotate(rotate) if rotate.client => &rotate.dial,
        _ => return Ok(None),
    };
    let name = &change.name;
    let mut codex = law_with(situation.codex, name, &change.peer);
    if let Some(dial) = dial {
        codex.tether.endpoint = Some(endpoint(dial, situation.sources)?);
    }
    if codex.tether.endpoint.is_none() {
        return Err(Refused::new(
            format!("it is not known what `{name}` dials to reach the appliance"),
            "name it with `--endpoint HOST`, or once for all as `endpoint` in `[tether]` of lychd.toml",
        ));
    }
    let Some(host) = situation.host_key else {
        return Err(Refused::new(
            "the appliance's public key is not known here",
            "give it with `--host-key KEY`: the console of the appliance shows it",
        ));
    };
    let preshared = change.preshared.as_ref().map(|(_, key)| key);
    let keys = ClientKeys { host: Some(&host), private: None, preshared };
    let defect =
        || Refused::new(format!("`{name}` has no configuration"), "this is a defect: please report it");
    wireguard::client(&codex, name, keys).ok().flatten().map(|text| Some(Client(text))).ok_or_else(defect)
}

/// The Codex with this peer alone, and those that it is granted: there may be thousands.
fn law_with(codex: &Codex, name: &Name, peer: &Arc<Peer>) -> Codex {
    let granted = peer.grants.peers.iter().filter_map(|name| codex.peers.get_key_value(name));
    let granted = granted.map(|(name, peer)| (name.clone(), peer.clone()));
    Codex {
        appliance: codex.appliance.clone(),
        uplink: codex.uplink.clone(),
        pod: codex.pod.clone(),
        tether: codex.tether.clone(),
        host: Vec::new(),
        rebirth: codex.rebirth.clone(),
        state: codex.state,
        services: BTreeMap::new(),
        peers: granted.chain([(name.clone(), peer.clone())]).collect(),
        revoked_keys: BTreeSet::new(),
        gone: BTreeSet::new(),
    }
}

/// What a peer dials, checked as if the law said so.
fn endpoint(dial: &str, sources: &Sources) -> Result<Endpoint, Refused> {
    let refused = |why: Option<&Diagnostic>| Refused {
        message: match why {
            Some(why) => format!("a peer cannot dial `{}`: {}", dial.escape_debug(), why.message),
            None => format!("a peer cannot dial `{}`", dial.escape_debug()),
        },
        hint: why.and_then(|why| why.hint.clone()),
        report: None,
    };
    let mut law: DocumentMut =
        sources.text(LAW).and_then(|law| law.parse().ok()).ok_or_else(|| refused(None))?;
    let tether = law.entry("tether").or_insert_with(|| Item::Table(Table::new()));
    tether["endpoint"] = value(dial);
    let text = law.to_string();
    let alone =
        sources.iter().filter(|(file, _)| file.starts_with("services/")).chain([(LAW, text.as_str())]);
    let codex = Codex::parse(&alone.collect()).map_err(|mistakes| refused(mistakes.first()))?;
    codex.tether.endpoint.ok_or_else(|| refused(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_takes_the_place_of_its_placeholder_and_of_what_is_said_about_it() {
        let told = format!(
            "# phone: the tether\n[Interface]\n# Replace it.\nPrivateKey = {PRIVATE_KEY_PLACEHOLDER}\nMTU = 1\n"
        );
        let whole = Client(told).with_private_key("KEY");
        assert_eq!(whole.text(), "# phone: the tether\n[Interface]\nPrivateKey = KEY\nMTU = 1\n");
        let bare = Client(format!("[Interface]\nPrivateKey = {PRIVATE_KEY_PLACEHOLDER}\n"));
        assert_eq!(bare.with_private_key("KEY").text(), "[Interface]\nPrivateKey = KEY\n");
        assert_eq!(format!("{whole:?}"), "Client(…)");
    }
}
