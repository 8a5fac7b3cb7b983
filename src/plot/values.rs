//! The values behind a picture, for whoever points at it: places and texts, in an attribute that `web/static/chart.js` reads.

use std::fmt::Write;

use super::canvas::Place;
use crate::words::escape;

/// An element whose text becomes the value under the pointer: `64=12 ms;66.5=13 ms`, places from the left in units of the picture.
/// `shown` stands there when nothing is pointed at.
pub fn told(class: &str, values: impl Iterator<Item = (i32, String)>, shown: &str) -> String {
    let mut out = format!("<span class=\"{class}\" data-points=\"");
    for (at, (x, text)) in values.enumerate() {
        let sign = if at == 0 { "" } else { ";" };
        // Writing to a String cannot fail.
        let _ = write!(out, "{sign}{}={}", Place(x), escape(&text.replace(';', ",")));
    }
    let _ = write!(out, "\">{}</span>", escape(shown));
    out
}
