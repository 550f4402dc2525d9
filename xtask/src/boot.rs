//! `cargo xtask boot`: an image in QEMU, its console on this terminal.

use std::path::PathBuf;

use crate::tpm::Tpm;
use crate::vm::{Machine, Start, Uplink, disk_from};
use crate::{Result, image, root};

/// What to boot and how.
#[derive(clap::Args)]
pub struct Args {
    /// Image file
    #[arg(long, default_value = "out/lychd.raw")]
    image: PathBuf,
    /// Disk that the image grows into; kept from boot to boot when it is given and exists
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Size of a new disk in GiB: two slots and the state must fit
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..))]
    size: u64,
    /// Port of this machine's loopback that reaches the machine's port 80
    #[arg(long, default_value_t = 8080)]
    http: u16,
    /// UDP port of this machine's loopback that reaches the Tether
    #[arg(long, default_value_t = 51820)]
    tether: u16,
    /// Put a TPM 2.0 into the machine; it is the same one the next time
    #[arg(long)]
    tpm: bool,
}

/// Boots until the machine powers off or Ctrl-C.
pub fn run(args: &Args) -> Result<()> {
    if !args.image.exists() {
        return Err(
            format!("{} does not exist: build it with `cargo xtask image`", args.image.display()).into()
        );
    }
    // Always the same folder: Ctrl-C is the way out, and leaves no more than one disk behind.
    let scratch = root().join("target/boot");
    std::fs::create_dir_all(&scratch)?;
    let disk = match &args.disk {
        Some(disk) if disk.exists() => disk.clone(),
        Some(disk) => disk_from(&args.image, disk, args.size << 30)?,
        None => disk_from(&args.image, &scratch.join("disk.raw"), args.size << 30)?,
    };
    let toolbox = image::toolbox("tools-boot")?;
    let uplink = Uplink::User(vec![("tcp", args.http, 80), ("udp", args.tether, 51820)]);
    let machine =
        Machine { toolbox: &toolbox, start: Start::Disk(&disk), scratch: &scratch, uplink, processors: 2 };
    eprintln!(
        "http://127.0.0.1:{} is the Veil, 127.0.0.1:{}/udp the Tether; Ctrl-C powers off",
        args.http, args.tether
    );
    let tpm = args.tpm.then(|| Tpm::start(&toolbox, &scratch.join("tpm"))).transpose()?;
    let words = tpm.iter().flat_map(Tpm::words);
    let status = machine.command()?.args(words).to_std().status()?;
    if status.success() { Ok(()) } else { Err(format!("QEMU ended with {status}").into()) }
}
