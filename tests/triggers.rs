//! Real and wrong deliveries of GitHub, and what is decided about each.

use std::path::{Path, PathBuf};

use orchestrator::pipeline::{self, types::Pipeline};
use orchestrator::trigger::decide::{Against, First, ProjectPolicy, first, second};
use orchestrator::trigger::git::GitRef;
use orchestrator::trigger::github::{Delivery, DeliveryProblem, GithubEvent, MAX_BODY_BYTES, Received, parse};
use proptest::prelude::*;

/// Every trigger, with filters that some of the deliveries fail.
const PIPELINE: &str = "
on:
  push: { branches: [master, 'release/*'], tags: ['v*', '0.*', simple-tag], paths_ignore: ['docs/**'] }
  pull_request: { branches: [master] }
stages:
  test: { run: 'true' }
  publish: { run: 'true', when: { event: [release] } }
";

fn pipeline() -> Pipeline {
    pipeline::parse("pipeline.yaml", PIPELINE.as_bytes()).expect("a good pipeline").pipeline
}

fn policy() -> ProjectPolicy {
    ProjectPolicy {
        name: "hello".into(),
        repository_id: Some(186_853_002),
        full_name: "Codertocat/Hello-World".into(),
        default_branch: "master".into(),
        ..ProjectPolicy::default()
    }
}

/// The files of a folder, in order.
fn files(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder);
    let entries = std::fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json" || extension == "txt"));
    files.sort();
    files
}

/// A file's event is its name up to the first dot, its content type its ending.
fn delivery<'a>(path: &'a Path, body: &'a [u8]) -> Delivery<'a> {
    let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
    let form = name.ends_with(".txt").then_some("application/x-www-form-urlencoded");
    Delivery { event: name.split('.').next().expect("an event"), content_type: form.or(Some("application/json")), body }
}

/// What was read and what is decided, for people.
fn summary(parsed: Result<Received, DeliveryProblem>) -> String {
    let received = match parsed {
        Ok(received) => received,
        Err(problem) => return format!("refused: {problem}\n"),
    };
    let mut text = format!("read     {}\n", json(&received.event));
    // The examples are of several repositories: each is decided about as if it were the project's.
    let mut policy = policy();
    if let Some(repository) = received.repository.as_ref().filter(|repository| repository.id != 5) {
        policy.repository_id = Some(repository.id);
        if repository.full_name != "octo-org/Hello-World" {
            policy.full_name.clone_from(&repository.full_name);
        }
    }
    let found = first(&received, &policy);
    text.push_str(&format!("first    {}\n", json(&found)));
    if let First::Candidate(candidate) = found {
        let (pipeline, changed) = (pipeline(), ["train.py".to_owned()]);
        let decision = second(&candidate, &Against { pipeline: &pipeline, changed: Some(&changed), policy: &policy });
        text.push_str(&format!("second   {}\n", json(&decision)));
        text.push_str(&format!("pipeline {}\n", json(&candidate.pipeline_commit())));
    }
    text
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("serializable")
}

fn golden(folder: &str, name: &str, at_least: usize) {
    let files = files(folder);
    assert!(files.len() >= at_least, "{} files in {folder}", files.len());
    let mut text = String::new();
    for path in files {
        let body = std::fs::read(&path).expect("a fixture");
        let summary = summary(parse(&delivery(&path, &body)));
        text.push_str(&format!("=== {}\n{summary}\n", path.file_name().expect("a name").to_string_lossy()));
    }
    insta::with_settings!({
        snapshot_path => "fixtures/github-webhooks/snapshots",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!(name, text); });
}

#[test]
fn githubs_own_examples() {
    golden("github-webhooks", "examples", 42);
}

#[test]
fn cases_that_the_examples_lack() {
    golden("github-webhooks/own", "own", 28);
}

#[test]
fn json_and_form_say_the_same() {
    let path = files("github-webhooks").into_iter().find(|path| path.ends_with("push.with-new-branch.payload.json"));
    let body = std::fs::read(path.expect("this example")).expect("a fixture");
    let mut form = url::form_urlencoded::Serializer::new("first=1&payloads=2".to_owned());
    let form = form.append_pair("payload", std::str::from_utf8(&body).expect("text")).finish();
    let read = |content_type, body| parse(&Delivery { event: "push", content_type: Some(content_type), body });
    let as_json = read("application/json", &body).expect("good");
    assert_eq!(read("Application/JSON; charset=utf-8", &body).as_ref(), Ok(&as_json));
    assert_eq!(read("application/x-www-form-urlencoded", form.as_bytes()).as_ref(), Ok(&as_json));
}

