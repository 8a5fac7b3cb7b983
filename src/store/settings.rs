//! What a data folder is set to, once and for all.

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;

/// The setting of this name, if it was made.
///
/// # Errors
/// The database's.
pub fn get(db: &Connection, name: &str) -> Result<Option<String>, StoreError> {
    Ok(db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()?)
}

/// The setting of this name; `value` if it was not made yet, which makes it.
///
/// # Errors
/// The database's.
pub fn get_or_make(tx: &Connection, name: &str, value: &str) -> Result<String, StoreError> {
    tx.execute("INSERT OR IGNORE INTO meta (name, value) VALUES (?1, ?2)", params![name, value])?;
    Ok(tx.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))?)
}

/// Sets the setting of this name.
///
/// # Errors
/// The database's.
pub fn set(tx: &Connection, name: &str, value: &str) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![name, value],
    )?;
    Ok(())
}
