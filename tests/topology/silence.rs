//! What a whole appliance answers, to whom, and that nobody else gets a packet.

use std::thread::sleep;
use std::time::Duration;

use crate::appliance::{POD, publish};
use crate::device::Device;
use crate::ear::Ear;
use crate::host::{Rights, until};
use crate::lab::World;
use crate::scene::{LAPTOP, PHONE, Scene, Verdict, answers, caught, prove, silent};

fn oculus(who: &Device) -> Option<String> {
    who.host.get("http://10.88.16.1:6006/")
}

/// Payloads of many lengths to the tether's port and to others, without a bond; a handshake with the right first key;
/// pings; and connections to every port that something listens on in the pod, but for the forest's.
fn knock(outsider: &Device, uplink: &str) {
    let line = format!(
        "for port in 51820 51821 53 123 6006 7878 7879 33434; do for bytes in 1 32 92 148 149 600 1400; do \
           head -c $bytes /dev/urandom > /dev/udp/{uplink}/$port; done; done 2> /dev/null; \
         ping -c 1 -W 1 10.88.16.1 > /dev/null; \
         ping -c 2 -i 0.2 -W 1 {uplink} > /dev/null; ping -c 1 -W 1 -s 1400 {uplink} > /dev/null; \
         for port in 22 443 2019 4318 5432 6006 7134 7140 7878 9464 51820 51821; do \
           curl --silent --max-time 0.5 http://{uplink}:$port/ & done; wait; true"
    );
    outsider.host.sh(&line);
}

#[test]
fn unbonded_probe_gets_no_packet() {
    let claim = |scene: &Scene| {
        let uplink = scene.appliance.uplink.to_string();
        let ear = Ear::at(&scene.world, &scene.outsider.host, &format!("ip and src {uplink}"));
        knock(&scene.outsider, &uplink);
        match ear.heard() {
            heard if heard.is_empty() => Ok(()),
            heard => Err(heard),
        }
    };
    prove(
        "unbonded_probe_gets_no_packet",
        claim,
        &[
            ("the host answers pings", "ICMP echo reply", |scene| {
                scene.host("nft insert rule inet sepulcher input icmp type echo-request accept");
            }),
            ("closed ports tell that they are", "unreachable", |scene| {
                scene.host(
                    "nft flush chain inet sepulcher hushed && nft flush chain inet sepulcher output && \
                     nft insert rule inet sepulcher input accept",
                );
            }),
            ("what is not let through is rejected", "unreachable", |scene| {
                scene.host(
                    "nft flush chain inet sepulcher hushed && nft flush chain inet sepulcher output && \
                     nft add rule inet sepulcher input reject",
                );
            }),
            ("a handshake is answered by something else on the tether's port", ".51820 > ", |scene| {
                scene.host(
                    "nft insert rule inet sepulcher input accept && nft flush table inet netavark && \
                     (timeout 60 sepulcher stand-in leak 51820/udp > /dev/null 2>&1 &)",
                );
            }),
        ],
    );
}

#[test]
fn tether_port_cannot_be_told_from_a_closed_one() {
    let claim = |scene: &Scene| {
        let (uplink, key) = (scene.appliance.uplink, scene.appliance.gateway.key);
        let line =
            format!("sepulcher probe {uplink} --key {key} --tcp 80 --rate 200 --wait 1 --rounds 4 --json");
        // Its exit code is 1 when something leaks.
        let told = scene.outsider.host.try_sh(&format!("{line} || test $? = 1"))?;
        let report: serde_json::Value =
            serde_json::from_str(&told).map_err(|error| format!("{error}: {told}"))?;
        if report["verdict"] == "silent" { Ok(()) } else { Err(report["leaks"].to_string()) }
    };
    prove(
        "tether_port_cannot_be_told_from_a_closed_one",
        claim,
        &[
            (
                "closed ports tell that they are, the tether's does not",
                "from closed ports, none from the tether's",
                |scene| {
                    scene.host(
                        "nft flush chain inet sepulcher hushed && nft flush chain inet sepulcher output && \
                     nft insert rule inet sepulcher input accept",
                    );
                },
            ),
            (
                "the tether's port tells that it is handed on",
                "icmp time exceeded for the tether's port alone",
                |scene| scene.host("nft flush chain inet sepulcher hushed"),
            ),
        ],
    );
}

