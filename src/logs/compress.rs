//! Packs a finished log: zstd in frames that can be read from the middle.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use zeekstd::{EncodeOptions, FrameSizePolicy};

use super::{LogError, packed_path, sibling};

/// Uncompressed bytes of a frame: what is unpacked to show one line.
const FRAME: u32 = 512 * 1024;

/// Packs `<name>.log` into `<name>.log.zst` and removes it; the index stays. Blocking.
///
/// Can be cut off at any instant and done again. A follower that has the plain file open reads on in it; a
/// [`super::LogReader`] opened later reads the packed one.
///
/// # Errors
/// [`LogError::Absent`] if there is no such log; packed already is fine.
pub fn compress(log: &Path) -> Result<(), LogError> {
    let packed = packed_path(log);
    if !log.exists() && packed.exists() {
        return Ok(());
    }
    let unfinished = sibling(log, ".log.zst.tmp");
    let mut plain = File::open(log).map_err(LogError::io("read", log))?;
    pack(&mut plain, &unfinished).map_err(LogError::io("compress", log))?;
    fs::rename(&unfinished, &packed).map_err(LogError::io("compress", &packed))?;
    fs::remove_file(log).map_err(LogError::io("remove", log))
}

fn pack(plain: &mut File, to: &Path) -> io::Result<()> {
    let file = File::create(to)?;
    let options = EncodeOptions::new().frame_size_policy(FrameSizePolicy::Uncompressed(FRAME)).checksum_flag(true);
    let mut encoder = options.into_encoder(&file).map_err(io::Error::other)?;
    io::copy(plain, &mut encoder)?;
    encoder.flush()?;
    encoder.finish().map_err(io::Error::other)?;
    file.sync_all()
}
