//! One test binary; one file a promise that users see.

mod architecture;
mod docker_runner;
mod harness;
mod images;
mod kill;
mod language;
mod run;
mod runner_contract;
mod runner_local;
mod load;
