//! Making a container: every limit and every rule of security is set here, then the workspace goes in.
//!
//! The workspace is `/workspace` and belongs to the image's user. A container whose filling was cut short was never
//! started, so that the next `create` of that name throws it away and makes it anew.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, DeviceRequest, EndpointSettings, HostConfig, HostConfigLogConfig, ImageConfig, Mount,
    MountType, NetworkingConfig, PortBinding, PortMap, RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::archive::{Repack, repack, upload};
use super::connect::Reach;
use super::owner::{self, Owner};
use super::{DockerRunner, fault, state};
use crate::pipeline::types::{Network, Resources};
use crate::runner::spec::{CacheMount, Command, LABEL_INSTANCE, UnitName, UnitSpec};
use crate::runner::{RunnerError, TarStream, UnitStatus};

/// Where the workspace is in every container.
pub const WORKSPACE: &str = "/workspace";

/// The label that lists which labels are ours: a container also has all labels of its image.
pub(super) const LABEL_GIVEN: &str = "orchestrator.given";

/// Taken from the engine's default set. What is left lets `apt-get` and `pip` work in a stage (chown, setuid, ...).
const DROPPED: [&str; 5] = ["NET_RAW", "MKNOD", "AUDIT_WRITE", "SETFCAP", "SYS_CHROOT"];

/// Bytes of `/dev/shm`. The engine's 64 MiB make the data loaders of ML frameworks crash; what is used counts as the
/// unit's memory in any case.
const SHARED_MEMORY: i64 = 1 << 30;

/// See [`crate::runner::Runner::create`].
pub(super) async fn create(
    runner: &DockerRunner,
    unit: &UnitSpec,
    workspace: Option<TarStream>,
) -> Result<(), RunnerError> {
    state::check_name(&unit.name)?;
    let image = unit
        .image
        .as_deref()
        .ok_or_else(|| RunnerError::Unsupported(format!("`{}` names no image, which Docker needs", unit.name)))?;
    let found = runner.docker.inspect_image(image).await.map_err(|error| missing_image(runner, image, &error))?;
    let config = found.config.unwrap_or_default();
    let caches = resolve_caches(unit, &config);
    for cache in &caches {
        create_volume(runner, &cache.volume).await?;
    }
    make(runner, unit, body(runner, unit, image, &caches)).await?;
    let filled = fill(runner, unit, &caches, config.user.as_deref().unwrap_or(""), workspace).await;
    if filled.is_err() {
        // Best effort: the next `create` or the collection of garbage would find it too.
        if let Err(error) = state::remove(runner, &unit.name).await {
            tracing::warn!(unit = %unit.name, %error, "cannot remove a container that could not be filled");
        }
    }
    filled
}

fn missing_image(runner: &DockerRunner, image: &str, error: &bollard::errors::Error) -> RunnerError {
    if fault::is_absent(error) {
        let detail = "it was there and has been removed from the engine since; start the build again".to_owned();
        return RunnerError::Image { image: image.to_owned(), detail };
    }
    runner.fault(&format!("look at image `{image}`"), error)
}

/// Creates the container; one of that name which was never started gives way.
async fn make(runner: &DockerRunner, unit: &UnitSpec, mut body: ContainerCreateBody) -> Result<(), RunnerError> {
    let options = || CreateContainerOptionsBuilder::new().name(&unit.name.0).build();
    // Twice for a name that is taken, once more for a limit that is above what the host has.
    for _ in 0..3 {
        let Err(error) = runner.docker.create_container(Some(options()), body.clone()).await else { return Ok(()) };
        match fault::answer(&error) {
            Some((409, _)) => clear(runner, &unit.name).await?,
            Some((400, text)) if text.contains("Range of CPUs") => {
                // More processors than the host has: that limits nothing, and is no reason to fail.
                let host = body.host_config.get_or_insert_default();
                host.nano_cpus = None;
            }
            Some((400, text)) => {
                return Err(RunnerError::Unsupported(format!("`{}` cannot be made: {text}", unit.name)));
            }
            Some((404, text)) if text.to_ascii_lowercase().contains("image") => {
                return Err(missing_image(runner, unit.image.as_deref().unwrap_or(""), &error));
            }
            Some(_) | None => return Err(runner.fault(&format!("make container `{}`", unit.name), &error)),
        }
    }
    Err(fault::other(format!("the name `{}` is taken again and again by someone else", unit.name)))
}

