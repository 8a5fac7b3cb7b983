//! The promises that a user relies on, one file each.

mod language;
