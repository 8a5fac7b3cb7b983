//! A load test's result as text.
//!
//! PURE. Text from outside was made harmless where the report was made: messages have no control characters.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use crate::load::report::{LoadReport, Outcome, RequestReport, Verdict};
use crate::load::verdict::{share, show_ms};

/// Most failures that are listed.
const ERRORS: usize = 10;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const DOUBT: Style = AnsiColor::Yellow.on_default();
const QUIET: Style = Style::new().dimmed();

/// The verdict's word in its colour.
pub(super) fn verdict(verdict: Verdict) -> String {
    let style = match verdict {
        Verdict::Passed => GOOD,
        Verdict::Failed => BAD,
        Verdict::Invalid => DOUBT,
    }
    .bold();
    format!("{style}{}{style:#}", verdict.word())
}

/// The whole result.
pub(super) fn render(report: &LoadReport) -> String {
    let mut out = String::new();
    requests(&mut out, report);
    percentiles(&mut out, &report.total);
    errors(&mut out, report);
    gates(&mut out, report);
    for note in &report.notes {
        put(&mut out, format_args!("{QUIET}{note}{QUIET:#}"));
    }
    put(&mut out, format_args!(""));
    put(&mut out, format_args!("{}", verdict(report.verdict)));
    for reason in &report.reasons {
        put(&mut out, format_args!("  {reason}"));
    }
    out
}

fn requests(out: &mut String, report: &LoadReport) {
    let total = &report.total;
    let single = report.requests.len() == 1;
    let rows: Vec<&RequestReport> = report.requests.iter().chain((!single).then_some(total)).collect();
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).clamp(7, 40);
    put(
        out,
        format_args!(
            "{QUIET}{:width$} {:>9} {:>16} {:>10} {:>9} {:>9} {:>9} {:>9}{QUIET:#}",
            "request", "sent", "failed", "good/s", "p50", "p95", "p99", "max"
        ),
    );
    for row in rows {
        let at = |quantile: f64| row.latency.quantile_ms(quantile).map_or_else(|| "-".to_owned(), show_ms);
        let name: String = row.name.chars().take(40).collect();
        let failed = format!("{} ({})", row.failed + row.dropped, share(row.failure_rate));
        put(
            out,
            format_args!(
                "{name:width$} {:>9} {failed:>16} {:>10.1} {:>9} {:>9} {:>9} {:>9}",
                row.sent,
                row.rps,
                at(0.5),
                at(0.95),
                at(0.99),
                at(1.0)
            ),
        );
    }
    if total.dropped > 0 {
        put(out, format_args!("{QUIET}of the failed, {} were never sent{QUIET:#}", total.dropped));
    }
}

fn percentiles(out: &mut String, total: &RequestReport) {
    let latency = &total.latency;
    if latency.count == 0 {
        return;
    }
    let cells: Vec<String> = latency
        .percentiles
        .iter()
        .map(|line| format!("{} {}", crate::load::report::quantile_name(line.quantile), show_ms(line.ms)))
        .collect();
    put(out, format_args!("latency   {}", cells.join("   ")));
}

fn errors(out: &mut String, report: &LoadReport) {
    if report.errors.is_empty() {
        return;
    }
    put(out, format_args!("\nfailures"));
    for group in report.errors.iter().take(ERRORS) {
        put(out, format_args!("{BAD}{:>9}{BAD:#}  {}  {}  {}", group.count, group.name, group.kind, group.message));
    }
    let rest = report.errors.len().saturating_sub(ERRORS);
    if rest > 0 {
        put(out, format_args!("           and {rest} more kinds"));
    }
}

fn gates(out: &mut String, report: &LoadReport) {
    put(out, format_args!("\nthresholds"));
    for gate in &report.thresholds {
        let (style, mark) = match gate.outcome {
            Outcome::Held => (GOOD, "✓"),
            Outcome::Broken => (BAD, "✗"),
            Outcome::Unknown => (DOUBT, "?"),
        };
        let implied = if gate.implied { " (always, unless you say otherwise)" } else { "" };
        put(out, format_args!("  {style}{mark}{style:#} {}{QUIET}{implied}{QUIET:#}", gate.message));
    }
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{line}");
}
