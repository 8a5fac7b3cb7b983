//! How libgit2 reaches other machines: by our own transports. Its own ones are built on OpenSSL, and follow rules of their own
//! about redirects, proxies and known hosts.
//!
//! libgit2 is given an address that says no more than which transport is meant. Where that goes, with which credentials and
//! within which limits is in a [`Session`] of the thread: libgit2 works in the thread that calls it, and in no other.

mod certificates;
mod http;
mod meter;
mod ssh;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use git2::transport::{Transport, register};
use tokio::runtime::Handle;

use super::remote::{Address, Remote};
use super::{Control, Limits, MirrorError};

/// What libgit2 is told in place of an address.
const HTTP: (&str, &str) = ("orchestrator-http", "orchestrator-http://repository/");
const SSH: (&str, &str) = ("orchestrator-ssh", "orchestrator-ssh://repository/");
/// Time to connect, TLS or the first words of ssh included.
const CONNECT: Duration = Duration::from_secs(15);

thread_local! {
    static SESSION: RefCell<Option<Arc<Session>>> = const { RefCell::new(None) };
}

/// Why an operation was stopped: libgit2 gives back less than it was told.
pub(super) type Why = Arc<Mutex<Option<MirrorError>>>;

/// A conversation with a repository on another machine.
pub(super) struct Session {
    remote: Remote,
    limits: Limits,
    control: Control,
    why: Why,
    runtime: Handle,
}

impl Session {
    /// A session in the runtime that this thread belongs to.
    pub(super) fn new(remote: &Remote, limits: &Limits, control: &Control, why: &Why) -> Self {
        let (remote, limits, control, why) = (remote.clone(), limits.clone(), control.clone(), Arc::clone(why));
        Self { remote, limits, control, why, runtime: Handle::current() }
    }

    /// Calls libgit2, whose transports find this session.
    pub(super) fn within<T>(self, work: impl FnOnce() -> T) -> T {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                SESSION.with_borrow_mut(Option::take);
            }
        }
        SESSION.with_borrow_mut(|session| *session = Some(Arc::new(self)));
        let _leave = Leave;
        work()
    }

    /// Waits for something, unless it takes too long or is cancelled.
    fn wait<T>(&self, most: Duration, work: impl Future<Output = Result<T, MirrorError>>) -> Result<T, MirrorError> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.control.cancel.cancelled() => Err(MirrorError::Cancelled),
                done = tokio::time::timeout(most, work) => done.unwrap_or_else(|_| {
                    Err(self.unreachable(format!("it sent nothing for {}", crate::words::duration(most))))
                }),
            }
        })
    }

    fn unreachable(&self, detail: impl Into<String>) -> MirrorError {
        MirrorError::Unreachable { remote: self.remote.url.clone(), detail: detail.into() }
    }

    fn denied(&self, detail: impl Into<String>) -> MirrorError {
        MirrorError::Denied { remote: self.remote.url.clone(), detail: detail.into() }
    }

    fn untrusted(&self, detail: impl Into<String>) -> MirrorError {
        MirrorError::Untrusted { remote: self.remote.url.clone(), detail: detail.into() }
    }

    /// Keeps the reason; what libgit2 is told is not read by anybody.
    fn keep(&self, why: MirrorError) {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    fn stop(&self, why: MirrorError) -> git2::Error {
        self.keep(why);
        git2::Error::from_str("stopped")
    }

    fn stop_io(&self, why: MirrorError) -> io::Error {
        self.keep(why);
        io::Error::other("stopped")
    }
}

/// What libgit2 is told in place of this address.
pub(super) fn stand_in<'a>(address: &Address, url: &'a str) -> &'a str {
    match address {
        Address::Http { .. } => HTTP.1,
        Address::Ssh { .. } => SSH.1,
        Address::Local(_) => url,
    }
}

/// Makes our transports known to libgit2. To be called before any of its transports is made; only the first call does
/// something, and others wait for it.
#[expect(unsafe_code, reason = "libgit2 keeps its transports in a list without a lock")]
pub(super) fn prepare() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: nobody reads the list of transports meanwhile: all of this program's remotes are made after a call to
        // this function, and `Once` lets no caller go on before the list is as it stays.
        let registered = unsafe {
            register(HTTP.0, |remote| Transport::smart(remote, true, http::Http::new(session()?)))
                .and_then(|()| register(SSH.0, |remote| Transport::smart(remote, false, ssh::Ssh::new(session()?))))
        };
        if let Err(error) = registered {
            tracing::error!(%error, "repositories on other machines cannot be reached");
        }
    });
}

fn session() -> Result<Arc<Session>, git2::Error> {
    SESSION.with_borrow(|session| session.clone()).ok_or_else(|| git2::Error::from_str("there is no session"))
}

/// Words of the other side in one line, cut short and without control characters.
fn words(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}
