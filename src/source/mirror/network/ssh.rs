//! Git over ssh: by the system's own ssh, which reads no settings of its user, asks nobody, and trusts the hosts of one file.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::super::MirrorError;
use super::super::remote::{Address, Credentials, user_and_path};
use super::meter::{Meter, Part};
use super::{CONNECT, Session, words};

/// Bytes of what ssh and the host say of an error: the last ones.
const SAID: usize = 4096;
/// How long it may take ssh to end once it has said all.
const END: Duration = Duration::from_secs(5);
/// What ssh ends with if it was itself that failed, and not the program at the other end.
const OWN_FAILURE: i32 = 255;

/// A connection to one repository.
pub(super) struct Ssh {
    session: Arc<Session>,
}

impl Ssh {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self { session }
    }

    fn connect(&self) -> Result<Conversation, MirrorError> {
        let session = &self.session;
        let _runtime = session.runtime.enter();
        let mut command = command(session)?;
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let text = "there is no program `ssh` on this machine; install openssh-client";
                MirrorError::io(format!("cannot reach {}", session.remote.url))(io::Error::other(text))
            }
            _ => MirrorError::io("cannot start ssh")(error),
        })?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(session.unreachable("ssh was started without pipes"));
        };
        let said = session.runtime.spawn(last_words(errors));
        let meter = Meter::new(session, Part::Refs);
        Ok(Conversation { session: Arc::clone(session), child, input, output, said: Some(said), meter, asked: false })
    }
}

