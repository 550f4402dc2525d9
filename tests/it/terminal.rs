//! What a person sees on a terminal: the program runs on one of ours.

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::peer::Site;
use crate::qr::{Picture, read_one};

/// A program on a terminal of its own.
struct Session {
    screen: File,
    program: Child,
}

impl Session {
    /// Starts `sepulcher` with these arguments on a terminal of so many columns.
    fn start(columns: u16, variables: &[(&str, &str)], words: &[&str]) -> Self {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&screen).unwrap();
        unlockpt(&screen).unwrap();
        let name = ptsname(&screen, Vec::new()).unwrap();
        let terminal =
            open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let program = Command::new(env!("CARGO_BIN_EXE_sepulcher"))
            .args(words)
            .env_clear()
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(terminal)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { screen: File::from(screen), program }
    }

    /// All that was shown and said until the program has ended well.
    fn end(mut self) -> (String, String) {
        let mut shown = Vec::new();
        let mut buffer = [0; 4096];
        // The end of a terminal is an error on this side.
        while let Ok(count @ 1..) = self.screen.read(&mut buffer) {
            shown.extend_from_slice(&buffer[..count]);
        }
        let output = self.program.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        (String::from_utf8(shown).unwrap().replace("\r\n", "\n"), said)
    }
}

/// Arguments of a bond.
fn bond<'a>(name: &'a str, codex: &'a str) -> [&'a str; 7] {
    ["peer", "bond", name, "--grant", "oculus", "--codex", codex]
}

#[test]
fn a_bond_shows_a_code_that_a_phone_can_use() {
    let site = Site::new();
    let codex = site.codex().display().to_string();
    let (shown, said) = Session::start(80, &[("TERM", "xterm")], &bond("tablet", &codex)).end();
    assert!(said.contains("+ peer tablet ") && said.contains("rotate tablet"), "{said}");
    assert!(shown.lines().count() <= 40, "{shown}");
    let test = "a_bond_shows_a_code_that_a_phone_can_use";
    let Some(read) = read_one(test, &Picture::of_terminal(&shown, 200, 0)) else { return };
    // The private half is in the code alone; the public half of the same pair is in the bond.
    let private = read.lines().find_map(|line| line.strip_prefix("PrivateKey=")).unwrap();
    let secret = sepulcher::sys::wireguard::SecretKey::parse(private.as_bytes()).unwrap();
    assert_eq!(site.load().peers[&"tablet".parse().unwrap()].public_key, secret.public());
    let preshared = site.text("secrets/peers/tablet.1.psk");
    assert!(read.contains(&format!("\nPresharedKey={}\n", preshared.trim_end())), "{read}");
    assert!(!said.contains(private) && !said.contains(preshared.trim_end()));
}

#[test]
fn without_colours_the_code_says_which_background_it_is_for() {
    let site = Site::new();
    let codex = site.codex().display().to_string();
    for (variable, name) in [(("NO_COLOR", "1"), "one"), (("TERM", "dumb"), "two")] {
        let (shown, _) = Session::start(80, &[variable], &bond(name, &codex)).end();
        let (code, note) = shown.trim_end().rsplit_once('\n').unwrap();
        assert!(note.contains("for light text on a dark background"), "{note}");
        assert!(!shown.contains('\x1b'));
        let test = "without_colours_the_code_says_which_background_it_is_for";
        let Some(read) = read_one(test, &Picture::of_terminal(code, 200, 0)) else { return };
        assert!(read.starts_with("[Interface]\nPrivateKey="), "{read}");
    }
}

#[test]
fn a_narrow_terminal_gets_the_text_and_is_told_why() {
    let site = Site::new();
    let codex = site.codex().display().to_string();
    let (shown, said) = Session::start(60, &[("TERM", "xterm")], &bond("tablet", &codex)).end();
    assert!(said.contains("columns wide and the terminal 60") && said.contains("--png FILE"), "{said}");
    assert!(shown.contains("[Interface]\nPrivateKey = "), "{shown}");
}

#[test]
fn a_watch_gives_the_screen_back_when_it_is_interrupted() {
    let site = Site::new();
    let codex = site.codex().display().to_string();
    let words = ["peer", "list", "--watch", "--codex", &codex];
    let mut watch = Session::start(80, &[("TERM", "xterm")], &words);
    let mut start = [0; 256];
    let count = watch.screen.read(&mut start).unwrap();
    assert!(start[..count].starts_with(b"\x1b[?1049h"), "{:?}", String::from_utf8_lossy(&start[..count]));
    kill_process(Pid::from_child(&watch.program), Signal::INT).unwrap();
    let (shown, said) = watch.end();
    assert!(shown.ends_with("\x1b[?25h\x1b[?1049l"), "{shown:?}");
    assert_eq!(said, "");
}