#[test]
fn oculus_answers_only_through_wg0() {
    let claim = |scene: &Scene| {
        answers("the Oculus", oculus(&scene.phone), &format!("caller {PHONE}"))?;
        let uplink = scene.appliance.uplink;
        silent("the uplink", scene.outsider.host.get(&scene.outside(6006)))?;
        // Who knows the addresses behind the host asks for them by name.
        scene.outsider.host.sh(&format!("ip link set wg0 down; ip route replace 10.88.0.0/19 via {uplink}"));
        silent("the pod", scene.outsider.host.get(&format!("http://{POD}:6006/")))?;
        silent("the tunnel's address", scene.outsider.host.get("http://10.88.16.1:6006/"))
    };
    prove(
        "oculus_answers_only_through_wg0",
        claim,
        &[("both rulesets let everything in", "the pod answered: stand-in oculus", |scene| {
            // Each alone is not enough for a leak.
            scene.host(
                "nft flush chain inet sepulcher prerouting && nft insert rule inet sepulcher forward accept",
            );
            scene.pod("nft insert rule inet sepulcher input accept");
        })],
    );
}

#[test]
fn voice_is_heard_only_through_wg0() {
    let claim = |scene: &Scene| {
        let line = |to: &str| format!("exec 3<>/dev/udp/{to}/7879; echo hello >&3; timeout 2 head -c 8 <&3");
        answers("the voice", scene.phone.host.try_sh(&line("10.88.16.1")).ok(), "stand-in")?;
        silent("the laptop's try", scene.laptop.host.try_sh(&line("10.88.16.1")).ok())?;
        let uplink = scene.appliance.uplink.to_string();
        silent("the uplink", scene.outsider.host.try_sh(&line(&uplink)).ok())
    };
    prove(
        "voice_is_heard_only_through_wg0",
        claim,
        &[("the port is published in every place", "the uplink answered: stand-in", |scene| {
            scene.host(
                "nft insert rule inet netavark ports udp dport 7879 dnat ip to 10.88.0.10:7879 && \
                 nft add element inet sepulcher published { udp . 7879 }",
            );
            scene.pod("nft add element inet sepulcher published { udp . 7879 }");
        })],
    );
}

#[test]
fn peer_without_grant_is_denied_and_counted() {
    let claim = |scene: &Scene| {
        answers("the worker", scene.laptop.host.get("http://10.88.16.1:9464/"), "stand-in worker")?;
        silent("the worker", scene.phone.host.get("http://10.88.16.1:9464/"))?;
        let denied = scene.appliance.gateway.pod.sh("nft list set inet sepulcher denied");
        let line = denied.lines().find(|line| line.contains(PHONE));
        match line {
            Some(line) if line.contains("counter packets") => Ok(()),
            _ => Err(format!("the phone is not counted: {denied}")),
        }
    };
    prove(
        "peer_without_grant_is_denied_and_counted",
        claim,
        &[
            ("what is refused is not counted", "the phone is not counted", |scene| {
                scene.pod(
                    "nft insert rule inet sepulcher tether tcp dport 9464 ip saddr 10.88.16.2 drop && \
                           nft flush set inet sepulcher denied",
                );
            }),
            ("every peer may reach everything", "the worker answered: stand-in worker", |scene| {
                // Both ways: what the grants do not hold is not answered either.
                scene.pod(
                    "nft insert rule inet sepulcher tether accept && nft insert rule inet sepulcher output accept",
                );
            }),
        ],
    );
}

/// The whole answer of the proxy, without its date.
fn page(who: &Device, at: &str, path: &str) -> Result<String, String> {
    let line = format!("curl --silent --include --path-as-is --max-time 5 http://{at}{path}");
    let answer = who.host.try_sh(&line)?;
    Ok(answer.lines().filter(|line| !line.starts_with("Date:")).collect::<Vec<_>>().join("\n"))
}

