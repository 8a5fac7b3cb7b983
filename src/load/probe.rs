//! One look whether a server is ready.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use crate::load::checks::run_checks;
use crate::load::target::Target;
use crate::pipeline::types::{ApiCheck, Body, Expect, HttpRequest};

/// The longest that one look takes.
const LOOK: Duration = Duration::from_secs(5);

/// The server at an address, for checks and load.
pub fn target(address: SocketAddr) -> Target {
    let url = format!("http://{address}/");
    Target::new(Url::parse(&url).expect("an address makes a URL"))
}

/// Ready is a good answer to `GET path`, or an accepted connection where there is no path. The error says what was seen.
pub async fn probe(address: SocketAddr, path: Option<&str>) -> Result<(), String> {
    let looked = match path {
        None => {
            timeout(LOOK, TcpStream::connect(address)).await.map(|done| done.map(|_| ()).map_err(|e| e.to_string()))
        }
        Some(path) => timeout(LOOK, get(address, path)).await,
    };
    looked.unwrap_or_else(|_| Err(format!("no answer within {} s", LOOK.as_secs())))
}

async fn get(address: SocketAddr, path: &str) -> Result<(), String> {
    let request =
        HttpRequest { method: "GET".to_owned(), path: path.to_owned(), headers: Default::default(), body: Body::None };
    let check = ApiCheck { name: format!("GET {path}"), request, expect: Expect::default() };
    let results = run_checks(&target(address), &[check]).await.map_err(|error| error.to_string())?;
    match results.first() {
        Some(result) if !result.passed => Err(format!("GET {path}: {}", result.failures.join("; "))),
        Some(_) | None => Ok(()),
    }
}
