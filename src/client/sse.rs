//! Server-sent events as they come.

use std::collections::VecDeque;

use reqwest::Response;

use super::ClientError;

/// An event may be so large.
const MOST_BYTES: usize = 4 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Its place in the stream.
    pub id: Option<u64>,
    /// What kind it is; empty for the usual one.
    pub name: String,
    /// What it says.
    pub data: String,
}

/// Reads events from pieces of bytes, however they are cut.
#[derive(Debug, Default)]
pub struct Parser {
    rest: Vec<u8>,
    open: Told,
    ready: VecDeque<Told>,
}

impl Parser {
    /// Takes a piece. Says no if an event is larger than any of ours.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        self.rest.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(end) = memchr::memchr(b'\n', &self.rest[from..]) {
            let line = String::from_utf8_lossy(&self.rest[from..from + end]).into_owned();
            from += end + 1;
            self.line(line.strip_suffix('\r').unwrap_or(&line));
        }
        self.rest.drain(..from);
        self.rest.len() + self.open.data.len() <= MOST_BYTES
    }

    /// The next event that is whole.
    pub fn pop(&mut self) -> Option<Told> {
        self.ready.pop_front()
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            let told = std::mem::take(&mut self.open);
            // Only comments came: it keeps the connection alive.
            if told != Told::default() {
                self.ready.push_back(told);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.open.id = value.parse().ok(),
            "event" => value.clone_into(&mut self.open.name),
            "data" => {
                if !self.open.data.is_empty() {
                    self.open.data.push('\n');
                }
                self.open.data.push_str(value);
            }
            _ => {}
        }
    }
}

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    answer: Response,
    server: String,
    parser: Parser,
}

impl Events {
    pub(super) fn new(answer: Response, server: String) -> Self {
        Self { answer, server, parser: Parser::default() }
    }

    /// The next event; none if the server ended the stream.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if the connection broke: ask again from behind the last event.
    pub async fn next(&mut self) -> Result<Option<Told>, ClientError> {
        loop {
            if let Some(told) = self.parser.pop() {
                return Ok(Some(told));
            }
            let chunk = self.answer.chunk().await.map_err(|error| ClientError::Unreachable {
                server: self.server.clone(),
                detail: crate::words::cause(&error),
            })?;
            let Some(chunk) = chunk else { return Ok(None) };
            if !self.parser.push(&chunk) {
                let detail = format!("an event has more than {MOST_BYTES} bytes");
                return Err(ClientError::Strange { server: self.server.clone(), detail });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&str]) -> Vec<Told> {
        let mut parser = Parser::default();
        for piece in pieces {
            assert!(parser.push(piece.as_bytes()));
        }
        std::iter::from_fn(|| parser.pop()).collect()
    }

    #[test]
    fn events_are_read_however_they_are_cut() {
        let stream = "id: 1\ndata: {\"a\":1}\n\n:\n\nevent: end\r\ndata:x\ndata: y\n\nid: 2\nda";
        let told = |id, name: &str, data: &str| Told { id, name: name.to_owned(), data: data.to_owned() };
        let expected = [told(Some(1), "", "{\"a\":1}"), told(None, "end", "x\ny")];
        assert_eq!(all(&[stream]), expected);
        let single: Vec<String> = stream.chars().map(String::from).collect();
        assert_eq!(all(&single.iter().map(String::as_str).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 20];
        assert!((0..8).any(|_| !parser.push(&piece)));
    }
}
