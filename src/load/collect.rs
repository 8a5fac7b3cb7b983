//! Adds up what the generator's threads hand in: seconds for the series and the live view, whole histograms for the end.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::load::distribution::Distribution;
use crate::load::measure::{ErrorCount, ErrorKey, Interval, ItemDelta, OTHER_MESSAGES, SeriesDelta, Sparse, histogram};
use crate::load::report::{ErrorGroup, Exact, Latency, RequestReport, Step, failure_rate, millis};
use crate::load::schedule::{Phase, SECOND, Timeline};

/// Most groups of failures in a report.
const MAX_ERRORS: usize = 200;

/// Most steps of a series; longer tests have longer steps.
const MAX_STEPS: u64 = 3600;

/// The state of a running test, once a second.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// Since load started.
    pub elapsed: Duration,
    /// Of the whole test, without the last answers.
    pub length: Duration,
    /// Where it is.
    pub phase: Phase,
    /// The second that just ended.
    pub second: Step,
    /// What counts so far.
    pub total: Totals,
}

/// What counts so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// Sent.
    pub sent: u64,
    /// Good answers.
    pub good: u64,
    /// Failures.
    pub failed: u64,
    /// Due but not sent.
    pub dropped: u64,
    /// Failed share.
    pub failure_rate: f64,
    /// Good answers a second.
    pub rps: f64,
    /// Percentiles of good answers.
    pub p50_ms: Option<f64>,
    /// 95th.
    pub p95_ms: Option<f64>,
    /// 99th.
    pub p99_ms: Option<f64>,
}

/// A growing sum of one kind of request.
struct Sum {
    delta: ItemDelta,
    latencies: Histogram<u64>,
}

impl Sum {
    fn new() -> Self {
        Self { delta: ItemDelta::default(), latencies: histogram() }
    }

    fn add(&mut self, delta: &ItemDelta) {
        let sum = &mut self.delta;
        sum.sent += delta.sent;
        sum.good += delta.good;
        sum.good_in_time += delta.good_in_time;
        sum.failed += delta.failed;
        sum.dropped += delta.dropped;
        sum.body_bytes += delta.body_bytes;
        sum.exact = merge_exact(sum.exact, delta.exact);
        record(&mut self.latencies, &delta.latencies);
    }

    fn report(&self, name: &str, counted_seconds: f64) -> RequestReport {
        let sum = &self.delta;
        let values = self.latencies.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value()));
        RequestReport {
            name: name.to_owned(),
            sent: sum.sent,
            good: sum.good,
            failed: sum.failed,
            dropped: sum.dropped,
            failure_rate: failure_rate(sum.sent, sum.failed, sum.dropped),
            rps: per_second(sum.good_in_time, counted_seconds),
            body_bytes: sum.body_bytes,
            latency: Latency::new(Distribution::from_counts(values), sum.exact),
        }
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn merge_exact(one: Option<Exact>, other: Option<Exact>) -> Option<Exact> {
    match (one, other) {
        (Some(one), Some(other)) => {
            Some(Exact { min: one.min.min(other.min), max: one.max.max(other.max), sum: one.sum + other.sum })
        }
        (one, other) => one.or(other),
    }
}

fn record(histogram: &mut Histogram<u64>, values: &Sparse) {
    for (value, count) in values {
        histogram.saturating_record_n(*value, *count);
    }
}

fn quantile_ms(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| millis(histogram.value_at_quantile(quantile)))
}

/// A part of the series under construction.
struct Open {
    delta: SeriesDelta,
    latencies: Histogram<u64>,
    users: u32,
}

impl Open {
    fn new() -> Self {
        Self { delta: SeriesDelta::default(), latencies: histogram(), users: 0 }
    }

    fn add(&mut self, delta: &SeriesDelta) {
        self.delta.good += delta.good;
        self.delta.failed += delta.failed;
        self.delta.dropped += delta.dropped;
        record(&mut self.latencies, &delta.latencies);
    }

    fn step(&self, from: u64, length: u64, timeline: Timeline) -> Step {
        let counted = from * SECOND >= timeline.counted && (from + length) * SECOND <= timeline.end;
        Step {
            at: from as f64,
            seconds: length as f64,
            counted,
            good: self.delta.good,
            failed: self.delta.failed,
            dropped: self.delta.dropped,
            p50_ms: quantile_ms(&self.latencies, 0.5),
            p95_ms: quantile_ms(&self.latencies, 0.95),
            p99_ms: quantile_ms(&self.latencies, 0.99),
            users: self.users,
        }
    }
}

/// A second that not all threads have handed in yet.
#[derive(Default)]
struct Pending {
    all: SeriesDelta,
    users: u32,
}

/// The sums of all threads.
pub struct Collector {
    timeline: Timeline,
    items: Vec<Sum>,
    total: Sum,
    errors: HashMap<ErrorKey, ErrorCount>,
    lags: Histogram<u64>,
    own_failures: u64,
    pending: VecDeque<Pending>,
    /// The first second that is still pending.
    next: u64,
    /// By thread: the first second that it has not handed in.
    delivered: Vec<u64>,
    series: Vec<Step>,
    step_length: u64,
    step: Open,
    step_from: u64,
}

impl Collector {
    /// For so many kinds of request and threads.
    pub fn new(items: usize, threads: usize, timeline: Timeline) -> Self {
        Self {
            timeline,
            items: (0..items).map(|_| Sum::new()).collect(),
            total: Sum::new(),
            errors: HashMap::new(),
            lags: histogram(),
            own_failures: 0,
            pending: VecDeque::new(),
            next: 0,
            delivered: vec![0; threads],
            series: Vec::new(),
            step_length: (timeline.end / SECOND / MAX_STEPS + 1).max(1),
            step: Open::new(),
            step_from: 0,
        }
    }

