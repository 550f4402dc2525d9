//! A machine with one disk, and the peers around it: what is done with it from one power-on to the next.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use sepulcher::sys::cmd::Command;

use super::around::{self, Bonded, WG0, Web, until};
use super::rig::Rig;
use super::site::{HOST, Keys, Site};
use super::{BOOT, DISK};
use crate::netns::Netns;
use crate::vm::{Running, Start, disk_from};
use crate::{Result, image};

/// How long the machine may take to do what its shell is told.
pub const COMMAND: Duration = Duration::from_secs(120);

/// How long a tunnel may take to come up.
const TUNNEL: Duration = Duration::from_secs(60);

/// The machine and its peers.
pub struct Scene<'a> {
    /// What all of it was made of.
    pub site: &'a Site,
    /// The site's own body in the rig.
    pub first: Rig,
    /// The machine's disk.
    pub disk: PathBuf,
    /// The network around the machine.
    pub hub: Netns,
    /// The first of the site's peers.
    pub phone: Bonded,
    /// The second, which may do everything.
    pub laptop: Bonded,
}

/// The machine's name of the `index`th disk behind its own.
pub fn device(index: usize) -> String {
    format!("/dev/vd{}", char::from(b'b' + u8::try_from(index).unwrap_or_default()))
}

impl<'a> Scene<'a> {
    /// Its hosts, and a fresh disk.
    pub fn new(site: &'a Site) -> Result<Self> {
        let toolbox = &site.toolbox;
        let folder = site.folder.path();
        let hub = around::hub(toolbox)?;
        let phone = Bonded::new(toolbox, &hub, &site.peers[0], "192.0.2.21/24")?;
        let laptop = Bonded::new(toolbox, &hub, &site.peers[1], "192.0.2.22/24")?;
        let first = Rig::of(&site.image, folder)?;
        let disk = disk_from(&site.image, &folder.join("disk.raw"), DISK)?;
        Ok(Self { site, first, disk, hub, phone, laptop })
    }

    /// Powers on, from the firmware or in a rig, until the machine tells its public key.
    pub fn power_on(&self, start: Start<'_>, more: &[String]) -> Result<(Running, String)> {
        around::until_key(&|| self.powered(start, more))
    }

    /// Powers on, and waits for nothing.
    pub fn powered(&self, start: Start<'_>, more: &[String]) -> Result<Running> {
        around::machine(&self.site.toolbox, self.site.folder.path(), &self.hub, start)
            .power_on_with(more.to_vec())
    }

    /// Powers on in the rig with these archives as further disks.
    pub fn act(&self, rig: &Rig, archives: &[PathBuf]) -> Result<(Running, String)> {
        let drive = |path: &PathBuf| {
            ["-drive".to_owned(), format!("if=virtio,format=raw,readonly=on,file={}", path.display())]
        };
        let more: Vec<String> = rig.serial().into_iter().chain(archives.iter().flat_map(drive)).collect();
        self.power_on(rig.start(&self.disk), &more)
    }

    /// Has the machine, which is in the rig, power itself off.
    pub fn off(&self, mut running: Running) -> Result<()> {
        self.first.run("systemctl --no-block poweroff", COMMAND)?;
        running.off(COMMAND)
    }

    /// Boots as its owner would until it is healthy; `mark` must have shown by then.
    pub fn comes_up(&self, mark: &str) -> Result<Running> {
        let (mut running, _) = self.power_on(Start::Disk(&self.disk), &[])?;
        running.expect(BOOT, "sepulcher: health ok")?;
        if running.log.iter().any(|(_, line)| line.contains(mark)) {
            return Ok(running);
        }
        Err(format!("no `{mark}` on the console:\n{}", running.tail(60)).into())
    }

    /// That a peer reaches the page it is granted, with the keys that it has.
    pub fn talks(&self, peer: &Bonded, keys: &Keys, key: &str) -> Result<()> {
        // Its routes are there from the first time on.
        if peer.dial(keys, key).is_err() {
            peer.configure(keys, key)?;
        }
        let web = Web { toolbox: &self.site.toolbox };
        until(TUNNEL, "the page of a bonded peer", || {
            let answer = web.get(&peer.netns, &format!("http://{WG0}:6006/"));
            Ok(answer.is_ok_and(|answer| answer.body.contains("stand-in oculus")))
        })
    }

    /// That a peer gets no answer with the keys that it has.
    pub fn stays_out(&self, peer: &Bonded, keys: &Keys, key: &str) -> Result<String> {
        peer.configure(keys, key)?;
        Web { toolbox: &self.site.toolbox }.stays_silent(&peer.netns, &format!("http://{WG0}:6006/"))
    }

    /// `sepulcher peer` on the laptop, over the tether.
    pub fn admin(&self, words: &[&str]) -> Result<()> {
        self.remote("peer", words).map(drop)
    }

    /// `sepulcher VERB` on the laptop, over the tether; what it printed.
    pub fn remote(&self, verb: &str, words: &[&str]) -> Result<String> {
        let command = Command::new(image::program()?).args(["--host", WG0, verb]).args(words.iter().copied());
        Ok(String::from_utf8(command.within(self.laptop.netns.launcher()).read()?)?)
    }

    /// What `sepulcher peer` on the laptop hands a device, over the tether.
    pub fn handed(&self, name: &str, words: &[&str]) -> Result<Keys> {
        // A folder of its own: other parts hand devices of the same name their configurations.
        let folder = tempfile::tempdir_in(self.site.folder.path())?;
        let conf = folder.path().join("peer.conf");
        self.admin(&[words, &["--endpoint", HOST, "--conf", &conf.display().to_string()]].concat())?;
        Keys::of(name, &fs::read_to_string(&conf)?)
    }

    /// Bonds a device over the tether and has it talk.
    pub fn bond(&self, name: &str, address: &str, key: &str) -> Result<(Bonded, Keys)> {
        let keys = self.handed(name, &["bond", name, "--grant", "oculus"])?;
        let peer = Bonded::new(&self.site.toolbox, &self.hub, &keys, address)?;
        self.talks(&peer, &keys, key)?;
        Ok((peer, keys))
    }
}
