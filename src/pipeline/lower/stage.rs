//! A stage, with what it shares with the others applied.

use std::time::Duration;

use indexmap::IndexMap;

use super::triggers::globs;
use super::{Cx, http, loadtest, promote, train, tune};
use crate::ids::StageName;
use crate::pipeline::diagnostic::{Diagnostic, shown};
use crate::pipeline::tree::At;
use crate::pipeline::types::{
    ImageSource, Kind, Matrix, Network, OnInterrupt, Resources, Retry, RetryOn, Service, Stage, Step, When, WhenStatus,
    Work,
};
use crate::pipeline::{matrix, raw};

const HOUR: Duration = Duration::from_secs(3600);

/// What stages get from `defaults` and from the top of the file.
pub(super) struct Shared<'r> {
    defaults: Option<&'r raw::Defaults>,
    /// The default image.
    pub(super) image: Option<ImageSource>,
    /// Variables of the top of the file.
    pub(super) pipeline_env: IndexMap<String, String>,
    env: IndexMap<String, String>,
    secrets: Vec<String>,
    services: IndexMap<String, Service>,
    resources: Resources,
    retry: Retry,
    timeout: Duration,
    grace: Duration,
    cache: Vec<String>,
}

impl<'r> Shared<'r> {
    pub(super) fn new(
        defaults: Option<&'r raw::Defaults>,
        at: At<'_>,
        env: &IndexMap<String, String>,
        secrets: &[String],
        cx: &mut Cx<'_>,
    ) -> Self {
        let mut shared = Self {
            defaults,
            image: None,
            pipeline_env: env.clone(),
            env: env.clone(),
            secrets: secrets.to_vec(),
            services: IndexMap::new(),
            resources: Resources::default(),
            retry: Retry::default(),
            timeout: HOUR,
            grace: Duration::from_secs(10),
            cache: Vec::new(),
        };
        let Some(raw) = defaults else { return shared };
        shared.image = image(raw.image.as_ref(), raw.build.as_ref(), at, cx);
        let own = raw.env.as_ref().map(|env| cx.env(env, at.get("env"))).unwrap_or_default();
        shared.env.extend(own);
        let secrets = cx.secrets(raw.secrets.as_deref().unwrap_or(&[]), at.get("secrets"), &shared.env);
        add_missing(&mut shared.secrets, secrets);
        shared.services = services(raw.services.as_ref(), at.get("services"), cx).unwrap_or_default();
        shared.resources = cx.resources(raw.resources.as_ref(), at.get("resources"));
        shared.retry = retry(raw.retry.as_ref(), at.get("retry"), cx).unwrap_or_default();
        shared.timeout = cx.positive(raw.timeout.as_ref(), HOUR, at.get("timeout"), "timeout");
        shared.grace = cx.duration(raw.grace.as_ref(), shared.grace);
        shared.cache = caches(raw.cache.as_deref().unwrap_or(&[]), at.get("cache"), cx);
        shared
    }

    /// The default shell.
    pub(super) fn shell(&self) -> Option<Vec<String>> {
        self.defaults.and_then(|defaults| defaults.shell.clone())
    }
}

