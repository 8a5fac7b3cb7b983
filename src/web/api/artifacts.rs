//! The files that stages made: which there are, and each of them. What they hold is somebody else's: a browser is told to store
//! them and to run nothing of them.

use std::io::Read;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};

use super::builds::allowed;
use super::page::{Asked, Named, Rows, rows};
use crate::artifact::manifest::{FileEntry, Manifest};
use crate::ids::{BuildId, NodeKey};
use crate::store::access::Scope;
use crate::store::results;
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::problem::{Answer, Problem};

/// A file that a stage made.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileView {
    /// Relative, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of its content, in hex.
    pub blake3: String,
    /// It may be executed.
    pub executable: bool,
}

/// Files of a stage, by path.
#[derive(Debug, Serialize, ToSchema)]
pub struct Files {
    /// The files.
    pub items: Vec<FileView>,
    /// Give it as `after` to get the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How many there are in all.
    pub files: usize,
    /// Bytes of all.
    pub size: u64,
}

/// Which files.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WhichFiles {
    /// The `next` of the page before.
    pub after: Option<String>,
    /// Rows, 1 to 200; 20 if not given.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 200)]
    pub limit: Option<Rows>,
}

/// What a stage made, and who made it.
async fn manifest(caller: &Caller, app: &App, build: u64, stage: &str) -> Answer<Manifest> {
    let build = BuildId(build);
    allowed(caller, app, Scope::Read, build).await?;
    let nothing = || Problem::missing(format!("stage `{stage}` has no result in build {build}"));
    let node: NodeKey = stage.parse().map_err(|_| nothing())?;
    let key = node.clone();
    let row = app.engine.store.read(move |db| results::of_stage(db, build, &key)).await?.ok_or_else(nothing)?;
    let digest = row.outputs.parse().map_err(|error| Problem::internal(&error))?;
    let manifest = app.engine.artifacts.manifest(&digest).await.map_err(|error| Problem::internal(&error))?;
    Ok(manifest.from_origin(&format!("stage `{node}` of build {build}")))
}

/// The files that a stage made.
#[utoipa::path(get, path = "/builds/{build}/stages/{stage}/artifacts",
    params(("build" = u64, Path), ("stage" = String, Path), WhichFiles),
    responses((status = 200, body = Files), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn list(
    caller: Caller,
    State(app): State<App>,
    Named((build, stage)): Named<(u64, String)>,
    Asked(which): Asked<WhichFiles>,
) -> Answer<Json<Files>> {
    let manifest = manifest(&caller, &app, build, &stage).await?;
    let limit = rows(which.limit);
    let (files, size) = (manifest.files.len(), manifest.size());
    // They are sorted by path.
    let after = which.after.unwrap_or_default();
    let begin = manifest.files.partition_point(|file| !after.is_empty() && file.path <= after);
    let view = |file: &FileEntry| FileView {
        path: file.path.clone(),
        size: file.size,
        blake3: file.digest.to_string(),
        executable: file.executable,
    };
    let items: Vec<FileView> = manifest.files[begin..].iter().take(limit).map(view).collect();
    let more = begin + items.len() < files;
    let next = if more { items.last().map(|file| file.path.clone()) } else { None };
    Ok(Json(Files { items, next, files, size }))
}

/// One file that a stage made. Its `ETag` is its digest.
#[utoipa::path(get, path = "/builds/{build}/stages/{stage}/artifacts/{path}",
    params(("build" = u64, Path), ("stage" = String, Path), ("path" = String, Path, description = "may hold `/`")),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 304),
        (status = 404, body = Problem)))]
pub async fn get(
    caller: Caller,
    State(app): State<App>,
    Named((build, stage, path)): Named<(u64, String, String)>,
    asked: HeaderMap,
) -> Answer<Response> {
    let manifest = manifest(&caller, &app, build, &stage).await?;
    let file = manifest.find(&path).filter(|file| file.link.is_none()).cloned();
    let file =
        file.ok_or_else(|| Problem::missing(format!("stage `{stage}` of build #{build} made no file `{path}`")))?;
    let tag = format!("\"{}\"", file.digest);
    // It may be kept by the one who asked, who asks each time whether it is still his to see.
    let kept = (header::CACHE_CONTROL, "private, no-cache".to_owned());
    let same = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if same.is_some_and(|same| same.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [kept, (header::ETAG, tag)]).into_response());
    }
    let name = file.path.rsplit('/').next().unwrap_or("file");
    // Only what is harmless within quotes of a header.
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, file.size.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'; frame-ancestors 'none'".to_owned()),
        kept,
        (header::ETAG, tag),
    ];
    Ok((headers, stream(app, file)).into_response())
}

/// The content, read by a thread that a slow reader holds up alone.
fn stream(app: App, file: FileEntry) -> Body {
    const CHUNK: usize = 64 * 1024;
    let (sender, mut receiver) = mpsc::channel::<Result<Vec<u8>, std::io::Error>>(4);
    tokio::task::spawn_blocking(move || {
        let mut content = match app.engine.artifacts.open_file(&file) {
            Ok(content) => content,
            Err(error) => {
                let _ = sender.blocking_send(Err(std::io::Error::other(error)));
                return;
            }
        };
        loop {
            let mut chunk = vec![0; CHUNK];
            let sent = match content.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    chunk.truncate(count);
                    sender.blocking_send(Ok(chunk))
                }
                // The connection is cut: what came is not the whole file.
                Err(error) => sender.blocking_send(Err(error)),
            };
            if sent.is_err() {
                return;
            }
        }
    });
    Body::from_stream(futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)))
}
