//! The table as a picture.

use std::fmt::Write;

use super::{Row, STRATEGIES};

const BAR_HEIGHT: usize = 16;
const GROUP_GAP: usize = 34;
const LEFT: usize = 190;
const WIDTH: usize = 620;
const COLOURS: [&str; 6] = ["#2a7f62", "#7fb89f", "#d9a441", "#c77f2e", "#b45f4d", "#7d7d7d"];

/// Bars of the GPUs that each strategy needs, as an SVG document.
pub fn svg(rows: &[Row]) -> String {
    let most = rows.iter().flat_map(|row| row.gpus).fold(1.0, f64::max);
    let group = STRATEGIES.len() * BAR_HEIGHT + GROUP_GAP;
    let height = 40 + rows.len() * group;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">",
        LEFT + WIDTH + 100
    );
    let _ = writeln!(out, "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>");
    let _ = writeln!(
        out,
        "<text x=\"10\" y=\"20\" font-size=\"14\">GPUs needed for a week of services (99.5 % of each class served)</text>"
    );
    for (r, row) in rows.iter().enumerate() {
        let top = 40 + r * group;
        let _ = writeln!(
            out,
            "<text x=\"10\" y=\"{}\" font-weight=\"bold\">1g/2g/3g = {}, mean of {} weeks</text>",
            top + 12,
            row.mix,
            row.weeks
        );
        for (s, strategy) in STRATEGIES.iter().enumerate() {
            let y = top + 18 + s * BAR_HEIGHT;
            let width = row.gpus[s] / most * WIDTH as f64;
            let _ = writeln!(out, "<text x=\"10\" y=\"{}\">{strategy}</text>", y + 11);
            let _ = writeln!(
                out,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"/>",
                BAR_HEIGHT - 3,
                COLOURS[s]
            );
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{}\">{:.1} ({:.2}x)</text>",
                LEFT as f64 + width + 5.0,
                y + 11,
                row.gpus[s],
                row.ratios[s]
            );
        }
    }
    out.push_str("</svg>\n");
    out
}
