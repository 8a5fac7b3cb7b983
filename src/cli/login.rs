//! `orchestrator login`: keeps a token for a server, where only its owner reads it.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::exit::{self, Usage};
use crate::client::{Ask, Client, address};

/// `login`
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The server's address
    pub url: String,
    /// Forget the token that is kept for it
    #[arg(long)]
    pub forget: bool,
}

/// Tokens by server.
type Kept = BTreeMap<String, String>;

/// A token is shorter than this.
const MOST_BYTES: u64 = 4096;

/// Asks for a token, tries it, keeps it.
///
/// # Errors
/// If the server does not take the token, or it cannot be kept.
pub async fn run(args: LoginArgs) -> anyhow::Result<i32> {
    let server = address(&args.url)?.to_string();
    let file = file()?;
    let mut kept = read(&file)?;
    if args.forget {
        let known = kept.remove(&server).is_some();
        write(&file, &kept)?;
        anstream::println!("{} token is kept for {}", if known { "no more" } else { "no" }, args.url);
        return Ok(exit::PASSED);
    }
    let token = ask(&args.url)?;
    if token.is_empty() {
        return Err(
            Usage("no token was given; type it, or pipe it: `orchestrator login URL < token-file`".to_owned()).into()
        );
    }
    let client = Client::new(&server, Some(&token))?;
    let one = [("limit", Some("1".to_owned()))];
    client.get::<serde_json::Value>(&Ask { path: &["builds"], query: &one, ..Ask::default() }).await?;
    kept.insert(server, token);
    write(&file, &kept)?;
    anstream::println!("the token for {} is kept in {}", client.server(), file.display());
    Ok(exit::PASSED)
}

/// The token that is kept for a server.
///
/// # Errors
/// If there is a file that cannot be used.
pub fn kept(server: &str) -> anyhow::Result<Option<String>> {
    match file() {
        Ok(file) => Ok(read(&file)?.remove(server)),
        // Without a home there is no such file.
        Err(_) => Ok(None),
    }
}

fn file() -> anyhow::Result<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
    let base =
        base.ok_or_else(|| Usage("neither XDG_CONFIG_HOME nor HOME is set; use ORCHESTRATOR_TOKEN".to_owned()))?;
    Ok(base.join("orchestrator/logins.json"))
}

fn read(file: &Path) -> anyhow::Result<Kept> {
    let what = || format!("tokens for servers, {}", file.display());
    let opened = match std::fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Kept::new()),
        Err(error) => return Err(error).with_context(what),
    };
    let mode = opened.metadata().with_context(what)?.permissions().mode();
    if mode & 0o077 != 0 {
        anyhow::bail!("others may read {}, which holds tokens: run `chmod 600 {0}`", file.display());
    }
    let mut text = String::new();
    opened.take(1 << 20).read_to_string(&mut text).with_context(what)?;
    serde_json::from_str(&text).with_context(what)
}

/// Replaces the file at once; from its first byte on only its owner reads it.
fn write(file: &Path, kept: &Kept) -> anyhow::Result<()> {
    let what = || format!("cannot write {}", file.display());
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(what)?;
    let draft = folder.join(format!(".logins.{}", std::process::id()));
    let mut opened = std::fs::OpenOptions::new();
    let mut opened = opened.write(true).create(true).truncate(true).mode(0o600).open(&draft).with_context(what)?;
    opened.write_all(serde_json::to_string_pretty(kept)?.as_bytes()).with_context(what)?;
    opened.sync_all().with_context(what)?;
    std::fs::rename(&draft, file).with_context(what)
}

/// A line of standard input, not shown while it is typed.
fn ask(server: &str) -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        anstream::eprint!("token for {server}: ");
        let _ = std::io::stderr().flush();
    }
    hidden_line()
}

/// Reads one line of standard input; on a terminal it does not show.
///
/// # Errors
/// If it cannot be read.
pub fn hidden_line() -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    let before = if stdin.is_terminal() { tcgetattr(&stdin).ok() } else { None };
    if let Some(before) = &before {
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        let _ = tcsetattr(&stdin, SetArg::TCSANOW, &quiet);
    }
    let mut line = String::new();
    let read = stdin.lock().take(MOST_BYTES).read_line(&mut line);
    if let Some(before) = &before {
        let _ = tcsetattr(&stdin, SetArg::TCSANOW, before);
        anstream::eprintln!();
    }
    read.context("cannot read standard input")?;
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_kept_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/logins.json");
        let kept = Kept::from([("http://x/".to_owned(), "orc_1".to_owned())]);
        write(&file, &kept).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&file).unwrap(), kept);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("chmod 600"));
    }
}
