//! A whole appliance out of the files that the example renders: a host with its ruleset, and the pod behind it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use sepulcher::codex::{Codex, Source};
use sepulcher::render::BRIDGE;
use sepulcher::tree::{Entry, Tree};

use crate::engine;
use crate::host::{Host, Rights, until};
use crate::lab::{Gateway, World};
use crate::netavark;

/// The pod's address behind the host, and the host's towards it, as the example has them.
pub const POD: &str = "10.88.0.10";
const BRIDGE_ADDRESS: &str = "10.88.0.1";

/// A host with an uplink, and its pod.
pub struct Appliance {
    /// Has the uplink, the ruleset of the host, and the published ports.
    pub host: Host,
    /// The pod and its agent.
    pub gateway: Gateway,
    /// Listens in the pod.
    pub witness: Host,
    /// The host's address for everybody.
    pub uplink: Ipv4Addr,
    /// The proxy.
    pub veil: Host,
    /// What the Codex renders.
    pub tree: Tree,
    rendered: PathBuf,
}

impl Appliance {
    /// Brings up the example; everything in it answers once this returns.
    pub fn new(world: &World) -> Self {
        let codex = law(world);
        let sources = sepulcher::sys::codex::load(&[&codex]);
        let valid = Codex::parse(&sources).unwrap();
        let tree = sepulcher::render::render(&valid).unwrap();
        let rendered = world.folder("lychd/rendered");
        for file in ["nftables/host.nft", "Caddyfile"] {
            write(&tree, &format!("usr/share/sepulcher/{file}"), &rendered.join(file));
        }
        let inner = world.inner();
        let pod = Gateway::pod(world, "lychd", Some(&inner));
        let (host, uplink) = host(world, &rendered, &inner);
        host.sh(&publish(&tree));
        pod.sh(&format!(
            "ip address flush dev eth0 && ip address add {POD}/24 dev eth0 && ip route add default via {BRIDGE_ADDRESS}"
        ));
        let services = services(world, &pod, &valid);
        let gateway = Gateway::awaken(world, "lychd", pod, uplink, codex, services);
        // It binds to the tunnel's address, which is the agent's to make.
        let veil = veil(world, &gateway.pod, &valid, &rendered);
        let listens = Rights { capabilities: &["NET_RAW"], ..Rights::default() };
        let witness = world.beside(&gateway.pod, "witness", &["sleep", "infinity"], listens);
        let appliance = Self { host, gateway, witness, uplink, veil, tree, rendered };
        until("the proxy answers", || appliance.gateway.pod.get(&format!("http://{POD}/")));
        appliance
    }

    /// Loads the host's ruleset as it was rendered.
    pub fn load_host_ruleset(&self) {
        self.host.sh("nft -f /rendered/nftables/host.nft");
    }

    /// Has the proxy serve another configuration, which `edit` makes of the rendered one.
    pub fn serve(&self, edit: impl FnOnce(String) -> String) {
        let file = self.rendered.join("Caddyfile");
        let edited = edit(fs::read_to_string(&file).unwrap());
        // In place: the container has this very file.
        fs::write(&file, edited).unwrap();
        self.restart_veil();
    }

    /// Stops the proxy and starts it again.
    pub fn restart_veil(&self) {
        self.veil.kill();
        self.veil.restart();
        until("the proxy answers again", || self.gateway.pod.get(&format!("http://{POD}/")));
    }
}

/// One more service than the example has, with a pinned route of its own: who holds it may speak to the proxy, and not
/// ask for the Intercom's.
const GALLERY: &str = r#"
description = "Gallery"
rootfs = "stand-in"
command = ["/usr/bin/sepulcher", "stand-in", "gallery", "7200", "--path", "/gallery"]

[[port]]
number = 7200
tier = "pod"

[[route]]
path = "/gallery"
tier = "tether"
port = 7200
"#;

