//! The low 2 GiB as an SVG picture: 32 lines of 64 MiB, a coloured stretch a region.

use std::fmt::Write as _;

use low2g::platform::{AddrRange, to_u64};

use super::map::{LOW, Row};
use super::table;

const LINES: u64 = 32;
const LINE: u64 = LOW / LINES;
/// Pixels.
const WIDTH: f64 = 1024.0;
const HEIGHT: u64 = 16;
const LEFT: u64 = 90;
const TOP: u64 = 24;
/// Regions narrower than this would vanish; they are drawn this wide.
const LEAST: f64 = 2.0;

/// Kinds in the order of the legend, with their colours.
const COLOURS: [(&str, &str); 10] = [
    ("free", "#eef2f5"),
    ("section", "#d1495b"),
    ("arena", "#edae49"),
    ("exe", "#30638e"),
    ("brk", "#8d96a3"),
    ("library", "#00798c"),
    ("stack", "#66a182"),
    ("mapping", "#9b72aa"),
    ("guard", "#444444"),
    ("reserved", "#222222"),
];

fn colour(kind: &str) -> &'static str {
    COLOURS
        .iter()
        .find(|(name, _)| *name == kind)
        .map_or("#000000", |(_, colour)| colour)
}

/// Text inside an element.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Bytes of a line as pixels. A line's 64 MiB are well within what a double holds exactly.
fn pixels(bytes: u64) -> f64 {
    let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
    let line = u32::try_from(LINE >> 10).unwrap_or(1);
    f64::from(kib) * WIDTH / f64::from(line)
}

/// The whole picture. Every region has a title (name, range, size) that viewers show on hover.
pub(crate) fn picture(rows: &[Row]) -> String {
    let height = TOP + LINES * (HEIGHT + 2) + 40;
    let width = 1024 + LEFT + 10;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"monospace\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"16\">the low 2 GiB, 64 MiB a line</text>\n"
    );
    for line in 0..LINES {
        let y = TOP + line * (HEIGHT + 2);
        let start = line * LINE;
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(svg, "<text x=\"4\" y=\"{}\">{start:#010x}</text>", y + 12);
        let Some(range) = AddrRange::at(start, LINE) else {
            continue;
        };
        // Free stretches first, so that narrow regions stay visible on them.
        for free in [true, false] {
            for row in rows.iter().filter(|row| (row.kind == "free") == free) {
                if let Some(part) = row.range.intersection(range) {
                    stretch(&mut svg, row, part, start, y);
                }
            }
        }
    }
    legend(&mut svg, TOP + LINES * (HEIGHT + 2) + 16);
    svg.push_str("</svg>\n");
    svg
}

fn stretch(svg: &mut String, row: &Row, part: AddrRange, start: u64, y: u64) {
    let x = pixels(part.start() - start);
    let least = if row.kind == "free" { 0.0 } else { LEAST };
    let width = pixels(part.len()).max(least);
    let _ = writeln!(
        svg,
        "<rect x=\"{:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{HEIGHT}\" fill=\"{}\"><title>{} {} {} ({})</title></rect>",
        f64::from(u32::try_from(LEFT).unwrap_or(0)) + x,
        colour(row.kind),
        row.kind,
        escape(&row.name),
        row.range,
        table::bytes(row.range.len()),
    );
}

fn legend(svg: &mut String, y: u64) {
    for (index, (kind, colour)) in COLOURS.iter().enumerate() {
        let x = LEFT + to_u64(index) * 100;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{colour}\" stroke=\"#888\"/><text x=\"{}\" y=\"{}\">{kind}</text>",
            x + 16,
            y + 10
        );
    }
}
