//! Lines over a horizontal scale.

use std::fmt::Write;

use plotters::series::LineSeries;

use super::canvas::{Ink, Place};
use super::frame::{Frame, Opened, Undrawn, Upright, picture};
use super::values::told;
use crate::words::escape;

const HEIGHT: u32 = 220;

/// A line of a chart.
#[derive(Debug)]
pub struct Line<'a> {
    /// For the legend.
    pub name: &'a str,
    /// How it is drawn.
    pub ink: Ink,
    /// Where a value is missing, the line is broken.
    pub points: Vec<(f64, Option<f64>)>,
    /// How its values are written.
    pub show: fn(f64) -> String,
}

impl Line<'_> {
    fn known(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().filter_map(|(at, value)| Some((*at, (*value)?)))
    }
}

/// Where something is, in plotters' units: from the left, and from the top.
type Spot = (i32, i32);

/// Lines over a horizontal scale, with a legend; `head` writes a place of the horizontal scale.
pub fn lines(frame: &Frame<'_>, lines: &[Line<'_>], head: fn(f64) -> String) -> String {
    let highest = lines.iter().flat_map(Line::known).map(|(_, value)| value).fold(0.0, f64::max);
    let mut spots = Vec::new();
    let mut out = picture(
        (frame, "img", HEIGHT),
        &Upright::from_zero(highest),
        |chart| drawn(chart, lines),
        |out, found| {
            for (line, spots) in lines.iter().zip(&found) {
                dot(out, line, spots);
            }
            spots = found;
        },
    );
    out.push_str("<p class=\"legend\">");
    let heads = lines.iter().zip(&spots).next().into_iter().flat_map(|(line, spots)| spots.iter().zip(line.known()));
    out.push_str(&told("at", heads.map(|((x, _), (at, _))| (*x, head(at))), ""));
    for (at, line) in lines.iter().enumerate() {
        let (class, name) = (line.ink.class(), escape(line.name));
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "<span><svg class=\"key\" viewBox=\"0 0 28 8\" aria-hidden=\"true\"><path class=\"{class}\" d=\"M0 4H28\"/></svg>{name} "
        );
        let values = spots.get(at).into_iter().flatten().zip(line.known());
        out.push_str(&told("value", values.map(|((x, _), (_, value))| (*x, (line.show)(value))), ""));
        out.push_str("</span>");
    }
    out.push_str("</p>");
    out
}

/// Draws them, and tells where their points are.
fn drawn(chart: &mut Opened<'_, '_>, lines: &[Line<'_>]) -> Result<Vec<Vec<Spot>>, Undrawn> {
    for line in lines {
        for run in line.points.split(|(_, value)| value.is_none()) {
            let points: Vec<(f64, f64)> = run.iter().filter_map(|(at, value)| Some((*at, (*value)?))).collect();
            if points.len() > 1 {
                chart.draw_series(LineSeries::new(points, line.ink.style()))?;
            }
        }
    }
    Ok(lines.iter().map(|line| line.known().map(|point| chart.backend_coord(&point)).collect()).collect())
}

/// A point without neighbours makes no line: it is drawn as a dot.
fn dot(out: &mut String, line: &Line<'_>, spots: &[Spot]) {
    let mut spots = spots.iter();
    for run in line.points.split(|(_, value)| value.is_none()) {
        let of_run: Vec<&Spot> = spots.by_ref().take(run.len()).collect();
        if let [(x, y)] = of_run.as_slice() {
            let (x, y, class) = (Place(*x), Place(*y), line.ink.class());
            // Writing to a String cannot fail.
            let _ = write!(out, "<circle class=\"dot {class}\" cx=\"{x}\" cy=\"{y}\" r=\"2\"/>");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(points: &[(f64, Option<f64>)]) -> String {
        let frame = Frame {
            label: "a \"label\"",
            ticks: vec![(0.0, "zero".to_owned()), (4.0, "four".to_owned())],
            from: 0.0,
            to: 5.0,
            unit: "ms",
            shaded_to: Some(1.0),
        };
        let line = Line { name: "<b>", ink: Ink::A, points: points.to_vec(), show: |value| format!("{value} ms") };
        lines(&frame, &[line], |at| format!("{at} s"))
    }

    #[test]
    fn missing_values_break_a_line() {
        let drawn =
            drawn(&[(0.0, Some(1.0)), (1.0, Some(2.0)), (2.0, None), (3.0, Some(2.0)), (4.0, None), (5.0, Some(4.0))]);
        assert_eq!(drawn.matches("<path class=\"line a\" d=\"M").count(), 2, "a run of two, and the key: {drawn}");
        assert_eq!(drawn.matches("class=\"dot line a\"").count(), 2, "{drawn}");
    }

    #[test]
    fn values_texts_and_scales_are_told() {
        let drawn = drawn(&[(0.0, Some(1.0)), (4.0, Some(2.0))]);
        assert!(drawn.contains("aria-label=\"a &quot;label&quot;\"") && drawn.contains("&lt;b&gt;"), "{drawn}");
        assert!(drawn.contains(">zero</text>") && drawn.contains(">2 ms</text>"), "{drawn}");
        assert!(drawn.contains("data-points=\"64=0 s;") && drawn.contains("data-points=\"64=1 ms;"), "{drawn}");
        assert!(drawn.contains("<rect class=\"shade\" x=\"64\""), "{drawn}");
    }

    #[test]
    fn nothing_is_a_picture_too() {
        let drawn = drawn(&[]);
        assert!(drawn.contains("</svg>") && !drawn.contains("NaN") && !drawn.contains("cannot"), "{drawn}");
    }
}
