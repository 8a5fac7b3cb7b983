//! GitHub and others get told, whatever happens in between.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use serde_json::{Value, json};

use crate::github_model::{Fault, GitHubModel, Seen};
use crate::harness::eventually;
use crate::served::of_fork;
use crate::served::{REPOSITORY, Site, push};

const PASSES: &str = "name: demo\non: { push: {}, pull_request: {} }\nstages: { look: { run: 'echo looked' } }\n";

/// More of the configuration: what GitHub is told, at which address.
fn github(site: &Site, api: &str, report: &str) -> String {
    let token = site.secret("github-token", "a token of GitHub");
    format!("poll = \"watch\"\n[github]\napi_url = {api:?}\ntoken_file = {token:?}\nreport = {report}\n")
}

fn reports(site: &crate::served::Served, build: u64) -> Vec<Value> {
    site.get(&format!("/api/v1/builds/{build}"))["reports"].as_array().unwrap().clone()
}

#[test]
fn a_commit_has_the_status_of_its_build() {
    let (site, model) = (Site::new(PASSES, ""), GitHubModel::start());
    site.configure(&github(&site, &model.url(), "[\"status\"]"));
    let daemon = site.serve();
    let commit = site.git(&["rev-parse", "HEAD"]);
    eventually("success", || model.states(&commit, "orchestrator/demo").last().is_some_and(|state| state == "success"));
    let states = model.states(&commit, "orchestrator/demo");
    assert!(states[..states.len() - 1].iter().all(|state| state == "pending"), "{states:?}");
    let status = model.last_status(&commit);
    assert!(status["description"].as_str().unwrap().starts_with("#1 passed in"), "{status:#}");
    assert_eq!(status["target_url"], format!("http://127.0.0.1:0/builds/1"), "of the configured address");
    let seen = &model.seen()[0];
    assert_eq!(
        (seen.bearer.as_str(), seen.path.clone()),
        ("a token of GitHub", format!("/repositories/{REPOSITORY}/statuses/{commit}"))
    );
    eventually("it is noted", || reports(&daemon, 1).iter().all(|report| report["state"] == "told"));

    site.place.write("pipeline.yaml", &PASSES.replace("echo looked", "exit 3"));
    let commit = site.commit("breaks");
    eventually("failure", || model.last_status(&commit)["state"] == "failure");
    let status = model.last_status(&commit);
    assert!(status["description"].as_str().unwrap().contains("look failed"), "{status:#}");

    site.place.write("pipeline.yaml", "name: demo\nstages: [\n");
    let commit = site.commit("is no pipeline");
    eventually("error", || model.last_status(&commit)["state"] == "error");
    let status = model.last_status(&commit);
    assert_eq!(status["context"], "orchestrator");
    assert!(status["description"].as_str().unwrap().contains("is not valid"), "{status:#}");
}

