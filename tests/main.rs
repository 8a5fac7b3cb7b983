//! One test binary; one module for each promise.

mod docker_runner;
mod images;
