//! Codes of client configurations, read back by a decoder that is not ours: zbarimg.

use std::sync::Arc;

use sepulcher::codex::key::{PublicKey, SharedKey};
use sepulcher::codex::name::Name;
use sepulcher::codex::{Codex, Endpoint};
use sepulcher::qr::{Code, Ink, compact};
use sepulcher::render::wireguard::{ClientKeys, client};
use sepulcher::sys::cmd::Error;

use crate::{cases, judge};

/// What every terminal has at least.
const COLUMNS: usize = 80;
/// What a code may take of it.
const LINES: usize = 40;

/// Every client configuration of the golden cases with keys as they are in life: case, peer, text.
pub fn configurations() -> Vec<(String, Name, String)> {
    let mut all = Vec::new();
    for case in cases::all() {
        // A preshared key makes a configuration as long as it gets.
        let mut codex = case.codex;
        codex.peers.values_mut().for_each(|peer| Arc::make_mut(peer).preshared = true);
        for (name, _) in codex.active() {
            all.push((case.name.clone(), name.clone(), configuration(&codex, name)));
        }
    }
    assert!(all.len() >= 6, "golden cases lost their peers");
    all
}

/// A client configuration without placeholders.
fn configuration(codex: &Codex, name: &Name) -> String {
    let host: PublicKey = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().unwrap();
    let preshared = SharedKey::new([0xfb; 32]).unwrap();
    let private = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    let keys = ClientKeys { host: Some(&host), private: Some(private), preshared: Some(&preshared) };
    client(codex, name, keys).unwrap().unwrap()
}

/// A picture in shades of grey, and its width.
pub struct Picture {
    shades: Vec<u8>,
    width: usize,
}

impl Picture {
    /// What a terminal with these default colours shows: each half of a cell becomes a square of pixels.
    pub fn of_terminal(text: &str, foreground: u8, background: u8) -> Self {
        const SQUARE: usize = 4;
        let mut shades = Vec::new();
        let mut width = 0;
        for line in text.lines() {
            let cells = cells(line, foreground, background);
            width = cells.len() * SQUARE;
            for half in [0, 1] {
                let row: Vec<u8> = cells.iter().flat_map(|cell| [cell[half]; SQUARE]).collect();
                (0..SQUARE).for_each(|_| shades.extend_from_slice(&row));
            }
        }
        Self { shades, width }
    }

    /// As a portable grey map.
    fn pgm(&self) -> Vec<u8> {
        let height = self.shades.len() / self.width;
        let mut bytes = format!("P5 {} {height} 255\n", self.width).into_bytes();
        bytes.extend_from_slice(&self.shades);
        bytes
    }
}

/// The shades of each cell's upper and lower half.
fn cells(line: &str, foreground: u8, background: u8) -> Vec<[u8; 2]> {
    let (mut ink, mut paper) = (foreground, background);
    let mut cells = Vec::new();
    let mut rest = line;
    while let Some(char) = rest.chars().next() {
        rest = &rest[char.len_utf8()..];
        match char {
            '\x1b' => {
                let (codes, behind) = rest.strip_prefix('[').unwrap().split_once('m').unwrap();
                rest = behind;
                for code in codes.split(';') {
                    match code {
                        "0" => (ink, paper) = (foreground, background),
                        "30" => ink = 0,
                        // The darkest white that a theme has.
                        "47" => paper = 170,
                        other => panic!("colour {other}"),
                    }
                }
            }
            ' ' => cells.push([paper; 2]),
            '█' => cells.push([ink; 2]),
            '▀' => cells.push([ink, paper]),
            '▄' => cells.push([paper, ink]),
            other => panic!("{other:?} in a code"),
        }
    }
    cells
}

