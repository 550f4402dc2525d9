//! `sepulcher probe` from outside: our rendered rulesets are silent, and each way to spoil them is found and named.

use std::fs;
use std::path::{Path, PathBuf};

use sepulcher::codex::Codex;
use sepulcher::render::{self, caddy, nftables};
use sepulcher::sys::wireguard::SecretKey;

use crate::gateway::SEPULCHER;
use crate::lab::{Daemon, Machine, can_run, scratch, until};
use crate::netavark;

/// As the outsider knows the appliance.
pub const ADDRESS: &str = "192.0.2.1";

/// Ports that the example publishes.
const PUBLISHED: [(&str, &str); 2] = [("80", "tcp"), ("51820", "udp")];

/// The example's appliance: host and pod with the rendered rulesets, and somebody outside.
pub struct Appliance {
    pub host: Machine,
    pub pod: Machine,
    pub outsider: Machine,
    pub codex: Codex,
    folder: PathBuf,
    services: Vec<Daemon>,
}

impl Appliance {
    pub fn new(folder: &Path) -> Self {
        let (host, pod, outsider) = (Machine::new(), Machine::new(), Machine::new());
        host.plug("up0", &format!("{ADDRESS}/24"), &outsider, "192.0.2.2/24");
        host.plug(render::BRIDGE, "10.88.0.1/24", &pod, "10.88.0.10/24");
        host.sh("sysctl -qw net.ipv4.ip_forward=1");
        pod.sh("ip route add default via 10.88.0.1");
        let sources = sepulcher::sys::codex::load(&[&codex_folder()]);
        let codex = Codex::parse(&sources).unwrap();
        let mut appliance =
            Self { host, pod, outsider, codex, folder: folder.to_owned(), services: Vec::new() };
        appliance.load_host(|text| text);
        let pod_ruleset = nftables::pod(&appliance.codex).unwrap();
        appliance.load(&appliance.pod, "pod.nft", &pod_ruleset);
        let netavark = netavark::ruleset(PUBLISHED.into_iter(), "10.88.0.10", "10.88.0.0/24");
        appliance.load(&appliance.host, "netavark.nft", &netavark);
        appliance.serve(&[SEPULCHER, "stand-in", "vessel", "7134"]);
        appliance.serve(&[SEPULCHER, "stand-in", "intercom", "7140", "--path", "/a2a"]);
        appliance
    }

    pub fn load(&self, machine: &Machine, name: &str, ruleset: &str) {
        let file = self.folder.join(name);
        fs::write(&file, ruleset).unwrap();
        machine.sh(&format!("nft -f {}", file.display()));
    }

    /// Puts the host's ruleset in force as `spoil` leaves it.
    fn load_host(&self, spoil: impl FnOnce(String) -> String) {
        let ruleset = nftables::host(&self.codex).unwrap();
        self.load(&self.host, "host.nft", &spoil(ruleset));
    }

    /// Starts a program in the pod.
    fn serve(&mut self, words: &[&str]) {
        let mut command = self.pod.command(words[0]);
        command.args(&words[1..]).env("HOME", &self.folder);
        let log = self.folder.join(format!("service{}.log", self.services.len()));
        self.services.push(Daemon::start(command, &log));
    }

    /// The tether's interface, with a key that the outsider knows and no peer.
    pub fn wireguard(&self) -> String {
        let secret = SecretKey::generate();
        let file = self.folder.join("tether.key");
        fs::write(&file, secret.to_file().as_bytes()).unwrap();
        self.pod.wireguard();
        self.pod.sh(&format!(
            "wg set wg0 listen-port 51820 private-key {} && ip address add 10.88.16.1/20 dev wg0 && \
             ip link set wg0 up",
            file.display()
        ));
        secret.public().to_string()
    }

    /// The Veil as `spoil` leaves its Caddyfile.
    fn veil(&mut self, spoil: impl FnOnce(String) -> String) {
        let text = spoil(caddy::caddyfile(&self.codex).unwrap().unwrap());
        let file = self.folder.join("Caddyfile");
        fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        self.serve(&["caddy", "run", "--adapter", "caddyfile", "--config", &file]);
        let request = format!("GET / HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: close\r\n\r\n");
        until("the veil answers", || self.outsider.say(ADDRESS, 80, &request));
    }

    /// Exit code and report of a probe that knows the Codex.
    fn probe(&self, more: &[&str]) -> (i32, serde_json::Value) {
        let codex = codex_folder().display().to_string();
        self.run(&[], &[&[ADDRESS, "--codex", &codex], more].concat())
    }

