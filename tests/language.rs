//! The pipeline language as a user meets it: good files are read, wrong ones get messages that help.

use std::path::{Path, PathBuf};

use orchestrator::pipeline::{self, Colour, Severity};

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/language").join(folder);
    let entries = std::fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a name").to_string_lossy().into_owned()
}

#[test]
fn wrong_files_get_messages_that_help() {
    let files = fixtures("wrong");
    assert!(files.len() >= 40, "{} wrong files", files.len());
    for path in files {
        let bytes = std::fs::read(&path).expect("a fixture");
        let found = pipeline::parse(&format!("{}.yaml", stem(&path)), &bytes).err();
        let found = found.unwrap_or_else(|| panic!("{} was taken", path.display()));
        assert!(found.iter().any(|diagnostic| diagnostic.severity == Severity::Error), "{}", path.display());
        let rendered = pipeline::render(&found, &String::from_utf8_lossy(&bytes), Colour::Never);
        insta::with_settings!({
            snapshot_path => "fixtures/language/snapshots",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!(stem(&path), rendered); });
    }
}

#[test]
fn good_files_are_read() {
    for path in fixtures("good") {
        let bytes = std::fs::read(&path).expect("a fixture");
        match pipeline::parse("pipeline.yaml", &bytes) {
            Ok(parsed) => assert_eq!(parsed.warnings, [], "{}", path.display()),
            Err(found) => {
                panic!(
                    "{}\n{}",
                    path.display(),
                    pipeline::render(&found, &String::from_utf8_lossy(&bytes), Colour::Never)
                )
            }
        }
    }
}

/// What hostile bytes are answered by: an error of this code, in bounded time and memory.
fn refused(bytes: &[u8], code: &str) {
    let found = pipeline::parse("hostile.yaml", bytes).expect_err("refused");
    assert!(found.iter().any(|diagnostic| diagnostic.code == code), "no {code}: {:?}", found.first());
    assert!(found.len() <= 101, "{} findings", found.len());
    let shown = &bytes[..bytes.len().min(pipeline::MAX_BYTES)];
    let rendered = pipeline::render(&found, &String::from_utf8_lossy(shown), Colour::Never);
    assert!(rendered.len() < 1 << 20, "{} bytes of messages", rendered.len());
}

/// As much of a repeated text as a file may hold.
fn filled(head: &str, piece: &str, tail: &str) -> Vec<u8> {
    let times = (pipeline::MAX_BYTES - head.len() - tail.len()) / piece.len();
    format!("{head}{}{tail}", piece.repeat(times)).into_bytes()
}

#[test]
fn hostile_files_are_refused() {
    refused(&vec![b'a'; 100 << 20], "file-too-large");
    refused(&filled("", "[", ""), "nested-too-deep");
    refused(&filled("", "{a: ", ""), "nested-too-deep");
    refused(&filled("", "- ", ""), "nested-too-deep");
    refused(&filled("x: &a {y: z}\nl: [", "*a,", "]"), "too-much-content");
    refused(&filled("l: [", "a,", "]"), "too-much-content");
    refused(&filled("", "a: 1\n", ""), "duplicate-key");
    refused(&filled("stages: {", "a, ", "}"), "duplicate-key");
    refused(&filled("stages: { a: { run: \"", "x", "\" } }"), "script-too-large");
    refused(&filled("", "!t ", ""), "yaml");
    refused(&filled("", "&a ", ""), "yaml");
    refused(&filled("# ", "x", ""), "empty-file");
    refused(&filled("%", "TAG x\n%", ""), "yaml");
    refused("a: \u{7}".as_bytes(), "control-character");
    refused(b"\xfe\xff\x00a", "not-utf8");
    refused(b"a: [\xc3\x28]", "not-utf8");
    refused(b"", "empty-file");
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let before = format!("*a{},", level - 1).repeat(9);
        laughs.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    refused(laughs.as_bytes(), "too-much-content");
    let mut merges = String::from("m0: &m0 { k: v }\n");
    for level in 1..2000 {
        merges.push_str(&format!("m{level}: &m{level} {{ <<: *m{}, k{level}: v }}\n", level - 1));
    }
    refused(merges.as_bytes(), "too-much-content");
}

