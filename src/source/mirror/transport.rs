//! What is said to libgit2 about a connection: credentials, certificates, limits, progress.

use std::sync::{Arc, Mutex, PoisonError};

use git2::{CertificateCheckStatus, Cred, CredentialType, Direction, Oid, RemoteCallbacks, Repository};

use super::hosts::{self, Verdict};
use super::remote::{Address, Credentials, Remote};
use super::{Control, Limits, MirrorError, join};

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Objects there.
    pub received: usize,
    /// Objects in all, as far as known.
    pub objects: usize,
    /// Bytes there.
    pub bytes: usize,
}

/// A ref of a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// `refs/heads/main`, `refs/tags/v1`, `HEAD`.
    pub name: String,
    /// The commit (or other object); of a tag with a message what it names.
    pub target: Oid,
    /// For `HEAD` the default branch.
    pub symref: Option<String>,
}

/// The refs of a remote, without a mirror.
///
/// # Errors
/// As for a fetch.
pub async fn heads(remote: &Remote, limits: &Limits, control: &Control) -> Result<Vec<Head>, MirrorError> {
    remote.check()?;
    let (remote, limits, cancel) = (remote.clone(), limits.clone(), control.cancel.child_token());
    let control = Control { cancel: cancel.clone(), progress: control.progress.clone() };
    let _stop = cancel.drop_guard();
    join(tokio::task::spawn_blocking(move || {
        // The rule about redirects is a setting of a repository, so there has to be one.
        let folder = tempfile::tempdir().map_err(MirrorError::io("cannot make a temporary folder"))?;
        let repository = init(folder.path(), &remote)?;
        list(&repository, &remote, &limits, &control)
    }))
    .await
}

/// A new, empty bare repository.
pub(super) fn init(folder: &std::path::Path, remote: &Remote) -> Result<Repository, MirrorError> {
    let made = || {
        let mut options = git2::RepositoryInitOptions::new();
        // No templates: they hold hooks, and a mirror has none.
        let repository = Repository::init_opts(folder, options.bare(true).external_template(false))?;
        // A redirect could carry the credentials, or the build, to another host.
        repository.config()?.set_bool("http.followRedirects", false)?;
        Ok(repository)
    };
    made().map_err(|error| MirrorError::of_mirror(&remote.url, &error))
}

/// Lists a remote's refs.
pub(super) fn list(
    repository: &Repository,
    remote: &Remote,
    limits: &Limits,
    control: &Control,
) -> Result<Vec<Head>, MirrorError> {
    let watch = Watcher::new(remote, limits, control)?;
    let listed = || -> Result<Vec<Head>, git2::Error> {
        let mut found = repository.remote_anonymous(&remote.url)?;
        let connection = found.connect_auth(Direction::Fetch, Some(watch.callbacks()), None)?;
        let heads = connection.list()?;
        Ok(heads
            .iter()
            .take(limits.heads.saturating_add(1))
            .map(|head| Head {
                name: head.name().to_owned(),
                target: head.oid(),
                symref: head.symref_target().map(str::to_owned),
            })
            .collect())
    };
    let heads = listed().map_err(|error| watch.error(&error))?;
    if heads.len() > limits.heads {
        let text = format!("{} has more than {} refs", remote.url, limits.heads);
        return Err(MirrorError::TooLarge(text));
    }
    Ok(peeled(heads))
}

/// A tag with a message is listed twice, the second time as `name^{}` with what it names.
fn peeled(listed: Vec<Head>) -> Vec<Head> {
    let mut heads: Vec<Head> = Vec::with_capacity(listed.len());
    for head in listed {
        match head.name.strip_suffix("^{}") {
            Some(name) => {
                if let Some(tag) = heads.last_mut().filter(|tag| tag.name == name) {
                    tag.target = head.target;
                }
            }
            None => heads.push(head),
        }
    }
    heads
}

