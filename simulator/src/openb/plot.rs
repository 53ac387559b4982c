//! A plot as SVG: allocation over what was asked for.

use std::fmt::Write;

/// One line of a plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What it is, for the legend.
    pub name: String,
    /// Its points, in percent, ascending.
    pub points: Vec<(u64, f64)>,
}

/// So much of the end is drawn, in percent asked for: before it every policy places everything.
const SHOWN: u64 = 50;

/// The picture, and the field in it, in pixels.
const SIZE: (f64, f64) = (860.0, 480.0);
const FIELD: Field = Field { left: 60.0, top: 48.0, right: 680.0, bottom: 424.0 };

/// Colours that colour-blind people can tell apart (Okabe and Ito).
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442"];

struct Field {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

/// A plot of these lines: a whole SVG file.
pub fn plot(lines: &[Line]) -> String {
    let last = lines.iter().filter_map(|line| line.points.last()).map(|&(x, _)| x).max().unwrap_or(100);
    let first = last.saturating_sub(SHOWN);
    let shown = || lines.iter().flat_map(|line| &line.points).filter(|&&(x, _)| x >= first);
    let lowest = shown().map(|&(_, y)| y).fold(100.0, f64::min);
    let floor = (lowest / 5.0).floor().clamp(0.0, 19.0) * 5.0;
    let x = |x: u64| {
        FIELD.left
            + (x.saturating_sub(first)) as f64 / SHOWN.min(last).max(1) as f64 * (FIELD.right - FIELD.left)
    };
    let y = |y: f64| FIELD.bottom - (y - floor) / (100.0 - floor) * (FIELD.bottom - FIELD.top);

    let mut svg = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>",
        SIZE.0, SIZE.1
    );
    text(
        &mut svg,
        (FIELD.left, 26.0),
        "start",
        "GPUs allocated, in % of all, over GPUs asked for, in % of all",
    );
    for step in (first..=last).filter(|step| step.is_multiple_of(10)) {
        rule(&mut svg, (x(step), FIELD.top), (x(step), FIELD.bottom));
        text(&mut svg, (x(step), FIELD.bottom + 20.0), "middle", &step.to_string());
    }
    let mut step = floor;
    while step <= 100.0 {
        rule(&mut svg, (FIELD.left, y(step)), (FIELD.right, y(step)));
        text(&mut svg, (FIELD.left - 8.0, y(step) + 4.0), "end", &format!("{step:.0}"));
        step += 5.0;
    }
    for (place, (line, colour)) in lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let points = line.points.iter().filter(|&&(at, _)| at >= first);
        let points: Vec<String> =
            points.map(|&(at, alloc)| format!("{:.1},{:.1}", x(at), y(alloc))).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            points.join(" ")
        );
        let height = FIELD.top + 14.0 + 22.0 * place as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{}\" y=\"{}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>",
            FIELD.right + 18.0,
            height - 6.0
        );
        let end = line.points.last().map_or(String::new(), |(_, alloc)| format!(" {alloc:.2}"));
        text(&mut svg, (FIELD.right + 40.0, height), "start", &format!("{}{end}", line.name));
    }
    svg.push_str("</svg>\n");
    svg
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>", at.0, at.1);
}
