//! Every page of a demo is looked over by axe-core (<https://github.com/dequelabs/axe-core>): names, roles, contrast, order.
//!
//! `ORCHESTRATOR_TEST_AXE` names its `axe.min.js`, out of the package `axe-core` of npm. Without it this says that it is skipped; with
//! `CI` set, that is a failure.

use std::process::Command;

use serde_json::{Value, json};

use crate::browser_driver::with_browser;
use crate::harness::{Place, ended};
use crate::served::Site;

/// What WCAG 2.1 AA asks for, and what users of screen readers need beside.
const LOOK: &str = "const done = arguments[arguments.length - 1];
axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'], resultTypes: ['violations'] })
  .then((found) => done(found.violations.map((one) => [one.impact, one.id, one.help, one.nodes.slice(0, 3).map((node) => node.html.slice(0, 300))])))
  .catch((error) => done([['broken', String(error)]]));";

fn axe() -> Option<String> {
    match std::env::var("ORCHESTRATOR_TEST_AXE") {
        Ok(file) => Some(std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))),
        Err(_) => {
            assert!(std::env::var_os("CI").is_none(), "ORCHESTRATOR_TEST_AXE names no axe.min.js");
            eprintln!("skipped: ORCHESTRATOR_TEST_AXE names no axe.min.js");
            None
        }
    }
}

/// A demo, served on a free port.
fn demo() -> Site {
    let place = Place::new();
    let folder = place.outside("demo");
    let mut command: Command = place.command(&["demo", "--quick", "--folder", &folder.display().to_string()]);
    let made = ended(command.env_remove("ORCHESTRATOR_DATA_DIR").output().unwrap());
    assert_eq!(made.code, 0, "{}", made.err);
    Site::of_demo(place, &folder)
}

#[test]
fn axe_finds_nothing_serious_on_any_page() {
    let Some(axe) = axe() else { return };
    with_browser(async |browser| {
        browser.forgiven = vec!["404 (Not Found)"];
        let site = demo();
        let daemon = site.serve();
        let id = |project: &str, status: &str| {
            let builds = daemon.get(&format!("/api/v1/builds?project={project}&status={status}"));
            builds["items"][0]["id"].as_u64().unwrap()
        };
        let (good, bad, broken) =
            (id("player-stats", "passed"), id("player-stats", "failed"), id("feature-service", "failed"));
        let pages = [
            "/".to_owned(),
            "/projects/player-stats".to_owned(),
            "/projects/feature-service?status=failed".to_owned(),
            format!("/builds/{good}"),
            format!("/builds/{bad}"),
            format!("/builds/{good}/retry"),
            format!("/builds/{broken}/stages/keys/attempts/1"),
            format!("/builds/{good}/stages/loadtest/attempts/1/loadtest"),
            "/models".to_owned(),
            "/models/player-stats".to_owned(),
            "/models/player-stats/versions/2".to_owned(),
            "/models/player-stats/versions/3/promote".to_owned(),
            "/models/player-stats/compare?a=1&b=2".to_owned(),
            "/deployments".to_owned(),
            "/queue".to_owned(),
            "/deliveries".to_owned(),
            "/deliveries/1".to_owned(),
            "/settings?keys=all".to_owned(),
            "/audit".to_owned(),
            "/search?q=tree".to_owned(),
            "/settings/tokens/revoke?token=1".to_owned(),
            format!("/builds/{broken}/stages/keys/attempts/1?q=key"),
            "/nothing".to_owned(),
        ];
        let mut found = Vec::new();
        for path in &pages {
            for (width, scheme) in [(1280, "light"), (360, "dark")] {
                browser.resize(width, 900).await;
                browser.scheme(scheme).await;
                browser.open(daemon.address(), path).await;
                let wide = browser.ask("return document.documentElement.scrollWidth").await;
                if wide.as_u64().unwrap() > u64::from(width) {
                    found.push(json!([path, scheme, width, "is wider than the screen", wide]));
                }
                let strangers = "return performance.getEntriesByType('resource').map((one) => one.name).filter((name) => !name.startsWith(location.origin))";
                let strangers = browser.ask(strangers).await;
                if strangers != json!([]) {
                    found.push(json!([path, scheme, width, "asks others", strangers]));
                }
                // It comes with the driver, so the page's own policy has no say in it.
                browser.ask(&format!("{axe}; return typeof axe.run")).await;
                let violations: Value = browser.ask_later(LOOK).await;
                let serious = |one: &&Value| matches!(one[0].as_str(), Some("serious" | "critical" | "broken"));
                found.extend(
                    violations.as_array().unwrap().iter().filter(serious).map(|one| json!([path, scheme, width, one])),
                );
            }
        }
        assert_eq!(daemon.terminate(), 0);
        let data = site.place.outside("demo/data").display().to_string();
        site.place.expect(0, &["--data-dir", &data, "deployments", "stop", "player-stats"]);
        let shown: Vec<String> = found.iter().map(Value::to_string).collect();
        assert!(found.is_empty(), "{} findings:\n{}", found.len(), shown.join("\n"));
    });
}