/// Makes room for a container whose name is taken by one that was never started.
async fn clear(runner: &DockerRunner, name: &UnitName) -> Result<(), RunnerError> {
    let found = match state::inspect(runner, name).await {
        Ok(found) => found,
        Err(RunnerError::Absent(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
    if labels.and_then(|labels| labels.get(LABEL_INSTANCE)) != Some(&runner.settings.instance) {
        return Err(fault::other(format!("there is a container `{name}` already, and it is not ours")));
    }
    if state::of(&found) != UnitStatus::Created {
        return Err(RunnerError::AlreadyStarted(name.clone()));
    }
    state::remove(runner, name).await
}

/// A cache with the volume's and the folder's full names.
struct Cache {
    volume: String,
    target: String,
    /// Folders between the user's home and the cache, which must belong to the user too.
    parents: Vec<String>,
    read_only: bool,
}

fn resolve_caches(unit: &UnitSpec, image: &ImageConfig) -> Vec<Cache> {
    let home = home(unit, image);
    unit.caches.iter().map(|cache| resolve_cache(cache, &home)).collect()
}

fn resolve_cache(cache: &CacheMount, home: &str) -> Cache {
    let mut parents = Vec::new();
    let target = if let Some(rest) = cache.path.strip_prefix("~/") {
        let target = Path::new(home).join(rest);
        let between = target.ancestors().skip(1).take_while(|folder| folder.as_os_str().len() > home.len());
        parents = between.map(|folder| folder.display().to_string()).collect();
        parents.reverse();
        target
    } else {
        // An absolute path replaces the workspace's.
        Path::new(WORKSPACE).join(&cache.path)
    };
    Cache { volume: cache.volume.clone(), target: target.display().to_string(), parents, read_only: cache.read_only }
}

/// The user's home: `HOME` as set by the unit or the image, else by the user's name. A numeric user has none but `/`.
fn home(unit: &UnitSpec, image: &ImageConfig) -> String {
    let set = unit.env.iter().find(|(name, _)| name == "HOME").map(|(_, value)| value.clone());
    let by_image = || image.env.iter().flatten().find_map(|line| line.strip_prefix("HOME=").map(str::to_owned));
    let user = image.user.as_deref().unwrap_or("").split(':').next().unwrap_or("");
    let by_user = || match user {
        "" | "root" | "0" => "/root".to_owned(),
        number if number.bytes().all(|b| b.is_ascii_digit()) => "/".to_owned(),
        name => format!("/home/{name}"),
    };
    set.or_else(by_image).filter(|home| home.starts_with('/')).unwrap_or_else(by_user)
}

/// The engine's name of a cache.
pub(super) fn volume_name(instance: &str, volume: &str) -> String {
    format!("orchestrator-{instance}-{volume}")
}

/// The rule for [`CacheMount::volume`], which keeps it out of the rest of the API's paths.
pub(super) fn check_volume(volume: &str) -> Result<(), RunnerError> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if !volume.is_empty() && volume.bytes().all(good) {
        return Ok(());
    }
    Err(fault::other(format!("`{volume}` is not a valid name of a cache volume")))
}

/// Idempotent: a volume that is there is left as it is.
async fn create_volume(runner: &DockerRunner, volume: &str) -> Result<(), RunnerError> {
    check_volume(volume)?;
    let labels = HashMap::from([(LABEL_INSTANCE.to_owned(), runner.settings.instance.clone())]);
    let name = Some(volume_name(&runner.settings.instance, volume));
    let request = VolumeCreateRequest { name, labels: Some(labels), ..VolumeCreateRequest::default() };
    let made = runner.docker.create_volume(request).await;
    made.map(drop).map_err(|error| runner.fault(&format!("make cache volume `{volume}`"), &error))
}

/// Everything about the container that is to be made.
fn body(runner: &DockerRunner, unit: &UnitSpec, image: &str, caches: &[Cache]) -> ContainerCreateBody {
    let (entrypoint, arguments) = match &unit.command {
        Command::Steps(steps) => {
            let mut arguments = steps.arguments();
            let rest = arguments.split_off(1);
            (Some(arguments), Some(rest))
        }
        Command::Arguments(arguments) => (None, Some(arguments.clone())),
        Command::ImageDefault => (None, None),
    };
    let steps = matches!(unit.command, Command::Steps(_));
    let ports = ports(runner, unit);
    let mut env: Vec<String> = unit.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if unit.workspace_variable {
        env.push(format!("ORCHESTRATOR_WORKSPACE={WORKSPACE}"));
    }
    ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint,
        cmd: arguments,
        env: Some(env),
        labels: Some(labels(runner, unit)),
        // An image that runs as it is (a database, say) may count on its own folder.
        working_dir: (unit.command != Command::ImageDefault).then(|| WORKSPACE.to_owned()),
        tty: Some(false),
        open_stdin: Some(false),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        exposed_ports: ports.as_ref().map(|ports| ports.keys().cloned().collect()),
        stop_timeout: i64::try_from(unit.grace.as_secs()).ok(),
        networking_config: join(unit),
        host_config: Some(HostConfig {
            port_bindings: ports,
            // The wrapper of steps passes signals on by itself, and is spared the extra process.
            init: Some(runner.init && !steps),
            ..host_config(&runner.settings, unit, caches)
        }),
        ..ContainerCreateBody::default()
    }
}

fn host_config(settings: &super::DockerSettings, unit: &UnitSpec, caches: &[Cache]) -> HostConfig {
    let Resources { cpus, memory_bytes, pids, gpus } = &unit.resources;
    let defaults = &settings.defaults;
    let memory = memory_bytes.or(defaults.memory_bytes).map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let restart = RestartPolicy { name: Some(RestartPolicyNameEnum::UNLESS_STOPPED), maximum_retry_count: None };
    HostConfig {
        cap_drop: Some(DROPPED.map(str::to_owned).to_vec()),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        privileged: Some(false),
        memory,
        // The sum of memory and swap: equal means no swap.
        memory_swap: memory,
        #[expect(clippy::cast_possible_truncation, reason = "a number of processors in billionths is far below 2^63")]
        nano_cpus: cpus.or(defaults.cpus).map(|cpus| (cpus * 1e9).round() as i64),
        pids_limit: pids.or(defaults.pids).map(i64::from),
        device_requests: gpus.or(defaults.gpus).filter(|count| *count > 0).map(|count| vec![gpu(count)]),
        shm_size: Some(SHARED_MEMORY),
        log_config: Some(log_config(unit.restart)),
        network_mode: network_mode(unit),
        restart_policy: unit.restart.then_some(restart),
        mounts: Some(caches.iter().map(|cache| mount(&settings.instance, cache)).collect()),
        ..HostConfig::default()
    }
}

/// This log is where output is read again from, so it must keep everything. Every option is named, as the engine would
/// fill the others in from its own defaults: rotation (there is no word for "none", hence the size) and dropping lines.
/// A deployment may run for years, and nobody reads its output again from the first byte: there the oldest is dropped.
fn log_config(deployment: bool) -> HostConfigLogConfig {
    let (size, files) = if deployment { ("16m", "2") } else { ("1000t", "1") };
    let options = [("max-size", size), ("max-file", files), ("compress", "false"), ("mode", "blocking")];
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(options.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
    }
}

fn gpu(count: u32) -> DeviceRequest {
    DeviceRequest {
        count: Some(i64::from(count)),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    }
}

fn mount(instance: &str, cache: &Cache) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume_name(instance, &cache.volume)),
        target: Some(cache.target.clone()),
        read_only: Some(cache.read_only),
        ..Mount::default()
    }
}

