//! What the end-to-end tests run against: a Codex with peers whose keys we hold, and its image.

use std::fs;
use std::path::{Path, PathBuf};

use sepulcher::image::toolbox::Toolbox;
use sepulcher::rebirth::publisher::SigningKey;

use super::depot;
use crate::{Result, image};

/// The machine's address on the test's uplink.
pub const HOST: &str = "192.0.2.10";

/// The same in IPv6, where nothing of the machine is offered.
pub const HOST6: &str = "2001:db8:2::10";

/// Another one.
pub const SECOND_HOST: &str = "192.0.2.11";

/// Where the host itself offers something, to peers alone: its address on the bridge, and the port.
pub const BRIDGE: &str = "10.88.0.1";

/// See [`BRIDGE`].
pub const COCKPIT: u16 = 9090;

/// A peer whose private key the test holds.
pub struct Keys {
    /// Peer name.
    pub name: String,
    /// Tunnel address.
    pub address: String,
    /// WireGuard private key, base64.
    pub private: String,
    /// Preshared key, base64.
    pub preshared: Option<String>,
}

/// Image, peers and tools of one run.
pub struct Site {
    /// Everything the run writes, removed at its end.
    pub folder: tempfile::TempDir,
    /// The built image.
    pub image: PathBuf,
    /// QEMU, firmware, WireGuard, curl.
    pub toolbox: Toolbox,
    /// Bonded peers: the first has grants for oculus, echo and cockpit, the second for everything, and for all doors of the agent.
    pub peers: [Keys; 2],
    /// Whose updates the machine takes.
    pub publisher: SigningKey,
}

impl Site {
    /// Writes the Codex (the example's law, two bonds of our own) and builds its image.
    pub fn build() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sepulcher-e2e-").tempdir()?;
        let toolbox = image::toolbox("tools-boot")?;
        let codex = folder.path().join("codex");
        crate::copy_folder(&crate::root().join("examples/lychd"), &codex)?;
        let law = fs::read_to_string(codex.join("lychd.toml"))?;
        let publisher = SigningKey::generate()?;
        let added = format!(
            "\n[[host]]\nname = \"cockpit\"\nport = {COCKPIT}\n\n[rebirth]\npatience = \"2m\"\nsources = [\"http://{}/lychd/\", \"http://{}/lychd/\", \"http://10.88.16.3/lychd/\"]\npublisher = \"{}\"\n",
            depot::ADDRESS,
            depot::NAME,
            publisher.public()
        );
        fs::write(codex.join("lychd.toml"), with_fixed_uplink(&law)? + &added)?;
        fs::remove_dir_all(codex.join("peers"))?;
        fs::create_dir(codex.join("peers"))?;
        let peers = [
            bond(&toolbox, &codex, "phone", "10.88.16.2", r#"["oculus", "echo", "cockpit"]"#)?,
            bond(
                &toolbox,
                &codex,
                "laptop",
                "10.88.16.3",
                r#"["*", "bonds", "metrics", "rebirth", "snapshots"]"#,
            )?,
        ];
        let image = folder.path().join("lychd.raw");
        image::build(&codex, &image)?;
        Ok(Self { folder, image, toolbox, peers, publisher })
    }

    /// The folder of its Codex.
    pub fn codex(&self) -> PathBuf {
        self.folder.path().join("codex")
    }

    /// What `sepulcher image verify` says of the image and its Codex.
    pub fn verified(&self) -> Result<String> {
        let (program, image, codex) = (image::program()?, &self.image, self.folder.path().join("codex"));
        let shell = xshell::Shell::new()?;
        Ok(xshell::cmd!(shell, "{program} image verify {image} --codex {codex}").quiet().read()?)
    }
}

/// The law with the uplink's table replaced by one with the test's address.
fn with_fixed_uplink(law: &str) -> Result<String> {
    let mut law: toml::Table = law.parse()?;
    let uplink = format!(
        "interface = \"en*\"\naddresses = [\"{HOST}/24\", \"{SECOND_HOST}/24\", \"{HOST6}/64\"]\ngateways = [\"192.0.2.1\"]\ndns = []\n"
    );
    law.insert("uplink".to_owned(), toml::Value::Table(uplink.parse()?));
    Ok(law.to_string())
}

impl Keys {
    /// The keys of a client configuration.
    pub fn of(name: &str, configuration: &str) -> Result<Self> {
        let value = |key: &str| {
            let mut lines = configuration.lines();
            lines.find_map(|line| line.trim().strip_prefix(key)?.trim().strip_prefix("= ")).map(str::to_owned)
        };
        let needed = |key: &str| value(key).ok_or_else(|| format!("no {key} in the configuration of {name}"));
        let address = needed("Address")?;
        let address = address.split(['/', ',']).next().unwrap_or_default().to_owned();
        Ok(Self {
            name: name.to_owned(),
            address,
            private: needed("PrivateKey")?,
            preshared: value("PresharedKey"),
        })
    }
}

fn bond(toolbox: &Toolbox, codex: &Path, name: &str, address: &str, grants: &str) -> Result<Keys> {
    let private = String::from_utf8(toolbox.command("wg")?.arg("genkey").read()?)?;
    let public = String::from_utf8(toolbox.command("wg")?.arg("pubkey").stdin(private.as_bytes()).read()?)?;
    let peer = format!("public-key = \"{}\"\naddress = \"{address}\"\ngrants = {grants}\n", public.trim());
    fs::write(codex.join(format!("peers/{name}.toml")), peer)?;
    Ok(Keys {
        name: name.to_owned(),
        address: address.to_owned(),
        private: private.trim().to_owned(),
        preshared: None,
    })
}
