//! What is read, what is refused and in which words.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::keys::{KEYS, NAMED, TABLES};
use super::types::{AuthMode, Config, Forks, Network, Poll, SecretFrom};
use super::*;
use crate::pipeline::{Colour, render};

fn read(text: &str) -> Result<Parsed, Vec<Diagnostic>> {
    parse("orchestrator.toml", text, Path::new("/etc/o"), &BTreeMap::new())
}

#[track_caller]
fn config(text: &str) -> Config {
    match read(text) {
        Ok(parsed) => parsed.config,
        Err(found) => panic!("{}", render(&found, text, Colour::Never)),
    }
}

/// The findings as `line:col code: message | help`.
fn findings(text: &str) -> Vec<String> {
    let found = read(text).map_or_else(|found| found, |parsed| parsed.warnings);
    found
        .iter()
        .map(|d| {
            format!("{}:{} {}: {} | {}", d.span.line, d.span.col, d.code, d.message, d.help.clone().unwrap_or_default())
        })
        .collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(findings(text), expected, "{text}");
}

#[test]
fn nothing_given_is_all_default() {
    let config = config("");
    assert_eq!(config.server.public_url, "http://127.0.0.1:8484");
    assert_eq!(config.runners.keys().collect::<Vec<_>>(), ["docker", "local"]);
    assert!(config.runners.values().all(|runner| runner.slots == 2));
    assert_eq!((config.auth.mode, config.auth.session), (AuthMode::Token, Duration::from_secs(43_200)));
    assert_eq!(config.retention.age, Some(Duration::from_secs(90 * 86_400)));
    assert!(config.metrics.enabled && config.github.status && !config.github.checks && config.projects.is_empty());
}

#[test]
fn every_default_is_of_its_own_kind_and_every_key_in_a_table() {
    for key in KEYS {
        assert!(key.default.is_empty() || lower::default_of(key).is_some(), "{}: {}", key.path, key.default);
        assert!(TABLES.iter().any(|(table, _)| key.path.starts_with(&format!("{table}."))), "{}", key.path);
        assert!(!key.doc.is_empty() && key.doc.ends_with('.'), "{}", key.path);
    }
    for name in NAMED {
        assert!(TABLES.iter().any(|(table, _)| *table == format!("{name}.<name>")), "{name}");
    }
}

#[test]
fn a_full_file() {
    let config = config(include_str!("../../tests/fixtures/orchestrator.toml"));
    assert_eq!(config.server.public_url, "https://ci.example.com");
    assert!(config.server.trusted_proxies[0].holds("10.1.2.3".parse().expect("address")));
    let api = &config.projects["api"];
    assert_eq!(api.poll, Poll::Every(Duration::from_secs(60)));
    assert_eq!(api.branches, ["main", "release/*"]);
    assert_eq!(api.webhook_secret, Some(SecretFrom::File("/etc/o/api.secret".into())));
    assert_eq!((api.forks, api.max_builds, api.priority), (Forks::Never, 7, 5));
    let local = &config.projects["local"];
    assert_eq!((local.poll, local.max_builds, local.drafts), (Poll::Watch, 9, true));
    assert_eq!(config.projects["twin"].repository, api.repository, "two projects may share a repository");
    assert!(config.runners["gpu"].slots == 1);
    assert_eq!(config.artifacts.url.as_deref(), Some("s3://bucket/prefix"));
    assert_eq!(config.retention.size, Some(50 << 30));
    assert_eq!(config.notify.len(), 3);
    assert!(matches!(config.auth.mode, AuthMode::Oidc { .. }));
}

