//! What the pages do in a real browser, against the real daemon.

use serde_json::json;

use crate::browser_driver::{free_port, with_browser};
use crate::harness::eventually;
use crate::served::{Served, Site};

/// What a browser says of a server that is gone.
pub const LOST: [&str; 4] = [
    "net::ERR_CONNECTION_REFUSED",
    "net::ERR_INCOMPLETE_CHUNKED_ENCODING",
    "net::ERR_EMPTY_RESPONSE",
    "net::ERR_CONNECTION_RESET",
];

/// A stage that waits until a file is there.
pub fn waiting(site: &Site, count: &str) -> String {
    let go = site.place.outside("go");
    format!(
        "stages: {{ slow: {{ run: 'for i in $(seq 1 {count}); do echo tick $i; test -e {} && break; sleep 0.1; done' }}, \
             after: {{ needs: [slow], run: echo done }} }}",
        go.display()
    )
}

/// A site whose pipeline has to know the site's own folder.
pub fn site_of(pipeline: impl Fn(&Site) -> String) -> Site {
    let site = Site::new("stages: { a: { run: echo one } }", "poll = \"watch\"\n");
    site.place.write("pipeline.yaml", &pipeline(&site));
    site.commit("a pipeline with \"quotes\" & <b>tags</b>");
    site
}

/// The daemon always at the same address, as it is behind a page that stays open.
pub fn stay(site: &Site) {
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), text.replace("127.0.0.1:0", &format!("127.0.0.1:{}", free_port()))).unwrap();
}

pub fn runs(daemon: &Served) {
    eventually("a build runs", || daemon.counts().get("running") == Some(&1));
}

#[test]
fn a_build_is_followed_over_a_crash_of_the_daemon() {
    with_browser(async |browser| {
        browser.forgiven = LOST.to_vec();
        let site = site_of(|site| waiting(site, "6000"));
        stay(&site);
        let daemon = site.serve();
        runs(&daemon);
        browser.open(daemon.address(), "/builds/1").await;
        browser
            .until("it runs", "return document.title.includes('running') && !!document.querySelector('.node.running')")
            .await;
        daemon.kill();
        browser.until("the loss is told", "return !document.querySelector('.lost').hidden").await;
        let daemon = site.serve();
        browser.until("the connection is back", "return document.querySelector('.lost').hidden").await;
        std::fs::write(site.place.outside("go"), "").unwrap();
        browser.until("it has passed", "return document.querySelector('h1 .mark')?.textContent === 'passed'").await;
        let stages =
            "return [...document.querySelectorAll('.node-state')].map((one) => one.textContent.split(' ')[0]).join()";
        assert_eq!(browser.ask(stages).await, json!("passed,passed"));
        assert_eq!(browser.ask("return document.title.includes('running')").await, json!(false));
        assert_eq!(daemon.terminate(), 0);
    });
}

#[test]
fn a_build_is_cancelled_after_a_question() {
    with_browser(async |browser| {
        let site = site_of(|site| waiting(site, "6000"));
        let daemon = site.serve();
        runs(&daemon);
        browser.open(daemon.address(), "/").await;
        browser.until("home shows it", "return document.querySelectorAll('.job .running').length > 0").await;
        browser.click(".job-name").await;
        browser.click("a.hurts").await;
        browser
            .until("it is asked for", "return document.querySelector('h1').textContent.startsWith('Cancel build')")
            .await;
        browser.click("button[value=cancel]").await;
        browser
            .until("it is cancelled", "return document.querySelector('h1 .mark')?.textContent === 'cancelled'")
            .await;
        assert_eq!(daemon.terminate(), 0);
    });
}

