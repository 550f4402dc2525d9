//! The real parsers as judges, out of the locked toolbox: Podman's generator, systemd, nft, wg, caddy.

use std::path::Path;
use std::sync::LazyLock;

use sepulcher::cli::store::MirrorArgs;
use sepulcher::image::definition::Definitions;
use sepulcher::image::fetch::Quiet;
use sepulcher::image::toolbox::Toolbox;
use sepulcher::qr::compact;
use sepulcher::sys::cmd::Command;

use crate::cases::{self, Case, QUADLETS, on_disk, text, texts};

static TOOLBOX: LazyLock<Result<Toolbox, String>> = LazyLock::new(|| {
    let image = Definitions::Embedded.image("tools-judge").map_err(|error| error.to_string())?;
    let store = MirrorArgs::default().store(&Quiet).map_err(|failure| failure.to_string())?;
    Toolbox::open(&store, &image).map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)))
});

/// The toolbox, or a loud line that says why this test is skipped; in CI that is a failure.
pub fn toolbox(test: &str) -> Option<&'static Toolbox> {
    match &*TOOLBOX {
        Ok(toolbox) => Some(toolbox),
        Err(reason) if std::env::var_os("CI").is_some() => panic!("no judge for {test}: {reason}"),
        Err(reason) => {
            eprintln!("SKIPPED {test}: the toolbox tools-judge cannot be had: {reason}");
            None
        }
    }
}

/// A program of the toolbox.
pub fn program(test: &str, name: &str) -> Option<Command> {
    toolbox(test).map(|toolbox| toolbox.command(name).unwrap())
}

/// Runs a command in a network namespace of its own, as its root.
pub fn alone(command: Command) -> Command {
    let unshare = Command::new("unshare").arg("--net");
    command.within(if rustix::process::geteuid().is_root() {
        unshare
    } else {
        unshare.arg("--map-root-user")
    })
}

/// Units that Podman's generator makes of the quadlets in `folder`, or what it says against them.
pub fn generate(quadlet: &Command, folder: &Path) -> Result<Vec<(String, String)>, String> {
    let run = quadlet.clone().arg("--dryrun").env("QUADLET_UNIT_DIRS", folder).output().unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    let complaints: Vec<_> = said.lines().filter(|line| !line.contains("Loading source unit file")).collect();
    if !run.status.success() || !complaints.is_empty() {
        return Err(said);
    }
    let mut units: Vec<(String, String)> = Vec::new();
    for line in String::from_utf8(run.stdout).unwrap().lines() {
        match line.strip_prefix("---").and_then(|line| line.strip_suffix("---")) {
            Some(name) => units.push((name.to_owned(), String::new())),
            None => units.last_mut().unwrap().1.extend([line, "\n"]),
        }
    }
    Ok(units)
}

#[test]
fn podman_and_systemd_accept_every_unit() {
    let test = "podman_and_systemd_accept_every_unit";
    let Some(toolbox) = toolbox(test) else { return };
    let quadlet = toolbox.command("quadlet").unwrap();
    for case in cases::all() {
        let (_guard, root) = on_disk(&case.tree);
        let units =
            generate(&quadlet, &root.join(QUADLETS)).unwrap_or_else(|said| panic!("{}: {said}", case.name));
        assert_eq!(units.len(), texts(&case.tree, QUADLETS).count(), "{}", case.name);
        let said = verify(toolbox, &case, &units);
        assert_eq!(said, "", "{}", case.name);
    }
}

/// What `systemd-analyze verify` prints about all units of a case: it ends well on bad values too.
fn verify(toolbox: &Toolbox, case: &Case, generated: &[(String, String)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = toolbox.command("systemd-analyze").unwrap().args(["verify", "--man=no"]);
    let ours = texts(&case.tree, "usr/lib/systemd/system/");
    for (name, content) in
        generated.iter().map(|(name, content)| (name.as_str(), content.as_str())).chain(ours)
    {
        // The programs are in the image, not here.
        let mut content = content.to_owned();
        for program in ["/usr/bin/podman", "/usr/bin/sepulcher", "/usr/sbin/nft"] {
            content = content
                .replace(&format!("={program} "), "=/bin/true ")
                .replace(&format!("=-{program} "), "=-/bin/true ");
        }
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        if !name.contains('/') {
            command = command.arg(path);
        }
    }
    let path = format!("{}:{}", folder.path().display(), toolbox.file("usr/lib/systemd/system").display());
    let run = command.env("SYSTEMD_UNIT_PATH", path).env("SYSTEMD_LOG_TARGET", "console").output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr))
}