#[test]
fn everything_wrong_is_told_at_once() {
    check(
        "[sever]\n[server]\nlisten = \"localhost:80\"\nlsten = 1\n[queue]\nmax_waiting = \"9\"\nslots = 1\n[projects.API]\n[projects.a]\npoll = \"5\"\n",
        &[
            "1:2 unknown-key: `sever` is not known in this file | did you mean `server`?",
            "3:10 bad-value: `server.listen`: `localhost:80` is not an IP address with a port | write `127.0.0.1:80`",
            "4:1 unknown-key: `lsten` is not known in `[server]` | did you mean `listen`?",
            "6:15 wrong-type: `queue.max_waiting`: this is text | write a whole number, without quotes",
            "7:1 unknown-key: `slots` is not known in `[queue]` | there is `runners.<name>.slots`",
            "8:11 bad-name: `API` is not a name | a name is lower-case letters, digits and `-`, at most 63, not beginning with `-`",
            "9:11 missing-key: `repository` is missing in `[projects.a]` | write `repository = \"https://github.com/owner/name\"`, or the absolute path of a local one",
            "10:8 bad-value: `projects.a.poll`: `5` has no unit | write `5s`, `5m` or `5h`",
        ],
    );
}

#[test]
fn secrets_do_not_belong_into_the_file() {
    let text = "[projects.a]\nrepository = \"https://u:hunter2@host/x\"\ntoken = \"hunter2\"\n[github]\napp = { id = 1, key = \"hunter2\" }\n[notify.n]\nkind = \"slack\"\nurl = \"hunter2\"\n";
    let found = read(text).expect_err("refused");
    let codes: Vec<_> = found.iter().map(|d| d.code).collect();
    assert_eq!(codes, ["bad-repository", "secret-in-file", "secret-in-file", "secret-in-file"]);
    assert!(found[1].help.as_deref().is_some_and(|help| help.contains("`token_file`") && help.contains("`token_env`")));
    let shown = without_secrets(text);
    assert_eq!(shown.len(), text.len());
    let rendered = render(&found, &shown, Colour::Never);
    assert!(!rendered.contains("hunter2"), "{rendered}");
    assert!(rendered.contains("token = "), "{rendered}");
    // Also where the file is not even TOML.
    let broken = "[projects.a]\ntoken = \"hunter2\n";
    let rendered = render(&read(broken).expect_err("broken"), &without_secrets(broken), Colour::Never);
    assert!(!rendered.contains("hunter2") && rendered.contains("orchestrator.toml:"), "{rendered}");
}

#[test]
fn rules_between_keys() {
    check(
        "[server]\nlisten = \"0.0.0.0:80\"\n[auth]\nmode = \"none\"\n",
        &[
            "4:8 public-without-auth: everybody who reaches 0.0.0.0:80 could run programs on this machine: `auth.mode` is `none` | listen on `127.0.0.1`, or choose `auth.mode = \"token\"`",
        ],
    );
    check("[server]\nlisten = \"[::1]:80\"\n[auth]\nmode = \"none\"\n", &[]);
    check("[server]\nlisten = \"0.0.0.0:80\"\n", &[]);
    check(
        "[server]\ntrusted_proxies = [\"0.0.0.0/0\"]\ntls = { cert = \"c\" }\n",
        &[
            "2:19 trusts-everybody: every address would be believed as a proxy | name the proxy's own address",
            "3:1 missing-key: `key` is missing in `[server.tls]` | name the PEM file with the certificate's private key",
        ],
    );
    check(
        "[github]\nreport = [\"checks\"]\ntoken_file = \"a\"\ntoken_env = \"B\"\n",
        &[
            "2:10 needs-app: only a GitHub App can write checks | add `[github.app]`, or report by `status`",
            "4:13 two-secrets: `github.token_file` and `github.token_env` are both given | take one of them out",
        ],
    );
    check(
        "[projects.a]\nrepository = \"git@h:x\"\npoll = \"watch\"\ntoken_env = \"T\"\n",
        &[
            "3:8 not-local: only a local repository can be watched | write an interval, like `poll = \"5m\"`",
            "1:11 unused-secret: the token is not used: the repository is not on https | use an `https://` URL, or take the token out",
        ]
        .iter()
        .rev()
        .copied()
        .collect::<Vec<_>>(),
    );
    check(
        "[projects.a]\nrepository = \"http://git.example.com/x\"\n",
        &[
            "2:14 plain-http: `http://` is neither encrypted nor signed: whoever is on the way chooses what is built | use `https://` or `ssh://`; if it must be, allow it by `allow_http = true`",
        ],
    );
    check("[projects.a]\nrepository = \"http://git.example.com/x\"\nallow_http = true\n", &[]);
    check("[projects.a]\nrepository = \"http://127.0.0.1:3000/x\"\n", &[]);
    check(
        "[runners.a]\nslots = 0\n[artifacts]\nregion = \"x\"\n",
        &[
            "1:10 missing-key: `kind` is missing in `[runners.a]` | write `kind = \"docker\"` or `kind = \"local\"`",
            "2:9 bad-value: `runners.a.slots`: 0 is not possible here | write a number from 1 to 1024",
            "4:10 not-s3: this is for S3, and `artifacts.url` is not | write `url = \"s3://bucket/prefix\"`, or take it out",
        ],
    );
}

