//! Finding the engine, agreeing on a version of its API, and what `doctor` tells about it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::{SystemInfo, SystemVersion};
use bollard::{BollardRequest, ClientVersion, Docker};
use hyper::header::HeaderValue;
use hyper::http::uri::{PathAndQuery, Uri};
use tokio_util::task::TaskTracker;

use super::fault;
use crate::pipeline::types::Resources;
use crate::runner::RunnerError;

/// The oldest API that is spoken: Docker 20.10.
const OLDEST: Version = Version { major: 1, minor: 41 };

/// How long the engine may take to begin its answer, where it has no reason to take long.
const ANSWER: Duration = Duration::from_secs(120);

/// How long it may take to say who it is.
const GREETING: Duration = Duration::from_secs(20);

/// How long it may take where work of unknown size comes before the answer (an upload is watched for stalls besides).
const LONG: Duration = Duration::from_secs(24 * 3600);

/// Processes and threads of a unit, if nothing else is asked for.
const DEFAULT_PIDS: u32 = 4096;

/// What a [`DockerRunner`] needs to know.
#[derive(Debug, Clone)]
pub struct DockerSettings {
    /// The data folder's instance: label and prefix of everything made. `[a-z0-9][a-z0-9-]*`.
    pub instance: String,
    /// `unix:///path` or `tcp://host:port`; `None`: `DOCKER_HOST`, else the usual sockets.
    pub host: Option<String>,
    /// The host's address on which deployments are published; 127.0.0.1 by default.
    pub publish_address: IpAddr,
    /// Limits of units that ask for none; 4096 processes by default, nothing else.
    pub defaults: Resources,
    /// Folder of the docker client's `config.json`, for registry credentials; `None`: `DOCKER_CONFIG`, else `~/.docker`.
    pub config_dir: Option<PathBuf>,
}

impl DockerSettings {
    /// The usual settings for an instance.
    pub fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            host: None,
            publish_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            defaults: Resources { pids: Some(DEFAULT_PIDS), ..Resources::default() },
            config_dir: None,
        }
    }
}

/// How this process reaches a container's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// By the container's own address: a Linux engine on this very host.
    Direct,
    /// By a port that the engine publishes on its host at `bind`, which is `connect` for us.
    Published { bind: IpAddr, connect: IpAddr },
}

/// Runs units as containers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DockerRunner {
    pub(super) docker: Docker,
    pub(super) host: String,
    pub(super) settings: DockerSettings,
    pub(super) reach: Reach,
    /// Whether the engine has its small init, which passes signals on and reaps what commands leave behind.
    pub(super) init: bool,
    /// Owns the tasks that pump output and archives; each ends with its unit or when nobody reads any more.
    pub(super) tasks: TaskTracker,
}

/// What `doctor` tells about an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineAbout {
    /// Where it was reached.
    pub host: String,
    /// The engine's version.
    pub version: String,
    /// The newest API that it speaks.
    pub api_version: String,
    /// The API that we speak with it.
    pub spoken_version: String,
    /// Its operating system's name.
    pub os: String,
    /// Whether it runs without root.
    pub rootless: bool,
    /// `1` or `2`.
    pub cgroup_version: Option<String>,
    /// For images and containers.
    pub storage_driver: String,
    /// Processors.
    pub ncpu: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Whether containers are reached by their own address, not by a published port.
    pub direct_addresses: bool,
}

impl DockerRunner {
    /// Finds the engine and agrees on a version.
    ///
    /// # Errors
    /// [`RunnerError::Unreachable`] with advice if none answers, [`RunnerError::Other`] if it is too old or the settings are wrong.
    pub async fn connect(settings: DockerSettings) -> Result<Self, RunnerError> {
        if !crate::ids::is_name(&settings.instance) {
            return Err(fault::other(format!("`{}` is not a valid instance name", settings.instance)));
        }
        let host = settings.host.clone().unwrap_or_else(usual_host);
        let plain = open(&host)?;
        let told = plain
            .clone()
            .with_timeout(GREETING)
            .version()
            .await
            .map_err(|error| fault::fault(&host, "ask for its version", &error))?;
        let version = agree(&told, &host)?;
        let docker = plain.with_request_modifier(move |request| adapt(request, version));
        let reach = reach(&docker, &host).await?;
        Ok(Self { docker, host, settings, reach, init: has_init(&told), tasks: TaskTracker::new() })
    }