/// `none` wins over a network to join; `None` is the engine's usual one.
fn network_mode(unit: &UnitSpec) -> Option<String> {
    match unit.network {
        Network::None => Some("none".to_owned()),
        Network::Default => unit.join.as_ref().map(|join| join.network.clone()),
    }
}

fn join(unit: &UnitSpec) -> Option<NetworkingConfig> {
    let join = unit.join.as_ref().filter(|_| unit.network == Network::Default)?;
    let settings = EndpointSettings { aliases: Some(join.aliases.clone()), ..EndpointSettings::default() };
    Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(join.network.clone(), settings)])) })
}

/// What is published on the host: the fixed port of a deployment, and an ephemeral one where that is how we get there.
fn ports(runner: &DockerRunner, unit: &UnitSpec) -> Option<PortMap> {
    let inner = unit.port.or(unit.publish)?;
    let binding = |ip: std::net::IpAddr, port: u16| PortBinding {
        host_ip: Some(ip.to_string()),
        host_port: Some(if port == 0 { String::new() } else { port.to_string() }),
    };
    let fixed = unit.publish.map(|port| binding(runner.settings.publish_address, port));
    let reached = match runner.reach {
        Reach::Direct => None,
        Reach::Published { bind, .. } => Some(binding(bind, 0)),
    };
    let bindings: Vec<_> = fixed.into_iter().chain(reached).collect();
    (!bindings.is_empty() && unit.network == Network::Default)
        .then(|| HashMap::from([(format!("{inner}/tcp"), Some(bindings))]))
}

