//! What a generator thread writes down: counts and histograms of the running second, handed out once a second.
//!
//! One recorder for each thread, so nothing is shared and nothing is locked; [`crate::load::collect`] adds them up. No
//! clock here: every moment is given, as nanoseconds since load started.

use std::collections::{HashMap, VecDeque};

use hdrhistogram::Histogram;

use crate::load::report::Exact;
use crate::load::schedule::{SECOND, Timeline};

/// Longest latency that is told apart, in microseconds: an hour. Longer ones count as this.
pub const LONGEST: u64 = 3600 * 1_000_000;

/// Different failures that one thread keeps in one second; the rest is counted under their kind alone.
const ERRORS_A_SECOND: usize = 64;

/// An empty latency histogram: 1 microsecond to [`LONGEST`], within 0.1 %.
pub fn histogram<T: hdrhistogram::Counter>() -> Histogram<T> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("constant bounds are valid")
}

/// Values with their counts: a histogram without its empty places.
pub type Sparse = Vec<(u64, u64)>;

/// What is known of failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ErrorKey {
    /// Which request.
    pub item: usize,
    /// A few words: `status 500`, `timeout`.
    pub kind: String,
    /// What was wrong, alike for like failures.
    pub message: String,
}

/// How often, and the first one in full.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorCount {
    /// How often.
    pub count: u64,
    /// The beginning of the answer, or the error.
    pub example: Option<String>,
}

/// One thread's account of one second.
#[derive(Debug, Clone, Default)]
pub struct Interval {
    /// Which second since load started.
    pub second: u32,
    /// By request: only what counts.
    pub items: Vec<ItemDelta>,
    /// Everything that ended in this second, counted or not.
    pub all: SeriesDelta,
    /// Failures that count.
    pub errors: Vec<(ErrorKey, ErrorCount)>,
    /// How late the generator was, in microseconds, while counting.
    pub lags: Sparse,
    /// Failures that are this machine's.
    pub own_failures: u64,
    /// Users or unanswered requests at the end.
    pub users: u32,
}

/// What counts of one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ItemDelta {
    /// Sent.
    pub sent: u64,
    /// Good answers.
    pub good: u64,
    /// Good answers that came before the end of the counted time, whenever they were sent.
    pub good_in_time: u64,
    /// Failures.
    pub failed: u64,
    /// Due but not sent.
    pub dropped: u64,
    /// Bytes of bodies.
    pub body_bytes: u64,
    /// Latencies of good answers in microseconds.
    pub latencies: Sparse,
    /// Their exact extremes and sum.
    pub exact: Option<Exact>,
}

/// What ended in one second.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeriesDelta {
    /// Good answers.
    pub good: u64,
    /// Failures.
    pub failed: u64,
    /// Dropped.
    pub dropped: u64,
    /// Latencies of good answers.
    pub latencies: Sparse,
}

/// One request's course.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Which request.
    pub item: usize,
    /// When it was due (open model) or sent (closed model).
    pub due: u64,
    /// When its answer was whole, or it failed.
    pub done: u64,
}

struct Item {
    delta: ItemDelta,
    latencies: Histogram<u32>,
}

/// A thread's book.
pub struct Recorder {
    timeline: Timeline,
    second: u32,
    /// When the running second ends.
    boundary: u64,
    items: Vec<Item>,
    all: SeriesDelta,
    all_latencies: Histogram<u32>,
    errors: HashMap<ErrorKey, ErrorCount>,
    lags: Histogram<u32>,
    own_failures: u64,
    users: u32,
    full: VecDeque<Interval>,
}

impl Recorder {
    /// For so many kinds of request.
    pub fn new(items: usize, timeline: Timeline) -> Self {
        let item = || Item { delta: ItemDelta::default(), latencies: histogram() };
        Self {
            timeline,
            second: 0,
            boundary: SECOND,
            items: (0..items).map(|_| item()).collect(),
            all: SeriesDelta::default(),
            all_latencies: histogram(),
            errors: HashMap::new(),
            lags: histogram(),
            own_failures: 0,
            users: 0,
            full: VecDeque::new(),
        }
    }

