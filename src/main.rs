//! The program: hand the arguments over, turn the answer into an exit code.

use std::path::Path;
use std::process::ExitCode;

use orchestrator::{cli, runner::local::shim};

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let code = match arguments.as_slice() {
        // Before anything else: a shim must be light, for there are many.
        [_, word, folder] if word == "shim" => shim::main(Path::new(folder)),
        _ => cli::main(arguments),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