/// Lowers one stage.
pub(super) fn stage(name: &str, raw: &raw::Stage, at: At<'_>, shared: &Shared<'_>, cx: &mut Cx<'_>) -> Option<Stage> {
    let matrix = raw.matrix.as_ref().and_then(|raw| matrix_of(raw, at.get("matrix"), cx));
    cx.axes = matrix.as_ref().map(matrix::names).unwrap_or_default();
    // A matrix that is wrong itself would make every use of it look wrong too.
    if raw.matrix.is_some() && matrix.is_none() {
        cx.axes = references_to_matrix(at);
    }
    let defaults = shared.defaults;
    let own_image = image(raw.image.as_ref(), raw.build.as_ref(), at, cx);
    let shell = raw.shell.clone().or_else(|| shared.shell());
    let parts = WorkParts { run: raw.run.as_ref(), command: raw.command.as_ref(), shell };
    let work = work(&parts, raw.shell.is_some(), at, cx);
    let mut env = shared.env.clone();
    env.extend(raw.env.as_ref().map(|env| cx.env(env, at.get("env"))).unwrap_or_default());
    let mut secrets = shared.secrets.clone();
    add_missing(&mut secrets, cx.secrets(raw.secrets.as_deref().unwrap_or(&[]), at.get("secrets"), &env));
    let mut all_services = shared.services.clone();
    all_services.extend(services(raw.services.as_ref(), at.get("services"), cx).unwrap_or_default());
    let mut cache = shared.cache.clone();
    add_missing(&mut cache, caches(raw.cache.as_deref().unwrap_or(&[]), at.get("cache"), cx));
    let network =
        raw.network.or_else(|| defaults.and_then(|defaults| defaults.network)).map_or(Network::Default, network);
    no_services_without_network(network, raw, at, cx);
    let kind = kind(raw, at, cx);
    let is_promote = raw.promote.is_some();
    let own_retry = retry(raw.retry.as_ref(), at.get("retry"), cx);
    let on_interrupt = raw.on_interrupt.or_else(|| defaults.and_then(|defaults| defaults.on_interrupt));
    let own_resources = cx.resources(raw.resources.as_ref(), at.get("resources"));
    let needs = needs(raw, at.get("needs"), cx);
    rules_of_kind(name, raw, at, cx);
    Some(Stage {
        name: StageName::new(name).ok()?,
        needs: needs?,
        image: own_image.or_else(|| shared.image.clone()),
        work,
        kind: kind?,
        env,
        secrets,
        inputs: raw.inputs.as_ref().or_else(|| defaults.and_then(|d| d.inputs.as_ref())).map(|inputs| globs(inputs)),
        outputs: raw.outputs.iter().flatten().map(|path| path.0.clone()).collect(),
        cache,
        services: all_services,
        when: when(raw.when.as_ref()),
        matrix,
        retry: own_retry.unwrap_or_else(|| if is_promote { Retry::default() } else { shared.retry.clone() }),
        timeout: cx.positive(raw.timeout.as_ref(), shared.timeout, at.get("timeout"), "timeout"),
        grace: cx.duration(raw.grace.as_ref(), shared.grace),
        resources: merge(&own_resources, &shared.resources),
        network,
        allow_failure: raw.allow_failure.unwrap_or(false),
        on_interrupt: match on_interrupt {
            _ if is_promote => OnInterrupt::Fail,
            Some(raw::OnInterruptWord::Fail) => OnInterrupt::Fail,
            Some(raw::OnInterruptWord::Retry) | None => OnInterrupt::Retry,
        },
        runner: raw.runner.as_ref().or_else(|| defaults.and_then(|d| d.runner.as_ref())).map(|name| name.0.clone()),
        reuse: raw.reuse,
    })
}

/// The one kind of a stage.
fn kind(raw: &raw::Stage, at: At<'_>, cx: &mut Cx<'_>) -> Option<Kind> {
    let present: Vec<&str> =
        ["train", "test-api", "loadtest", "promote", "tune"].into_iter().filter(|key| at.get(key).exists()).collect();
    if let [first, second, ..] = present[..] {
        let message = format!("a stage can be `{first}` or `{second}`, not both");
        cx.push(
            Diagnostic::error("two-kinds", at.get(second).key_span(), message)
                .related(at.get(first).key_span(), "the other one")
                .help(format!("make two stages, the second one with `needs`, the first one with only `{first}`")),
        );
        return None;
    }
    let works = raw.run.is_some() || raw.command.is_some();
    if let Some(train) = &raw.train {
        return train::train(train, at, works, cx).map(Kind::Train);
    }
    if let Some(test_api) = &raw.test_api {
        return http::test_api(test_api, at.get("test-api"), works, cx).map(Kind::TestApi);
    }
    if let Some(loadtest) = &raw.loadtest {
        return loadtest::loadtest(loadtest, at.get("loadtest"), cx).map(Kind::Loadtest);
    }
    if let Some(promote) = &raw.promote {
        return promote::promote(promote, at.get("promote"), cx).map(Kind::Promote);
    }
    if let Some(tune) = &raw.tune {
        return tune::tune(tune, at, works, cx).map(Kind::Tune);
    }
    if !works && present.is_empty() && !at.get("run").exists() && !cx.sink.has_error_in(at.whole()) {
        cx.push(
            Diagnostic::error("nothing-to-do", at.key_span(), "the stage does nothing").help(
                "add `run`, `command`, or one of the kinds `train`, `test-api`, `loadtest`, `promote` and `tune`",
            ),
        );
        return None;
    }
    Some(Kind::Plain)
}

