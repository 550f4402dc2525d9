//! Namespaces that vanish with the test, and the programs that run in them.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sepulcher::cli::store::MirrorArgs;
use sepulcher::image::definition::Definitions;
use sepulcher::image::fetch::Quiet;
use sepulcher::image::toolbox::Toolbox;
use sepulcher::tether::explain;

/// Nothing that a test waits for takes this long.
const DEADLINE: Duration = Duration::from_secs(40);

/// Folders of programs out of the locked toolboxes: nft and wg, wireguard-go.
static TOOLS: LazyLock<Result<OsString, String>> = LazyLock::new(|| {
    let store = MirrorArgs::default().store(&Quiet).map_err(|failure| failure.to_string())?;
    let mut folders = Vec::new();
    for name in ["tools-judge", "tools-boot"] {
        let image = Definitions::Embedded.image(name).map_err(|error| error.to_string())?;
        let toolbox = Toolbox::open(&store, &image).map_err(|error| explain(&error))?;
        folders.push(toolbox.shims());
    }
    // What only moves us between namespaces is the machine's own.
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    std::env::join_paths(folders).map_err(|error| error.to_string())
});

/// The first thing that the tests need and the machine has not.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root is needed".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun".into());
    }
    let alone = Command::new("unshare").args(["--net", "--mount", "true"]).status();
    if !alone.is_ok_and(|status| status.success()) {
        return Some("unshare cannot make namespaces".into());
    }
    TOOLS.as_ref().err().map(|error| format!("the toolboxes cannot be had: {error}"))
}

/// Whether the test can run; says so when it cannot, and fails where it has to (`CI` is set).
pub fn can_run(test: &str) -> bool {
    missing().is_none_or(|missing| cannot_run(test, &missing))
}

/// Says why the test cannot run, and fails where it has to (`CI` is set).
pub fn cannot_run(test: &str, why: &str) -> bool {
    assert!(std::env::var_os("CI").is_none(), "{test} cannot run: {why}");
    eprintln!("SKIPPED {test}: {why}");
    false
}

/// A machine: network, mount and process namespace with a `/run` of its own. Everything in it is killed
/// when it goes out of scope.
pub struct Machine {
    holder: Child,
    pid: u32,
}

impl Machine {
    pub fn new() -> Self {
        let setup = "mount -t tmpfs tmpfs /run && mkdir /run/wireguard /run/sepulcher \
                     && ip link set lo up && exec sleep infinity";
        let holder = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", setup])
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let child = || fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse::<u32>().ok();
        let pid = until("the namespaces are set up", || {
            let pid = child()?;
            let running = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (running.trim() == "sleep").then_some(pid)
        });
        Self { holder, pid }
    }

    /// The link to its network namespace.
    pub fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid).into()
    }

    /// Its network namespace, for [`crate::packets`].
    pub fn network(&self) -> fs::File {
        fs::File::open(self.namespace()).unwrap()
    }

    /// A command inside.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--pid", "--target", &self.pid.to_string()]);
        command.arg(program.as_ref()).env("PATH", TOOLS.as_ref().unwrap());
        command
    }

    /// Runs a shell line inside; it must succeed. Returns its output.
    pub fn sh(&self, line: &str) -> String {
        self.try_sh(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Runs a shell line inside.
    pub fn try_sh(&self, line: &str) -> Result<String, String> {
        let output = self.command("bash").args(["-c", line]).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Packets that the rule with this text has counted, in what nft lists as `list`.
    pub fn counted(&self, list: &str, rule: &str) -> u64 {
        let listed = self.sh(&format!("nft list {list}"));
        let line =
            listed.lines().find(|line| line.contains(rule)).unwrap_or_else(|| panic!("{rule}: {listed}"));
        line.split("counter packets ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    }

    /// Starts a userspace WireGuard that serves `wg0`. In the foreground of a background job: a daemon
    /// starts itself anew by its own path, which in a toolbox is the loader's.
    pub fn wireguard(&self) {
        self.sh("wireguard-go -f wg0 > /run/wireguard-go.log 2>&1 &");
        until("wireguard-go serves wg0", || self.try_sh("wg show wg0").ok());
    }

    /// A cable to `other`: interface `name` here with the first address, `eth0` there with the second.
    pub fn plug(&self, name: &str, here: &str, other: &Self, there: &str) {
        // Without the process namespace: the other one's process id is the host's.
        let status = Command::new("nsenter")
            .args(["--net", "--target", &self.pid.to_string(), "ip", "link", "add", name, "type", "veth"])
            .args(["peer", "name", "eth0", "netns", &other.pid.to_string()])
            .status()
            .unwrap();
        assert!(status.success());
        self.sh(&format!("ip address add {here} dev {name} && ip link set {name} up"));
        other.sh(&format!("ip address add {there} dev eth0 && ip link set eth0 up"));
    }

    /// One HTTP GET; the response, or `None` when there is none within two seconds.
    pub fn get(&self, host: &str, port: u16, path: &str) -> Option<String> {
        self.say(host, port, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    /// Says something by TCP; what is answered until the end, or `None` when that does not come within two seconds.
    pub fn say(&self, host: &str, port: u16, text: &str) -> Option<String> {
        let text = text.replace('\\', "\\\\").replace('%', "%%").replace('\r', "\\r").replace('\n', "\\n");
        let text = text.replace('"', "\\042");
        let line =
            format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{host}/{port} && printf \"{text}\" >&3 && cat <&3'");
        self.try_sh(&line).ok()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A program that runs beside the test and is killed with it.
pub struct Daemon(pub Child);

impl Daemon {
    pub fn start(mut command: Command, log: &Path) -> Self {
        let file = fs::File::create(log).unwrap();
        Self(command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap())
    }

    /// The program's process: what was started is what brings it into its namespaces.
    fn program(&self) -> Option<String> {
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        fs::read_to_string(children).ok()?.split_whitespace().next().map(str::to_owned)
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: &str) {
        let pid = until("the program's process", || self.program());
        assert!(kill(signal, &pid));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        match self.program() {
            // What was started outlives nothing but the program; one that was stopped has stopped it, too.
            Some(pid) => drop([kill("KILL", &pid), kill("CONT", &self.0.id().to_string())]),
            None => drop(self.0.kill()),
        }
        let _ = self.0.wait();
    }
}

/// Whether there was a process to send a signal to.
fn kill(signal: &str, pid: &str) -> bool {
    Command::new("kill").arg(format!("-{signal}")).arg(pid).stderr(Stdio::null()).status().unwrap().success()
}

/// Waits until `look` finds something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until `look` gives `expected`.
pub fn until_equal<T: PartialEq + Debug>(what: &str, expected: &T, mut look: impl FnMut() -> T) {
    let mut last = None;
    let start = Instant::now();
    while last.as_ref() != Some(expected) {
        assert!(start.elapsed() < DEADLINE, "waited in vain until {what} is {expected:?}; it is {last:?}");
        std::thread::sleep(Duration::from_millis(50));
        last = Some(look());
    }
}

/// A folder for one test, removed with it.
pub fn scratch() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}
