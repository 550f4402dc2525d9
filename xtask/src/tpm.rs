//! A TPM 2.0 in software, for machines in QEMU.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sepulcher::image::toolbox::Toolbox;

use crate::Result;

/// How long it may take to listen.
const START: Duration = Duration::from_secs(20);

/// A chip that listens; machines may be powered on with it one after the other. Dropping it ends it, and what it keeps
/// stays in its folder.
pub struct Tpm {
    process: Child,
    socket: PathBuf,
}

impl Tpm {
    /// The chip whose memory is the folder `memory`; a new one when that is not there.
    pub fn start(toolbox: &Toolbox, memory: &Path) -> Result<Self> {
        std::fs::create_dir_all(memory)?;
        let socket = memory.join("socket");
        sepulcher::sys::fs::remove_file(&socket)?;
        let command = toolbox
            .command("swtpm")?
            .args(["socket", "--tpm2", "--tpmstate", &format!("dir={}", memory.display())])
            .args(["--ctrl", &format!("type=unixio,path={}", socket.display())]);
        let process = command.to_std().stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut tpm = Self { process, socket };
        let end = Instant::now() + START;
        while !tpm.socket.exists() {
            if let Some(status) = tpm.process.try_wait()? {
                return Err(format!("swtpm ended with {status}").into());
            }
            if Instant::now() > end {
                return Err("swtpm does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(tpm)
    }

    /// What QEMU is told to put it into a machine.
    pub fn words(&self) -> [String; 6] {
        let chardev = format!("socket,id=tpm-socket,path={}", self.socket.display());
        let words = [
            "-chardev",
            &chardev,
            "-tpmdev",
            "emulator,id=tpm,chardev=tpm-socket",
            "-device",
            "tpm-crb,tpmdev=tpm",
        ];
        words.map(str::to_owned)
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
