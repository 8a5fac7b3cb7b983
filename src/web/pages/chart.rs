//! Small charts as pictures: points over a scale, some of them joined by a line. Colours and shapes come from the style by
//! class. PURE.

use std::fmt::{self, Write};

use askama::filters::HtmlSafe;

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

/// Points in a row, from left to right, with marks below.
#[derive(Debug, Clone)]
pub struct Chart {
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

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;

impl Chart {
    /// The ends of the vertical scale, and the step between its lines.
    fn range(&self) -> (f64, f64, f64) {
        let values = || self.points.iter().map(|point| point.value).filter(|value| value.is_finite());
        let highest = values().fold(f64::NEG_INFINITY, f64::max).max(f64::MIN);
        let lowest = match self.scale {
            Scale::FromZero => 0.0,
            Scale::Around => values().fold(f64::INFINITY, f64::min).min(highest),
        };
        let step = nice_step((highest - lowest) / 3.0);
        let (low, high) = ((lowest / step).floor() * step, (highest / step).ceil() * step);
        (low, if high > low { high } else { low + step }, step)
    }

    fn x(&self, at: usize) -> f64 {
        let last = self.points.len().saturating_sub(1).max(1) as f64;
        // A single point stands in the middle.
        if self.points.len() == 1 {
            LEFT + (WIDTH - LEFT - RIGHT) / 2.0
        } else {
            LEFT + 8.0 + at as f64 / last * (WIDTH - LEFT - RIGHT - 16.0)
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `rough`.
fn nice_step(rough: f64) -> f64 {
    if !(rough.is_finite() && rough > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power);
    steps.into_iter().find(|step| *step >= rough * (1.0 - 1e-9)).unwrap_or(power * 10.0)
}

impl fmt::Display for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high, step) = self.range();
        let y = |value: f64| HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
        write!(
            f,
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"group\" aria-label=\"{}\">",
            escape(&self.label)
        )?;
        for line in 0..=((high - low) / step).round() as u32 {
            let value = low + f64::from(line) * step;
            let (at, right, text) = (y(value), WIDTH - RIGHT, escape(&(self.number)(value)));
            write!(f, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>")?;
            write!(f, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", LEFT - 7.0, at + 4.0)?;
        }
        let base = HEIGHT - 8.0;
        write!(f, "<text x=\"{LEFT}\" y=\"{base}\">{}</text>", escape(&self.ends.0))?;
        write!(f, "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{}</text>", WIDTH - RIGHT, escape(&self.ends.1))?;
        let points = self.points.iter().enumerate().filter(|(_, point)| point.value.is_finite());
        let mut line = String::new();
        for (at, point) in points.clone().filter(|(_, point)| point.joined) {
            let command = if line.is_empty() { 'M' } else { 'L' };
            write!(line, "{command}{:.1} {:.1}", self.x(at), y(point.value))?;
        }
        write!(f, "<path class=\"line\" d=\"{line}\"/>")?;
        for (at, point) in points {
            let (x, y, shape) = (self.x(at), y(point.value), point.shape);
            write!(
                f,
                "<a class=\"point {shape}\" href=\"{}\" tabindex=\"-1\"><title>{}</title>",
                escape(&point.link),
                escape(&point.title)
            )?;
            write!(f, "<circle class=\"reach\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"9\"/>")?;
            if shape == "failed" {
                write!(f, "<path class=\"cross\" d=\"M{:.1} {:.1}l7 7m0-7l-7 7\"/></a>", x - 3.5, y - 3.5)?;
            } else {
                write!(f, "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/></a>")?;
            }
        }
        f.write_str("</svg>")
    }
}

/// Every text in it is escaped.
impl HtmlSafe for Chart {}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64], scale: Scale) -> Chart {
        let point = |value: &f64| Point {
            value: *value,
            shape: "passed",
            joined: true,
            title: "<t>".to_owned(),
            link: "/builds/1".to_owned(),
        };
        let number = |value: f64| format!("{value:.1}");
        let ends = (String::new(), String::new());
        Chart { label: "a \"label\"".to_owned(), points: values.iter().map(point).collect(), scale, number, ends }
    }

    #[test]
    fn scales_are_round_and_hold_all_points() {
        let check = |values: &[f64], scale: Scale, expected: (f64, f64)| {
            let (low, high, _) = chart(values, scale).range();
            assert!((low - expected.0).abs() < 1e-9 && (high - expected.1).abs() < 1e-9, "{values:?}: {low} {high}");
        };
        check(&[3.0, 14.0], Scale::FromZero, (0.0, 15.0));
        check(&[0.91, 0.93], Scale::Around, (0.91, 0.93));
        check(&[5.0], Scale::Around, (5.0, 6.0));
        check(&[0.0], Scale::FromZero, (0.0, 1.0));
    }

    #[test]
    fn what_is_no_number_is_not_drawn_and_texts_are_escaped() {
        let drawn = chart(&[1.0, f64::NAN, 2.0], Scale::FromZero).to_string();
        assert_eq!(drawn.matches("class=\"dot\"").count(), 2);
        assert!(!drawn.contains("NaN") && !drawn.contains("<t>") && drawn.contains("a &quot;label&quot;"), "{drawn}");
    }
}
