//! Makes families of numbers, registers them, and notes what the page in `docs/` says of them.

use prometheus::core::Collector;
use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

/// A family as the page describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it tells, with its unit.
    pub help: &'static str,
}

/// Seconds of waits, builds and stages: from a tenth of a second to half a day.
pub const LONG: &[f64] =
    &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 43200.0];
/// Seconds of answers and commits: from half a millisecond to ten seconds.
pub const SHORT: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

type Labels = &'static [&'static str];

/// Makes families of one registry.
#[derive(Debug, Default)]
pub struct Maker {
    /// Where they are registered.
    pub registry: Registry,
    /// What was made.
    pub families: Vec<Family>,
}

impl Maker {
    fn add<T: Collector + Clone + 'static>(&mut self, made: T, family: Family) -> Result<T, Error> {
        self.registry.register(Box::new(made.clone()))?;
        self.families.push(family);
        Ok(made)
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &'static str, help: &'static str) -> Result<IntCounter, Error> {
        let family = Family { name, kind: "counter", labels: &[], help };
        self.add(IntCounter::new(name, help)?, family)
    }

    /// Counters by labels.
    pub fn counters(&mut self, name: &'static str, labels: Labels, help: &'static str) -> Result<IntCounterVec, Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?, Family { name, kind: "counter", labels, help })
    }

    /// A whole number that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> Result<IntGauge, Error> {
        let family = Family { name, kind: "gauge", labels: &[], help };
        self.add(IntGauge::new(name, help)?, family)
    }

    /// A number that goes up and down.
    pub fn real(&mut self, name: &'static str, help: &'static str) -> Result<Gauge, Error> {
        let family = Family { name, kind: "gauge", labels: &[], help };
        self.add(Gauge::new(name, help)?, family)
    }

    /// Whole numbers by labels.
    pub fn gauges(&mut self, name: &'static str, labels: Labels, help: &'static str) -> Result<IntGaugeVec, Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?, Family { name, kind: "gauge", labels, help })
    }

    /// Numbers by labels.
    pub fn reals(&mut self, name: &'static str, labels: Labels, help: &'static str) -> Result<GaugeVec, Error> {
        self.add(GaugeVec::new(Opts::new(name, help), labels)?, Family { name, kind: "gauge", labels, help })
    }

    /// A histogram without labels.
    pub fn times(&mut self, name: &'static str, buckets: &[f64], help: &'static str) -> Result<Histogram, Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(options)?, Family { name, kind: "histogram", labels: &[], help })
    }

    /// Histograms by labels.
    pub fn times_by(
        &mut self,
        name: &'static str,
        labels: Labels,
        buckets: &[f64],
        help: &'static str,
    ) -> Result<HistogramVec, Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(HistogramVec::new(options, labels)?, Family { name, kind: "histogram", labels, help })
    }
}
