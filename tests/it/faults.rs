//! What goes wrong while an image is built: told with its remedy, nothing half-written, and the next run succeeds.
//!
//! The images are small ones of this test: a system of one made-up package, and the builder's real tools. Boot
//! loader and tools come from the user's cache, or from a mirror.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};
use sepulcher::cli::store::MirrorArgs;
use sepulcher::image::definition::Definitions;
use sepulcher::image::fetch::Quiet;
use sepulcher::image::toolbox::Toolbox;
use sepulcher::tree::Sha256Digest;

use crate::judge_disk::boot_programs;
use crate::support::{copy, repository};

const TOOLS: &str = "tools-build";
const PATH: &str = "pool/main/f/fault-base/fault-base_1_all.deb";

/// A folder with everything that a build needs, and a cache that holds packages and tools, nothing made of them.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    /// `None` when boot loader and tools cannot be had, which is said aloud; in CI that is a failure.
    fn new(claim: &str) -> Option<Self> {
        let (stub, loader) = boot_programs(claim)?;
        let store = MirrorArgs::default().store(&Quiet).unwrap();
        let tools = Definitions::Embedded.image(TOOLS).unwrap();
        let toolbox = Toolbox::open(&store, &tools).unwrap();
        let site = Self { folder: tempfile::Builder::new().prefix("sepulcher-faults-").tempdir().unwrap() };
        fs::set_permissions(site.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["out", "cache/debs", "cache/toolbox", "images/tether", "images/system"] {
            fs::create_dir_all(site.path(folder)).unwrap();
        }
        copy(&repository("tests/golden/minimal/codex"), &site.path("codex"));
        copy(&repository("images").join(TOOLS), &site.path("images").join(TOOLS));
        for package in tools.lock.packages() {
            // Only asked for: the toolbox is unpacked.
            fs::write(site.path(&format!("cache/debs/{}.deb", package.sha256)), "").unwrap();
        }
        let name = toolbox.root().file_name().unwrap();
        symlink(toolbox.root(), site.path("cache/toolbox").join(name)).unwrap();
        site.define(&base_package(&stub, &loader));
        fs::write(site.path("program"), program(2)).unwrap();
        Some(site)
    }

    /// Writes the definitions `system`, of this one package, and `tether`, of none.
    fn define(&self, deb: &[u8]) {
        let digest = Sha256Digest::of(deb);
        fs::write(self.path(&format!("cache/debs/{digest}.deb")), deb).unwrap();
        let head = "schema = 1\nrelease = \"trixie\"\n";
        let lock = format!(
            "{head}\n[[package]]\nname = \"fault-base\"\nversion = \"1\"\narchitecture = \"all\"\n\
             archive = \"debian\"\npath = \"{PATH}\"\nsize = {}\nsha256 = \"{digest}\"\n",
            deb.len()
        );
        let files = [
            ("system/packages.toml", "packages = [\"fault-base\"]\n"),
            ("system/packages.lock", &lock),
            ("system/image.toml", "cmdline = [\"ro\"]\nfolders = [\"var\"]\n[links]\n"),
            ("system/initrd.toml", "files = [\"usr/lib/os-release\"]\n"),
            ("tether/packages.toml", "packages = []\n"),
            ("tether/packages.lock", head),
        ];
        for (name, text) in files {
            fs::write(self.path("images").join(name), text).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn deb(&self) -> PathBuf {
        let deb = |path: &PathBuf| fs::metadata(path).unwrap().len() > 0;
        list(&self.path("cache/debs")).into_iter().find(deb).unwrap()
    }

    /// The usual build, of which nothing is left to the machine.
    fn command(&self) -> Command {
        self.command_to("out/lychd.raw", "program")
    }

    /// A build to another place, or with another program.
    fn command_to(&self, out: &str, program: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sepulcher"));
        command.env_clear().env("SEPULCHER_CACHE", self.path("cache")).current_dir(self.folder.path());
        command.args(["image", "build", "codex", "--out", out, "--images", "images"]);
        command.args(["--program", program, "--offline"]).stdin(Stdio::null());
        command
    }

    fn build(&self) -> Output {
        self.command().output().unwrap()
    }

    /// Builds, which must succeed, and returns the digest of the image.
    fn built(&self) -> Sha256Digest {
        let output = self.build();
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(self.outputs(), ["SHA256SUMS", "lychd.manifest.json", "lychd.raw"]);
        self.image()
    }

    fn image(&self) -> Sha256Digest {
        sepulcher::image::disk::digest(&fs::File::open(self.path("out/lychd.raw")).unwrap()).unwrap()
    }

    /// Names in the output folder.
    fn outputs(&self) -> Vec<String> {
        names(&self.path("out"))
    }

    /// Runs `command`, which must end with `code`, say all of `parts`, and leave the output folder as it is.
    fn fails(&self, mut command: Command, code: i32, parts: &[&str]) {
        let before = self.outputs();
        let output = command.output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        for part in ["error: ", "hint: "].iter().chain(parts) {
            assert!(said.contains(part), "{part:?} is missing from:\n{said}");
        }
        assert!(output.stdout.is_empty(), "an error wrote to standard output");
        assert_eq!(self.outputs(), before, "{said}");
    }
}

/// A package with what an image cannot do without, and some bytes that do not compress.
fn base_package(stub: &[u8], loader: &[u8]) -> Vec<u8> {
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    let noise: Vec<u8> = (0..6 << 20).map(|_| noise()).collect();
    let files: [(&str, &[u8]); 7] = [
        ("usr/lib/os-release", b"ID=fault\n"),
        ("usr/lib/systemd/boot/efi/linuxx64.efi.stub", stub),
        ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", loader),
        ("boot/vmlinuz-6.0-fault", loader),
        ("usr/lib/modules/6.0-fault/modules.order", b""),
        ("usr/lib/modules/6.0-fault/modules.builtin", b""),
        ("usr/share/noise", &noise),
    ];
    let archive = |files: &[(&str, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let (control, data) = (archive(&[("control", b"Package: fault-base\n")]), archive(&files));
    let mut builder = ar::Builder::new(Vec::new());
    for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), ("control.tar", &control), ("data.tar", &data)] {
        builder.append(&ar::Header::new(name.into(), bytes.len() as u64), bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The header of a program with one segment, of `class` 1 (32 bits) or 2 (64 bits).
fn program(class: u8) -> Vec<u8> {
    let mut bytes = vec![0; 120];
    bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
    for (at, value) in [(16, 2), (18, 62), (20, 1), (32, 64), (52, 64), (54, 56), (56, 1), (64, 1)] {
        bytes[at] = value;
    }
    bytes
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn list(folder: &Path) -> Vec<PathBuf> {
    sepulcher::sys::fs::list(folder).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    list(folder).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Changes one byte in the middle of a file.
fn damage(path: &Path) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let at = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Unfinished work anywhere in a folder.
fn litter(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in list(folder) {
        let hidden = path.file_name().unwrap().to_string_lossy().starts_with('.');
        if hidden {
            found.push(path);
        } else if path.is_dir() && !path.is_symlink() {
            found.extend(litter(&path));
        }
    }
    found
}

#[test]
fn a_build_that_is_killed_anywhere_leaves_nothing_and_the_next_one_makes_the_same_bytes() {
    let claim = "a_build_that_is_killed_anywhere_leaves_nothing_and_the_next_one_makes_the_same_bytes";
    let Some(undisturbed) = Site::new(claim) else { return };
    let start = Instant::now();
    let expected = undisturbed.built();
    let mut whole = start.elapsed();
    let Some(site) = Site::new(claim) else { return };
    fs::write(site.path("out/lychd.raw"), "old").unwrap();
    let old = Sha256Digest::of(b"old");
    let mut killed = 0;
    for point in 0..12_u32 {
        // Ctrl-C reaches the whole group, `kill` the process alone.
        let (signal, group) = if point % 2 == 0 { (Signal::INT, true) } else { (Signal::TERM, false) };
        let mut child =
            site.command().stderr(Stdio::null()).stdout(Stdio::null()).process_group(0).spawn().unwrap();
        let (pid, start) = (Pid::from_child(&child), Instant::now());
        let ended = ends_within(pid, whole * (point + 1) / 14);
        if ended {
            // Something else had slowed the first one down.
            whole = whole.min(start.elapsed());
        } else if group {
            rustix::process::kill_process_group(pid, signal).unwrap();
        } else {
            rustix::process::kill_process(pid, signal).unwrap();
        }
        let status = child.wait().unwrap();
        killed += u32::from(status.signal() == Some(signal.as_raw()));
        assert!(status.success() || status.signal() == Some(signal.as_raw()), "{status}");
        assert!(
            [old, expected].contains(&site.image()),
            "point {point}: neither the old image nor the new one"
        );
    }
    assert!(killed >= 4, "only {killed} builds were killed");
    assert_eq!(site.built(), expected);
    assert_eq!(litter(site.folder.path()), Vec::<PathBuf>::new());
}

/// Waits for the end of a process, but no longer than this.
fn ends_within(pid: Pid, limit: Duration) -> bool {
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let limit = rustix::event::Timespec::try_from(limit).unwrap();
    let mut waiting = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut waiting, Some(&limit)).unwrap() > 0
}

/// A shell in a mount namespace of its own, which runs `script`; `None`, said aloud, where there can be none.
fn in_mount_namespace(claim: &str, script: &str) -> Option<Command> {
    let mut unshare = vec!["unshare", "--mount"];
    if !rustix::process::geteuid().is_root() {
        unshare.push("--map-root-user");
    }
    let probe = Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "no mount namespace for {claim}: {probe:?}");
        eprintln!("SKIPPED {claim}: a small disk needs a mount namespace: {probe:?}");
        return None;
    }
    let mut command = Command::new(unshare[0]);
    command.args(&unshare[1..]).args(["sh", "-euc", script, "sh"]);
    Some(command)
}

/// Builds with a disk of `limit` bytes at `place`, then with one that is large enough; both results and what was at `out`.
fn on_a_full_disk(claim: &str, site: &Site, place: &str, limit: &str) -> Option<(i32, String, String)> {
    // The build's own command line follows the script's arguments.
    let script = r#"
        place=$1 size=$2; shift 2
        cp -a "$place" "$place.full"
        mount -t tmpfs -o "size=$size" none "$place"
        cp -a "$place.full/." "$place"
        code=0; "$@" 2>said || code=$?
        ls -A out >left; cat out/lychd.raw >>left
        mount -o remount,size=1g "$place"
        "$@" 2>again
        sha256sum out/lychd.raw | cut -d ' ' -f 1 >digest
        exit $code
    "#;
    let build = site.command();
    let mut command = in_mount_namespace(claim, script)?;
    command.arg(site.path(place)).arg(limit).arg(build.get_program()).args(build.get_args());
    for (name, value) in build.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let output = command.current_dir(site.folder.path()).output().unwrap();
    let text = |name: &str| {
        let read = fs::read_to_string(site.path(name));
        read.unwrap_or_else(|error| panic!("{place} {limit}: {name}: {error}: {output:?}"))
    };
    assert_eq!(text("left"), "lychd.raw\nold", "{}", text("said"));
    let digest = if site.path("digest").exists() { text("digest") } else { text("again") };
    Some((output.status.code().unwrap(), text("said"), digest.trim().to_owned()))
}

#[test]
fn a_full_disk_is_told_and_keeps_the_old_image() {
    let claim = "a_full_disk_is_told_and_keeps_the_old_image";
    let Some(undisturbed) = Site::new(claim) else { return };
    let expected = undisturbed.built().to_string();
    // The cache holds 7 MiB to begin with; the package's files, the base and the root each take as much.
    for (place, size) in
        [("cache", "8m"), ("cache", "15m"), ("cache", "20m"), ("cache", "26m"), ("out", "4m")]
    {
        let Some(site) = Site::new(claim) else { return };
        fs::write(site.path("out/lychd.raw"), "old").unwrap();
        let Some((code, said, digest)) = on_a_full_disk(claim, &site, place, size) else { return };
        assert_eq!(code, 74, "{place} {size}: {said}");
        for part in ["error: cannot ", "No space left on device", "hint: free some space"] {
            assert!(said.contains(part), "{place} {size}: {part:?} is missing from:\n{said}");
        }
        assert_eq!(digest, expected, "{place} {size}: the next build");
    }
}

#[test]
fn what_rots_in_the_cache_is_told_or_made_anew_and_never_sealed() {
    let claim = "what_rots_in_the_cache_is_told_or_made_anew_and_never_sealed";
    let Some(site) = Site::new(claim) else { return };
    let whole = fs::read(site.deb()).unwrap();
    let deb = site.deb();
    damage(&deb);
    site.fails(site.command(), 74, &["fault-base 1 was damaged in the cache", "run again"]);
    site.fails(site.command(), 69, &["1 package not in the cache: fault-base 1", "without --offline"]);
    fs::write(&deb, &whole).unwrap();
    let expected = site.built();
    let [base] = list(&site.path("cache/bases")).try_into().unwrap();
    for file in list(&base) {
        damage(&file);
        assert_eq!(site.built(), expected, "{}", file.display());
    }
    fs::remove_file(base.join("kernel")).unwrap();
    assert_eq!(site.built(), expected);
    let data = |name: &str| {
        list(&site.path("cache/data")).into_iter().find(|path| path.extension().unwrap() == name).unwrap()
    };
    for name in ["tar", "sum"] {
        fs::remove_dir_all(&base).unwrap();
        damage(&data(name));
        site.fails(site.command(), 74, &["fault-base 1 was damaged in the cache", "run again"]);
        assert_eq!(site.built(), expected, "the package is there still");
    }
}

#[test]
fn a_lock_that_does_not_match_is_told_with_the_difference() {
    let claim = "a_lock_that_does_not_match_is_told_with_the_difference";
    let Some(site) = Site::new(claim) else { return };
    let definition = site.path("images/system/packages.toml");
    fs::write(&definition, "packages = [\"fault-base\", \"caddy\"]\n").unwrap();
    site.fails(
        site.command(),
        1,
        &["system/packages.lock", "caddy is asked for and not locked", "sepulcher lock system"],
    );
    fs::write(&definition, "packages = [\"fault-base\"]\n").unwrap();
    site.built();
}

#[test]
fn a_wrong_digest_in_a_lock_names_the_package_and_keeps_nothing() {
    let claim = "a_wrong_digest_in_a_lock_names_the_package_and_keeps_nothing";
    let Some(site) = Site::new(claim) else { return };
    let (deb, lock) = (site.deb(), site.path("images/system/packages.lock"));
    let (bytes, text) = (fs::read(&deb).unwrap(), fs::read_to_string(&lock).unwrap());
    fs::remove_file(&deb).unwrap();
    let mirror = crate::packages::mirror(BTreeMap::from([(format!("/debian/{PATH}"), bytes.clone())]));
    let online = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sepulcher"));
        let offline = site.command();
        command.env_clear().args(offline.get_args().filter(|arg| *arg != "--offline"));
        command.env("SEPULCHER_CACHE", site.path("cache")).env("SEPULCHER_MIRROR", &mirror);
        command.current_dir(site.folder.path());
        command
    };
    let (right, wrong) = (Sha256Digest::of(&bytes).to_string(), Sha256Digest::of(b"other").to_string());
    fs::write(&lock, text.replace(&right, &wrong)).unwrap();
    let debs = names(&site.path("cache/debs"));
    site.fails(online(), 69, &["fault-base 1 has the wrong content", &right, &wrong]);
    assert_eq!(names(&site.path("cache/debs")), debs, "something was kept");
    fs::write(&lock, text).unwrap();
    assert!(online().output().unwrap().status.success());
}

#[test]
fn an_image_that_cannot_be_written_is_told_before_the_work() {
    let claim = "an_image_that_cannot_be_written_is_told_before_the_work";
    let Some(site) = Site::new(claim) else { return };
    let to = |out: &str| site.command_to(out, "program");
    fs::create_dir(site.path("out/folder")).unwrap();
    for (out, parts) in [
        ("absent/deep/lychd.raw", ["cannot write absent/deep/lychd.raw", "mkdir -p absent/deep"]),
        ("out/folder", ["cannot write out/folder: it is a folder", "out/folder/lychd.raw"]),
        ("out/..", ["cannot write out/..: it is a folder", "name a file"]),
        ("out/SHA256SUMS", ["the checksums go there", "another name"]),
        ("codex/lychd.toml/x", ["its folder does not exist", "mkdir"]),
    ] {
        site.fails(to(out), 1, &parts);
    }
    let folder = site.path("out/folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = to("out/folder/lychd.raw");
    if rustix::process::geteuid().is_root() {
        // Nobody may not even start the program where it lies.
        let own = site.path("sepulcher");
        // Copied by a process of its own: a child that another test starts meanwhile would keep our file open for
        // writing, and such a file cannot be executed.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_sepulcher")).arg(&own).status().unwrap();
        assert!(copied.success());
        let usual = to("out/folder/lychd.raw");
        command = Command::new(own);
        command.args(usual.get_args()).current_dir(site.folder.path()).env_clear().uid(65_534).gid(65_534);
        command.env("SEPULCHER_CACHE", site.path("cache"));
    }
    site.fails(command, 74, &["out/folder/lychd.raw", "Permission denied", "your user may write to"]);
    assert_eq!(names(&folder), [""; 0]);
    assert!(!site.path("cache/bases").exists(), "work was done in vain");
}

#[test]
fn wrong_inputs_are_told_and_nothing_is_written() {
    let claim = "wrong_inputs_are_told_and_nothing_is_written";
    let Some(site) = Site::new(claim) else { return };
    for version in ["", "1_2", "1+1", "1/2", "é", "12345678901234567", "../1", "1\n2"] {
        let mut command = site.command();
        command.args(["--version", version]);
        site.fails(command, 1, &["is not a version", "letters, digits"]);
    }
    for epoch in ["", "now", "-1", "99999999999999999999", "4294967296", "1.5", " 1"] {
        let mut command = site.command();
        command.env("SOURCE_DATE_EPOCH", epoch);
        site.fails(command, 1, &[&format!("SOURCE_DATE_EPOCH={epoch} is not"), "date +%s"]);
    }
    fs::write(site.path("script"), "#!/bin/sh\n").unwrap();
    fs::write(site.path("narrow"), program(1)).unwrap();
    for name in ["script", "narrow", "codex/lychd.toml", "/bin/sh"] {
        site.fails(
            site.command_to("out/lychd.raw", name),
            1,
            &["not a statically linked 64-bit ELF file", "--program FILE"],
        );
    }
    site.fails(site.command_to("out/lychd.raw", "absent"), 1, &["cannot read absent", "--program FILE"]);
    let law = site.path("codex/lychd.toml");
    let text = fs::read_to_string(&law).unwrap();
    fs::write(&law, format!("{text}\nport = 0\n[tether]\nport = \"x\"\n")).unwrap();
    let output = site.build();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("codex/lychd.toml:") && said(&output).contains("mistake"),
        "{}",
        said(&output)
    );
    assert_eq!((site.outputs(), site.path("cache/bases").exists()), (Vec::new(), false));
    fs::write(&law, text).unwrap();
    site.built();
}

#[test]
fn an_empty_cache_and_no_network_list_what_is_missing() {
    let claim = "an_empty_cache_and_no_network_list_what_is_missing";
    let Some(site) = Site::new(claim) else { return };
    let mut command = site.command();
    command.env("SEPULCHER_CACHE", site.path("nothing"));
    site.fails(command, 69, &["1 package not in the cache: fault-base 1", "run once without --offline"]);
}
