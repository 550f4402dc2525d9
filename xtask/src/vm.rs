//! An image in QEMU: OVMF, no KVM needed, the serial console as a stream of lines with their times.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use sepulcher::image::toolbox::Toolbox;
use sepulcher::sys::cmd::Command;

use crate::Result;

/// Memory of a machine, in MiB.
const MEMORY: &str = "2048";

/// Hardware address of a machine's uplink.
pub const HARDWARE_ADDRESS: &str = "52:54:00:12:34:56";

/// How a machine is attached to a network.
pub enum Uplink {
    /// It has no network card.
    None,
    /// QEMU's own network, with ports of the host's loopback forwarded: `(protocol, host port, guest port)`.
    User(Vec<(&'static str, u16, u16)>),
    /// A tap device of this name, in the network namespace that `launcher` enters.
    Tap { name: String, launcher: Command },
}

/// What a machine executes first.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// The firmware, which finds its way on the disk; the disk is written to.
    Disk(&'a Path),
    /// A kernel that the emulator puts into the memory.
    Kernel {
        kernel: &'a Path,
        initrd: &'a Path,
        cmdline: &'a str,
        /// The disk beside it, if there is one; written to.
        disk: Option<&'a Path>,
    },
}

/// What to boot.
pub struct Machine<'a> {
    /// Where QEMU and OVMF come from.
    pub toolbox: &'a Toolbox,
    /// What it executes first.
    pub start: Start<'a>,
    /// Folder for this machine's firmware variables.
    pub scratch: &'a Path,
    /// How it is attached.
    pub uplink: Uplink,
    /// Number of processors.
    pub processors: u8,
}

impl Start<'_> {
    fn disk(self) -> Option<PathBuf> {
        match self {
            Self::Disk(disk) => Some(disk.to_owned()),
            Self::Kernel { disk, .. } => disk.map(Path::to_owned),
        }
    }

    /// What the console shows of a machine that got so far as to execute something.
    fn sign_of_life(self) -> &'static str {
        match self {
            Self::Disk(_) => "Booting initrd of",
            Self::Kernel { .. } => "as init process",
        }
    }

    fn started(self, toolbox: &Toolbox, scratch: &Path, qemu: Command) -> Result<Command> {
        let qemu = match self {
            Self::Disk(_) => {
                let variables = scratch.join("ovmf-vars.fd");
                std::fs::copy(toolbox.file("usr/share/OVMF/OVMF_VARS_4M.fd"), &variables)?;
                let code = toolbox.file("usr/share/OVMF/OVMF_CODE_4M.fd");
                qemu.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={}", code.display())])
                    .args(["-drive", &format!("if=pflash,format=raw,file={}", variables.display())])
            }
            Self::Kernel { kernel, initrd, cmdline, .. } => {
                qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", cmdline])
            }
        };
        Ok(match self.disk() {
            Some(disk) => qemu.args(["-drive", &format!("if=virtio,format=raw,file={}", disk.display())]),
            None => qemu,
        })
    }
}

impl Uplink {
    fn attached(self, qemu: Command) -> Command {
        let (network, launcher) = match self {
            Self::None => return qemu,
            Self::User(forwards) => {
                let mut network = "user,id=uplink".to_owned();
                for (protocol, host, guest) in forwards {
                    network += &format!(",hostfwd={protocol}:127.0.0.1:{host}-:{guest}");
                }
                (network, None)
            }
            Self::Tap { name, launcher } => {
                (format!("tap,id=uplink,ifname={name},script=no,downscript=no"), Some(launcher))
            }
        };
        let qemu = qemu
            .args(["-netdev", &network, "-device"])
            .arg(format!("virtio-net-pci,netdev=uplink,mac={HARDWARE_ADDRESS},romfile="));
        match launcher {
            Some(launcher) => qemu.within(launcher),
            None => qemu,
        }
    }
}

