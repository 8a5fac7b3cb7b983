//! Moments and spans of time as pages show them. PURE: `now` is given.

use std::fmt;
use std::time::Duration;

use askama::filters::HtmlSafe;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::ids::Micros;
use crate::words;

/// A moment: how long ago, with the exact one beside it. The script says it in the reader's zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    at: Timestamp,
    words: String,
}

impl Moment {
    /// A moment as seen at another.
    pub fn of(at: Micros, now: Micros) -> Self {
        // No clock gives what is out of range; a damaged row may.
        let stamp = Timestamp::from_microsecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH);
        let ahead = at.0.saturating_sub(now.0);
        let words = if ahead > NOW {
            until(stamp, Duration::from_micros(ahead.unsigned_abs()))
        } else {
            ago(stamp, Duration::from_micros(now.0.saturating_sub(at.0).max(0).unsigned_abs()))
        };
        Self { at: stamp, words }
    }

    /// With the exact moment for everybody to see.
    pub fn whole(&self) -> Whole<'_> {
        Whole(self)
    }

    /// In UTC, for people.
    fn exact(&self) -> String {
        self.at.to_zoned(TimeZone::UTC).strftime("%-d %b %Y, %H:%M:%S UTC").to_string()
    }
}

/// Microseconds ahead that are still now: clocks differ.
const NOW: i64 = 60_000_000;

/// `in 3 min`, `in 5 h`, `in 2 d`, then the day.
fn until(at: Timestamp, ahead: Duration) -> String {
    match ahead.as_secs() {
        seconds @ 0..3600 => format!("in {} min", seconds / 60),
        seconds @ 3600..86_400 => format!("in {} h", seconds / 3600),
        seconds @ 86_400..2_592_000 => format!("in {} d", seconds / 86_400),
        _ => at.to_zoned(TimeZone::UTC).strftime("%-d %b %Y").to_string(),
    }
}

/// `12 s ago`, `3 min ago`, `5 h ago`, `2 d ago`, then the day.
fn ago(at: Timestamp, past: Duration) -> String {
    match past.as_secs() {
        0..5 => "just now".to_owned(),
        seconds @ 5..60 => format!("{seconds} s ago"),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..86_400 => format!("{} h ago", seconds / 3600),
        seconds @ 86_400..2_592_000 => format!("{} d ago", seconds / 86_400),
        _ => at.to_zoned(TimeZone::UTC).strftime("%-d %b %Y").to_string(),
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, words } = self;
        write!(f, "<time datetime=\"{at:.3}\" title=\"{}\">{words}</time>", self.exact())
    }
}

/// Made of digits and our own words.
impl HtmlSafe for Moment {}

/// A moment that says itself, and how long ago it was.
#[derive(Debug, Clone, Copy)]
pub struct Whole<'a>(&'a Moment);

impl fmt::Display for Whole<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Moment { at, words } = self.0;
        let exact = self.0.exact();
        write!(f, "<time datetime=\"{at:.3}\" data-whole>{exact}</time> <span class=\"muted\">({words})</span>")
    }
}

/// Made of digits and our own words.
impl HtmlSafe for Whole<'_> {}

/// How long something took, or takes: then the script counts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    took: Duration,
    since: Option<Micros>,
}

impl Span {
    /// From a moment to its end, or until now if it goes on.
    pub fn of(from: Micros, to: Option<Micros>, now: Micros) -> Self {
        Self { took: to.unwrap_or(now).since(from), since: to.is_none().then_some(from) }
    }

    /// A span that is over.
    pub fn over(took: Duration) -> Self {
        Self { took, since: None }
    }

    /// As a number.
    pub fn seconds(self) -> f64 {
        self.took.as_secs_f64()
    }

    /// As part of a picture's text.
    pub fn in_svg(self) -> InSvg {
        InSvg(self)
    }

    /// For texts that are no HTML.
    pub fn words(self) -> String {
        duration(self.took)
    }
}

/// Below a twentieth of a second what is shown of seconds would be nothing.
fn duration(took: Duration) -> String {
    match took.as_millis() {
        0 => "0 ms".to_owned(),
        millis @ 1..50 => format!("{millis} ms"),
        _ => words::duration(took),
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = if self.since.is_some() { words::duration(self.took) } else { duration(self.took) };
        match self.since {
            None => write!(f, "<span class=\"span\">{words}</span>"),
            Some(since) => write!(f, "<span class=\"span\" data-since=\"{}\">{words}</span>", since.0 / 1000),
        }
    }
}

/// A span as part of a picture's text.
#[derive(Debug, Clone, Copy)]
pub struct InSvg(Span);

impl fmt::Display for InSvg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = if self.0.since.is_some() { words::duration(self.0.took) } else { duration(self.0.took) };
        match self.0.since {
            None => f.write_str(&words),
            Some(since) => write!(f, "<tspan data-since=\"{}\">{words}</tspan>", since.0 / 1000),
        }
    }
}

/// Made of digits and units.
impl HtmlSafe for Span {}
impl HtmlSafe for InSvg {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_in_words() {
        let check = |seconds: i64, expected: &str| {
            let now = 1_790_000_000_000_000;
            let shown = Moment::of(Micros(now - seconds * 1_000_000), Micros(now)).to_string();
            assert!(shown.ends_with(&format!(">{expected}</time>")), "{shown}");
        };
        check(2, "just now");
        check(-30, "just now");
        check(-200, "in 3 min");
        check(-7300, "in 2 h");
        check(59, "59 s ago");
        check(200, "3 min ago");
        check(7200, "2 h ago");
        check(200_000, "2 d ago");
        check(9_000_000, "9 Jun 2026");
    }

    #[test]
    fn the_exact_moment_stands_beside() {
        let shown = Moment::of(Micros(1_790_000_000_123_456), Micros(1_790_000_000_123_456)).to_string();
        assert_eq!(
            shown,
            "<time datetime=\"2026-09-21T14:13:20.123Z\" title=\"21 Sep 2026, 14:13:20 UTC\">just now</time>"
        );
    }

    #[test]
    fn what_goes_on_is_counted_on() {
        let span = Span::of(Micros(5_000_000), None, Micros(8_000_000));
        assert_eq!(span.to_string(), "<span class=\"span\" data-since=\"5000\">3.0 s</span>");
        let over = Span::of(Micros(5_000_000), Some(Micros(70_000_000)), Micros(80_000_000));
        assert_eq!(over.to_string(), "<span class=\"span\">1 m 05 s</span>");
    }
}
