//! The daemon, and `project check`, with repositories over http and https.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use crate::git_server::{self, GitServer, Treat, head};
use crate::harness::{ended, eventually};
use crate::mirror_http::{TOKEN, is_pack, line};
use crate::served::Site;

#[test]
fn the_daemon_polls_and_builds_a_repository_over_https() {
    let site = Site::new(
        "name: demo\non: { push: { branches: ['**'] } }\nstages:\n  hello: { run: 'cat word.txt' }\n",
        "poll = \"off\"",
    );
    site.place.write("word.txt", "first words\n");
    site.commit("words");
    let server = GitServer::https(&site.place.outside(""), TOKEN, |_| Treat::Git);
    let (token, authority) = (site.secret("token", &format!("{TOKEN}\n")), site.secret("ca.pem", &server.authority));
    let configure = |token: &Path| {
        let keys = format!("poll = \"1s\"\ntoken_file = {token:?}\nca_file = {authority:?}");
        site.configure_for(&server.url("project"), &keys);
    };
    let check = |code| {
        site.place.expect(code, &["project", "check", "demo", "--config", &site.config().display().to_string()]).out
    };
    configure(&site.secret("wrong", "hunter2"));
    let told = check(1);
    assert!(told.contains("the token is wrong or expired") && !told.contains("hunter2"), "{told}");
    configure(&token);
    let told = check(0);
    assert!(told.contains("branch main") && told.contains("pipeline pipeline.yaml: valid, 1 stages"), "{told}");

    let daemon = site.serve();
    eventually("the default branch is built at first sight", || daemon.counts().get("passed") == Some(&1));
    site.place.write("word.txt", "other words\n");
    let commit = site.commit("other");
    eventually("what was pushed is built", || daemon.counts().get("passed") == Some(&2));
    let builds = daemon.all("/api/v1/builds");
    assert_eq!(builds[0]["commit"], commit.as_str());
    let newest = builds[0]["id"].as_u64().unwrap();
    assert_eq!(site.place.lines(newest, "hello", "stdout"), ["other words"]);
    // A token that is written anew is taken up: the server would not let the wrong one in.
    fs::write(&token, "hunter2").unwrap();
    eventually("the token is wrong", || {
        let log = fs::read_to_string(site.place.outside("daemon.log")).unwrap_or_default();
        log.contains("the token is wrong or expired")
    });
    fs::write(&token, TOKEN).unwrap();
    site.commit("third");
    eventually("what was pushed is built", || daemon.counts().get("passed") == Some(&3));
    // The server is asked again and again, and sends nothing twice.
    let asked = || server.seen().iter().filter(|request| !is_pack(request)).count();
    let (before, packs) = (asked(), server.seen().iter().filter(|request| is_pack(request)).count());
    eventually("it polls on", || asked() > before + 1);
    assert_eq!(server.seen().iter().filter(|request| is_pack(request)).count(), packs);
    assert_eq!(daemon.terminate(), 0);
    let log = fs::read_to_string(site.place.outside("daemon.log")).unwrap_or_default();
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn a_proxy_of_the_environment_is_used_and_told_nothing() {
    let site = Site::new("name: demo\nstages:\n  hello: { run: 'true' }\n", "poll = \"off\"");
    let server = GitServer::https(&site.place.outside(""), TOKEN, |_| Treat::Git);
    let (proxy, asked) = git_server::proxy(server.address);
    let (token, authority) = (site.secret("token", TOKEN), site.secret("ca.pem", &server.authority));
    let url = format!("https://{}/project", git_server::ELSEWHERE);
    site.configure_for(&url, &format!("token_file = {token:?}\nca_file = {authority:?}"));
    let config = site.config().display().to_string();
    let check = |proxied: bool| {
        let mut command = site.place.command(&["project", "check", "demo", "--config", &config]);
        for name in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
            command.env_remove(name);
        }
        if proxied {
            command.env("HTTPS_PROXY", format!("http://{proxy}"));
        }
        ended(command.output().unwrap())
    };
    let told = check(true);
    assert_eq!(told.code, 0, "{told:?}");
    let asked = asked.lock().unwrap().clone();
    assert!(asked.iter().all(|head| head.starts_with("CONNECT git.invalid:443 ")), "{asked:?}");
    assert!(asked.iter().all(|head| !head.to_lowercase().contains("authorization")), "{asked:?}");
    let told = check(false);
    assert!(told.code == 1 && told.out.contains("cannot reach https://git.invalid/project"), "{told:?}");
}

#[test]
fn a_daemon_whose_repository_is_silent_answers_and_stops() {
    let site = Site::new("name: demo\nstages:\n  hello: { run: 'true' }\n", "poll = \"off\"");
    let server = GitServer::http(&site.place.outside(""), |_| Treat::Silent(Vec::new()));
    site.configure_for(&server.url("project"), "poll = \"1s\"");
    let daemon = site.serve();
    eventually("the repository is asked", || !server.seen().is_empty());
    assert_eq!(daemon.get("/api/v1/builds")["items"], serde_json::json!([]));
    assert_eq!(daemon.terminate(), 0);
    let log = fs::read_to_string(site.place.outside("daemon.log")).unwrap_or_default();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_daemon_that_is_killed_in_a_fetch_fetches_again() {
    let site = Site::new("name: demo\non: { push: {} }\nstages:\n  hello: { run: 'true' }\n", "poll = \"off\"");
    let silent = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&silent);
    let server =
        GitServer::http(&site.place.outside(""), move |request| match is_pack(request) && still.load(SeqCst) {
            true => Treat::Silent([head("result"), line("NAK\n"), line("\u{1}PACK\0\0\0\u{2}\0\0\0\u{9}")].concat()),
            false => Treat::Git,
        });
    site.configure_for(&server.url("project"), "poll = \"1s\"");
    let daemon = site.serve();
    eventually("the pack is under way", || server.seen().iter().any(is_pack));
    daemon.kill();
    silent.store(false, SeqCst);
    let daemon = site.serve();
    eventually("the default branch is built", || daemon.counts().get("passed") == Some(&1));
    eventually("all is decided", || daemon.is_idle());
    assert_eq!(daemon.counts().values().sum::<usize>(), 1);
    assert_eq!(daemon.terminate(), 0);
}