impl Machine<'_> {
    /// QEMU's command line. KVM is used where it was tried and serves, else emulation.
    pub fn command(self) -> Result<Command> {
        let accelerator = accelerator(&self)?;
        self.accelerated(accelerator)
    }

    fn accelerated(self, accelerator: Accelerator) -> Result<Command> {
        let Self { toolbox, start, scratch, uplink, processors } = self;
        // A machine that can never have a second processor is translated without barriers to memory, and then loses a
        // kick of a virtio device now and then: its disk never answers again.
        let processors = format!("{processors},maxcpus={}", processors.max(2));
        let accelerator = match accelerator {
            Accelerator::Kvm => ["kvm", "host"],
            Accelerator::Tcg => ["tcg,thread=multi", "max"],
        };
        let command = toolbox
            .command("qemu-system-x86_64")?
            .args(["-L".into(), toolbox.file("usr/share/qemu")])
            .args(["-L".into(), toolbox.file("usr/share/seabios")])
            .args([
                "-machine",
                "q35",
                "-accel",
                accelerator[0],
                "-cpu",
                accelerator[1],
                "-smp",
                &processors,
                "-m",
                MEMORY,
            ])
            .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
            .args(["-device", "virtio-rng-pci"]);
        Ok(uplink.attached(start.started(toolbox, scratch, command)?))
    }

    /// Powers on with the console read by us.
    pub fn power_on(self) -> Result<Running> {
        Running::start(&self.command()?)
    }

    /// The same with more words for QEMU.
    pub fn power_on_with(self, more: impl IntoIterator<Item = String>) -> Result<Running> {
        Running::start(&self.command()?.args(more))
    }

    /// The same with a memory that can be looked into, see [`Running::memory`], and a debugger's socket at `debugger`.
    pub fn power_on_for(self, debugger: &Path) -> Result<Running> {
        let command = self
            .command()?
            .args(["-object", &format!("memory-backend-memfd,id=ram,size={MEMORY}M,share=on")])
            .args(["-machine", "memory-backend=ram"])
            .args(["-gdb", &format!("unix:{},server=on,wait=off", debugger.display())]);
        Running::start(&command)
    }
}

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accelerator {
    Kvm,
    Tcg,
}

/// How long a machine on working KVM may take from power-on to its initrd.
const KVM_TRIAL: Duration = Duration::from_secs(20);

/// Tries KVM once a run where it can be opened: on a virtual machine it may be there and hang every guest.
/// `SEPULCHER_ACCEL=kvm` or `tcg` spares the trial.
fn accelerator(machine: &Machine<'_>) -> Result<Accelerator> {
    static TRIED: OnceLock<Accelerator> = OnceLock::new();
    if let Some(known) = TRIED.get() {
        return Ok(*known);
    }
    let asked = std::env::var("SEPULCHER_ACCEL").unwrap_or_default();
    let can_open = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    let accelerator = match asked.as_str() {
        "kvm" => Accelerator::Kvm,
        "tcg" => Accelerator::Tcg,
        "" if !can_open => Accelerator::Tcg,
        "" => {
            eprintln!("trying KVM for {} s at most (SEPULCHER_ACCEL=tcg spares this)", KVM_TRIAL.as_secs());
            kvm_serves(machine)?
        }
        other => return Err(format!("SEPULCHER_ACCEL={other} is neither kvm nor tcg").into()),
    };
    eprintln!("the machine runs on {accelerator:?}");
    Ok(*TRIED.get_or_init(|| accelerator))
}

/// Boots it, with a copy of its disk, as far as its first program.
fn kvm_serves(machine: &Machine<'_>) -> Result<Accelerator> {
    let scratch = tempfile::tempdir_in(machine.scratch)?;
    let copy = scratch.path().join("trial.raw");
    if let Some(disk) = machine.start.disk() {
        std::fs::copy(disk, &copy)?;
    }
    let start = match machine.start {
        Start::Disk(_) => Start::Disk(&copy),
        Start::Kernel { kernel, initrd, cmdline, disk } => {
            Start::Kernel { kernel, initrd, cmdline, disk: disk.map(|_| copy.as_path()) }
        }
    };
    let trial = Machine {
        toolbox: machine.toolbox,
        start,
        scratch: scratch.path(),
        uplink: Uplink::None,
        processors: machine.processors,
    };
    let mut running = Running::start(&trial.accelerated(Accelerator::Kvm)?)?;
    match running.wait(KVM_TRIAL, |line| line.contains(machine.start.sign_of_life())) {
        Seen::Line(..) => Ok(Accelerator::Kvm),
        Seen::Off | Seen::Timeout => Ok(Accelerator::Tcg),
    }
}