/// Keys that have no meaning for a kind.
fn rules_of_kind(name: &str, raw: &raw::Stage, at: At<'_>, cx: &mut Cx<'_>) {
    let engine_work = "the engine does all the work of this stage; put the script into a stage before it";
    let mut refuse = |key: &str, kind: &str, help: &str| {
        let key_at = at.get(key);
        if key_at.exists() {
            let message = format!("`{key}` has no meaning in the `{kind}` stage `{}`", shown(name));
            cx.push(Diagnostic::error("no-meaning-here", key_at.key_span(), message).help(help));
        }
    };
    if raw.loadtest.is_some() {
        refuse("run", "loadtest", engine_work);
        refuse("command", "loadtest", engine_work);
    }
    if raw.promote.is_some() {
        refuse("run", "promote", engine_work);
        refuse("command", "promote", engine_work);
        refuse("matrix", "promote", "one model is promoted by one stage");
        refuse("retry", "promote", "a promotion is never done again by itself; start the build again");
        if raw.on_interrupt == Some(raw::OnInterruptWord::Retry) {
            refuse("on_interrupt", "promote", "a promotion is never done again by itself");
        }
        if raw.reuse == Some(true) {
            refuse("reuse", "promote", "a promotion is judged each time");
        }
    }
}

fn needs(raw: &raw::Stage, at: At<'_>, cx: &mut Cx<'_>) -> Option<Vec<StageName>> {
    let mut found: Vec<StageName> = Vec::new();
    let mut good = true;
    for (index, name) in raw.needs.iter().flatten().enumerate() {
        match cx.stage_name(name, at.item(index)) {
            Some(name) if found.contains(&name) => {
                let message = format!("`{name}` is there twice");
                cx.push(Diagnostic::warning("double", at.item(index).span(), message).help("remove one"));
            }
            Some(name) => found.push(name),
            None => good = false,
        }
    }
    good.then_some(found)
}

/// `image` or `build`.
pub(super) fn image(
    image: Option<&raw::Template>,
    build: Option<&raw::Build>,
    at: At<'_>,
    cx: &mut Cx<'_>,
) -> Option<ImageSource> {
    if image.is_some() && build.is_some() {
        cx.push(
            Diagnostic::error("two-images", at.get("build").key_span(), "`image` and `build` exclude each other")
                .related(at.get("image").key_span(), "the other one")
                .help("keep `build` to make the image from the source tree, `image` to use a ready one"),
        );
    }
    if let Some(image) = image {
        let here = at.get("image");
        let text = cx.template(image, here);
        if text.trim().is_empty() || text.contains(char::is_whitespace) && !text.contains("${") {
            let message = format!("`{}` is not the name of an image", shown(&text));
            cx.push(Diagnostic::error("bad-image", here.span(), message).help("write it like `python:3.12-slim`"));
        }
        return Some(ImageSource::Image(text));
    }
    let build = build?;
    let at = at.get("build");
    let context = build.context.clone().unwrap_or_else(|| ".".to_owned());
    if context.starts_with(['/', '~']) || context.split('/').any(|part| part == "..") || context.is_empty() {
        let message = format!("`{}` is not a folder of the source tree", shown(&context));
        cx.push(Diagnostic::error("bad-path", at.get("context").span(), message).help("write `.` for the whole tree"));
    }
    Some(ImageSource::Build {
        context,
        dockerfile: build.dockerfile.as_ref().map_or_else(|| "Dockerfile".to_owned(), |path| path.0.clone()),
        args: build.args.iter().map(|(k, v)| (k.clone(), cx.template(v, at.get("args").get(k)))).collect(),
    })
}

/// What says what is run.
pub(super) struct WorkParts<'r> {
    pub(super) run: Option<&'r raw::Run>,
    pub(super) command: Option<&'r Vec<raw::Template>>,
    pub(super) shell: Option<Vec<String>>,
}

