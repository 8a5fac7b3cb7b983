//! `orchestrator init`: a pipeline to start from, made from what lies in a folder.
//!
//! First the folder is looked at ([`Found`]), then the text is composed from that alone. What is composed is checked by the
//! parser before anyone sees it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::Path;

use anyhow::{Context, bail};

use crate::ids::is_name;
use crate::pipeline;

/// Looks at a folder and writes `pipeline.yaml` there, or prints it if `stdout_only`. A file that exists is only written
/// over with `force`. Gives the exit code 0.
///
/// # Errors
/// If the folder cannot be read or written, or the file exists already.
pub fn run(dir: &Path, force: bool, stdout_only: bool) -> anyhow::Result<i32> {
    let found = look(dir)?;
    let text = compose(&found);
    if let Err(errors) = pipeline::parse("pipeline.yaml", text.as_bytes()) {
        let rendered = pipeline::render(&errors, &text, pipeline::Colour::Never);
        bail!("the pipeline made for this folder is not valid, which is our mistake; please report it:\n{rendered}");
    }
    if stdout_only {
        std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
        return Ok(0);
    }
    let target = dir.join("pipeline.yaml");
    let mut options = File::options();
    if force {
        options.write(true).create(true).truncate(true);
    } else {
        options.write(true).create_new(true);
    }
    let mut file = match options.open(&target) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("`{}` exists already; `--force` writes over it, `--stdout` only shows the new one", target.display())
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write `{}`", target.display())),
    };
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write `{}`", target.display()))?;
    let mut out = std::io::stdout();
    writeln!(out, "wrote {}: {}", target.display(), found.summary()).context("cannot write to standard output")?;
    writeln!(out, "next: read it, then `orchestrator run {}`", target.display())
        .context("cannot write to standard output")?;
    Ok(0)
}

/// What lies in a folder.
#[derive(Debug, Default, Clone, PartialEq)]
struct Found {
    /// The folder's name, made a valid name.
    name: String,
    dockerfile: bool,
    /// How Python packages are installed.
    install: Option<String>,
    dvc: bool,
    locustfile: bool,
    train: Option<Script>,
    app: Option<App>,
    data: Option<Table>,
}

/// A training script, with the files that it seems to write.
#[derive(Debug, Clone, PartialEq)]
struct Script {
    path: String,
    artifact: Option<String>,
    metrics: Option<String>,
    predictions: Option<String>,
}

/// A FastAPI app.
#[derive(Debug, Clone, PartialEq)]
struct App {
    /// For uvicorn: `app:app`.
    target: String,
    /// A path that answers `GET` with 2xx.
    health: String,
}

/// A CSV file.
#[derive(Debug, Clone, PartialEq)]
struct Table {
    path: String,
    columns: Vec<String>,
    /// The last column holds a handful of different values.
    classes: bool,
}

impl Found {
    fn summary(&self) -> String {
        let mut parts = Vec::new();
        let mut add = |there: bool, text: &str| {
            if there {
                parts.push(text.to_owned());
            }
        };
        add(self.dockerfile, "Dockerfile");
        add(self.install.is_some(), "Python packages");
        add(self.dvc, "dvc.yaml");
        if let Some(script) = &self.train {
            add(true, &script.path);
        }
        if let Some(app) = &self.app {
            add(true, &format!("FastAPI app {}", app.target));
        }
        add(self.locustfile, "locustfile.py");
        if let Some(table) = &self.data {
            add(true, &table.path);
        }
        if parts.is_empty() {
            "nothing known found, so it is only an outline".to_owned()
        } else {
            format!("found {}", parts.join(", "))
        }
    }
}

/// Largest piece of a file that is looked at.
const LOOK_BYTES: u64 = 256 * 1024;

fn look(dir: &Path) -> anyhow::Result<Found> {
    let full = dir.canonicalize().with_context(|| format!("cannot read the folder `{}`", dir.display()))?;
    if !full.is_dir() {
        bail!("`{}` is not a folder", dir.display());
    }
    let has = |name: &str| full.join(name).is_file();
    let name = full.file_name().map(|name| valid_name(&name.to_string_lossy())).unwrap_or_else(|| "model".to_owned());
    let install = if has("requirements.txt") {
        Some("pip install -r requirements.txt".to_owned())
    } else if has("pyproject.toml") {
        Some("pip install .".to_owned())
    } else {
        None
    };
    Ok(Found {
        name,
        dockerfile: has("Dockerfile"),
        install,
        dvc: has("dvc.yaml"),
        locustfile: has("locustfile.py"),
        train: ["train.py", "src/train.py", "training.py"].into_iter().find_map(|path| script(&full, path)),
        app: ["app.py", "main.py", "api.py", "src/app.py", "src/main.py", "app/main.py"]
            .into_iter()
            .find_map(|path| app(&full, path)),
        data: table(&full),
    })
}