    /// A request goes out.
    pub fn sent(&mut self, item: usize, due: u64) {
        if self.timeline.counts(due) {
            self.items[item].delta.sent += 1;
        }
    }

    /// A request was due while too many were unanswered.
    pub fn dropped(&mut self, item: usize, due: u64) {
        self.advance(due);
        self.all.dropped += 1;
        if self.timeline.counts(due) {
            self.items[item].delta.dropped += 1;
        }
    }

    /// A good answer.
    pub fn good(&mut self, timing: Timing, body_bytes: u64) {
        self.advance(timing.done);
        let micros = (timing.done.saturating_sub(timing.due) / 1000).clamp(1, LONGEST);
        self.all.good += 1;
        self.all_latencies.saturating_record(micros);
        let item = &mut self.items[timing.item];
        if self.timeline.counts(timing.done) {
            item.delta.good_in_time += 1;
        }
        if self.timeline.counts(timing.due) {
            item.delta.good += 1;
            item.delta.body_bytes += body_bytes;
            item.latencies.saturating_record(micros);
            let exact = item.delta.exact.get_or_insert(Exact { min: micros, max: micros, sum: 0 });
            exact.min = exact.min.min(micros);
            exact.max = exact.max.max(micros);
            exact.sum += u128::from(micros);
        }
    }

    /// A bad answer or none.
    pub fn failed(&mut self, timing: Timing, kind: &str, message: &str, example: &dyn Fn() -> Option<String>) {
        self.advance(timing.done);
        self.all.failed += 1;
        if !self.timeline.counts(timing.due) {
            return;
        }
        self.items[timing.item].delta.failed += 1;
        let mut key = ErrorKey { item: timing.item, kind: kind.to_owned(), message: message.to_owned() };
        if self.errors.len() >= ERRORS_A_SECOND && !self.errors.contains_key(&key) {
            key.message = OTHER_MESSAGES.to_owned();
        }
        let entry = self.errors.entry(key).or_insert_with(|| ErrorCount { count: 0, example: example() });
        entry.count += 1;
    }

    /// A failure was this machine's own.
    pub fn own_failure(&mut self) {
        self.own_failures += 1;
    }

    /// The generator did something that was due at `due` only at `now`.
    pub fn lag(&mut self, due: u64, now: u64) {
        if self.timeline.counts(due) {
            self.lags.saturating_record((now.saturating_sub(due) / 1000).max(1));
        }
    }

    /// Users that send, or unanswered requests.
    pub fn users(&mut self) -> &mut u32 {
        &mut self.users
    }

    /// Closes every second that ended by now.
    pub fn advance(&mut self, now: u64) {
        while now >= self.boundary {
            self.close();
        }
    }

    /// The next closed second.
    pub fn take(&mut self) -> Option<Interval> {
        self.full.pop_front()
    }

    /// Closes the running second too, at the end.
    pub fn finish(&mut self) {
        self.close();
    }

    fn close(&mut self) {
        let items = self.items.iter_mut().map(|item| {
            let mut delta = std::mem::take(&mut item.delta);
            delta.latencies = drain(&mut item.latencies);
            delta
        });
        let mut interval = Interval {
            second: self.second,
            items: items.collect(),
            all: std::mem::take(&mut self.all),
            errors: self.errors.drain().collect(),
            lags: drain(&mut self.lags),
            own_failures: std::mem::take(&mut self.own_failures),
            users: self.users,
        };
        interval.all.latencies = drain(&mut self.all_latencies);
        self.full.push_back(interval);
        self.second += 1;
        self.boundary += SECOND;
    }
}

/// The message of failures beyond those that are told apart.
pub const OTHER_MESSAGES: &str = "(further messages)";