/// `run` or `command`.
pub(super) fn work(parts: &WorkParts<'_>, own_shell: bool, at: At<'_>, cx: &mut Cx<'_>) -> Option<Work> {
    if at.get("run").exists() && at.get("command").exists() {
        cx.push(
            Diagnostic::error("two-works", at.get("command").key_span(), "`run` and `command` exclude each other")
                .related(at.get("run").key_span(), "the other one")
                .help("`run` is a script for the image's shell, `command` are arguments for its own entrypoint"),
        );
        return None;
    }
    if own_shell && !at.get("run").exists() {
        let diagnostic =
            Diagnostic::error("no-meaning-here", at.get("shell").key_span(), "`shell` without `run` has no meaning");
        cx.push(diagnostic.help("remove it"));
    }
    if let Some(command) = parts.command {
        let at = at.get("command");
        let words = command.iter().enumerate().map(|(index, word)| cx.template(word, at.item(index))).collect();
        return Some(Work::Command(words));
    }
    let steps = match parts.run? {
        raw::Run::Script(script) => vec![Step { name: first_line(&script.0), script: script.0.clone() }],
        raw::Run::Steps(items) => {
            let at = at.get("run");
            let steps: Option<Vec<Step>> = items
                .iter()
                .enumerate()
                .map(|(index, item)| match item {
                    raw::StepItem::Script(script) => {
                        Some(Step { name: first_line(&script.0), script: script.0.clone() })
                    }
                    raw::StepItem::Named(step) => {
                        let script = step.run.as_ref()?.0.clone();
                        let name = step.name.as_ref().map(|name| cx.template(name, at.item(index).get("name")));
                        Some(Step { name: name.unwrap_or_else(|| first_line(&script)), script })
                    }
                })
                .collect();
            steps?
        }
    };
    Some(Work::Run { steps, shell: parts.shell.clone() })
}

/// The script's first line that says something, as the step's heading.
fn first_line(script: &str) -> String {
    let says = |line: &&str| !line.is_empty() && !line.starts_with('#') && !line.starts_with("set -");
    let line = script.lines().map(str::trim).find(says).unwrap_or_else(|| script.trim().lines().next().unwrap_or(""));
    let short: String = line.chars().take(80).collect();
    // A heading is a template; what looks like a substitution here belongs to the shell.
    short.replace("${", "$${")
}

fn services(
    raw: Option<&IndexMap<String, raw::Service>>,
    at: At<'_>,
    cx: &mut Cx<'_>,
) -> Option<IndexMap<String, Service>> {
    let mut made = IndexMap::new();
    for (name, raw) in raw? {
        let here = at.get(name);
        let Some(image) = &raw.image else { continue };
        let service = Service {
            image: cx.template(image, here.get("image")),
            env: cx.env(&raw.env, here.get("env")),
            ready: raw.ready.as_ref().map(|ready| cx.ready(Some(ready), here.get("ready"), None)),
            port: raw.port,
        };
        if raw.ready.is_some() && raw.port.is_none() {
            let message = format!("`ready` of the service `{name}` needs its `port`");
            cx.push(Diagnostic::error("missing-key", here.get("ready").key_span(), message).help("add `port`"));
        }
        made.insert(name.clone(), service);
    }
    Some(made)
}

fn no_services_without_network(network: Network, raw: &raw::Stage, at: At<'_>, cx: &mut Cx<'_>) {
    if network == Network::None && raw.services.as_ref().is_some_and(|services| !services.is_empty()) {
        let message = "the services cannot be reached: the stage has no network";
        cx.push(Diagnostic::error("no-network", at.get("services").key_span(), message).help("remove `network: none`"));
    }
}

fn caches(raw: &[String], at: At<'_>, cx: &mut Cx<'_>) -> Vec<String> {
    for (index, path) in raw.iter().enumerate() {
        let inner = path.trim_start_matches(['~', '/', '.']);
        let bad_tilde = path.starts_with('~') && !path.starts_with("~/");
        if inner.is_empty() || bad_tilde || path.split('/').any(|part| part == "..") {
            let message = format!("`{}` is not a folder that can be kept", shown(path));
            let help = "write a folder like `~/.cache/pip`, `/opt/data` or `node_modules`";
            cx.push(Diagnostic::error("bad-path", at.item(index).span(), message).help(help));
        }
    }
    raw.to_vec()
}

