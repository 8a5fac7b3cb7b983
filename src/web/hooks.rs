//! `POST /hooks/github`: a signed delivery is on the disk before it is answered, and decided upon afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::problem::{Answer, Problem};
use crate::daemon::projects::Project;
use crate::engine::now;
use crate::store::deliveries::{self, NewDelivery, Stored};
use crate::trigger::decide::{RepositoryMatch, repository_match};
use crate::trigger::github::{self, Delivery};
use crate::trigger::signature::{self, SignatureProblem};

/// Headers that are kept with a delivery.
const KEPT: [&str; 7] = [
    "content-type",
    "user-agent",
    "x-github-event",
    "x-github-delivery",
    "x-github-hook-id",
    "x-github-hook-installation-target-type",
    "x-github-hook-installation-target-id",
];
/// The sender's id of a delivery is a UUID; more than this is none.
const ID_BYTES: usize = 128;

/// What became of a delivery.
#[derive(Debug, Serialize, ToSchema)]
pub struct Received {
    /// Our number of it, by which `orchestrator deliveries show` finds it.
    pub delivery: u64,
    /// Projects that it is looked at for.
    pub projects: Vec<String>,
    /// It came before.
    pub duplicate: bool,
}

/// Takes a webhook call of GitHub. Its signature (`X-Hub-Signature-256`) must be that of a project's secret.
#[utoipa::path(post, path = "/hooks/github", request_body = String, security(()),
    responses((status = 202, body = Received, description = "On the disk; decided upon soon"),
        (status = 200, body = Received, description = "It came before"),
        (status = 400, body = Problem), (status = 401, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 503, body = Problem)))]
pub async fn github(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Answer<(StatusCode, Json<Received>)> {
    let all = app.projects.all();
    let signed = signed(all.values(), &headers, &body)?;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let event = text("x-github-event").ok_or_else(|| Problem::invalid("the header X-GitHub-Event is missing"))?;
    let id = text("x-github-delivery").filter(|id| !id.is_empty() && id.len() <= ID_BYTES);
    let id = id.ok_or_else(|| Problem::invalid("the header X-GitHub-Delivery is missing, or is no id"))?;
    let content_type = text(header::CONTENT_TYPE.as_str());
    let delivery = Delivery { event: &event, content_type: content_type.as_deref(), body: &body };
    let projects = concerned(&signed, &delivery);
    let kept: BTreeMap<&str, String> = KEPT.iter().filter_map(|name| Some((*name, text(name)?))).collect();
    let new = NewDelivery {
        source: "github",
        delivery: id,
        event,
        headers: serde_json::to_string(&kept).map_err(|error| Problem::internal(&error))?,
        body: body.to_vec(),
        projects: projects.clone(),
    };
    match app.engine.store.write(move |tx| deliveries::receive(tx, &new, now())).await? {
        Stored::New(delivery) => {
            for project in &projects {
                app.projects.waker(project).notify_one();
            }
            Ok((StatusCode::ACCEPTED, Json(Received { delivery, projects, duplicate: false })))
        }
        Stored::Again(delivery) => Ok((StatusCode::OK, Json(Received { delivery, projects, duplicate: true }))),
        Stored::Differs(delivery) => Err(Problem::conflict(format!(
            "delivery {delivery} came under the same X-GitHub-Delivery with another body"
        ))),
    }
}

/// The projects whose secret the delivery was signed with. Which one it was, and why none, is not told to the sender.
fn signed<'a>(
    projects: impl Iterator<Item = &'a Arc<Project>>,
    headers: &HeaderMap,
    body: &[u8],
) -> Answer<Vec<&'a Arc<Project>>> {
    let given = headers.get(signature::HEADER).map(|value| value.as_bytes());
    // Projects of one organisation often share a secret: it is tried once.
    let mut tried: BTreeMap<&[u8], Result<(), SignatureProblem>> = BTreeMap::new();
    let mut signed = Vec::new();
    for project in projects {
        let Some(secret) = &project.webhook_secret else { continue };
        let verified = tried.entry(secret).or_insert_with(|| signature::verify(secret, body, given));
        if verified.is_ok() {
            signed.push(project);
        }
    }
    if signed.is_empty() {
        let why = tried.into_values().find_map(Result::err).unwrap_or(SignatureProblem::NoSecret);
        tracing::warn!("a delivery was refused: {why}");
        return Err(Problem::unsigned());
    }
    Ok(signed)
}

/// Those of the projects whose repository it is about. What cannot be read concerns all that share its secret: the first of
/// them keeps it, with the reason.
fn concerned(signed: &[&Arc<Project>], delivery: &Delivery<'_>) -> Vec<String> {
    let received = github::parse(delivery).ok();
    let repository = received.as_ref().and_then(|received| received.repository.as_ref());
    let same = |project: &&&Arc<Project>| {
        repository.is_none_or(|repository| repository_match(repository, &project.policy) != RepositoryMatch::Other)
    };
    let found: Vec<_> = signed.iter().filter(same).map(|project| project.name.clone()).collect();
    match (found.is_empty(), repository) {
        (false, Some(_)) => found,
        (false, None) | (true, _) => signed.first().map(|project| project.name.clone()).into_iter().collect(),
    }
}
