//! Checks across stages: cycles, paths that two stages write, and who needs the model API.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::diagnostic::{Diagnostic, Sink, shown};
use super::graph::Graph;
use super::lower::Lowered;
use super::tree::At;
use super::types::{Deploy, Kind, Serve, ServeApp, Stage};
use super::{promotes, raw};
use crate::words::tidy;

/// What the checks look at.
pub(super) struct Stages<'a> {
    pub(super) names: Vec<&'a str>,
    /// Those that are good.
    pub(super) stages: &'a IndexMap<String, Stage>,
    /// Which stages come before each, by index.
    pub(super) before: Vec<Vec<bool>>,
    pub(super) at: At<'a>,
}

/// Checks what only the whole file can show.
pub(super) fn check(raw: &raw::Pipeline, lowered: &Lowered, at: At<'_>, sink: &mut Sink) {
    let stages_at = at.get("stages");
    let nothing = IndexMap::new();
    let needs: IndexMap<&str, Vec<&str>> = raw
        .stages
        .as_ref()
        .unwrap_or(&nothing)
        .iter()
        .map(|(name, stage)| (name.as_str(), stage.needs.iter().flatten().map(String::as_str).collect()))
        .collect();
    let graph = Graph::new(&needs);
    if let Some(cycle) = graph.cycle() {
        let names: Vec<&str> =
            cycle.iter().filter_map(|index| needs.get_index(*index).map(|(name, _)| *name)).collect();
        report_cycle(&names, stages_at, sink);
        return;
    }
    let names: Vec<&str> = needs.keys().copied().collect();
    let before = (0..names.len()).map(|index| graph.before(index)).collect();
    let all = Stages { names, stages: &lowered.stages, before, at: stages_at };
    let serve = lowered.pipeline.as_ref().and_then(|pipeline| pipeline.serve.as_ref());
    let serve_at = at.get("serve");
    outputs(&all, serve, sink);
    for (index, name) in all.names.iter().enumerate() {
        if let Some(stage) = all.stages.get(*name) {
            needs_serve(&all, index, stage, serve, serve_at, sink);
            promotes::check(&all, index, serve, sink);
            inputs_are_files(&all, index, stage, sink);
        }
    }
    serves_linfa(&all, serve, serve_at, sink);
}

fn report_cycle(names: &[&str], at: At<'_>, sink: &mut Sink) {
    let Some(first) = names.first() else { return };
    let place = |index: usize| {
        let needs = at.get(names[index]).get("needs");
        let next = names[(index + 1) % names.len()];
        let item = needs.node().and_then(|node| match &node.content {
            super::tree::Content::List(items) => items
                .iter()
                .position(|item| matches!(&item.content, super::tree::Content::Scalar { text, .. } if text == next)),
            super::tree::Content::Scalar { .. } | super::tree::Content::Map(_) => None,
        });
        item.map_or(needs.span(), |item| needs.item(item).span())
    };
    if names.len() == 1 {
        let message = format!("the stage `{first}` needs itself");
        sink.push(Diagnostic::error("cycle", place(0), message).help("remove it from its `needs`"));
        return;
    }
    let round: Vec<String> = names.iter().chain([first]).map(|name| format!("`{name}`")).collect();
    let message = format!("stages wait for each other in a circle: {}", round.join(" needs "));
    let mut diagnostic = Diagnostic::error("cycle", place(0), message).help("take one of them out of a `needs`");
    for index in 1..names.len().min(6) {
        let text = format!("`{}` needs `{}`", names[index], names[(index + 1) % names.len()]);
        diagnostic = diagnostic.related(place(index), text);
    }
    sink.push(diagnostic);
}

/// A path that a stage writes.
struct Written<'a> {
    stage: usize,
    span: super::diagnostic::Span,
    path: &'a str,
}

