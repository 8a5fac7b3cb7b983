//! Bars over a horizontal scale.

use std::fmt::Write;

use plotters::element::Rectangle;

use super::canvas::{Ink, Place};
use super::frame::{Frame, Upright, picture};
use super::values::told;
use crate::words::escape;

const HEIGHT: u32 = 220;

/// A bar of a histogram.
#[derive(Debug)]
pub struct Bar {
    /// Its left end on the horizontal scale.
    pub from: f64,
    /// And its right end.
    pub to: f64,
    /// How high.
    pub height: f64,
    /// Shown when pointed at.
    pub title: String,
}

/// Bars, with what is shown of each.
pub fn bars(frame: &Frame<'_>, bars: &[Bar]) -> String {
    let shown: Vec<&Bar> = bars.iter().filter(|bar| bar.height > 0.0).collect();
    let highest = shown.iter().map(|bar| bar.height).fold(0.0, f64::max);
    let upright = Upright::from_zero(highest);
    let top = upright.range.end;
    let mut values = Vec::new();
    let mut out = picture(
        (frame, "img", HEIGHT),
        &upright,
        |chart| {
            let rectangle = |bar: &&Bar| {
                let mut one = Rectangle::new([(bar.from, 0.0), (bar.to, bar.height)], Ink::Bar.style().filled());
                // A gap between neighbours.
                one.set_margin(0, 0, 2, 2);
                one
            };
            chart.draw_series(shown.iter().map(rectangle))?;
            let place = |bar: &&Bar| (chart.backend_coord(&(bar.from, top)), chart.backend_coord(&(bar.to, 0.0)));
            Ok(shown.iter().map(place).collect::<Vec<_>>())
        },
        |out, places| {
            for (bar, ((left, top), (right, bottom))) in shown.iter().zip(places) {
                let (x, y, width, height) = (Place(left), Place(top), Place(right - left), Place(bottom - top));
                let title = escape(&bar.title);
                // As high as the picture: a low bar is as easily pointed at. Writing to a String cannot fail.
                let _ = write!(
                    out,
                    "<rect class=\"reach\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"><title>{title}</title></rect>"
                );
                values.push((i32::midpoint(left, right), bar.title.clone()));
            }
        },
    );
    let _ = write!(out, "<p class=\"legend\">{}</p>", told("at", values.into_iter(), ""));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_that_are_nothing_are_not_drawn() {
        let bar = |from: f64, height: f64| Bar { from, to: from + 1.0, height, title: format!("<{from}>") };
        let frame = Frame { label: "", ticks: Vec::new(), from: 0.0, to: 3.0, unit: "", shaded_to: None };
        let drawn = bars(&frame, &[bar(0.0, 3.0), bar(1.0, 0.0), bar(2.0, 5.0)]);
        assert_eq!(drawn.matches("<rect class=\"bar\"").count(), 2, "{drawn}");
        assert!(drawn.contains("<title>&lt;2&gt;</title>") && !drawn.contains("<2>"), "{drawn}");
    }
}
