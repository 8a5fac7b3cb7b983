//! A stage with a matrix as cells, and the stage as it is for one cell.
//!
//! Cells are all combinations of the axes, less `exclude`. An entry of `include` gives further values to every cell that
//! agrees with it on all axes that it names; where none does, or it names no axis at all, it is a cell of its own.

use std::collections::HashSet;

use indexmap::IndexMap;

use super::diagnostic::{did_you_mean, list, shown};
use super::params::Params;
use super::substitute::{self, replace};
use super::types::{Concurrency, ImageSource, Matrix, Serve, ServeApp, Service, Stage, Work};

/// Most cells of one stage.
pub const MAX_CELLS: usize = 256;

/// One combination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Unique within the stage, `[a-z0-9._-]+`: the values joined by `-`.
    pub slug: String,
    /// Name to value, axes first.
    pub values: IndexMap<String, String>,
}

impl Cell {
    /// The variables that scripts get: `MATRIX_<NAME>`.
    pub fn variables(&self) -> impl Iterator<Item = (String, String)> {
        self.values.iter().map(|(name, value)| (substitute::variable("MATRIX", name), value.clone()))
    }
}

/// The cells of a stage; empty if it has no matrix.
pub fn cells(stage: &Stage) -> Vec<Cell> {
    stage.matrix.as_ref().map(expand).unwrap_or_default()
}

/// The stage as it is for one cell: `${matrix.x}` and `${params.x}` are put into `image`, `build`, `command`, `env`,
/// `services` and the names of steps. Scripts stay as they are.
pub fn for_cell(stage: &Stage, cell: Option<&Cell>, params: &Params) -> Stage {
    let value = |name: &str| lookup(name, cell, params);
    let put = |text: &String| replace(text, value);
    let mut made = stage.clone();
    made.image = stage.image.as_ref().map(|image| put_image(image, &value));
    made.work = stage.work.as_ref().map(|work| put_work(work, &value));
    made.env = stage.env.iter().map(|(k, v)| (k.clone(), put(v))).collect();
    made.services = stage.services.iter().map(|(name, service)| (name.clone(), put_service(service, &value))).collect();
    made
}

/// The model API with `${params.x}` put in.
pub fn serve_with(serve: &Serve, params: &Params) -> Serve {
    let value = |name: &str| lookup(name, None, params);
    let mut made = serve.clone();
    made.image = serve.image.as_ref().map(|image| put_image(image, &value));
    made.app = match &serve.app {
        ServeApp::Work(work) => ServeApp::Work(put_work(work, &value)),
        ServeApp::Linfa(stage) => ServeApp::Linfa(stage.clone()),
    };
    made.env = serve.env.iter().map(|(k, v)| (k.clone(), replace(v, value))).collect();
    made
}

/// The concurrency group of a build.
pub fn group(concurrency: &Concurrency, branch: &str, event: &str, params: &Params) -> String {
    replace(&concurrency.group, |name| match name {
        "branch" => Some(branch.to_owned()),
        "event" => Some(event.to_owned()),
        _ => lookup(name, None, params),
    })
}

fn lookup(name: &str, cell: Option<&Cell>, params: &Params) -> Option<String> {
    match name.split_once('.')? {
        ("matrix", axis) => cell?.values.get(axis).cloned(),
        ("params", param) => params.get(param).map(super::params::ParamValue::text),
        (_, _) => None,
    }
}

fn put_image(image: &ImageSource, value: &impl Fn(&str) -> Option<String>) -> ImageSource {
    match image {
        ImageSource::Image(text) => ImageSource::Image(replace(text, value)),
        ImageSource::Build { context, dockerfile, args } => ImageSource::Build {
            context: context.clone(),
            dockerfile: dockerfile.clone(),
            args: args.iter().map(|(k, v)| (k.clone(), replace(v, value))).collect(),
        },
    }
}

fn put_work(work: &Work, value: &impl Fn(&str) -> Option<String>) -> Work {
    match work {
        Work::Command(words) => Work::Command(words.iter().map(|word| replace(word, value)).collect()),
        Work::Run { steps, shell } => {
            let mut steps = steps.clone();
            for step in &mut steps {
                step.name = replace(&step.name, value);
            }
            Work::Run { steps, shell: shell.clone() }
        }
    }
}

