//! What serves where: how healthy it is, since when, from which build, and how much it is asked.

use std::sync::LazyLock;
use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use futures_util::future::join_all;
use reqwest::redirect::Policy;

use super::coded::Coded;
use super::mark::Mark;
use super::moment::Moment;
use super::serving::{Known, known, look, sees, standing};
use super::shell::{Section, Shell};
use super::visitor::Visitor;
use crate::deploy::Health;
use crate::engine::now;
use crate::store::access::Scope;
use crate::store::deployments::{self, DeploymentRow, DeploymentStatus};
use crate::web::App;
use crate::web::problem::Answer;
use crate::words;

/// Servers that are looked at for a page.
const LOOKED_AT: usize = 50;
/// Deployments of the past that are shown.
const PAST: usize = 30;
/// For how long a server is looked at.
const PATIENCE: Duration = Duration::from_secs(2);
/// The numbers that a server tells of itself, in bytes.
const LONGEST: usize = 512 << 10;

/// The routes.
pub fn router() -> Router<App> {
    Router::new().route("/deployments", get(show))
}

#[derive(Template)]
#[template(path = "deployments.html")]
struct DeploymentsPage {
    shell: Shell,
    open: Vec<Row>,
    past: Vec<Row>,
}

struct Row {
    mark: Mark,
    model: String,
    version: u64,
    build: Option<u64>,
    port: u16,
    runner: String,
    since: Moment,
    detail: String,
    requests: Option<String>,
}

async fn show(visitor: Visitor, State(app): State<App>) -> Answer<Response> {
    visitor.caller.may(Scope::Read)?;
    let read = app.engine.store.read(|db| {
        let open: Vec<DeploymentRow> = deployments::open(db)?;
        let past = deployments::list(db, PAST + open.len())?;
        let all = open.into_iter().chain(past.into_iter().filter(|row| !is_open(row)).take(PAST));
        all.map(|row| known(db, row)).collect::<Result<Vec<_>, _>>()
    });
    let seen = read.await?.into_iter().filter(|known| sees(&visitor, known));
    let (open, past): (Vec<Known>, Vec<Known>) = seen.partition(|(row, _)| is_open(row));
    let looks = open.iter().take(LOOKED_AT).map(|(row, _)| looked(&app, row));
    let looks = join_all(looks).await;
    let mut looks = looks.into_iter();
    let open = open.into_iter().map(|known| row(known, looks.next().unwrap_or_default())).collect();
    let past = past.into_iter().map(|known| row(known, Looked::default())).collect();
    // Whether a server answers is no event.
    let shell = Shell::new(&visitor, Section::Deployments, "Deployments").live("/api/v1/events").every(5);
    super::page(&DeploymentsPage { shell, open, past })
}

fn is_open(row: &DeploymentRow) -> bool {
    matches!(row.status, DeploymentStatus::Starting | DeploymentStatus::Live)
}

/// What a look at a server found.
#[derive(Debug, Default)]
struct Looked {
    health: Option<Health>,
    requests: Option<f64>,
}

async fn looked(app: &App, row: &DeploymentRow) -> Looked {
    if row.status != DeploymentStatus::Live {
        return Looked::default();
    }
    let (health, requests) = tokio::join!(look(app, row, PATIENCE), tokio::time::timeout(PATIENCE, requests(row.port)));
    Looked { health, requests: requests.ok().flatten() }
}

/// Asks the port and nobody else: a server that is asked has no say in where this daemon goes.
static ASKING: LazyLock<Option<reqwest::Client>> = LazyLock::new(|| {
    // The client wants to know who would encrypt; another part may have said so.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().redirect(Policy::none()).no_proxy().build().ok()
});

/// The requests that a server has counted, if it tells numbers for Prometheus, as ours does.
async fn requests(port: u16) -> Option<f64> {
    let mut answer = ASKING.as_ref()?.get(format!("http://127.0.0.1:{port}/metrics")).send().await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let mut text = Vec::new();
    while let Some(part) = answer.chunk().await.ok()? {
        if text.len() + part.len() > LONGEST {
            return None;
        }
        text.extend_from_slice(&part);
    }
    counted(&String::from_utf8_lossy(&text))
}

/// The sum of the counters named `..._requests_total` in Prometheus' text format.
fn counted(text: &str) -> Option<f64> {
    let value = |line: &str| {
        let (sample, rest) = match line.split_once('}') {
            Some((head, rest)) => (head.split_once('{')?.0, rest),
            None => line.split_once(' ')?,
        };
        sample.ends_with("requests_total").then(|| rest.split_whitespace().next()?.parse::<f64>().ok()).flatten()
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(value).reduce(|sum, one| sum + one)
}

fn row((row, from): Known, looked: Looked) -> Row {
    let (mark, detail) = standing(&row, looked.health);
    Row {
        mark,
        detail,
        model: row.model,
        version: row.version,
        build: from.map(|(_, build)| build),
        port: row.port,
        runner: row.runner,
        since: Moment::of(row.since, now()),
        requests: looked.requests.map(words::number),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives each request the same answer, and counts them.
    async fn server(answer: String) -> (u16, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (port, asked)
    }

    #[tokio::test]
    async fn a_server_does_not_lead_elsewhere() {
        let numbers = "x_requests_total 7\n";
        let length = numbers.len();
        let own = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{numbers}");
        let (elsewhere, asked) = server(own).await;
        assert_eq!(requests(elsewhere).await, Some(7.0));
        let away =
            format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{elsewhere}/\r\ncontent-length: 0\r\n\r\n");
        let (port, _) = server(away).await;
        assert_eq!(requests(port).await, None);
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1, "only as it was asked itself");
    }

    #[test]
    fn requests_are_the_sum_of_their_counters() {
        let text = "# HELP model_requests_total Requests.\n# TYPE model_requests_total counter\n\
                    model_requests_total{status=\"200\"} 40\nmodel_requests_total{status=\"422\"} 2 1700000000\n\
                    model_rows_total 900\nhttp_requests_total 8\n";
        assert_eq!(counted(text), Some(50.0));
        assert_eq!(counted("up 1\n"), None);
        assert_eq!(counted("requests_total{x=\"a b}\n"), None);
    }
}
