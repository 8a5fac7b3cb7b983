//! The daemon's configuration and its commands, through the real program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::harness::Place;

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_file_to_begin_with_is_valid_and_is_not_written_over() {
    let place = Place::new();
    place.expect(0, &["config", "init"]);
    place.expect(0, &["config", "check"]);
    let again = place.expect(1, &["config", "init"]);
    assert!(again.err.contains("a file that is there stays as it is"), "{}", again.err);
    let shown = place.expect(0, &["config", "show"]);
    assert!(shown.out.contains("listen = \"127.0.0.1:8484\"  (default)"), "{}", shown.out);
    assert!(shown.out.contains("(environment ORCHESTRATOR_DATA_DIR)"), "{}", shown.out);
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_without_secrets() {
    let place = Place::new();
    place.write("orchestrator.toml", "[server]\nlsten = \"x\"\n[github]\ntoken = \"hunter2\"\ntoken_file = \"none\"\n");
    let checked = place.expect(1, &["config", "check"]);
    assert!(
        checked.err.contains("orchestrator.toml:2:1") && checked.err.contains("did you mean `listen`?"),
        "{}",
        checked.err
    );
    assert!(checked.err.contains("secret-in-file") && !checked.err.contains("hunter2"), "{}", checked.err);
    let json = place.expect(1, &["config", "check", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(found[0]["code"], "unknown-key");
    let missing = place.expect(1, &["config", "check", "none.toml"]);
    assert!(missing.err.contains("none.toml"), "{}", missing.err);
    place.write("orchestrator.toml", "[github]\ntoken_file = \"secret\"\n");
    assert!(place.expect(1, &["config", "check"]).err.contains("cannot read"));
    place.write("secret", "s");
    fs::set_permissions(place.project().join("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(place.expect(0, &["config", "check"]).err.contains("open-secret"));
    fs::set_permissions(place.project().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!place.expect(0, &["config", "check"]).err.contains("open-secret"));
}

#[test]
fn projects_come_and_go_and_comments_stay() {
    let place = Place::new();
    let before = "# ours\n[server] # here\nlisten = \"127.0.0.1:1\"   # odd spacing\n";
    place.write("orchestrator.toml", before);
    let file = place.project().join("orchestrator.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let repository = "https://github.com/me/api";
    let added = place.expect(
        0,
        &["project", "add", "api", "--repository", repository, "--webhook-secret", "generate", "--branch", "main"],
    );
    assert!(added.out.contains("http://127.0.0.1:1/hooks/github"), "{}", added.out);
    assert!(
        added.out.contains("application/json") && added.out.contains("github.com/me/api/settings/hooks/new"),
        "{}",
        added.out
    );
    let secret = place.project().join("api.webhook-secret");
    assert_eq!(mode(&secret), 0o600);
    let hex = fs::read_to_string(&secret).unwrap();
    assert!(hex.trim().len() == 64 && !added.out.contains(hex.trim()));
    assert_eq!(mode(&file), 0o640);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with(before) && text.contains("[projects.api]\n"), "{text}");

    let twice = place.expect(1, &["project", "add", "api", "--repository", repository]);
    assert!(twice.err.contains("there is a project `api` already"), "{}", twice.err);
    place.expect(2, &["project", "add", "b", "--repository", "ext::sh"]);
    place.expect(2, &["project", "add", "B", "--repository", repository]);
    let bad = place
        .expect(1, &["project", "add", "b", "--repository", repository, "--poll", "5", "--webhook-secret", "generate"]);
    assert!(bad.err.contains("has no unit") && bad.err.contains("nothing was changed"), "{}", bad.err);
    assert!(!place.project().join("b.webhook-secret").exists(), "a secret for nothing was left");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);

    let listed = place.expect(0, &["project", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!((&listed[0]["name"], &listed[0]["webhook"]), (&"api".into(), &true.into()));
    let absent = place.expect(1, &["project", "remove", "apj"]);
    assert!(absent.err.contains("did you mean `api`?"), "{}", absent.err);
    place.expect(0, &["project", "remove", "api"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
}

#[test]
fn two_writers_at_once_lose_nothing() {
    let place = Place::new();
    let running: Vec<_> = (0..8)
        .map(|number| {
            let name = format!("p{number}");
            let mut command = place.command(&["project", "add", &name, "--repository", "https://h/x"]);
            command.stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in running {
        assert!(child.wait().unwrap().success());
    }
    let listed = place.expect(0, &["project", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 8);
}

#[test]
fn a_local_repository_is_looked_into() {
    let place = Place::new();
    let repository = place.outside("repo");
    let git = |arguments: &[&str]| {
        let done = Command::new("git")
            .args(["-C", repository.to_str().unwrap(), "-c", "user.name=t", "-c", "user.email=t@t"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    fs::create_dir(&repository).unwrap();
    place.expect(0, &["project", "add", "a", "--repository", "../repo"]);
    let check = || place.run(&["project", "check", "a"]);
    assert_eq!(check().code, 1);
    git(&["init", "-q", "-b", "trunk"]);
    assert!(check().out.contains("no commit yet"), "{}", check().out);
    fs::write(repository.join("README"), "x").unwrap();
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    assert!(check().out.contains("no file on trunk matches pipeline.yaml"), "{}", check().out);
    fs::write(repository.join("pipeline.yaml"), "stages: { a: {} }").unwrap();
    git(&["add", "."]);
    git(&["commit", "-qm", "two"]);
    assert!(check().out.contains("✗ pipeline pipeline.yaml: line 1"), "{}", check().out);
    fs::write(repository.join("pipeline.yaml"), "stages: { a: { run: make } }").unwrap();
    git(&["commit", "-qam", "three"]);
    let good = place.expect(0, &["project", "check", "a"]);
    assert!(good.out.contains("✓ pipeline pipeline.yaml: valid, 1 stages"), "{}", good.out);
    assert!(good.out.contains("webhooks for this project are refused"), "{}", good.out);
}

#[test]
fn what_is_added_comes_behind_every_comment() {
    let place = Place::new();
    place.expect(0, &["config", "init"]);
    let file = place.project().join("orchestrator.toml");
    let before = fs::read_to_string(&file).unwrap();
    place.expect(0, &["project", "add", "one", "--repository", "https://github.com/me/one"]);
    let after = fs::read_to_string(&file).unwrap();
    assert!(after.starts_with(&before), "nothing above it moved:\n{after}");
    assert!(after[before.len()..].starts_with("\n[projects.one]\n"), "{after}");
    // What stands commented out below a table is still that table's.
    let uncommented = after.replace("# mode = \"token\"", "mode = \"token\"");
    assert_ne!(uncommented, after);
    fs::write(&file, uncommented).unwrap();
    place.expect(0, &["config", "check"]);
}
