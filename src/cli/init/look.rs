//! What lies in a folder.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};

use crate::ids::is_name;

/// What lies in a folder.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Found {
    /// The folder's name, made a valid name.
    pub(super) name: String,
    pub(super) dockerfile: bool,
    /// How Python packages are installed.
    pub(super) install: Option<String>,
    pub(super) dvc: bool,
    pub(super) locustfile: bool,
    pub(super) train: Option<Script>,
    pub(super) app: Option<App>,
    pub(super) data: Option<Table>,
    /// Files that look like data and cannot be read as such.
    pub(super) unread: Vec<String>,
}

/// A training script, with the files that it seems to write.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Script {
    pub(super) path: String,
    pub(super) artifact: Option<String>,
    pub(super) metrics: Option<String>,
    pub(super) predictions: Option<String>,
}

/// A FastAPI app.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct App {
    /// For uvicorn: `app:app`.
    pub(super) target: String,
    /// A path that answers `GET` with 2xx.
    pub(super) health: String,
}

/// A CSV file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    pub(super) path: String,
    pub(super) columns: Vec<String>,
    /// The last column holds a handful of different values.
    pub(super) classes: bool,
    /// Columns that only name the row.
    pub(super) names: Vec<String>,
    /// Other tables that were there, too.
    pub(super) others: Vec<String>,
}

impl Found {
    pub(super) fn summary(&self) -> String {
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
        if let (Some(unread), true) = (self.unread.first(), parts.is_empty()) {
            format!("found `{unread}`, but the built-in trainer reads CSV and Parquet alone, so it is only an outline")
        } else if parts.is_empty() {
            "nothing known found, so it is only an outline".to_owned()
        } else {
            format!("found {}", parts.join(", "))
        }
    }
}

/// Largest piece of a file that is looked at.
const LOOK_BYTES: u64 = 256 * 1024;

pub(super) fn look(dir: &Path) -> anyhow::Result<Found> {
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
        unread: tables(&full, "", &["tsv", "xlsx", "xls", "json", "jsonl", "feather"]),
    })
}

/// The beginning of a file as text.
pub(super) fn beginning(root: &Path, path: &str) -> Option<String> {
    let file = File::open(root.join(path)).ok()?;
    let mut bytes = Vec::new();
    file.take(LOOK_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn script(root: &Path, path: &str) -> Option<Script> {
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
pub(super) fn string_literals(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().flat_map(|line| {
        ['"', '\''].into_iter().flat_map(move |quote| line.split(quote).skip(1).step_by(2).map(str::to_owned))
    })
}

/// A relative path of simple characters, which needs no quotes anywhere.
pub(super) fn is_plain_path(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    !text.is_empty()
        && text.len() <= 200
        && text.bytes().all(ok)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.split('/').any(|part| part == "..")
}

pub(super) fn app(root: &Path, path: &str) -> Option<App> {
    let text = beginning(root, path)?;
    let line = text.lines().find(|line| line.contains("FastAPI(") && line.contains('='))?;
    let variable = line.split(['=', ':']).next().map(str::trim).filter(|word| is_plain_path(word)).unwrap_or("app");
    let module = path.trim_end_matches(".py").replace('/', ".");
    let known = ["/healthz", "/health", "/ready", "/ping"];
    let health = known.into_iter().find(|path| string_literals(&text).any(|literal| literal == *path));
    // FastAPI always answers this one.
    Some(App { target: format!("{module}:{variable}"), health: health.unwrap_or("/openapi.json").to_owned() })
}

/// Rows of a table that are looked at, and how many there must be before anything is made of their values.
const ROWS: usize = 2000;
const FEW_ROWS: usize = 10;

/// Files of a folder with one of these endings, in upper or lower case, by name.
fn tables(root: &Path, folder: &str, endings: &[&str]) -> Vec<String> {
    let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().filter_map(Result::ok);
    let wanted = |name: &String| {
        let ending = Path::new(name).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        endings.iter().any(|wanted| ending.eq_ignore_ascii_case(wanted)) && is_path(name)
    };
    let mut names: Vec<String> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| wanted(name) && name != "predictions.csv")
        .take(1000)
        .map(|name| if folder.is_empty() { name } else { format!("{folder}/{name}") })
        .collect();
    names.sort();
    names
}

/// A name that can stand in quotes: spaces and letters of any language, nothing that steers a terminal.
fn is_path(text: &str) -> bool {
    !text.is_empty() && text.len() <= 200 && !text.starts_with(['.', '-']) && !text.chars().any(char::is_control)
}

/// The first CSV file of the folder or of `data/`, by name.
pub(super) fn table(root: &Path) -> Option<Table> {
    let mut all = tables(root, "", &["csv"]);
    all.extend(tables(root, "data", &["csv"]));
    let path = all.first()?.clone();
    let text = beginning(root, &path)?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let columns: Vec<String> = reader.headers().ok()?.iter().map(str::to_owned).collect();
    if columns.len() < 2 || columns.iter().any(|column| column.is_empty() || column.len() > 100) {
        return None;
    }
    let last = columns.len() - 1;
    let rows: Vec<csv::StringRecord> = reader.records().take(ROWS).filter_map(Result::ok).collect();
    let values: std::collections::HashSet<&str> = rows.iter().filter_map(|row| row.get(last)).collect();
    let classes = values.len() <= 10;
    let names = (0..last).filter(|at| names_the_row(&columns[*at], *at, &rows)).map(|at| columns[at].clone()).collect();
    Some(Table { path, columns, classes, names, others: all.split_off(1) })
}

/// A column that is different in every row: text, or whole numbers that are called an id or count the rows.
fn names_the_row(name: &str, at: usize, rows: &[csv::StringRecord]) -> bool {
    let values: Vec<&str> = rows.iter().filter_map(|row| row.get(at)).collect();
    let different: std::collections::HashSet<&str> = values.iter().copied().collect();
    if values.len() < FEW_ROWS || different.len() < values.len() || values.iter().any(|value| value.trim().is_empty()) {
        return false;
    }
    let whole: Option<Vec<i64>> = values.iter().map(|value| value.trim().parse().ok()).collect();
    let Some(whole) = whole else {
        return values.iter().any(|value| value.trim().parse::<f64>().is_err());
    };
    let lower = name.to_ascii_lowercase();
    let called = ["id", "index", "key", "number"].iter().any(|word| {
        lower == *word
            || lower.ends_with(&format!("_{word}"))
            || lower.ends_with(&format!(" {word}"))
            || lower.ends_with(&format!("-{word}"))
    });
    called || name.ends_with("Id") || name.ends_with("ID") || whole.windows(2).all(|pair| pair[1] - pair[0] == 1)
}

/// A folder's name as a valid one.
fn valid_name(text: &str) -> String {
    let mapped: String =
        text.chars().take(60).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let trimmed = mapped.trim_matches('-').to_owned();
    if is_name(&trimmed) { trimmed } else { "model".to_owned() }
}
