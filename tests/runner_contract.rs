//! The contract that every runner keeps, as one list of cases run against each of them.

mod bench;
mod cases;

use std::path::Path;

use orchestrator::runner::Runner;
use orchestrator::runner::docker::{DockerRunner, DockerSettings};
use orchestrator::runner::local::{LocalRunner, LocalSettings};

use crate::images;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_docker_runner_keeps_the_contract() {
    let instance = format!("contract-{}", std::process::id());
    let Some(runner) = images::engine(&instance).await else { return };
    let image = images::busybox(&runner).await;
    let restart = || {
        let connect = DockerRunner::connect(DockerSettings::new(&instance));
        let again = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(connect));
        Box::new(again.expect("there was an engine")) as Box<dyn Runner>
    };
    contract(&runner, Some(&image), &restart).await;
}
