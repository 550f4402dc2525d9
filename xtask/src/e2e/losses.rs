//! Claims about power losses: the emulator is killed in the middle of what the machine is told to do, again and again,
//! and the machine that is powered on behind it has all that was done, and nothing by halves.

mod acts;

use std::fs;
use std::time::{Duration, Instant};

use sepulcher::tree::Sha256Digest;
use serde_json::Value;

pub use self::acts::Loss;
use self::acts::{ACTS, Act, BEFORE, FULL, LOSS, State, VERSIONS, bond};
use super::bodies::{self, Made, SOUND};
use super::scene::{COMMAND, Scene, device};
use super::site::Site;
use super::snapshot::sql;
use super::{BOOT, Claim};
use crate::Result;
use crate::vm::{Running, Start};

/// How long an act may take that is not cut off.
const ACT: Duration = Duration::from_secs(400);

/// So many losses fall on both sides of the moment at which an act is done.
const MANY: u32 = 20;

/// Tells everything that must be whole, and fails where something is not, or where a boot has left something by halves.
const LOOK: &str = "sepulcher audit verify > /dev/null && sepulcher peer list --json && echo ,&& \
    sepulcher snapshot list --json && echo ,&& sepulcher rebirth status --json && ( \
    cd /var/lib/sepulcher/snapshots 2> /dev/null || exit 0; \
    for file in *.tar.zst; do test ! -e \"$file\" || \
    sepulcher snapshot verify \"$(basename \"$file\" .tar.zst)\" > /dev/null || exit; done; \
    for file in .volumes .copies .identity; do test ! -e $file || { echo \"$file is left\"; exit 1; }; done )";

/// The volume that a file comes and goes in, and the file.
const VOLUME: &str = "lychd-veil-data";
const MARK: &str = "mark";

/// Takes the power away in the middle of what the machine is told, `points` times in each of `losses`, or of all where
/// none are named.
pub fn claims(site: &Site, losses: &[Loss], points: u32) -> Result<Vec<Claim>> {
    let wanted = |loss: Loss| losses.is_empty() || losses.contains(&loss);
    let scene = Scene::new(site)?;
    let [two, three] = VERSIONS.map(|version| bodies::build(site, version, &SOUND));
    let bodies = [two?, three?];
    // The body's first boot is its proof.
    let mut running = scene.comes_up("sepulcher: health ok")?;
    running.expect(BOOT + COMMAND, "Finished systemd-bless-boot")?;
    drop(running);
    let mut machine = Machine::new(&scene, &bodies)?;
    machine.keeps_two()?;
    let digest = Sha256Digest::of(&fs::read(bodies[0].folder.join("SHA256SUMS"))?);
    let mut claims = Vec::new();
    for act in ACTS.iter().filter(|act| wanted(act.loss)) {
        if act.of_staged {
            claims.push(Claim::check("it stages a body after all of that", || machine.stages_the_first()));
        }
        claims.push(Claim::check(act.name, || machine.suffers(act, &digest, points)));
    }
    if wanted(Loss::Activate) {
        claims.push(Claim::check("it becomes that body after all of that", || machine.becomes(&digest)));
    }
    Ok(claims)
}

/// The machine in the rig, and what it had when it was powered on.
struct Machine<'a> {
    scene: &'a Scene<'a>,
    bodies: &'a [Made; 2],
    running: Option<Running>,
    key: String,
    /// Where Podman keeps the marked volume.
    volume: String,
}

impl<'a> Machine<'a> {
    fn new(scene: &'a Scene<'a>, bodies: &'a [Made; 2]) -> Result<Self> {
        let (key, volume) = (String::new(), String::new());
        let mut machine = Self { scene, bodies, running: None, key, volume };
        machine.key = machine.powered_on()?;
        machine.is_up()?;
        machine.volume =
            machine.tell(&format!("podman volume inspect --format '{{{{.Mountpoint}}}}' {VOLUME}"))?;
        Ok(machine)
    }

    /// Waits until it is healthy: its services answer.
    fn is_up(&self) -> Result<()> {
        let health = self.tell("sepulcher health --timeout 300s")?;
        if health.contains("sepulcher: health ok") { Ok(()) } else { Err(health.into()) }
    }

    /// Has it keep two snapshots, one without and one with another peer.
    fn keeps_two(&self) -> Result<()> {
        self.snapshot("--bonds-only --note without")?;
        self.tell(&bond("extra"))?;
        self.snapshot("--bonds-only --note with").map(drop)
    }