#[test]
fn faults_are_waited_out_and_refusals_are_shown() {
    let (site, model) = (Site::new(PASSES, ""), GitHubModel::start());
    let mut left: Vec<Fault> = vec![
        (403, vec![("retry-after", "1".to_owned())], json!({ "message": "You have exceeded a secondary rate limit" })),
        (502, Vec::new(), json!({})),
        (401, Vec::new(), json!({ "message": "Bad credentials" })),
    ];
    model.faults(move |_: &Seen| left.pop());
    site.configure(&github(&site, &model.url(), "[\"status\"]"));
    let daemon = site.serve();
    let commit = site.git(&["rev-parse", "HEAD"]);
    eventually("success after all", || model.last_status(&commit)["state"] == "success");
    let tries = model.seen().len();
    let states = model.states(&commit, "orchestrator/demo");
    assert!(tries >= states.len() + 3, "each fault cost a try: {tries} {states:?}");

    model.faults(|_| Some((422, Vec::new(), json!({ "message": "No commit found for SHA" }))));
    site.commit("unknown there");
    eventually("it is given up, and said", || {
        daemon.counts().values().sum::<usize>() == 2
            && reports(&daemon, 2).iter().any(|report| {
                report["state"] == "given-up"
                    && report["problem"].as_str().is_some_and(|why| why.contains("No commit found"))
            })
    });
    eventually("all turns of the build are told", || {
        daemon.is_idle() && reports(&daemon, 2).iter().all(|report| report["state"] == "given-up")
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    let before = model.seen().len();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(model.seen().len(), before, "what is refused is not asked again");
    let shown = site.place.expect(0, &["show", "2"]);
    assert!(shown.out.contains("No commit found"), "{}", shown.out);
    let metrics = crate::served::request(daemon.address(), "GET", "/metrics", &[], b"").unwrap().body;
    assert!(metrics.contains("orchestrator_reports_total{kind=\"github-status\",result=\"given-up\"}"), "{metrics}");
}

#[test]
fn what_was_not_told_before_a_kill_is_told_after_it() {
    let site = Site::new(PASSES, "");
    // An address where nobody is yet.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    site.configure(&github(&site, &format!("http://{address}"), "[\"status\"]"));
    let daemon = site.serve();
    eventually("it is built", || daemon.counts().get("passed") == Some(&1));
    eventually("it could not be told", || {
        reports(&daemon, 1)
            .iter()
            .any(|report| report["problem"].as_str().is_some_and(|why| why.contains("cannot reach")))
    });
    let page = crate::served::request(daemon.address(), "GET", "/builds/1", &[], b"").unwrap().body;
    assert!(page.contains("Not told") && page.contains("cannot reach"), "{page}");
    daemon.kill();
    let model = GitHubModel::start_at(address);
    let daemon = site.serve();
    let commit = site.git(&["rev-parse", "HEAD"]);
    eventually("it is told", || model.last_status(&commit)["state"] == "success");
    eventually("and noted", || reports(&daemon, 1).iter().all(|report| report["state"] == "told"));
    let tries = model.seen().len();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(model.seen().len(), tries, "once it is told, it is told");
}

/// A delivery about a pull request of the project's own branch.
fn of_request(action: &str, number: u64, base: &str, head: &str) -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(&of_fork(action, number, base, head)).unwrap();
    let request = &mut body["pull_request"];
    request["head"]["ref"] = json!("topic");
    request["head"]["repo"] = request["base"]["repo"].clone();
    body.to_string().into_bytes()
}

#[test]
fn a_pull_request_has_one_comment_which_is_kept_up_to_date() {
    let (site, model) = (Site::new(PASSES, ""), GitHubModel::start());
    model.comment("a comment of somebody");
    for at in 0..120 {
        model.comment(&format!("chatter {at}"));
    }
    site.configure(&github(&site, &model.url(), "[\"comment\"]").replace("poll = \"watch\"", "poll = \"off\""));
    let daemon = site.serve();
    let base = site.git(&["rev-parse", "main"]);
    let head = |text: &str| {
        site.git(&["checkout", "-q", "-B", "topic"]);
        site.place.write("pipeline.yaml", text);
        let commit = site.commit("a change");
        site.git(&["update-ref", "refs/pull/7/head", &commit]);
        commit
    };
    let first = head(&PASSES.replace("echo looked", "exit 3"));
    assert_eq!(daemon.deliver("pull_request", "r-1", &of_request("opened", 7, &base, &first)).status, 202);
    eventually("there is a comment", || model.comments().len() == 122);
    let told = model.comments().pop().unwrap();
    assert!(told.contains("### ❌ demo") && told.contains("look failed"), "{told}");
    let second = head(PASSES);
    assert_eq!(daemon.deliver("pull_request", "r-2", &of_request("synchronize", 7, &base, &second)).status, 202);
    eventually("it is changed", || model.comments().pop().unwrap().contains("### ✅ demo"));
    assert_eq!(model.comments().len(), 122, "no second comment");
    assert_eq!(model.comments()[0], "a comment of somebody");
}

#[test]
fn an_app_writes_checks_with_its_own_token() {
    let (site, model) = (Site::new(PASSES, ""), GitHubModel::start());
    // No crate of the tests makes RSA keys; the engine's machine has openssl, or this fails.
    let key = site.place.outside("app.pem");
    let made =
        std::process::Command::new("openssl").args(["genrsa", "-traditional", "-out"]).arg(&key).arg("2048").output();
    assert!(made.unwrap().status.success());
    std::os::unix::fs::PermissionsExt::set_mode(&mut fs::metadata(&key).unwrap().permissions(), 0o600);
    let project = format!(
        "poll = \"watch\"\n[github]\napi_url = {:?}\nreport = [\"checks\"]\n[github.app]\nid = 5\nkey_file = {key:?}\n",
        model.url()
    );
    site.configure(&project);
    let _daemon = site.serve();
    eventually("a check is done", || model.checks().first().is_some_and(|check| check["status"] == "completed"));
    let checks = model.checks();
    assert_eq!(checks.len(), 1, "one check, changed in place: {checks:#?}");
    assert_eq!(
        (&checks[0]["conclusion"], &checks[0]["external_id"]),
        (&json!("success"), &json!("orchestrator build 1"))
    );
    let seen = model.seen();
    let tokens: Vec<&Seen> = seen.iter().filter(|seen| seen.path.ends_with("/access_tokens")).collect();
    assert_eq!(tokens.len(), 1, "a token is kept while it holds");
    assert!(verified(&key, &tokens[0].bearer), "the App's own token is signed by its key");
    let written: Vec<&Seen> = seen.iter().filter(|seen| seen.path.ends_with("/check-runs")).collect();
    assert!(!written.is_empty() && written.iter().all(|seen| seen.bearer == "of the installation"));
}

/// Whether openssl takes the signature of a JSON Web Token.
fn verified(key: &std::path::Path, jwt: &str) -> bool {
    use base64::Engine;
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (data, mark, public) = (folder.path().join("data"), folder.path().join("mark"), folder.path().join("public"));
    fs::write(&data, signed).unwrap();
    fs::write(&mark, signature).unwrap();
    let openssl =
        |arguments: &[&std::ffi::OsStr]| std::process::Command::new("openssl").args(arguments).output().unwrap();
    let os = std::ffi::OsStr::new;
    assert!(
        openssl(&[os("rsa"), os("-in"), key.as_os_str(), os("-pubout"), os("-out"), public.as_os_str()])
            .status
            .success()
    );
    let mut arguments = vec![os("dgst"), os("-sha256"), os("-verify"), public.as_os_str()];
    arguments.extend([os("-signature"), mark.as_os_str(), data.as_os_str()]);
    openssl(&arguments).status.success()
}

#[test]
fn hooks_are_signed_and_hear_what_they_asked_for() {
    let (site, model) = (Site::new(&PASSES.replace("echo looked", "exit 3"), ""), GitHubModel::start());
    let url = |name: &str| site.secret(name, &format!("{}/hook/{name}?key=hidden", model.url()));
    let (hook, slack, secret) = (url("hook"), url("slack"), site.secret("hook-secret", "a secret of hooks"));
    site.configure(&format!(
        "poll = \"watch\"\n[notify.ops]\nkind = \"webhook\"\nurl_file = {hook:?}\nsecret_file = {secret:?}\n\
         events = [\"failed\", \"fixed\"]\n[notify.chat]\nkind = \"slack\"\nurl_file = {slack:?}\nevents = [\"fixed\"]\n"
    ));
    let _daemon = site.serve();
    let heard = |name: &str| {
        let seen = model.seen().into_iter();
        seen.filter(|seen| seen.path.contains(&format!("/hook/{name}"))).collect::<Vec<_>>()
    };
    eventually("the failure is heard", || heard("hook").len() == 1);
    let told = &heard("hook")[0];
    assert_eq!((&told.body["event"], &told.body["build"]["status"]), (&json!("failed"), &json!("failed")));
    let expected = orchestrator::trigger::signature::sign(b"a secret of hooks", &told.raw);
    assert_eq!(told.headers["x-orchestrator-signature-256"].to_str().unwrap(), expected);
    site.place.write("pipeline.yaml", PASSES);
    site.commit("mends it");
    eventually("both hear that it is mended", || heard("hook").len() == 2 && heard("slack").len() == 1);
    assert_eq!(heard("hook")[1].body["event"], "fixed");
    assert!(heard("slack")[0].body["text"].as_str().unwrap().contains("demo: demo #2 fixed (main)"));
    site.commit("passes again");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!((heard("hook").len(), heard("slack").len()), (2, 1), "nobody asked for a success that is no news");
}

#[test]
fn a_failure_is_mailed() {
    let site = Site::new(&PASSES.replace("echo looked", "exit 3"), "");
    let (address, mails) = mail_server();
    site.configure(&format!(
        "poll = \"watch\"\n[notify.mail]\nkind = \"email\"\nsmtp = \"{address}\"\nfrom = \"ci@example.org\"\n\
         to = [\"team@example.org\"]\nevents = [\"failed\"]\n"
    ));
    let _daemon = site.serve();
    let mail = mails.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
    assert!(mail.contains("Subject: demo: demo #1 failed (main)") && mail.contains("look failed"), "{mail}");
    assert!(mail.contains("To: team@example.org"), "{mail}");
}

/// A mail server that takes everything. It gives what each mail holds.
fn mail_server() -> (std::net::SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mails) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut writer = stream.try_clone().unwrap();
            let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
            let _ = writer.write_all(b"220 here\r\n");
            while let Some(line) = lines.next() {
                let answer = match line.split_whitespace().next().unwrap_or_default() {
                    "EHLO" => "250 here\r\n",
                    "DATA" => {
                        let _ = writer.write_all(b"354 go on\r\n");
                        let mail: Vec<String> = lines.by_ref().take_while(|line| line != ".").collect();
                        let _ = sender.send(mail.join("\n"));
                        "250 taken\r\n"
                    }
                    "QUIT" => "221 bye\r\n",
                    _ => "250 fine\r\n",
                };
                if writer.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    (address, mails)
}

#[test]
fn a_stream_of_pushes_under_kill_9_is_told_of_to_the_last_one() {
    let every = PASSES.replace("push: {}", "push: { branches: ['**'] }");
    let (site, model) = (Site::new(&every, ""), GitHubModel::start());
    site.configure(
        &github(&site, &model.url(), "[\"status\"]").replace("poll = \"watch\"", "poll = \"off\"\nmax_builds = 4"),
    );
    let mut commits = Vec::new();
    let mut kills = rand_xoshiro::rand_core::SeedableRng::seed_from_u64(7);
    for at in 0..12 {
        site.git(&["checkout", "-q", "-B", &format!("b{at}")]);
        commits.push((format!("refs/heads/b{at}"), site.commit("one more")));
    }
    site.git(&["checkout", "-q", "main"]);
    let mut daemon = Some(site.serve());
    for (at, (git_ref, commit)) in commits.iter().enumerate() {
        let body = push(git_ref, "0000000000000000000000000000000000000000", commit);
        assert_eq!(daemon.as_ref().unwrap().deliver("push", &format!("k-{at}"), &body).status, 202);
        let wait = rand::Rng::gen_range::<u64, _>(&mut kills as &mut rand_xoshiro::Xoshiro256PlusPlus, 0..120);
        std::thread::sleep(std::time::Duration::from_millis(wait));
        daemon.take().unwrap().kill();
        daemon = Some(site.serve());
    }
    eventually("each commit ends as a success", || {
        commits
            .iter()
            .all(|(_, commit)| model.states(commit, "orchestrator/demo").last().is_some_and(|state| state == "success"))
    });
}
