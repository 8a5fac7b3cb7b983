//! Private networks, and where a unit's port is reached.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder};

use super::connect::Reach;
use super::{DockerRunner, fault, state};
use crate::runner::spec::{LABEL_INSTANCE, UnitName};
use crate::runner::{RunnerError, ports};

/// See [`crate::runner::Runner::address`].
pub(super) async fn address(runner: &DockerRunner, name: &UnitName, port: u16) -> Result<SocketAddr, RunnerError> {
    let found = state::inspect(runner, name).await?;
    let settings = found.network_settings.unwrap_or_default();
    match runner.reach {
        Reach::Direct => {
            let networks = settings.networks.unwrap_or_default();
            let ip = networks.values().find_map(|network| network.ip_address.as_deref()?.parse::<IpAddr>().ok());
            ip.map(|ip| SocketAddr::new(ip, port)).ok_or_else(|| {
                fault::other(format!("`{name}` has no address: it is not running, or its stage says `network: none`"))
            })
        }
        Reach::Published { bind, connect } => {
            let ports = settings.ports.unwrap_or_default();
            let bindings = ports.get(&format!("{port}/tcp")).and_then(Option::as_deref).unwrap_or_default();
            let host_ip = |ip: &Option<String>| ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
            let binding = bindings.iter().find(|binding| host_ip(&binding.host_ip) == Some(bind));
            let outer = binding.and_then(|binding| binding.host_port.as_deref()?.parse().ok());
            outer.map(|outer| SocketAddr::new(connect, outer)).ok_or_else(|| {
                fault::other(format!(
                    "port {port} of `{name}` is not published: it is not running, or was made without it"
                ))
            })
        }
    }
}

/// See [`crate::runner::Runner::stranger_on`].
pub(super) async fn stranger_on(
    runner: &DockerRunner,
    port: u16,
    ours: Option<&UnitName>,
) -> Result<Option<String>, RunnerError> {
    let filters = HashMap::from([("publish", vec![port.to_string()])]);
    let options = ListContainersOptionsBuilder::new().filters(&filters).build();
    let found = runner.docker.list_containers(Some(options)).await;
    let found = found.map_err(|error| runner.fault("list the containers", &error))?;
    for container in &found {
        // The filter also finds who publishes an inner port of that number elsewhere.
        let has_it = container.ports.iter().flatten().any(|binding| binding.public_port == Some(port));
        let name = container.names.iter().flatten().next().map(|name| name.trim_start_matches('/')).unwrap_or_default();
        match ours {
            Some(ours) if name == ours.0 => return Ok(None),
            Some(_) | None if has_it => {
                let image = container.image.as_deref().unwrap_or_default();
                return Ok(Some(format!("the container `{name}` (image `{image}`)")));
            }
            Some(_) | None => {}
        }
    }
    Ok(match runner.reach {
        Reach::Direct => ports::user_of(port),
        // The port is another machine's.
        Reach::Published { .. } => None,
    })
}

/// See [`crate::runner::Runner::create_network`].
pub(super) async fn create(runner: &DockerRunner, name: &str) -> Result<(), RunnerError> {
    state::check_name(&UnitName(name.to_owned()))?;
    // The engine allows several networks of one name, so it must be looked for first.
    if ours(runner).await?.iter().any(|network| network == name) {
        return Ok(());
    }
    let request = NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".to_owned()),
        labels: Some(HashMap::from([(LABEL_INSTANCE.to_owned(), runner.settings.instance.clone())])),
        ..NetworkCreateRequest::default()
    };
    runner.docker.create_network(request).await.map(drop).map_err(|error| match fault::answer(&error) {
        Some((_, text)) if text.contains("non-overlapping") || text.contains("address pools") => fault::other(format!(
            "cannot make network `{name}`: the engine has no address range left; remove networks that nobody uses \
             (`docker network prune`) or give it more (`default-address-pools` in its daemon.json)"
        )),
        Some(_) | None => runner.fault(&format!("make network `{name}`"), &error),
    })
}

/// See [`crate::runner::Runner::remove_network`]. Whatever still hangs on it is cut off.
pub(super) async fn remove(runner: &DockerRunner, name: &str) -> Result<(), RunnerError> {
    state::check_name(&UnitName(name.to_owned()))?;
    match runner.docker.remove_network(name).await {
        Ok(()) => Ok(()),
        Err(error) if fault::is_absent(&error) => Ok(()),
        Err(error) => Err(runner.fault(&format!("remove network `{name}`"), &error)),
    }
}

/// See [`crate::runner::Runner::list_networks`].
pub(super) async fn list(runner: &DockerRunner) -> Result<Vec<String>, RunnerError> {
    ours(runner).await
}

async fn ours(runner: &DockerRunner) -> Result<Vec<String>, RunnerError> {
    let label = format!("{LABEL_INSTANCE}={}", runner.settings.instance);
    let options = ListNetworksOptionsBuilder::new().filters(&HashMap::from([("label", vec![label])])).build();
    let found = runner.docker.list_networks(Some(options)).await;
    let found = found.map_err(|error| runner.fault("list the networks", &error))?;
    let mut names: Vec<_> = found.into_iter().filter_map(|network| network.name).collect();
    names.sort();
    names.dedup();
    Ok(names)
}
