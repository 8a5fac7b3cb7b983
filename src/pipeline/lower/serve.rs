//! The model API.

use super::Cx;
use super::stage::{Shared, WorkParts, image, work};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::raw;
use crate::pipeline::tree::At;
use crate::pipeline::types::{Serve, ServeApp, ServePort, Work};

pub(super) fn serve(raw: &raw::Serve, at: At<'_>, shared: &Shared<'_>, cx: &mut Cx<'_>) -> Option<Serve> {
    cx.axes.clear();
    let own_image = image(raw.image.as_ref(), raw.build.as_ref(), at, cx);
    let app = app(raw, own_image.is_some(), at, shared, cx);
    let mut inputs = Vec::new();
    let mut good = true;
    for (index, name) in raw.inputs.iter().flatten().enumerate() {
        match cx.stage_name(name, at.get("inputs").item(index)) {
            Some(name) => inputs.push(name),
            None => good = false,
        }
    }
    let linfa = match &app {
        Some(ServeApp::Linfa(stage)) => Some(stage.clone()),
        Some(ServeApp::Work(_)) | None => None,
    };
    if let Some(stage) = linfa.clone().filter(|stage| !inputs.contains(stage)) {
        inputs.push(stage);
    }
    let port = match raw.port {
        Some(raw::ServePort::Fixed(port)) => Some(ServePort::Fixed(port)),
        Some(raw::ServePort::Word(raw::AutoWord::Auto)) => Some(ServePort::Auto),
        None if raw.linfa.is_some() => Some(ServePort::Auto),
        None => {
            if !at.get("port").exists() && !cx.sink.has_error_in(at.key_span()) {
                cx.push(
                    Diagnostic::error("missing-key", at.key_span(), "`serve` needs the key `port`")
                        .help("write the port that the server listens on, or `port: auto` if it takes `$PORT`"),
                );
            }
            None
        }
    };
    let mut env = shared.pipeline_env.clone();
    env.extend(cx.env(&raw.env, at.get("env")));
    let secrets = cx.secrets(&raw.secrets, at.get("secrets"), &env);
    let ready = cx.ready(raw.ready.as_ref(), at.get("ready"), linfa.as_ref().map(|_| "/healthz"));
    let resources = cx.resources(raw.resources.as_ref(), at.get("resources"));
    if !good {
        return None;
    }
    Some(Serve {
        app: app?,
        image: own_image.or_else(|| shared.image.clone()),
        port: port?,
        ready,
        inputs,
        env,
        secrets,
        resources,
    })
}

/// What runs: `run`, `command`, `linfa`, or the image as it is.
fn app(raw: &raw::Serve, has_image: bool, at: At<'_>, shared: &Shared<'_>, cx: &mut Cx<'_>) -> Option<ServeApp> {
    if at.get("linfa").exists() {
        if let Some(key) = ["run", "command"].into_iter().find(|key| at.get(key).exists()) {
            let message = format!("`{key}` and `linfa` exclude each other");
            cx.push(
                Diagnostic::error("two-works", at.get(key).key_span(), message)
                    .related(at.get("linfa").key_span(), "the other one")
                    .help("`linfa` is the built-in server; it needs no script"),
            );
            return None;
        }
        let stage = cx.stage_name(raw.linfa.as_deref()?, at.get("linfa"))?;
        return Some(ServeApp::Linfa(stage));
    }
    let defaults_shell = raw.shell.clone().or_else(|| shared.shell());
    let parts = WorkParts { run: raw.run.as_ref(), command: raw.command.as_ref(), shell: defaults_shell };
    if let Some(work) = work(&parts, raw.shell.is_some(), at, cx) {
        return Some(ServeApp::Work(work));
    }
    if at.get("run").exists() || at.get("command").exists() {
        return None;
    }
    if has_image {
        return Some(ServeApp::Work(Work::Command(Vec::new())));
    }
    if !cx.sink.has_error_in(at.whole()) {
        cx.push(
            Diagnostic::error("nothing-to-do", at.key_span(), "`serve` does not say what is started")
                .help("add `run`, `command`, an `image` that starts by itself, or `linfa: <train stage>`"),
        );
    }
    None
}
