//! The charts of a load test: over time, by percentile, how many took how long. An earlier test may be drawn beside it.
//!
//! PURE.

use crate::load::html::put;
use crate::load::live::Live;
use crate::load::report::{Latency, LoadReport, Step, quantile_name};
use crate::load::schedule::Phase;
use crate::load::verdict::{share, show_ms};
use crate::plot::{Bar, Frame, Ink, Line, bars, lines, round_ticks, short};
use crate::words::escape;

/// Bars of the histogram.
const BARS: usize = 48;

/// Most points of a line: more than can be told apart.
const POINTS: usize = 360;

/// Most marks of a scale of seconds.
const TICKS: usize = 10;

/// Points of the line of percentiles.
const PERCENTILES: u32 = 200;

/// An earlier test that is shown beside one.
#[derive(Debug, Clone, Copy)]
pub struct Earlier<'a> {
    /// Whose it is, for people.
    pub name: &'a str,
    /// What it found.
    pub report: &'a LoadReport,
}

type Points = Vec<(f64, Option<f64>)>;

/// Long series are thinned: each point stands for its neighbours.
fn thinned(series: &[Step], of: impl Fn(&[Step]) -> Option<f64>) -> Points {
    let group = series.len().div_ceil(POINTS).max(1);
    let middle = |steps: &[Step]| {
        let length: f64 = steps.iter().map(|step| step.seconds).sum();
        steps.first().map_or(0.0, |first| first.at + length / 2.0)
    };
    series.chunks(group).map(|steps| (middle(steps), of(steps))).collect()
}

/// The mean rate.
fn rate(series: &[Step], count: fn(&Step) -> u64) -> Points {
    thinned(series, |steps| {
        let seconds: f64 = steps.iter().map(|step| step.seconds).sum();
        (seconds > 0.0).then(|| steps.iter().map(count).sum::<u64>() as f64 / seconds)
    })
}

/// The worst of the neighbours.
fn worst(series: &[Step], value: fn(&Step) -> Option<f64>) -> Points {
    thinned(series, |steps| steps.iter().filter_map(value).reduce(f64::max))
}

/// Without what came after the last whole second of load: as a rate, that would look like a dip.
fn whole(series: &[Step]) -> &[Step] {
    series.iter().rposition(|step| step.counted).map_or(series, |last| &series[..=last])
}

/// Rates and latencies by the second, warm-up included.
pub fn over_time(out: &mut String, series: &[Step], earlier: Option<Earlier<'_>>) {
    let from = series.first().map_or(0.0, |step| step.at);
    let to = series.last().map_or(1.0, |step| step.at + step.seconds);
    let shaded_to = series.iter().find(|step| step.counted).map(|step| step.at);
    let ticks: Vec<(f64, String)> =
        round_ticks(from..to.max(from + 1.0), TICKS).into_iter().map(|at| (at, format!("{at} s"))).collect();
    let frame = |label, unit| Frame { label, ticks: ticks.clone(), from, to, unit, shaded_to };
    let name = earlier.map(|earlier| (format!("good, {}", earlier.name), format!("p95, {}", earlier.name)));
    let within = |points: Points| points.into_iter().filter(|(at, _)| *at <= to).collect();
    out.push_str("<h2>Over time</h2><div class=\"charts\"><figure class=\"plot\" id=\"rates\" tabindex=\"0\"><figcaption>Answers a second</figcaption>");
    let mut answers = vec![
        Line { name: "good", ink: Ink::A, points: rate(whole(series), |step| step.good), show: per_second },
        Line { name: "failed", ink: Ink::D, points: rate(series, |step| step.failed), show: per_second },
        Line { name: "dropped", ink: Ink::C, points: rate(series, |step| step.dropped), show: per_second },
        Line {
            name: "users, or unanswered requests",
            ink: Ink::E,
            points: worst(series, |step| Some(f64::from(step.users))),
            show: short,
        },
    ];
    let mut latency = vec![
        Line { name: "p50", ink: Ink::A, points: worst(series, |step| step.p50_ms), show: show_ms },
        Line { name: "p95", ink: Ink::B, points: worst(series, |step| step.p95_ms), show: show_ms },
        Line { name: "p99", ink: Ink::C, points: worst(series, |step| step.p99_ms), show: show_ms },
    ];
    if let Some((earlier, (good, p95))) = earlier.zip(name.as_ref()) {
        let series = &earlier.report.series;
        answers.push(Line {
            name: good,
            ink: Ink::F,
            points: within(rate(whole(series), |step| step.good)),
            show: per_second,
        });
        latency.push(Line { name: p95, ink: Ink::F, points: within(worst(series, |step| step.p95_ms)), show: show_ms });
    }
    out.push_str(&lines(&frame("answers a second over time", "/s"), &answers, second));
    out.push_str("</figure><figure class=\"plot\" id=\"latencies\" tabindex=\"0\"><figcaption>Latency of good answers</figcaption>");
    out.push_str(&lines(&frame("latency percentiles over time", "ms"), &latency, second));
    out.push_str("</figure></div>");
    if shaded_to.is_some_and(|to| to > from) {
        out.push_str("<p class=\"quiet\">The grey part is the warm-up: it does not count.</p>");
    }
    if let Some(earlier) = earlier.filter(|earlier| length(&earlier.report.series) + 1.0 < to) {
        let name = escape(earlier.name);
        put(out, format_args!("<p class=\"quiet\">The test of {name} was a shorter one.</p>"));
    }
}

