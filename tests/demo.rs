//! The demo: real builds of the last weeks, which a daemon then shows.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Place, ended, eventually};
use crate::served::Site;

#[test]
fn a_demo_is_made_and_served() {
    let place = Place::new();
    let folder = place.outside("demo");
    let name = folder.display().to_string();
    let demo = || {
        let mut command = place.command(&["demo", "--quick", "--folder", &name]);
        ended(command.env_remove("ORCHESTRATOR_DATA_DIR").output().unwrap())
    };
    let made = demo();
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.contains("orchestrator serve") && made.err.contains("player-stats"), "{} {}", made.out, made.err);
    let again = demo();
    assert!(again.code == 2 && again.err.contains("is not empty"), "{}", again.err);
    let misled = place.expect(2, &["demo", "--folder", &name]);
    assert!(misled.err.contains("ORCHESTRATOR_DATA_DIR"), "{}", misled.err);

    let file = folder.join("orchestrator.toml").display().to_string();
    let checked = place.expect(0, &["config", "check", &file]);
    assert!(!checked.err.contains("warning") && !checked.out.contains("warning"), "{}{}", checked.out, checked.err);

    let site = Site::of_demo(place, &folder);
    let daemon = site.serve();
    let items = |path: &str| daemon.get(path)["items"].as_array().unwrap().clone();
    let builds = items("/api/v1/builds?limit=100");
    let words = |rows: &[Value], name: &str| {
        rows.iter().map(|row| row[name].as_str().unwrap().to_owned()).collect::<BTreeSet<String>>()
    };
    assert!(words(&builds, "status").is_superset(&["failed".to_owned(), "passed".to_owned()].into()), "{builds:#?}");
    assert_eq!(words(&builds, "project").len(), 3);
    // They are of the last weeks, and their logs, too.
    let day = 86_400_000_000_i64;
    let oldest = builds.last().unwrap()["created_at"].as_i64().unwrap();
    let now = jiff::Timestamp::now().as_microsecond();
    assert!((15 * day..30 * day).contains(&(now - oldest)), "{}", (now - oldest) / day);
    let first = builds.iter().rev().find(|build| build["project"] == "feature-service").unwrap()["id"].clone();
    let lines = daemon.get(&format!("/api/v1/builds/{first}/stages/unit/attempts/1/log"));
    let at = lines["lines"][0]["at"].as_i64().unwrap();
    assert!((at - oldest).abs() < 3600 * 1_000_000, "{at} {oldest}");

    let verdicts = words(&items("/api/v1/models/player-stats/promotions"), "verdict");
    assert!(verdicts.contains("promoted") && verdicts.len() > 1, "{verdicts:?}");
    let deliveries = items("/api/v1/deliveries");
    assert!(deliveries.len() >= 3, "{deliveries:#?}");
    eventually("the champion serves", || daemon.get("/api/v1/deployments")[0]["status"] == "live");
    assert_eq!(daemon.terminate(), 0);
    let data = folder.join("data").display().to_string();
    site.place.expect(0, &["--data-dir", &data, "deployments", "stop", "player-stats"]);
}