/// That the Intercom's pinned route looks like a path that nobody serves.
fn knows_no_pinned_route(who: &Device, at: &str) -> Verdict {
    let unknown = page(who, at, "/no-such-page")?;
    for path in ["/a2a/smith", "/a2a/smith/", "/a2a/smith/tasks", "/a2a/../a2a/smith", "/a2a//smith"] {
        let pinned = page(who, at, path)?;
        if pinned != unknown {
            return Err(format!("{path} answers {pinned:?}, an unknown path {unknown:?}"));
        }
    }
    Ok(())
}

#[test]
fn pinned_route_looks_unknown_from_the_forest() {
    let claim = |scene: &Scene| {
        knows_no_pinned_route(&scene.outsider, &scene.appliance.uplink.to_string())?;
        answers("the pinned route", page(&scene.phone, "10.88.16.1", "/a2a/smith").ok(), "stand-in intercom")
    };
    prove(
        "pinned_route_looks_unknown_from_the_forest",
        claim,
        &[
            ("the proxy forbids it", " 403", |scene| {
                scene.appliance.serve(|text| {
                    // The forest's routes come first.
                    let forbidding = "\troute {\n\t\trespond /a2a/smith* 403\n";
                    text.replacen("\troute {\n", forbidding, 1)
                });
            }),
            ("the proxy serves it to everybody", "stand-in intercom", |scene| {
                scene.appliance.serve(|text| {
                    text.replace("respond /a2a/smith* 403", "reverse_proxy /a2a/smith* 127.0.0.1:7140")
                });
            }),
        ],
    );
}

#[test]
fn pinned_route_looks_unknown_to_peers_that_hold_another_one() {
    const PASS: &str = "try_files /intercom/{remote_host}";
    const ANOTHERS: &str = "try_files /intercom/10.88.16.2";
    let claim = |scene: &Scene| {
        let own = page(&scene.laptop, "10.88.16.1", "/gallery");
        answers("the laptop's own route", own.ok(), "stand-in gallery")?;
        knows_no_pinned_route(&scene.laptop, "10.88.16.1")?;
        answers("the pinned route", page(&scene.phone, "10.88.16.1", "/a2a/smith").ok(), "stand-in intercom")
    };
    prove(
        "pinned_route_looks_unknown_to_peers_that_hold_another_one",
        claim,
        &[
            ("the proxy looks at the phone's pass, whoever asks", "stand-in intercom", |scene| {
                scene.appliance.serve(|text| {
                    assert!(text.contains(PASS), "{text}");
                    text.replace(PASS, ANOTHERS)
                });
            }),
            ("a pass lies there that the agent did not give", "stand-in intercom", |scene| {
                scene.appliance.serve(|text| text.replace(ANOTHERS, PASS));
                scene.appliance.gateway.agent.kill();
                scene.appliance.gateway.lay_pass("intercom", LAPTOP);
            }),
        ],
    );
}

#[test]
fn spoofed_tether_source_is_dropped() {
    let claim = |scene: &Scene| {
        let (outsider, uplink) = (&scene.outsider.host, scene.appliance.uplink);
        outsider.sh(&format!(
            "ip link set wg0 down; ip address replace {PHONE}/32 dev eth0; ip route replace {POD}/32 via {uplink}"
        ));
        let ear = Ear::at(&scene.world, &scene.appliance.witness, &format!("ip and src {PHONE}"));
        for target in [format!("{uplink}:80"), format!("{POD}:6006"), format!("{POD}:80")] {
            outsider.sh(&format!("curl --silent --max-time 1 --interface {PHONE} http://{target}/; true"));
        }
        match ear.heard() {
            heard if heard.is_empty() => Ok(()),
            heard => Err(heard),
        }
    };
    prove(
        "spoofed_tether_source_is_dropped",
        claim,
        &[("the host believes every source address", "10.88.16.2.", |scene| {
            scene.host("nft flush chain inet sepulcher prerouting");
        })],
    );
}

#[test]
fn published_port_does_not_bypass_the_policy() {
    let claim = |scene: &Scene| {
        answers("the forest's page", scene.outsider.host.get(&scene.outside(80)), "stand-in vessel")?;
        // As another container with `--publish 6006:6006`, or a mistake in a unit, would have it.
        scene.host("nft insert rule inet netavark ports tcp dport 6006 dnat ip to 10.88.0.10:6006");
        silent("the port", scene.outsider.host.get(&scene.outside(6006)))
    };
    prove(
        "published_port_does_not_bypass_the_policy",
        claim,
        &[("the policy publishes it, too", "the port answered: stand-in oculus", |scene| {
            scene.host("nft add element inet sepulcher published { tcp . 6006 }");
            scene.pod("nft add element inet sepulcher published { tcp . 6006 }");
        })],
    );
}