/// When a series ends, in seconds.
fn length(series: &[Step]) -> f64 {
    series.last().map_or(0.0, |step| step.at + step.seconds)
}

fn per_second(value: f64) -> String {
    format!("{value:.1}/s")
}

/// When.
fn second(at: f64) -> String {
    format!("at {} s", at.round())
}

/// Latencies by percentile on a logarithmic scale, and a histogram.
pub fn distribution(out: &mut String, latency: &Latency, earlier: Option<Earlier<'_>>) {
    if latency.buckets.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Latency</h2><div class=\"charts\"><figure class=\"plot\" id=\"percentiles\" tabindex=\"0\"><figcaption>By percentile: the further right, the rarer</figcaption>",
    );
    // From 0 % on, each nine is one step to the right.
    let rarest = |latency: &Latency| (latency.count as f64).log10().clamp(1.0, 6.0);
    let end = rarest(latency);
    let place = |quantile: f64| -(1.0 - quantile).log10();
    let points = |latency: &Latency| -> Points {
        let own = rarest(latency).min(end);
        let at = |n: u32| own * f64::from(n) / f64::from(PERCENTILES);
        (0..=PERCENTILES).map(|n| (at(n), latency.quantile_ms(1.0 - 10f64.powf(-at(n))))).collect()
    };
    let marks = [0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999, 0.99999, 0.999_999];
    let frame = Frame {
        label: "latency by percentile, on a logarithmic scale",
        ticks: marks.iter().filter(|q| place(**q) <= end + 1e-9).map(|q| (place(*q), quantile_name(*q))).collect(),
        from: 0.0,
        to: end,
        unit: "ms",
        shaded_to: None,
    };
    let mut all = vec![Line { name: "all good answers", ink: Ink::A, points: points(latency), show: show_ms }];
    if let Some(earlier) = earlier.filter(|earlier| !earlier.report.total.latency.buckets.is_empty()) {
        all.push(Line {
            name: earlier.name,
            ink: Ink::F,
            points: points(&earlier.report.total.latency),
            show: show_ms,
        });
    }
    out.push_str(&lines(&frame, &all, percentile));
    out.push_str("</figure><figure class=\"plot\" id=\"histogram\" tabindex=\"0\"><figcaption>How many took how long (logarithmic scale)</figcaption>");
    out.push_str(&histogram(latency));
    out.push_str("</figure></div>");
}

/// The percentile at a place, with a digit more than it has nines.
fn percentile(at: f64) -> String {
    let digits = 10f64.powf(at.floor() + 2.0);
    quantile_name(((1.0 - 10f64.powf(-at)) * digits).floor() / digits)
}

/// A test under way: how far it is, its numbers so far, and its seconds.
pub fn under_way(live: &Live) -> String {
    let mut out = String::with_capacity(16 * 1024);
    let Some(tick) = &live.tick else {
        out.push_str("<p class=\"quiet\">One request of each kind is tried first; then load begins.</p>");
        return out;
    };
    let ms = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), show_ms);
    let (elapsed, length) = (tick.elapsed.min(tick.length).as_secs(), tick.length.as_secs().max(1));
    put(
        &mut out,
        format_args!(
            "<p><progress max=\"{length}\" value=\"{elapsed}\" aria-label=\"How far the test is\"></progress></p>"
        ),
    );
    put(&mut out, format_args!("<p class=\"quiet\">{elapsed} of {length} s"));
    let phase = match tick.phase {
        Phase::RampUp => ": load grows, nothing counts yet",
        Phase::WarmUp => ": warm-up, which does not count",
        Phase::Counting => "",
        Phase::Draining => ": the last answers are awaited",
    };
    put(&mut out, format_args!("{phase}</p>"));
    let total = &tick.total;
    out.push_str("<dl class=\"figures\">");
    for (name, value) in [
        ("requests/s", format!("{:.1}", total.rps)),
        ("failed", share(total.failure_rate)),
        ("p50", ms(total.p50_ms)),
        ("p95", ms(total.p95_ms)),
        ("requests", total.sent.to_string()),
        ("users", tick.second.users.to_string()),
    ] {
        put(&mut out, format_args!("<div><dt>{name}</dt><dd>{value}</dd></div>"));
    }
    out.push_str("</dl>");
    let series: Vec<Step> = live.series.iter().cloned().collect();
    over_time(&mut out, &series, None);
    out
}

fn histogram(latency: &Latency) -> String {
    let micros = |value: Option<u64>| (value.unwrap_or(1).max(1) as f64).log10();
    let (low, high) = (micros(latency.buckets.min()) - 0.01, micros(latency.buckets.max()) + 0.01);
    let width = (high - low) / BARS as f64;
    let mut counts = [0u64; BARS];
    for (value, count) in latency.buckets.buckets() {
        let index = ((micros(Some(*value)) - low) / width) as usize;
        counts[index.min(BARS - 1)] += count;
    }
    let ms = |place: f64| show_ms(10f64.powf(place) / 1000.0);
    let bar = |(index, count): (usize, &u64)| {
        let (from, to) = (low + width * index as f64, low + width * (index + 1) as f64);
        let title = format!("{} to {}: {count}", ms(from), ms(to));
        Bar { from, to, height: *count as f64, title }
    };
    let all: Vec<Bar> = counts.iter().enumerate().map(bar).collect();
    let ticks = (0..=6).map(|n| low + (high - low) * f64::from(n) / 6.0).map(|at| (at, ms(at))).collect();
    bars(&Frame { label: "histogram of latencies", ticks, from: low, to: high, unit: "", shaded_to: None }, &all)
}
