//! A load test under way, as it goes.

use prometheus::{Error, GaugeVec, IntCounterVec, IntGaugeVec};

use super::make::Maker;
use super::{Metrics, prune};

/// The second of a load test that just ended.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LoadFigures {
    /// Good answers.
    pub good: u64,
    /// Failures.
    pub failed: u64,
    /// Due but not sent.
    pub dropped: u64,
    /// Its length in seconds.
    pub seconds: f64,
    /// Users, or unanswered requests.
    pub users: u32,
    /// Percentiles in milliseconds, where there were good answers.
    pub p50_ms: Option<f64>,
    /// 95th.
    pub p95_ms: Option<f64>,
    /// 99th.
    pub p99_ms: Option<f64>,
}

/// The families of load tests.
#[derive(Debug)]
pub(super) struct LoadFamilies {
    requests: IntCounterVec,
    rate: GaugeVec,
    failures: GaugeVec,
    users: IntGaugeVec,
    p50: GaugeVec,
    p95: GaugeVec,
    p99: GaugeVec,
}

impl LoadFamilies {
    pub(super) fn new(m: &mut Maker) -> Result<Self, Error> {
        let labels: &[&str] = &["project", "pipeline", "stage"];
        Ok(Self {
            requests: m.counters(
                "orchestrator_loadtest_requests_total",
                &["project", "pipeline", "stage", "result"],
                "Requests of the built-in load generator, warm-up included, by result: good, failed, dropped (due but not sent).",
            )?,
            rate: m.reals(
                "orchestrator_loadtest_good_per_second",
                labels,
                "Good answers a second, in the last second of a load test under way. Like all gauges of load tests it is there only while one runs.",
            )?,
            failures: m.reals(
                "orchestrator_loadtest_failure_ratio",
                labels,
                "Failed and dropped share of the requests of the last second, 0 to 1.",
            )?,
            users: m.gauges(
                "orchestrator_loadtest_users",
                labels,
                "Users at work; in a test with a fixed rate, requests without an answer yet.",
            )?,
            p50: m.reals("orchestrator_loadtest_latency_median_seconds", labels, "Median of the last second's good answers.")?,
            p95: m.reals("orchestrator_loadtest_latency_p95_seconds", labels, "95th percentile of the last second's good answers.")?,
            p99: m.reals("orchestrator_loadtest_latency_p99_seconds", labels, "99th percentile of the last second's good answers.")?,
        })
    }

    pub(super) fn keep_projects(&self, stays: &dyn Fn(&str) -> bool) {
        prune(&self.requests, stays);
        prune(&self.users, stays);
        for family in [&self.rate, &self.failures, &self.p50, &self.p95, &self.p99] {
            prune(family, stays);
        }
    }
}

/// The series of one load test. Its gauges go when it is dropped.
#[derive(Debug)]
pub struct LoadSeries<'a> {
    metrics: &'a Metrics,
    labels: [String; 3],
}

impl Metrics {
    /// A load test begins.
    pub fn load_test(&self, project: &str, pipeline: &str, stage: &str) -> LoadSeries<'_> {
        let (pipeline, stage) = self.bounded(project, pipeline, stage);
        let labels = [project.to_owned(), pipeline, stage];
        for result in ["good", "failed", "dropped"] {
            self.load.requests.with_label_values(&[&labels[0], &labels[1], &labels[2], result]);
        }
        LoadSeries { metrics: self, labels }
    }
}

impl LoadSeries<'_> {
    /// Another second.
    pub fn tick(&self, figures: &LoadFigures) {
        let families = &self.metrics.load;
        let [project, pipeline, stage] = &self.labels;
        for (result, count) in [("good", figures.good), ("failed", figures.failed), ("dropped", figures.dropped)] {
            families.requests.with_label_values(&[project, pipeline, stage, result]).inc_by(count);
        }
        let bad = figures.failed + figures.dropped;
        let all = figures.good + bad;
        if figures.seconds > 0.0 {
            families.rate.with_label_values(&self.labels).set(figures.good as f64 / figures.seconds);
        }
        families.failures.with_label_values(&self.labels).set(if all > 0 { bad as f64 / all as f64 } else { 0.0 });
        families.users.with_label_values(&self.labels).set(i64::from(figures.users));
        let percentiles =
            [(&families.p50, figures.p50_ms), (&families.p95, figures.p95_ms), (&families.p99, figures.p99_ms)];
        for (family, ms) in percentiles {
            match ms {
                Some(ms) => family.with_label_values(&self.labels).set(ms / 1000.0),
                // No good answer in this second: an old value would tell a lie.
                None => drop(family.remove_label_values(&self.labels)),
            }
        }
    }
}

impl Drop for LoadSeries<'_> {
    fn drop(&mut self) {
        let families = &self.metrics.load;
        for family in [&families.rate, &families.failures, &families.p50, &families.p95, &families.p99] {
            // One that had no tick has none.
            let _ = family.remove_label_values(&self.labels);
        }
        let _ = families.users.remove_label_values(&self.labels);
    }
}
