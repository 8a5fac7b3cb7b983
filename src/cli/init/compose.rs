//! The text of a pipeline to start from, made of what was found alone.

use std::fmt::Write as _;

use super::look::{Found, Table};

/// A text as a YAML value in double quotes.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The pipeline for what was found.
pub(super) fn compose(found: &Found) -> String {
    let mut out = String::from(
        "# A pipeline of orchestrator, made by `orchestrator init` from what lies in this folder.\n\
         # Check it by `orchestrator validate`, run it by `orchestrator run pipeline.yaml`.\n",
    );
    line(&mut out, &format!("name: {}\n", found.name));
    let python = found.train.is_some() || found.app.is_some() || found.install.is_some() || found.dvc;
    let built_in = found.train.is_none() && !found.dvc && found.data.is_some();
    defaults(&mut out, found, python && !built_in);
    serve(&mut out, found, built_in);
    line(&mut out, "stages:");
    let trains = train(&mut out, found, built_in);
    let serves = found.app.is_some() || built_in;
    if !trains && !serves {
        line(&mut out, "  # Each stage runs in a fresh copy of the folder; `needs` says what comes before it.");
        line(&mut out, "  hello:\n    run: echo \"hello from $ORCHESTRATOR_STAGE\"");
        return out;
    }
    if serves {
        tests(&mut out, found, trains, built_in);
    }
    if trains {
        promote(&mut out, found, serves, built_in);
    }
    out
}

pub(super) fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

pub(super) fn defaults(out: &mut String, found: &Found, python: bool) {
    if !found.dockerfile && !python {
        return;
    }
    line(out, "# What holds for all stages. Without Docker, add `--runner local`: the host's tools are used.");
    line(out, "defaults:");
    if found.dockerfile {
        line(out, "  build: { context: ., dockerfile: Dockerfile }   # or `image: python:3.12-slim`");
    } else {
        line(out, "  image: python:3.12-slim");
    }
    if found.install.is_some() {
        line(out, "  cache: [~/.cache/pip]                           # kept between builds");
    }
    line(out, "  timeout: 30m\n");
}

pub(super) fn serve(out: &mut String, found: &Found, built_in: bool) {
    if built_in {
        line(out, "# The model API: the built-in server with the model that `train` makes.");
        line(out, "serve: { linfa: train }\n");
        return;
    }
    let Some(app) = &found.app else { return };
    line(out, "# The model API: `test-api` and `loadtest` start it, `promote` deploys it.");
    line(out, "serve:\n  run:");
    if let Some(install) = &found.install {
        line(out, &format!("    - {install}"));
    }
    line(out, &format!("    - uvicorn {} --host 0.0.0.0 --port 8000", app.target));
    line(out, &format!("  port: 8000\n  ready: {{ path: {}, timeout: 60s }}", app.health));
    if found.train.is_some() || found.dvc {
        line(out, "  inputs: [train]                                 # gets the outputs of this stage");
    }
    out.push('\n');
}

/// The training stage; whether there is one.
pub(super) fn train(out: &mut String, found: &Found, built_in: bool) -> bool {
    if let (true, Some(table)) = (built_in, &found.data) {
        linfa(out, found, table);
        return true;
    }
    let (command, script) = match (&found.train, found.dvc) {
        (script, true) => ("dvc repro".to_owned(), script.as_ref()),
        (Some(script), false) => (format!("python {}", script.path), Some(script)),
        (None, false) => return false,
    };
    line(out, "  train:\n    run:");
    if let Some(install) = &found.install {
        line(out, &format!("      - {install}"));
    }
    line(out, &format!("      - {command}"));
    line(out, &format!("    train:\n      model: {}", found.name));
    let guess = |out: &mut String, key: &str, path: Option<&String>, usual: &str, what: &str| match path {
        Some(path) => line(out, &format!("      {key}: {path}")),
        None => line(out, &format!("      {key}: {usual}   # change this: {what}")),
    };
    guess(
        out,
        "artifact",
        script.and_then(|s| s.artifact.as_ref()),
        "model.joblib",
        "the file that the script writes the model to",
    );
    guess(
        out,
        "metrics",
        script.and_then(|s| s.metrics.as_ref()),
        "metrics.json",
        "the script must write numbers there, as JSON",
    );
    match script.and_then(|s| s.predictions.as_ref()) {
        Some(path) => line(out, &format!("      predictions: {path}")),
        None => line(
            out,
            "      # predictions: predictions.csv   # `id,label,prediction`: lets `promote` test whether a gain is real",
        ),
    }
    true
}