impl Running {
    fn start(command: &Command) -> Result<Self> {
        let mut child =
            command.to_std().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (sender, lines) = channel();
        let start = Instant::now();
        let stdout = child.stdout.take().ok_or("QEMU has no standard output")?;
        let stderr = child.stderr.take().ok_or("QEMU has no standard error")?;
        let keyboard = child.stdin.take().ok_or("QEMU has no standard input")?;
        for stream in [Box::new(stdout) as Box<dyn std::io::Read + Send>, Box::new(stderr)] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n') {
                    let Ok(line) = line else { break };
                    let text = plain(&String::from_utf8_lossy(&line));
                    if !text.is_empty() && sender.send((start.elapsed(), text)).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self { child, keyboard, lines, log: Vec::new(), unread: VecDeque::new(), start })
    }
}

/// A line without escape sequences and other control characters.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            // CSI: parameters up to a final byte; other sequences are two characters.
            if characters.next() == Some('[') {
                characters.by_ref().find(|next| ('\x40'..='\x7e').contains(next));
            }
        } else if !character.is_control() {
            text.push(character);
        }
    }
    text.trim().to_owned()
}

/// A machine that is powered on. Dropping it powers it off.
pub struct Running {
    child: Child,
    /// What is typed on the serial console.
    keyboard: ChildStdin,
    lines: Receiver<(Duration, String)>,
    /// Every console line so far with the time since power-on.
    pub log: Vec<(Duration, String)>,
    unread: VecDeque<(Duration, String)>,
    start: Instant,
}

/// What a wait for the console ended with.
pub enum Seen {
    /// The line, and when it came.
    Line(Duration, String),
    /// The machine powered itself off or QEMU ended.
    Off,
    /// Nothing of the kind in the time given.
    Timeout,
}

impl Running {
    /// Waits for a console line that `wanted` accepts; lines before it are consumed.
    pub fn wait(&mut self, deadline: Duration, wanted: impl Fn(&str) -> bool) -> Seen {
        loop {
            while let Some((at, line)) = self.unread.pop_front() {
                if wanted(&line) {
                    return Seen::Line(at, line);
                }
            }
            let Some(left) = deadline.checked_sub(self.start.elapsed()) else { return Seen::Timeout };
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.log.push(line.clone());
                    self.unread.push_back(line);
                }
                Err(RecvTimeoutError::Timeout) => return Seen::Timeout,
                Err(RecvTimeoutError::Disconnected) => return Seen::Off,
            }
        }
    }

    /// As [`Running::wait`], but everything else than the line is an error that shows the end of the console.
    pub fn expect(&mut self, deadline: Duration, what: &str) -> Result<(Duration, String)> {
        let why = match self.wait(deadline, |line| line.contains(what)) {
            Seen::Line(at, line) => return Ok((at, line)),
            Seen::Off => "the machine went off",
            Seen::Timeout => "the time is up",
        };
        Err(format!("`{what}` did not appear on the console: {why}; its last lines:\n{}", self.tail(40))
            .into())
    }

    /// Waits until the machine has powered itself off.
    pub fn off(&mut self, limit: Duration) -> Result<()> {
        match self.wait(self.uptime() + limit, |_| false) {
            Seen::Off => Ok(self.child.wait().map(drop)?),
            Seen::Line(..) | Seen::Timeout => Err("the machine does not go down".into()),
        }
    }

    /// Types on the serial console.
    pub fn type_in(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes())?;
        Ok(self.keyboard.flush()?)
    }

    /// Its memory; byte 0 is physical address 0.
    pub fn memory(&self) -> Result<File> {
        for entry in std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))? {
            let path = entry?.path();
            // A descriptor may be closed meanwhile.
            let target = std::fs::read_link(&path).unwrap_or_default();
            if target.to_string_lossy().contains("memory-backend-memfd") {
                return Ok(File::open(path)?);
            }
        }
        Err("the machine was not powered on with a memory to look into".into())
    }

    /// Time since power-on.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }

    /// The last `count` console lines.
    pub fn tail(&self, count: usize) -> String {
        let from = self.log.len().saturating_sub(count);
        let mut text = String::new();
        for (at, line) in &self.log[from..] {
            text += &format!("{:7.1} {line}\n", at.as_secs_f32());
        }
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when QEMU has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies an image to a disk of `size` bytes, keeping holes, so that the machine can make its other partitions.
pub fn disk_from(image: &Path, disk: &Path, size: u64) -> Result<PathBuf> {
    std::fs::copy(image, disk)?;
    std::fs::OpenOptions::new().write(true).open(disk)?.set_len(size)?;
    Ok(disk.to_owned())
}
