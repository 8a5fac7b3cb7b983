//! One test binary; one file a promise that users see.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod api;
mod architecture;
mod artifacts;
mod config;
mod daemon;
mod daemon_cli;
mod daemon_disk;
mod daemon_forks;
mod deployment;
mod docker_run;
mod docker_runner;
mod engine_faults;
mod full_disk;
mod git_server;
mod github_model;
mod harness;
mod hostile;
mod hostile_data;
mod hostile_servers;
mod images;
mod kill;
mod language;
mod load;
mod locust;
mod logs;
mod mirror_daemon;
mod mirror_http;
mod mirror_ssh;
mod model;
mod pages;
mod provider_model;
mod redeploy;
mod reports;
mod retention;
mod run;
mod runner_contract;
mod runner_local;
mod s3;
mod secrets;
mod served;
mod sessions;
mod sign_in;
mod streams;
mod triggers;
