//! The running test on standard error: redrawn in place on a terminal, a line a second otherwise.

use std::collections::VecDeque;
use std::io::Write;

use crate::load::collect::Tick;
use crate::load::plan::LoadPlan;
use crate::load::report::LoadModel;
use crate::load::verdict::{share, show_ms};

/// Seconds that the spark line shows.
const SPARKS: usize = 40;

/// Width of the progress bar.
const BAR: usize = 30;

/// What is shown, and how.
pub(super) struct View {
    mode: Mode,
    title: String,
    open: bool,
    history: VecDeque<f64>,
    /// Lines that are on the terminal and will be drawn over.
    drawn: usize,
}

enum Mode {
    /// Redrawn in place.
    Live,
    /// One line a second.
    Lines,
    /// Nothing.
    Quiet,
}

impl View {
    /// For a plan; nothing is shown where a machine reads and nobody watches.
    pub(super) fn new(plan: &LoadPlan, machine: bool) -> Self {
        let stderr = std::io::stderr();
        let terminal = std::io::IsTerminal::is_terminal(&stderr);
        // Says no to `NO_COLOR`, `TERM=dumb` and whatever is no terminal: then no escape codes at all.
        let escapes = anstream::AutoStream::choice(&stderr) != anstream::ColorChoice::Never;
        let mode = match (terminal && escapes, machine) {
            (true, _) => Mode::Live,
            (false, true) => Mode::Quiet,
            (false, false) => Mode::Lines,
        };
        let load = match plan.model {
            LoadModel::Closed { users: 1 } => "1 user".to_owned(),
            LoadModel::Closed { users } => format!("{users} users"),
            LoadModel::Open { per_second, .. } => format!("{per_second} requests/s"),
        };
        let names: Vec<&str> = plan.scenario.iter().map(|item| item.name.as_str()).collect();
        let host = plan.target.base.host_str().unwrap_or_default();
        let title = format!("{} at {host} · {load}", names.join(", "));
        Self { mode, title, open: matches!(plan.model, LoadModel::Open { .. }), history: VecDeque::new(), drawn: 0 }
    }

    /// A second has passed.
    pub(super) fn tick(&mut self, tick: &Tick) {
        self.history.push_back(tick.second.good as f64 / tick.second.seconds);
        while self.history.len() > SPARKS {
            self.history.pop_front();
        }
        let text = match self.mode {
            Mode::Quiet => return,
            Mode::Lines => self.line(tick),
            Mode::Live => self.block(tick),
        };
        let mut err = anstream::stderr().lock();
        // A terminal that is gone is no reason to stop measuring.
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }

    fn line(&self, tick: &Tick) -> String {
        let second = &tick.second;
        format!(
            "{:>4}s {:<12} {:>8.0}/s  p50 {:>8}  p95 {:>8}  p99 {:>8}  failed {}{}  {} {}\n",
            tick.elapsed.as_secs(),
            tick.phase.word(),
            second.good as f64 / second.seconds,
            ms(second.p50_ms),
            ms(second.p95_ms),
            ms(second.p99_ms),
            second.failed,
            if second.dropped > 0 { format!("  dropped {}", second.dropped) } else { String::new() },
            second.users,
            if self.open { "unanswered" } else { "users" },
        )
    }

    /// Five lines over the five before.
    fn block(&mut self, tick: &Tick) -> String {
        let second = &tick.second;
        let total = &tick.total;
        let (red, end) = if total.failed + total.dropped > 0 { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        let lines = [
            format!("\x1b[1m{}\x1b[0m", self.title),
            format!(
                "{} {:>4} of {} s  {}",
                bar(tick.elapsed.as_secs_f64() / tick.length.as_secs_f64().max(0.001)),
                tick.elapsed.as_secs().min(tick.length.as_secs()),
                tick.length.as_secs(),
                tick.phase.word()
            ),
            format!("good     {:>8.0}/s  {}", second.good as f64 / second.seconds, spark(&self.history)),
            format!(
                "latency  p50 {:>8}  p95 {:>8}  p99 {:>8}   so far p95 {}",
                ms(second.p50_ms),
                ms(second.p95_ms),
                ms(second.p99_ms),
                ms(total.p95_ms)
            ),
            format!(
                "{red}failed   {:>8} ({}){end}{}   {} {}",
                total.failed,
                share(total.failure_rate),
                if self.open { format!("  dropped {}", total.dropped) } else { String::new() },
                second.users,
                if self.open { "unanswered" } else { "users" }
            ),
        ];
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\x1b[{}A", self.drawn));
        }
        // Long lines are cut by the terminal and not wrapped: wrapped ones could not be drawn over.
        out.push_str("\x1b[?7l");
        for line in &lines {
            out.push_str(&format!("\r\x1b[2K{line}\n"));
        }
        out.push_str("\x1b[?7h");
        self.drawn = lines.len();
        out
    }
}

fn ms(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), show_ms)
}

fn bar(share: f64) -> String {
    let full = ((share.clamp(0.0, 1.0) * BAR as f64).round() as usize).min(BAR);
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

/// Heights from nothing to the highest of all.
fn spark(values: &VecDeque<f64>) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = values.iter().copied().fold(0.0, f64::max);
    let height = |value: &f64| {
        let share = if highest > 0.0 { value / highest } else { 0.0 };
        HEIGHTS[((share * 7.0).round() as usize).min(7)]
    };
    values.iter().map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_sparks() {
        assert_eq!(bar(0.0), "░".repeat(BAR));
        assert_eq!(bar(7.0), "█".repeat(BAR));
        assert_eq!(spark(&VecDeque::from([0.0, 50.0, 100.0])), "▁▅█");
        assert_eq!(spark(&VecDeque::from([0.0])), "▁");
    }
}
