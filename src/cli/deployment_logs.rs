//! `orchestrator deployments logs MODEL`: what a model's server printed last, without its secrets.

use std::sync::Arc;

use super::exit::{self, Usage};
use super::{text, view};
use crate::deploy::{self, DeploySpec};
use crate::engine::Engine;
use crate::logs::Quotes;
use crate::runner::spec::{Command, MARK, UnitName};
use crate::runner::{OutputChunk, Stream};
use crate::store::deployments::{self, DeploymentRow};

/// Of a long output, this much is looked at, in bytes.
const MOST: usize = 8 << 20;

/// Prints the last lines.
///
/// # Errors
/// If nothing serves the model, its output cannot be read, or secrets in it could not be hidden.
pub async fn show(engine: &Arc<Engine>, model: &str, lines: usize) -> anyhow::Result<i32> {
    let name = model.to_owned();
    let Some(row) = engine.store.read(move |db| deployments::live(db, &name)).await? else {
        return Err(Usage(format!("nothing serves `{model}`; `orchestrator deployments` lists what does")).into());
    };
    let runner = engine.runners.named(&row.runner).await?;
    // On the host they were hidden before they were written. An engine's log has them in plain.
    let secrets = secrets(&row, runner.containers())?;
    let chunks = runner.last_output(&UnitName(row.unit.clone()), MOST).await?;
    let all = Quotes::new(secrets.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        .text(&merged(&chunks, nonce(&row).as_deref()));
    let all: Vec<&str> = all.lines().collect();
    if all.is_empty() {
        text::remark(&format!("version {} of `{model}` has printed nothing", row.version));
    }
    for line in &all[all.len().saturating_sub(lines)..] {
        text::line(&view::clean(line));
    }
    Ok(exit::PASSED)
}

/// The values of the server's secrets.
fn secrets(row: &DeploymentRow, all: bool) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in deploy::secret_names(row) {
        match std::env::var(&name) {
            Ok(value) => found.push((name, value)),
            Err(_) => missing.push(name),
        }
    }
    if all && !missing.is_empty() {
        let names = missing.join(", ");
        let text = format!(
            "the server of `{}` was given the secrets {names}, which its engine's log does not hide; set them in the \
             environment, so that they can be hidden here",
            row.model
        );
        return Err(Usage(text).into());
    }
    Ok(found)
}

/// What marks the begin and end of the server's steps in its output.
fn nonce(row: &DeploymentRow) -> Option<String> {
    let spec: DeploySpec = serde_json::from_value(row.spec.clone()).ok()?;
    match spec.unit.command {
        Command::Steps(steps) => Some(steps.nonce),
        Command::Arguments(_) | Command::ImageDefault => None,
    }
}

/// Both streams' lines in the order in which they were begun to be written, without the marks of steps.
fn merged(chunks: &[OutputChunk], nonce: Option<&str>) -> String {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    // By stream, the line that is not ended yet.
    let mut open: [Option<usize>; 2] = [None, None];
    for chunk in chunks {
        let own = &mut open[usize::from(chunk.stream == Stream::Stderr)];
        for piece in chunk.bytes.split_inclusive(|byte| *byte == b'\n') {
            let at = own.take().unwrap_or_else(|| {
                lines.push(Vec::new());
                lines.len() - 1
            });
            match piece.strip_suffix(b"\n") {
                Some(whole) => lines[at].extend_from_slice(whole),
                None => {
                    lines[at].extend_from_slice(piece);
                    *own = Some(at);
                }
            }
        }
    }
    let mark = nonce.map(|nonce| format!("{MARK}{nonce} "));
    let texts = lines.iter().filter_map(|line| {
        let line = String::from_utf8_lossy(line);
        match mark.as_ref().and_then(|mark| line.find(mark.as_str())) {
            // A mark ends its line; a line of its own it has if nothing stands before it.
            Some(0) => None,
            Some(at) => Some(line[..at].to_owned()),
            None => Some(line.into_owned()),
        }
    });
    texts.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::Micros;

    #[test]
    fn streams_do_not_cut_each_others_lines() {
        let chunk = |stream, text: &'static str| OutputChunk {
            stream,
            at: Micros(0),
            bytes: Bytes::from_static(text.as_bytes()),
        };
        let chunks =
            [chunk(Stream::Stdout, "one\ntw"), chunk(Stream::Stderr, "oops\n"), chunk(Stream::Stdout, "o\n\nthree")];
        assert_eq!(merged(&chunks, None), "one\ntwo\noops\n\nthree");
        let marked = [
            chunk(Stream::Stdout, "\u{1e}n begin 0 0\u{1e}\nstarts\u{1e}n end 0 0\u{1e}\n"),
            chunk(Stream::Stdout, "\u{1e}other begin\n"),
        ];
        assert_eq!(merged(&marked, Some("n")), "starts\n\u{1e}other begin");
    }
}