fn drain(histogram: &mut Histogram<u32>) -> Sparse {
    if histogram.is_empty() {
        return Vec::new();
    }
    let values =
        histogram.iter_recorded().map(|value| (value.value_iterated_to(), u64::from(value.count_at_value()))).collect();
    histogram.reset();
    values
}

/// Makes like failures alike: the first line, at most 160 characters, each run of digits as `#`.
pub fn normalise(text: &str) -> String {
    let mut out = String::new();
    let mut digits = false;
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    for c in line.trim().chars().take(160) {
        if c.is_ascii_digit() {
            if !digits {
                out.push('#');
            }
        } else {
            out.push(if c.is_control() { ' ' } else { c });
        }
        digits = c.is_ascii_digit();
    }
    if line.trim().chars().nth(160).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn recorder() -> Recorder {
        let timeline = Timeline::new(Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2));
        Recorder::new(1, timeline)
    }

    fn timing(due: u64, done: u64) -> Timing {
        Timing { item: 0, due: due * 1_000_000, done: done * 1_000_000 }
    }

    fn all(mut recorder: Recorder) -> Vec<Interval> {
        recorder.finish();
        std::iter::from_fn(move || recorder.take()).collect()
    }

    #[test]
    fn only_what_is_due_in_the_counted_time_counts() {
        let mut recorder = recorder();
        for due in [500, 1000, 2999, 3000] {
            recorder.sent(0, due * 1_000_000);
        }
        recorder.good(timing(500, 600), 7);
        recorder.good(timing(1000, 1010), 7);
        recorder.good(timing(2999, 3500), 7);
        let intervals = all(recorder);
        assert_eq!(intervals.len(), 4);
        let sum =
            |field: fn(&ItemDelta) -> u64| intervals.iter().map(|interval| field(&interval.items[0])).sum::<u64>();
        assert_eq!(sum(|item| item.sent), 2);
        assert_eq!(sum(|item| item.good), 2);
        assert_eq!(sum(|item| item.good_in_time), 1);
        assert_eq!(sum(|item| item.body_bytes), 14);
        let ended: Vec<u64> = intervals.iter().map(|interval| interval.all.good).collect();
        assert_eq!(ended, [1, 1, 0, 1]);
        assert_eq!(intervals[3].items[0].exact, Some(Exact { min: 501_000, max: 501_000, sum: 501_000 }));
    }

    #[test]
    fn silent_seconds_are_there() {
        let mut recorder = recorder();
        recorder.advance(5 * SECOND);
        let seconds: Vec<u32> = std::iter::from_fn(|| recorder.take()).map(|interval| interval.second).collect();
        assert_eq!(seconds, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn like_failures_are_one_and_unlike_ones_are_bounded() {
        let mut recorder = recorder();
        let example = || Some("the body".to_owned());
        for _ in 0..3 {
            recorder.failed(timing(1500, 1501), "status 500", "oops", &example);
        }
        for number in 0..500 {
            recorder.failed(timing(1500, 1501), "status 500", &format!("other {number}"), &example);
        }
        let errors = all(recorder).swap_remove(1).errors;
        assert_eq!(errors.len(), ERRORS_A_SECOND + 1);
        assert_eq!(errors.iter().map(|(_, count)| count.count).sum::<u64>(), 503);
        let same = errors.iter().find(|(key, _)| key.message == "oops").unwrap();
        assert_eq!(same.1, ErrorCount { count: 3, example: Some("the body".to_owned()) });
    }

    #[test]
    fn messages_lose_what_differs() {
        for (text, expected) in [
            ("no such player: 4711", "no such player: #"),
            ("\n  {\"id\":12,\"at\":1.5}\nmore", "{\"id\":#,\"at\":#.#}"),
            ("", ""),
            ("a\u{1b}b", "a b"),
        ] {
            assert_eq!(normalise(text), expected, "{text:?}");
        }
        assert_eq!(normalise(&"x".repeat(1000)), format!("{}…", "x".repeat(160)));
    }
}
