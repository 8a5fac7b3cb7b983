//! What people do from their first look on, in a real browser: begin, approve, compare, promote, watch a load test, use keys alone.

use serde_json::json;

use crate::browser_driver::{Browser, with_browser};
use crate::browser_pages::{runs, site_of, waiting};
use crate::harness::eventually;
use crate::served::{Site, of_fork, stranger};

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// The mark of the page's heading.
fn heading(word: &str) -> String {
    format!("return document.querySelector('h1 .mark')?.textContent === '{word}'")
}

/// A first start: the page says what to do, shows the project by itself, and leads to its first build.
#[test]
fn from_the_first_start_to_the_first_build() {
    with_browser(async |browser| {
        let site = Site::new("stages: { a: { run: echo one } }", "");
        let text = std::fs::read_to_string(site.config()).unwrap();
        std::fs::write(site.config(), text.split("[projects.demo]").next().unwrap()).unwrap();
        let daemon = site.serve();
        browser.open(daemon.address(), "/").await;
        let text = browser.text().await;
        for said in ["No projects yet", "orchestrator project add", "--config", "/hooks/github", "server.public_url"] {
            assert!(text.contains(said), "{said}: {text}");
        }
        let (config, repository) = (site.config().display().to_string(), site.place.project().display().to_string());
        let add =
            ["project", "add", "demo", "--config", &config, "--repository", &repository, "--trusted", "--poll", "off"];
        let added = site.place.run(&add);
        assert_eq!(added.code, 0, "{added:?}");
        browser.until("the project is there", "return !!document.querySelector('.card h3 a')").await;
        browser.click(".card h3 a").await;
        browser.until("it is opened", "return location.pathname === '/projects/demo'").await;
        browser.until("what it has is built at once", "return !!document.querySelector('.line-row a')").await;
        browser.click(".line-row a").await;
        browser.until("it has passed", &heading("passed")).await;
        browser.leave().await;
        assert_eq!(daemon.terminate(), 0);
    });
}

/// A pull request from a fork waits, and the question says whose code it is.
#[test]
fn a_strangers_build_is_approved() {
    with_browser(async |browser| {
        let pipeline =
            "on: { push: {}, pull_request: {} }\nstages: { look: { image: nowhere.invalid/none, run: echo hello } }";
        let site = Site::new(pipeline, "poll = \"off\"\n");
        let base = site.git(&["rev-parse", "main"]);
        let daemon = site.serve();
        eventually("the project's own build", || daemon.is_idle() && !daemon.counts().is_empty());
        let head = stranger(&site, 7, &format!("{pipeline}# more\n"));
        assert_eq!(daemon.deliver("pull_request", "f-1", &of_fork("opened", 7, &base, &head)).status, 202);
        eventually("it waits", || {
            daemon.get("/api/v1/queue")["waiting"]
                .as_array()
                .unwrap()
                .iter()
                .any(|one| one["waits_for"] == "a person's approval")
        });
        browser.open(daemon.address(), "/queue").await;
        browser.until("the queue says so", "return document.body.innerText.includes(\"a person's approval\")").await;
        browser.click(".waits a").await;
        browser.until("so does the build", &heading("needs approval")).await;
        browser.click("a.button.main").await;
        browser.until("it is asked", "return document.querySelector('h1').textContent.includes('begin?')").await;
        let text = browser.text().await;
        assert!(text.contains(&head[..9]) && text.contains("It gets no secrets."), "{text}");
        browser.click("form.ask button.main").await;
        browser
            .until(
                "it waits no longer",
                "return !!document.querySelector('h1 .mark') && !document.body.innerText.includes('Needs approval')",
            )
            .await;
        browser.leave().await;
        assert_eq!(daemon.terminate(), 0);
    });
}

/// Rows in which `a` decides, with some noise in `b`.
fn players() -> String {
    let row = |row: u32| {
        let a = (row * 37) % 100;
        format!("{a},{},{}\n", (row * 61) % 17, u8::from(a > 60))
    };
    std::iter::once("a,b,good\n".to_owned()).chain((0..400).map(row)).collect()
}

fn promoting(algorithm: &str, approval: &str, more: &str) -> String {
    format!(
        "name: players\nserve: {{ linfa: train, port: auto, ready: {{ path: /healthz }} }}\nstages:\n  train:\n    train:\n      model: players\n      linfa: {{ data: players.csv, target: good, task: classification, algorithm: {algorithm}, holdout: 0.4, seed: 3 }}\n{more}  promote:\n    needs: [train]\n    promote: {{ model: players, approval: {approval}, better_if: {{ accuracy: {{ goal: maximize, test: mcnemar }} }} }}\n"
    )
}

fn with_players(pipeline: &str) -> Site {
    let site = Site::new("stages: { a: { run: echo one } }", "poll = \"watch\"\n");
    site.place.write("pipeline.yaml", pipeline);
    site.place.write("players.csv", &players());
    site.commit("with data");
    site
}