fn put_service(service: &Service, value: &impl Fn(&str) -> Option<String>) -> Service {
    Service {
        image: replace(&service.image, value),
        env: service.env.iter().map(|(k, v)| (k.clone(), replace(v, value))).collect(),
        ready: service.ready.clone(),
        port: service.port,
    }
}

/// All names that cells may have: axes, and further keys of `include`.
pub(crate) fn names(matrix: &Matrix) -> Vec<String> {
    let mut names: Vec<String> = matrix.axes.keys().cloned().collect();
    for key in matrix.include.iter().flat_map(IndexMap::keys) {
        if !names.contains(key) {
            names.push(key.clone());
        }
    }
    names
}

/// The combinations of the axes, one by one; nothing is kept but the current one.
fn combinations(axes: &IndexMap<String, Vec<String>>) -> impl Iterator<Item = IndexMap<String, String>> {
    let total = if axes.is_empty() { 0 } else { count(axes).unwrap_or(0) };
    (0..total).map(move |number| {
        // The last axis turns fastest, as one reads it.
        let mut rest = number;
        let mut picked: Vec<(String, String)> = Vec::with_capacity(axes.len());
        for (name, values) in axes.iter().rev() {
            let at = rest % values.len();
            rest /= values.len();
            picked.push((name.clone(), values[at].clone()));
        }
        picked.into_iter().rev().collect()
    })
}

/// How many combinations the axes have; `None` beyond any limit.
fn count(axes: &IndexMap<String, Vec<String>>) -> Option<usize> {
    axes.values().try_fold(1usize, |product, values| product.checked_mul(values.len()))
}

fn matches(cell: &IndexMap<String, String>, wanted: &IndexMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| cell.get(key) == Some(value))
}

fn expand(matrix: &Matrix) -> Vec<Cell> {
    let excluded = |cell: &IndexMap<String, String>| matrix.exclude.iter().any(|wanted| matches(cell, wanted));
    let base: Vec<IndexMap<String, String>> =
        combinations(&matrix.axes).filter(|cell| !excluded(cell)).take(MAX_CELLS).collect();
    let mut cells = base.clone();
    let mut alone = Vec::new();
    for extra in &matrix.include {
        let on_axes: IndexMap<String, String> = extra
            .iter()
            .filter(|(key, _)| matrix.axes.contains_key(*key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let mut used = false;
        for (cell, original) in cells.iter_mut().zip(&base) {
            if !on_axes.is_empty() && matches(original, &on_axes) {
                cell.extend(extra.iter().map(|(k, v)| (k.clone(), v.clone())));
                used = true;
            }
        }
        if !used {
            alone.push(extra.clone());
        }
    }
    cells.extend(alone);
    cells.truncate(MAX_CELLS);
    with_slugs(cells)
}

/// Gives each cell a slug of its own, the same for the same file each time.
fn with_slugs(cells: Vec<IndexMap<String, String>>) -> Vec<Cell> {
    let mut seen = HashSet::new();
    cells
        .into_iter()
        .map(|values| {
            let joined: Vec<String> = values.values().map(|value| slug_part(value)).collect();
            let base: String = joined.join("-").chars().take(80).collect();
            let mut slug = base.clone();
            let mut next = 2;
            while !seen.insert(slug.clone()) {
                slug = format!("{base}-{next}");
                next += 1;
            }
            Cell { slug, values }
        })
        .collect()
}

fn slug_part(value: &str) -> String {
    let ok = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '_' { c.to_ascii_lowercase() } else { '-' };
    let mapped: String = value.chars().take(40).map(ok).collect();
    let trimmed = mapped.trim_matches(['-', '.']);
    if trimmed.is_empty() { "x".to_owned() } else { trimmed.to_owned() }
}

/// A step on the way to a place inside `matrix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A key.
    Key(String),
    /// An item of a list.
    Item(usize),
}

/// Something wrong with a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where, from `matrix` down.
    pub(crate) path: Vec<Place>,
    /// Whether the file can be used nevertheless.
    pub(crate) fatal: bool,
    /// What.
    pub(crate) message: String,
    /// What to do.
    pub(crate) help: Option<String>,
}

