//! Bar charts as SVG, readable on a light and on a dark page.
//!
//! Each group of bars has a scale of its own: what is compared are the runners within it. A whisker spans the 10th to
//! the 90th percentile.

use super::stats::{Spread, pretty};
use std::fmt::Write;

pub(super) struct Bar {
    pub(super) series: String,
    pub(super) spread: Spread,
}

pub(super) struct Group {
    pub(super) name: String,
    pub(super) bars: Vec<Bar>,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 110.0;
const BAR: f64 = 16.0;
const GAP: f64 = 5.0;
const TITLE: f64 = 40.0;
const GROUP_TITLE: f64 = 24.0;
const GROUP_GAP: f64 = 14.0;

/// Distinct in brightness as well as in hue, and strong enough for either background.
fn colour(series: &str) -> &'static str {
    match series {
        "native" => "#8b949e",
        "runc" => "#4493c8",
        "quicksand kvm" => "#2da44e",
        "quicksand systrap" => "#116329",
        _ => "#d29922",
    }
}

pub(super) fn svg(title: &str, groups: &[Group]) -> String {
    let height_of = |group: &Group| GROUP_TITLE + group.bars.len() as f64 * (BAR + GAP) + GROUP_GAP;
    let height = TITLE + groups.iter().map(height_of).sum::<f64>();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>{}</title>\n\
         <style>text{{font:13px sans-serif;fill:#1f2328}}.t{{font-weight:600;font-size:15px}}.g{{font-weight:600}}\
         .w{{stroke:#1f2328;stroke-opacity:.65}}\
         @media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}.w{{stroke:#e6edf3}}}}</style>\n\
         <text class=\"t\" x=\"10\" y=\"24\">{}</text>\n",
        escape(title),
        escape(title)
    );
    let mut y = TITLE;
    for group in groups {
        group_of_bars(&mut svg, group, y);
        y += height_of(group);
    }
    svg.push_str("</svg>\n");
    svg
}

fn group_of_bars(svg: &mut String, group: &Group, top: f64) {
    let _infallible =
        writeln!(svg, "<text class=\"g\" x=\"10\" y=\"{:.1}\">{}</text>", top + 14.0, escape(&group.name));
    let most =
        group.bars.iter().map(|bar| bar.spread.p90.max(bar.spread.median)).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LEFT + value / most * (WIDTH - LEFT - RIGHT);
    for (index, bar) in group.bars.iter().enumerate() {
        let y = top + GROUP_TITLE + index as f64 * (BAR + GAP);
        let middle = y + BAR / 2.0;
        let Spread { median, p10, p90, .. } = bar.spread;
        let _infallible = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{}\"/>\
             <path class=\"w\" d=\"M{:.1} {middle:.1}H{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 8.0,
            middle + 4.5,
            escape(&bar.series),
            (x(median) - LEFT).max(1.5),
            colour(&bar.series),
            x(p10),
            x(p90),
            x(p90.max(median)) + 8.0,
            middle + 4.5,
            pretty(median)
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_closed_and_escaped() {
        let spread = Spread { median: 2.0, p10: 1.0, p90: 4.0, runs: 3 };
        let bars = vec![Bar { series: "native".to_owned(), spread }];
        let svg = svg("a < b", &[Group { name: "x & y".to_owned(), bars }]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b") && svg.contains("x &amp; y"));
        assert_eq!(svg.matches("<rect").count(), 1);
    }
}
