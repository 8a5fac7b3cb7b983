//! How durations, sizes, numbers, paths and errors are written. PURE.

use std::error::Error;
use std::time::Duration;

/// `0.4 s`, `12 s`, `3 m 05 s`, `2 h 07 m`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `12 B`, `1.5 KiB`, `512 MiB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if value.fract() == 0.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A number with as many places as mean something.
pub fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e9 {
        format!("{value:.0}")
    } else if value.abs() >= 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.4}")
    }
}

/// A path within a tree in its one form: `./a//b/` as `a/b`.
pub fn tidy(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

/// `1 check`, `3 checks`.
pub fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// An error and its causes, each said once: some layers quote the one below themselves.
pub fn chain<'a>(causes: impl Iterator<Item = &'a (dyn Error + 'static)>) -> String {
    let mut said = String::new();
    for cause in causes.map(ToString::to_string) {
        if said.ends_with(&cause) {
            continue;
        }
        if !said.is_empty() {
            said.push_str(": ");
        }
        said.push_str(&cause);
    }
    said
}

/// The innermost cause of an error. The layers around it only say that something failed, and may hold an address that is a
/// secret.
pub fn cause(error: &(dyn Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// Characters that turn the direction of text around, or are not to be seen: by them a text could be made to look like another one.
/// Those that join letters of some scripts and parts of pictures are none of them.
pub fn turns_or_hides(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Text for HTML and XML, in elements and in quoted attributes. What turns or hides text is shown as `\u{fffd}`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not allowed there at all.
            c if c.is_control() && !matches!(c, '\n' | '\t' | '\r') => out.push('\u{fffd}'),
            c if turns_or_hides(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (millis, expected) in [(420, "0.4 s"), (12_000, "12 s"), (185_000, "3 m 05 s"), (7_620_000, "2 h 07 m")] {
            assert_eq!(duration(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read a.yaml: {0}")]
        struct Quoting(#[source] std::fmt::Error);
        let error = anyhow::Error::from(Quoting(std::fmt::Error)).context("nothing was built");
        let said = format!("nothing was built: cannot read a.yaml: {}", std::fmt::Error);
        assert_eq!(chain(error.chain()), said);
        assert_eq!(format!("{error:#}"), format!("{said}: {}", std::fmt::Error), "what it is for");
    }

    #[test]
    fn sizes_have_a_unit() {
        for (bytes, expected) in [(12, "12 B"), (1536, "1.5 KiB"), (512 << 20, "512 MiB")] {
            assert_eq!(size(bytes), expected);
        }
    }
}