    /// The same of any probe; `before` is what runs it.
    fn run(&self, before: &[&str], more: &[&str]) -> (i32, serde_json::Value) {
        let words = [before, &[SEPULCHER, "probe", "--json"], more].concat();
        let mut command = self.outsider.command(words[0]);
        command.args(&words[1..]).args(["--rate", "500", "--wait", "1", "--rounds", "6"]);
        let output = command.output().unwrap();
        let report = serde_json::from_slice(&output.stdout);
        let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), report)
    }

    /// Asserts that exactly these leaks are found, each by a part of its sentence.
    fn leaks(&self, expected: &[&str]) {
        assert_leaks(&self.probe(&[]), expected);
    }
}

/// Asserts that a probe found exactly these leaks, each by a part of its sentence.
fn assert_leaks((code, report): &(i32, serde_json::Value), expected: &[&str]) {
    let leaks: Vec<_> =
        report["leaks"].as_array().unwrap().iter().map(|leak| leak.as_str().unwrap()).collect();
    for part in expected {
        assert!(leaks.iter().any(|leak| leak.contains(part)), "{part:?} is not in {leaks:#?}");
    }
    // Where both kinds of port answer, their times differ by luck alone in one run of a hundred: the probe says how likely
    // that was. A port that really is slower would have next to no chance.
    let mut compared = report["comparisons"].as_array().unwrap().iter();
    let by_luck = compared.any(|one| one["of"] == "time" && one["p"].as_f64().unwrap() > 1e-5);
    let time = by_luck.then_some("by the time of its answers");
    for leak in &leaks {
        assert!(expected.iter().chain(&time).any(|part| leak.contains(part)), "{leak:?} was not expected");
    }
    assert_eq!((*code, &report["verdict"]), (1, &"leak".into()));
}

fn codex_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/lychd")
}

/// Text with all of something in it replaced, which must be there.
pub fn replaced(text: &str, what: &str, by: &str) -> String {
    assert!(text.contains(what), "{what:?} is not in:\n{text}");
    text.replace(what, by)
}

/// Text without the lines that hold something, which must be there.
pub fn without(text: &str, what: &str) -> String {
    assert!(text.contains(what), "{what:?} is not in:\n{text}");
    text.lines().filter(|line| !line.contains(what)).map(|line| format!("{line}\n")).collect()
}

const UNREACHABLE: &str = "icmp type destination-unreachable";
const RESET: &str = "tcp sequence 0 counter drop";
const HOPS: &str = "icmp type { source-quench, redirect, time-exceeded, parameter-problem } counter drop";
const UNREACHABLE6: &str = "icmpv6 type { destination-unreachable";
const INPUT: &str = "hook input priority filter; policy drop;";

#[test]
fn tether_port_cannot_be_told_from_a_closed_one() {
    if !can_run("tether_port_cannot_be_told_from_a_closed_one") {
        return;
    }
    let (_scratch, folder) = scratch();
    let mut appliance = Appliance::new(&folder);
    let key = appliance.wireguard();
    appliance.veil(|text| text);
    let (code, report) = appliance.probe(&["--key", &key]);
    assert_eq!((code, &report["verdict"]), (0, &"silent".into()), "{report:#}");
    assert_eq!(report["notes"], serde_json::json!([]), "everything was asked");
    let asked = report["asked"].as_array().unwrap();
    let answered: Vec<_> = asked.iter().filter(|row| row["answered"] != 0).collect();
    assert!(answered.len() == 1 && answered[0]["question"] == "tcp 80", "{answered:#?}");
    let good = asked.iter().find(|row| row["question"] == "udp initiation, good mac1").unwrap();
    assert_eq!(good["sent"], 6);
    let comparison = &report["comparisons"][0];
    assert!(comparison["p"].as_f64().unwrap() > 0.99 && comparison["tether"]["asked"] == 78, "{comparison}");
}

#[test]
fn tether_port_is_as_silent_while_nobody_serves_it() {
    if !can_run("tether_port_is_as_silent_while_nobody_serves_it") {
        return;
    }
    let (_scratch, folder) = scratch();
    let mut appliance = Appliance::new(&folder);
    appliance.serve(&[SEPULCHER, "stand-in", "veil", "80"]);
    until("the stand-in answers", || appliance.outsider.get(ADDRESS, 80, "/"));
    let (code, report) = appliance.probe(&[]);
    assert_eq!((code, &report["verdict"]), (0, &"silent".into()), "{report:#}");
    appliance.host.sh("nft delete table inet netavark");
    let (code, report) = appliance.probe(&[]);
    assert_eq!(
        (code, &report["verdict"]),
        (69, &"unreachable".into()),
        "a silence without a witness: {report:#}"
    );
}