#[test]
fn the_environment_goes_before_the_file() {
    let variables = BTreeMap::from([
        ("ORCHESTRATOR_LISTEN".to_owned(), "127.0.0.1:1".to_owned()),
        ("ORCHESTRATOR_DATA_DIR".to_owned(), "/data".to_owned()),
    ]);
    let parsed = parse("f", "[server]\nlisten = \"127.0.0.1:2\"\n", Path::new("/"), &variables).expect("valid");
    assert_eq!(parsed.config.server.listen.port(), 1);
    assert_eq!(parsed.config.data_dir.as_deref(), Some(Path::new("/data")));
    let variables = BTreeMap::from([("ORCHESTRATOR_LISTEN".to_owned(), "8080".to_owned())]);
    let found = parse("f", "", Path::new("/"), &variables).expect_err("refused");
    assert!(found[0].message.starts_with("`ORCHESTRATOR_LISTEN`: `8080` is not"), "{}", found[0].message);
}

#[test]
fn networks() {
    let check = |network: &str, address: &str, expected: bool| {
        let network = Network::parse(network).expect(network);
        assert_eq!(network.holds(address.parse().expect(address)), expected, "{network:?} {address}");
    };
    check("10.0.0.0/8", "10.255.0.1", true);
    check("10.0.0.0/8", "11.0.0.1", false);
    check("10.0.0.0/8", "::ffff:10.0.0.1", true);
    check("0.0.0.0/0", "1.2.3.4", true);
    check("::/0", "::1", true);
    check("::1", "::2", false);
    check("192.168.1.5", "192.168.1.5", true);
    for text in ["10.0.0.0/33", "x", "1.2.3.4/", "::/129", ""] {
        assert_eq!(Network::parse(text), None, "{text}");
    }
}

#[test]
fn the_starting_file_is_valid_also_with_its_comments_taken_out() {
    let text = describe::starting_file();
    assert_eq!(findings(&text), [""; 0]);
    // Each key by itself, in its table: known and of the right kind.
    let mut table = String::new();
    for line in text.lines() {
        let bare = line.trim_start_matches("# ");
        if bare.starts_with('[') && bare.ends_with(']') && !bare.contains('=') {
            table = bare.to_owned();
        } else if line.starts_with("# ") && bare.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) {
            let found = read(&format!("{table}\n{bare}\n")).err().unwrap_or_default();
            let wrong: Vec<_> = found
                .iter()
                .filter(|d| ["unknown-key", "wrong-type", "syntax"].contains(&d.code))
                .map(|d| &d.message)
                .collect();
            assert!(wrong.is_empty(), "{table} {bare}: {wrong:?}");
        }
    }
}

#[test]
fn the_page_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, describe::page()).expect("written");
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(there == describe::page(), "renew it by: UPDATE_DOCS=1 cargo test --lib config::");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic_and_stars_keep_places(text in "(\\[|\\]|=|\"|server|listen|token|projects|a|\\.|\n|ü|\\{|\\}| |1|://|@|#|'){0,40}") {
        let _ = read(&text);
        assert_eq!(without_secrets(&text).len(), text.len());
    }
}