#[test]
fn what_is_no_delivery_is_refused_with_its_reason() {
    let check = |event, content_type, body: &[u8], expected: &str| {
        let problem = parse(&Delivery { event, content_type, body }).expect_err("refused");
        assert_eq!(problem.to_string(), expected);
    };
    let json = Some("application/json");
    let form = Some("application/x-www-form-urlencoded");
    check("", json, b"{}", "`X-GitHub-Event` is not the name of an event");
    check("pu sh", json, b"{}", "`X-GitHub-Event` is not the name of an event");
    check("../push", json, b"{}", "`X-GitHub-Event` is not the name of an event");
    let unsupported = |kind: &str| {
        format!("the content type `{kind}` is not supported: choose application/json in the webhook's settings")
    };
    check("push", None, b"{}", &unsupported(""));
    check("push", Some("text/html; x"), b"{}", &unsupported("text/html"));
    check("push", form, b"payloads=1", "the form has no field `payload`");
    check("push", json, b"", "the body is not JSON: EOF while parsing a value at line 1 column 0");
    check("push", form, b"payload=", "the body is not JSON: EOF while parsing a value at line 1 column 0");
    check("issues", json, b"{\"action\": ", "the body is not JSON: EOF while parsing a value at line 1 column 11");
    check("push", json, b"{}", "the payload of `push` is malformed: missing field `ref` at line 1 column 2");
    check(
        "push",
        json,
        br#"{"ref": 5}"#,
        "the payload of `push` is malformed: invalid type: integer `5`, expected a string at line 1 column 9",
    );
}

/// Bodies of the greatest size: deep, wide, and of one long text.
#[test]
fn huge_payloads_are_read_or_refused() {
    let large = |start: &str, middle: &str, end: &str| {
        let times = (MAX_BODY_BYTES - start.len() - end.len()) / middle.len();
        format!("{start}{}{end}", middle.repeat(times)).into_bytes()
    };
    let read = |event, body: &[u8]| parse(&Delivery { event, content_type: Some("application/json"), body });
    let too_large = vec![b' '; MAX_BODY_BYTES + 1];
    assert_eq!(read("push", &too_large), Err(DeliveryProblem::TooLarge { bytes: MAX_BODY_BYTES + 1 }));

    let path = files("github-webhooks/own").into_iter().find(|path| path.ends_with("push.forced.json"));
    let good = String::from_utf8(std::fs::read(path.expect("this one")).expect("a fixture")).expect("text");
    let good = good.trim().strip_suffix('}').expect("an object");
    // Unclosed and closed, in a field that nobody reads.
    assert!(matches!(read("push", &large(good, "[", "")), Err(DeliveryProblem::NotJson(_))));
    let half = (MAX_BODY_BYTES - good.len() - 20) / 2;
    let deep = format!("{good}, \"x\": {}{}}}", "[".repeat(half), "]".repeat(half)).into_bytes();
    assert!(matches!(read("push", &deep).expect("good").event, GithubEvent::Push(_)));
    // Millions of commits are counted, not kept.
    let wide =
        large(&format!("{}, \"commits\": [", good.replace("\"commits\"", "\"was\"")), "{\"distinct\":true},", "{}]}");
    let GithubEvent::Push(push) = read("push", &wide).expect("good").event else { panic!("a push") };
    assert!(push.distinct_commits > 1_000_000);
    // A message of 25 MiB is cut.
    // It stands at the commit and at the head commit.
    let long = good.replace("Rewrite history", &"x".repeat((MAX_BODY_BYTES - good.len()) / 2));
    let GithubEvent::Push(push) = read("push", format!("{long}}}").as_bytes()).expect("good").event else {
        panic!("a push")
    };
    assert_eq!(push.message.map(|message| message.len()), Some(64 << 10));
}

