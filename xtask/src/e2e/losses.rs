//! Claims about power losses: the emulator is killed in the middle of what the machine is told to do, again and again,
//! and the machine that is powered on behind it has all that was done, and nothing by halves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use sepulcher::tree::Sha256Digest;
use serde_json::Value;

use super::bodies::{self, Made, SOUND};
use super::scene::{COMMAND, Scene, device};
use super::site::{HOST, Site};
use super::{BOOT, Claim};
use crate::Result;
use crate::vm::{Running, Start};

/// Versions of the bodies that it is told to become.
const VERSIONS: [&str; 2] = ["2", "3"];

/// How long an act may take that is not cut off.
const ACT: Duration = Duration::from_secs(400);

/// Tells everything that must be whole, and fails where something is not.
const LOOK: &str = "sepulcher audit verify > /dev/null && sepulcher peer list --json && echo ,&& \
    sepulcher snapshot list --json && echo ,&& sepulcher rebirth status --json && ( \
    for file in /var/lib/sepulcher/snapshots/*.tar.zst; do test ! -e \"$file\" || \
    sepulcher snapshot verify \"$(basename \"$file\" .tar.zst)\" > /dev/null || exit; done )";

/// What a machine has after it was powered on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    /// Who is bonded.
    peers: BTreeSet<String>,
    /// Snapshots by note.
    snapshots: BTreeMap<String, String>,
    /// Version of the staged body.
    staged: Option<String>,
    /// Whether an activated body waits for its boot or its proof.
    pending: bool,
    /// How often the boot loader has tried the body in the other slot.
    tries: u64,
}

/// Something that the machine is told to do.
struct Act<'a> {
    /// Its claim.
    name: &'static str,
    /// The line of the `n`th time, in the state that it is in.
    line: &'a dyn Fn(u32, &State) -> String,
    /// Whether the state behind the line is the one that it leads to from the state before.
    done: &'a dyn Fn(u32, &State, &State) -> bool,
    /// Whether the state behind it is one that was never told to change, or only gave something up.
    undone: fn(&State, &State) -> bool,
    /// Whether the machine is started from its firmware in between, too: it changes what the boot loader reads.
    from_firmware: bool,
    /// Whether it wants the first body staged before.
    of_staged: bool,
}

/// Takes the power away in the middle of bonding, snapshotting, restoring, staging and activating, `points` times in
/// each, at moments that are spread evenly over it.
pub fn claims(site: &Site, points: u32) -> Result<Vec<Claim>> {
    let scene = Scene::new(site)?;
    let [two, three] = VERSIONS.map(|version| bodies::build(site, version, &SOUND));
    let bodies = [two?, three?];
    // The body's first boot is its proof.
    let mut running = scene.comes_up("sepulcher: health ok")?;
    running.expect(BOOT + COMMAND, "Finished systemd-bless-boot")?;
    drop(running);
    let mut machine = Machine::new(&scene, &bodies)?;
    let (without, with) = (machine.snapshot("without")?, {
        machine.tell(&bond("extra"))?;
        machine.snapshot("with")?
    });
    let digest = Sha256Digest::of(&fs::read(bodies[0].folder.join("SHA256SUMS"))?);
    let mut claims = Vec::new();
    for act in [
        Act {
            name: "power is lost while it bonds",
            line: &|point, _| bond(&format!("loss-{point}")),
            done: &|point, before, after| {
                let mut peers = before.peers.clone();
                peers.insert(format!("loss-{point}")) && after.peers == peers
            },
            undone: |before, after| before.peers == after.peers,
            from_firmware: false,
            of_staged: false,
        },
        Act {
            name: "power is lost while it takes a snapshot",
            line: &|point, _| format!("sepulcher snapshot create --bonds-only --note loss-{point}"),
            done: &|point, before, after| {
                after.snapshots.contains_key(&format!("loss-{point}")) && after.peers == before.peers
            },
            undone: |before, after| before == after,
            from_firmware: false,
            of_staged: false,
        },
        Act {
            name: "power is lost while it restores one",
            line: &|_, before| {
                let other = if before.peers.contains("extra") { &without } else { &with };
                format!("sepulcher snapshot restore {other}")
            },
            done: &|_, before, after| {
                let changed = before.peers.symmetric_difference(&after.peers);
                changed.eq(["extra"])
            },
            undone: |before, after| before.peers == after.peers,
            from_firmware: false,
            of_staged: false,
        },
        Act {
            name: "power is lost while it stages a body",
            line: &|_, before| format!("sepulcher rebirth stage {}", device(other(before))),
            done: &|_, before, after| after.staged.as_deref() == Some(VERSIONS[other(before)]),
            undone: |before, after| after.staged.is_none() || before.staged == after.staged,
            from_firmware: true,
            of_staged: false,
        },
        Act {
            name: "power is lost while it activates one",
            line: &|_, _| format!("sepulcher rebirth activate --at-next-boot {digest}"),
            done: &|_, _, after| after.pending && after.tries == 1,
            undone: |_, after| after.tries == 0,
            from_firmware: true,
            of_staged: true,
        },
    ] {
        if act.of_staged {
            claims.push(Claim::check("it stages a body after all of that", || machine.stages_the_first()));
        }
        claims.push(Claim::check(act.name, || machine.suffers(&act, points)));
    }
    claims.push(Claim::check("it becomes that body after all of that", || machine.becomes(&digest)));
    Ok(claims)
}

