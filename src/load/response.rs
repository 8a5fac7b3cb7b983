//! Reading HTTP/1.1 answers out of bytes that come in any pieces: the head, and where its body ends.
//!
//! PURE. Follows RFC 9112 sections 6 and 7: no body for HEAD, 1xx, 204 and 304; else chunked, else a length, else
//! everything until the connection closes.

use std::ops::Range;

/// Longest head (status line and headers) that is read, in bytes.
pub const MAX_HEAD: usize = 64 * 1024;

/// Most header lines.
const MAX_HEADERS: usize = 256;

/// Most interim answers (1xx) to one request.
pub const MAX_INTERIM: usize = 64;

/// Header lines that are parsed without allocation.
const USUAL_HEADERS: usize = 32;

/// Bytes that are not an HTTP/1.1 answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Not HTTP, or broken headers.
    #[error("the answer is not HTTP/1.1: {0}")]
    Head(String),
    /// Larger than is read.
    #[error("the answer's headers are longer than {} KiB or {MAX_HEADERS} lines", MAX_HEAD / 1024)]
    HeadTooLong,
    /// Two lengths that differ, or not a number.
    #[error("the answer's content-length is not one number")]
    Length,
    /// Broken chunks.
    #[error("the answer's chunked body is broken")]
    Chunk,
    /// A coding that cannot be framed.
    #[error("the answer's transfer-encoding `{0}` is not supported")]
    Coding(String),
    /// TLS where plain HTTP was asked for.
    #[error("the server speaks TLS, not plain HTTP: try https://")]
    Secure,
    /// Interim answers without end.
    #[error("more than {MAX_INTERIM} interim answers (1xx) came before the real one")]
    Interim,
    /// We never asked for it.
    #[error("the server switched protocols without being asked")]
    Switched,
}

/// Where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// When the connection closes.
    Close,
}

/// A parsed head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// Bytes of the head, empty line included.
    pub length: usize,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the connection may be used again afterwards.
    pub keep_alive: bool,
}

/// Reads a head at the start of `bytes`; `None` if it is not complete yet. Interim answers (1xx) are returned like others.
///
/// `to_head`: the request was HEAD. Headers are put into `headers` if given.
///
/// # Errors
/// [`ResponseError`] if this is no answer that can be framed.
pub fn parse_head(
    bytes: &[u8],
    to_head: bool,
    headers: Option<&mut Vec<(String, String)>>,
) -> Result<Option<Head>, ResponseError> {
    // How an alert (to our plain request) and a handshake of TLS begin.
    if matches!(bytes, [0x15 | 0x16, 0x03, ..]) {
        return Err(ResponseError::Secure);
    }
    let mut usual = [httparse::EMPTY_HEADER; USUAL_HEADERS];
    let mut response = httparse::Response::new(&mut usual);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => interpret(&response, length, to_head, headers).map(Some),
        Ok(httparse::Status::Partial) if bytes.len() > MAX_HEAD => Err(ResponseError::HeadTooLong),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut many);
            match response.parse(bytes) {
                Ok(httparse::Status::Complete(length)) => interpret(&response, length, to_head, headers).map(Some),
                Ok(httparse::Status::Partial) if bytes.len() <= MAX_HEAD => Ok(None),
                Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => Err(ResponseError::HeadTooLong),
                Err(error) => Err(ResponseError::Head(error.to_string())),
            }
        }
        Err(error) => Err(ResponseError::Head(error.to_string())),
    }
}

fn interpret(
    response: &httparse::Response<'_, '_>,
    length: usize,
    to_head: bool,
    headers: Option<&mut Vec<(String, String)>>,
) -> Result<Head, ResponseError> {
    let status = response.code.unwrap_or_default();
    let mut keep_alive = response.version == Some(1);
    let mut content_length = None;
    let mut chunked = false;
    for header in response.headers.iter() {
        let name = header.name;
        if name.eq_ignore_ascii_case("content-length") {
            let value = parse_length(header.value)?;
            if content_length.is_some_and(|earlier| earlier != value) {
                return Err(ResponseError::Length);
            }
            content_length = Some(value);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            let coding = String::from_utf8_lossy(header.value).trim().to_ascii_lowercase();
            if chunked || coding != "chunked" {
                return Err(ResponseError::Coding(coding));
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            for word in header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if word.eq_ignore_ascii_case(b"close") {
                    keep_alive = false;
                } else if word.eq_ignore_ascii_case(b"keep-alive") && response.version == Some(0) {
                    keep_alive = true;
                }
            }
        }
    }
    if let Some(into) = headers {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        into.clear();
        into.extend(response.headers.iter().map(|header| (header.name.to_owned(), text(header.value))));
    }
    if status == 101 {
        return Err(ResponseError::Switched);
    }
    let framing = match content_length {
        _ if to_head || status < 200 || status == 204 || status == 304 => Framing::Length(0),
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::Close,
    };
    // Both a length and chunks: chunks win, and the connection is not trusted any further.
    keep_alive &= framing != Framing::Close && !(chunked && content_length.is_some());
    Ok(Head { status, length, framing, keep_alive })
}

