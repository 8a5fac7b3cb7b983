//! The picture in a pull request's comment: the judged metrics beside the champion's, and the latencies of load tests, as bars.
//! It stands on its own: no script, no font, nothing from elsewhere.

use std::fmt::Write;

use super::BuildReport;
use crate::words::{escape, number};

const WIDTH: f64 = 640.0;
/// Where bars begin and how long the longest is.
const LEFT: f64 = 190.0;
const LONGEST: f64 = 340.0;
const ROW: f64 = 18.0;
/// Rows at most: beyond, a picture tells less than the table.
const ROWS: usize = 24;

/// One bar.
struct Bar {
    label: String,
    value: f64,
    /// The value that fills the whole length.
    most: f64,
    text: String,
    class: &'static str,
}

/// The picture; none if there is nothing to compare.
pub fn of_build(report: &BuildReport) -> Option<String> {
    let mut bars = metrics(report);
    bars.extend(latencies(report));
    bars.truncate(ROWS);
    if bars.is_empty() {
        return None;
    }
    let height = bars.len() as f64 * ROW + 44.0;
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"metrics and latencies of build {}\"><style>text{{font:12px sans-serif;fill:#1f2328}}.a{{fill:#0969da}}\
         .b{{fill:#8c959f}}.c{{fill:#8250df}}</style><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>",
        report.build.id.0
    );
    for (at, bar) in bars.iter().enumerate() {
        row(bar, at as f64 * ROW + 10.0, &mut out);
    }
    let _ = write!(
        out,
        "<rect class=\"a\" x=\"{LEFT}\" y=\"{y}\" width=\"10\" height=\"10\"/><text x=\"{x1}\" y=\"{t}\">this build</text>\
         <rect class=\"b\" x=\"{x2}\" y=\"{y}\" width=\"10\" height=\"10\"/><text x=\"{x3}\" y=\"{t}\">champion</text>\
         <rect class=\"c\" x=\"{x4}\" y=\"{y}\" width=\"10\" height=\"10\"/><text x=\"{x5}\" y=\"{t}\">latency</text></svg>",
        y = height - 22.0,
        t = height - 13.0,
        x1 = LEFT + 15.0,
        x2 = LEFT + 95.0,
        x3 = LEFT + 110.0,
        x4 = LEFT + 185.0,
        x5 = LEFT + 200.0,
    );
    Some(out)
}

fn metrics(report: &BuildReport) -> Vec<Bar> {
    let mut bars = Vec::new();
    for judged in report.stages.iter().filter_map(super::StageReport::judged) {
        // A bar without another beside it shows nothing.
        for finding in judged.judgement.findings.iter().filter(|finding| finding.champion.is_some()) {
            let both = [(finding.candidate, "a"), (finding.champion, "b")];
            let most = both.iter().filter_map(|(value, _)| *value).map(f64::abs).fold(0.0, f64::max);
            for (value, class) in both {
                let Some(value) = value.filter(|value| value.is_finite()) else { continue };
                let label = if class == "a" { super::line(&finding.metric, 26) } else { String::new() };
                bars.push(Bar { label, value: value.abs(), most, text: number(value), class });
            }
        }
    }
    bars
}

fn latencies(report: &BuildReport) -> Vec<Bar> {
    let mut bars = Vec::new();
    for load in report.stages.iter().filter_map(super::StageReport::load) {
        for request in &load.requests {
            let wanted: Vec<_> =
                request.latency.percentiles.iter().filter(|row| (0.5..=0.99).contains(&row.quantile)).collect();
            let most = wanted.iter().map(|row| row.ms).fold(0.0, f64::max);
            for row in wanted {
                let label = super::line(&format!("{} p{}", request.name, number(row.quantile * 100.0)), 26);
                bars.push(Bar { label, value: row.ms, most, text: format!("{:.1} ms", row.ms), class: "c" });
            }
        }
    }
    bars
}

fn row(bar: &Bar, y: f64, out: &mut String) {
    let width = if bar.most > 0.0 { (bar.value / bar.most * LONGEST).max(1.0) } else { 1.0 };
    let _ = write!(
        out,
        "<text x=\"{x}\" y=\"{t}\" text-anchor=\"end\">{label}</text><rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" \
         height=\"12\"/><text x=\"{v:.1}\" y=\"{t}\">{text}</text>",
        x = LEFT - 8.0,
        t = y + 10.0,
        label = escape(&bar.label),
        class = bar.class,
        v = LEFT + width + 6.0,
        text = escape(&bar.text),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{failed, promoted};

    #[test]
    fn bars_are_as_long_as_their_values() {
        let picture = of_build(&promoted()).expect("a picture");
        assert!(
            picture.contains("width=\"340.0\"") && picture.contains("width=\"306.0\""),
            "0.5 beside 0.45: {picture}"
        );
        assert!(picture.contains(">0.5000<") && picture.contains(">9.0 ms<"), "{picture}");
        assert!(of_build(&failed()).is_none());
    }

    #[test]
    fn labels_are_text() {
        let mut report = promoted();
        let reports = &mut report.stages[3].attempts[0].reports;
        reports.get_mut("judgement").expect("there")["findings"][0]["metric"] = "</text><script>".into();
        let picture = of_build(&report).expect("a picture");
        assert!(!picture.contains("<script"), "{picture}");
    }
}
