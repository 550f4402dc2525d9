//! Changes of one peer, and the end and start of the agent, as the others feel them: not at all.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::host::until;
use crate::lab::{Gateway, World};

/// Seconds that the counters of a peer may stand still.
const PAUSE: f64 = 0.2;

/// Seconds between two samples that prove anything: while the machine did not run the sampler, it saw no pause.
const STEP: f64 = 0.05;

/// Seconds until a session that has just begun is not made anew. wireguard-go starts its timer for another try (5.3 s at
/// most) behind the first one: where the answer is quicker than that, the timer is nobody's to stop.
const SETTLED: u64 = 7;

#[test]
fn others_never_pause() {
    let Some(world) = World::alone("others_never_pause") else { return };
    let gateway = Gateway::new(&world, "gateway", "10.88.16.0/20");
    let [mut phone, laptop, tablet] = ["phone", "laptop", "tablet"].map(|name| Device::new(&world, name));
    for (device, address) in [(&laptop, "10.88.16.2"), (&tablet, "10.88.16.3")] {
        let preshared = gateway.bond(device);
        device.dial(&gateway, address, preshared.as_deref());
        device.talks();
    }
    let watch = Watch::of(&gateway, [&laptop, &tablet]);

    let preshared = gateway.bond(&phone);
    phone.dial(&gateway, "10.88.16.4", preshared.as_deref());
    phone.talks();
    phone.renew();
    let preshared = gateway.rotate(&phone, &[]);
    phone.use_key(&gateway, preshared.as_deref());
    phone.talks();
    gateway.agent.kill();
    sleep(Duration::from_secs(1));
    gateway.agent.restart();
    gateway.looks_again();
    gateway.revoke(&phone);
    until("the phone is gone", || gateway.traffic(&phone).is_none().then_some(()));
    sleep(Duration::from_secs(1));

    watch.saw_no_pause(&gateway);
}

/// Two devices whose streams flow, and a sampler of what the gateway's interface counts of them.
pub struct Watch<'a> {
    devices: [&'a Device; 2],
    start: Instant,
}

impl<'a> Watch<'a> {
    /// Starts streams and sampler: the first device sends, the second receives. Sessions last two minutes: dial at once
    /// before. Sampled are sessions that have [settled](SETTLED).
    pub fn of(gateway: &Gateway, devices: [&'a Device; 2]) -> Self {
        let start = Instant::now();
        for (device, direction) in devices.into_iter().zip(["", "--port 5202 --reverse"]) {
            let stream = format!("iperf3 --client 10.88.16.1 {direction} --bitrate 8M --time 90");
            device.host.sh(&format!("{stream} > /run/stream 2>&1 &"));
        }
        until("both streams flow", || {
            devices.into_iter().all(|device| gateway.traffic(device) > Some(1_000_000)).then_some(())
        });
        let settled = format!(
            "wg show wg0 latest-handshakes | while read _ at; do ((at + {SETTLED} <= EPOCHSECONDS)) || exit 1; done"
        );
        until("the sessions have settled", || gateway.pod.try_sh(&settled).ok());
        gateway.pod.sh(
            "while sleep 0.02; do echo $EPOCHREALTIME; wg show wg0 dump | tail -n +2; echo; done > /run/samples 2>&1 &",
        );
        Self { devices, start }
    }

    /// Asserts that both still stream, in the sessions that they had, and never stood still.
    pub fn saw_no_pause(&self, gateway: &Gateway) {
        assert!(
            self.start.elapsed() < Duration::from_secs(85),
            "the sessions would have been renewed by themselves"
        );
        let samples = samples(&gateway.pod.sh("cat /run/samples"));
        for device in self.devices {
            device.host.sh("pgrep iperf3");
            let (name, key) = (&device.host.name, device.key.to_string());
            let counted = |(at, peers): &Sample| match peers.get(&key) {
                Some(peer) => (*at, *peer),
                None => {
                    panic!("{name} was not in the kernel {:.2} s after the first sample", at - samples[0].0)
                }
            };
            let seen: Vec<_> = samples.iter().map(counted).collect();
            let pause = longest_pause(&seen);
            eprintln!("{name}: {} samples, the longest pause {:.0} ms", seen.len(), pause * 1e3);
            assert!(pause <= PAUSE, "{name} paused for {pause} s");
            if let Some(pair) = seen.windows(2).find(|pair| pair[0].1.handshake != pair[1].1.handshake) {
                panic!(
                    "{name} began another session, {:.2} s after the first sample: {pair:?}",
                    pair[1].0 - seen[0].0
                );
            }
        }
    }
}

/// What the interface counts of a peer.
#[derive(Clone, Copy, Debug)]
struct Counted {
    handshake: u64,
    bytes: u64,
}

type Sample = (f64, BTreeMap<String, Counted>);

/// Reads what the sampler wrote: a time, the peers as `wg show dump` lists them, an empty line.
fn samples(text: &str) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    // Behind the last empty line is a sample that was still being written.
    let (whole, _) = text.rsplit_once("\n\n").unwrap_or_default();
    for block in whole.split("\n\n") {
        let (at, peers) = block.split_once('\n').unwrap_or((block, ""));
        let peer = |line: &str| {
            let words: Vec<&str> = line.split('\t').collect();
            let number = |at: usize| words[at].parse::<u64>().unwrap();
            (words[0].to_owned(), Counted { handshake: number(4), bytes: number(5) + number(6) })
        };
        samples.push((at.parse().unwrap(), peers.lines().map(peer).collect()));
    }
    let slow = samples.windows(2).filter(|pair| pair[1].0 - pair[0].0 > STEP).count();
    assert!(
        samples.len() > 100 && slow * 4 < samples.len(),
        "too few samples: {} slow of {}",
        slow,
        samples.len()
    );
    samples
}

/// The longest time in which the same bytes were counted again and again, in seconds.
fn longest_pause(seen: &[(f64, Counted)]) -> f64 {
    let (mut longest, mut still) = (0.0_f64, 0.0);
    for pair in seen.windows(2) {
        let [(before, first), (after, second)] = pair else { continue };
        still = if first.bytes == second.bytes { still + (after - before).min(STEP) } else { 0.0 };
        longest = longest.max(still);
    }
    longest
}

#[test]
fn a_pause_is_seen_and_a_sampler_that_slept_is_none() {
    let seen = |counted: &[(f64, u64)]| -> Vec<(f64, Counted)> {
        counted.iter().map(|&(at, bytes)| (at, Counted { handshake: 1, bytes })).collect()
    };
    let flows: Vec<_> = (0..100_u32).map(|step| (f64::from(step) * 0.03, u64::from(step))).collect();
    assert!(longest_pause(&seen(&flows)) < 0.001);
    let stands: Vec<_> =
        flows.iter().map(|&(at, bytes)| (at, if (40..50).contains(&bytes) { 40 } else { bytes })).collect();
    assert!((longest_pause(&seen(&stands)) - 0.27).abs() < 0.001);
    let slept = [(0.0, 1), (0.03, 1), (5.0, 1), (5.03, 2)];
    assert!((longest_pause(&seen(&slept)) - 0.08).abs() < 0.001);
}
