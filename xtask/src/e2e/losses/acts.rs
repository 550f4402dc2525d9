//! What the machine is told to do when its power is lost, and what it may have behind that.

use std::collections::{BTreeMap, BTreeSet};

use sepulcher::tree::Sha256Digest;

use super::Machine;
use crate::Result;
use crate::e2e::scene::device;
use crate::e2e::site::HOST;

/// Versions of the bodies that it is told to become.
pub const VERSIONS: [&str; 2] = ["2", "3"];

/// How the names of peers begin, and the notes of snapshots, that are made when the power is lost.
pub const LOSS: &str = "loss-";

/// How the notes of snapshots begin that a restore makes of what was there, and of those with volumes to restore.
pub const BEFORE: &str = "before ";
pub const FULL: &str = "full-";

/// What a machine has after it was powered on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Who is bonded.
    pub peers: BTreeSet<String>,
    /// Notes of snapshots by their names.
    pub snapshots: BTreeMap<String, String>,
    /// Whether the marked volume is there.
    pub mark: bool,
    /// Version of the staged body.
    pub staged: Option<String>,
    /// Whether an activated body waits for its boot or its proof.
    pub pending: bool,
    /// How often the boot loader has tried the body in the other slot.
    pub tries: u64,
}

impl State {
    /// What is to outlive every body: bonds, and what a volume holds.
    fn soul(&self) -> (&BTreeSet<String>, bool) {
        (&self.peers, self.mark)
    }

    /// The name of the snapshot with a note; no snapshot has the name that is told where there is none.
    pub fn snapshot(&self, note: &str) -> &str {
        self.snapshots.iter().find(|(_, of)| *of == note).map_or("none", |(name, _)| name)
    }
}

/// What the machine may be at when its power is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Loss {
    /// Bonding
    Bond,
    /// Taking a snapshot
    Snapshot,
    /// Restoring one
    Restore,
    /// Restoring one with its volumes
    RestoreWithVolumes,
    /// Staging a body
    Stage,
    /// Activating one
    Activate,
}