#[test]
fn large_but_honest_files_are_read() {
    let mut text = String::from("stages:\n");
    for stage in 0..1000 {
        let needs = if stage == 0 { String::new() } else { format!("s{}", stage - 1) };
        text.push_str(&format!("  s{stage}: {{ needs: [{needs}], run: echo {stage}, outputs: [out/{stage}.txt] }}\n"));
    }
    let parsed = pipeline::parse("large.yaml", text.as_bytes()).expect("valid");
    assert_eq!(parsed.pipeline.stages.len(), 1000);
    assert_eq!(pipeline::graph::order(&parsed.pipeline).len(), 1000);
    text.push_str("  s1000: { run: echo }\n");
    refused(text.as_bytes(), "wrong-count");
}

#[test]
fn defaults_are_applied() {
    let text = std::fs::read(fixtures("good").iter().find(|path| path.ends_with("everything.yaml")).expect("there"));
    let parsed = pipeline::parse("p.yaml", &text.expect("a fixture")).expect("valid");
    insta::with_settings!({
        snapshot_path => "fixtures/language/snapshots",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("everything-as-values", format!("{:#?}", parsed.pipeline)); });
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_fine() {
    let text = "\u{feff}stages:\r\n  a:\r\n    run: |\r\n      echo one\r\n      echo two\r\n";
    let parsed = pipeline::parse("windows.yaml", text.as_bytes()).expect("valid");
    let work = parsed.pipeline.stages.values().next().and_then(|stage| stage.work.clone());
    let expected = "echo one\necho two\n".to_owned();
    let step = pipeline::types::Step { name: "echo one".to_owned(), script: expected };
    assert_eq!(work, Some(pipeline::types::Work::Run { steps: vec![step], shell: None }));
}

#[test]
fn diagnostics_as_json() {
    let found = pipeline::parse("p.yaml", b"stages: { a: { rnu: x } }").expect_err("wrong");
    insta::assert_snapshot!(serde_json::to_string_pretty(&found).expect("JSON"), @r#"
    [
      {
        "code": "unknown-key",
        "severity": "error",
        "message": "`rnu` is not a key of `a`",
        "file": "p.yaml",
        "span": {
          "line": 1,
          "col": 16,
          "offset": 15,
          "len": 3
        },
        "help": "did you mean `run`?"
      }
    ]
    "#);
}

/// Files that the repository keeps and that are made from the types. `UPDATE_DOCS=1` writes them anew.
fn kept(path: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, expected).expect("written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} is out of date: run the tests with UPDATE_DOCS=1 set", path.display());
}

#[test]
fn the_description_of_the_api_is_up_to_date() {
    kept("docs/openapi.json", &orchestrator::web::api::description().expect("a description"));
}

#[test]
fn the_reference_of_the_api_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
    let page = std::fs::read_to_string(path).expect("the page");
    kept("docs/api.md", &orchestrator::web::api::reference(&page).expect("its marks"));
    // Whatever it asks for is there.
    let description = orchestrator::web::api::description().expect("a description");
    let description: serde_json::Value = serde_json::from_str(&description).expect("JSON");
    let paths: Vec<&String> = description["paths"].as_object().expect("paths").keys().collect();
    let asked: Vec<&str> =
        page.split("$API/").skip(1).filter_map(|rest| rest.split([' ', '"', '?', '\n']).next()).collect();
    assert!(asked.len() >= 10, "{asked:?}");
    let fits = |asked: &str, path: &str| {
        let (asked, path): (Vec<&str>, Vec<&str>) = (asked.split('/').collect(), path[1..].split('/').collect());
        // The last part of a file's path may hold more of them.
        let long = path.last() == Some(&"{path}") && asked.len() >= path.len();
        (long || asked.len() == path.len())
            && path.iter().zip(&asked).all(|(path, asked)| path.starts_with('{') || path == asked)
    };
    for one in asked {
        assert!(paths.iter().any(|path| fits(one, path)), "docs/api.md asks for {one}");
    }
}

#[test]
fn the_schema_in_the_repository_is_up_to_date() {
    kept("docs/pipeline.schema.json", &orchestrator::cli::schema::text().expect("a schema"));
}

#[test]
fn the_reference_in_the_docs_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pipeline.md");
    let docs = std::fs::read_to_string(path).expect("the docs");
    let (before, rest) = docs.split_once("<!-- reference: begin -->").expect("a mark");
    let (_, after) = rest.split_once("<!-- reference: end -->").expect("a mark");
    let reference = pipeline::reference::reference();
    let expected = format!("{before}<!-- reference: begin -->\n{reference}<!-- reference: end -->{after}");
    kept("docs/pipeline.md", &expected);
}

