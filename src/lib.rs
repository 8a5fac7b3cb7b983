//! CI/CD for machine-learning teams. The modules, in the order in which things happen.
//!
//! The rooms and the one way of the data are described in `ARCHITECTURE.md`.

pub mod ids;

pub mod words;

pub mod pipeline;

pub mod trigger;

pub mod build;

pub mod judge;

pub mod store;

pub mod source;

pub mod runner;

pub mod logs;

pub mod artifact;

/// Connections of HTTP servers, with bounds.
pub mod listen;
pub mod load;

pub mod model;

pub mod deploy;

pub mod forge;

pub mod metrics;

pub mod plot;

pub mod report;

pub mod engine;

pub mod clock;
pub mod config;

pub mod daemon;

pub mod web;

pub mod client;

pub mod cli;
