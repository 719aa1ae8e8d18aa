//! A picture of where addresses fell: a strip of the low 2 GiB for each measurement.

use std::fmt::Write as _;

use super::Measurement;

/// Bars of a strip, 4 MiB each.
const BARS: usize = 512;
const WIDTH: usize = 2 * BARS;
const STRIP: usize = 80;
const GAP: usize = 30;

/// The document. A bar's height is its share of the strip's highest one.
pub(super) fn picture(measurements: &[Measurement]) -> String {
    let height = measurements.len() * (STRIP + GAP) + 20;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>Addresses below 2 GiB</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (index, measurement) in measurements.iter().enumerate() {
        let top = index * (STRIP + GAP) + GAP;
        strip(&mut text, measurement, top);
    }
    text.push_str("</svg>\n");
    text
}

fn strip(text: &mut String, measurement: &Measurement, top: usize) {
    let mut counts = [0_usize; BARS];
    for addr in &measurement.addresses {
        let bar = usize::try_from(addr / ((1 << 31) / BARS as u64)).unwrap_or(BARS);
        if let Some(count) = counts.get_mut(bar) {
            *count += 1;
        }
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let base = top + STRIP;
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "<text x=\"4\" y=\"{}\">{}, over {}: {} draws, {} distinct, 0 to 2 GiB</text>",
        top - 6,
        measurement.source.name(),
        measurement.over.name(),
        measurement.figures.draws,
        measurement.figures.distinct
    );
    let _ = writeln!(text, "<path d=\"M0 {base}H{WIDTH}\" stroke=\"#888\"/>");
    for (bar, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let high = (count * STRIP).div_ceil(most);
        let _ = writeln!(
            text,
            "<rect x=\"{}\" y=\"{}\" width=\"2\" height=\"{high}\" fill=\"#25a\"/>",
            bar * 2,
            base - high
        );
    }
}
