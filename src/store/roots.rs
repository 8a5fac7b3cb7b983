//! Which manifests are needed: all that a row names. A row that is removed needs nothing any more, so retention is removing
//! rows. A version names its source and outputs itself: its build may go, and what it was made of stays.

use rusqlite::Connection;

use super::StoreError;

/// Each names digests of manifests, one a row.
const NAMED: &[&str] = &[
    "SELECT json_extract(request, '$.source') FROM builds",
    "SELECT outputs FROM results",
    "SELECT outputs FROM versions",
    "SELECT json_extract(lineage, '$.source') FROM versions",
    // Also of those that have ended: a rollback starts them again.
    "SELECT json_extract(spec, '$.workspace') FROM deployments",
];

/// Calls for every digest that a row names; some come often. Rows are read one at a time.
///
/// # Errors
/// The database's; [`StoreError::Corrupt`] if a row that should name one does not: then nothing should be removed.
pub fn for_each(db: &Connection, mut found: impl FnMut(&str) -> Result<(), StoreError>) -> Result<(), StoreError> {
    // One moment for all of them.
    let moment = db.unchecked_transaction()?;
    for query in NAMED {
        let mut query = moment.prepare(query)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let digest: Option<String> = row.get(0)?;
            found(&digest.ok_or_else(|| StoreError::Corrupt("a row that names no files".to_owned()))?)?;
        }
    }
    Ok(())
}
