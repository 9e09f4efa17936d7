//! Bars on a logarithmic scale, as an SVG that needs nothing else.

use std::fmt::Write;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 150.0;
const BAR: f64 = 16.0;
const GAP: f64 = 14.0;
const TOP: f64 = 60.0;
const COLOURS: [&str; 4] = ["#1b6ca8", "#d1495b", "#66a182", "#edae49"];

/// The p99 in milliseconds of each policy, a bar for each case.
pub fn bars<const CASES: usize>(heads: &[String; CASES], rows: &[(&str, [f64; CASES])]) -> String {
    let group = BAR * CASES as f64 + GAP;
    let height = TOP + group * rows.len() as f64 + 40.0;
    let all = || rows.iter().flat_map(|(_, row)| row);
    let least = all().copied().fold(f64::MAX, f64::min).max(1e-3);
    let decades = (
        least.log10().floor(),
        all().copied().fold(least, f64::max).log10().ceil(),
    );
    let scale = (WIDTH - LEFT - 80.0) / (decades.1 - decades.0).max(1.0);
    let x = |ms: f64| LEFT + (ms.max(least).log10() - decades.0) * scale;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\">p99 in ms, 20 endpoints of unequal speed, 50 proxies</text>\n"
    );
    let mut line = |text: String| {
        // Writing to a String does not fail.
        let _ = writeln!(svg, "{text}");
    };
    for (case, head) in heads.iter().enumerate() {
        let at = LEFT + 180.0 * case as f64;
        line(format!(
            "<rect x=\"{at}\" y=\"32\" width=\"10\" height=\"10\" fill=\"{}\"/>",
            COLOURS[case % 4]
        ));
        line(format!("<text x=\"{}\" y=\"42\">{head}</text>", at + 14.0));
    }
    for decade in decades.0 as i32..=decades.1 as i32 {
        let (at, end) = (x(10f64.powi(decade)), height - 25.0);
        line(format!(
            "<line x1=\"{at}\" y1=\"{TOP}\" x2=\"{at}\" y2=\"{end}\" stroke=\"#ddd\"/>"
        ));
        line(format!(
            "<text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            height - 10.0,
            10f64.powi(decade)
        ));
    }
    for (index, (name, row)) in rows.iter().enumerate() {
        let top = TOP + group * index as f64;
        let middle = top + group / 2.0;
        line(format!(
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{name}</text>",
            LEFT - 8.0
        ));
        for (case, ms) in row.iter().enumerate() {
            let (y, width) = (top + BAR * case as f64, x(*ms) - LEFT);
            line(format!(
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"/>",
                BAR - 2.0,
                COLOURS[case % 4]
            ));
            line(format!(
                "<text x=\"{:.1}\" y=\"{}\">{ms:.0}</text>",
                LEFT + width + 4.0,
                y + BAR - 5.0
            ));
        }
    }
    svg.push_str("</svg>\n");
    svg
}