/// What zbarimg reads in pictures (suffix of the file's name, content), one after the other; `None` without a judge.
fn decode(test: &str, pictures: &[(&str, Vec<u8>)]) -> Option<Result<String, Error>> {
    let toolbox = judge::toolbox(test)?;
    // Its reader of pictures is told where its modules lie: the path that it was built with is not a toolbox's.
    let libraries = sepulcher::sys::fs::list(&toolbox.file("usr/lib/x86_64-linux-gnu")).unwrap();
    let magick = libraries.into_iter().find(|path| path.join("modules-Q16/coders").is_dir()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = pictures.iter().enumerate().map(|(index, (suffix, content))| {
        let file = folder.path().join(format!("{index:04}{suffix}"));
        std::fs::write(&file, content).unwrap();
        file
    });
    let command = toolbox
        .command("zbarimg")
        .unwrap()
        .env("MAGICK_CODER_MODULE_PATH", magick.join("modules-Q16/coders"))
        .args(["--nodbus", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", "-Sbinary"])
        .args(files.collect::<Vec<_>>());
    Some(command.read().map(|bytes| String::from_utf8(bytes).unwrap()))
}

/// The one text that zbarimg reads in a picture; `None` without a judge.
pub fn read_one(test: &str, picture: &Picture) -> Option<String> {
    Some(decode(test, &[(".pgm", picture.pgm())])?.unwrap_or_else(|error| panic!("{error}")))
}

/// Fails unless zbarimg reads exactly `texts` in the pictures.
fn assert_read(test: &str, pictures: &[(&str, Vec<u8>)], texts: &[&str]) {
    if let Some(read) = decode(test, pictures) {
        assert_eq!(read.unwrap_or_else(|error| panic!("{error}")), texts.concat());
    }
}

#[test]
fn every_client_configuration_fits_a_terminal_and_reads_back_to_the_byte() {
    let test = "every_client_configuration_fits_a_terminal_and_reads_back_to_the_byte";
    let (mut pictures, mut contents) = (Vec::new(), Vec::new());
    for (case, name, text) in configurations() {
        let content = compact(&text);
        let code = Code::of(&content).ok().unwrap();
        assert!(code.columns() <= COLUMNS && code.lines() <= LINES, "{case}/{name}: {}", code.columns());
        let shown = code.terminal(Ink::Colours, COLUMNS).unwrap();
        pictures.push((".pgm", Picture::of_terminal(&shown, 200, 0).pgm()));
        pictures.push((".pgm", Picture::of_terminal(&shown, 0, 255).pgm()));
        pictures.push((".png", code.png().unwrap()));
        contents.extend([content.clone(), content.clone(), content]);
    }
    assert_read(test, &pictures, &contents.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_long_name_to_dial_fits_and_the_longest_is_told() {
    let case = cases::all().into_iter().find(|case| case.name == "v6").unwrap();
    let mut codex = case.codex;
    codex.peers.values_mut().for_each(|peer| Arc::make_mut(peer).preshared = true);
    let name = codex.active().map(|(name, _)| name.clone()).next().unwrap();
    // As long as the longest networks are written, so that any network leaves room for this name.
    let peer = codex.peers.get_mut(&name).unwrap();
    Arc::make_mut(peer).address6 = Some("fd00:1111:2222:3333:4444:5555:6666:7777".parse().unwrap());
    codex.tether.network6 =
        Some(("fd00:1111:2222:3333::/64".parse().unwrap(), "fd00:1111:2222:3333::1".parse().unwrap()));
    let mut code = |dns: String| {
        codex.tether.endpoint = Some(Endpoint::Dns(dns.parse().unwrap()));
        Code::of(&compact(&configuration(&codex, &name))).ok().unwrap()
    };
    assert!(code(format!("{}.example", "a".repeat(45))).terminal(Ink::Colours, COLUMNS).is_ok());
    let longest = [63, 63, 63, 61].map(|length| "a".repeat(length)).join(".");
    assert_eq!(longest.len(), 253);
    let refused = code(longest).terminal(Ink::Colours, COLUMNS).unwrap_err();
    assert_eq!(refused.to_string(), "the QR code is 93 columns wide and the terminal 80");
}

#[test]
fn a_code_without_colours_reads_back_on_the_background_it_is_for() {
    let test = "a_code_without_colours_reads_back_on_the_background_it_is_for";
    let content = "[Interface]\nPrivateKey=yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n";
    let code = Code::of(content).ok().unwrap();
    let pictures =
        [(Ink::LightOnDark, 200, 0), (Ink::DarkOnLight, 0, 255)].map(|(ink, foreground, background)| {
            let shown = code.terminal(ink, COLUMNS).unwrap();
            assert!(!shown.contains('\x1b'));
            let picture = Picture::of_terminal(&shown, foreground, background);
            assert!(picture.shades[0] > 128, "the quiet zone is dark with {ink:?}");
            (".pgm", picture.pgm())
        });
    assert_read(test, &pictures, &[content, content]);
}

#[test]
fn the_svg_draws_what_the_png_shows() {
    // One path of unit squares, `M x y h1v1H x V y`, over a white sheet with the quiet zone.
    let text = "the tether";
    let code = Code::of(text).ok().unwrap();
    let svg = code.svg();
    let width = code.columns() * 8;
    assert!(svg.contains(&format!("viewBox=\"0 0 {width} {width}\"")), "{svg}");
    let mut picture = Picture { shades: vec![255; width * width], width };
    let path = svg.split_once("d=\"").unwrap().1.split_once('"').unwrap().0;
    for square in path.split('M').skip(1) {
        let (corner, size) = square.split_once('h').unwrap();
        let (x, y) = corner.split_once(' ').unwrap();
        assert!(size.starts_with("8v8H"), "{square}");
        let (x, y): (usize, usize) = (x.parse().unwrap(), y.parse().unwrap());
        for row in y..y + 8 {
            picture.shades[row * width + x..row * width + x + 8].fill(0);
        }
    }
    let pictures = [(".pgm", picture.pgm()), (".png", code.png().unwrap())];
    assert_read("the_svg_draws_what_the_png_shows", &pictures, &[text, text]);
}

#[test]
fn a_damaged_code_is_not_read() {
    let code = Code::of("the tether").ok().unwrap();
    let mut picture = Picture::of_terminal(&code.terminal(Ink::DarkOnLight, COLUMNS).unwrap(), 0, 255);
    let half = picture.shades.len() / 2;
    picture.shades[half..].fill(255);
    let read = decode("a_damaged_code_is_not_read", &[(".pgm", picture.pgm())]);
    assert!(!matches!(read, Some(Ok(_))), "{read:?}");
}