fn labels(runner: &DockerRunner, unit: &UnitSpec) -> HashMap<String, String> {
    let given = unit.labels.keys().map(String::as_str).collect::<Vec<_>>().join(",");
    let own = [
        (LABEL_GIVEN.to_owned(), given),
        // Whatever was given: these are the units that `list` of this runner must find.
        (LABEL_INSTANCE.to_owned(), runner.settings.instance.clone()),
    ];
    unit.labels.clone().into_iter().chain(own).collect()
}

/// Makes the workspace and the caches belong to the image's user, and unpacks the tree.
async fn fill(
    runner: &DockerRunner,
    unit: &UnitSpec,
    caches: &[Cache],
    user: &str,
    workspace: Option<TarStream>,
) -> Result<(), RunnerError> {
    let owner = owner::find(runner, &unit.name, user).await?;
    // The engine itself makes the working folder and mount points, for root.
    if owner != owner::ROOT || unit.command == Command::ImageDefault {
        let folders = folders(caches, owner).map_err(|error| fault::other(format!("cannot pack a folder: {error}")))?;
        upload(runner, &unit.name, "/", stream::iter([Ok(Bytes::from(folders))]).boxed()).await?;
    }
    let Some(workspace) = workspace else { return Ok(()) };
    let plan = Repack { owner, place: Box::new(|name| Some(PathBuf::from(name))) };
    upload(runner, &unit.name, WORKSPACE, repack(workspace, plan, &runner.tasks)).await
}

/// An archive of empty folders: an entry of a folder that is there gives it its owner.
fn folders(caches: &[Cache], owner: Owner) -> std::io::Result<Vec<u8>> {
    let writable = caches.iter().filter(|cache| !cache.read_only);
    let caches = writable.flat_map(|cache| cache.parents.iter().chain([&cache.target]));
    let mut builder = tar::Builder::new(Vec::new());
    for folder in [WORKSPACE].into_iter().chain(caches.map(String::as_str)) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_uid(owner.uid);
        header.set_gid(owner.gid);
        header.set_size(0);
        builder.append_data(&mut header, folder.trim_start_matches('/'), std::io::empty())?;
    }
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(path: &str, home: &str) -> (String, Vec<String>) {
        let mount = CacheMount { path: path.to_owned(), volume: "v".to_owned(), read_only: false };
        let cache = resolve_cache(&mount, home);
        (cache.target, cache.parents)
    }

    #[test]
    fn caches_find_their_place() {
        let check = |path: &str, home: &str, target: &str, parents: &[&str]| {
            let parents: Vec<_> = parents.iter().map(|folder| (*folder).to_owned()).collect();
            assert_eq!(cache(path, home), (target.to_owned(), parents), "{path}");
        };
        check("~/.cache/pip", "/root", "/root/.cache/pip", &["/root/.cache"]);
        check("~/x", "/srv/app", "/srv/app/x", &[]);
        check("/var/cache", "/root", "/var/cache", &[]);
        check("data/raw", "/root", "/workspace/data/raw", &[]);
    }
}
