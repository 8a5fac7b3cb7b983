//! Images that are pulled, or there already.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bollard::errors::Error;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;

use super::reference::Reference;
use super::{DockerRunner, credentials, fault};
use crate::runner::{PreparedImage, Progress, Pull, RunnerError};

/// The label of images that were built for an instance, with its name. Not the label of units: containers inherit their
/// image's labels, and a container that someone else starts from such an image is not ours.
pub const LABEL_IMAGE: &str = "orchestrator.image-of";

/// How long a pull may show no progress at all.
const STALL: Duration = Duration::from_secs(600);

/// Between two lines of progress.
const LINE: Duration = Duration::from_secs(1);

/// Makes an image available.
pub(super) async fn prepare(
    runner: &DockerRunner,
    text: &str,
    pull: Pull,
    progress: Progress<'_>,
) -> Result<PreparedImage, RunnerError> {
    let wrong = |detail: String| RunnerError::Image { image: text.to_owned(), detail };
    let reference = Reference::parse(text).map_err(wrong)?;
    let found = look(runner, &reference).await?;
    let found = match (found, pull) {
        (Some(found), Pull::IfMissing | Pull::Never) => found,
        (None, Pull::Never) => return Err(wrong("it is not on the engine, and would be pulled".to_owned())),
        (Some(found), Pull::Always) if reference.is_id() => found,
        (None, _) if reference.is_id() => {
            return Err(wrong("the engine has no image of this id, and an id cannot be pulled".to_owned()));
        }
        (Some(_) | None, _) => {
            pull_image(runner, &reference, progress).await?;
            look(runner, &reference)
                .await?
                .ok_or_else(|| wrong("it was pulled, and is gone again; is someone removing images?".to_owned()))?
        }
    };
    prepared(&found, Some(&reference)).ok_or_else(|| wrong("the engine does not tell its id".to_owned()))
}

/// The image's id, and the digest under which a registry knows it (its id, if none does).
pub(super) fn prepared(found: &ImageInspect, reference: Option<&Reference>) -> Option<PreparedImage> {
    let id = found.id.clone()?;
    let digests = || found.repo_digests.iter().flatten();
    let mine = digests().find(|digest| reference.is_some_and(|reference| reference.owns(digest)));
    let digest = mine.or_else(|| digests().next()).and_then(|digest| digest.split_once('@'));
    let digest = digest.map_or_else(|| id.clone(), |(_, digest)| digest.to_owned());
    Some(PreparedImage { reference: id, digest })
}

async fn look(runner: &DockerRunner, reference: &Reference) -> Result<Option<ImageInspect>, RunnerError> {
    match runner.docker.inspect_image(reference.as_str()).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if fault::is_absent(&error) => Ok(None),
        Err(error) => Err(runner.fault(&format!("look for image `{}`", reference.as_str()), &error)),
    }
}

async fn pull_image(runner: &DockerRunner, reference: &Reference, progress: Progress<'_>) -> Result<(), RunnerError> {
    let name = reference.as_str();
    progress(format!("pulling {name}"));
    let folder = runner.settings.config_dir.as_deref();
    let credentials = credentials::for_registry(folder, reference.credentials_key(), progress).await;
    let known = credentials.is_some();
    let options = CreateImageOptionsBuilder::new().from_image(&reference.to_pull()).build();
    let docker = runner.docker.clone().with_timeout(STALL);
    let mut events = docker.create_image(Some(options), None, credentials);
    let mut layers = Layers::default();
    let mut told = Instant::now();
    loop {
        let event = match tokio::time::timeout(STALL, events.next()).await {
            Ok(Some(event)) => event.map_err(|error| pull_error(runner, name, known, &error))?,
            Ok(None) => break,
            Err(_) => {
                let detail = format!("the registry sent nothing for {} min; try again later", STALL.as_secs() / 60);
                return Err(RunnerError::Image { image: name.to_owned(), detail });
            }
        };
        layers.note(&event);
        if told.elapsed() >= LINE {
            told = Instant::now();
            progress(format!("pulling {name}: {}", layers.line()));
        }
    }
    progress(format!("pulled {name}"));
    Ok(())
}

/// What is known of the layers of a pull.
#[derive(Debug, Default)]
struct Layers(BTreeMap<String, Layer>);

#[derive(Debug, Default)]
struct Layer {
    done: bool,
    /// Bytes.
    current: i64,
    /// Bytes; 0 if not known yet.
    total: i64,
}

