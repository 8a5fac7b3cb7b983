//! A copy of the whole database as of one moment, made while others write.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;

/// Writes the copy into a new file.
///
/// # Errors
/// The database's, also if the file is there already.
pub fn into_file(db: &Connection, file: &Path) -> Result<(), StoreError> {
    let name = file.to_str().ok_or_else(|| StoreError::Other(format!("{} is no text", file.display())))?;
    db.execute("VACUUM INTO ?1", [name])?;
    Ok(())
}
