//! Updates that a peer serves: the host fetches them through the pod's tunnel, and in no other way.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sepulcher::rebirth::publisher::SigningKey;

use crate::gateway::{Device, Gateway, SEPULCHER};
use crate::lab::{Machine, can_run, scratch, until};
use crate::packets::within;

/// What the peer has, and where: its addresses in both families.
const SOURCES: [&str; 2] = ["http://10.88.16.2:8080/lab/", "http://[fd88::2]:8080/lab/"];

/// What was asked for is heard of at once.
const HEARD: Duration = Duration::from_secs(10);

/// Serves an archive at every address of a device; who asked for what is sent on.
fn serve(device: &Device) -> mpsc::Receiver<(IpAddr, String)> {
    let listener = within(&device.machine.network(), || TcpListener::bind("[::]:8080").unwrap());
    let (asked, heard) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let from = stream.peer_addr().unwrap().ip().to_canonical();
            asked.send((from, answer(stream))).unwrap();
        }
    });
    heard
}

/// Answers one request with an archive that nobody signed; its first line.
fn answer(mut stream: TcpStream) -> String {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    let request = lines.next().unwrap();
    lines.find(String::is_empty).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "SHA256SUMS", &b"x"[..]).unwrap();
    let body = archive.into_inner().unwrap();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).unwrap();
    stream.write_all(&body).unwrap();
    request
}

/// The files of a sealed machine whose agent has that gateway's network namespace.
pub fn host(root: &Path, gateway: &Gateway) {
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    write("usr/lib/os-release", "IMAGE_ID=lab\nIMAGE_VERSION=1\n");
    write("proc/cmdline", &format!("roothash={:064}\n", 0));
    write("proc/sys/kernel/random/boot_id", "a boot\n");
    write("usr/bin/lsblk", "#!/bin/sh\necho '{\"blockdevices\": []}'\n");
    write("usr/bin/podman", "#!/bin/sh\necho systemd-lab-oculus 2\necho systemd-lab-vpn 3\n");
    for folder in ["efi/EFI/Linux", "run/sepulcher", "proc/3/ns", "usr/share/sepulcher", "var/lib/sepulcher"]
    {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for (from, to) in [("law", "usr/share/sepulcher/codex"), ("bonds", "var/lib/sepulcher/codex")] {
        let copied = Command::new("cp").arg("-r").arg(gateway.folder.join(from)).arg(root.join(to)).status();
        assert!(copied.unwrap().success());
    }
}

/// What staging from a source says, on the network of `host` with the agent's in `agent`.
fn staged(root: &Path, host: &Machine, agent: &Machine, source: &str) -> String {
    let link = root.join("proc/3/ns/net");
    let _ = fs::remove_file(&link);
    symlink(agent.namespace(), link).unwrap();
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", host.namespace().display()));
    let output =
        command.args([SEPULCHER, "rebirth", "stage", "--root"]).arg(root).arg(source).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_update_that_a_peer_serves_is_fetched_through_the_tunnel_alone() {
    if !can_run("an_update_that_a_peer_serves_is_fetched_through_the_tunnel_alone") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let law = folder.join("law/lychd.toml");
    let publisher = SigningKey::generate().unwrap().public();
    let more =
        format!("network6 = \"fd88::/64\"\n[rebirth]\npublisher = \"{publisher}\"\nsources = {SOURCES:?}\n");
    fs::write(&law, fs::read_to_string(&law).unwrap() + &more).unwrap();
    let device = Device::new(&gateway, 0);
    let networks = "10.88.16.0/20,fd88::/64";
    device.machine.sh(&format!(
        "ip address add fd88::2/64 dev wg0 nodad && wg set wg0 peer {} allowed-ips {networks}",
        gateway.key
    ));
    gateway.bond("phone", &device.file("address6 = \"fd88::2\"\n"));
    let _daemons = gateway.running(1);
    until("the page comes through the tunnel", || device.try_page());
    let heard = serve(&device);
    let (root, without, alone) = (folder.join("root"), Machine::new(), Machine::new());
    host(&root, &gateway);
    // The host is where the server is, and a pod that has no tunnel yet has a way there: whatever is not fetched through
    // the tunnel is heard.
    device.machine.plug("lan", "198.51.100.1/24", &without, "198.51.100.2/24");
    device.machine.sh("ip address add fd77::1/64 dev lan nodad");
    without.sh("ip address add fd77::2/64 dev eth0 nodad && ip route add 10.88.16.0/20 via 198.51.100.1 && \
         ip route add fd88::/64 via fd77::1");
    alone.sh("ip link add wg0 type bridge");
    for (source, own) in SOURCES.into_iter().zip(["10.88.16.1", "fd88::1"]) {
        let source = format!("{source}lab_2.tar");
        let staged = |agent: &Machine| staged(&root, &device.machine, agent, &source);
        let said = staged(&gateway.machine);
        assert!(said.contains("SHA256SUMS.minisig"), "{said}");
        let (from, request) = heard.recv_timeout(HEARD).unwrap();
        assert_eq!((from.to_string().as_str(), request.as_str()), (own, "GET /lab/lab_2.tar HTTP/1.1"));
        for (agent, reason) in [(&without, "does not run, or not yet"), (&alone, "needs its peer online")] {
            let said = staged(agent);
            assert!(said.contains(reason), "{said}");
            assert!(heard.try_recv().is_err(), "it came another way");
        }
    }
}