    /// What `doctor` tells about the engine.
    ///
    /// # Errors
    /// [`RunnerError::Unreachable`] if it does not answer.
    pub async fn about(&self) -> Result<EngineAbout, RunnerError> {
        let version = self.docker.version().await.map_err(|error| self.fault("ask for its version", &error))?;
        let info = self.docker.info().await.map_err(|error| self.fault("ask what it is", &error))?;
        let spoken = agree(&version, &self.host)?;
        Ok(EngineAbout {
            host: self.host.clone(),
            version: version.version.unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
            spoken_version: spoken.to_string(),
            os: info.operating_system.clone().unwrap_or_default(),
            rootless: is_rootless(&info),
            cgroup_version: info.cgroup_version.map(|version| version.to_string()),
            storage_driver: info.driver.clone().unwrap_or_default(),
            ncpu: info.ncpu.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            memory_bytes: info.mem_total.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            direct_addresses: self.reach == Reach::Direct,
        })
    }

    /// Whether the engine answers.
    ///
    /// # Errors
    /// [`RunnerError::Unreachable`] if it does not.
    pub async fn ping(&self) -> Result<(), RunnerError> {
        self.docker.ping().await.map(drop).map_err(|error| self.fault("say hello", &error))
    }

    /// A connection whose answers may be long in coming.
    pub(super) fn patient(&self) -> Docker {
        self.docker.clone().with_timeout(LONG)
    }

    pub(super) fn fault(&self, doing: &str, error: &bollard::errors::Error) -> RunnerError {
        fault::fault(&self.host, doing, error)
    }
}

fn is_rootless(info: &SystemInfo) -> bool {
    info.security_options.iter().flatten().any(|option| option.contains("name=rootless"))
}

/// `DOCKER_HOST`, else the first of the usual sockets that exists, else the most usual one (for the error's text).
fn usual_host() -> String {
    if let Some(host) = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
        return host;
    }
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let candidates = [
        Some(PathBuf::from("/var/run/docker.sock")),
        variable("XDG_RUNTIME_DIR").map(|folder| folder.join("docker.sock")),
        variable("HOME").map(|folder| folder.join(".docker/run/docker.sock")),
    ];
    let found = candidates.iter().flatten().find(|path| path.exists());
    let path = found.map_or(Path::new("/var/run/docker.sock"), PathBuf::as_path);
    format!("unix://{}", path.display())
}

fn open(host: &str) -> Result<Docker, RunnerError> {
    let tls = std::env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty());
    if host.starts_with("ssh://") || host.starts_with("https://") || (tls && host.starts_with("tcp://")) {
        let detail = format!(
            "{host} needs SSH or TLS, which is not spoken here; forward its socket \
             (`ssh -NL /tmp/engine.sock:/var/run/docker.sock HOST`) and set DOCKER_HOST=unix:///tmp/engine.sock"
        );
        return Err(fault::unreachable_engine(detail));
    }
    // bollard wants the newest version that it knows; what is spoken is set by `adapt`.
    let newest = ClientVersion { major_version: 1, minor_version: 53 };
    let seconds = ANSWER.as_secs();
    let opened = if host.starts_with("unix://") {
        Docker::connect_with_unix(host, seconds, &newest)
    } else if host.starts_with("tcp://") || host.starts_with("http://") {
        Docker::connect_with_http(host, seconds, &newest)
    } else {
        let detail = format!("`{host}` is no address of an engine; it looks like unix:///path or tcp://host:port");
        return Err(fault::unreachable_engine(detail));
    };
    opened.map_err(|error| fault::fault(host, "connect", &error))
}

/// A version of the engine's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The oldest version that both sides speak: what is spoken everywhere is then what is tested everywhere.
fn agree(told: &SystemVersion, host: &str) -> Result<Version, RunnerError> {
    let read = |text: &Option<String>| text.as_deref().and_then(Version::parse);
    let newest = read(&told.api_version)
        .ok_or_else(|| fault::other(format!("{host} does not say which version of the API it speaks")))?;
    if newest < OLDEST {
        let detail = format!(
            "the engine at {host} is too old: it speaks version {newest} of the API, and {OLDEST} (Docker 20.10) is needed"
        );
        return Err(fault::other(detail));
    }
    Ok(read(&told.min_api_version).map_or(OLDEST, |least| least.max(OLDEST)))
}

/// Puts the version into the path (bollard leaves it out), and credentials into the alphabet that the engine reads.
fn adapt(mut request: BollardRequest, version: Version) -> BollardRequest {
    let mut parts = request.uri().clone().into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
    parts.path_and_query = PathAndQuery::try_from(format!("/v{version}{path}")).ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    for name in ["x-registry-auth", "x-registry-config"] {
        let url_safe = request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| HeaderValue::from_str(&text.replace('+', "-").replace('/', "_")).ok());
        if let Some(value) = url_safe {
            request.headers_mut().insert(name, value);
        }
    }
    request
}

