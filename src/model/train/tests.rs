use indexmap::IndexMap;
use serde_json::json;

use super::*;
use crate::judge::predictions::check_pair;
use crate::model::score::score;
use crate::pipeline::types::Algorithm;

fn spec(task: Task, algorithm: Algorithm) -> Linfa {
    Linfa {
        data: "data.csv".into(),
        target: "y".into(),
        task,
        algorithm,
        params: IndexMap::new(),
        holdout: 0.25,
        seed: 7,
        drop: vec![],
    }
}

fn params(given: &Value) -> IndexMap<String, Value> {
    given.as_object().expect("an object").iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

struct Run {
    folder: tempfile::TempDir,
    result: Result<TrainSummary, String>,
    notes: Vec<String>,
}

impl Run {
    fn of(text: &str, spec: &Linfa) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("data.csv"), text).expect("written");
        let out = TrainPaths {
            model: at("model.json"),
            metrics: at("metrics.json"),
            predictions: at("predictions.csv"),
            evaluation: Some(at("evaluation.csv")),
        };
        let mut notes = Vec::new();
        let result = train(spec, &at("data.csv"), &out, &mut |line| notes.push(line));
        Self { folder, result: result.map_err(|error| error.to_string()), notes }
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(name)).expect(name)
    }

    fn summary(&self) -> &TrainSummary {
        self.result.as_ref().expect("trained")
    }
}

/// Numbers that look random and are the same everywhere.
fn noise(row: usize, column: usize) -> f64 {
    let mixed = (row * 31 + column * 17 + 7).wrapping_mul(2_654_435_761) % 10_007;
    mixed as f64 / 10_007.0
}

/// 240 rows: two numbers, a category, some missing; the class follows from them, `classes` many.
fn class_data(classes: usize) -> String {
    let mut text = ",a,b,place,y\n".to_owned();
    for row in 0..240 {
        let (a, b) = (noise(row, 0) * 10.0, noise(row, 1) * 10.0);
        let class = if classes == 2 { usize::from(a + b > 14.0) } else { (a / 10.0 * classes as f64) as usize };
        let shown_b = if row % 40 == 3 { String::new() } else { b.to_string() };
        text += &format!("r{row},{a},{shown_b},{},{class}\n", ["x", "y", "z"][row % 3]);
    }
    text
}

fn number_data() -> String {
    let mut text = "a,b,place,y\n".to_owned();
    for row in 0..200 {
        let (a, b) = (noise(row, 0) * 10.0, noise(row, 1) * 10.0);
        let shift = [0.0, 5.0, -5.0][row % 3];
        text += &format!("{a},{b},{},{}\n", ["x", "y", "z"][row % 3], 1_000_000.0 + 3.0 * a - 2.0 * b + shift);
    }
    text
}

const CLASSIFIERS: [Algorithm; 6] = [
    Algorithm::Logistic,
    Algorithm::DecisionTree,
    Algorithm::RandomForest,
    Algorithm::NaiveBayes,
    Algorithm::Svm,
    Algorithm::Knn,
];

const REGRESSORS: [Algorithm; 6] = [
    Algorithm::Linear,
    Algorithm::ElasticNet,
    Algorithm::DecisionTree,
    Algorithm::RandomForest,
    Algorithm::Svm,
    Algorithm::Knn,
];

/// Settings with which each algorithm learns the test data quickly.
fn test_params(task: Task, algorithm: Algorithm) -> IndexMap<String, Value> {
    params(&match (task, algorithm) {
        (_, Algorithm::RandomForest) => json!({"trees": 15, "features": 1.0}),
        (Task::Regression, Algorithm::ElasticNet) => json!({"penalty": 0.01}),
        (Task::Regression, Algorithm::Svm) => json!({"c": 1000, "kernel": "linear"}),
        (_, _) => json!({}),
    })
}

#[test]
fn every_classifier_learns_and_gives_the_same_bytes_again() {
    for (classes, algorithm) in [2, 3].into_iter().flat_map(|classes| CLASSIFIERS.map(|algorithm| (classes, algorithm)))
    {
        let spec =
            Linfa { params: test_params(Task::Classification, algorithm), ..spec(Task::Classification, algorithm) };
        let run = Run::of(&class_data(classes), &spec);
        let summary = run.summary();
        assert!(summary.metrics["accuracy"] > 0.85, "{algorithm:?} of {classes}: {:?}", summary.metrics);
        assert_eq!(summary.metrics.contains_key("roc_auc"), classes == 2);
        assert!(classes == 3 || summary.metrics["roc_auc"] > 0.93, "{algorithm:?}: {:?}", summary.metrics);
        let again = Run::of(&class_data(classes), &spec);
        for file in ["model.json", "metrics.json", "predictions.csv", "evaluation.csv"] {
            assert_eq!(run.bytes(file), again.bytes(file), "{algorithm:?} {file}");
        }
    }
}