impl SmartSubtransport for Ssh {
    fn action(&self, _: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let made = match service {
            Service::UploadPackLs => self.connect(),
            // The conversation goes on in the stream that is there.
            Service::UploadPack => Err(self.session.unreachable("the connection is gone")),
            Service::ReceivePackLs | Service::ReceivePack => {
                Err(MirrorError::Refused("nothing is ever pushed".to_owned()))
            }
        };
        match made {
            Ok(stream) => Ok(Box::new(stream)),
            Err(why) => Err(self.session.stop(why)),
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// The command line. Nothing of it passes a shell on this machine; on the other one the path does, in quotes.
fn command(session: &Session) -> Result<Command, MirrorError> {
    let remote = &session.remote;
    let Address::Ssh { host, port } = remote.check()? else {
        return Err(MirrorError::Refused(format!("{} is no address for ssh", remote.url)));
    };
    let Credentials::SshKey { path: key, known_hosts } = &remote.credentials else {
        return Err(session.denied("for ssh a key is needed; name one by `ssh_key_file`"));
    };
    let (user, path) = user_and_path(&remote.url)?;
    readable(key).map_err(|why| session.denied(format!("the key {why}")))?;
    readable(known_hosts).map_err(|why| {
        session.untrusted(format!("the known hosts {why}; {}", how_to_trust(&host, port, known_hosts)))
    })?;
    let mut command = Command::new("ssh");
    // `-F none`: no settings of the user or the machine. `-T -a -x`: no terminal, no agent, no display.
    command.args(["-F", "none", "-T", "-a", "-x"]);
    for option in [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "GlobalKnownHostsFile=none",
        "UpdateHostKeys=no",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "PreferredAuthentications=publickey",
        "ClearAllForwardings=yes",
        "LogLevel=ERROR",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=4",
    ] {
        command.args(["-o", option]);
    }
    command.args(["-o", &format!("ConnectTimeout={}", CONNECT.as_secs())]);
    command.args(["-o", &format!("IdentityFile={}", option_path(key)?)]);
    command.args(["-o", &format!("UserKnownHostsFile={}", option_path(known_hosts)?)]);
    command.args(["-p", &port.to_string(), "-l", &user, "--", &host]);
    command.arg(format!("git-upload-pack {}", quoted(&path)));
    command.env_clear().env("LC_ALL", "C");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
    Ok(command)
}

fn readable(path: &Path) -> Result<(), String> {
    std::fs::File::open(path).map(drop).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// A path as the value of an option of ssh: in quotes, since it may take several, and without what stands for something else.
fn option_path(path: &Path) -> Result<String, MirrorError> {
    match path.to_str() {
        Some(text) if !text.contains(['"', '\\', '$']) && !text.contains(char::is_control) && text.starts_with('/') => {
            Ok(format!("\"{}\"", text.replace('%', "%%")))
        }
        Some(_) | None => {
            let why = "ssh cannot take it: it must be absolute, and without quotes, `$` and backslashes";
            Err(MirrorError::Refused(format!("the path {}: {why}", path.display())))
        }
    }
}

/// One word of a shell at the other end.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''").replace('!', r"'\!'"))
}

fn how_to_trust(host: &str, port: u16, known_hosts: &Path) -> String {
    let ask = if port == 22 { host.to_owned() } else { format!("-p {port} {host}") };
    format!(
        "get the host's key by `ssh-keyscan {ask}`, compare it with what the host publishes, and put it into {}",
        known_hosts.display()
    )
}

/// The last bytes that come.
async fn last_words(mut errors: ChildStderr) -> Vec<u8> {
    let (mut said, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(count @ 1..) = errors.read(&mut buffer).await {
        said.extend_from_slice(&buffer[..count]);
        let more = said.len().saturating_sub(SAID);
        said.drain(..more);
    }
    said
}

/// What is said to `git-upload-pack` at the other end, and what it says. Dropped, it ends ssh.
struct Conversation {
    session: Arc<Session>,
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    said: Option<JoinHandle<Vec<u8>>>,
    meter: Meter,
    asked: bool,
}

impl Conversation {
    fn hear(&mut self, buffer: &mut [u8]) -> Result<usize, MirrorError> {
        let (patience, session) = (self.meter.patience()?, &self.session);
        let output = &mut self.output;
        let count = session.wait(patience, async {
            output.read(buffer).await.map_err(|error| session.unreachable(words(&error.to_string())))
        })?;
        self.meter.count(count)?;
        if count == 0 { self.ended().map(|()| 0) } else { Ok(count) }
    }

    fn say(&mut self, bytes: &[u8]) -> Result<(), MirrorError> {
        if !self.asked {
            self.asked = true;
            self.meter = Meter::new(&self.session, Part::Pack);
        }
        let (patience, session, input) = (self.meter.patience()?, &self.session, &mut self.input);
        let said = session.wait(patience, async {
            input.write_all(bytes).await.map_err(|error| session.unreachable(words(&error.to_string())))
        });
        match said {
            // What ssh says of it is better than "broken pipe".
            Err(MirrorError::Unreachable { .. }) => self.ended().and(said),
            said => said,
        }
    }

    /// It says no more: an error, if that is the reason.
    fn ended(&mut self) -> Result<(), MirrorError> {
        let (session, child, said) = (Arc::clone(&self.session), &mut self.child, self.said.take());
        let (status, said) = session.wait(END, async {
            let said = match said {
                Some(said) => said.await.unwrap_or_default(),
                None => Vec::new(),
            };
            let status = child.wait().await.map_err(MirrorError::io("cannot wait for ssh"))?;
            Ok((status, said))
        })?;
        if status.success() { Ok(()) } else { Err(failure(&session, status, &String::from_utf8_lossy(&said))) }
    }
}

impl Read for Conversation {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.hear(buffer).map_err(|why| self.session.stop_io(why))
    }
}

impl Write for Conversation {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.say(bytes).map(|()| bytes.len()).map_err(|why| self.session.stop_io(why))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the end of ssh means.
fn failure(session: &Session, status: ExitStatus, said: &str) -> MirrorError {
    let lower = said.to_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    let detail = if said.trim().is_empty() { format!("ssh ended with {status}") } else { words(said) };
    if status.code() == Some(OWN_FAILURE) {
        if says(&["host key verification failed", "host identification has changed", "revoked"]) {
            return session.untrusted(distrust(session, &lower));
        }
        if says(&["permission denied", "too many authentication failures", "error in libcrypto", "invalid format"]) {
            let hint = "the host must know this key, which must have no passphrase, and be readable by its owner alone";
            return session.denied(format!("{detail} ({hint})"));
        }
        return session.unreachable(detail);
    }
    if says(&["not found", "does not exist", "does not appear to be a git repository", "could not be found"]) {
        let url = &session.remote.url;
        return MirrorError::NotFound(format!(
            "{url} was not found: {detail}; check the address, and that the key may see it"
        ));
    }
    if says(&["denied", "not allowed", "unauthorized", "access"]) {
        return session.denied(detail);
    }
    session.unreachable(detail)
}

fn distrust(session: &Session, said: &str) -> String {
    let (Ok(Address::Ssh { host, port }), Credentials::SshKey { known_hosts, .. }) =
        (session.remote.check(), &session.remote.credentials)
    else {
        return "its key is not known".to_owned();
    };
    let (file, how) = (known_hosts.display(), how_to_trust(&host, port, known_hosts));
    if said.contains("revoked") {
        format!("its key is marked as revoked in {file}")
    } else if said.contains("has changed") {
        format!(
            "its key is none of those in {file}: it changed, or somebody stands between; {how} in place of the old one"
        )
    } else {
        format!("its key is not in {file}; {how}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_word_for_the_other_shell() {
        for (path, expected) in [("a b", "'a b'"), ("a'; id; '", r"'a'\''; id; '\'''"), ("a!b", r"'a'\!'b'")] {
            assert_eq!(quoted(path), expected);
        }
    }

    #[test]
    fn paths_are_one_word_for_ssh() {
        assert_eq!(option_path(Path::new("/a b/100%")).unwrap(), "\"/a b/100%%\"");
        for path in ["/a\"b", "/a$b", "/a\\b", "/a\nb", "relative"] {
            assert!(option_path(Path::new(path)).is_err(), "{path}");
        }
    }
}
