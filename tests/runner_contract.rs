//! The contract that every runner keeps, as one list of cases run against each of them.

mod bench;
mod cases;

use std::path::Path;

use orchestrator::runner::Runner;
use orchestrator::runner::local::{LocalRunner, LocalSettings};

pub use bench::{Bench, read_all, read_until, spec, steps};

/// Runs all cases. `restart_runner` makes a further value of the same runner, as after a restart of the program.
pub async fn contract(runner: &dyn Runner, image: Option<&str>, restart_runner: &dyn Fn() -> Box<dyn Runner>) {
    let instance = format!("contract-{}", std::process::id());
    let bench = Bench { runner, image: image.map(str::to_owned), restart: restart_runner, instance };
    for (name, case) in cases::CASES {
        println!("{}: {name}", runner.kind());
        case(&bench).await;
    }
    let left: Vec<_> = bench.own_units(runner).await;
    assert!(left.is_empty(), "the cases remove what they make: {left:?}");
}

/// A local runner over this folder.
pub fn local_runner(root: &Path) -> LocalRunner {
    let settings = LocalSettings {
        root: root.to_owned(),
        instance: "contract".to_owned(),
        program: env!("CARGO_BIN_EXE_orchestrator").into(),
    };
    LocalRunner::new(settings).expect("a local runner")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_runner_keeps_the_contract() {
    let root = tempfile::tempdir().expect("folder");
    let restart = || Box::new(local_runner(root.path())) as Box<dyn Runner>;
    contract(&local_runner(root.path()), None, &restart).await;
}

/// The Docker runner with a local image that has a shell, where there is an engine.
fn docker_runner() -> Option<(Box<dyn Runner>, String)> {
    let required = std::env::var_os("ORCHESTRATOR_TEST_REQUIRE_DOCKER").is_some_and(|value| value == "1");
    assert!(!required, "ORCHESTRATOR_TEST_REQUIRE_DOCKER=1, but there is no Docker engine");
    println!("skipped: no Docker engine");
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_docker_runner_keeps_the_contract() {
    let Some((runner, image)) = docker_runner() else { return };
    let restart = || docker_runner().expect("there was one").0;
    contract(&*runner, Some(&image), &restart).await;
}