/// A version that waits for a person is found from the first page, compared, and promoted; the other way round it is rolled back.
#[test]
fn models_are_compared_and_decided_about() {
    with_browser(async |browser| {
        let site = with_players(&promoting("naive-bayes", "manual", ""));
        let daemon = site.serve();
        eventually("a version is there", || {
            daemon.is_idle() && daemon.get("/api/v1/models").as_array().is_some_and(|all| all.len() == 1)
        });
        browser.open(daemon.address(), "/").await;
        browser
            .until(
                "somebody is waited for",
                "return document.querySelector('[data-part=now]').innerText.includes('players version 1')",
            )
            .await;
        browser.click("[data-part=now] a.job-name").await;
        browser.click(".actions a[href$='/promote']").await;
        browser.click("#reason").await;
        browser.type_keys("it is the first").await;
        browser.click("button.hurts").await;
        browser.until("it is champion", "return document.body.innerText.includes('champion: version 1')").await;

        site.place.write("pipeline.yaml", &promoting("decision-tree", "manual", ""));
        site.commit("a tree");
        eventually("a second version is there", || {
            daemon.is_idle() && daemon.get("/api/v1/models/players/versions")["items"][0]["version"] == 2
        });
        browser.until("the open page shows it", "return !!document.querySelector('#v2')").await;
        browser.click(".filter[action$='/compare'] button").await;
        browser
            .until(
                "they stand side by side",
                "return document.querySelector('h1').textContent === 'Version 1 and version 2'",
            )
            .await;
        let text = browser.text().await;
        for said in ["Verdict", "accuracy", "Confusion matrices", "What they were made of", "parameters", "Difference"]
        {
            assert!(text.contains(said), "{said}: {text}");
        }
        let better = "return [...document.querySelectorAll('tbody tr')].find((row) => row.cells[0].textContent === 'accuracy').innerText";
        let row = browser.ask(better).await;
        assert!(row.as_str().unwrap().contains("better"), "{row}");
        assert_eq!(browser.ask("return document.querySelectorAll('.matrix').length").await, json!(2));

        browser.open(daemon.address(), "/models/players/versions/2/promote").await;
        browser.click("button.hurts").await;
        browser.until("the second is champion", "return document.body.innerText.includes('champion: version 2')").await;
        browser.click("a[href$='/rollback']").await;
        browser.click("#reason").await;
        browser.type_keys(&format!("odd answers{ENTER}")).await;
        browser.until("the first is back", "return document.body.innerText.includes('champion: version 1')").await;
        browser.until("and why", "return document.body.innerText.includes('odd answers')").await;
        // Each point of the chart tells itself to the keyboard.
        browser.ask("document.querySelector('.plot').focus()").await;
        browser.type_keys("\u{e014}").await;
        browser.until("a point is told", "return !!document.querySelector('.plot .cursor') && document.querySelector('.plot').innerText.includes('version 1')").await;
        browser.leave().await;
        assert_eq!(daemon.terminate(), 0);
    });
}

/// A load test is watched from its first second to its verdict without a reload.
#[test]
fn a_load_test_is_watched_live() {
    with_browser(async |browser| {
        let load = "  load:\n    needs: [train]\n    loadtest:\n      users: 2\n      duration: 8s\n      scenario: [ { name: up, request: GET /healthz } ]\n      thresholds: { failure_rate: \"< 50%\" }\n";
        let site = with_players(
            &promoting("naive-bayes", "none", load)
                .replace("needs: [train]\n    promote", "needs: [load]\n    promote"),
        );
        let daemon = site.serve();
        eventually("a build runs", || daemon.counts().get("running") == Some(&1));
        let id = daemon.get("/api/v1/builds?project=demo&status=running")["items"][0]["id"].as_u64().unwrap();
        browser.open(daemon.address(), &format!("/builds/{id}")).await;
        browser.until("its charts are offered", "return !!document.querySelector('a[href$=\"/loadtest\"]')").await;
        browser.click("a[href$='/loadtest']").await;
        browser.ask("window.stayed = true").await;
        let points = "return (document.querySelector('#rates [data-points]')?.dataset.points ?? '').split(';').filter((one) => one).length";
        browser.until("a first second is drawn", &format!("return (() => {{ {points} }})() >= 1")).await;
        let some = browser.ask(points).await;
        browser.until("more seconds come", &format!("return (() => {{ {points} }})() > {some} + 1")).await;
        browser.ask("document.getElementById('rates').focus()").await;
        browser.type_keys("\u{e014}").await;
        let told = "return document.querySelector('#rates .legend .value')?.textContent.endsWith('/s')";
        browser.until("a value is told", told).await;
        // The page is drawn anew each second; what is told stays told.
        let later = browser.ask(points).await;
        browser.until("another second comes", &format!("return (() => {{ {points} }})() > {later}")).await;
        browser.until("and the value stands", told).await;
        browser.until("it has ended", "return document.querySelector('h1').textContent.includes('passed')").await;
        for part in ["rates", "latencies", "percentiles", "histogram"] {
            let drawn =
                format!("return document.querySelectorAll('#{part} .chart path, #{part} .chart rect').length > 0");
            assert_eq!(browser.ask(&drawn).await, json!(true), "{part}");
        }
        assert_eq!(browser.ask("return window.stayed").await, json!(true), "it is the same page");
        browser.leave().await;
        assert_eq!(daemon.terminate(), 0);
    });
}