    /// Has it keep two more of the same peers with volumes. The one with the other peer has a mark in one, too.
    fn keeps_two_with_volumes(&self) -> Result<()> {
        let kept = self.state()?;
        for (note, change) in [("with", "touch"), ("without", "rm")] {
            self.tell(&format!("sepulcher snapshot restore {}", kept.snapshot(note)))?;
            self.tell(&format!("{change} {}/{MARK}", self.volume))?;
            self.snapshot(&format!("--note {FULL}{note}"))?;
        }
        Ok(())
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

    fn snapshot(&self, how: &str) -> Result<String> {
        self.tell(&format!("sepulcher snapshot create {how} 2> /dev/null"))
    }

    /// What it has. Everything of it is verified.
    fn state(&self) -> Result<State> {
        let told: Value = serde_json::from_str(&format!("[{}]", self.tell(LOOK)?))?;
        let beside = self.tell(&format!(
            "cd {}/.. && find .. -maxdepth 2 -name '.sepulcher.*'; ls -1A _data",
            self.volume
        ))?;
        if let Some(left) = beside.lines().find(|line| line.contains(".sepulcher.")) {
            return Err(format!("{left} is left beside a volume").into());
        }
        let [peers, snapshots, bodies] = [&told[0]["peers"], &told[1]["snapshots"], &told[2]];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let slots = list(&bodies["slots"]);
        let other = slots.iter().find(|slot| slot["running"] == false && !slot["entry"].is_null());
        Ok(State {
            peers: list(peers).iter().map(|peer| text(&peer["name"])).collect(),
            snapshots: list(snapshots)
                .iter()
                .map(|kept| (text(&kept["name"]), text(&kept["manifest"]["note"])))
                .collect(),
            mark: beside.lines().any(|line| line == MARK),
            staged: bodies["staged"]["version"].as_str().map(str::to_owned),
            pending: !bodies["rebirth"].is_null() && bodies["rebirth"]["outcome"].is_null(),
            tries: other.and_then(|slot| slot["tries"]["done"].as_u64()).unwrap_or_default(),
        })
    }

    /// Removes snapshots with notes that begin so: those with volumes take their room and time.
    fn forgets(&self, mut state: State, beginnings: &[&str]) -> Result<State> {
        let is_gone = |note: &str| beginnings.iter().any(|beginning| note.starts_with(beginning));
        let gone = state.snapshots.extract_if(.., |_, note| is_gone(note));
        let files = gone.fold(String::new(), |files, (name, _)| files + " " + &name + ".tar.zst");
        if !files.is_empty() {
            self.tell(&format!("cd /var/lib/sepulcher/snapshots && rm{files} && sync"))?;
        }
        Ok(state)
    }

    /// That it is healthy, its database answers, and peers shake hands and get their page.
    fn is_well(&self) -> Result<()> {
        self.is_up()?;
        sql(self.scene, "select 1")?;
        for (peer, keys) in [&self.scene.phone, &self.scene.laptop].into_iter().zip(&self.scene.site.peers) {
            self.scene.talks(peer, keys, &self.key)?;
        }
        Ok(())
    }

    /// Lets an act end once, to learn how long it takes; then cuts it off at its moments, and looks.
    fn suffers(&mut self, act: &Act, digest: &Sha256Digest, points: u32) -> Result<String> {
        let start = Instant::now();
        if act.of_volumes {
            self.is_up()?;
        }
        (act.prepare)(self)?;
        // As behind each loss: busy with its boot, a machine takes longer.
        self.powered_on()?;
        if act.of_volumes {
            self.is_up()?;
        }
        let mut before = self.state()?;
        let begun = Instant::now();
        self.tell(&(act.line)(0, &before, digest))?;
        let lasts = begun.elapsed();
        before = self.forgets(self.state()?, &[BEFORE, LOSS])?;
        let mut done = 0;
        for point in 1..=points {
            if before.pending {
                self.tell("sepulcher rebirth rollback")?;
                before = self.state()?;
            }
            let moment = lasts.mul_f64((act.moment)(point, points));
            let told = self.scene.first.begin(&(act.line)(point, &before, digest))?.within(moment)?;
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
            if act.of_volumes {
                self.is_up()?;
            }
            before = self.forgets(after, &[BEFORE, LOSS])?;
        }
        self.forgets(before, &[FULL])?;
        self.is_well()?;
        if points >= MANY && !(1..points).contains(&done) {
            return Err(format!(
                "of {points} losses {done} came when all was done: the act was not cut in the middle"
            )
            .into());
        }
        Ok(format!(
            "{points} times in {} ms: {done} were done, {} had left nothing; healthy, and peers talk; {} s",
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
