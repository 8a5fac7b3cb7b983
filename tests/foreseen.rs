//! What cannot pass is told before anything is begun, by `run` and by `plan`.

use crate::harness::Place;

const TRAINING: &str = "stages:
  make: { run: 'mkdir made; cp players.csv made/x.csv', outputs: [made] }
  train:
    needs: [make]
    train: { model: m, linfa: { data: DATA, target: y, task: classification, algorithm: decision-tree } }
";

/// Refused by both with these words; nothing is begun.
#[track_caller]
fn refused(place: &Place, arguments: &[&str], words: &str) {
    for (command, lead) in [("run", "nothing is begun, since it could not pass: "), ("plan", "it could not pass: ")] {
        let ended = place.expect(1, &[&[command], arguments].concat());
        assert!(ended.err.contains(&format!("{lead}{words}")), "{command}: {}", ended.err);
    }
    assert_eq!(place.json(&["builds", "--json"]).as_array().map(Vec::len), Some(0));
}

#[test]
fn data_that_is_not_there() {
    let place = Place::with(&TRAINING.replace("DATA", "player.csv"));
    place.write("players.csv", "x,y\n1,a\n2,b\n");
    refused(
        &place,
        &[],
        "stage `train`: there is no `player.csv` in the source tree (`data`); did you mean `players.csv`?",
    );
    place.write("pipeline.yaml", &TRAINING.replace("DATA", "data/players.csv"));
    refused(
        &place,
        &[],
        "stage `train`: there is no `data/players.csv` in the source tree (`data`); did you mean `players.csv`?",
    );
    place.write("pipeline.yaml", &TRAINING.replace("DATA", "other.txt"));
    refused(
        &place,
        &[],
        "stage `train`: there is no `other.txt` in the source tree (`data`), and no stage before makes it",
    );
    place.write(".orchestratorignore", "other.txt\n");
    place.write("other.txt", "x,y\n1,a\n");
    refused(
        &place,
        &[],
        "stage `train`: there is no `other.txt` in the source tree (`data`); it is in the folder, and ignored",
    );
    // What a stage before may make, and what may fail, is not foreseen.
    for (data, keys) in [("made/x.csv", ""), ("./made//x.csv", ""), ("nowhere.csv", "    allow_failure: true\n")] {
        place.write("pipeline.yaml", &format!("{}{keys}", TRAINING.replace("DATA", data)));
        place.expect(0, &["plan"]);
    }
}

#[test]
fn docker_without_an_image() {
    let place = Place::with("stages:\n  a: { run: 'true' }\n");
    let ended = place.expect(1, &["plan", "--runner", "docker"]);
    let words = "it could not pass: stage `a` names no image, which the runner `docker` needs: add `image` to it";
    assert!(ended.err.contains(words), "{}", ended.err);
    place.expect(0, &["plan", "--runner", "local"]);
}

#[test]
fn a_plan_names_the_secrets_that_a_run_wants() {
    let place = Place::with("stages:\n  a: { run: 'true', secrets: [PLAN_SECRET_UNSET] }\n");
    let ended = place.expect(0, &["plan"]);
    assert!(ended.err.contains("`run` wants a value for PLAN_SECRET_UNSET"), "{}", ended.err);
    place.expect(2, &["run"]);
}

#[test]
fn a_model_of_another_project() {
    let pipeline =
        |run: &str| format!("stages:\n  train:\n    run: '{run}'\n    train: {{ model: shared, artifact: model }}\n");
    let place = Place::with(&pipeline("echo 1 > model"));
    place.expect(0, &["run"]);
    // The same data folder, and a folder of another name.
    let other = place.outside("other");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("pipeline.yaml"), pipeline("echo 2 > model")).unwrap();
    let told = place.expect(1, &["plan", other.join("pipeline.yaml").to_str().unwrap()]);
    let words = "stage `train`: model `shared` belongs to another project: give yours another name";
    assert!(told.err.contains(words), "{}", told.err);
}