fn parse_length(value: &[u8]) -> Result<u64, ResponseError> {
    let value = value.trim_ascii();
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(ResponseError::Length);
    }
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(ResponseError::Length)
}

/// Reads a chunked body out of pieces.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    state: ChunkState,
    /// Bytes of framing since the last data, so that endless extensions or trailers end.
    framing_bytes: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum ChunkState {
    /// Before the first digit of a size.
    #[default]
    Start,
    /// Within a size.
    Size(u64),
    /// After the size, up to the line's end; the chunk's size.
    Extension(u64),
    /// Line feed after the size.
    SizeFeed(u64),
    /// Bytes of the chunk that are still to come.
    Data(u64),
    /// Line end after the data.
    DataReturn,
    DataFeed,
    /// At the start of a trailer line.
    Trailer,
    /// Within a trailer line.
    TrailerLine,
    /// Line feed after the empty line.
    LastFeed,
    Done,
}

/// What a piece of a chunked body was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes of the input are data.
    Data(Range<usize>),
    /// The body ended; the rest of the input, from here, is not part of it.
    End(usize),
    /// All input is used up.
    More,
}

impl Chunks {
    /// Goes on at `at` in `input` and returns the next piece; where data is returned, go on at its end.
    ///
    /// # Errors
    /// [`ResponseError::Chunk`] if the framing is broken.
    pub fn next(&mut self, input: &[u8], mut at: usize) -> Result<Piece, ResponseError> {
        while at < input.len() {
            if let ChunkState::Data(left) = self.state {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                let left = left - here as u64;
                self.state = if left == 0 { ChunkState::DataReturn } else { ChunkState::Data(left) };
                self.framing_bytes = 0;
                return Ok(Piece::Data(at..at + here));
            }
            self.state = self.step(input[at])?;
            at += 1;
            self.framing_bytes += 1;
            if self.framing_bytes > MAX_HEAD {
                return Err(ResponseError::Chunk);
            }
            if self.state == ChunkState::Done {
                return Ok(Piece::End(at));
            }
        }
        Ok(Piece::More)
    }

