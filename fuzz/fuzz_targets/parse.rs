//! Any bytes as a pipeline file: no panic, bounded time and memory, and an error whenever there is no pipeline.
//!
//! `cargo +nightly fuzz run parse`, with the seeds of `corpus/parse`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use orchestrator::pipeline::{self, Colour, Severity};

fuzz_target!(|bytes: &[u8]| match pipeline::parse("fuzz.yaml", bytes) {
    Ok(parsed) => {
        assert_eq!(pipeline::graph::order(&parsed.pipeline).len(), parsed.pipeline.stages.len());
        for stage in parsed.pipeline.stages.values() {
            assert!(pipeline::matrix::cells(stage).len() <= pipeline::matrix::MAX_CELLS);
        }
    }
    Err(found) => {
        assert!(found.iter().any(|diagnostic| diagnostic.severity == Severity::Error));
        pipeline::render(&found, &String::from_utf8_lossy(bytes), Colour::Always);
    }
});