/// Everything that is wrong with a matrix.
pub(crate) fn problems(matrix: &Matrix) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut add = |path: Vec<Place>, fatal: bool, message: String, help: Option<String>| {
        found.push(Problem { path, fatal, message, help });
    };
    if matrix.axes.is_empty() && matrix.include.is_empty() {
        let help = "write `matrix: { python: [\"3.11\", \"3.12\"] }`".to_owned();
        add(Vec::new(), true, "the matrix has no axis".to_owned(), Some(help));
        return found;
    }
    for (name, values) in &matrix.axes {
        let mut seen = HashSet::new();
        for (index, value) in values.iter().enumerate() {
            if !seen.insert(value) {
                let path = vec![Place::Key(name.clone()), Place::Item(index)];
                add(path, true, format!("the value `{}` is there twice", shown(value)), Some("remove one".to_owned()));
            }
        }
    }
    let total = count(&matrix.axes).filter(|total| *total + matrix.include.len() <= MAX_CELLS * 64);
    for (index, wanted) in matrix.exclude.iter().enumerate() {
        let path = || vec![Place::Key("exclude".to_owned()), Place::Item(index)];
        let axes = || matrix.axes.keys().map(String::as_str);
        if let Some(unknown) = wanted.keys().find(|key| !matrix.axes.contains_key(*key)) {
            let mut place = path();
            place.push(Place::Key(unknown.clone()));
            let help = did_you_mean(unknown, axes()).unwrap_or_else(|| format!("axes are {}", list(axes(), "and")));
            add(place, true, format!("there is no axis `{}`", shown(unknown)), Some(help));
        } else if !wanted.iter().all(|(key, value)| matrix.axes[key].contains(value)) {
            let message = "this leaves out nothing: no cell has these values".to_owned();
            add(
                path(),
                false,
                message,
                Some("values are compared as they are written: `3.10` is not `3.1`".to_owned()),
            );
        }
    }
    let cells = match total {
        None => usize::MAX,
        Some(_) => {
            let excluded = |cell: &IndexMap<String, String>| matrix.exclude.iter().any(|wanted| matches(cell, wanted));
            combinations(&matrix.axes).filter(|cell| !excluded(cell)).count() + matrix.include.len()
        }
    };
    if cells > MAX_CELLS {
        let size = if cells == usize::MAX { "far too many".to_owned() } else { cells.to_string() };
        let help = "leave out combinations by `exclude`, or make several stages".to_owned();
        add(Vec::new(), true, format!("the matrix has {size} cells; at most {MAX_CELLS} are allowed"), Some(help));
    }
    if cells == 0 {
        add(Vec::new(), true, "the matrix has no cell left: `exclude` leaves out all".to_owned(), None);
    }
    same_variables(matrix, &mut found);
    found
}