#[test]
fn every_regressor_learns() {
    for algorithm in REGRESSORS {
        let spec = Linfa { params: test_params(Task::Regression, algorithm), ..spec(Task::Regression, algorithm) };
        let run = Run::of(&number_data(), &spec);
        let r2 = run.summary().metrics["r2"];
        assert!(r2 > 0.75, "{algorithm:?}: {r2}");
        assert!(
            !String::from_utf8(run.bytes("predictions.csv")).expect("text").starts_with("id,label,prediction,score")
        );
    }
}

#[test]
fn a_saved_model_scores_its_held_out_rows_as_it_did_in_training() {
    for algorithm in CLASSIFIERS {
        let spec =
            Linfa { params: test_params(Task::Classification, algorithm), ..spec(Task::Classification, algorithm) };
        let run = Run::of(&class_data(2), &spec);
        let at = |name: &str| run.folder.path().join(name);
        let rows = score(&at("model.json"), &at("evaluation.csv"), &at("again.csv")).expect("scored");
        assert_eq!(rows, run.summary().held_out);
        assert_eq!(run.bytes("again.csv"), run.bytes("predictions.csv"), "{algorithm:?}");
    }
}

#[test]
fn two_algorithms_hold_out_the_same_rows() {
    let parse = |algorithm| {
        let run = Run::of(&class_data(2), &spec(Task::Classification, algorithm));
        Predictions::parse(&run.bytes("predictions.csv")).expect("valid")
    };
    let (one, other) = (parse(Algorithm::NaiveBayes), parse(Algorithm::DecisionTree));
    assert_eq!(check_pair(&one, &other), Ok(()));
    assert_eq!(one.rows_digest(), other.rows_digest());
    assert!(one.rows()[0].id.starts_with('r'), "ids are the first column's");
}

#[test]
fn the_log_says_what_was_done_and_what_always_saying_one_class_gets() {
    let run = Run::of(&class_data(2), &spec(Task::Classification, Algorithm::DecisionTree));
    assert_eq!(run.notes[0], "240 rows and 4 columns in `data.csv`");
    assert_eq!(run.notes[2], "`b`: 6 missing values are taken as the median, 4.969521335065455");
    assert!(run.notes.iter().any(|line| line.contains("always saying `0` would get 0.8")), "{:#?}", run.notes);
    assert!(run.notes.iter().any(|line| line.starts_with("the rarer class `1`")), "{:#?}", run.notes);
    let metrics = crate::judge::metrics_file::parse(&run.bytes("metrics.json")).expect("our own metrics are readable");
    assert_eq!(metrics, run.summary().metrics);
}

fn check_error(text: &str, spec: &Linfa, expected: &str) {
    let run = Run::of(text, spec);
    let error = run.result.expect_err("an error");
    assert!(error.contains(expected), "{error}");
    assert!(!run.folder.path().join("model.json").exists());
}

#[test]
fn data_that_cannot_be_learned_from_is_told() {
    let classes = spec(Task::Classification, Algorithm::NaiveBayes);
    let numbers = spec(Task::Regression, Algorithm::Linear);
    let rows = |y: fn(usize) -> String| {
        (0..40).fold("a,b,y\n".to_owned(), |text, row| text + &format!("{},{},{}\n", row % 7, row % 5, y(row)))
    };
    let good = rows(|row| (row % 2).to_string());
    let target = |target: &str| Linfa { target: target.into(), ..classes.clone() };
    check_error(&good, &target("Y"), "`data.csv` has no column `Y` (the target); did you mean `y`?");
    check_error(&rows(|_| "1".into()), &classes, "the target `y` is `1` in every row: there is nothing to learn");
    check_error(&rows(|_| "1".into()), &numbers, "the target `y` is 1 in every row: there is nothing to learn");
    check_error(&rows(|_| String::new()), &classes, "the target `y` has no value in any row");
    check_error(
        &rows(|row| if row == 7 { "x".into() } else { "1".into() }),
        &classes,
        "the class `x` of `y` has a single row",
    );
    check_error(&rows(|row| format!("w{}", row % 2)), &numbers, "the target `y` is not a number");
    check_error(
        &rows(|row| if row < 35 { String::new() } else { (row % 2).to_string() }),
        &classes,
        "there are 5 rows to learn from; at least 10 are needed",
    );
    let many = (0..300).fold("a,y\n".to_owned(), |text, row| text + &format!("{row},{}\n", row / 2));
    check_error(&many, &classes, "the target `y` has 150 different values; for numbers use `task: regression`");
    check_error(&good, &Linfa { drop: vec!["y".into()], ..classes.clone() }, "`drop` names the target `y`");
}

#[test]
fn rows_without_a_target_are_left_out_and_counted() {
    let text = class_data(2).replace("r5,", "r5,1,1,x,\nr5b,");
    let run = Run::of(&text, &spec(Task::Classification, Algorithm::NaiveBayes));
    assert!(run.notes.contains(&"1 rows without a `y` are left out".to_owned()), "{:#?}", run.notes);
    assert_eq!(run.summary().rows + run.summary().held_out, 240);
}