/// The beginning of a file as text.
fn beginning(root: &Path, path: &str) -> Option<String> {
    let file = File::open(root.join(path)).ok()?;
    let mut bytes = Vec::new();
    file.take(LOOK_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn script(root: &Path, path: &str) -> Option<Script> {
    let text = beginning(root, path)?;
    let ends = |endings: &[&str]| {
        string_literals(&text)
            .find(|literal| endings.iter().any(|end| literal.ends_with(end)) && is_plain_path(literal))
    };
    Some(Script {
        path: path.to_owned(),
        artifact: ends(&[".joblib", ".pkl", ".onnx", ".pt", ".safetensors", ".keras", ".h5"]),
        metrics: ends(&["metrics.json", "scores.json"]),
        predictions: ends(&["predictions.csv"]),
    })
}

/// What stands between quotes, one line at most.
fn string_literals(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().flat_map(|line| {
        ['"', '\''].into_iter().flat_map(move |quote| line.split(quote).skip(1).step_by(2).map(str::to_owned))
    })
}

/// A relative path of simple characters, which needs no quotes anywhere.
fn is_plain_path(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    !text.is_empty()
        && text.len() <= 200
        && text.bytes().all(ok)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.split('/').any(|part| part == "..")
}

fn app(root: &Path, path: &str) -> Option<App> {
    let text = beginning(root, path)?;
    let line = text.lines().find(|line| line.contains("FastAPI(") && line.contains('='))?;
    let variable = line.split(['=', ':']).next().map(str::trim).filter(|word| is_plain_path(word)).unwrap_or("app");
    let module = path.trim_end_matches(".py").replace('/', ".");
    let known = ["/healthz", "/health", "/ready", "/ping"];
    let health = known.into_iter().find(|path| string_literals(&text).any(|literal| literal == *path));
    // FastAPI always answers this one.
    Some(App { target: format!("{module}:{variable}"), health: health.unwrap_or("/openapi.json").to_owned() })
}

/// The first CSV file of the folder or of `data/`, by name.
fn table(root: &Path) -> Option<Table> {
    let files = |folder: &str| {
        let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.ends_with(".csv") && is_plain_path(name) && name != "predictions.csv")
            .take(1000)
            .collect();
        names.sort();
        names
    };
    let path =
        files("").into_iter().next().or_else(|| files("data").into_iter().next().map(|name| format!("data/{name}")))?;
    let text = beginning(root, &path)?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let columns: Vec<String> = reader.headers().ok()?.iter().map(str::to_owned).collect();
    if columns.len() < 2 || columns.iter().any(|column| column.is_empty() || column.len() > 100) {
        return None;
    }
    let last = columns.len() - 1;
    let values: std::collections::HashSet<String> =
        reader.records().take(2000).filter_map(Result::ok).filter_map(|row| row.get(last).map(str::to_owned)).collect();
    Some(Table { path, columns, classes: values.len() <= 10 })
}

/// A folder's name as a valid one.
fn valid_name(text: &str) -> String {
    let mapped: String =
        text.chars().take(60).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let trimmed = mapped.trim_matches('-').to_owned();
    if is_name(&trimmed) { trimmed } else { "model".to_owned() }
}

/// A text as a YAML value in double quotes.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The pipeline for what was found.
fn compose(found: &Found) -> String {
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

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn defaults(out: &mut String, found: &Found, python: bool) {
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

fn serve(out: &mut String, found: &Found, built_in: bool) {
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
fn train(out: &mut String, found: &Found, built_in: bool) -> bool {
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
fn linfa(out: &mut String, found: &Found, table: &Table) {
    let columns: Vec<String> = table.columns.iter().take(30).map(|column| quoted(column)).collect();
    let more = if table.columns.len() > 30 { ", ..." } else { "" };
    let target = table.columns.last().map(|column| quoted(column)).unwrap_or_default();
    let (task, algorithm) = if table.classes { ("classification", "random-forest") } else { ("regression", "linear") };
    line(out, "  train:\n    train:");
    line(out, &format!("      model: {}", found.name));
    line(out, "      linfa:                        # the built-in trainer: no script, no Python");
    line(out, &format!("        data: {}", table.path));
    line(out, &format!("        # columns: {}{more}", columns.join(", ")));
    line(out, &format!("        target: {target}   # change this if another column is to be predicted"));
    line(out, &format!("        task: {task}"));
    line(out, &format!("        algorithm: {algorithm}"));
    line(out, "        holdout: 0.2");
    line(out, "        drop: []                    # columns that would give the answer away, like names and ids");
}

fn tests(out: &mut String, found: &Found, trains: bool, built_in: bool) {
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
        line(out, "      locust: { file: locustfile.py, users: 20, spawn_rate: 5 }");
    } else {
        line(out, &format!("      scenario: [{{ request: GET {health} }}]   # better: the requests of your users"));
        line(out, "      users: 20");
    }
    line(out, "      duration: 30s");
    line(out, "      thresholds: { failure_rate: \"< 1%\", p95: \"< 500ms\" }");
}

fn promote(out: &mut String, found: &Found, serves: bool, built_in: bool) {
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A folder with a name that is not a valid one for a pipeline.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn path(&self) -> PathBuf {
            self.0.path().join("my Project_")
        }
    }

    fn folder(files: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        std::fs::create_dir(folder.path()).expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        folder
    }

    fn made(files: &[(&str, &str)]) -> String {
        let dir = folder(files);
        assert_eq!(run(&dir.path(), false, false).expect("runs"), 0);
        std::fs::read_to_string(dir.path().join("pipeline.yaml")).expect("written")
    }

    const APP: &str =
        "from fastapi import FastAPI\n\napi: FastAPI = FastAPI(title='x')\n\n@api.get(\"/health\")\ndef h(): ...\n";
    const TRAIN: &str = "joblib.dump(m, 'out/model.joblib')\njson.dump(x, open(\"metrics.json\", 'w'))\n";

    #[test]
    fn every_mix_of_files_gives_a_valid_pipeline() {
        let all = [
            ("Dockerfile", "FROM x"),
            ("requirements.txt", "x"),
            ("dvc.yaml", "stages: {}"),
            ("locustfile.py", ""),
            ("train.py", TRAIN),
            ("app.py", APP),
            ("data/players.csv", "a,b: {c,\"d \"\"e\"\"\"\n1,2,x\n3,4,y\n"),
        ];
        for mix in 0..1 << all.len() {
            let files: Vec<(&str, &str)> =
                all.iter().enumerate().filter(|(bit, _)| mix >> bit & 1 == 1).map(|(_, file)| *file).collect();
            let dir = folder(&files);
            let text = compose(&look(&dir.path()).expect("a folder"));
            if let Err(errors) = pipeline::parse("pipeline.yaml", text.as_bytes()) {
                panic!("{files:?}\n{}", pipeline::render(&errors, &text, pipeline::Colour::Never));
            }
        }
    }

    #[test]
    fn a_python_project() {
        insta::assert_snapshot!(made(&[
            ("requirements.txt", ""),
            ("train.py", TRAIN),
            ("app.py", APP),
            ("locustfile.py", "")
        ]));
    }

    #[test]
    fn a_table_alone() {
        insta::assert_snapshot!(made(&[("stats.csv", "Name,Goals,PFA_Team\nA,1,yes\nB,2,no\n")]));
    }

    #[test]
    fn an_empty_folder() {
        insta::assert_snapshot!(made(&[]));
    }

    #[test]
    fn a_file_that_exists_is_kept() {
        let dir = folder(&[("pipeline.yaml", "mine")]);
        let error = run(&dir.path(), false, false).expect_err("exists");
        assert!(error.to_string().contains("exists already"), "{error}");
        assert_eq!(std::fs::read_to_string(dir.path().join("pipeline.yaml")).expect("there"), "mine");
        assert_eq!(run(&dir.path(), true, false).expect("runs"), 0);
        assert!(std::fs::read_to_string(dir.path().join("pipeline.yaml")).expect("there").contains("name: my-project"));
        assert!(run(&dir.path().join("none"), false, false).is_err());
    }
}
