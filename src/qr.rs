//! QR codes of client configurations: for the terminal, as SVG and as PNG.
//!
//! The lowest error correction is enough: a screen has no scratches, and fewer modules are read from farther away.
//! What is encoded is a secret as a rule, so a [`Code`] has no `Debug`.

use std::io;

use qrcode::render::{svg, unicode::Dense1x2};
use qrcode::types::Color;
use qrcode::{EcLevel, QrCode};

/// Light modules around a code, as the standard asks.
const QUIET: usize = 4;
/// Pixels of a PNG along a module's edge.
const SCALE: usize = 8;
/// Bytes that the largest code (version 40) holds at the lowest error correction.
const LIMIT: usize = 2953;
/// Black on white, whatever the terminal's own colours are.
const BLACK_ON_WHITE: &str = "\x1b[30;47m";
const RESET: &str = "\x1b[0m";

/// A QR code.
pub struct Code(QrCode);

/// The text does not fit into any QR code. Both counts are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes do not fit into a QR code, which holds {LIMIT}")]
pub struct TooLong {
    /// Length of the text.
    pub length: usize,
}

/// The code does not fit into the width of the terminal. Both counts are columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the QR code is {needed} columns wide and the terminal {given}")]
pub struct TooWide {
    /// What the code takes.
    pub needed: usize,
    /// What there is.
    pub given: usize,
}

/// How modules are told apart on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// By colours that are set: right on every background.
    Colours,
    /// By blocks in the terminal's own colour, which is light on a dark background.
    LightOnDark,
    /// By blocks in the terminal's own colour, which is dark on a light background.
    DarkOnLight,
}

impl Code {
    /// The smallest code for a text.
    pub fn of(text: &str) -> Result<Self, TooLong> {
        let code = QrCode::with_error_correction_level(text, EcLevel::L);
        code.map(Self).map_err(|_| TooLong { length: text.len() })
    }

    /// Columns of a terminal that it takes, its quiet zone included.
    pub fn columns(&self) -> usize {
        self.0.width() + 2 * QUIET
    }

    /// Lines of a terminal that it takes, its quiet zone included.
    pub fn lines(&self) -> usize {
        self.columns().div_ceil(2)
    }

    /// Lines of half blocks for a terminal of so many columns.
    pub fn terminal(&self, ink: Ink, columns: usize) -> Result<String, TooWide> {
        if self.columns() > columns {
            return Err(TooWide { needed: self.columns(), given: columns });
        }
        let (dark, light, before, after) = match ink {
            Ink::Colours => (Dense1x2::Dark, Dense1x2::Light, BLACK_ON_WHITE, RESET),
            Ink::DarkOnLight => (Dense1x2::Dark, Dense1x2::Light, "", ""),
            Ink::LightOnDark => (Dense1x2::Light, Dense1x2::Dark, "", ""),
        };
        let blocks = self.0.render::<Dense1x2>().dark_color(dark).light_color(light).build();
        Ok(blocks.lines().map(|line| format!("{before}{line}{after}\n")).collect())
    }

    /// An SVG image, black on white.
    pub fn svg(&self) -> String {
        let mut text = self.0.render::<svg::Color<'_>>().build();
        text.push('\n');
        text
    }

    /// A PNG image, black on white, one bit a pixel.
    pub fn png(&self) -> io::Result<Vec<u8>> {
        let side = self.columns() * SCALE;
        let mut bytes = Vec::new();
        let pixels = u32::try_from(side).map_err(io::Error::other)?;
        let mut encoder = png::Encoder::new(&mut bytes, pixels, pixels);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::One);
        let mut writer = encoder.write_header()?;
        let rows: Vec<u8> = (0..side).flat_map(|y| self.row(y / SCALE)).collect();
        writer.write_image_data(&rows)?;
        writer.finish()?;
        Ok(bytes)
    }

    /// A row of pixels at the height of module `y`. A module is [`SCALE`] pixels wide, which is one byte.
    fn row(&self, y: usize) -> impl Iterator<Item = u8> {
        (0..self.columns()).map(move |x| if self.dark(x, y) { 0x00 } else { 0xff })
    }

    /// Whether a module is dark; the quiet zone counts.
    fn dark(&self, x: usize, y: usize) -> bool {
        let inside = |at: usize| at.checked_sub(QUIET).filter(|at| *at < self.0.width());
        inside(x).zip(inside(y)).is_some_and(|at| self.0[at] == Color::Dark)
    }
}

/// A WireGuard configuration without what only people need: comments, empty lines, spaces around `=` and
/// after commas. Each byte less is a smaller code.
pub fn compact(configuration: &str) -> String {
    let lines = configuration.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| compact_line(line) + "\n").collect()
}

fn compact_line(line: &str) -> String {
    let Some((key, value)) = line.split_once('=') else { return line.to_owned() };
    let values: Vec<_> = value.split(',').map(str::trim).collect();
    format!("{}={}", key.trim(), values.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_version_is_taken_up_to_the_last_byte() {
        // Version 13 holds 425 bytes and is the last that fits into 80 columns.
        for (length, columns) in [(1, 29), (17, 29), (18, 33), (425, 77), (426, 81), (LIMIT, 185)] {
            let code = Code::of(&"a".repeat(length));
            assert_eq!(code.ok().map(|code| code.columns()), Some(columns), "{length}");
        }
        let length = LIMIT + 1;
        assert_eq!(Code::of(&"a".repeat(length)).err(), Some(TooLong { length }));
    }

    #[test]
    fn a_code_that_would_wrap_is_refused() {
        let Ok(code) = Code::of(&"a".repeat(426)) else { panic!("426 bytes fit") };
        assert_eq!(code.terminal(Ink::Colours, 80), Err(TooWide { needed: 81, given: 80 }));
        assert!(code.terminal(Ink::Colours, 81).is_ok());
    }

    #[test]
    fn a_terminal_code_has_its_size_and_sets_its_colours_line_by_line() {
        let Ok(code) = Code::of(&"a".repeat(425)) else { panic!("425 bytes fit") };
        let text = code.terminal(Ink::Colours, 80).unwrap();
        assert_eq!((code.columns(), code.lines(), text.lines().count()), (77, 39, 39));
        for line in text.lines() {
            let blocks = line.strip_prefix(BLACK_ON_WHITE).unwrap().strip_suffix(RESET).unwrap();
            assert_eq!(blocks.chars().count(), 77);
        }
    }

    #[test]
    fn a_compact_configuration_says_the_same() {
        let text = "# phone: the tether\n[Interface]\n# Keep it.\nPrivateKey = aGk=\nAddress = 10.0.0.2/32, fd00::2/128\n\n\
                    [Peer]\nPublicKey = eW8=  # ours\n";
        assert_eq!(
            compact(text),
            "[Interface]\nPrivateKey=aGk=\nAddress=10.0.0.2/32,fd00::2/128\n[Peer]\nPublicKey=eW8=\n"
        );
    }
}