    fn step(&self, byte: u8) -> Result<ChunkState, ResponseError> {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(u64::from);
        Ok(match (self.state, byte) {
            (ChunkState::Start, byte) => ChunkState::Size(digit(byte).ok_or(ResponseError::Chunk)?),
            (ChunkState::Size(size) | ChunkState::Extension(size), b'\r') => ChunkState::SizeFeed(size),
            (ChunkState::Size(size), b';' | b' ' | b'\t') => ChunkState::Extension(size),
            (ChunkState::Size(size), byte) => {
                let digit = digit(byte).ok_or(ResponseError::Chunk)?;
                let size = size.checked_mul(16).and_then(|size| size.checked_add(digit));
                ChunkState::Size(size.ok_or(ResponseError::Chunk)?)
            }
            (ChunkState::Extension(size), _) => ChunkState::Extension(size),
            (ChunkState::SizeFeed(0), b'\n') => ChunkState::Trailer,
            (ChunkState::SizeFeed(size), b'\n') => ChunkState::Data(size),
            (ChunkState::DataReturn, b'\r') => ChunkState::DataFeed,
            (ChunkState::DataFeed, b'\n') => ChunkState::Start,
            (ChunkState::Trailer, b'\r') => ChunkState::LastFeed,
            (ChunkState::Trailer, _) => ChunkState::TrailerLine,
            (ChunkState::TrailerLine, b'\n') => ChunkState::Trailer,
            (ChunkState::TrailerLine, _) => ChunkState::TrailerLine,
            (ChunkState::LastFeed, b'\n') => ChunkState::Done,
            (ChunkState::SizeFeed(_) | ChunkState::DataReturn | ChunkState::DataFeed | ChunkState::LastFeed, _)
            | (ChunkState::Data(_) | ChunkState::Done, _) => return Err(ResponseError::Chunk),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Result<Option<Head>, ResponseError> {
        parse_head(text.as_bytes(), false, None)
    }

    #[test]
    fn bodies_end_where_the_standard_says() {
        let check = |headers: &str, framing: Framing, keep_alive: bool| {
            let text = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
            let expected = Head { status: 200, length: text.len(), framing, keep_alive };
            assert_eq!(head(&text), Ok(Some(expected)), "{headers:?}");
        };
        check("Content-Length: 5\r\n", Framing::Length(5), true);
        check("content-length: 5\r\nContent-Length: 5\r\n", Framing::Length(5), true);
        check("Content-Length: 5\r\nConnection: Close\r\n", Framing::Length(5), false);
        check("Connection: x, close\r\nContent-Length: 0\r\n", Framing::Length(0), false);
        check("Transfer-Encoding: Chunked\r\n", Framing::Chunked, true);
        check("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", Framing::Chunked, false);
        check("", Framing::Close, false);
    }

    #[test]
    fn some_answers_have_no_body() {
        for status in ["204 No Content", "304 Not Modified", "100 Continue"] {
            let head = head(&format!("HTTP/1.1 {status}\r\nContent-Length: 9\r\n\r\n")).unwrap().unwrap();
            assert_eq!(head.framing, Framing::Length(0), "{status}");
        }
        let answer = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true, None).unwrap().unwrap();
        assert_eq!(answer.framing, Framing::Length(0));
    }

    #[test]
    fn old_servers_close_unless_they_say_otherwise() {
        let old = head("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n").unwrap().unwrap();
        assert!(!old.keep_alive);
        let kept = head("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n").unwrap().unwrap();
        assert!(kept.keep_alive);
    }

    #[test]
    fn what_cannot_be_framed_is_refused() {
        let check = |text: &str, expected: ResponseError| assert_eq!(head(text), Err(expected), "{text:?}");
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", ResponseError::Length);
        check("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", ResponseError::Length);
        check("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", ResponseError::Length);
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", ResponseError::Coding("gzip".to_owned()));
        check("HTTP/1.1 101 Switching Protocols\r\n\r\n", ResponseError::Switched);
        assert!(matches!(head("SSH-2.0-OpenSSH\r\n\r\n"), Err(ResponseError::Head(_))));
        check("\u{15}\u{3}\u{1}\0\u{2}", ResponseError::Secure);
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_HEAD));
        assert_eq!(head(&endless), Err(ResponseError::HeadTooLong));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(head(&many), Err(ResponseError::HeadTooLong));
        let fine = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS));
        assert!(head(&fine).unwrap().is_some());
    }

    #[test]
    fn headers_are_handed_out_once_each() {
        let mut headers = vec![("left".to_owned(), "over".to_owned())];
        parse_head(b"HTTP/1.1 200 OK\r\nA: 1\r\nA: 2\r\n\r\n", false, Some(&mut headers)).unwrap();
        assert_eq!(headers, [("A".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())]);
    }

    /// Reads `input` cut into pieces; the data, and what is left after the body's end.
    #[expect(clippy::type_complexity, reason = "what a body is, and what follows it")]
    fn read_chunks(input: &[u8], cuts: &[usize]) -> Result<Option<(Vec<u8>, Vec<u8>)>, ResponseError> {
        let mut chunks = Chunks::default();
        let mut data = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([input.len()]) {
            let piece = &input[from..cut.clamp(from, input.len())];
            let mut at = 0;
            loop {
                match chunks.next(piece, at)? {
                    Piece::Data(range) => {
                        at = range.end;
                        data.extend_from_slice(&piece[range]);
                    }
                    Piece::End(end) => return Ok(Some((data, input[from + end..].to_vec()))),
                    Piece::More => break,
                }
            }
            from += piece.len();
        }
        Ok(None)
    }

    #[test]
    fn chunked_bodies() {
        let check = |input: &str, expected: Result<Option<(&str, &str)>, ResponseError>| {
            let got = read_chunks(input.as_bytes(), &[]);
            let expected = expected.map(|body| body.map(|(data, rest)| (data.into(), rest.into())));
            assert_eq!(got, expected, "{input:?}");
        };
        check("0\r\n\r\n", Ok(Some(("", ""))));
        check("5\r\nhello\r\n0\r\n\r\nHTTP", Ok(Some(("hello", "HTTP"))));
        check("5;name=\"x\"\r\nhello\r\n1 \r\n!\r\n0\r\nTrailer: 1\r\n\r\n", Ok(Some(("hello!", ""))));
        check("A\r\n0123456789\r\n0\r\n\r\n", Ok(Some(("0123456789", ""))));
        check("5\r\nhel", Ok(None));
        check("\r\n", Err(ResponseError::Chunk));
        check("5\r\nhelloo\r\n", Err(ResponseError::Chunk));
        check("g\r\n", Err(ResponseError::Chunk));
        check("ffffffffffffffff1\r\n", Err(ResponseError::Chunk));
        check(&format!("0\r\n{}", "a: b\r\n".repeat(MAX_HEAD)), Err(ResponseError::Chunk));
    }

    proptest! {
        /// However the bytes are cut, the same body comes out, and what follows it is not touched.
        #[test]
        fn cuts_do_not_matter(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            mut cuts in prop::collection::vec(0usize..400, 0..8),
        ) {
            let mut wire = Vec::new();
            for part in &parts {
                wire.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                wire.extend_from_slice(part);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\nnext");
            cuts.sort_unstable();
            let expected = (parts.concat(), b"next".to_vec());
            prop_assert_eq!(read_chunks(&wire, &cuts), Ok(Some(expected)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_head(&bytes, false, Some(&mut Vec::new()));
            let _ = read_chunks(&bytes, &[3, 50]);
        }
    }
}