/// Two stages that write one path, and whose outputs meet somewhere.
fn outputs(all: &Stages<'_>, serve: Option<&Serve>, sink: &mut Sink) {
    let mut by_path: BTreeMap<String, Vec<Written<'_>>> = BTreeMap::new();
    for (index, name) in all.names.iter().enumerate() {
        let Some(stage) = all.stages.get(*name).filter(|stage| stage.matrix.is_none()) else { continue };
        for (path, span) in written(stage, all.at.get(name)) {
            by_path.entry(tidy(path)).or_default().push(Written { stage: index, span, path });
        }
    }
    let serve_inputs: Vec<usize> = serve
        .into_iter()
        .flat_map(|serve| &serve.inputs)
        .filter_map(|input| all.names.iter().position(|name| *name == input.as_str()))
        .collect();
    for (path, here) in &by_path {
        // The same path, or a folder that holds it.
        let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        let above = folders.filter_map(|folder| by_path.get(folder)).flatten();
        let mut others: Vec<&Written<'_>> = above.collect();
        for written in here {
            let clash = others.iter().find_map(|other| {
                let meeting = meet(all, other.stage, written.stage, &serve_inputs)?;
                Some((*other, meeting))
            });
            if let Some((other, meeting)) = clash {
                report_outputs(all, other, written, meeting, sink);
                break;
            }
            others.push(written);
        }
    }
}

fn report_outputs(all: &Stages<'_>, one: &Written<'_>, two: &Written<'_>, meeting: Meeting, sink: &mut Sink) {
    let (first, second) = (all.names[one.stage], all.names[two.stage]);
    let (path, within) = (shown(two.path), tidy(one.path) != tidy(two.path));
    let message = if within {
        format!("the stages `{first}` and `{second}` both write `{path}`, which lies in `{}`", shown(one.path))
    } else {
        format!("the stages `{first}` and `{second}` both write `{path}`")
    };
    let why = match meeting {
        Meeting::Ordered => "the later one gets the outputs of the earlier one at the same paths".to_owned(),
        Meeting::In(stage) => format!("`{}` gets the outputs of both at the same paths", all.names[stage]),
        Meeting::Serve => "the model API gets the outputs of both at the same paths".to_owned(),
    };
    sink.push(
        Diagnostic::error("same-output", two.span, message)
            .related(one.span, format!("`{first}` writes it here"))
            .help(format!("let one of them write another path: {why}")),
    );
}

/// The literal paths that a stage keeps, with their places.
fn written<'a>(stage: &'a Stage, at: At<'a>) -> Vec<(&'a str, super::diagnostic::Span)> {
    let mut found: Vec<(&str, _)> = Vec::new();
    let mut add = |path: &'a str, span| {
        if !path.contains(['*', '?', '[', '{']) && !found.iter().any(|(known, _)| tidy(known) == tidy(path)) {
            found.push((path, span));
        }
    };
    for (index, path) in stage.outputs.iter().enumerate() {
        add(path, at.get("outputs").item(index).span());
    }
    if let Kind::Train(train) = &stage.kind {
        let train_at = at.get("train");
        let keys: [(&str, Option<&String>); 4] = [
            ("artifact", Some(&train.artifact)),
            ("metrics", train.metrics.as_ref()),
            ("predictions", train.predictions.as_ref()),
            ("params", train.params.as_ref()),
        ];
        // `evaluation` and `data` may well be files of the source tree that several stages read.
        for (key, path) in keys {
            if let Some(path) = path {
                let place = train_at.get(key);
                add(path, if place.exists() { place.span() } else { train_at.key_span() });
            }
        }
    }
    found
}

/// Where the outputs of two stages come together.
#[derive(Clone, Copy)]
enum Meeting {
    Ordered,
    In(usize),
    Serve,
}

fn meet(all: &Stages<'_>, one: usize, two: usize, serve_inputs: &[usize]) -> Option<Meeting> {
    if one == two {
        return None;
    }
    if all.before[one][two] || all.before[two][one] {
        return Some(Meeting::Ordered);
    }
    if let Some(stage) = all.before.iter().position(|before| before[one] && before[two]) {
        return Some(Meeting::In(stage));
    }
    let reaches = |stage: usize| serve_inputs.iter().any(|input| *input == stage || all.before[*input][stage]);
    (reaches(one) && reaches(two)).then_some(Meeting::Serve)
}

