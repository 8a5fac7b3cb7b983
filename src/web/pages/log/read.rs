//! Reads the part of a log that a page shows, on a thread where it may block.

use std::ops::Range;
use std::path::PathBuf;

use super::{HITS, WHOLE, WINDOW};
use crate::ids::Micros;
use crate::logs::{Line, LogError, LogReader, Search};
use crate::store::attempts::StepRow;
use crate::web::problem::{Answer, Problem};

/// Which part.
pub enum Part {
    /// All of a short log, the end of a long one.
    Usual,
    /// Around a line.
    Window(u64),
    /// From the first line of a step on.
    Step(u64),
    /// So many lines from one on.
    Lines(u64, u64),
    /// The lines that hold a text.
    Search(String),
}

/// What was read.
#[derive(Default)]
pub struct Read {
    /// The lines, in order.
    pub lines: Vec<Line>,
    /// How many there are in all.
    pub total: u64,
    /// The lines are hits of a search, and there are more.
    pub more_hits: bool,
    /// Of a long log: where the lines of each step lie, from the first to before the last; a step may have none.
    pub steps: Vec<Range<u64>>,
}

/// Characters of a line that a page shows; the raw log has them all.
pub const LONGEST: usize = 4000;
/// Bytes of a long line that are shown before what was found in it.
const BEFORE: usize = 200;
/// Steps that a long log is folded by; of more, only the log is shown.
const STEPS: usize = 40;
/// Text that is read at once.
const AT_ONCE: usize = 2 * 1024 * 1024;

/// Reads it. A log that is not there has no lines.
pub async fn part(path: PathBuf, part: Part, steps: Vec<StepRow>) -> Answer<Read> {
    let read = tokio::task::spawn_blocking(move || match LogReader::open(&path) {
        Ok(mut log) => read(&mut log, part, &steps),
        Err(LogError::Absent { .. }) => Ok(Read::default()),
        Err(error) => Err(error),
    });
    read.await.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))
}

fn read(log: &mut LogReader, part: Part, steps: &[StepRow]) -> Result<Read, LogError> {
    let total = log.line_count()?;
    let (from, count) = match part {
        Part::Search(text) => {
            let Search { hits, more } = log.search(&text, HITS, 0)?;
            let lines = hits.into_iter().map(|hit| cut_around(hit.line, &text)).collect();
            return Ok(Read { lines, total, more_hits: more, ..Read::default() });
        }
        Part::Lines(from, count) => (from, count),
        Part::Usual | Part::Window(_) | Part::Step(_) if total <= WHOLE => (0, WHOLE),
        Part::Usual => (total.saturating_sub(WINDOW), WINDOW),
        Part::Window(from) => (from.min(total.saturating_sub(1)), WINDOW),
        Part::Step(step) => (first_of(log, total, step, steps)?, WINDOW),
    };
    let mut lines: Vec<Line> = Vec::new();
    let end = from.saturating_add(count).min(total);
    let mut next = from;
    // Long lines are cut before the next are read, so that a page is bounded by its lines.
    while next < end {
        let some = log.lines(next..end, AT_ONCE)?;
        let Some(last) = some.last() else { break };
        next = last.number + 1;
        lines.extend(some.into_iter().map(cut));
    }
    let steps = if total > WHOLE && steps.len() <= STEPS { places(log, total, steps)? } else { Vec::new() };
    Ok(Read { lines, total, more_hits: false, steps })
}

fn cut(mut line: Line) -> Line {
    if let Some((at, _)) = line.text.char_indices().nth(LONGEST) {
        let left = line.text.len() - at;
        line.text.truncate(at);
        line.text.push_str(&format!("… {left} more bytes, in the raw log"));
    }
    line
}

/// Of a long line the part with the first hit.
fn cut_around(mut line: Line, text: &str) -> Line {
    let Some(at) = line.text.find(text).filter(|at| *at > LONGEST / 2) else { return cut(line) };
    let mut from = at.saturating_sub(BEFORE);
    while !line.text.is_char_boundary(from) {
        from -= 1;
    }
    line.text.replace_range(..from, "…");
    cut(line)
}

/// Where the lines of each step lie.
fn places(log: &mut LogReader, total: u64, steps: &[StepRow]) -> Result<Vec<Range<u64>>, LogError> {
    let mut firsts = Vec::with_capacity(steps.len());
    for step in steps {
        let low = firsts.last().copied().unwrap_or(0);
        firsts.push(since(log, low..total, step.started_at)?);
    }
    // What is noted after the last step is none of its lines.
    let end = match steps.last().and_then(|step| step.ended_at) {
        Some(ended) => since(log, firsts.last().copied().unwrap_or(0)..total, Micros(ended.0 + 1))?,
        None => total,
    };
    let ends = firsts.iter().skip(1).copied().chain([end]);
    Ok(firsts.iter().copied().zip(ends).map(|(first, end)| first..end).collect())
}

/// The first line of a step.
fn first_of(log: &mut LogReader, total: u64, step: u64, steps: &[StepRow]) -> Result<u64, LogError> {
    let Some(began) = usize::try_from(step).ok().and_then(|at| steps.get(at)).map(|step| step.started_at) else {
        return Ok(total.saturating_sub(WINDOW));
    };
    Ok(since(log, 0..total, began)?.min(total.saturating_sub(1)))
}

/// The first of these lines that was written at a moment or later: lines are in the order in which they were written.
fn since(log: &mut LogReader, among: Range<u64>, moment: Micros) -> Result<u64, LogError> {
    let Range { start: mut low, end: mut high } = among;
    while low < high {
        let middle = low + (high - low) / 2;
        let found = log.lines(middle..middle + 1, AT_ONCE)?;
        if found.first().is_some_and(|line| line.at < moment) { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Stream;

    #[test]
    fn of_a_long_line_the_part_with_the_hit_is_shown() {
        let line = |text: String| Line {
            number: 0,
            at: Micros(0),
            stream: Stream::Stdout,
            step: None,
            text,
            continued: false,
        };
        let far = cut_around(line(format!("{}here{}", "é".repeat(50_000), "y".repeat(50_000))), "here");
        assert!(
            far.text.starts_with('…') && far.text.contains("here") && far.text.len() < LONGEST + 300,
            "{}",
            far.text.len()
        );
        let near = cut_around(line(format!("here{}", "y".repeat(50_000))), "here");
        assert!(near.text.starts_with("here") && near.text.len() < LONGEST + 100, "{}", near.text.len());
        assert_eq!(cut_around(line("short".to_owned()), "o").text, "short");
    }
}