#[test]
fn unreachables_of_closed_ports_are_found() {
    if !can_run("unreachables_of_closed_ports_are_found") {
        return;
    }
    let (_scratch, folder) = scratch();
    let appliance = Appliance::new(&folder);
    appliance.wireguard();
    appliance.host.sh("sysctl -qw net.ipv4.icmp_ratelimit=0");
    appliance
        .load_host(|text| without(&replaced(&text, INPUT, &INPUT.replace("drop", "accept")), UNREACHABLE));
    appliance.leaks(&[
        "icmp port unreachable from closed ports, none from the tether's",
        "can be told from closed ones by the count of its answers: icmp port unreachable, 0 of 72 against",
        "icmp timestamp: an answer",
        "icmp unknown protocol: icmp protocol unreachable",
        "echo answered, and the Codex lets none be",
    ]);
}

#[test]
fn leaks_are_found_without_privileges_too() {
    if !can_run("leaks_are_found_without_privileges_too") {
        return;
    }
    let (_scratch, folder) = scratch();
    let appliance = Appliance::new(&folder);
    appliance.host.sh("sysctl -qw net.ipv4.icmp_ratelimit=0");
    let spoiled = INPUT.replace("drop", "accept");
    appliance.load_host(|text| without(&without(&replaced(&text, INPUT, &spoiled), UNREACHABLE), RESET));
    let nobody = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"];
    let probed = appliance.run(&nobody, &[ADDRESS]);
    assert_leaks(
        &probed,
        &[
            "icmp port unreachable from closed ports, none from the tether's",
            "count of its answers",
            "reset instead of drop: tcp ports",
        ],
    );
    assert!(probed.1["notes"].to_string().contains("ICMP was not asked: that needs CAP_NET_RAW"));
}

