//! What a publisher may get wrong: bodies that are whole and signed, and not healthy.

use sepulcher::tree::Tree;

use super::bodies::{Defect, Law, SOUND};

/// A body that the machine has to give up again.
pub struct Fall {
    /// What it is, for the claim.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What is wrong with it.
    pub defect: Defect,
    /// A word of what the machine says of it afterwards.
    pub reason: &'static str,
    /// Whether its tether works, so that somebody is bonded under it.
    pub bonds: bool,
}

/// What a publisher may get wrong.
pub const FALLS: [Fall; 6] = [
    Fall {
        name: "a body whose root is damaged, so that its kernel panics",
        version: "3",
        defect: Defect { root: |root| root[1024] ^= 1, ..SOUND },
        reason: "no attempt came so far",
        bonds: false,
    },
    Fall {
        name: "a body whose service is dead",
        version: "4",
        defect: Defect { law: dead_service, ..SOUND },
        reason: "oculus",
        bonds: true,
    },
    Fall {
        name: "a body whose agent crashes",
        version: "5",
        defect: Defect { law: impatient, tree: dead_agent, ..SOUND },
        reason: "agent",
        bonds: false,
    },
    Fall {
        name: "a body whose ruleset is another one",
        version: "6",
        defect: Defect { law: impatient, tree: other_ruleset, ..SOUND },
        reason: "host ruleset",
        bonds: false,
    },
    Fall {
        name: "a body that hangs",
        version: "7",
        defect: Defect { law: impatient, tree: hung, ..SOUND },
        reason: "no verdict",
        bonds: false,
    },
    Fall {
        name: "a body that hangs before anything of ours is started",
        version: "8",
        defect: Defect { law: impatient, tree: stuck, ..SOUND },
        reason: "no attempt came so far",
        bonds: false,
    },
];

/// Changes a file of the law.
pub fn replace(law: &mut Law, file: &str, from: &str, to: &str) {
    if let Some(text) = law.get_mut(file) {
        *text = text.replace(from, to);
    }
}

fn impatient(law: &mut Law) {
    replace(law, "lychd.toml", "patience = \"2m\"", "patience = \"45s\"");
}

fn dead_service(law: &mut Law) {
    impatient(law);
    replace(
        law,
        "services/oculus.toml",
        "\"stand-in\", \"oculus\", \"6006\", \"4318\"",
        "\"stand-in\", \"oculus\", \"4318\"",
    );
}

fn dropin(tree: &mut Tree, path: &str, text: &str) {
    // A path that is taken shows in the claim: the body would be healthy.
    let _ = tree.file(path, text);
}

fn dead_agent(tree: &mut Tree) {
    dropin(
        tree,
        "usr/lib/systemd/system/lychd-vpn.service.d/50-defect.conf",
        "[Service]\nExecStart=\nExecStart=/usr/bin/false\n",
    );
}

fn other_ruleset(tree: &mut Tree) {
    let text = "[Service]\nExecStartPost=/usr/sbin/nft add chain inet sepulcher defect\n";
    dropin(tree, "usr/lib/systemd/system/sepulcher-firewall.service.d/50-defect.conf", text);
}

fn hung(tree: &mut Tree) {
    let text = "[Service]\nExecStartPost=/usr/bin/sleep infinity\n";
    dropin(tree, "usr/lib/systemd/system/sepulcher-awaken.service.d/50-defect.conf", text);
}

fn stuck(tree: &mut Tree) {
    let unit = "usr/lib/systemd/system/stuck.service";
    let text = "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n\
                [Service]\nType=oneshot\nExecStart=/usr/bin/sleep infinity\nTimeoutStartSec=infinity\n";
    dropin(tree, unit, text);
    // As above: without it the body would be healthy.
    let _ = tree.link("usr/lib/systemd/system/sysinit.target.wants/stuck.service", "../stuck.service");
}
