//! What is around lines, bars and points: the picture, its scales, and what they say.

use std::fmt::Write;
use std::ops::Range;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::{DrawingAreaErrorKind, IntoDrawingArea};
use plotters::style::colors::TRANSPARENT;

use super::canvas::{Canvas, FINE, Failure, Ink, LETTERS};
use crate::words::escape;

/// The width of every picture; the page makes it as wide as there is room.
pub const WIDTH: u32 = 720;
const LEFT: i32 = 64;
const MARGIN: i32 = 12;
const BELOW: i32 = 24;

/// What is around lines or bars.
#[derive(Debug)]
pub struct Frame<'a> {
    /// For those who do not see it.
    pub label: &'a str,
    /// Marks of the horizontal scale: place and text.
    pub ticks: Vec<(f64, String)>,
    /// Where the horizontal scale begins.
    pub from: f64,
    /// And where it ends.
    pub to: f64,
    /// The unit of the vertical scale; it stands with the topmost number.
    pub unit: &'a str,
    /// A part that does not count, from the left up to here.
    pub shaded_to: Option<f64>,
}

/// A scale whose marks are known. (plotters' own one of this kind has no way to write numbers with a point.)
pub struct Axis {
    scale: RangedCoordf64,
    marks: Vec<f64>,
}

impl Axis {
    fn new(range: Range<f64>, marks: Vec<f64>) -> Self {
        Self { scale: range.into(), marks }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.scale.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.scale.range()
    }
}

/// A chart whose scales are drawn.
pub type Opened<'a, 'b> = ChartContext<'a, Canvas<'b>, Cartesian2d<Axis, Axis>>;
/// Why there is no picture.
pub type Undrawn = DrawingAreaErrorKind<Failure>;

/// The vertical scale.
#[derive(Debug)]
pub struct Upright {
    /// Its ends.
    pub range: Range<f64>,
    /// How its numbers are written.
    pub number: fn(f64) -> String,
    /// Lines at most.
    pub lines: usize,
}

impl Upright {
    /// From nothing to a bit above the highest value.
    pub fn from_zero(highest: f64) -> Self {
        let top = if highest.is_finite() && highest > 0.0 { highest * 1.04 } else { 1.0 };
        Self { range: 0.0..top, number: short, lines: 6 }
    }
}

/// Round numbers within a range, `most` at most.
pub fn round_ticks(range: Range<f64>, most: usize) -> Vec<f64> {
    RangedCoordf64::from(range).key_points(most)
}

/// An SVG of this height with its scales, and on them what `draw` draws. `after` may add elements of its own.
pub fn picture<T>(
    (frame, role, height): (&Frame<'_>, &str, u32),
    upright: &Upright,
    draw: impl FnOnce(&mut Opened<'_, '_>) -> Result<T, Undrawn>,
    after: impl FnOnce(&mut String, T),
) -> String {
    let mut out = String::with_capacity(8 * 1024);
    let (width, label) = (WIDTH, escape(frame.label));
    let open = format!("<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"{role}\" aria-label=\"{label}\">");
    out.push_str(&open);
    match opened(&mut out, frame, upright, height, draw) {
        Ok(made) => after(&mut out, made),
        // Its numbers are in the tables and the CSV.
        Err(error) => {
            let text = escape(&format!("This chart cannot be drawn: {error}"));
            // Writing to a String cannot fail.
            let _ = write!(out, "<text x=\"{LEFT}\" y=\"40\">{text}</text>");
        }
    }
    out.push_str("</svg>");
    out
}

fn opened<T>(
    out: &mut String,
    frame: &Frame<'_>,
    upright: &Upright,
    height: u32,
    draw: impl FnOnce(&mut Opened<'_, '_>) -> Result<T, Undrawn>,
) -> Result<T, Undrawn> {
    let area = Canvas::new(out, (WIDTH, height)).into_drawing_area();
    let lines = round_ticks(upright.range.clone(), upright.lines);
    let topmost = lines.last().copied();
    let to = if frame.to > frame.from { frame.to } else { frame.from + 1.0 };
    let across = Axis::new(frame.from..to, frame.ticks.iter().map(|(at, _)| *at).collect());
    let up = Axis::new(upright.range.clone(), lines);
    let mut chart = ChartBuilder::on(&area)
        .margin(MARGIN * FINE)
        .margin_left(0)
        .margin_bottom(0)
        .x_label_area_size(BELOW * FINE)
        .y_label_area_size(LEFT * FINE)
        .build_cartesian_2d(across, up)?;
    if let Some(to) = frame.shaded_to.filter(|to| *to > frame.from) {
        let ends = [(frame.from, upright.range.start), (to.min(frame.to), upright.range.end)];
        let shade = plotters::element::Rectangle::new(ends, Ink::Shade.style().filled());
        chart.draw_series([shade])?;
    }
    let letters = ("sans-serif", LETTERS * f64::from(FINE));
    let number = |value: &f64| {
        let unit = if topmost == Some(*value) && !frame.unit.is_empty() { frame.unit } else { "" };
        format!("{} {unit}", (upright.number)(*value)).trim_end().to_owned()
    };
    let tick =
        |value: &f64| frame.ticks.iter().find(|(at, _)| at == value).map(|(_, text)| text.clone()).unwrap_or_default();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(Ink::Grid.style())
        .axis_style(TRANSPARENT)
        .set_all_tick_mark_size(4 * FINE)
        .label_style(letters)
        .x_label_formatter(&tick)
        .y_label_formatter(&number)
        .draw()?;
    draw(&mut chart)
}

/// A number with few digits: `12000` as `12k`.
pub fn short(value: f64) -> String {
    let (value, suffix) = match value {
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let rounded = (value * 1000.0).round() / 1000.0;
    format!("{rounded}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(round_ticks(0.0..47.0, 8), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert!(round_ticks(1100.0..2000.0, 8).iter().all(|at| at % 50.0 == 0.0));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.25, 1200.0, 12_000.0, 3e6].map(short), ["0", "0.25", "1200", "12k", "3M"]);
    }
}