/// Which of the bodies is not staged.
fn other(state: &State) -> usize {
    usize::from(state.staged.as_deref() == Some(VERSIONS[0]))
}

fn bond(name: &str) -> String {
    format!("sepulcher peer bond {name} --grant oculus --endpoint {HOST} --conf /run/{name}.conf")
}

/// The machine in the rig, and what it had when it was powered on.
struct Machine<'a> {
    scene: &'a Scene<'a>,
    bodies: &'a [Made; 2],
    running: Option<Running>,
    key: String,
}

impl<'a> Machine<'a> {
    fn new(scene: &'a Scene<'a>, bodies: &'a [Made; 2]) -> Result<Self> {
        let mut machine = Self { scene, bodies, running: None, key: String::new() };
        machine.key = machine.powered_on()?;
        Ok(machine)
    }

    /// Its public key, once it is there.
    fn powered_on(&mut self) -> Result<String> {
        // The disk is free only when the machine before is gone.
        drop(self.running.take());
        let archives: Vec<_> = self.bodies.iter().map(|made| made.archive.clone()).collect();
        let (running, key) = self.scene.act(&self.scene.first, &archives)?;
        self.running = Some(running);
        Ok(key)
    }

    fn tell(&self, line: &str) -> Result<String> {
        self.scene.first.run(line, ACT)
    }

    fn snapshot(&self, note: &str) -> Result<String> {
        self.tell(&format!("sepulcher snapshot create --bonds-only --note {note} 2> /dev/null"))
    }

    /// What it has. Everything of it is verified.
    fn state(&self) -> Result<State> {
        let told: Value = serde_json::from_str(&format!("[{}]", self.tell(LOOK)?))?;
        let [peers, snapshots, bodies] = [&told[0]["peers"], &told[1]["snapshots"], &told[2]];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let slots = list(&bodies["slots"]);
        let other = slots.iter().find(|slot| slot["running"] == false && !slot["entry"].is_null());
        Ok(State {
            peers: list(peers).iter().map(|peer| text(&peer["name"])).collect(),
            snapshots: list(snapshots)
                .iter()
                .map(|kept| (text(&kept["manifest"]["note"]), text(&kept["name"])))
                .collect(),
            staged: bodies["staged"]["version"].as_str().map(str::to_owned),
            pending: !bodies["rebirth"].is_null() && bodies["rebirth"]["outcome"].is_null(),
            tries: other.and_then(|slot| slot["tries"]["done"].as_u64()).unwrap_or_default(),
        })
    }

    /// Lets an act end once, to learn how long it takes; then cuts it off at every point of one and a quarter of that time,
    /// and looks.
    fn suffers(&mut self, act: &Act<'_>, points: u32) -> Result<String> {
        let start = Instant::now();
        let mut before = self.state()?;
        let begun = Instant::now();
        self.tell(&(act.line)(0, &before))?;
        let lasts = begun.elapsed();
        before = self.state()?;
        let mut done = 0;
        for point in 1..=points {
            if before.pending {
                self.tell("sepulcher rebirth rollback")?;
                before = self.state()?;
            }
            // What counts comes at its end, which is later at times.
            let moment = lasts * 5 * (2 * point - 1) / (8 * points);
            let told = self.scene.first.begin(&(act.line)(point, &before))?.within(moment)?;
            drop(self.running.take());
            if act.from_firmware {
                drop(self.scene.power_on(Start::Disk(&self.scene.disk), &[])?);
            }
            let key = self.powered_on()?;
            let after = self.state()?;
            let at = format!("{} of {} ms", moment.as_millis(), lasts.as_millis());
            if key != self.key {
                return Err(format!("another host key after a loss at {at}").into());
            }
            let is_done = (act.done)(point, &before, &after);
            if !is_done && (told.is_some() || !(act.undone)(&before, &after)) {
                let ended = if told.is_some() { "had ended" } else { "was cut off" };
                return Err(format!("it {ended} at {at}: {before:?} became {after:?}").into());
            }
            eprintln!("e2e: at {at}: {}", if is_done { "done" } else { "not done" });
            done += u32::from(is_done);
            before = after;
        }
        Ok(format!(
            "{points} times in {} ms: {done} were done, {} had left nothing; {} s",
            lasts.as_millis(),
            points - done,
            start.elapsed().as_secs()
        ))
    }

    fn stages_the_first(&self) -> Result<String> {
        if self.state()?.staged.as_deref() != Some(VERSIONS[0]) {
            self.tell(&format!("sepulcher rebirth stage {}", device(0)))?;
        }
        Ok("staged".to_owned())
    }

    fn becomes(&mut self, digest: &Sha256Digest) -> Result<String> {
        if !self.state()?.pending {
            self.tell(&format!("sepulcher rebirth activate --at-next-boot {digest}"))?;
        }
        drop(self.running.take());
        let mut running = self.scene.comes_up(": attempt ")?;
        running.expect(BOOT + COMMAND, "Finished systemd-bless-boot")?;
        self.scene.talks(&self.scene.phone, &self.scene.site.peers[0], &self.key)?;
        Ok(format!("healthy and blessed {:.1} s after power-on", running.uptime().as_secs_f32()))
    }
}