/// `serve.inputs` are stages and a stage's `inputs` are files, which is easily mixed up.
fn inputs_are_files(all: &Stages<'_>, index: usize, stage: &Stage, sink: &mut Sink) {
    for (position, glob) in stage.inputs.iter().flatten().enumerate() {
        if !all.names.contains(&glob.as_str()) {
            continue;
        }
        let span = all.at.get(all.names[index]).get("inputs").item(position).span();
        let message = format!("`{glob}` is a stage, and `inputs` of a stage are files of the source tree");
        let help = format!(
            "for the outputs of `{glob}` write `needs: [{glob}]`; for files of a folder of that name `inputs: [{glob}/**]`"
        );
        sink.push(Diagnostic::warning("inputs-stage", span, message).help(help));
    }
}

/// A stage that starts the model API must come after what the API is made of.
fn needs_serve(
    all: &Stages<'_>,
    index: usize,
    stage: &Stage,
    serve: Option<&Serve>,
    serve_at: At<'_>,
    sink: &mut Sink,
) {
    let does = match &stage.kind {
        Kind::TestApi(_) | Kind::Loadtest(_) => "starts",
        Kind::Promote(promote) if promote.deploy != Deploy::None => "deploys",
        Kind::Plain | Kind::Train(_) | Kind::Promote(_) | Kind::Tune(_) => return,
    };
    let stage_at = all.at.get(all.names[index]);
    let kind_at = stage_at.get(stage.kind.word());
    let Some(serve) = serve else {
        if !serve_at.exists() {
            let message = format!("`{}` {does} the model API, and there is no `serve`", stage.kind.word());
            let help = "add `serve` at the top of the file: how the model API is started, and on which port";
            sink.push(Diagnostic::error("no-serve", kind_at.key_span(), message).help(help));
        }
        return;
    };
    for input in &serve.inputs {
        let Some(input_index) = all.names.iter().position(|name| *name == input.as_str()) else { continue };
        if input_index != index && !all.before[index][input_index] {
            let needs = stage_at.get("needs");
            let span = if needs.exists() { needs.span() } else { stage_at.key_span() };
            let message = format!("`{}` {does} the model API, which needs the outputs of `{input}`", all.names[index]);
            sink.push(
                Diagnostic::error("not-before", span, message)
                    .related(inputs_span(serve_at, input.as_str()), "said here")
                    .help(format!("add `{input}` to its `needs`")),
            );
        }
    }
}

/// Where `serve` names a stage.
fn inputs_span(serve_at: At<'_>, name: &str) -> super::diagnostic::Span {
    let inputs = serve_at.get("inputs");
    let item = inputs.node().and_then(|node| match &node.content {
        super::tree::Content::List(items) => items
            .iter()
            .position(|item| matches!(&item.content, super::tree::Content::Scalar { text, .. } if text == name)),
        super::tree::Content::Scalar { .. } | super::tree::Content::Map(_) => None,
    });
    match item {
        Some(index) => inputs.item(index).span(),
        None if serve_at.get("linfa").exists() => serve_at.get("linfa").span(),
        None => serve_at.key_span(),
    }
}

/// The built-in server serves what the built-in trainer made.
fn serves_linfa(all: &Stages<'_>, serve: Option<&Serve>, serve_at: At<'_>, sink: &mut Sink) {
    let Some(ServeApp::Linfa(name)) = serve.map(|serve| &serve.app) else { return };
    let Some(stage) = all.stages.get(name.as_str()) else { return };
    let built_in = match &stage.kind {
        Kind::Train(train) => train.linfa.is_some(),
        Kind::Plain | Kind::TestApi(_) | Kind::Loadtest(_) | Kind::Promote(_) | Kind::Tune(_) => false,
    };
    let span = serve_at.get("linfa").span();
    if !built_in {
        let message = format!("the stage `{name}` does not use the built-in trainer");
        let help = "the built-in server serves models of `train: { linfa: ... }`; for others write `run`";
        sink.push(
            Diagnostic::error("not-linfa", span, message)
                .related(all.at.get(name.as_str()).key_span(), "this stage")
                .help(help),
        );
    } else if stage.matrix.is_some() {
        let message = format!("the stage `{name}` has a matrix, and so makes several models");
        sink.push(Diagnostic::error("not-linfa", span, message).help("serve the model of a stage without a matrix"));
    }
}