#[test]
fn the_examples_in_the_docs_are_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pipeline.md");
    let docs = std::fs::read_to_string(path).expect("the docs");
    let blocks: Vec<&str> = docs.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let whole: Vec<&&str> = blocks.iter().filter(|block| block.contains("stages:")).collect();
    assert!(whole.len() >= 2, "{} examples", whole.len());
    for block in whole {
        if let Err(found) = pipeline::parse("docs/pipeline.md", block.as_bytes()) {
            panic!("{block}\n{}", pipeline::render(&found, block, Colour::Never));
        }
    }
}

mod any_bytes {
    use proptest::prelude::*;

    use super::*;

    /// Reads, and shows whatever is found: none of it may panic.
    fn survives(bytes: &[u8]) {
        match pipeline::parse("any.yaml", bytes) {
            Ok(parsed) => {
                let order = pipeline::graph::order(&parsed.pipeline);
                assert_eq!(order.len(), parsed.pipeline.stages.len(), "every stage is in the order");
                for stage in parsed.pipeline.stages.values() {
                    let cells = pipeline::matrix::cells(stage);
                    assert!(cells.len() <= pipeline::matrix::MAX_CELLS);
                    let slugs: std::collections::HashSet<&str> = cells.iter().map(|cell| cell.slug.as_str()).collect();
                    assert_eq!(slugs.len(), cells.len());
                }
            }
            Err(found) => {
                assert!(found.iter().any(|diagnostic| diagnostic.severity == Severity::Error));
                assert!(found.iter().all(|diagnostic| diagnostic.code != "unreadable"), "{found:?}");
                pipeline::render(&found, &String::from_utf8_lossy(bytes), Colour::Always);
            }
        }
    }

    /// Pieces of the language, so that nonsense gets further in.
    fn pieces() -> impl Strategy<Value = String> {
        let good =
            fixtures("good").iter().map(|path| std::fs::read_to_string(path).expect("a fixture")).collect::<String>();
        let mut words: Vec<String> = good.split_inclusive([' ', '\n', ',', ':', '{', '[']).map(str::to_owned).collect();
        words.extend(
            ["- ", "  ", "\n", "&a ", "*a", "<<: ", "|\n", "\"", "'", "}", "]", "null", "1e999", "0x", "${matrix.a}"]
                .map(str::to_owned),
        );
        proptest::collection::vec(proptest::sample::select(words), 0..60).prop_map(|words| words.concat())
    }

    /// A good file with something cut out, and something put in.
    fn mutated() -> impl Strategy<Value = Vec<u8>> {
        let files: Vec<Vec<u8>> = fixtures("good").iter().map(|path| std::fs::read(path).expect("a fixture")).collect();
        let part = (any::<prop::sample::Index>(), 0usize..40, pieces());
        (proptest::sample::select(files), proptest::collection::vec(part, 1..4)).prop_map(|(mut bytes, parts)| {
            for (at, len, put) in parts {
                let start = at.index(bytes.len() + 1);
                let end = (start + len).min(bytes.len());
                bytes.splice(start..end, put.chars().take(30).collect::<String>().into_bytes());
            }
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            survives(&bytes);
        }

        #[test]
        fn words_of_the_language(text in pieces()) {
            survives(text.as_bytes());
        }

        #[test]
        fn good_files_with_mistakes(bytes in mutated()) {
            survives(&bytes);
        }
    }
}

#[test]
fn a_stage_among_the_inputs_is_told() {
    let warned = |inputs: &str| {
        let text = format!(
            "stages:\n  train: {{ run: make, outputs: [model] }}\n  report:\n    needs: [train]\n    run: make\n    inputs: [{inputs}]\n"
        );
        pipeline::parse("p.yaml", text.as_bytes()).expect("valid").warnings
    };
    let found = warned("train");
    assert_eq!(found.iter().map(|one| (one.code, one.span.line)).collect::<Vec<_>>(), [("inputs-stage", 6)]);
    assert!(found[0].help.as_ref().is_some_and(|help| help.contains("`needs: [train]`")), "{found:?}");
    assert_eq!(warned("train/**, other"), []);
}