/// Every page in both schemes and on a small screen: nothing is wider than the screen, nothing is asked of anybody else.
#[test]
fn every_page_fits_and_stays_at_home() {
    with_browser(async |browser| {
        let site = site_of(|_| "stages: { good: { run: echo one }, bad: { needs: [good], run: exit 3 } }".to_owned());
        let daemon = site.serve();
        eventually("the build has failed", || daemon.counts().get("failed") == Some(&1));
        let pages = [
            "/",
            "/projects/demo",
            "/builds/1",
            "/builds/1/retry",
            "/builds/1/stages/bad",
            "/models",
            "/deployments",
            "/queue",
            "/deliveries",
            "/settings",
            "/audit",
            "/search?q=demo+thing",
        ];
        for path in pages {
            for (width, scheme) in [(1600, "light"), (360, "light"), (1200, "dark")] {
                browser.resize(width, 800).await;
                browser.scheme(scheme).await;
                browser.open(daemon.address(), path).await;
                let wide = browser.ask("return document.documentElement.scrollWidth").await;
                assert!(wide.as_u64().unwrap() <= u64::from(width), "{path} is {wide} wide at {width}");
                let ground = browser.ask("return getComputedStyle(document.body).backgroundColor").await;
                let expected = if scheme == "dark" { "rgb(20, 23, 26)" } else { "rgb(247, 247, 245)" };
                assert_eq!(ground, json!(expected), "{path} {scheme}");
                let strangers = "return performance.getEntriesByType('resource').map((one) => one.name)\
                                 .filter((name) => !name.startsWith(location.origin))";
                assert_eq!(browser.ask(strangers).await, json!([]), "{path}");
                let unnamed = "return [...document.querySelectorAll('input:not([type=hidden]), select, button, a')]\
                               .filter((one) => one.offsetParent !== null && !(one.ariaLabel || one.textContent.trim() || one.labels?.length))\
                               .map((one) => one.outerHTML)";
                assert_eq!(browser.ask(unnamed).await, json!([]), "{path}: a control has no name");
                let headings = browser.ask("return document.querySelectorAll('h1').length").await;
                assert_eq!(headings, json!(1), "{path}");
            }
        }
        assert_eq!(daemon.terminate(), 0);
    });
}

#[test]
fn keys_and_no_scripts() {
    with_browser(async |browser| {
        let site = site_of(|_| "stages: { a: { run: echo one } }".to_owned());
        let daemon = site.serve();
        eventually("the build has passed", || daemon.counts().get("passed") == Some(&1));
        browser.open(daemon.address(), "/").await;
        browser.type_keys("j").await;
        browser.until("a row is chosen", "return document.activeElement.matches('[data-row].at a')").await;
        browser.type_keys("?").await;
        browser.until("the keys are told", "return document.getElementById('keys').open").await;
        browser.type_keys("\u{e00c}").await;
        browser.until("and go away", "return !document.getElementById('keys').open").await;
        browser.type_keys("/").await;
        browser.until("one can find", "return document.activeElement.name === 'q'").await;
        browser.type_keys("1\u{e007}").await;
        browser.until("a number leads to its build", "return location.pathname === '/builds/1'").await;

        browser.tell("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
        browser.open(daemon.address(), "/builds/1/retry").await;
        browser.click("button[value=all]").await;
        eventually("it has run again", || {
            daemon.get("/api/v1/builds/1")["stages"][0]["attempts"].as_array().unwrap().len() == 2
        });
        browser.open(daemon.address(), "/projects/demo").await;
        browser.click("summary").await;
        browser.click(".start button.main").await;
        eventually("another has passed", || daemon.counts().get("passed") == Some(&2));
        assert_eq!(daemon.terminate(), 0);
    });
}

#[test]
fn signing_in_and_out() {
    with_browser(async |browser| {
        browser.forgiven = vec!["401 (Unauthorized)", "403 (Forbidden)"];
        let site = site_of(|_| "stages: { a: { run: echo one } }".to_owned());
        let text = std::fs::read_to_string(site.config()).unwrap().replace("mode = \"none\"", "mode = \"token\"");
        std::fs::write(site.config(), text).unwrap();
        let made = site.place.run(&["tokens", "create", "ann", "--scope", "admin", "--json"]);
        let made: serde_json::Value = serde_json::from_str(&made.out).unwrap_or_else(|_| panic!("{made:?}"));
        let token = made["token"].as_str().unwrap();
        let daemon = site.serve();
        browser.open(daemon.address(), "/projects/demo").await;
        browser.until("one is asked to sign in", "return location.pathname === '/sign-in'").await;
        browser.click("#token").await;
        browser.type_keys("orc_wrong\u{e007}").await;
        browser.until("a wrong token is told", "return !!document.querySelector('[role=alert]')").await;
        browser.click("#token").await;
        browser.type_keys(&format!("{token}\u{e007}")).await;
        browser.until("one is back where one wanted to be", "return location.pathname === '/projects/demo'").await;
        browser.click(".start summary").await;
        browser.click(".start button.main").await;
        browser.until("a form is taken", "return location.search.startsWith('?trigger=')").await;
        browser.open(daemon.address(), "/").await;
        browser.click(".who form button").await;
        browser.until("one is out", "return location.pathname === '/sign-in'").await;
        browser.open(daemon.address(), "/").await;
        browser.until("and stays out", "return location.pathname === '/sign-in'").await;
        assert_eq!(daemon.terminate(), 0);
    });
}
