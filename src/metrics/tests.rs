use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::*;

fn text(metrics: &Metrics) -> String {
    metrics.render().unwrap()
}

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == page(), "renew it by: UPDATE_DOCS=1 cargo test --lib metrics::");
}

#[test]
fn names_follow_the_conventions() {
    for family in Metrics::default().families() {
        let name = family.name;
        assert!(name.starts_with("orchestrator_") || name.starts_with("process_"), "{name}");
        assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name}");
        assert!(family.kind != "histogram" || name.ends_with("_seconds"), "{name}");
        assert!(family.help.ends_with('.') && !family.help.contains('|'), "{name}: {}", family.help);
        for label in family.labels {
            let known =
                ["project", "pipeline", "stage", "kind", "result", "source", "runner", "model", "metric", "version"];
            assert!(known.contains(label), "{name}: {label}");
        }
    }
}

#[test]
fn series_of_removed_projects_go() {
    let metrics = Metrics::default();
    for project in ["stays", "goes"] {
        metrics.known_project(project);
        metrics.trigger(project, "poll", "started");
        metrics.look(project, true, Duration::from_millis(3));
        metrics.promotion(project, "m", "promoted");
        metrics.load_test(project, "p", "s").tick(&LoadFigures { good: 5, seconds: 1.0, ..LoadFigures::default() });
    }
    assert!(text(&metrics).contains("project=\"goes\""));
    metrics.keep_projects(&|project| project == "stays");
    let text = text(&metrics);
    assert!(!text.contains("goes"), "{text}");
    assert!(
        text.contains("orchestrator_triggers_total{project=\"stays\",result=\"started\",source=\"poll\"} 1"),
        "{text}"
    );
}

#[test]
fn gauges_of_a_load_test_go_with_it_and_its_counters_stay() {
    let metrics = Metrics::default();
    let series = metrics.load_test("a", "p", "s");
    let second = LoadFigures { good: 30, failed: 10, seconds: 2.0, p95_ms: Some(250.0), ..LoadFigures::default() };
    series.tick(&second);
    let labels = "{pipeline=\"p\",project=\"a\",stage=\"s\"}";
    let shown = text(&metrics);
    for line in [
        format!("orchestrator_loadtest_good_per_second{labels} 15"),
        format!("orchestrator_loadtest_failure_ratio{labels} 0.25"),
        format!("orchestrator_loadtest_latency_p95_seconds{labels} 0.25"),
    ] {
        assert!(shown.contains(&line), "{line}\n{shown}");
    }
    assert!(!shown.contains("orchestrator_loadtest_latency_p99_seconds{"), "no answer, no percentile");
    series.tick(&LoadFigures { failed: 1, seconds: 1.0, ..LoadFigures::default() });
    assert!(!text(&metrics).contains("orchestrator_loadtest_latency_p95_seconds{"), "an old percentile stays");
    drop(series);
    let shown = text(&metrics);
    assert!(!shown.contains("orchestrator_loadtest_good_per_second{"), "{shown}");
    assert!(shown.contains("result=\"failed\",stage=\"s\"} 11"), "{shown}");
}

#[test]
fn names_beyond_the_bound_are_counted_together() {
    let metrics = Metrics::default();
    for number in 0..COMBINATIONS + 50 {
        let (pipeline, stage) = metrics.bounded("p", &format!("pipeline-{number}"), "s");
        let expected = if number < COMBINATIONS { format!("pipeline-{number}") } else { OTHER.to_owned() };
        assert_eq!((pipeline, stage == OTHER), (expected, number >= COMBINATIONS));
    }
    assert_eq!(metrics.bounded("p", "pipeline-3", "s").0, "pipeline-3");
}

#[test]
fn a_champion_that_changes_leaves_no_old_metric() {
    let metrics = Metrics::default();
    let champion = |version, name: &str| Champion {
        model: "m".to_owned(),
        version,
        metrics: BTreeMap::from([(name.to_owned(), 0.5)]),
    };
    metrics.champions(&[champion(1, "old")]);
    metrics.champions(&[champion(2, "new")]);
    let shown = text(&metrics);
    assert!(shown.contains("orchestrator_model_champion_version{model=\"m\"} 2"), "{shown}");
    assert!(shown.contains("metric=\"new\"") && !shown.contains("metric=\"old\""), "{shown}");
    metrics.champions(&[]);
    assert!(!text(&metrics).contains("model=\"m\""));
}

#[test]
fn waiting_builds_go_back_to_none() {
    let metrics = Metrics::default();
    metrics.waiting(["a", "a", "b"].into_iter());
    metrics.waiting(["b"].into_iter());
    let shown = text(&metrics);
    assert!(shown.contains("orchestrator_builds_waiting{project=\"a\"} 0"), "{shown}");
    assert!(shown.contains("orchestrator_builds_waiting{project=\"b\"} 1"), "{shown}");
}
