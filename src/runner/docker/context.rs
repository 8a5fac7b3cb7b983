//! The context of an image build: one folder of the source tree, less what its `.dockerignore` names.
//!
//! The tree streams by once, so the ignore file must be seen before the files that it names. Archives of a tree come in
//! the order of their names, in which `.dockerignore` is among the first; up to [`AHEAD`] is held back to look for it. One
//! that comes later is not heeded, and that is told.

use std::collections::VecDeque;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio_util::task::TaskTracker;

use super::archive::{Place, Repack, repack};
use super::ignore_file::IgnoreFile;
use super::owner::ROOT;
use crate::runner::TarStream;

/// Bytes of the context that are held back while its `.dockerignore` is looked for.
const AHEAD: usize = 4 << 20;

/// The ignore file's name, in the context's root.
const NAME: &str = ".dockerignore";

/// A context on its way.
pub(super) struct Context {
    /// The archive for the engine.
    pub(super) tar: TarStream,
    seen: Arc<Mutex<Seen>>,
}

/// What went by.
#[derive(Debug, Default)]
struct Seen {
    any: bool,
    dockerfile: bool,
    ignore_file: bool,
    heeded: bool,
}

impl Context {
    /// Takes `folder` out of a tree. `dockerfile` is the Dockerfile's path in it.
    ///
    /// # Errors
    /// A text for the user if the ignore file cannot be read.
    pub(super) async fn new(
        tree: TarStream,
        folder: PathBuf,
        dockerfile: &Path,
        tasks: &TaskTracker,
    ) -> Result<Self, String> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let place = noting(folder, dockerfile.to_path_buf(), Arc::clone(&seen));
        let inner = repack(tree, Repack { owner: ROOT, place }, tasks);
        let (text, tar) = look_ahead(inner).await;
        let Some(text) = text else { return Ok(Self { tar, seen }) };
        lock(&seen).heeded = true;
        let rules = IgnoreFile::parse(&text)?;
        let kept = [dockerfile.to_path_buf(), PathBuf::from(NAME)];
        let place: Place = Box::new(move |name| {
            (kept.iter().any(|kept| kept == name) || !rules.excludes(name)).then(|| name.to_path_buf())
        });
        Ok(Self { tar: repack(tar, Repack { owner: ROOT, place }, tasks), seen })
    }

    /// To be asked after the build: what is wrong with the context.
    pub(super) fn verdict(seen: &ContextSeen) -> Verdict {
        let seen = lock(&seen.0);
        match (seen.any, seen.dockerfile, seen.ignore_file && !seen.heeded) {
            (false, _, _) => Verdict::Empty,
            (true, false, _) => Verdict::NoDockerfile,
            (true, true, true) => Verdict::IgnoreFileTooLate,
            (true, true, false) => Verdict::Good,
        }
    }

    /// The archive, and what to ask about it later.
    pub(super) fn split(self) -> (TarStream, ContextSeen) {
        (self.tar, ContextSeen(self.seen))
    }
}

/// What to give to [`Context::verdict`].
pub(super) struct ContextSeen(Arc<Mutex<Seen>>);

/// What was wrong with a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Good,
    /// No such folder, or nothing in it.
    Empty,
    /// The Dockerfile is not there.
    NoDockerfile,
    /// Its `.dockerignore` was not heeded.
    IgnoreFileTooLate,
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A clean relative path that does not lead outside; `None` for others.
pub(super) fn inside(path: &str) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

fn noting(folder: PathBuf, dockerfile: PathBuf, seen: Arc<Mutex<Seen>>) -> Place {
    Box::new(move |name| {
        let place = name.strip_prefix(&folder).ok().filter(|place| !place.as_os_str().is_empty())?;
        let mut seen = lock(&seen);
        seen.any = true;
        seen.dockerfile |= place == dockerfile;
        seen.ignore_file |= place == Path::new(NAME);
        Some(place.to_path_buf())
    })
}

