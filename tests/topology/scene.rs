//! A whole appliance with people around it, and how a claim about it is proven: it is tried twice, on what is rendered,
//! where it must hold, and after the policy was made leaky by hand, where it must not. So no claim is blind to the leak
//! that it is there to find.

use crate::appliance::Appliance;
use crate::device::Device;
use crate::ear::Recorder;
use crate::host::until;
use crate::lab::World;

/// An appliance with two bonds, and somebody who has none.
pub struct Scene {
    /// Hears all that passes the appliance's uplink. First: the others are still there when it tells.
    _recorder: Recorder,
    /// Host and pod.
    pub appliance: Appliance,
    /// May reach the Oculus, the voice and Intercom.
    pub phone: Device,
    /// May reach the worker and the gallery.
    pub laptop: Device,
    /// Knows the appliance's address and its public key, and is bonded to nothing.
    pub outsider: Device,
    /// Their network. Last: what needs it goes first.
    pub world: World,
}

pub const PHONE: &str = "10.88.16.2";
pub const LAPTOP: &str = "10.88.16.3";

/// What a claim found when it does not hold.
pub type Verdict = Result<(), String>;

impl Scene {
    pub fn new(world: World) -> Self {
        let appliance = Appliance::new(&world);
        let [phone, laptop, outsider] = ["phone", "laptop", "outsider"].map(|name| Device::new(&world, name));
        let bonds = [
            (&phone, PHONE, vec!["oculus", "echo", "intercom"]),
            (&laptop, LAPTOP, vec!["worker", "gallery"]),
        ];
        for (device, address, grants) in bonds {
            let preshared = appliance.gateway.bond_to(device, &grants, &[]);
            device.dial(&appliance.gateway, address, preshared.as_deref());
            until("the tunnel carries", || device.host.try_sh("ping -c 1 -W 1 10.88.16.1").ok());
        }
        outsider.dial(&appliance.gateway, "10.88.16.9", None);
        let recorder = Recorder::beside(&world, &appliance.host, "uplink");
        Self { _recorder: recorder, appliance, phone, laptop, outsider, world }
    }

    /// `http://` and the uplink's address with a port.
    pub fn outside(&self, port: u16) -> String {
        format!("http://{}:{port}/", self.appliance.uplink)
    }

    pub fn host(&self, line: &str) {
        self.appliance.host.sh(line);
    }

    /// Changes the pod's ruleset, without an agent that would mend it.
    pub fn pod(&self, line: &str) {
        self.appliance.gateway.agent.kill();
        self.appliance.gateway.pod.sh(line);
    }
}

/// What makes the policy leaky, in words; a part of what is found then, which nothing else makes be found; and in deeds.
pub type Leak<'a> = (&'a str, &'a str, fn(&Scene));

/// Tries a claim on what is rendered, and then on each leaky twin.
pub fn prove(name: &'static str, claim: fn(&Scene) -> Verdict, leaks: &[Leak<'_>]) {
    let Some(world) = World::new(name) else { return };
    let scene = Scene::new(world);
    claim(&scene).unwrap_or_else(|found| panic!("{name} does not hold: {found}"));
    for (what, words, leak) in leaks {
        scene.appliance.load_host_ruleset();
        leak(&scene);
        caught(&format!("{name}: {what}"), claim(&scene), words);
    }
}

/// That a claim does not hold, for the reason that is expected.
pub fn caught(what: &str, verdict: Verdict, expected: &str) {
    let found = verdict.err().unwrap_or_else(|| panic!("{what}: nobody noticed"));
    assert!(found.contains(expected), "{what}: something else was found, without {expected:?}: {found}");
    eprintln!("{what}: caught: {}", found.lines().next().unwrap_or_default());
}

pub fn silent(what: &str, answer: Option<String>) -> Verdict {
    answer.map_or(Ok(()), |answer| Err(format!("{what} answered: {answer}")))
}

pub fn answers(what: &str, answer: Option<String>, expected: &str) -> Verdict {
    match answer {
        Some(answer) if answer.contains(expected) => Ok(()),
        answer => Err(format!("{what} answered {answer:?}, not {expected:?}")),
    }
}
