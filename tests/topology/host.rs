//! One container: a machine of the topology.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use testcontainers::core::{ExecCommand, Mount};
use testcontainers::runners::SyncRunner as _;
use testcontainers::{Container, GenericImage, ImageExt as _};

use crate::engine::{self, Image, LABEL};

/// Nothing that a test waits for takes this long, unless it says so.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What a container may do and see beyond its own root.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    /// Its capabilities; without any, none.
    pub capabilities: &'static [&'static str],
    /// The device that userspace tunnels need.
    pub tun: bool,
    /// Whether its root can be written to.
    pub read_only: bool,
    /// Whether it hands packets on.
    pub forwards: bool,
    /// Folders and files of ours with their paths inside.
    pub mounts: Vec<(PathBuf, &'static str)>,
}

/// A running container; it ends with this value.
pub struct Host {
    /// Its name in the topology.
    pub name: String,
    container: Container<GenericImage>,
    log: PathBuf,
}

impl Host {
    /// Starts a program on a network of its own name (`container:ID` shares that container's).
    /// What it says is kept in `log` when the test fails.
    pub fn start(
        name: &str,
        network: &str,
        image: &Image,
        argv: &[&str],
        rights: Rights,
        log: PathBuf,
    ) -> Self {
        let Rights { capabilities, tun, read_only, forwards, mounts } = rights;
        let shared = network.starts_with("container:");
        let (network_mode, program) = (network.to_owned(), env!("CARGO_BIN_EXE_sepulcher"));
        let mut request = GenericImage::new(image.name, &image.tag)
            .with_cmd(argv.iter().copied())
            .with_label(LABEL, engine::run_of(std::process::id()))
            .with_cap_drop("ALL")
            .with_security_opt("no-new-privileges")
            .with_readonly_rootfs(read_only)
            .with_mount(Mount::bind_mount(program, "/usr/bin/sepulcher"));
        for (ours, inside) in mounts {
            request = request.with_mount(Mount::bind_mount(ours.display().to_string(), inside));
        }
        for capability in capabilities {
            request = request.with_cap_add(*capability);
        }
        if !shared {
            request = request.with_network(network);
        }
        let request = request.with_host_config_modifier(move |config| {
            if shared {
                config.network_mode = Some(network_mode.clone());
            }
            config.publish_all_ports = Some(false);
            if forwards {
                config.sysctls = Some([("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into());
            }
            if tun {
                let device = testcontainers::bollard::models::DeviceMapping {
                    path_on_host: Some("/dev/net/tun".into()),
                    path_in_container: Some("/dev/net/tun".into()),
                    cgroup_permissions: Some("rwm".into()),
                };
                config.devices = Some(vec![device]);
            }
        });
        let container = request.start().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), container, log }
    }

    /// Its address on its network, and that network.
    pub fn outside(&self) -> (Ipv4Addr, String) {
        let line = self.sh("ip -o -4 address show dev eth0 && ip -o -4 route show dev eth0 scope link");
        let after = |word| line.split_whitespace().skip_while(|w| *w != word).nth(1).unwrap();
        let address = after("inet").split('/').next().unwrap().parse().unwrap();
        let network = line.lines().last().unwrap().split_whitespace().next().unwrap();
        (address, network.to_owned())
    }

    /// What shares this container's network calls it.
    pub fn network(&self) -> String {
        format!("container:{}", self.container.id())
    }

    /// Plugs it into one more network; the interface is `eth1`.
    pub fn plug(&self, network: &str) {
        engine::plug(self.container.id(), network);
        until("the cable is there", || self.try_sh("ip link show eth1").ok());
    }

    /// Runs a shell line inside; it must succeed. Returns its output.
    pub fn sh(&self, line: &str) -> String {
        self.try_sh(line).unwrap_or_else(|error| panic!("{}: {line}: {error}", self.name))
    }

    /// Runs a shell line inside, for a minute at most. Where the engine could not even start it, it is tried again.
    pub fn try_sh(&self, line: &str) -> Result<String, String> {
        let unstarted = |told: &Result<String, String>| {
            told.as_ref()
                .is_err_and(|error| error.contains("OCI runtime exec failed: exec failed: unable to start"))
        };
        let again = (0..3).map(|_| self.run(line)).find(|told| !unstarted(told));
        again.unwrap_or_else(|| self.run(line))
    }

    fn run(&self, line: &str) -> Result<String, String> {
        let mut run = self
            .container
            .exec(ExecCommand::new(["timeout", "60", "bash", "-c", line]))
            .map_err(|e| e.to_string())?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let output = text(run.stdout_to_vec().map_err(|error| error.to_string())?);
        let errors = text(run.stderr_to_vec().map_err(|error| error.to_string())?);
        // The streams end a moment before the engine knows how the program did.
        let code = until("a program has ended", || run.exit_code().unwrap());
        if code == 0 { Ok(output) } else { Err(format!("exit code {code}: {errors}{output}")) }
    }

    /// One HTTP GET within two seconds; `None` when nothing comes.
    pub fn get(&self, url: &str) -> Option<String> {
        self.try_sh(&format!("curl --silent --max-time 2 {url}")).ok()
    }

    /// Kills its program without a warning. To stop it, even within no time, would be one: SIGTERM comes first.
    pub fn kill(&self) {
        engine::kill(self.container.id());
    }

    /// Starts it again.
    pub fn restart(&self) {
        self.container.start().unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = [self.container.stdout_to_vec(), self.container.stderr_to_vec()];
            let said: Vec<u8> = said.into_iter().flatten().flatten().collect();
            // The test has failed already, for a reason of its own.
            let _ = std::fs::create_dir_all(self.log.parent().unwrap());
            let _ = std::fs::write(&self.log, said);
            eprintln!("{} said what is in {}", self.name, self.log.display());
        }
    }
}

/// Waits until `look` finds something.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, look)
}

/// Waits until `look` finds something, for a time that the test names.
pub fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
