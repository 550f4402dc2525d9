//! The map as a picture: forest on the left, the appliance in the middle, the tether's peers on the right.

use super::Source;
use super::map::{Column, Map, Row};
use crate::codex::name::Name;
use crate::codex::{Codex, Tier};
use crate::svg::{Drawing, Frame};

const STYLE: &str = "\
.page{fill:#fff}
text{font:14px system-ui,sans-serif;fill:#1b1b1f}
.title{font-weight:600;font-size:16px}
.small{font-size:12px;fill:#55555f}
.zone{fill:none;stroke:#9a9aa5;stroke-width:1.5}
.host{fill:#f5f5f8;stroke:#9a9aa5;stroke-width:1.5}
.pod{fill:#fff;stroke:#9a9aa5}
.forest{fill:#e3f3e3;stroke:#3b8a3b}
.tether{fill:#e8e6fb;stroke:#5b4fc4}
.inner{fill:#eee;stroke:#b5b5bd}
.to-forest{fill:none;stroke:#3b8a3b;stroke-width:1.5}
.to-tether{fill:none;stroke:#5b4fc4;stroke-width:1.5}
";

/// Height of a line, and what is left free between things.
const LINE: u32 = 30;
const GAP: u32 = 14;
/// Left edges and widths of the three parts; the gaps between are for the links.
const FOREST: (u32, u32) = (20, 130);
const HOST: (u32, u32) = (270, 430);
const PEERS: (u32, u32) = (870, 250);
/// Where everything begins, below the titles.
const TOP: u32 = 60;
/// Characters of a label that fit before its tier.
const LABEL: usize = 34;
/// Names of a class that are written out.
const NAMES: usize = 4;

/// The picture of a map.
pub fn draw(codex: &Codex, map: &Map) -> String {
    let mut drawing = Drawing::default();
    let services = groups(map);
    let bottom = TOP + LINE + GAP + services.iter().map(|group| height(group) + GAP).sum::<u32>();
    let (x, width) = HOST;
    drawing.frame("host", Frame { x, y: 20, width, height: bottom + GAP });
    drawing.text("title", (x + GAP, 44), &format!("{} (host)", codex.appliance.name));
    drawing.frame("pod", Frame { x: x + GAP, y: TOP, width: width - 2 * GAP, height: bottom - TOP });
    let pod = format!("pod {} · wg0 {}", codex.pod.address, codex.tether.address);
    drawing.text("small", (x + 2 * GAP, TOP + 20), &pod);

    let peers: Vec<(usize, &Column)> = peer_columns(map).collect();
    let (forest, classes) = (outside(&mut drawing, bottom), tether(&mut drawing, codex, &peers));
    let mut y = TOP + LINE;
    for group in &services {
        y = service(&mut drawing, group, y, |drawing, row, at| {
            links(drawing, row, at, forest, &classes);
        });
    }
    let title = format!("Who reaches what at {}", codex.appliance.name);
    drawing.finish(&title, STYLE, 20)
}

fn peer_columns(map: &Map) -> impl Iterator<Item = (usize, &Column)> {
    map.columns.iter().enumerate().filter(|(_, column)| matches!(column.source, Source::Peer(_)))
}

/// Rows of one owner, together: the tether's own first.
fn groups(map: &Map) -> Vec<Vec<&Row>> {
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in &map.rows {
        match groups.iter_mut().find(|group| group[0].service == row.service) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    groups
}

fn height(group: &[&Row]) -> u32 {
    LINE * (1 + u32::try_from(group.len()).unwrap_or(u32::MAX / LINE - 2))
}

/// The forest's box; returns where its links begin.
fn outside(drawing: &mut Drawing, bottom: u32) -> (u32, u32) {
    let (x, width) = FOREST;
    drawing.frame("forest", Frame { x, y: 20, width, height: bottom + GAP });
    drawing.text("title", (x + GAP, 44), "Forest");
    drawing.text("small", (x + GAP, 64), "anybody outside");
    (x + width, 20 + u32::midpoint(bottom, GAP))
}

/// A box for each class of peers; returns where links to each column end.
fn tether(drawing: &mut Drawing, codex: &Codex, peers: &[(usize, &Column)]) -> Vec<(usize, (u32, u32))> {
    let (x, width) = PEERS;
    drawing.text("title", (x, 44), "Tether");
    drawing.text("small", (x + 70, 44), &codex.tether.network.to_string());
    let mut ends = Vec::new();
    let mut y = TOP;
    for (index, column) in peers {
        let names: Vec<&Name> = column.peers.iter().take(NAMES).collect();
        let lines = u32::try_from(names.len()).unwrap_or_default();
        let more = column.peers.len() - names.len();
        let height = LINE * (lines + u32::from(more > 0)) + GAP;
        drawing.frame("tether", Frame { x, y, width, height });
        for (line, name) in (0..).zip(&names) {
            let address = codex.peers.get(name).map_or_else(String::new, |peer| peer.address.to_string());
            let base = y + 24 + LINE * line;
            drawing.text("name", (x + GAP, base), name.as_str());
            drawing.text("small", (x + width - 110, base), &address);
        }
        if more > 0 {
            drawing.text("small", (x + GAP, y + 24 + LINE * lines), &format!("and {more} more"));
        }
        ends.push((*index, (x, y + height / 2)));
        y += height + GAP;
    }
    ends
}

/// A service with its rows; `link` is told where each row's ends are. Returns where the next one begins.
fn service(drawing: &mut Drawing, group: &[&Row], y: u32, link: impl Fn(&mut Drawing, &Row, Frame)) -> u32 {
    let (x, width) = (HOST.0 + 2 * GAP, HOST.1 - 4 * GAP);
    drawing.frame("zone", Frame { x, y, width, height: height(group) });
    let name = group[0].service.as_ref().map_or("tether", Name::as_str);
    drawing.text("title", (x + GAP, y + 20), name);
    for (line, row) in (1..).zip(group) {
        let class = match row.tier {
            Tier::Forest => "forest",
            Tier::Tether => "tether",
            Tier::Pod => "inner",
        };
        let frame = Frame { x: x + GAP, y: y + LINE * line - 4, width: width - 2 * GAP, height: LINE - 4 };
        link(drawing, row, frame);
        drawing.frame(class, frame);
        drawing.text("name", (frame.x + 10, frame.y + 18), &shortened(&row.label));
        drawing.text("small", (frame.x + frame.width - 52, frame.y + 18), &row.tier.to_string());
    }
    y + height(group) + GAP
}

fn shortened(label: &str) -> String {
    match label.char_indices().nth(LABEL) {
        Some((end, _)) => format!("{}…", &label[..end]),
        None => label.to_owned(),
    }
}

/// From the forest to what it reaches, and from each class of peers to what the tunnel lets it reach.
fn links(drawing: &mut Drawing, row: &Row, at: Frame, forest: (u32, u32), classes: &[(usize, (u32, u32))]) {
    let middle = at.y + at.height / 2;
    let public = row.reached.first().copied().unwrap_or_default();
    if public {
        drawing.link("to-forest", forest, (at.x, middle));
    }
    for (index, end) in classes {
        if row.reached[*index] && row.tier == Tier::Tether {
            drawing.link("to-tether", *end, (at.x + at.width, middle));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex::Sources;
    use crate::codex::time::Timestamp;
    use crate::reach::Reach;

    #[test]
    fn a_picture_shows_every_service_and_peer_and_a_line_for_each_grant() {
        let mut sources = Sources::default();
        sources.insert("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n");
        let port = |number, tier| format!("[[port]]\nnumber = {number}\ntier = \"{tier}\"\n");
        let text = "description = \"x\"\nrootfs = \"stand-in\"\n".to_owned();
        sources.insert("services/echo.toml", text + &port(7878, "tether") + &port(9000, "forest"));
        let key = "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=";
        let phone = format!("public-key = \"{key}\"\naddress = \"10.88.16.2\"\ngrants = [\"echo\"]\n");
        sources.insert("peers/phone.toml", phone);
        let codex = Codex::parse(&sources).unwrap();
        let picture = draw(&codex, &Reach::new(&codex, Timestamp::from_epoch(0)).map());
        for part in [">echo<", ">7878/tcp<", ">phone<", ">10.88.16.2<", ">Forest<", ">lychd (host)<"] {
            assert!(picture.contains(part), "{part} is missing from {picture}");
        }
        let lines = |class: &str| picture.matches(&format!("<path class=\"{class}\"")).count();
        assert_eq!((lines("to-forest"), lines("to-tether")), (2, 1), "9000 and the tether's port; the grant");
    }
}
