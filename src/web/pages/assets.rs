//! Styles, scripts and the icon: part of the program, named by their content, so that browsers keep them for good.

use std::io::Write;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::web::problem::{Answer, Problem};

/// A file as it is sent.
struct Asset {
    /// `app.0123456789ab.css`.
    name: String,
    kind: &'static str,
    plain: Vec<u8>,
    gzip: Vec<u8>,
}

/// What every page uses. The parts are one file each, so that a page is few requests.
static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let parts = [
        include_str!("../../../web/static/base.css"),
        include_str!("../../../web/static/parts.css"),
        include_str!("../../../web/static/build.css"),
        include_str!("../../../web/static/project.css"),
        include_str!("../../../web/static/log.css"),
        include_str!("../../../web/static/chart.css"),
        include_str!("../../../web/static/load.css"),
        include_str!("../../../web/static/model.css"),
    ];
    Asset::new("app", "css", "text/css; charset=utf-8", parts.concat().into_bytes())
});

/// Times, keys, charts and live parts.
static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    let parts = [
        include_str!("../../../web/static/times.js"),
        include_str!("../../../web/static/keys.js"),
        include_str!("../../../web/static/chart.js"),
        include_str!("../../../web/static/live.js"),
    ];
    Asset::new("app", "js", "text/javascript; charset=utf-8", modules(&parts))
});

/// What shows logs: one module in several files, each of which uses those before it.
static LOG_SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    let parts = [
        include_str!("../../../web/static/log-lines.js"),
        include_str!("../../../web/static/log-whole.js"),
        include_str!("../../../web/static/log-rows.js"),
        include_str!("../../../web/static/log-window.js"),
        include_str!("../../../web/static/log.js"),
    ];
    Asset::new("log", "js", "text/javascript; charset=utf-8", parts.concat().into_bytes())
});

/// The picture of the browser's tab.
static ICON: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("icon", "svg", "image/svg+xml", include_bytes!("../../../web/static/icon.svg").to_vec())
});

/// Each part in a block of its own, so that their names do not meet.
fn modules(parts: &[&str]) -> Vec<u8> {
    parts.iter().map(|part| format!("{{\n{part}}}\n")).collect::<String>().into_bytes()
}

impl Asset {
    fn new(stem: &str, ending: &str, kind: &'static str, plain: Vec<u8>) -> Self {
        let digest = blake3::hash(&plain).to_hex();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Writing to memory cannot fail; an empty one is not sent.
        let gzip = encoder.write_all(&plain).and_then(|()| encoder.finish()).unwrap_or_default();
        Self { name: format!("{stem}.{}.{ending}", &digest[..12]), kind, plain, gzip }
    }

    fn url(&self) -> String {
        format!("/static/{}", self.name)
    }
}

/// Where the style is.
pub fn style() -> String {
    STYLE.url()
}

/// Where the script is.
pub fn script() -> String {
    SCRIPT.url()
}

/// Where the script of logs is.
pub fn log_script() -> String {
    LOG_SCRIPT.url()
}

/// Where the icon is.
pub fn icon() -> String {
    ICON.url()
}

/// One of the files. Nothing of them is secret, and nobody is asked who they are.
pub async fn serve(Path(name): Path<String>, asked: HeaderMap) -> Answer<Response> {
    let all = [&*STYLE, &*SCRIPT, &*LOG_SCRIPT, &*ICON];
    let asset = all.into_iter().find(|asset| asset.name == name);
    let asset = asset.ok_or_else(|| Problem::missing(format!("there is no file {name}")))?;
    let accepted = asked.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let packed = !asset.gzip.is_empty() && accepted.split(',').any(|one| one.trim().starts_with("gzip"));
    let bytes = if packed { &asset.gzip } else { &asset.plain };
    let mut response = bytes.as_slice().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
