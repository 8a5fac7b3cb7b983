//! The built-in trainer, its model files, and the server that answers with them.
//!
//! ```text
//! CSV, Parquet -> table -> prepare -> fit (linfa, tree) -> fitted -> saved: model.json, metrics.json, predictions.csv
//!                                                 model.json -> predict -> server, score
//! ```
//! A model file holds all that a prediction needs (what to do with each column, then coefficients, trees or neighbours), so
//! serving depends on no training code.

mod encode;
mod fit;
mod fitted;
mod page;
mod params;
pub mod predict;
mod prepare;
pub mod rows;
pub mod saved;
pub mod score;
pub mod server;
pub mod table;
pub mod train;
mod tree;