/// The example's law, with a userspace WireGuard and a gallery, and without its bonds.
fn law(world: &World) -> PathBuf {
    let (example, codex) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/lychd"), world.folder("lychd/codex"));
    for folder in ["services", "peers"] {
        fs::create_dir_all(codex.join(folder)).unwrap();
    }
    for file in fs::read_dir(example.join("services")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), codex.join("services").join(file.file_name())).unwrap();
    }
    fs::write(codex.join("services/gallery.toml"), GALLERY).unwrap();
    let text = fs::read_to_string(example.join("lychd.toml")).unwrap();
    let userspace = text.replace("[tether]\n", "[tether]\nbackend = \"userspace\"\n");
    assert_ne!(text, userspace);
    fs::write(codex.join("lychd.toml"), userspace).unwrap();
    codex
}

fn write(tree: &Tree, path: &str, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::write(to, text(tree, path)).unwrap();
}

fn text<'a>(tree: &'a Tree, path: &str) -> &'a str {
    let Some(Entry::File { bytes, .. }) = tree.get(path) else { panic!("no file {path} is rendered") };
    std::str::from_utf8(bytes).unwrap()
}

/// The host: first its ruleset, then its cables, as at boot.
fn host(world: &World, rendered: &Path, inner: &str) -> (Host, Ipv4Addr) {
    let mounts = vec![(rendered.to_owned(), "/rendered")];
    let rights = Rights { capabilities: &["NET_ADMIN"], forwards: true, mounts, ..Rights::default() };
    let host = world.host("lychd", &["sleep", "infinity"], rights);
    let (uplink, _) = host.outside();
    host.sh("nft -f /rendered/nftables/host.nft");
    host.plug(inner);
    host.sh(&format!(
        "ip link set eth1 down && ip link set eth1 name {BRIDGE} && ip address flush dev {BRIDGE} && \
         ip address add {BRIDGE_ADDRESS}/24 dev {BRIDGE} && ip link set {BRIDGE} up"
    ));
    (host, uplink)
}

/// What Netavark does for the ports that the rendered pod publishes.
pub fn publish(tree: &Tree) -> String {
    let pod = text(tree, "usr/share/containers/systemd/lychd.pod");
    let published = pod.lines().filter_map(|line| line.strip_prefix("PublishPort="));
    let published =
        published.map(|port| port.split_once(':').and_then(|(_, to)| to.split_once('/')).unwrap());
    let ruleset = netavark::ruleset(published, POD, "10.88.0.0/24");
    format!("nft -f - <<'EOF'\n{ruleset}\nEOF")
}

/// Every stand-in of the example, with its own command line, and one in the place of the database.
fn services(world: &World, pod: &Host, codex: &Codex) -> Vec<Host> {
    let mut services = Vec::new();
    for (name, service) in codex.services.iter().filter(|(_, service)| !service.veil) {
        let rootfs = matches!(&service.source, Source::Rootfs(root) if root.as_str() == "stand-in");
        let argv: Vec<&str> = if rootfs {
            service.command.iter().map(String::as_str).collect()
        } else {
            vec!["sepulcher", "stand-in", name.as_str(), "5432"]
        };
        services.push(world.beside(pod, name.as_str(), &argv, Rights::default()));
    }
    services
}

fn veil(world: &World, pod: &Host, codex: &Codex, rendered: &Path) -> Host {
    let service = codex.services.values().find(|service| service.veil).unwrap();
    let argv: Vec<&str> = service.command.iter().map(String::as_str).collect();
    // The folder below the agent's, as the rendered container has it.
    let passes = (world.folder("lychd/run/veil"), "/run/sepulcher/veil");
    let mounts = vec![(rendered.join("Caddyfile"), "/etc/caddy/Caddyfile"), passes];
    let rights = Rights { capabilities: &["NET_BIND_SERVICE"], mounts, ..Rights::default() };
    Host::start("veil", &pod.network(), engine::veil(), &argv, rights, world.log("veil"))
}