impl Layers {
    fn note(&mut self, event: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&event.id, &event.status) else { return };
        // The first event is about the tag.
        if status.starts_with("Pulling from") {
            return;
        }
        let layer = self.0.entry(id.clone()).or_default();
        match status.as_str() {
            "Pull complete" | "Already exists" => {
                layer.done = true;
                layer.current = layer.total;
            }
            "Download complete" => layer.current = layer.total,
            "Downloading" => {
                let detail = event.progress_detail.clone().unwrap_or_default();
                layer.current = detail.current.unwrap_or(layer.current);
                layer.total = detail.total.unwrap_or(layer.total);
            }
            _ => {}
        }
    }

    fn line(&self) -> String {
        let done = self.0.values().filter(|layer| layer.done).count();
        let megabytes = |bytes: i64| bytes / 1_000_000;
        let current: i64 = self.0.values().map(|layer| layer.current).sum();
        let total: i64 = self.0.values().map(|layer| layer.total).sum();
        format!("{done} of {} layers, {} of {} MB", self.0.len(), megabytes(current), megabytes(total))
    }
}

fn pull_error(runner: &DockerRunner, image: &str, credentials: bool, error: &Error) -> RunnerError {
    let text = match error {
        Error::DockerStreamError { error } => error.trim(),
        Error::DockerResponseServerError { message, .. } => message.trim(),
        _ => return runner.fault(&format!("pull `{image}`"), error),
    };
    RunnerError::Image { image: image.to_owned(), detail: explain(text, credentials) }
}

/// PURE: the registry's words on a failed pull, with what to do.
fn explain(text: &str, credentials: bool) -> String {
    let lower = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let advice = if has(&["pull access denied", "unauthorized", "authentication required", "denied"]) {
        if credentials {
            "there is no such image, or the credentials in your docker config may not read it"
        } else {
            "there is no such image, or it needs credentials: check the name, or `docker login` to its registry"
        }
    } else if has(&["manifest unknown", "not found", "no such image", "does not exist"]) {
        "there is no such image or tag; check its name"
    } else if has(&["no matching manifest"]) {
        "the image does not exist for this engine's kind of processor"
    } else if has(&["toomanyrequests", "too many requests", "rate limit"]) {
        "the registry allows no more pulls for now; `docker login` raises the limit"
    } else if has(&["no such host", "lookup", "dial tcp", "timeout", "timed out", "connection refused", "unreachable"])
    {
        "the engine cannot reach the registry; check its network, proxy and DNS, or load the image by hand \
         (`docker load`)"
    } else if has(&["x509", "certificate", "tls"]) {
        "the engine does not trust the registry's certificate"
    } else if has(&["no space left"]) {
        "the engine's disk is full; `docker system prune` makes room"
    } else {
        return text.to_owned();
    };
    format!("{advice} ({text})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_pulls_say_what_to_do() {
        let check = |text: &str, expected: &str| {
            let got = explain(text, false);
            assert!(got.contains(expected) && got.contains(text), "{got}");
        };
        check("manifest for python:9 not found: manifest unknown: manifest unknown", "check its name");
        check("pull access denied for x, repository does not exist or may require 'docker login'", "`docker login`");
        check("Get \"https://r/v2/\": dial tcp: lookup r on 10.0.0.1:53: no such host", "cannot reach the registry");
        check("toomanyrequests: You have reached your pull rate limit", "no more pulls");
        assert_eq!(explain("strange", false), "strange");
    }

    #[test]
    fn layers_add_up() {
        let mut layers = Layers::default();
        let mut note = |id: &str, status: &str, current: i64, total: i64| {
            let detail = bollard::models::ProgressDetail { current: Some(current), total: Some(total) };
            let (id, status) = (Some(id.to_owned()), Some(status.to_owned()));
            layers.note(&CreateImageInfo { id, status, progress_detail: Some(detail), ..CreateImageInfo::default() });
        };
        note("3.12", "Pulling from library/python", 0, 0);
        note("a", "Already exists", 0, 0);
        note("b", "Downloading", 5_000_000, 20_000_000);
        note("c", "Downloading", 1_000_000, 3_000_000);
        note("c", "Pull complete", 0, 0);
        assert_eq!(layers.line(), "2 of 3 layers, 8 of 23 MB");
    }

    #[test]
    fn the_digest_is_the_registrys() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let image = |digests: &[String]| ImageInspect {
            id: Some(digest("a")),
            repo_digests: Some(digests.to_vec()),
            ..ImageInspect::default()
        };
        let reference = Reference::parse("python:3").unwrap();
        let both = [format!("other@{}", digest("b")), format!("python@{}", digest("c"))];
        assert_eq!(prepared(&image(&both), Some(&reference)).unwrap().digest, digest("c"));
        assert_eq!(prepared(&image(&both[..1]), Some(&reference)).unwrap().digest, digest("b"));
        assert_eq!(prepared(&image(&[]), Some(&reference)).unwrap().digest, digest("a"));
    }
}