/// Whether the engine's host has the small init program; the engine itself tells only by its version.
fn has_init(told: &SystemVersion) -> bool {
    let mut parts = told.components.iter().flatten();
    parts.any(|part| part.name == "docker-init" && !part.version.is_empty() && part.version != "N/A")
}

/// Decides how containers are reached. The default bridge's gateway is an address of the engine's host: if it can be
/// bound here, then this is the very same network stack and the containers' addresses can be used.
async fn reach(docker: &Docker, host: &str) -> Result<Reach, RunnerError> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let published = |address| Reach::Published { bind: address, connect: address };
    if !host.starts_with("unix://") {
        return remote(host).await;
    }
    let Some(gateway) = bridge_gateway(docker).await else { return Ok(published(loopback)) };
    if UdpSocket::bind((gateway, 0)).is_ok() {
        return Ok(Reach::Direct);
    }
    // In a container beside the engine its host is reached by the gateway; else it is an engine in a virtual machine
    // or without root, both of which forward published ports to our loopback.
    let contained = ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists());
    Ok(published(if contained { gateway } else { loopback }))
}

async fn remote(host: &str) -> Result<Reach, RunnerError> {
    let address = host.split_once("://").map_or(host, |(_, rest)| rest);
    let mut found = tokio::net::lookup_host(address)
        .await
        .map_err(|error| fault::unreachable_engine(format!("cannot find the address of {host}: {error}")))?;
    let wrong = || fault::unreachable_engine(format!("{host} has no address"));
    let connect = found.next().ok_or_else(wrong)?.ip();
    let bind = if connect.is_loopback() { connect } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    Ok(Reach::Published { bind, connect })
}

async fn bridge_gateway(docker: &Docker) -> Option<IpAddr> {
    let bridge = docker.inspect_network("bridge", None).await.ok()?;
    let configs = bridge.ipam?.config?;
    let told = configs.iter().filter_map(|config| config.gateway.as_deref()?.parse().ok()).find(IpAddr::is_ipv4);
    // An engine that was started for the first time tells its range alone, and has taken the first address of it.
    told.or_else(|| configs.iter().find_map(|config| first_address(config.subnet.as_deref()?)))
}

/// The first address of an IPv4 range like `172.17.0.0/16`.
fn first_address(range: &str) -> Option<IpAddr> {
    let (network, _) = range.split_once('/')?;
    let network: Ipv4Addr = network.parse().ok()?;
    Some(IpAddr::V4(Ipv4Addr::from_bits(network.to_bits().checked_add(1)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(newest: &str, least: &str) -> SystemVersion {
        let text = |text: &str| Some(text.to_owned());
        SystemVersion { api_version: text(newest), min_api_version: text(least), ..SystemVersion::default() }
    }

    #[test]
    fn the_first_address_of_a_range() {
        assert_eq!(first_address("172.17.0.0/16"), Some(IpAddr::from([172, 17, 0, 1])));
        assert_eq!(first_address("fd00::/64"), None);
        assert_eq!(first_address("255.255.255.255/32"), None);
        assert_eq!(first_address("172.17.0.0"), None);
    }

    #[test]
    fn speaks_the_oldest_that_both_know() {
        let check = |newest, least, expected: Option<&str>| {
            let got = agree(&told(newest, least), "h").ok().map(|version| version.to_string());
            assert_eq!(got.as_deref(), expected, "{newest} {least}");
        };
        check("1.41", "1.12", Some("1.41"));
        check("1.52", "1.44", Some("1.44"));
        check("1.40", "1.12", None);
        check("1.9", "1.1", None);
        check("x", "1.12", None);
    }

    #[test]
    fn requests_carry_version_and_url_safe_credentials() {
        let request = BollardRequest::new(bollard::body_full(bytes::Bytes::new()));
        let (mut parts, body) = request.into_parts();
        parts.uri = "unix://2f73/containers/json?all=true".parse().unwrap();
        parts.headers.insert("x-registry-auth", HeaderValue::from_static("a+/b"));
        let adapted = adapt(BollardRequest::from_parts(parts, body), OLDEST);
        assert_eq!(adapted.uri().to_string(), "unix://2f73/v1.41/containers/json?all=true");
        assert_eq!(adapted.headers()["x-registry-auth"], "a-_b");
    }

    #[tokio::test]
    async fn a_remote_engine_is_reached_by_published_ports() {
        let far = remote("tcp://192.0.2.7:2375").await.unwrap();
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        assert_eq!(far, Reach::Published { bind: any, connect: "192.0.2.7".parse().unwrap() });
        let near = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(remote("tcp://127.0.0.1:1").await.unwrap(), Reach::Published { bind: near, connect: near });
    }
}