fn when(raw: Option<&raw::When>) -> When {
    let Some(raw) = raw else { return When::default() };
    let has = |word| raw.status.iter().flatten().any(|status| *status == word);
    let status = match (has(raw::StatusWord::Success), has(raw::StatusWord::Failure), has(raw::StatusWord::Always)) {
        (_, _, true) | (true, true, _) => WhenStatus::Always,
        (false, true, false) => WhenStatus::Failure,
        (_, false, false) => WhenStatus::Success,
    };
    When {
        event: raw.event.iter().map(|event| event.word().to_owned()).collect(),
        branch: globs(&raw.branch),
        tag: globs(&raw.tag),
        paths: globs(&raw.paths),
        status,
    }
}

fn retry(raw: Option<&raw::Retry>, at: At<'_>, cx: &mut Cx<'_>) -> Option<Retry> {
    let raw = raw?;
    let word = |word: &raw::RetryWord| match word {
        raw::RetryWord::Failure => RetryOn::Failure,
        raw::RetryWord::Timeout => RetryOn::Timeout,
        raw::RetryWord::Lost => RetryOn::Lost,
    };
    if raw.attempts == Some(1) && !cx.sink.has_error_in(at.whole()) {
        let help = "`attempts` counts the first one too: write `2` for one retry";
        cx.push(Diagnostic::warning("no-retry", at.get("attempts").span(), "one attempt means no retry").help(help));
    }
    Some(Retry {
        attempts: raw.attempts.unwrap_or(1),
        on: raw.on.as_ref().map_or_else(|| Retry::default().on, |on| on.iter().map(word).collect()),
        delay: cx.duration(raw.delay.as_ref(), Duration::ZERO),
    })
}

fn network(word: raw::NetworkWord) -> Network {
    match word {
        raw::NetworkWord::Default => Network::Default,
        raw::NetworkWord::None => Network::None,
    }
}

fn merge(own: &Resources, shared: &Resources) -> Resources {
    Resources {
        cpus: own.cpus.or(shared.cpus),
        memory_bytes: own.memory_bytes.or(shared.memory_bytes),
        pids: own.pids.or(shared.pids),
        gpus: own.gpus.or(shared.gpus),
    }
}

fn add_missing(to: &mut Vec<String>, from: Vec<String>) {
    for name in from {
        if !to.contains(&name) {
            to.push(name);
        }
    }
}

/// `matrix`, checked: known keys in `exclude`, no doubles, a sensible number of cells.
fn matrix_of(raw: &raw::Matrix, at: At<'_>, cx: &mut Cx<'_>) -> Option<Matrix> {
    if cx.sink.has_error_in(at.whole()) {
        return None;
    }
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let row = |value: &serde_json::Value| -> IndexMap<String, String> {
        value.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect()
    };
    let mut made = Matrix::default();
    for (key, value) in &raw.0 {
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        match key.as_str() {
            "include" => made.include = items.iter().map(row).collect(),
            "exclude" => made.exclude = items.iter().map(row).collect(),
            _ => drop(made.axes.insert(key.clone(), items.iter().map(text).collect())),
        }
    }
    let problems = matrix::problems(&made);
    for problem in &problems {
        let mut place = at;
        for step in &problem.path {
            place = match step {
                matrix::Place::Key(key) => place.get(key),
                matrix::Place::Item(index) => place.item(*index),
            };
        }
        let span = if place.node().is_some() { place.span() } else { at.key_span() };
        let make = if problem.fatal { Diagnostic::error } else { Diagnostic::warning };
        cx.push(make("bad-matrix", span, problem.message.clone()).maybe_help(problem.help.clone()));
    }
    problems.iter().all(|problem| !problem.fatal).then_some(made)
}

/// All names that the stage's texts ask of its matrix.
fn references_to_matrix(at: At<'_>) -> Vec<String> {
    let Some(node) = at.node() else { return Vec::new() };
    let mut names = Vec::new();
    let mut todo = vec![node];
    while let Some(node) = todo.pop() {
        match &node.content {
            crate::pipeline::tree::Content::Scalar { text, .. } => names.extend(
                crate::pipeline::substitute::references(text)
                    .filter_map(|found| found.name?.trim().strip_prefix("matrix.").map(str::to_owned)),
            ),
            crate::pipeline::tree::Content::List(items) => todo.extend(items),
            crate::pipeline::tree::Content::Map(entries) => todo.extend(entries.iter().map(|entry| &entry.value)),
        }
    }
    names
}
