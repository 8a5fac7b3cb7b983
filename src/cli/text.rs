//! How things are written for people: times, sizes, tables, colours.

use anstyle::{AnsiColor, Style};

use crate::build::status::BuildStatus;
use crate::ids::Micros;
pub use crate::words::{duration, number, size};

/// Good.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Bad.
pub const BAD: Style = AnsiColor::Red.on_default();
/// To be looked at.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Less important.
pub const DIM: Style = Style::new().dimmed();
/// Headings.
pub const BOLD: Style = Style::new().bold();

/// Text in a style; `anstream` takes it out where the output is no terminal or `NO_COLOR` is set.
pub fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// An error to standard error.
pub fn error(text: &str) {
    anstream::eprintln!("{} {text}", paint(BAD, "error:"));
}

/// A line to standard output. Whoever reads it may have gone away (`| head`), which is no reason to end a build.
pub fn line(text: &str) {
    use std::io::Write;
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Text to standard output, as it is. Whoever reads it may have seen enough (`| head`).
///
/// # Errors
/// If it cannot be written for another reason, like a full disk.
pub fn print(text: &str) -> anyhow::Result<()> {
    use anyhow::Context;
    use std::io::Write;
    let mut stdout = anstream::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Many lines to standard output in one write, each after `prefix` and cleaned as [`one_line`] does.
pub fn block<'a>(prefix: &str, lines: impl IntoIterator<Item = &'a str>, most: usize) {
    use std::io::Write;
    let stdout = std::io::stdout().lock();
    // Taken out here and not by `anstream`, which would look through every byte.
    let plain = anstream::AutoStream::choice(&stdout) == anstream::ColorChoice::Never;
    let prefix = if plain { anstream::adapter::strip_str(prefix).to_string() } else { prefix.to_owned() };
    let mut out = String::new();
    for line in lines {
        out.push_str(&prefix);
        push_one_line(&mut out, line, most);
        out.push('\n');
    }
    // `LineWriter` passes on what ends with a newline without a copy.
    let _ = { stdout }.write_all(out.as_bytes());
}

/// A remark to standard error.
pub fn remark(text: &str) {
    anstream::eprintln!("{text}");
}

/// A moment in the reader's time zone.
pub fn moment(at: Micros) -> String {
    match jiff::Timestamp::from_microsecond(at.0) {
        Ok(stamp) => stamp.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => at.0.to_string(),
    }
}

/// A sign for a stage's status, given in a word: readable without colour.
pub fn sign(status: &str) -> (&'static str, Style) {
    match status {
        "running" => ("▶", BOLD),
        "delayed" => ("↻", WARN),
        "succeeded" => ("✓", GOOD),
        "reused" => ("=", GOOD),
        "failed" => ("✗", BAD),
        "skipped" => ("-", DIM),
        "cancelled" => ("■", WARN),
        _ => ("·", DIM),
    }
}

/// A build's status in a word, coloured.
pub fn build_word(status: BuildStatus) -> String {
    coloured(status.word())
}

/// A build's status, given in a word, coloured.
pub fn coloured(status: &str) -> String {
    let style = match status {
        "passed" => GOOD,
        "failed" => BAD,
        "cancelled" => WARN,
        _ => BOLD,
    };
    paint(style, one_line(status, 20))
}

/// Rows in columns, the first row as heading. Widths count characters, not bytes, and not colours.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |text: &str| anstream::adapter::strip_str(text).to_string().chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|cell| width(cell)).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            line.push_str(cell);
            line.push_str(&" ".repeat(widths[at] - width(cell) + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// One line without control characters, cut to so many characters: what comes from outside must not steer a terminal.
pub fn one_line(text: &str, most: usize) -> String {
    let mut out = String::new();
    push_one_line(&mut out, text, most);
    out
}

fn push_one_line(out: &mut String, text: &str, most: usize) {
    // Nearly every line is such a one.
    if text.len() <= most && text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return out.push_str(text);
    }
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    // No text has more characters than bytes.
    if text.len() <= most || text.chars().count() <= most {
        out.extend(clean);
    } else {
        out.extend(clean.take(most.saturating_sub(1)).chain(['…']));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(one_line("a\x1b[31mb\nc", 10), "a [31mb c");
        assert_eq!(one_line("abcdef", 4), "abc…");
        assert_eq!(one_line("äöüß", 4), "äöüß");
        assert_eq!(one_line("äöüßä", 4), "äöü…");
        assert_eq!(one_line("a\u{9b}31m\u{7f}", 10), "a 31m ");
    }
}