/// Something that the machine is told to do.
pub struct Act {
    /// Which it is.
    pub loss: Loss,
    /// Its claim.
    pub name: &'static str,
    /// The line of the `n`th time, in the state that it is in, where that digest is the first body's.
    pub line: fn(u32, &State, &Sha256Digest) -> String,
    /// Whether the state behind the line is the one that it leads to from the state before.
    pub done: fn(u32, &State, &State) -> bool,
    /// Whether the state behind it is one that was never told to change, or only gave something up.
    pub undone: fn(&State, &State) -> bool,
    /// When the power is lost the `n`th of so many times, as a part of the time that it takes.
    pub moment: fn(u32, u32) -> f64,
    /// What the machine does before it begins with it.
    pub prepare: fn(&Machine<'_>) -> Result<()>,
    /// Whether it is about volumes: their services are up before.
    pub of_volumes: bool,
    /// Whether the machine is started from its firmware in between, too: it changes what the boot loader reads.
    pub from_firmware: bool,
    /// Whether it wants the first body staged before.
    pub of_staged: bool,
}

/// What most acts have in common, and [`Loss::Bond`] all of it.
const BONDS: Act = Act {
    loss: Loss::Bond,
    name: "power is lost while it bonds",
    line: |point, _, _| bond(&format!("{LOSS}{point}")),
    done: |point, before, after| {
        let mut peers = before.peers.clone();
        peers.insert(format!("{LOSS}{point}")) && after.soul() == (&peers, before.mark)
    },
    undone: |before, after| before.soul() == after.soul(),
    moment: evenly,
    prepare: |_| Ok(()),
    of_volumes: false,
    from_firmware: false,
    of_staged: false,
};

/// All of them, in their order.
pub const ACTS: [Act; 6] = [
    BONDS,
    Act {
        loss: Loss::Snapshot,
        name: "power is lost while it takes a snapshot",
        line: |point, _, _| format!("sepulcher snapshot create --note {LOSS}{point}"),
        done: |point, before, after| {
            after.snapshot(&format!("{LOSS}{point}")) != "none" && before.soul() == after.soul()
        },
        undone: |before, after| before == after,
        of_volumes: true,
        ..BONDS
    },
    Act {
        loss: Loss::Restore,
        name: "power is lost while it restores one",
        line: |_, before, _| restore(before, ""),
        done: |_, before, after| exchanged(before, after) && before.mark == after.mark,
        ..BONDS
    },
    Act {
        loss: Loss::RestoreWithVolumes,
        name: "power is lost while it restores one with its volumes",
        line: |_, before, _| restore(before, FULL) + " --with-volumes",
        done: |_, before, after| exchanged(before, after) && after.mark == after.peers.contains("extra"),
        moment: late,
        prepare: |machine| machine.keeps_two_with_volumes(),
        of_volumes: true,
        ..BONDS
    },
    Act {
        loss: Loss::Stage,
        name: "power is lost while it stages a body",
        line: |_, before, _| format!("sepulcher rebirth stage {}", device(other(before))),
        done: |_, before, after| {
            before.soul() == after.soul() && after.staged.as_deref() == Some(VERSIONS[other(before)])
        },
        undone: |before, after| {
            before.soul() == after.soul() && (after.staged.is_none() || before.staged == after.staged)
        },
        from_firmware: true,
        ..BONDS
    },
    Act {
        loss: Loss::Activate,
        name: "power is lost while it activates one",
        line: |_, _, digest| format!("sepulcher rebirth activate --at-next-boot {digest}"),
        done: |_, before, after| before.soul() == after.soul() && after.pending && after.tries == 1,
        undone: |before, after| before.soul() == after.soul() && !after.pending && after.tries == 0,
        from_firmware: true,
        of_staged: true,
        ..BONDS
    },
];

/// Evenly over one and a quarter of the time: what counts comes at its end, which is later at times.
fn evenly(point: u32, points: u32) -> f64 {
    1.25 * (f64::from(point) - 0.5) / f64::from(points)
}

/// Half of the moments around the end, where all of it is decided, and the others before, in turn.
fn late(point: u32, points: u32) -> f64 {
    let pair = evenly(point.div_ceil(2), points.div_ceil(2)) / 1.25;
    if point.is_multiple_of(2) { 0.75 + 0.35 * pair } else { 0.75 * pair }
}

/// Puts back the one of two snapshots that the machine is not like.
fn restore(before: &State, kind: &str) -> String {
    let other = if before.peers.contains("extra") { "without" } else { "with" };
    format!("sepulcher snapshot restore {}", before.snapshot(&format!("{kind}{other}")))
}

/// Whether one of the two snapshots took the other's place.
fn exchanged(before: &State, after: &State) -> bool {
    before.peers.symmetric_difference(&after.peers).eq(["extra"])
}

/// Which of the bodies is not staged.
fn other(state: &State) -> usize {
    usize::from(state.staged.as_deref() == Some(VERSIONS[0]))
}

/// Bonds a peer of that name.
pub fn bond(name: &str) -> String {
    format!("sepulcher peer bond {name} --grant oculus --endpoint {HOST} --conf /run/{name}.conf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_cover_an_act_and_late_ones_its_end() {
        for points in [1, 4, 5, 20] {
            let at = |moment: fn(u32, u32) -> f64| (1..=points).map(move |point| moment(point, points));
            assert!(at(evenly).is_sorted() && at(evenly).all(|part| (0.0..1.25).contains(&part)));
            let (early, around): (Vec<_>, Vec<_>) = at(late).partition(|part| *part < 0.75);
            let halves = [early.len(), around.len()].map(|count| u32::try_from(count).unwrap());
            assert_eq!(halves, [points.div_ceil(2), points / 2]);
            assert!(early.iter().all(|part| *part > 0.0) && around.iter().all(|part| *part < 1.1));
        }
    }
}