/// The ignore file's text, if it comes early, and the same stream again from its beginning.
async fn look_ahead(mut tar: TarStream) -> (Option<String>, TarStream) {
    let mut pieces = VecDeque::new();
    let mut held = Vec::new();
    let mut next_look = 1;
    let mut text = None;
    loop {
        let piece = tar.next().await;
        let ended = !matches!(piece, Some(Ok(_)));
        if let Some(Ok(piece)) = &piece {
            held.extend_from_slice(piece);
        }
        pieces.extend(piece);
        // Looking again only when there is twice as much keeps the whole linear.
        if ended || held.len() >= next_look {
            next_look = held.len() * 2;
            match find(&held) {
                Found::Text(found) => text = Some(found),
                Found::No => {}
                Found::NotYet if ended || held.len() > AHEAD => {}
                Found::NotYet => continue,
            }
            break;
        }
    }
    let pieces: Vec<std::io::Result<Bytes>> = pieces.into();
    (text, stream::iter(pieces).chain(tar).boxed())
}

enum Found {
    Text(String),
    No,
    NotYet,
}

/// Looks for the ignore file in the beginning of an archive.
fn find(held: &[u8]) -> Found {
    let mut archive = tar::Archive::new(held);
    let Ok(entries) = archive.entries() else { return Found::NotYet };
    for entry in entries {
        let Ok(mut entry) = entry else { return Found::NotYet };
        let Ok(name) = entry.path().map(|name| name.into_owned()) else { return Found::No };
        if name == Path::new(NAME) {
            let mut text = Vec::new();
            let whole = entry.read_to_end(&mut text).is_ok_and(|length| length as u64 == entry.size());
            return if whole { Found::Text(String::from_utf8_lossy(&text).into_owned()) } else { Found::NotYet };
        }
    }
    Found::NotYet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(entries: &[(&str, &str)]) -> TarStream {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        let archive = builder.into_inner().unwrap();
        let pieces: Vec<_> = archive.chunks(700).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        stream::iter(pieces).boxed()
    }

    async fn names(tree: &[(&str, &str)], folder: &str) -> (Vec<String>, Verdict) {
        let tasks = TaskTracker::new();
        let context = Context::new(pack(tree), PathBuf::from(folder), Path::new("Dockerfile"), &tasks).await.unwrap();
        let (mut tar, seen) = context.split();
        let mut all = Vec::new();
        while let Some(piece) = tar.next().await {
            all.extend_from_slice(&piece.unwrap());
        }
        let mut archive = tar::Archive::new(all.as_slice());
        let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        (names.collect(), Context::verdict(&seen))
    }

    #[tokio::test]
    async fn a_folder_less_what_is_ignored() {
        let big = "x".repeat(300_000);
        let tree = [
            ("a/big", big.as_str()),
            ("svc/.dockerignore", "*\n!src\nDockerfile\n"),
            ("svc/Dockerfile", "FROM x"),
            ("svc/notes", &big),
            ("svc/src/main.py", "pass"),
        ];
        let expected = [".dockerignore", "Dockerfile", "src/main.py"].map(str::to_owned).to_vec();
        assert_eq!(names(&tree, "svc").await, (expected, Verdict::Good));
        assert_eq!(names(&tree, "a").await.1, Verdict::NoDockerfile);
        assert_eq!(names(&tree, "none").await, (vec![], Verdict::Empty));
    }

    #[tokio::test]
    async fn a_late_ignore_file_is_told() {
        let big = "x".repeat(AHEAD + 1_000_000);
        let tree = [("Dockerfile", "FROM x"), ("big", big.as_str()), (".dockerignore", "big")];
        let (names, verdict) = names(&tree, "").await;
        assert_eq!((names.len(), verdict), (3, Verdict::IgnoreFileTooLate));
    }

    #[test]
    fn folders_stay_in_the_tree() {
        assert_eq!(inside("./a//b").unwrap(), Path::new("a/b"));
        assert_eq!(inside(".").unwrap(), Path::new(""));
        assert!(inside("/a").is_none() && inside("a/../..").is_none());
    }
}