#[test]
fn refs_are_those_that_git_allows() {
    for text in ["refs/heads/main", "refs/heads/a..b", "refs/heads/a.lock", "refs/heads/@", "refs/heads/a@{b", "refs/x"]
    {
        assert_eq!(GitRef::new(text).is_some(), git2::Reference::is_valid_name(text), "{text}");
    }
}

fn seeds() -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths = files("github-webhooks");
    paths.extend(files("github-webhooks/own"));
    paths.into_iter().map(|path| (path.clone(), std::fs::read(&path).expect("a fixture"))).collect()
}

/// What may go wrong with a payload on its way, or be done to it.
#[derive(Debug, Clone)]
enum Mutation {
    Cut(prop::sample::Index),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    /// The value of the n-th key becomes another one.
    Retype(prop::sample::Index, &'static str),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<prop::sample::Index>;
    let values = vec![
        "null",
        "true",
        "-1",
        "1e400",
        "18446744073709551616",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "[]",
        "{}",
        "[{}]",
        "\"refs/heads/..\"",
        "\"0000000000000000000000000000000000000000\"",
        "{\"id\": null}",
        "[1, [2]]",
    ];
    prop_oneof![
        1 => index().prop_map(Mutation::Cut),
        1 => (index(), 1..=u8::MAX).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        1 => (index(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        6 => (index(), prop::sample::select(values)).prop_map(|(at, value)| Mutation::Retype(at, value)),
    ]
}

fn mutate(body: &mut Vec<u8>, mutation: &Mutation) {
    if body.is_empty() {
        return;
    }
    match mutation {
        Mutation::Cut(at) => body.truncate(at.index(body.len())),
        Mutation::Flip(at, bits) => {
            let at = at.index(body.len());
            body[at] ^= bits;
        }
        Mutation::Insert(at, bytes) => {
            let at = at.index(body.len());
            body.splice(at..at, bytes.iter().copied());
        }
        Mutation::Retype(at, value) => retype(body, *at, value),
    }
}

/// Puts another value in the place of the one after the n-th `": `.
fn retype(body: &mut Vec<u8>, at: prop::sample::Index, value: &str) {
    let keys: Vec<usize> = body.windows(3).enumerate().filter(|(_, w)| w == b"\": ").map(|(at, _)| at + 3).collect();
    if keys.is_empty() {
        return;
    }
    let from = keys[at.index(keys.len())];
    let mut rest = serde_json::Deserializer::from_slice(&body[from..]).into_iter::<serde::de::IgnoredAny>();
    if rest.next().is_some_and(|value| value.is_ok()) {
        let to = from + rest.byte_offset();
        body.splice(from..to, value.bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Whatever becomes of a real payload: it is read or refused, and what was read is small, checked and decided.
    #[test]
    fn no_payload_does_harm(
        seed in any::<prop::sample::Index>(),
        mutations in prop::collection::vec(mutation(), 1..4),
        event in prop::option::weighted(0.2, prop::sample::select(vec!["push", "pull_request", "release", "ping", "check_run"])),
    ) {
        static SEEDS: std::sync::LazyLock<Vec<(PathBuf, Vec<u8>)>> = std::sync::LazyLock::new(seeds);
        let (path, body) = &SEEDS[seed.index(SEEDS.len())];
        let mut body = body.clone();
        mutations.iter().for_each(|mutation| mutate(&mut body, mutation));
        let mut delivery = delivery(path, &body);
        delivery.event = event.unwrap_or(delivery.event);
        let parsed = parse(&delivery);
        if let Err(problem) = &parsed {
            prop_assert!(problem.to_string().len() < 500, "{}", problem);
        }
        if let Ok(Received { event: GithubEvent::Push(push), .. }) = &parsed {
            prop_assert!(git2::Reference::is_valid_name(push.git_ref.as_str()));
        }
        prop_assert!(summary(parsed).len() < 300_000);
    }

    /// A ref that is accepted here is one that git accepts.
    #[test]
    fn accepted_refs_are_valid(text in "refs/(heads/|tags/)?[-a-z.@{~^:?*\\[\\\\/ \u{1}\u{7f}é]{0,12}(\\.lock)?") {
        if GitRef::new(&text).is_some() {
            prop_assert!(git2::Reference::is_valid_name(&text));
        }
    }
}
