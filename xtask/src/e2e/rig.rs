//! A rig: the sealed image with one thing that its owner does not have, a root shell on a second serial port.
//!
//! The disk, the sealed root, the kernel, its command line and the initrd are the image's own. The emulator starts that
//! kernel itself and hands it a second initrd behind the first, which is all that opens the shell: on a machine that
//! starts from its firmware nobody can do that. What is claimed with the rig is what the machine does with itself; what
//! nobody may do to it is claimed without.

use std::fs;
use std::io::{Cursor, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sepulcher::image::initrd::{self, Definition};
use sepulcher::image::layer::Layer;
use sepulcher::image::{esp, uki};

use super::ways;
use crate::Result;
use crate::vm::Start;

/// The unit of the initrd that carries the shell's unit over to the sealed root: only `/run` goes along.
const CARRIER: &str = "[Unit]
DefaultDependencies=no
Before=initrd.target
[Service]
Type=oneshot
ExecStart=/usr/bin/systemd-tmpfiles --create /rig/tmpfiles.conf
";

/// What it carries, and where to.
const TMPFILES: &str = "d /run/systemd/system 0755
d /run/systemd/system/sysinit.target.wants 0755
C /run/systemd/system/rig.service 0644 - - - /rig/rig.service
L /run/systemd/system/sysinit.target.wants/rig.service - - - - ../rig.service
";

const SHELL: &str = "[Unit]
Description=Root shell of the test's rig
DefaultDependencies=no
[Service]
ExecStart=/usr/bin/bash -c 'stty raw -echo; exec env PS1= bash --norc --noediting'
StandardInput=tty
StandardOutput=tty
TTYPath=/dev/ttyS1
Restart=always
Environment=HOME=/root PATH=/usr/sbin:/usr/bin
";

/// What the shell is made to say behind a command.
const MARK: &str = "the rig has done it: ";

/// Kernel, initrd and command line of an image, taken out of it.
pub struct Rig {
    kernel: PathBuf,
    initrd: PathBuf,
    cmdline: String,
    socket: PathBuf,
}

impl Rig {
    /// Takes an image apart into files in `scratch`.
    pub fn of(disk: &Path, scratch: &Path) -> Result<Self> {
        let kernels = esp::read(Cursor::new(ways::esp(disk)?))?;
        let [(_, kernel_image)] = &kernels[..] else {
            return Err("the image does not have one kernel".into());
        };
        let sections = uki::sections(kernel_image)?;
        let section = |name: &str| -> Result<&[u8]> {
            let found = sections.iter().find(|section| section.name == name);
            Ok(found.ok_or_else(|| format!("the kernel image has no {name}"))?.data)
        };
        let [kernel, initrd] = ["rig-kernel", "rig-initrd"].map(|name| scratch.join(name));
        fs::write(&kernel, section(".linux")?)?;
        let mut archives = section(".initrd")?.to_vec();
        // Archives begin at multiples of four bytes.
        archives.resize(archives.len().next_multiple_of(4), 0);
        archives.extend(initrd::build(&Layer::default(), &carried(), 0)?);
        fs::write(&initrd, archives)?;
        let cmdline =
            uki::text(&sections, ".cmdline").ok_or("the kernel image has no command line")?.to_owned();
        Ok(Self { kernel, initrd, cmdline, socket: scratch.join("rig.sock") })
    }

    /// What the machine executes first, with `disk` beside it.
    pub fn start<'a>(&'a self, disk: &'a Path) -> Start<'a> {
        Start::Kernel { kernel: &self.kernel, initrd: &self.initrd, cmdline: &self.cmdline, disk: Some(disk) }
    }

    /// Where the emulator puts the second serial port.
    pub fn serial(&self) -> [String; 2] {
        ["-serial".to_owned(), format!("unix:{},server=on,wait=off", self.socket.display())]
    }

    /// Runs a line in the machine as root; what it printed. It must end well.
    pub fn run(&self, line: &str, limit: Duration) -> Result<String> {
        let told = self.begin(line)?.within(limit)?;
        told.ok_or_else(|| format!("`{line}` gave no answer in {} s", limit.as_secs()).into())
    }

    /// Has the machine begin with a line as root.
    pub fn begin(&self, line: &str) -> Result<Begun> {
        let mut stream = UnixStream::connect(&self.socket)?;
        // Whatever somebody left behind ends with the first line end.
        stream.write_all(format!("\n{{ {line}; }} 2>&1; echo \"{MARK}$?.\"\n").as_bytes())?;
        Ok(Begun { line: line.to_owned(), stream })
    }
}

/// A line that the machine is at.
pub struct Begun {
    line: String,
    stream: UnixStream,
}

impl Begun {
    /// What it printed, once it has ended, which it must do well; `None` when the time is up before.
    pub fn within(mut self, limit: Duration) -> Result<Option<String>> {
        let line = &self.line;
        let (mut told, mut byte, end) = (Vec::new(), [0], Instant::now() + limit);
        loop {
            let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return Ok(None);
            };
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut byte) {
                Ok(0) => return Err("the machine's second serial port is closed".into()),
                Ok(_) => told.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("`{line}` gave no answer: {error}").into()),
            }
            let text = String::from_utf8_lossy(&told);
            if let Some((said, status)) = text.split_once(MARK).filter(|(_, status)| status.ends_with('.')) {
                let said = said.replace('\r', "").trim().to_owned();
                return if status == "0." {
                    Ok(Some(said))
                } else {
                    Err(format!("`{line}` ended with {status} {said}").into())
                };
            }
        }
    }
}

/// What the second initrd adds to the first.
fn carried() -> Definition {
    let texts = [
        ("usr/lib/systemd/system/rig.service", CARRIER),
        ("rig/tmpfiles.conf", TMPFILES),
        ("rig/rig.service", SHELL),
    ];
    let wanted = ("usr/lib/systemd/system/initrd.target.wants/rig.service", "../rig.service");
    Definition {
        texts: texts.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect(),
        links: [wanted].into_iter().map(|(path, to)| (path.to_owned(), to.to_owned())).collect(),
        ..Definition::default()
    }
}
