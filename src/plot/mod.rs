//! Charts as pictures: plotters decides where everything stands, a canvas of ours writes it as SVG whose colours are classes of the
//! page's style, so that a picture is light or dark with its reader. The values go along for whoever points at them
//! (`web/static/chart.js`).
//!
//! PURE: numbers in, text out. Every text in it is escaped.

mod bars;
mod canvas;
mod frame;
mod lines;
mod row;
mod values;

pub use bars::{Bar, bars};
pub use canvas::Ink;
pub use frame::{Frame, round_ticks, short};
pub use lines::{Line, lines};
pub use row::{Point, Row, Scale};
