//! The newest part of what a unit that may run for years has printed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};

use bytes::Bytes;

use super::folder::{self, Folder};
use super::frame::{self, Front, HEADER, MAX_PAYLOAD};
use crate::runner::OutputChunk;

/// Both files' newest frames, together at most so many bytes.
pub(super) fn last(folder: &Folder, most: usize) -> io::Result<Vec<OutputChunk>> {
    let mut kept = VecDeque::new();
    let mut size = 0;
    for name in [folder::OLDER_OUTPUT, folder::OUTPUT] {
        let file = match File::open(folder.real().join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        read(BufReader::new(file), |chunk: OutputChunk| {
            size += chunk.bytes.len();
            kept.push_back(chunk);
            while size > most
                && let Some(oldest) = kept.pop_front()
            {
                size -= oldest.bytes.len();
            }
        })?;
    }
    Ok(kept.into())
}

/// Hands out all whole frames; ends at the first that is not.
fn read(mut file: impl Read, mut each: impl FnMut(OutputChunk)) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER + MAX_PAYLOAD);
    loop {
        match frame::front(&bytes) {
            Front::Frame(header, payload) => {
                let end = payload.end;
                each(OutputChunk {
                    stream: header.stream,
                    at: header.at,
                    bytes: Bytes::copy_from_slice(&bytes[payload]),
                });
                bytes.drain(..end);
            }
            Front::Damaged => return Ok(()),
            Front::Incomplete => {
                let more = (&mut file).take((HEADER + MAX_PAYLOAD) as u64).read_to_end(&mut bytes)?;
                if more == 0 {
                    return Ok(());
                }
            }
        }
    }
}
