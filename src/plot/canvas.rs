//! Where plotters draws: each of its calls becomes an SVG element.

use std::fmt::{self, Write};

use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind as Failed,
};

use plotters::style::{RGBColor, ShapeStyle};

use crate::words::escape;

/// plotters counts in whole units: so many of them are one of the picture, so that lines are smooth.
pub const FINE: i32 = 8;
/// The height of its letters, in units of the picture.
pub const LETTERS: f64 = 12.0;

/// What something is drawn as: a class of the style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Lines of the scale.
    Grid,
    /// A part that does not count.
    Shade,
    /// Bars of a histogram.
    Bar,
    /// A line that joins points.
    Joined,
    /// Whole.
    A,
    /// Dashed.
    B,
    /// Short dashes.
    C,
    /// Whole, of what failed.
    D,
    /// Dotted.
    E,
    /// Thick dashes and dots: an earlier one.
    F,
}

impl Ink {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Grid, "grid"),
        (Self::Shade, "shade"),
        (Self::Bar, "bar"),
        (Self::Joined, "line"),
        (Self::A, "line a"),
        (Self::B, "line b"),
        (Self::C, "line c"),
        (Self::D, "line d"),
        (Self::E, "line e"),
        (Self::F, "line f"),
    ];

    /// Its classes.
    pub fn class(self) -> &'static str {
        Self::ALL.into_iter().find(|(ink, _)| *ink == self).map_or("", |(_, class)| class)
    }

    /// plotters knows colours, no classes: each ink has one of its own, which nobody ever sees.
    pub fn style(self) -> ShapeStyle {
        let place = Self::ALL.into_iter().zip(0u8..).find(|((ink, _), _)| *ink == self).map_or(0, |(_, place)| place);
        ShapeStyle::from(&RGBColor(place, 0, 0))
    }
}

/// The class that a colour stands for; none if it cannot be seen.
fn class(color: BackendColor) -> Option<&'static str> {
    Ink::ALL.get(usize::from(color.rgb.0)).map(|(_, class)| *class).filter(|_| color.alpha > 0.0)
}

/// A picture that is being drawn.
pub struct Canvas<'a> {
    out: &'a mut String,
    size: (u32, u32),
}

impl<'a> Canvas<'a> {
    /// Of this width and height, in units of the picture.
    pub fn new(out: &'a mut String, size: (u32, u32)) -> Self {
        Self { out, size }
    }

    fn path(&mut self, class: &str, points: impl Iterator<Item = BackendCoord>, end: &str) -> Result<(), Failure> {
        write!(self.out, "<path class=\"{class}\" d=\"")?;
        for (at, (x, y)) in points.enumerate() {
            let command = if at == 0 { 'M' } else { 'L' };
            write!(self.out, "{command}{} {}", Place(x), Place(y))?;
        }
        Ok(write!(self.out, "{end}\"/>")?)
    }
}

/// A coordinate in units of the picture, with one decimal.
pub struct Place(pub i32);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (f64::from(self.0) * 10.0 / f64::from(FINE)).round() / 10.0;
        write!(f, "{tenths}")
    }
}

/// Writing to memory cannot fail; plotters wants to know how it would.
#[derive(Debug)]
pub struct Failure(fmt::Error);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failure {}

impl From<fmt::Error> for Failure {
    fn from(error: fmt::Error) -> Self {
        Self(error)
    }
}

type Drawn = Result<(), Failed<Failure>>;

fn drawn(done: Result<(), Failure>) -> Drawn {
    done.map_err(Failed::DrawingError)
}

impl DrawingBackend for Canvas<'_> {
    type ErrorType = Failure;

    fn get_size(&self) -> (u32, u32) {
        (self.size.0 * FINE.unsigned_abs(), self.size.1 * FINE.unsigned_abs())
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    /// Nothing here is made of pixels.
    fn draw_pixel(&mut self, _: BackendCoord, _: BackendColor) -> Drawn {
        Ok(())
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Drawn {
        class(style.color()).map_or(Ok(()), |class| drawn(self.path(class, [from, to].into_iter(), "")))
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Drawn {
        class(style.color()).map_or(Ok(()), |class| drawn(self.path(class, path.into_iter(), "")))
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Drawn {
        class(style.color()).map_or(Ok(()), |class| drawn(self.path(class, path.into_iter(), "Z")))
    }

    fn draw_rect<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S, _: bool) -> Drawn {
        let Some(class) = class(style.color()) else { return Ok(()) };
        let (left, top) = (from.0.min(to.0), from.1.min(to.1));
        let (width, height) = (Place((to.0 - from.0).abs()), Place((to.1 - from.1).abs()));
        let (left, top) = (Place(left), Place(top));
        let text =
            format_args!("<rect class=\"{class}\" x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\"/>");
        drawn(self.out.write_fmt(text).map_err(Failure))
    }

    fn draw_circle<S: BackendStyle>(&mut self, center: BackendCoord, radius: u32, style: &S, _: bool) -> Drawn {
        let Some(class) = class(style.color()) else { return Ok(()) };
        let (x, y) = (Place(center.0), Place(center.1));
        drawn(write!(self.out, "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"/>").map_err(Failure))
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, at: BackendCoord) -> Drawn {
        let anchor = match style.anchor().h_pos {
            HPos::Left => "start",
            HPos::Center => "middle",
            HPos::Right => "end",
        };
        let below = match style.anchor().v_pos {
            VPos::Top => 0.76,
            VPos::Center => 0.34,
            VPos::Bottom => 0.0,
        };
        let down = (below * LETTERS * f64::from(FINE)) as i32;
        let (x, y, text) = (Place(at.0), Place(at.1 + down), escape(text));
        drawn(write!(self.out, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>").map_err(Failure))
    }
}
