//! Files that are often handed over in place of a table, and what to do about each.

/// How they begin, and what is said.
const KINDS: [(&[u8], &str); 15] = [
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file itself: run `git lfs pull` first"),
    (b"\x1f\x8b", "it is compressed with gzip; decompress it first"),
    (b"BZh", "it is compressed with bzip2; decompress it first"),
    (b"\xfd7zXZ\0", "it is compressed with xz; decompress it first"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd; decompress it first"),
    (b"PK\x03\x04", "it is a zip archive (or an Excel file); save it as CSV or Parquet"),
    (b"\xff\xfe", "it is UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "it is UTF-16 text; save it as UTF-8"),
    (b"ARROW1", "it is a Feather (Arrow) file; save it as CSV or Parquet"),
    (b"\x89HDF", "it is an HDF5 file; save it as CSV or Parquet"),
    (b"SQLite format 3\0", "it is an SQLite database; save a table of it as CSV or Parquet"),
    (b"<!DOCTYPE", "it is a web page, not a table"),
    (b"<!doctype", "it is a web page, not a table"),
    (b"<html", "it is a web page, not a table"),
    (b"%PDF", "it is a PDF file, not a table"),
];

/// How many bytes tell.
pub(super) const TELLING: usize = 24;

/// What a file that begins like this is, if it can be no table.
pub(super) fn what(begin: &[u8]) -> Option<&'static str> {
    KINDS.iter().find(|(magic, _)| begin.starts_with(magic)).map(|(_, words)| *words)
}
