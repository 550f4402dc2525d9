//! The appliance's kernel with this very program as its only process: kernel WireGuard where the host has none.
//!
//! No disk, no systemd: an initrd of locked packages. It is for measurements; what is claimed of the appliance is tried on
//! the sealed image.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sepulcher::cli::store::StoreArgs;
use sepulcher::image::build::module_index;
use sepulcher::image::fetch::Quiet;
use sepulcher::image::initrd::{self, Definition};
use sepulcher::image::layer::{Content, Kind, Layer, Node};
use sepulcher::image::system::{Base, System};

use crate::vm::{Machine, Seen, Start, Uplink};
use crate::{Result, image, root};

/// Where the guest has our program.
pub const PROGRAM: &str = "/usr/bin/sepulcher";

/// What the guest says before its program's lines, and after them when it ended well.
const BEGIN: &str = "the guest begins";
const DONE: &str = "the guest is done";

/// The first process. What the kernel does not know of its command line are our program's words.
const INIT: &str = "#!/usr/bin/bash
export PATH=/usr/sbin:/usr/bin HOME=/root
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
mount -t tmpfs none /run; mount -t tmpfs none /tmp
ln -s /proc/self/fd/0 /dev/stdin
modprobe -a wireguard veth nf_tables
ip link set lo up
echo 'the guest begins'
/xtask \"$@\" && echo 'the guest is done'
echo o > /proc/sysrq-trigger
sleep 60
";

/// What it takes of the packages; libraries and what modules need follow.
const FILES: [&str; 14] = [
    "bin",
    "sbin",
    "lib",
    "lib64",
    "usr/bin/bash",
    "usr/bin/iperf3",
    "usr/bin/kmod",
    "usr/bin/ln",
    "usr/bin/mount",
    "usr/bin/sleep",
    "usr/bin/wg",
    "usr/sbin/ip",
    "usr/sbin/modprobe",
    "usr/sbin/nft",
];

/// Tunnels, cables, and what the rulesets are made of.
const MODULES: [&str; 13] = [
    "wireguard",
    "veth",
    "nf_tables",
    "nf_log_syslog",
    "nft_chain_nat",
    "nft_connlimit",
    "nft_ct",
    "nft_fib_inet",
    "nft_hash",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_nat",
];

/// Words for the kernel, ours follow.
const CMDLINE: &str = "console=ttyS0 rdinit=/init panic=-1 --";

/// Runs this program with other words in a guest, whose lines are printed as they come. `time` is the longest it may take.
pub fn run(words: &str, time: Duration) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("sepulcher-guest-").tempdir()?;
    let [kernel, initrd] = ["kernel", "initrd"].map(|name| folder.path().join(name));
    let (content, archive) = parts(folder.path())?;
    fs::write(&kernel, content.read()?)?;
    fs::write(&initrd, archive)?;
    let toolbox = image::toolbox("tools-boot")?;
    let cmdline = format!("{CMDLINE} {words}");
    let start = Start::Kernel { kernel: &kernel, initrd: &initrd, cmdline: &cmdline, disk: None };
    let machine =
        Machine { toolbox: &toolbox, start, scratch: folder.path(), uplink: Uplink::None, processors: 2 };
    let mut running = machine.power_on()?;
    running.expect(time, BEGIN)?;
    loop {
        match running.wait(time, |_| true) {
            Seen::Line(_, line) if line == DONE => return Ok(()),
            Seen::Line(_, line) => println!("{line}"),
            Seen::Off => return Err("the guest went off before it was done".into()),
            Seen::Timeout => return Err("the guest is not done in time".into()),
        }
    }
}

/// The kernel, and an initrd with our programs and those that they run.
fn parts(scratch: &Path) -> Result<(Content, Vec<u8>)> {
    let own = own()?;
    let definition = Definition {
        files: FILES.iter().map(ToString::to_string).chain(own.0.keys().cloned()).collect(),
        // A thread that is cancelled loads it.
        libraries: vec!["libgcc_s.so.1".to_owned()],
        modules: MODULES.map(str::to_owned).to_vec(),
        folders: ["dev", "proc", "run", "sys", "tmp", "root"].map(str::to_owned).to_vec(),
        ..Definition::default()
    };
    let args = StoreArgs::default();
    let store = args.store(&Quiet).map_err(|failure| failure.to_string())?;
    let layer = |name: &str| -> Result<Layer> {
        Ok(store.layer(&args.image(&store, name).map_err(|failure| failure.to_string())?)?)
    };
    let definitions = args.definitions();
    let data = definitions.text("system", "image.toml")?.ok_or("the system has no image.toml")?;
    let system = System::parse(&data)?.base(layer("system")?, definitions.tree("system")?)?;
    let Base { root: mut content, kernel, release } = system;
    content.merge(layer("tools-topology")?);
    content.merge(module_index(&image::toolbox("tools-build")?, &content, &release, scratch)?);
    content.merge(own);
    Ok((kernel, initrd::build(&content, &definition, 0)?))
}

/// Files of our own, at the places where our program looks for them.
fn own() -> Result<Layer> {
    let mut layer = Layer::default();
    let mut add = |path: &Path, mode, bytes: Vec<u8>| {
        let path = path.strip_prefix("/").unwrap_or(path).display().to_string();
        let kind = Kind::File(Content::Bytes(bytes.into()));
        layer.0.insert(path, Node { mode, uid: 0, gid: 0, kind });
    };
    add(Path::new("init"), 0o755, INIT.into());
    add(Path::new("xtask"), 0o755, fs::read(std::env::current_exe()?)?);
    add(Path::new(PROGRAM), 0o755, fs::read(image::program()?)?);
    add(Path::new("shims/nft"), 0o755, b"#!/usr/bin/bash\nexec nft \"$@\"\n".to_vec());
    let example = root().join("examples/lychd");
    for (name, text) in sepulcher::sys::codex::load(&[&example]).iter() {
        add(&example.join(name), 0o644, text.into());
    }
    Ok(layer)
}
