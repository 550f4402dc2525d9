//! SVG: elements with escaped texts and whole numbers, and nothing else of it.

use std::fmt::Write as _;

/// A drawing, in pixels.
#[derive(Debug, Default)]
pub struct Drawing {
    body: String,
    width: u32,
    height: u32,
}

/// A rectangle, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Drawing {
    /// A box with round corners, of a class of the style sheet.
    pub fn frame(&mut self, class: &'static str, frame: Frame) {
        let Frame { x, y, width, height } = frame;
        self.reach(x + width, y + height);
        let _ = writeln!(
            self.body,
            r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>"#
        );
    }

    /// A line of text; `y` is its base line.
    pub fn text(&mut self, class: &'static str, (x, y): (u32, u32), text: &str) {
        let _ = writeln!(self.body, r#"<text class="{class}" x="{x}" y="{y}">{}</text>"#, escaped(text));
    }

    /// A curve that leaves and arrives level.
    pub fn link(&mut self, class: &'static str, (x, y): (u32, u32), (to_x, to_y): (u32, u32)) {
        let middle = u32::midpoint(x, to_x);
        let _ = writeln!(
            self.body,
            r#"<path class="{class}" d="M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}"/>"#
        );
    }

    fn reach(&mut self, x: u32, y: u32) {
        self.width = self.width.max(x);
        self.height = self.height.max(y);
    }

    /// The file; `margin` is left free around what is drawn.
    pub fn finish(self, title: &str, style: &'static str, margin: u32) -> String {
        let Self { body, width, height } = self;
        let (width, height, title) = (width + margin, height + margin, escaped(title));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{title}</title>\n<style>\n{style}</style>\n\
             <rect class=\"page\" width=\"{width}\" height=\"{height}\"/>\n{body}</svg>\n"
        )
    }
}

/// Text as XML takes it; characters that XML has no place for become U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_can_start_no_element() {
        let mut drawing = Drawing::default();
        drawing.text("a", (1, 2), "</text><script>\"&\u{0}");
        let file = drawing.finish("<x>", "", 0);
        assert!(file.contains(r#"x="1" y="2">&lt;/text&gt;&lt;script&gt;&quot;&amp;"#), "{file}");
        assert!(!file.contains('\0') && !file.contains("<script>") && !file.contains("<x>"));
    }
}
