//! Small charts as SVG text: lines over a scale, and bars. Colours come from the page's CSS by class.
//!
//! PURE.

use std::fmt::Write;

use crate::words::escape;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;

/// A line of a chart.
pub(super) struct Line<'a> {
    /// For the legend.
    pub name: &'a str,
    /// CSS class: `a`, `b`, `c`, ..., which differ by colour and dashes.
    pub class: &'static str,
    /// Where a value is missing, the line is broken.
    pub points: Vec<(f64, Option<f64>)>,
}

/// What is around lines or bars.
pub(super) struct Frame<'a> {
    /// For those who do not see it.
    pub label: &'a str,
    /// Marks of the horizontal scale: place and text.
    pub ticks: Vec<(f64, String)>,
    /// The horizontal scale's ends.
    pub from: f64,
    pub to: f64,
    /// The unit of the vertical scale.
    pub unit: &'a str,
    /// A part that does not count, from the left up to here.
    pub shaded_to: Option<f64>,
}

impl Frame<'_> {
    fn x(&self, value: f64) -> f64 {
        let span = (self.to - self.from).max(f64::MIN_POSITIVE);
        LEFT + (value - self.from) / span * (WIDTH - LEFT - RIGHT)
    }
}

fn y(value: f64, top: f64) -> f64 {
    HEIGHT - BOTTOM - value / top.max(f64::MIN_POSITIVE) * (HEIGHT - TOP - BOTTOM)
}

/// Lines over a horizontal scale, with a legend.
pub(super) fn lines(frame: &Frame<'_>, lines: &[Line<'_>]) -> String {
    let highest = lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value).fold(0.0, f64::max);
    let (mut out, top) = open(frame, highest);
    for line in lines {
        put(&mut out, format_args!("<path class=\"line {}\" d=\"{}\"/>", line.class, path(frame, line, top)));
        // A line of one point is none: it is drawn as a dot.
        if let [(at, Some(value))] = line.points.as_slice() {
            let (x, y) = (frame.x(*at), y(*value, top));
            put(&mut out, format_args!("<circle class=\"dot {}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>", line.class));
        }
    }
    out.push_str("</svg><p class=\"legend\">");
    for line in lines {
        put(
            &mut out,
            format_args!(
                "<span><svg class=\"key\" viewBox=\"0 0 28 8\" aria-hidden=\"true\"><path class=\"line {}\" d=\"M0 4H28\"/></svg>{}</span>",
                line.class,
                escape(line.name)
            ),
        );
    }
    out.push_str("</p>");
    out
}

fn path(frame: &Frame<'_>, line: &Line<'_>, top: f64) -> String {
    let mut out = String::new();
    let mut pen_down = false;
    for (at, value) in &line.points {
        match value {
            None => pen_down = false,
            Some(value) => {
                let command = if pen_down { 'L' } else { 'M' };
                put(&mut out, format_args!("{command}{:.1} {:.1}", frame.x(*at), y(*value, top)));
                pen_down = true;
            }
        }
    }
    out
}

/// A bar of a histogram.
pub(super) struct Bar {
    pub from: f64,
    pub to: f64,
    pub height: f64,
    /// Shown when pointed at.
    pub title: String,
}

/// Bars over a horizontal scale.
pub(super) fn bars(frame: &Frame<'_>, bars: &[Bar]) -> String {
    let (mut out, top) = open(frame, bars.iter().map(|bar| bar.height).fold(0.0, f64::max));
    for bar in bars.iter().filter(|bar| bar.height > 0.0) {
        let (x, right, y) = (frame.x(bar.from), frame.x(bar.to), y(bar.height, top));
        let (width, height) = ((right - x - 1.0).max(1.0), HEIGHT - BOTTOM - y);
        put(
            &mut out,
            format_args!(
                "<rect class=\"bar\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{}</title></rect>",
                escape(&bar.title)
            ),
        );
    }
    out.push_str("</svg>");
    out
}

/// The frame with its scales; and the value at the top of the vertical one.
fn open(frame: &Frame<'_>, highest: f64) -> (String, f64) {
    let step = nice_step(highest / 4.0);
    let top = ((highest / step).ceil() * step).max(step);
    let mut out = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(frame.label)
    );
    if let Some(to) = frame.shaded_to.filter(|to| *to > frame.from) {
        let (x, width) = (frame.x(frame.from), frame.x(to.min(frame.to)) - frame.x(frame.from));
        let height = HEIGHT - TOP - BOTTOM;
        put(
            &mut out,
            format_args!(
                "<rect class=\"shade\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"><title>not counted</title></rect>"
            ),
        );
    }
    let right = WIDTH - RIGHT;
    let mut value = 0.0;
    while value <= top * (1.0 + 1e-9) {
        let at = y(value, top);
        put(&mut out, format_args!("<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>"));
        let (x, at) = (LEFT - 6.0, at + 4.0);
        // The unit stands with the topmost number.
        let topmost = value + step > top * (1.0 + 1e-9);
        let unit = if topmost && !frame.unit.is_empty() { format!(" {}", escape(frame.unit)) } else { String::new() };
        let number = short(value);
        put(&mut out, format_args!("<text x=\"{x}\" y=\"{at:.1}\" text-anchor=\"end\">{number}{unit}</text>"));
        value += step;
    }
    for (value, text) in &frame.ticks {
        let (x, at) = (frame.x(*value), HEIGHT - BOTTOM + 16.0);
        put(&mut out, format_args!("<text x=\"{x:.1}\" y=\"{at}\" text-anchor=\"middle\">{}</text>", escape(text)));
    }
    (out, top)
}

/// 1, 2 or 5 times a power of ten, at least `rough`.
pub(super) fn nice_step(rough: f64) -> f64 {
    if !(rough.is_finite() && rough > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough * (1.0 - 1e-9))
        .unwrap_or(power * 10.0)
}

/// A number with few digits: `1200` as `1.2k`.
pub(super) fn short(value: f64) -> String {
    let (value, suffix) = match value {
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let rounded = (value * 1000.0).round() / 1000.0;
    format!("{rounded}{suffix}")
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_round_steps() {
        for (rough, expected) in
            [(0.0, 1.0), (0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (230.0, 500.0), (6.0, 10.0), (0.02, 0.02)]
        {
            assert!((nice_step(rough) - expected).abs() < 1e-9, "{rough}: {}", nice_step(rough));
        }
    }

    #[test]
    fn missing_values_break_a_line() {
        let frame = Frame { label: "", ticks: Vec::new(), from: 0.0, to: 3.0, unit: "", shaded_to: None };
        let points = vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(2.0)), (3.0, Some(4.0))];
        let drawn = path(&frame, &Line { name: "", class: "a", points }, 4.0);
        assert_eq!(drawn.matches('M').count(), 2);
        assert_eq!(drawn.matches('L').count(), 1);
    }
}
