//! One test binary; one file a promise that users see.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod architecture;
mod config;
mod docker_runner;
mod harness;
mod images;
mod kill;
mod language;
mod load;
mod model;
mod run;
mod runner_contract;
mod runner_local;