/// What has moved on the page since it was opened, as the browser counts it; what a key or a click moved aside.
const SHIFTS: &str = "return window.shifts";
const COUNT_SHIFTS: &str = "window.shifts = 0; new PerformanceObserver((list) => { for (const one of list.getEntries()) if (!one.hadRecentInput) \
                            window.shifts += one.value; }).observe({ type: 'layout-shift', buffered: true })";

/// While a build begins, goes on and ends, nothing of the pages that show it moves.
#[test]
fn live_updates_move_nothing() {
    with_browser(async |browser| {
        for (width, path) in [(1280, "/builds/2"), (1280, "/"), (360, "/")] {
            let site = site_of(|site| waiting(site, "6000"));
            std::fs::write(site.place.outside("go"), "").unwrap();
            let daemon = site.serve();
            eventually("a first build", || daemon.is_idle() && daemon.counts().get("passed") == Some(&1));
            std::fs::remove_file(site.place.outside("go")).unwrap();
            browser.resize(width, 800).await;
            if path != "/" {
                site.commit("another one");
                runs(&daemon);
            }
            browser.open(daemon.address(), path).await;
            browser.ask(COUNT_SHIFTS).await;
            if path == "/" {
                site.commit("another one");
                runs(&daemon);
                browser.until("it runs", "return document.body.innerText.includes('Running')").await;
            }
            std::fs::write(site.place.outside("go"), "").unwrap();
            eventually("it has passed", || daemon.counts().get("passed") == Some(&2));
            let over = if path == "/" {
                "return document.body.innerText.includes('Nothing runs')".to_owned()
            } else {
                heading("passed")
            };
            browser.until("the page shows it", &over).await;
            let shifts = browser.ask(SHIFTS).await.as_f64().unwrap();
            assert!(shifts < 0.01, "{path} at {width}: {shifts}");
            browser.leave().await;
            assert_eq!(daemon.terminate(), 0);
        }
    });
}

/// Presses Tab until what has the focus matches; every stop on the way can be seen to have it.
async fn tab_to(browser: &Browser, what: &str) {
    for _ in 0..80 {
        let there = format!("return document.activeElement.matches({})", json!(what));
        if browser.ask(&there).await == json!(true) {
            return;
        }
        browser.type_keys(TAB).await;
        let seen = "const one = document.activeElement; if (one === document.body) return true; const style = getComputedStyle(one); \
                    return style.outlineStyle !== 'none' || one.matches('.node, svg a, dialog')";
        let html = browser.ask("return document.activeElement.outerHTML.slice(0, 200)").await;
        assert_eq!(browser.ask(seen).await, json!(true), "the focus cannot be seen: {html}");
    }
    panic!("no key leads to {what}");
}

/// From the first page to a build that runs again, by keys alone.
#[test]
fn everything_by_keys() {
    with_browser(async |browser| {
        let site = site_of(|_| "stages: { a: { run: echo one }, b: { needs: [a], run: echo two } }".to_owned());
        let daemon = site.serve();
        eventually("the build has passed", || daemon.counts().get("passed") == Some(&1));
        browser.open(daemon.address(), "/").await;
        browser.type_keys("j").await;
        browser.type_keys(ENTER).await;
        browser.until("a project is opened", "return location.pathname === '/projects/demo'").await;
        tab_to(browser, ".start > summary").await;
        browser.type_keys(ENTER).await;
        tab_to(browser, ".start button.main").await;
        browser.type_keys(ENTER).await;
        eventually("another build", || daemon.counts().get("passed") == Some(&2));
        browser.until("it is told", "return !!document.querySelector('[data-part=asked] a')").await;
        tab_to(browser, "[data-part=asked] a").await;
        browser.type_keys(ENTER).await;
        browser.until("it is opened", "return location.pathname === '/builds/2'").await;
        tab_to(browser, "a[href$='/retry']").await;
        browser.type_keys(ENTER).await;
        browser.until("it is asked", "return location.pathname === '/builds/2/retry'").await;
        tab_to(browser, "button[value=all]").await;
        browser.type_keys(ENTER).await;
        eventually("it has run again", || {
            daemon.get("/api/v1/builds/2")["stages"][1]["attempts"].as_array().unwrap().len() == 2 && daemon.is_idle()
        });
        for (keys, path) in [("m", "/models"), ("d", "/deployments"), ("q", "/queue"), ("h", "/")] {
            browser.type_keys(&format!("g{keys}")).await;
            browser
                .until(
                    "keys lead there",
                    &format!("return location.pathname === '{path}' && document.readyState === 'complete'"),
                )
                .await;
        }
        browser.leave().await;
        assert_eq!(daemon.terminate(), 0);
    });
}