#[test]
fn a_probe_asks_nobody_else_and_no_faster_than_it_says() {
    if !can_run("a_probe_asks_nobody_else_and_no_faster_than_it_says") {
        return;
    }
    let (_scratch, folder) = scratch();
    let appliance = Appliance::new(&folder);
    let watch = format!(
        "table inet watch {{\n\
        chain output {{ type filter hook output priority 0\n\
        ip daddr != {ADDRESS} counter comment \"elsewhere\"\n\
        ip daddr {ADDRESS} counter comment \"asked\"\n\
        ip daddr {ADDRESS} limit rate over 210/second burst 20 packets counter comment \"too fast\"\n}}\n}}\n"
    );
    appliance.load(&appliance.outsider, "watch.nft", &watch);
    let mut command = appliance.outsider.command(SEPULCHER);
    let output = command.args(["probe", ADDRESS, "--rate", "200", "--wait", "1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("at most 200 packets a second to that address alone, "), "{said}");
    let count = |what: &str| appliance.outsider.counted("table inet watch", what);
    assert_eq!((count("elsewhere"), count("too fast")), (0, 0), "{said}");
    assert!(count("asked") > 300, "{said}");
}

#[test]
fn ipv6_is_silent_as_well_and_its_leaks_are_found() {
    if !can_run("ipv6_is_silent_as_well_and_its_leaks_are_found") {
        return;
    }
    let (_scratch, folder) = scratch();
    let appliance = Appliance::new(&folder);
    appliance.host.sh("sysctl -qw net.ipv6.icmp.ratelimit=0 && ip address add 2001:db8::1/64 dev up0 nodad");
    appliance.outsider.sh("ip address add 2001:db8::2/64 dev eth0 nodad");
    let (code, report) = appliance.run(&[], &["2001:db8::1"]);
    assert_eq!((code, &report["verdict"]), (0, &"silent".into()), "{report:#}");
    let spoiled = INPUT.replace("drop", "accept");
    appliance.load_host(|text| without(&without(&replaced(&text, INPUT, &spoiled), UNREACHABLE6), RESET));
    assert_leaks(
        &appliance.run(&[], &["2001:db8::1"]),
        &[
            "icmp port unreachable from closed ports, and the tether's too",
            "the tether's port answers icmp port unreachable",
            "reset instead of drop: tcp ports",
            "icmp unknown protocol: icmp next header unknown",
        ],
    );
}

#[test]
fn a_reject_instead_of_a_drop_is_found() {
    if !can_run("a_reject_instead_of_a_drop_is_found") {
        return;
    }
    let (_scratch, folder) = scratch();
    let appliance = Appliance::new(&folder);
    let rejecting = format!("{INPUT}\n\t\tmeta l4proto tcp reject with tcp reset");
    appliance.load_host(|text| without(&replaced(&text, INPUT, &rejecting), RESET));
    appliance.leaks(&["reset instead of drop: tcp ports"]);
    let rejecting = format!("{INPUT}\n\t\tmeta l4proto {{ tcp, udp }} reject with icmp admin-prohibited");
    appliance.load_host(|text| without(&replaced(&text, INPUT, &rejecting), UNREACHABLE));
    appliance.host.sh("sysctl -qw net.ipv4.icmp_ratelimit=0");
    appliance.leaks(&[
        "icmp administratively prohibited instead of drop: tcp ports",
        "icmp administratively prohibited from closed ports, none from the tether's",
        "count of its answers: icmp administratively prohibited",
    ]);
}

#[test]
fn a_tether_port_that_answers_is_found() {
    if !can_run("a_tether_port_that_answers_is_found") {
        return;
    }
    let (_scratch, folder) = scratch();
    let mut appliance = Appliance::new(&folder);
    appliance.serve(&[SEPULCHER, "stand-in", "open", "51820/udp"]);
    until("the stand-in listens", || {
        fs::read_to_string(folder.join("service2.log")).ok().filter(|log| log.contains("listening"))
    });
    appliance.leaks(&[
        "the tether's port answers a datagram (to empty; ",
        "count of its answers: a datagram, 72 of 72 against 0 of 72",
    ]);
}

#[test]
fn a_hop_behind_the_tether_port_is_found() {
    if !can_run("a_hop_behind_the_tether_port_is_found") {
        return;
    }
    let (_scratch, folder) = scratch();
    let appliance = Appliance::new(&folder);
    appliance.wireguard();
    appliance.load_host(|text| without(&text, HOPS));
    appliance.leaks(&["icmp time exceeded for the tether's port alone"]);
}

#[test]
fn a_pinned_route_that_is_forbidden_instead_of_unknown_is_found() {
    if !can_run("a_pinned_route_that_is_forbidden_instead_of_unknown_is_found") {
        return;
    }
    let (_scratch, folder) = scratch();
    let mut appliance = Appliance::new(&folder);
    appliance.wireguard();
    appliance.veil(|text| {
        // The first route block is the forest's.
        text.replacen("\troute {\n", "\troute {\n\t\trespond /a2a/smith* 403\n", 1)
    });
    appliance.leaks(&["answers 403, an unknown path 404"]);
}

#[test]
fn a_pinned_route_behind_https_is_compared_too() {
    if !can_run("a_pinned_route_behind_https_is_compared_too") {
        return;
    }
    let (_scratch, folder) = scratch();
    let (host, outsider) = (Machine::new(), Machine::new());
    host.plug("up0", &format!("{ADDRESS}/24"), &outsider, "192.0.2.2/24");
    // A certificate of an authority that nobody knows: what is compared is what it says, not who it is.
    let caddyfile = "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n}\n\
        https://six.example {\n\ttls internal\n\troute {\n\
        \t\trespond /a2a/smith 403\n\t\trespond /a2a/smith/* 404\n\t\trespond 404\n\t}\n}\n\
        http://:80 {\n\tredir https://{host}{uri} 308\n}\n";
    let file = folder.join("Caddyfile");
    fs::write(&file, caddyfile).unwrap();
    let mut command = host.command("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file).env("HOME", &folder);
    let _caddy = Daemon::start(command, &folder.join("caddy.log"));
    let request = "GET / HTTP/1.1\r\nHost: six.example\r\nConnection: close\r\n\r\n";
    until("caddy answers", || outsider.say(ADDRESS, 80, request));
    let codex = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v6/codex");
    let mut command = outsider.command(SEPULCHER);
    command.args(["probe", ADDRESS, "--json", "--rate", "1000", "--wait", "1", "--rounds", "1", "--codex"]);
    let report: serde_json::Value =
        serde_json::from_slice(&command.arg(codex).output().unwrap().stdout).unwrap();
    let told: Vec<_> = [&report["leaks"], &report["notes"]]
        .into_iter()
        .flat_map(|sentences| sentences.as_array().unwrap())
        .filter_map(|sentence| sentence.as_str().filter(|sentence| sentence.contains("/a2a/smith")))
        .collect();
    assert_eq!(told, ["pinned route /a2a/smith at port 443 answers 403, an unknown path 404"], "{report:#}");
}
