//! `orchestrator backup` and `restore`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit;
use super::{data, text};
use crate::daemon::keyring;
use crate::engine::backup;
use crate::engine::paths::Paths;

/// `backup` and `restore`
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The backup, a tar file
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Writes a backup.
///
/// # Errors
/// If something cannot be read or written.
pub async fn backup(data: Option<&Path>, args: BackupArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    let copied = backup::backup(&engine, &args.file).await?;
    told(&args, copied, "saved")?;
    let keys = keyring::file(&engine.paths);
    if keys.exists() {
        text::remark(&format!("the key of secrets is not in it: keep a copy of {} somewhere else", keys.display()));
    }
    Ok(exit::PASSED)
}

/// Makes a data folder of a backup.
///
/// # Errors
/// If the folder is not empty, or the backup is not whole.
pub fn restore(data: Option<&Path>, args: &BackupArgs) -> anyhow::Result<i32> {
    let paths = Paths::new(data)?;
    let copied = backup::restore(&paths, &args.file)?;
    told(args, copied, "restored")?;
    text::remark(&format!(
        "put the key of secrets back to {} before the daemon starts; never run two data folders of one backup side by side",
        keyring::file(&paths).display()
    ));
    Ok(exit::PASSED)
}

fn told(args: &BackupArgs, copied: backup::Copied, word: &str) -> anyhow::Result<()> {
    if args.json {
        return data::print_json(&copied);
    }
    anstream::println!("{word}: {} files, {}", copied.files, text::size(copied.bytes));
    Ok(())
}