/// Two names that would be one variable.
fn same_variables(matrix: &Matrix, found: &mut Vec<Problem>) {
    let mut seen: IndexMap<String, String> = IndexMap::new();
    for name in names(matrix) {
        let variable = substitute::variable("MATRIX", &name);
        if let Some(other) = seen.insert(variable.clone(), name.clone()) {
            found.push(Problem {
                path: vec![Place::Key(name.clone())],
                fatal: true,
                message: format!("`{name}` and `{other}` would both be the variable `{variable}`"),
                help: Some("rename one of them".to_owned()),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(text: &str) -> IndexMap<String, String> {
        text.split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    /// Axes as `a=1,2 b=x,y`.
    fn matrix(axes: &str, include: &[&str], exclude: &[&str]) -> Matrix {
        Matrix {
            axes: row(axes).into_iter().map(|(k, v)| (k, v.split(',').map(str::to_owned).collect())).collect(),
            include: include.iter().map(|text| row(text)).collect(),
            exclude: exclude.iter().map(|text| row(text)).collect(),
        }
    }

    #[test]
    fn cells_of_a_matrix() {
        let check = |matrix: Matrix, expected: &[(&str, &str)]| {
            let found = expand(&matrix);
            let found: Vec<(String, IndexMap<String, String>)> =
                found.into_iter().map(|c| (c.slug, c.values)).collect();
            let expected: Vec<_> = expected.iter().map(|(slug, values)| ((*slug).to_owned(), row(values))).collect();
            assert_eq!(found, expected, "{matrix:?}");
        };
        check(matrix("a=1,2 b=x", &[], &[]), &[("1-x", "a=1 b=x"), ("2-x", "a=2 b=x")]);
        check(matrix("a=1,2 b=x,y", &[], &["a=1 b=y"]), &[("1-x", "a=1 b=x"), ("2-x", "a=2 b=x"), ("2-y", "a=2 b=y")]);
        // Further values for the cells that agree; a cell of its own where none does.
        check(matrix("a=1,2", &["a=1 c=z", "a=3 c=w"], &[]), &[("1-z", "a=1 c=z"), ("2", "a=2"), ("3-w", "a=3 c=w")]);
        // What is left out does not come back by `include`'s further values.
        check(matrix("a=1,2", &["a=1 c=z"], &["a=1"]), &[("2", "a=2"), ("1-z", "a=1 c=z")]);
        check(matrix("", &["a=1", "a=2"], &[]), &[("1", "a=1"), ("2", "a=2")]);
        check(matrix("a=X/y,x-y,..", &[], &[]), &[("x-y", "a=X/y"), ("x-y-2", "a=x-y"), ("x", "a=..")]);
    }

    #[test]
    fn a_stage_for_a_cell() {
        let text = b"params: { p: { type: integer, default: 5 } }\nstages:\n  a:\n    matrix: { v: [3.10] }\n    image: python:${matrix.v}\n    env: { P: \"${params.p}\", L: \"$${matrix.v}\" }\n    run: [{ name: \"on ${matrix.v}\", run: \"echo ${HOME}\" }, \"echo ${HOME}\"]\n";
        let pipeline = crate::pipeline::parse("p", text).expect("valid").pipeline;
        let params = crate::pipeline::params::resolve(&pipeline, &[]).expect("defaults");
        let stage = pipeline.stages.values().next().expect("one stage");
        let cells = cells(stage);
        let made = for_cell(stage, cells.first(), &params);
        assert_eq!(made.image, Some(ImageSource::Image("python:3.10".into())));
        assert_eq!(made.env, row("P=5 L=${matrix.v}"));
        let Some(Work::Run { steps, .. }) = made.work else { panic!("steps") };
        let steps: Vec<(&str, &str)> = steps.iter().map(|step| (step.name.as_str(), step.script.as_str())).collect();
        assert_eq!(steps, [("on 3.10", "echo ${HOME}"), ("echo ${HOME}", "echo ${HOME}")]);
        assert_eq!(cells[0].variables().collect::<Vec<_>>(), [("MATRIX_V".to_owned(), "3.10".to_owned())]);
    }

    fn any_matrix() -> impl Strategy<Value = Matrix> {
        let value = "[a-zA-Z0-9./ é-]{0,6}";
        let cell = proptest::collection::vec(("[a-d]", value), 1..3).prop_map(|pairs| pairs.into_iter().collect());
        let axes = proptest::collection::vec(("[a-d]", proptest::collection::vec(value, 1..7)), 0..4);
        (axes, proptest::collection::vec(cell.clone(), 0..5), proptest::collection::vec(cell, 0..3))
            .prop_map(|(axes, include, exclude)| Matrix { axes: axes.into_iter().collect(), include, exclude })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn slugs_are_unique_and_safe(matrix in any_matrix()) {
            let cells = expand(&matrix);
            prop_assert!(cells.len() <= MAX_CELLS);
            let mut seen = HashSet::new();
            for cell in &cells {
                prop_assert!(seen.insert(cell.slug.clone()), "{} twice", cell.slug);
                let key = format!("stage.{}", cell.slug);
                prop_assert!(key.parse::<crate::ids::NodeKey>().is_ok(), "{key}");
                prop_assert!(cell.slug.len() <= 90 && !cell.slug.starts_with('.'));
            }
        }
    }
}
