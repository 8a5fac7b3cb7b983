//! `orchestrator serve-model`: the built-in model server as a process of its own.

use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};

use super::args::ServeModelArgs;
use super::exit;
use crate::model::server;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// If the model cannot be read or the port not be had.
pub async fn run(args: ServeModelArgs) -> anyhow::Result<i32> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let listening = |address: SocketAddr| anstream::println!("listening on http://{address}");
    server::serve(&args.model, SocketAddr::new(args.host, args.port), listening, stop).await?;
    Ok(exit::PASSED)
}