/// The built-in trainer.
pub(super) fn linfa(out: &mut String, found: &Found, table: &Table) {
    let columns: Vec<String> = table.columns.iter().take(30).map(|column| quoted(column)).collect();
    let more = if table.columns.len() > 30 { ", ..." } else { "" };
    let target = table.columns.last().map(|column| quoted(column)).unwrap_or_default();
    let (task, algorithm) = if table.classes { ("classification", "random-forest") } else { ("regression", "linear") };
    line(out, "  train:\n    train:");
    line(out, &format!("      model: {}", found.name));
    line(out, "      linfa:                        # the built-in trainer: no script, no Python");
    let path = if super::look::is_plain_path(&table.path) { table.path.clone() } else { quoted(&table.path) };
    line(out, &format!("        data: {path}"));
    if !table.others.is_empty() {
        let others: Vec<String> = table.others.iter().take(5).map(|other| quoted(other)).collect();
        line(out, &format!("        # there is also: {}", others.join(", ")));
    }
    line(out, &format!("        # columns: {}{more}", columns.join(", ")));
    line(out, &format!("        target: {target}   # change this if another column is to be predicted"));
    line(out, &format!("        task: {task}"));
    line(out, &format!("        algorithm: {algorithm}"));
    line(out, "        holdout: 0.2");
    let names: Vec<String> = table.names.iter().map(|name| quoted(name)).collect();
    match names.is_empty() {
        true => line(
            out,
            "        drop: []                    # columns that would give the answer away, like names and ids",
        ),
        false => line(
            out,
            &format!(
                "        drop: [{}]   # different in every row: they name it, and teach nothing",
                names.join(", ")
            ),
        ),
    }
}

pub(super) fn tests(out: &mut String, found: &Found, trains: bool, built_in: bool) {
    let health = if built_in { "/healthz" } else { found.app.as_ref().map_or("/healthz", |app| app.health.as_str()) };
    let needs = if trains { "    needs: [train]\n" } else { "" };
    let _ = write!(
        out,
        "\n  test-api:\n{needs}    test-api:\n      checks:\n        - {{ request: GET {health}, expect: {{ status: 200, latency: 1s }} }}\n"
    );
    line(out, "        # - name: one row gets a prediction");
    line(out, "        #   request: POST /predict");
    line(out, "        #   json: { column: 1 }");
    line(out, "        #   expect: { status: 200, json: { \"$.prediction\": { type: number } } }");
    line(out, "\n  loadtest:\n    needs: [test-api]\n    loadtest:");
    if found.locustfile {
        line(out, "      locust: { file: locustfile.py, users: 4, spawn_rate: 4 }");
    } else {
        line(out, &format!("      scenario: [{{ request: GET {health} }}]   # better: the requests of your users"));
        line(out, "      users: 4");
    }
    line(out, "      duration: 5s");
    line(out, "      thresholds: { failure_rate: \"< 1%\", p95: \"< 500ms\" }");
}

pub(super) fn promote(out: &mut String, found: &Found, serves: bool, built_in: bool) {
    let needs = if serves { "[train, loadtest]" } else { "[train]" };
    let classes = found.data.as_ref().is_some_and(|table| table.classes);
    let (metric, goal) = match (built_in, classes) {
        (true, true) => ("f1", "maximize"),
        (true, false) => ("mae", "minimize"),
        (false, _) => ("accuracy", "maximize"),
    };
    line(out, &format!("\n  promote:\n    needs: {needs}"));
    line(out, "    # when: { branch: [main] }      # only from this branch");
    line(out, &format!("    promote:\n      model: {}", found.name));
    line(out, &format!("      better_if: {{ {metric}: {{ goal: {goal} }} }}   # a metric that `train` writes"));
    if serves {
        line(out, "      guardrails: { loadtest.p95_ms: { goal: minimize, max_loss: 10% } }");
        line(out, "      deploy: { strategy: replace, port: 8080 }   # the port that users talk to");
    }
}
