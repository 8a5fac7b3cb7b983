//! From the engine's errors to ours: is it gone, did it refuse, and what should the user do.

use std::error::Error as _;
use std::io::ErrorKind;

use bollard::errors::Error;

use super::RUNNER;
use crate::runner::RunnerError;

/// The HTTP status and message, if the engine itself answered with an error.
pub(super) fn answer(error: &Error) -> Option<(u16, &str)> {
    match error {
        Error::DockerResponseServerError { status_code, message } => Some((*status_code, message.trim())),
        _ => None,
    }
}

/// Whether the engine answered that there is no such thing.
pub(super) fn is_absent(error: &Error) -> bool {
    matches!(answer(error), Some((404, _)))
}

/// Whether the engine looked for something below a file: there is no such thing, only in other words (ENOTDIR, answered as
/// a fault of its own by engines of several versions).
pub(super) fn is_below_a_file(error: &Error) -> bool {
    matches!(answer(error), Some((_, message)) if message.contains("not a directory"))
}

/// The error for something that is the host's or our own fault, unless the engine is gone.
pub(super) fn fault(host: &str, doing: &str, error: &Error) -> RunnerError {
    match error {
        Error::DockerResponseServerError { message, .. } => other(format!("cannot {doing}: {}", message.trim())),
        Error::DockerStreamError { error } => other(format!("cannot {doing}: {}", error.trim())),
        Error::RequestTimeoutError => unreachable_engine(format!("no answer from {host} in time ({doing})")),
        Error::SocketNotFoundError(path) => unreachable_engine(missing_socket(path)),
        Error::IOError { .. } | Error::HyperResponseError { .. } | Error::HyperLegacyError { .. } => {
            unreachable_engine(connection(host, doing, error))
        }
        other_error => other(format!("cannot {doing}: {other_error}")),
    }
}

/// Our own or the host's fault.
pub(super) fn other(detail: String) -> RunnerError {
    RunnerError::Other { runner: RUNNER, detail }
}

/// The engine is gone.
pub(super) fn unreachable_engine(detail: String) -> RunnerError {
    RunnerError::Unreachable { runner: RUNNER, detail }
}

/// The first I/O error that caused this one.
fn io_kind(error: &Error) -> Option<ErrorKind> {
    // This one stands for its cause and is not in the chain of sources itself.
    if let Error::IOError { err } = error {
        return Some(err.kind());
    }
    let mut cause = Some(error as &dyn std::error::Error);
    while let Some(at) = cause {
        if let Some(io) = at.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = at.source();
    }
    None
}

fn missing_socket(path: &str) -> String {
    format!(
        "there is no socket {path}; install Docker and start it (`sudo systemctl start docker`), or say where it is \
         with DOCKER_HOST"
    )
}

fn connection(host: &str, doing: &str, error: &Error) -> String {
    match io_kind(error) {
        Some(ErrorKind::NotFound) => missing_socket(host.trim_start_matches("unix://")),
        Some(ErrorKind::PermissionDenied) => format!(
            "no permission for {host}; join its group (`sudo usermod -aG docker $USER`, then log in again), or set \
             DOCKER_HOST to an engine of your own"
        ),
        Some(ErrorKind::ConnectionRefused) => format!(
            "nothing answers at {host}; is the engine running (`sudo systemctl status docker`)? Another one can be \
             named with DOCKER_HOST"
        ),
        Some(_) | None => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(at) = cause {
                let more = at.to_string();
                if !text.contains(&more) {
                    text = format!("{text}: {more}");
                }
                cause = at.source();
            }
            format!("the connection to {host} broke ({doing}): {text}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(kind: ErrorKind) -> String {
        fault("unix:///s.sock", "ask", &Error::from(std::io::Error::from(kind))).to_string()
    }

    #[test]
    fn each_cause_has_its_advice() {
        assert!(io(ErrorKind::PermissionDenied).contains("usermod -aG docker"));
        assert!(io(ErrorKind::ConnectionRefused).contains("is the engine running"));
        assert!(io(ErrorKind::NotFound).contains("no socket /s.sock"));
        assert!(io(ErrorKind::BrokenPipe).contains("the connection to unix:///s.sock broke (ask)"));
    }

    #[test]
    fn an_answer_is_not_a_lost_engine() {
        let error = Error::DockerResponseServerError { status_code: 500, message: "disk full\n".to_owned() };
        assert_eq!(fault("h", "make it", &error).to_string(), "docker runner: cannot make it: disk full");
    }
}