/// Makes callbacks, and keeps why one of them stopped the work: libgit2 gives back less than it was told.
pub(super) struct Watcher<'a> {
    remote: &'a Remote,
    address: Address,
    transfer: u64,
    control: &'a Control,
    why: Arc<Mutex<Option<MirrorError>>>,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(remote: &'a Remote, limits: &Limits, control: &'a Control) -> Result<Self, MirrorError> {
        control.go_on()?;
        let address = remote.check()?;
        // libgit2 says of such a path that its protocol is not supported.
        if let Address::Local(path) = &address
            && !path.exists()
        {
            let text = format!("{} was not found: there is no such folder", remote.url);
            return Err(MirrorError::NotFound(text));
        }
        Ok(Self { remote, address, transfer: limits.transfer, control, why: Arc::default() })
    }

    /// The reason that was kept, or what libgit2's words mean.
    pub(super) fn error(&self, error: &git2::Error) -> MirrorError {
        if self.control.cancel.is_cancelled() {
            return MirrorError::Cancelled;
        }
        let kept = self.why.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.unwrap_or_else(|| MirrorError::of_remote(&self.remote.url, error))
    }

    fn keep(&self, why: MirrorError) -> git2::Error {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        git2::Error::from_str("stopped")
    }

    pub(super) fn callbacks(&'a self) -> RemoteCallbacks<'a> {
        let mut callbacks = RemoteCallbacks::new();
        let mut asked = 0;
        callbacks.credentials(move |url, user, kinds| {
            asked += 1;
            self.credentials(url, user, kinds, asked)
        });
        callbacks.certificate_check(|certificate, _host| match certificate.as_hostkey() {
            None => Ok(CertificateCheckStatus::CertificatePassthrough),
            Some(key) => self.host_key(key.hostkey()),
        });
        callbacks.transfer_progress(|progress| {
            let bytes = progress.received_bytes();
            if let Some(show) = &self.control.progress {
                show(Progress { received: progress.received_objects(), objects: progress.total_objects(), bytes });
            }
            if bytes as u64 > self.transfer {
                let most = crate::words::size(self.transfer);
                self.keep(MirrorError::TooLarge(format!("{} sends more than {most} at once", self.remote.url)));
                return false;
            }
            !self.control.cancel.is_cancelled()
        });
        callbacks.sideband_progress(|_| !self.control.cancel.is_cancelled());
        callbacks
    }

    fn credentials(
        &self,
        url: &str,
        user: Option<&str>,
        kinds: CredentialType,
        asked: usize,
    ) -> Result<Cred, git2::Error> {
        let denied = |detail: &str| {
            self.keep(MirrorError::Denied { remote: self.remote.url.clone(), detail: detail.to_owned() })
        };
        let user = user.unwrap_or("git");
        if kinds.contains(CredentialType::USERNAME) {
            return Cred::username(user);
        }
        // libgit2 asks again and again for as long as it is given something.
        if asked > 3 || (asked > 1 && kinds.contains(CredentialType::USER_PASS_PLAINTEXT)) {
            return Err(denied("the credentials are wrong, expired, or may not read it"));
        }
        if super::remote::address(url).ok().as_ref() != Some(&self.address) {
            return Err(denied("it asks for credentials from another address"));
        }
        match &self.remote.credentials {
            Credentials::None => Err(denied("it asks for credentials, and none are set")),
            Credentials::Token { user, token } => Cred::userpass_plaintext(user, token),
            Credentials::SshKey { path, passphrase, .. } => {
                if let Err(error) = std::fs::File::open(path) {
                    return Err(denied(&format!("the key {} cannot be read: {error}", path.display())));
                }
                Cred::ssh_key(user, None, path, passphrase.as_deref())
            }
        }
    }

    fn host_key(&self, key: Option<&[u8]>) -> Result<CertificateCheckStatus, git2::Error> {
        let untrusted =
            |detail: String| Err(self.keep(MirrorError::Untrusted { remote: self.remote.url.clone(), detail }));
        let Address::Ssh { host, port } = &self.address else { return untrusted("it answers by ssh".to_owned()) };
        let Credentials::SshKey { known_hosts, .. } = &self.remote.credentials else {
            return untrusted("set an ssh key and the file of known hosts for this repository".to_owned());
        };
        let file = known_hosts.display();
        let text = match std::fs::read(known_hosts) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => return untrusted(format!("the known hosts {file} cannot be read: {error}")),
        };
        let how = format!("get its key by `ssh-keyscan -p {port} {host}`, compare it with what the host publishes");
        match key.map(|key| hosts::verdict(&text, host, *port, key)) {
            Some(Verdict::Trusted) => Ok(CertificateCheckStatus::CertificateOk),
            Some(Verdict::Revoked) => untrusted(format!("its key is marked as revoked in {file}")),
            Some(Verdict::Changed) => untrusted(format!(
                "its key is none of those in {file}; it changed, or somebody stands between; {how}, and replace the line"
            )),
            Some(Verdict::Unknown) => untrusted(format!("its key is not in {file}; {how}, and add it there")),
            None => untrusted("it shows no key".to_owned()),
        }
    }
}
