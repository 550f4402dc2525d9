//! What runs the services: Podman knows containers and volumes, systemd starts and stops their units.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::cmd::{Command, Error};

/// How long a command of a service may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The two programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// Podman.
    pub podman: OsString,
    /// systemd's.
    pub systemctl: OsString,
}

impl Default for Services {
    fn default() -> Self {
        Self { podman: "podman".into(), systemctl: "systemctl".into() }
    }
}

impl Services {
    /// Where Podman keeps volumes, by their names.
    ///
    /// # Errors
    /// It does not start, or fails.
    pub fn volumes(&self) -> Result<BTreeMap<String, PathBuf>, Error> {
        let words = ["volume", "inspect", "--all", "--format", "{{.Name}} {{.Mountpoint}}"];
        Ok(self.pairs(&words)?.into_iter().map(|(name, path)| (name, path.into())).collect())
    }

    /// State of every container by its name: `running`, `paused`, `exited`.
    ///
    /// # Errors
    /// As [`Services::volumes`].
    pub fn states(&self) -> Result<BTreeMap<String, String>, Error> {
        self.pairs(&["ps", "--all", "--format", "{{.Names}} {{.State}}"])
    }

    /// The first process of every container that runs, as the host numbers it, by the container's name.
    ///
    /// # Errors
    /// As [`Services::volumes`].
    pub fn processes(&self) -> Result<BTreeMap<String, u32>, Error> {
        let told = self.pairs(&["ps", "--format", "{{.Names}} {{.Pid}}"])?;
        Ok(told.into_iter().filter_map(|(name, process)| Some((name, process.parse().ok()?))).collect())
    }

    fn pairs(&self, words: &[&str]) -> Result<BTreeMap<String, String>, Error> {
        let told = self.podman().args(words.iter().copied()).read()?;
        let told = String::from_utf8_lossy(&told);
        let pair = |line: &str| line.split_once(' ').map(|(name, rest)| (name.to_owned(), rest.to_owned()));
        Ok(told.lines().filter_map(pair).collect())
    }

    /// Freezes a container's processes.
    ///
    /// # Errors
    /// They are not frozen.
    pub fn freeze(&self, container: &str) -> Result<(), Error> {
        self.podman().arg("pause").arg(container).read().map(drop)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// They are frozen still.
    pub fn thaw(&self, container: &str) -> Result<(), Error> {
        self.podman().arg("unpause").arg(container).read().map(drop)
    }

    /// Runs a program in a container.
    ///
    /// # Errors
    /// It fails, or does not end in time.
    pub fn execute(&self, container: &str, argv: &[String]) -> Result<(), Error> {
        self.podman().arg("exec").arg(container).args(argv).read_within(PATIENCE).map(drop)
    }

    /// Those of these units that run, or are about to.
    ///
    /// # Errors
    /// As [`Services::volumes`].
    pub fn active(&self, units: &[String]) -> Result<Vec<String>, Error> {
        let words = ["show", "--property=ActiveState", "--value", "--"];
        let told = Command::new(&self.systemctl).args(words).args(units).read()?;
        let told = String::from_utf8_lossy(&told);
        let states = told.lines().filter(|line| !line.is_empty());
        let active = units.iter().zip(states).filter(|(_, state)| *state != "inactive");
        Ok(active.map(|(unit, _)| unit.clone()).collect())
    }

    /// Stops units, and waits until they are.
    ///
    /// # Errors
    /// One is not.
    pub fn stop(&self, units: &[String]) -> Result<(), Error> {
        self.systemctl("stop", units)
    }

    /// Starts units, and waits until they run.
    ///
    /// # Errors
    /// One does not.
    pub fn start(&self, units: &[String]) -> Result<(), Error> {
        self.systemctl("start", units)
    }

    fn podman(&self) -> Command {
        Command::new(&self.podman)
    }

    fn systemctl(&self, verb: &str, units: &[String]) -> Result<(), Error> {
        if units.is_empty() {
            return Ok(());
        }
        Command::new(&self.systemctl).arg(verb).arg("--").args(units).read().map(drop)
    }
}
