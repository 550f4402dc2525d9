//! Updates: sources are of use to a body that knows whose signature to ask for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::codex::UrlPrefix;
use crate::codex::diagnostic::Diagnostic;
use crate::codex::schema::{At, Draft, Field, Law};

/// Checks `[rebirth]`.
pub fn check(draft: &Draft, mistakes: &mut Vec<Diagnostic>) {
    let Some(law) = &draft.law else { return };
    patience(law, mistakes);
    let Field::Given(sources) = &law.sources else { return };
    if !law.publisher.is_written() && !sources.value.is_empty() {
        let message = "there are sources of updates, and nobody whose signature makes one good";
        let mistake = Diagnostic::error(message, &sources.place);
        mistakes.push(mistake.hint("write `publisher = ` and the key that `sepulcher keygen` prints"));
    }
    let mut seen = BTreeMap::new();
    for source in &sources.value {
        if let Some(first) = seen.insert(&source.value, &source.place) {
            let mistake = Diagnostic::error("this source is named twice", &source.place);
            mistakes.push(mistake.related(first, "the first").hint("remove one of the two"));
        }
        mistakes.extend(in_the_tether(law, source));
    }
}

/// What is wrong with a source at an address of the tether: only a peer can be one, and nobody certifies its address.
fn in_the_tether(law: &Law, source: &At<UrlPrefix>) -> Option<Diagnostic> {
    let host = source.value.address()?;
    let is_peer = match (host, &law.network, &law.network6) {
        (IpAddr::V4(host), Some(network), _) if network.value.contains(host) => {
            let network = network.value;
            ![network.address(), network.first_host(), network.last()].contains(&host)
        }
        (IpAddr::V6(host), _, Field::Given(network)) if network.value.contains(host) => {
            let network = network.value;
            ![network.address(), network.first_host()].contains(&host)
        }
        _ => return None,
    };
    let (message, hint) = if !is_peer {
        let hint = "name the tunnel address of the peer that serves updates".to_owned();
        (format!("{host} is the machine's own, or all of the tether's: no peer has it"), hint)
    } else if source.value.is_https() {
        let plain = source.value.as_str().replacen("https", "http", 1);
        let hint = format!("write {plain}: the tunnel encrypts it, and the publisher's signature decides");
        (format!("no authority certifies {host}, an address in the tether"), hint)
    } else {
        return None;
    };
    Some(Diagnostic::error(message, &source.place).hint(hint))
}

/// A body that must be healthy at once never is; one that may take hours keeps a broken machine down for as long.
fn patience(law: &Law, mistakes: &mut Vec<Diagnostic>) {
    let Some(patience) = &law.patience else { return };
    if !(30..=3600).contains(&patience.value.seconds()) {
        let message = "a body proves healthy in no less than 30 seconds and no more than an hour";
        let mistake = Diagnostic::error(message, &patience.place);
        mistakes.push(mistake.hint("write one like patience = \"4m\""));
    }
}
