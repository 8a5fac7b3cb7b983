//! One test binary; one file a promise that users see.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod architecture;
mod artifacts;
mod config;
mod daemon_cli;
mod deployment;
mod docker_run;
mod docker_runner;
mod harness;
mod hostile;
mod images;
mod kill;
mod language;
mod load;
mod logs;
mod model;
mod run;
mod runner_contract;
mod runner_local;
mod s3;
mod secrets;
mod triggers;
