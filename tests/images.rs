//! The image that tests run: a static busybox and nothing else, built by the engine itself, so that no registry is needed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use orchestrator::pipeline::types::ImageSource;
use orchestrator::runner::docker::{DockerRunner, DockerSettings};
use orchestrator::runner::{Pull, Runner, RunnerError, TarStream};

/// Where a static busybox may be.
const PLACES: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/usr/lib/busybox/bin/busybox"];

const DOCKERFILE: &str = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY passwd group /etc/\n\
    RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nENV PATH=/bin\n";

/// A runner with an instance of its own, or `None` where there is no engine, which is told.
///
/// # Panics
/// If there is none although `ORCHESTRATOR_TEST_REQUIRE_DOCKER=1` says that there must be.
pub async fn engine(instance: &str) -> Option<DockerRunner> {
    match DockerRunner::connect(DockerSettings::new(instance)).await {
        Ok(runner) => Some(runner),
        Err(error @ RunnerError::Unreachable { .. }) => {
            let required = std::env::var("ORCHESTRATOR_TEST_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
            assert!(!required, "a Docker engine is required: {error}");
            println!("skipped: no Docker engine");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The test image's id. Its user is root; `app` (1000:1001) is there too.
pub async fn busybox(runner: &DockerRunner) -> String {
    let place = PLACES.iter().find(|place| Path::new(place).exists());
    let place = place.expect("the Docker tests need a static busybox (`apt-get install busybox-static`)");
    let program = std::fs::read(place).unwrap();
    let tree = pack(&[
        Item::file("Dockerfile", DOCKERFILE.as_bytes()),
        Item::file("busybox", &program).mode(0o755),
        Item::file("group", b"root:x:0:\nstaff:x:50:\n"),
        Item::file("passwd", b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"),
    ]);
    built(runner, tree, BTreeMap::new()).await.expect("the test image can be built")
}

/// Builds an image from a tree with a `Dockerfile` in its root.
pub async fn built(
    runner: &DockerRunner,
    tree: Vec<u8>,
    args: BTreeMap<String, String>,
) -> Result<String, RunnerError> {
    let source = ImageSource::Build { context: ".".to_owned(), dockerfile: "Dockerfile".to_owned(), args };
    let image = runner.prepare_image(&source, Some(streamed(tree)), Pull::IfMissing, &|_| {}).await?;
    Ok(image.reference)
}

/// One entry of an archive.
pub struct Item<'a> {
    name: &'a str,
    content: Content<'a>,
    mode: u32,
}

enum Content<'a> {
    File(&'a [u8]),
    Symlink(&'a str),
    Folder,
}

impl<'a> Item<'a> {
    /// A file that is not executable.
    pub fn file(name: &'a str, content: &'a [u8]) -> Self {
        Self { name, content: Content::File(content), mode: 0o644 }
    }

    /// A symbolic link.
    pub fn symlink(name: &'a str, target: &'a str) -> Self {
        Self { name, content: Content::Symlink(target), mode: 0o777 }
    }

    /// An empty folder.
    pub fn folder(name: &'a str) -> Self {
        Self { name, content: Content::Folder, mode: 0o755 }
    }

    /// The same with other permissions.
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }
}

/// An archive whose entries belong to nobody in particular.
pub fn pack(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_mode(item.mode);
        header.set_uid(4711);
        header.set_gid(4711);
        header.set_size(0);
        match item.content {
            Content::File(content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, item.name, content).unwrap();
            }
            Content::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, item.name, target).unwrap();
            }
            Content::Folder => {
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, item.name, std::io::empty()).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

/// An archive as a stream of small pieces.
pub fn streamed(archive: Vec<u8>) -> TarStream {
    let archive = Bytes::from(archive);
    let pieces = (0..archive.len()).step_by(8000).map(move |at| Ok(archive.slice(at..archive.len().min(at + 8000))));
    stream::iter(pieces.collect::<Vec<_>>()).boxed()
}
