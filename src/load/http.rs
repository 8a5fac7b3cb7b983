//! A lean HTTP/1.1 client: one connection, one request at a time, keep-alive.
//!
//! Written for load: request bytes are made beforehand, buffers are used again, and only what somebody will look at is
//! kept of an answer. It never sends a request twice: what went wrong is the measurement's to count.

use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::load::measure::normalise;
use crate::load::response::{Chunks, Framing, Head, MAX_INTERIM, Piece, ResponseError, parse_head};
use crate::load::target::{Endpoint, Stream};
use crate::load::trust::handshake_problem;

/// Longest body that is read, in bytes.
pub const MAX_BODY: u64 = 64 * 1024 * 1024;

/// Of bodies that nobody looks at, this much is kept for messages.
pub const BODY_EXCERPT: usize = 4096;
/// Bytes of a body that are kept for such an excerpt: one more, so that a cut is seen.
pub const BODY_KEPT: usize = BODY_EXCERPT + 1;

/// Room for one read.
const READ_SIZE: usize = 8 * 1024;

/// Why there is no (whole) answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Nobody listens.
    #[error("connection refused: nothing listens at the address")]
    Refused,
    /// No connection in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// This machine has no port or descriptor left: the generator's fault, not the server's.
    #[error("this machine cannot open more connections: {0}")]
    Exhausted(#[source] io::Error),
    /// Any other trouble with connecting.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The certificate or the handshake, in words.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// Closed before any byte of the answer.
    #[error("the server closed the connection before it answered")]
    Closed,
    /// As [`ExchangeError::Closed`], on a connection that had carried an answer and was to be kept.
    #[error(
        "the server closed a connection that it had kept open, just when the next request was sent: it should say \
         `connection: close`, or keep idle connections longer"
    )]
    ClosedKept,
    /// Closed within the answer.
    #[error("the server closed the connection in the middle of its answer")]
    ClosedEarly,
    /// Trouble on an open connection.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    /// Not (valid) HTTP.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// Too much of it.
    #[error("the answer's body is longer than {} MiB", MAX_BODY / 1024 / 1024)]
    TooLong,
    /// No whole answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl ExchangeError {
    /// Sorts trouble with connecting.
    pub fn from_connect(error: io::Error) -> Self {
        let own = [nix::errno::Errno::EMFILE, nix::errno::Errno::ENFILE, nix::errno::Errno::EADDRNOTAVAIL];
        match error.raw_os_error().map(nix::errno::Errno::from_raw) {
            Some(nix::errno::Errno::ECONNREFUSED) => ExchangeError::Refused,
            Some(errno) if own.contains(&errno) => ExchangeError::Exhausted(error),
            Some(_) | None => ExchangeError::Connect(error),
        }
    }

    /// Sorts trouble with a handshake.
    pub fn from_tls(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => ExchangeError::Closed,
            _ => ExchangeError::Tls(handshake_problem(&error)),
        }
    }

    fn from_io(error: io::Error, answered: bool) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match (error.kind(), answered) {
            (BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof, false) => ExchangeError::Closed,
            (BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof, true) => ExchangeError::ClosedEarly,
            _ => ExchangeError::Broken(error),
        }
    }

    /// The message that failures are grouped by: alike for like failures. Only words of others can differ in their digits.
    pub fn grouped(&self) -> String {
        match self {
            ExchangeError::Response(ResponseError::Coding(_)) | ExchangeError::Tls(_) => normalise(&self.to_string()),
            ExchangeError::Refused
            | ExchangeError::ConnectTimeout
            | ExchangeError::Exhausted(_)
            | ExchangeError::Connect(_)
            | ExchangeError::Closed
            | ExchangeError::ClosedKept
            | ExchangeError::ClosedEarly
            | ExchangeError::Broken(_)
            | ExchangeError::Response(_)
            | ExchangeError::TooLong
            | ExchangeError::Timeout(_) => self.to_string(),
        }
    }

    /// A few words that failures are grouped by.
    pub fn kind(&self) -> &'static str {
        match self {
            ExchangeError::Refused => "connection refused",
            ExchangeError::ConnectTimeout => "connect timeout",
            ExchangeError::Exhausted(_) => "out of connections",
            ExchangeError::Connect(_) => "cannot connect",
            ExchangeError::Tls(_) => "tls",
            ExchangeError::Closed => "connection closed",
            ExchangeError::ClosedKept => "kept connection closed",
            ExchangeError::ClosedEarly => "connection closed early",
            ExchangeError::Broken(_) => "connection broken",
            ExchangeError::Response(_) => "invalid answer",
            ExchangeError::TooLong => "answer too long",
            ExchangeError::Timeout(_) => "timeout",
        }
    }
}

/// What of an answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Whether its headers are.
    pub headers: bool,
    /// How much of its body is, in bytes.
    pub body: usize,
}

impl Keep {
    /// Everything (within [`MAX_BODY`]).
    pub const ALL: Keep = Keep { headers: true, body: MAX_BODY as usize };
    /// Only the beginning of the body.
    pub const EXCERPT: Keep = Keep { headers: false, body: BODY_KEPT };
}

/// An answer; used again for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// As they came, if kept.
    pub headers: Vec<(String, String)>,
    /// The body, or its beginning.
    pub body: Vec<u8>,
    /// Length of the whole body.
    pub body_bytes: u64,
}

impl Reply {
    fn take(&mut self, bytes: &[u8], keep: Keep) -> Result<(), ExchangeError> {
        self.body_bytes += bytes.len() as u64;
        if self.body_bytes > MAX_BODY {
            return Err(ExchangeError::TooLong);
        }
        let room = keep.body.saturating_sub(self.body.len()).min(bytes.len());
        self.body.extend_from_slice(&bytes[..room]);
        Ok(())
    }
}