    /// One thread's second.
    pub fn add(&mut self, thread: usize, interval: Interval) {
        let second = u64::from(interval.second);
        self.delivered[thread] = self.delivered[thread].max(second + 1);
        for (sum, delta) in self.items.iter_mut().zip(&interval.items) {
            sum.add(delta);
        }
        for delta in &interval.items {
            self.total.add(delta);
        }
        for (key, count) in interval.errors {
            self.add_error(key, count);
        }
        record(&mut self.lags, &interval.lags);
        self.own_failures += interval.own_failures;
        let Some(index) = second.checked_sub(self.next).and_then(|index| usize::try_from(index).ok()) else {
            debug_assert!(false, "second {second} was handed in after it was closed");
            return;
        };
        while self.pending.len() <= index {
            self.pending.push_back(Pending::default());
        }
        let pending = &mut self.pending[index];
        pending.all.good += interval.all.good;
        pending.all.failed += interval.all.failed;
        pending.all.dropped += interval.all.dropped;
        pending.all.latencies.extend(interval.all.latencies);
        pending.users += interval.users;
    }

    fn add_error(&mut self, mut key: ErrorKey, count: ErrorCount) {
        if self.errors.len() >= MAX_ERRORS && !self.errors.contains_key(&key) {
            key.message = OTHER_MESSAGES.to_owned();
        }
        let entry = self.errors.entry(key).or_default();
        entry.count += count.count;
        entry.example = entry.example.take().or(count.example);
    }

    /// This thread hands in nothing more.
    pub fn finish(&mut self, thread: usize) {
        self.delivered[thread] = u64::MAX;
    }

    /// The next second that all threads have handed in.
    pub fn next_tick(&mut self) -> Option<Tick> {
        if self.pending.is_empty() || self.delivered.iter().any(|delivered| *delivered <= self.next) {
            return None;
        }
        let pending = self.pending.pop_front()?;
        let mut second = Open::new();
        second.add(&pending.all);
        second.users = pending.users;
        self.step.add(&pending.all);
        self.step.users = pending.users;
        let from = self.next;
        self.next += 1;
        if self.next - self.step_from == self.step_length {
            self.close_step();
        }
        let elapsed = self.next * SECOND;
        Some(Tick {
            elapsed: Duration::from_nanos(elapsed),
            length: Duration::from_nanos(self.timeline.end),
            phase: self.timeline.phase(elapsed.saturating_sub(1)),
            second: second.step(from, 1, self.timeline),
            total: self.totals(elapsed),
        })
    }

    fn close_step(&mut self) {
        let length = self.next - self.step_from;
        if length > 0 {
            self.series.push(self.step.step(self.step_from, length, self.timeline));
        }
        self.step = Open::new();
        self.step_from = self.next;
    }

    fn totals(&self, elapsed: u64) -> Totals {
        let sum = &self.total.delta;
        let latencies = &self.total.latencies;
        Totals {
            sent: sum.sent,
            good: sum.good,
            failed: sum.failed,
            dropped: sum.dropped,
            failure_rate: failure_rate(sum.sent, sum.failed, sum.dropped),
            rps: per_second(sum.good_in_time, self.counted_seconds(elapsed)),
            p50_ms: quantile_ms(latencies, 0.5),
            p95_ms: quantile_ms(latencies, 0.95),
            p99_ms: quantile_ms(latencies, 0.99),
        }
    }

    /// How much of the counted time had passed at a moment, in seconds.
    pub fn counted_seconds(&self, at: u64) -> f64 {
        at.min(self.timeline.end).saturating_sub(self.timeline.counted) as f64 / SECOND as f64
    }

    /// How late the generator was at a quantile, in milliseconds.
    pub fn lag_ms(&self, quantile: f64) -> f64 {
        quantile_ms(&self.lags, quantile).unwrap_or(0.0)
    }

    /// Failures that are this machine's.
    pub fn own_failures(&self) -> u64 {
        self.own_failures
    }

    /// Everything at the end; `ended` is when the last thread was done.
    pub fn into_results(mut self, names: &[&str], ended: u64) -> Results {
        self.close_step();
        let is_silent = |step: &Step| step.good + step.failed + step.dropped == 0;
        if self.series.last().is_some_and(|last| is_silent(last) && last.at * SECOND as f64 >= self.timeline.end as f64)
        {
            self.series.pop();
        }
        let counted_seconds = self.counted_seconds(ended);
        let requests = self.items.iter().zip(names).map(|(sum, name)| sum.report(name, counted_seconds)).collect();
        let mut errors: Vec<ErrorGroup> = self
            .errors
            .into_iter()
            .map(|(key, count)| ErrorGroup {
                name: names.get(key.item).copied().unwrap_or_default().to_owned(),
                kind: key.kind,
                message: key.message,
                count: count.count,
                example: count.example,
            })
            .collect();
        errors.sort_by(|one, other| {
            other
                .count
                .cmp(&one.count)
                .then_with(|| (&one.name, &one.kind, &one.message).cmp(&(&other.name, &other.kind, &other.message)))
        });
        Results {
            total: self.total.report("all", counted_seconds),
            requests,
            errors,
            series: self.series,
            counted_seconds,
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// All requests.
    pub total: RequestReport,
    /// By name.
    pub requests: Vec<RequestReport>,
    /// Failures, most frequent first.
    pub errors: Vec<ErrorGroup>,
    /// The series.
    pub series: Vec<Step>,
    /// Length of the counted time.
    pub counted_seconds: f64,
}
