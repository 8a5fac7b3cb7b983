//! Points in a row, from left to right: builds, versions. Each leads somewhere; some of them are joined by a line.

use std::fmt::{self, Write};

use askama::filters::HtmlSafe;
use plotters::series::LineSeries;

use super::canvas::{Ink, Place};
use super::frame::{Frame, Upright, WIDTH, picture};
use super::values::told;
use crate::words::escape;

/// A point.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// How high.
    pub value: f64,
    /// Its shape and class: `passed`, `failed`, ...
    pub shape: &'static str,
    /// Joined with the others by the line.
    pub joined: bool,
    /// Shown when pointed at.
    pub title: String,
    /// Where it leads.
    pub link: String,
}

/// Where the vertical scale begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// At nothing.
    FromZero,
    /// Around the points.
    Around,
}

/// Points in a row, with marks below.
#[derive(Debug, Clone)]
pub struct Row {
    /// For those who do not see it.
    pub label: String,
    /// The points.
    pub points: Vec<Point>,
    /// Where the scale begins.
    pub scale: Scale,
    /// Text of a number of the scale.
    pub number: fn(f64) -> String,
    /// Below the first and the last point.
    pub ends: (String, String),
}

const HEIGHT: u32 = 190;

impl Row {
    /// The vertical scale.
    fn upright(&self) -> Upright {
        let values = || self.points.iter().map(|point| point.value).filter(|value| value.is_finite());
        let highest = values().reduce(f64::max).unwrap_or(0.0);
        let lowest = match self.scale {
            Scale::FromZero => 0.0,
            Scale::Around => values().reduce(f64::min).unwrap_or(0.0),
        };
        let span = highest - lowest;
        // Points that are all the same stand in the middle.
        let margin = if span > 0.0 { span * 0.08 } else { highest.abs().max(1.0) * 0.1 };
        let below = if self.scale == Scale::Around { margin } else { 0.0 };
        Upright { range: lowest - below..highest + margin, number: self.number, lines: 5 }
    }

    /// The points that have a place.
    fn known(&self) -> impl Iterator<Item = (f64, &Point)> {
        self.points
            .iter()
            .zip(0u32..)
            .filter(|(point, _)| point.value.is_finite())
            .map(|(point, at)| (at.into(), point))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.points.len().saturating_sub(1) as f64;
        // Room at both ends; a single point stands in the middle.
        let room = (last * 0.015).max(if last == 0.0 { 1.0 } else { 0.02 });
        let frame =
            Frame { label: &self.label, ticks: Vec::new(), from: -room, to: last + room, unit: "", shaded_to: None };
        let mut values = Vec::new();
        let drawn = picture(
            (&frame, "group", HEIGHT),
            &self.upright(),
            |chart| {
                let joined: Vec<(f64, f64)> =
                    self.known().filter(|(_, point)| point.joined).map(|(at, point)| (at, point.value)).collect();
                chart.draw_series(LineSeries::new(joined, Ink::Joined.style()))?;
                Ok(self.known().map(|(at, point)| chart.backend_coord(&(at, point.value))).collect::<Vec<_>>())
            },
            |out, spots| {
                for ((_, point), spot) in self.known().zip(spots) {
                    dot(out, point, spot);
                    values.push((spot.0, point.title.clone()));
                }
                let (left, right) = (escape(&self.ends.0), escape(&self.ends.1));
                let (y, end) = (HEIGHT - 8, WIDTH - 12);
                // Writing to a String cannot fail.
                let _ = write!(
                    out,
                    "<text x=\"64\" y=\"{y}\">{left}</text><text x=\"{end}\" y=\"{y}\" text-anchor=\"end\">{right}</text>"
                );
            },
        );
        let newest = self.points.last().map(|point| point.title.clone()).unwrap_or_default();
        write!(f, "{drawn}<p class=\"legend\">{}</p>", told("at", values.into_iter(), &newest))
    }
}

fn dot(out: &mut String, point: &Point, (x, y): (i32, i32)) {
    let (x, y, shape) = (Place(x), Place(y), point.shape);
    let (link, title) = (escape(&point.link), escape(&point.title));
    let mark = if shape == "failed" {
        "<path class=\"cross\" d=\"M-3.5 -3.5l7 7m0-7l-7 7\"/>"
    } else {
        "<circle class=\"dot\" r=\"3.5\"/>"
    };
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<a class=\"point {shape}\" href=\"{link}\" tabindex=\"-1\" transform=\"translate({x} {y})\"><title>{title}</title>\
         <circle class=\"reach\" r=\"9\"/>{mark}</a>"
    );
}

/// Every text in it is escaped.
impl HtmlSafe for Row {}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f64], scale: Scale) -> Row {
        let point = |value: &f64| Point {
            value: *value,
            shape: "passed",
            joined: true,
            title: "<t>; a".to_owned(),
            link: "/builds/1".to_owned(),
        };
        let number = |value: f64| format!("{value:.1}");
        let ends = (String::new(), String::new());
        Row { label: "a \"label\"".to_owned(), points: values.iter().map(point).collect(), scale, number, ends }
    }

    #[test]
    fn scales_hold_all_points() {
        for (values, scale) in [
            (&[3.0, 14.0][..], Scale::FromZero),
            (&[0.91, 0.93], Scale::Around),
            (&[5.0], Scale::Around),
            (&[0.0], Scale::FromZero),
            (&[-4.0, -2.0], Scale::Around),
        ] {
            let range = row(values, scale).upright().range;
            assert!(values.iter().all(|value| range.contains(value)), "{values:?}: {range:?}");
            assert!(!row(values, scale).to_string().contains("cannot"), "{values:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_not_drawn_and_texts_are_escaped() {
        let drawn = row(&[1.0, f64::NAN, 2.0], Scale::FromZero).to_string();
        assert_eq!(drawn.matches("class=\"dot\"").count(), 2);
        assert!(!drawn.contains("NaN") && !drawn.contains("<t>") && drawn.contains("a &quot;label&quot;"), "{drawn}");
        // Two values, each with its text; the sign between them is none of a text.
        assert_eq!(drawn.matches("=&lt;t&gt;, a").count(), 2, "{drawn}");
    }

    #[test]
    fn no_points_are_a_picture_too() {
        let drawn = row(&[], Scale::Around).to_string();
        assert!(drawn.contains("</svg>") && !drawn.contains("cannot"), "{drawn}");
    }
}