/// What is asked, beside the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The request.
    pub bytes: &'a [u8],
    /// Whether it is a HEAD request.
    pub is_head: bool,
    /// What to keep of the answer.
    pub keep: Keep,
}

/// An open connection.
pub struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    /// What of the buffer is used up.
    start: usize,
    reusable: bool,
    /// Whether it has carried a whole answer.
    used: bool,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// See [`Endpoint::connect`].
    pub async fn open(endpoint: &Endpoint) -> Result<Self, ExchangeError> {
        let stream = endpoint.connect().await?;
        Ok(Self { stream, buffer: Vec::with_capacity(READ_SIZE), start: 0, reusable: true, used: false })
    }

    /// Whether another request may be sent: the last answer was whole and said so, and the server has neither closed the
    /// connection since nor sent what nobody asked for. Never waits.
    pub fn is_usable(&mut self) -> bool {
        let mut byte = [0u8; 1];
        self.reusable && self.stream.read(&mut byte).now_or_never().is_none()
    }

    /// Sends a request and reads the whole answer into `reply`. If this fails or is dropped half-way, the connection is
    /// not usable any more.
    ///
    /// # Errors
    /// [`ExchangeError`] if there is no whole, valid answer.
    pub async fn exchange(&mut self, ask: Ask<'_>, reply: &mut Reply) -> Result<(), ExchangeError> {
        self.exchange_once(ask, reply).await.map_err(|error| match error {
            ExchangeError::Closed if self.used => ExchangeError::ClosedKept,
            other => other,
        })?;
        self.used = true;
        Ok(())
    }

    async fn exchange_once(&mut self, ask: Ask<'_>, reply: &mut Reply) -> Result<(), ExchangeError> {
        self.reusable = false;
        reply.headers.clear();
        reply.body.clear();
        reply.body_bytes = 0;
        let written = self.write(ask.bytes).await;
        // A server may answer and close while it is still being sent to (413): that answer counts.
        let head = match (self.read_head(ask, reply).await, written) {
            (Ok(head), _) => head,
            (Err(_), Err(write)) => return Err(ExchangeError::from_io(write, false)),
            (Err(error), Ok(())) => return Err(error),
        };
        reply.status = head.status;
        match head.framing {
            Framing::Length(length) => self.read_length(length, ask.keep, reply).await?,
            Framing::Chunked => self.read_chunks(ask.keep, reply).await?,
            Framing::Close => self.read_to_close(ask.keep, reply).await?,
        }
        self.reusable = head.keep_alive && self.start == self.buffer.len();
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        match &mut self.stream {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(stream) => stream.flush().await,
        }
    }

    async fn read_head(&mut self, ask: Ask<'_>, reply: &mut Reply) -> Result<Head, ExchangeError> {
        let mut answered = false;
        let mut interim = 0;
        loop {
            if self.start < self.buffer.len() {
                let headers = ask.keep.headers.then_some(&mut reply.headers);
                if let Some(head) = parse_head(&self.buffer[self.start..], ask.is_head, headers)? {
                    self.start += head.length;
                    if head.status >= 200 {
                        return Ok(head);
                    }
                    // An interim answer (100, 103): the real one follows.
                    interim += 1;
                    if interim > MAX_INTERIM {
                        return Err(ResponseError::Interim.into());
                    }
                    continue;
                }
            }
            if self.fill(answered).await? == 0 {
                return Err(if answered { ExchangeError::ClosedEarly } else { ExchangeError::Closed });
            }
            answered = true;
        }
    }

    /// Reads more; 0 at the end.
    async fn fill(&mut self, answered: bool) -> Result<usize, ExchangeError> {
        // What is used up makes room: a head that is cut again and again must not make the buffer grow.
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.reserve(READ_SIZE / 2);
        self.stream.read_buf(&mut self.buffer).await.map_err(|error| ExchangeError::from_io(error, answered))
    }

    async fn read_length(&mut self, mut left: u64, keep: Keep, reply: &mut Reply) -> Result<(), ExchangeError> {
        if left > MAX_BODY {
            return Err(ExchangeError::TooLong);
        }
        loop {
            let available = &self.buffer[self.start..];
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(available.len());
            reply.take(&available[..here], keep)?;
            self.start += here;
            left -= here as u64;
            if left == 0 {
                return Ok(());
            }
            if self.fill(true).await? == 0 {
                return Err(ExchangeError::ClosedEarly);
            }
        }
    }

    async fn read_chunks(&mut self, keep: Keep, reply: &mut Reply) -> Result<(), ExchangeError> {
        let mut chunks = Chunks::default();
        loop {
            match chunks.next(&self.buffer, self.start)? {
                Piece::Data(range) => {
                    self.start = range.end;
                    reply.take(&self.buffer[range], keep)?;
                }
                Piece::End(end) => {
                    self.start = end;
                    return Ok(());
                }
                Piece::More => {
                    self.start = self.buffer.len();
                    if self.fill(true).await? == 0 {
                        return Err(ExchangeError::ClosedEarly);
                    }
                }
            }
        }
    }

    async fn read_to_close(&mut self, keep: Keep, reply: &mut Reply) -> Result<(), ExchangeError> {
        loop {
            reply.take(&self.buffer[self.start..], keep)?;
            self.start = self.buffer.len();
            if self.fill(true).await? == 0 {
                return Ok(());
            }
        }
    }
}
