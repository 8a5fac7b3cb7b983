//! The page in `docs/` about all families.

use std::fmt::Write;

use super::Metrics;

/// The whole page.
pub fn page() -> String {
    let mut text = String::from(HEAD);
    for family in Metrics::default().families() {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        // A text grows; it does not fail.
        let _ = writeln!(text, "| `{}` | {} | {} | {} |", family.name, family.kind, labels.join(", "), family.help);
    }
    text.push_str(TAIL);
    text
}

const HEAD: &str = "<!-- Made from src/metrics/. Renew it by: UPDATE_DOCS=1 cargo test --lib metrics:: -->

# Metrics

`orchestrator serve` answers `GET /metrics` in Prometheus's text format: on `server.listen`, or alone with `/healthz` on
`metrics.listen` if that is set. `metrics.enabled = false` switches it off.

**No token is needed**: it tells names of projects, pipelines, stages and models, and numbers. Where those are secret, give it an
address of its own that only Prometheus reaches:

```toml
[metrics]
listen = \"127.0.0.1:9464\"
```

There it answers to whatever name it is asked by. On `server.listen`, a daemon with `auth.mode = \"none\"` tells it to the names of its own machine and of
`server.public_url` alone.

Counters begin at 0 with each start, as `rate()` and `increase()` expect. Times are in seconds, sizes in bytes. The series of a
project that is removed from the configuration go with it. More than 2000 combinations of project, pipeline and stage are counted
together under the name `other`.

`deploy/` has a compose file with Prometheus and Grafana, alert rules, and a dashboard.

| name | kind | labels | meaning |
|---|---|---|---|
";

const TAIL: &str = "
The gauges of load tests are there only while one runs, and only for the built-in generator: Locust and k6 tell their figures at
their end, which the build's report shows. Decisions that a person makes (promote, reject, roll back) are not counted in
`orchestrator_promotions_total`, but the champion's gauges follow them within half a minute.
";
