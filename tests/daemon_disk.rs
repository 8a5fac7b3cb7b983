//! A full disk: what cannot be kept is not accepted, what was accepted is built once there is space again.

use std::fs;
use std::process::Command;

use crate::harness::eventually;
use crate::served::{Site, push};

/// A small file system over a site's data folder; gone with it.
struct Small(std::path::PathBuf);

impl Small {
    /// `None` where this user may not mount one, which is told.
    fn over(site: &Site) -> Option<Self> {
        let folder = site.place.data();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(&folder)
            .output()
            .is_ok_and(|done| done.status.success());
        let required = std::env::var("ORCHESTRATOR_TEST_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
        assert!(mounted || !required, "a tmpfs is required");
        if !mounted {
            println!("skipped: a small file system can be mounted by root only");
        }
        mounted.then_some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_loses_nothing_that_was_accepted() {
    let site = Site::new(
        "name: demo\non: { push: { branches: ['**'] } }\nstages:\n  talk:\n    run: |\n      i=0; while [ $i -lt 200 ]; do echo \
         \"line $i\"; sleep 0.01; i=$((i+1)); done\n",
        "poll = \"off\"",
    );
    let Some(small) = Small::over(&site) else { return };
    let daemon = site.serve();
    eventually("the first build", || daemon.counts().get("passed") == Some(&1));
    let first = site.git(&["rev-parse", "HEAD"]);
    let commit = |index: usize| {
        let commit = site.git(&["commit-tree", "-p", &first, "-m", &format!("c{index}"), "HEAD^{tree}"]);
        site.git(&["update-ref", &format!("refs/heads/b{index}"), &commit]);
        commit
    };
    // One is under way while the disk fills.
    let one = commit(0);
    assert_eq!(daemon.deliver("push", "d-0", &push("refs/heads/b0", &"0".repeat(40), &one)).status, 202);
    eventually("it runs", || daemon.counts().get("running") == Some(&1));
    let filler = site.place.data().join("filler");
    let mut left = vec![0; 64 << 20];
    while !left.is_empty() {
        // To the last byte.
        let _ = fs::OpenOptions::new().create(true).append(true).open(&filler).and_then(|mut file| {
            use std::io::Write;
            file.write_all(&left)
        });
        left.truncate(left.len() / 2);
    }
    let two = commit(1);
    let body = push("refs/heads/b1", &"0".repeat(40), &two);
    let mut refused = 0;
    for index in 0..200 {
        // SQLite may still have room in its log for some.
        let answer = daemon.deliver("push", &format!("full-{index}"), &body);
        if answer.status == 503 {
            assert!(answer.body.contains("the disk of the data folder is full"), "{}", answer.body);
            refused += 1;
            if refused > 3 {
                break;
            }
        } else {
            assert_eq!(answer.status, 202, "{}", answer.body);
        }
    }
    assert!(refused > 3, "the disk was never full");
    assert_eq!(daemon.get("/api/v1/queue")["paused"], serde_json::Value::Null, "it still answers");

    fs::remove_file(&filler).unwrap();
    eventually("service resumes", || daemon.deliver("push", "d-1", &body).status < 300);
    eventually("all is decided and built", || daemon.is_idle());
    let builds = daemon.all("/api/v1/builds");
    for (commit, name) in [(&one, "the one under way"), (&two, "the one that came meanwhile")] {
        let of: Vec<_> = builds.iter().filter(|build| build["commit"] == commit.as_str()).collect();
        assert_eq!(of.len(), 1, "{name}: {builds:#?}");
    }
    let of_one = builds.iter().find(|build| build["commit"] == one.as_str()).unwrap();
    let id = of_one["id"].as_u64().unwrap();
    match of_one["status"].as_str().unwrap() {
        "passed" => {
            let expected: Vec<String> = (0..200).map(|line| format!("line {line}")).collect();
            assert_eq!(site.place.lines(id, "talk", "stdout"), expected);
        }
        // Its own output had no room: then it says so.
        _ => {
            let message = site.place.stage(id, "talk")["failure"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains("No space") || message.contains("full"), "{message}");
        }
    }
    assert_eq!(daemon.terminate(), 0);
    let database = rusqlite::Connection::open(site.place.data().join("orchestrator.db")).unwrap();
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    drop(small);
}