#[test]
fn forest_client_keeps_its_address() {
    let claim = |scene: &Scene| {
        let (outsider, _) = scene.outsider.host.outside();
        let expected = format!("forwarded-for {outsider}");
        answers("the forest's page", scene.outsider.host.get(&scene.outside(80)), &expected)
    };
    prove(
        "forest_client_keeps_its_address",
        claim,
        &[("the host speaks for everybody", "forwarded-for 10.88.0.1", |scene| {
            scene.host("nft insert rule inet netavark postrouting oifname sepulcher0 masquerade");
        })],
    );
}

#[test]
fn pod_reaches_nothing_of_the_host() {
    let claim = |scene: &Scene| {
        let admin = ["sepulcher", "stand-in", "admin", "9090"];
        let _admin = scene.world.beside(&scene.appliance.host, "admin", &admin, Rights::default());
        until("the host's page is there", || scene.appliance.host.get("http://127.0.0.1:9090/"));
        silent("the bridge", scene.appliance.gateway.pod.get("http://10.88.0.1:9090/"))?;
        silent("the uplink, from the pod", scene.appliance.gateway.pod.get(&scene.outside(9090)))?;
        silent("the uplink, from outside,", scene.outsider.host.get(&scene.outside(9090)))?;
        silent("the bridge, from a peer", scene.phone.host.get("http://10.88.0.1:9090/"))
    };
    prove(
        "pod_reaches_nothing_of_the_host",
        claim,
        &[
            ("the host lets the pod in", "the bridge answered: stand-in admin", |scene| {
                scene.host("nft insert rule inet sepulcher input iifname sepulcher0 accept");
            }),
            ("the host lets everybody in", "the uplink, from outside, answered: stand-in admin", |scene| {
                scene.host("nft insert rule inet sepulcher input iifname eth0 accept");
            }),
        ],
    );
}

#[test]
fn restarts_keep_reach_and_silence() {
    let Some(world) = World::new("restarts_keep_reach_and_silence") else { return };
    let scene = Scene::new(world);
    let check = || -> Verdict {
        answers("the Oculus", oculus(&scene.phone), &format!("caller {PHONE}"))?;
        answers("the forest's page", scene.outsider.host.get(&scene.outside(80)), "stand-in vessel")?;
        silent("the worker", scene.phone.host.get("http://10.88.16.1:9464/"))?;
        silent("the uplink", scene.outsider.host.get(&scene.outside(6006)))
    };
    let holds = |after: &str| check().unwrap_or_else(|found| panic!("after {after}: {found}"));
    holds("the start");
    scene.host(&publish(&scene.appliance.tree));
    holds("a reload of Netavark");
    scene.appliance.load_host_ruleset();
    holds("a reload of the host's ruleset");
    scene.appliance.restart_veil();
    holds("a restart of the proxy");
    let service = scene.appliance.gateway.services.iter().find(|service| service.name == "oculus").unwrap();
    service.kill();
    service.restart();
    until("the Oculus is back", || oculus(&scene.phone));
    holds("a restart of a service");
    scene.appliance.gateway.agent.kill();
    holds("the end of the agent");
    sleep(Duration::from_secs(1));
    scene.appliance.gateway.agent.restart();
    scene.appliance.gateway.looks_again();
    holds("its start");
    // Reloads of what is not what was rendered: of one that publishes more, and one that publishes nothing.
    scene.host("nft insert rule inet netavark ports tcp dport 6006 dnat ip to 10.88.0.10:6006");
    scene.host("nft add element inet sepulcher published { tcp . 6006 }");
    scene.pod("nft add element inet sepulcher published { tcp . 6006 }");
    caught("more is published", check(), "the uplink answered: stand-in oculus");
    scene.appliance.load_host_ruleset();
    scene.host("nft flush set inet sepulcher published");
    caught("nothing is published", check(), "the forest's page answered None");
}
