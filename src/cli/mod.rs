//! (being built)

pub mod loadtest;
