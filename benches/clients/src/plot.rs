//! A small drawing of lines.

use std::fmt::Write as _;

pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

const COLOURS: [&str; 4] = ["#d55e00", "#0072b2", "#009e73", "#cc79a7"];
const LEFT: f64 = 70.0;
const TOP: f64 = 20.0;
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 240.0;

/// An SVG: each line with its name at its end, both axes from zero.
pub(crate) fn plot(across: &str, up: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let widest = points().map(|point| point.0).fold(1.0, f64::max);
    let highest = points().map(|point| point.1).fold(1.0, f64::max);
    let x = |value: f64| LEFT + WIDTH * value / widest;
    let y = |value: f64| TOP + HEIGHT * (1.0 - value / highest);
    let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
    let mut drawing = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 310" font-family="sans-serif" font-size="12">
<rect width="600" height="310" fill="#fff"/>
<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#444"/>
<text x="{:.0}" y="300" text-anchor="middle">{across}</text>
<text x="{LEFT}" y="12" text-anchor="middle">{up}</text>
<text x="{:.0}" y="{:.0}" text-anchor="end">{highest:.0}</text>
<text x="{:.0}" y="{bottom:.0}" text-anchor="end">0</text>
"##,
        LEFT + WIDTH / 2.0,
        LEFT - 5.0,
        TOP + 10.0,
        LEFT - 5.0,
    );
    let mut marks: Vec<f64> = points().map(|point| point.0).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for mark in marks {
        let _ = writeln!(
            drawing,
            r#"<text x="{:.0}" y="{:.0}" text-anchor="middle">{mark:.0}</text>"#,
            x(mark),
            bottom + 16.0
        );
    }
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<_> = line
            .points
            .iter()
            .map(|&(across, up)| format!("{:.1},{:.1}", x(across), y(up)))
            .collect();
        let _ = writeln!(
            drawing,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            path.join(" ")
        );
        if let Some(&(across, up)) = line.points.last() {
            let _ = writeln!(
                drawing,
                r#"<text x="{:.0}" y="{:.0}" fill="{colour}">{}</text>"#,
                x(across) + 6.0,
                y(up) + 4.0,
                line.name
            );
        }
    }
    drawing.push_str("</svg>\n");
    drawing
}