#[test]
fn systemd_says_so_when_a_unit_is_bad() {
    let Some(toolbox) = toolbox("systemd_says_so_when_a_unit_is_bad") else { return };
    let case = cases::all().remove(0);
    let bad =
        [("bad.service".to_owned(), "[Service]\nExecStart=/bin/true \nTimeoutStopSec=soon\n".to_owned())];
    assert!(verify(toolbox, &case, &bad).contains("TimeoutStopSec"));
}

#[test]
fn nft_accepts_both_rulesets() {
    let Some(nft) = program("nft_accepts_both_rulesets", "nft") else { return };
    for case in cases::all() {
        for (name, ruleset) in texts(&case.tree, "usr/share/sepulcher/nftables/") {
            let check = alone(nft.clone().args(["--check", "--file", "-"])).stdin(ruleset);
            check.read().unwrap_or_else(|error| panic!("{}: {name}: {error}", case.name));
        }
    }
}

#[test]
fn wg_quick_and_wg_read_every_configuration() {
    let test = "wg_quick_and_wg_read_every_configuration";
    let (Some(strip), Some(wg)) = (program(test, "wg-quick"), program(test, "wg")) else { return };
    for case in cases::all() {
        for (name, content) in texts(&case.tree, "usr/share/sepulcher/wireguard/") {
            assert_read(&strip, &wg, &format!("{}: {name}", case.name), &filled_in(content));
        }
    }
    // What peers get: with all keys, as a file and as it stands in a code.
    for (case, name, content) in crate::qr::configurations() {
        for text in [compact(&content), content] {
            assert_read(&strip, &wg, &format!("{case}: {name}: {text}"), &resolvable(&text));
        }
    }
}

/// Fails unless wg-quick and then wg read a configuration.
fn assert_read(strip: &Command, wg: &Command, what: &str, content: &str) {
    let folder = tempfile::tempdir().unwrap();
    // wg-quick takes the interface's name from the file's.
    let file = folder.path().join("wg0.conf");
    std::fs::write(&file, content).unwrap();
    let stripped = alone(strip.clone().arg("strip").arg(&file)).read();
    let stripped = stripped.unwrap_or_else(|error| panic!("{what}: {error}"));
    let said = parse(wg, &stripped);
    assert!(said.starts_with(READ), "{what}: {said}");
}

#[test]
fn wg_says_so_when_a_configuration_is_bad() {
    let Some(wg) = program("wg_says_so_when_a_configuration_is_bad", "wg") else { return };
    assert!(parse(&wg, b"[Interface]\nListenPort = 1\nAddress = 10.0.0.1/24\n").contains("Address"));
}

/// Placeholders replaced as a person would.
fn filled_in(content: &str) -> String {
    let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    resolvable(content)
        .replace("PRIVATE-KEY-OF-THIS-DEVICE", key)
        .replace("PUBLIC-KEY-OF-THE-APPLIANCE", key)
        .replace("PRESHARED-KEY-OF-THIS-BOND", key)
}

/// Names that need DNS replaced by addresses.
fn resolvable(content: &str) -> String {
    content.replace("lychd.example:", "192.0.2.1:").replace("lych.example:", "192.0.2.1:")
}

/// What `wg setconf` says when it has read a configuration and has no interface to set.
const READ: &str = "Unable to modify interface: ";

fn parse(wg: &Command, configuration: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), configuration).unwrap();
    let run = alone(wg.clone().args(["setconf", "wg0"]).arg(file.path())).output().unwrap();
    String::from_utf8(run.stderr).unwrap().trim().to_owned()
}

#[test]
fn caddy_accepts_every_caddyfile() {
    let Some(caddy) = program("caddy_accepts_every_caddyfile", "caddy") else { return };
    let home = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for case in cases::all().iter().filter(|case| case.tree.get("usr/share/sepulcher/Caddyfile").is_some()) {
        let file = home.path().join("Caddyfile");
        std::fs::write(&file, text(&case.tree, "usr/share/sepulcher/Caddyfile")).unwrap();
        let validate = caddy.clone().args(["validate", "--adapter", "caddyfile", "--config"]).arg(&file);
        let run = validate.env("HOME", home.path()).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() && !said.contains("not formatted"), "{}: {said}", case.name);
        seen += 1;
    }
    assert!(seen >= 2, "no case has a Veil");
}
