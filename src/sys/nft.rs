//! The nftables of the network namespace we are in, through the `nft` program.

mod generation;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::IpAddr;

use serde_json::Value;

use super::cmd;
use crate::tree::Sha256Digest;

/// The one table that is ours, in the host's namespace and in the pod's.
pub const TABLE: &str = "inet sepulcher";

/// A ruleset that cannot be loaded or listed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `nft` failed; a refused ruleset leaves the old one whole.
    #[error("cannot {action} the nftables ruleset")]
    Program {
        /// Verb.
        action: &'static str,
        /// What `nft` said.
        source: cmd::Error,
    },
    /// The kernel does not tell its rulesets' generation.
    #[error("cannot ask the kernel for the generation of its nftables rulesets")]
    Generation(#[source] io::Error),
    /// `nft` printed something else than JSON.
    #[error("cannot read what nft lists")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// What to do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Program { source: cmd::Error::Start { .. }, .. } => {
                Some("install nftables, or name its program with `--nft`")
            }
            Self::Program { source: cmd::Error::Failed { stderr, .. }, .. }
                if stderr.contains("Operation not permitted") =>
            {
                Some("run in a network namespace where this process has CAP_NET_ADMIN")
            }
            Self::Generation(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run in a network namespace where this process has CAP_NET_ADMIN")
            }
            Self::Program { .. } | Self::Generation(_) | Self::Json(_) => None,
        }
    }
}

/// The `nft` program.
#[derive(Debug, Clone)]
pub struct Nft {
    program: OsString,
}

impl Nft {
    /// Uses the program at `path`, or of that name in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { program: program.as_ref().to_owned() }
    }

    /// Loads a ruleset in one transaction: all of it, or nothing.
    pub fn load(&self, ruleset: &str) -> Result<(), Error> {
        cmd::Command::new(&self.program)
            .args(["-f", "-"])
            .stdin(ruleset)
            .read()
            .map(drop)
            .map_err(|source| Error::Program { action: "load", source })
    }

    /// The number that the kernel counts up whenever somebody changes a ruleset of the network namespace we are in. What
    /// packets add to sets does not count.
    pub fn generation(&self) -> Result<u32, Error> {
        generation::generation().map_err(Error::Generation)
    }

    /// Our table as `nft` lists it, in JSON without counters; `None` when there is none.
    pub fn table(&self) -> Result<Option<Value>, Error> {
        if !self.has_table()? {
            return Ok(None);
        }
        self.list(&["-j", "-s", "list", "table", "inet", "sepulcher"]).map(Some)
    }

    /// Whether our table is there.
    pub fn has_table(&self) -> Result<bool, Error> {
        let tables = self.list(&["-j", "list", "tables", "inet"])?;
        Ok(entries(&tables).any(|entry| entry["table"]["name"] == "sepulcher"))
    }

    /// Packets that the elements of one of our sets have counted, by the address that each element is.
    pub fn counted(&self, set: &str) -> Result<BTreeMap<IpAddr, u64>, Error> {
        let [family, table] = ["inet", "sepulcher"];
        Ok(packets(&self.list(&["-j", "list", "set", family, table, set])?))
    }

    fn list(&self, args: &[&str]) -> Result<Value, Error> {
        let text = cmd::Command::new(&self.program)
            .args(args.iter().copied())
            .read()
            .map_err(|source| Error::Program { action: "list", source })?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// Entries of an `nft -j` listing.
pub fn entries(listing: &Value) -> impl Iterator<Item = &Value> {
    listing["nftables"].as_array().into_iter().flatten()
}

/// Address → packets of the counter, for every element of a listed set that has one.
fn packets(listing: &Value) -> BTreeMap<IpAddr, u64> {
    let sets = entries(listing).filter_map(|entry| entry["set"]["elem"].as_array());
    sets.flatten()
        .filter_map(|element| {
            let element = &element["elem"];
            Some((element["val"].as_str()?.parse().ok()?, element["counter"]["packets"].as_u64()?))
        })
        .collect()
}

/// Digest of a listed table: the same as long as nobody changed it. What changes by itself (handles, the
/// program's version, elements that packets add to dynamic sets) and the order of elements do not count.
pub fn fingerprint(mut listing: Value) -> Sha256Digest {
    // A listing can be long: it is settled in place.
    let mut entries = match listing.get_mut("nftables").map(Value::take) {
        Some(Value::Array(entries)) => entries,
        _ => Vec::new(),
    };
    entries.retain(|entry| entry.get("metainfo").is_none());
    entries.iter_mut().for_each(settle);
    Sha256Digest::of(Value::Array(entries).to_string().as_bytes())
}

fn settle(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("handle");
            if grows_by_itself(map) {
                map.remove("elem");
            }
            if let Some(Value::Array(elements)) = map.get_mut("elem") {
                elements.sort_by_cached_key(ToString::to_string);
            }
            map.values_mut().for_each(settle);
        }
        Value::Array(values) => values.iter_mut().for_each(settle),
        _ => {}
    }
}

/// A set that packets add to: `dynamic`, which not every version of nft lists, or one that forgets.
fn grows_by_itself(set: &serde_json::Map<String, Value>) -> bool {
    let flags = set.get("flags").and_then(Value::as_array);
    flags.is_some_and(|flags| flags.iter().any(|flag| flag == "dynamic" || flag == "timeout"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listing(handle: u32, elements: &[&str], seen: &[&str], policy: &str) -> Value {
        json!({"nftables": [
            {"metainfo": {"version": format!("1.{handle}")}},
            {"table": {"family": "inet", "name": "sepulcher", "handle": handle}},
            {"set": {"name": "grants", "handle": handle, "elem": elements}},
            {"set": {"name": "denied", "flags": ["dynamic"], "elem": seen}},
            {"chain": {"name": "input", "policy": policy}},
        ]})
    }

    #[test]
    fn only_a_change_that_somebody_made_changes_the_fingerprint() {
        let before = fingerprint(listing(1, &["a", "b"], &[], "drop"));
        assert_eq!(fingerprint(listing(2, &["b", "a"], &["x"], "drop")), before);
        assert_ne!(fingerprint(listing(1, &["a"], &[], "drop")), before);
        assert_ne!(fingerprint(listing(1, &["a", "b"], &[], "accept")), before);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Nft::new("/nonexistent/nft").load("").unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, "cannot start /nonexistent/nft");
        assert!(error.remedy().unwrap().contains("--nft"));
    }

    #[test]
    fn elements_are_counted_by_their_address() {
        let element =
            json!({"elem": {"val": "10.88.16.2", "timeout": 3600, "counter": {"packets": 3, "bytes": 180}}});
        let listing = json!({"nftables": [
            {"metainfo": {"version": "1.1"}},
            {"set": {"name": "denied", "elem": [element, {"elem": {"val": "10.88.16.3"}}, "10.88.16.4"]}},
        ]});
        assert_eq!(packets(&listing), BTreeMap::from([("10.88.16.2".parse().unwrap(), 3)]));
        assert_eq!(packets(&json!({"nftables": [{"set": {"name": "denied"}}]})), BTreeMap::new());
    }
}
