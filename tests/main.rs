//! One test binary; one file a promise that users see.

mod architecture;
mod harness;
mod kill;
mod language;
mod run;
mod runner_contract;
mod runner_local;
//! One test binary; one module for each promise.

mod docker_runner;
mod images;
