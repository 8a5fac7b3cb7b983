//! Packs a finished log: zstd in frames that can be read from the middle.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;

use zeekstd::{EncodeOptions, FrameSizePolicy};

use super::{LogError, packed_path, sibling};

/// Uncompressed bytes of a frame: what is unpacked to show one line.
const FRAME: u32 = 512 * 1024;

/// Logs of fewer bytes stay plain: packing one saves a few blocks of the disk and costs two waits for it, which is more than
/// a build without work takes as a whole.
pub const WORTH_PACKING: u64 = 64 * 1024;

/// Packs `<name>.log` into `<name>.log.zst` and removes it; the index stays. Blocking, with memory for a frame or two.
///
/// Can be cut off at any instant and done again: at each of them the plain log or the packed one is there, whole. A follower
/// that has the plain file open reads on in it; a [`super::LogReader`] opened later reads the packed one.
///
/// # Errors
/// [`LogError::Absent`] if there is no such log (packed already is fine), [`LogError::InUse`] while somebody writes it.
pub fn compress(log: &Path) -> Result<(), LogError> {
    let packed = packed_path(log);
    if !log.exists() && packed.exists() {
        return Ok(());
    }
    let mut plain = File::open(log).map_err(LogError::io("read", log))?;
    match plain.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(LogError::InUse { path: log.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(LogError::io("lock", log)(error)),
    }
    let unfinished = sibling(log, ".log.zst.tmp");
    if let Err(error) = pack(&mut plain, &unfinished) {
        // What was cut off is overwritten the next time; after a full disk it would stand in the way of others.
        let _ = fs::remove_file(&unfinished);
        return Err(LogError::io("compress", log)(error));
    }
    fs::rename(&unfinished, &packed).map_err(LogError::io("compress", &packed))?;
    // The new name is on the disk before the old one goes.
    if let Some(folder) = packed.parent() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(LogError::io("compress", &packed))?;
    }
    match fs::remove_file(log) {
        // Another process was just as far.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(LogError::io("remove", log)),
    }
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
