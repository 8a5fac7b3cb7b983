//! The program: hand the arguments over, turn the answer into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let code = match orchestrator::runner::local::shim::dispatch(&arguments) {
        Some(code) => code,
        None => orchestrator::cli::main(arguments),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
