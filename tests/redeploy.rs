//! The champion is deployed once more, whatever is killed meanwhile; and a port that another container has is not touched.

use std::process::Stdio;
use std::time::Duration;

use orchestrator::runner::Runner;
use orchestrator::runner::docker::{DockerRunner, DockerSettings};
use orchestrator::runner::spec::{Command, UnitName, UnitSpec};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::deployment::{clear, free_port, in_order, live};
use crate::harness::{Ended, Place, ended, eventually};
use crate::images;
use crate::run::{players, promoting};
use crate::runner_contract::spec;

/// Kills of one test.
const KILLS: usize = 16;

#[test]
fn an_unchanged_champion_is_deployed_again_through_kill_9() {
    let port = free_port();
    let place = Place::with(&promoting("decision-tree", port));
    place.write("players.csv", &players());
    place.expect(0, &["run"]);
    let mut random = SmallRng::seed_from_u64(21);
    let mut kills = 0;
    while kills < KILLS {
        place.expect(0, &["deployments", "stop", "players"]);
        let mut child = place.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // All results are reused, so most of this is the promotion and its server.
        std::thread::sleep(Duration::from_millis(random.gen_range(5..400)));
        let killed = child.try_wait().unwrap().is_none();
        if killed {
            child.kill().unwrap();
            kills += 1;
        }
        child.wait().unwrap();
        let open = place.json(&["builds", "--json"]);
        if open.as_array().unwrap().iter().any(|build| build["status"]["status"] == "running") {
            // A promotion that was interrupted before its decision is not judged again by itself.
            let resumed = place.run(&["run", "--resume"]);
            let undecided = resumed.out.contains("the promotion was interrupted before its decision");
            assert!(resumed.code == 0 || undecided, "{}{}", resumed.out, resumed.err);
        }
        place.expect(0, &["run"]);
        in_order(&place, port, &format!("after kill {kills}"));
        assert!(live(&place)[0]["version"] == 1, "nobody else was promoted");
        assert!(place.units().is_empty(), "{:?}", place.units());
    }
    clear(&place);
}

/// A pipeline whose server is a container that publishes this port. Each version is better than the one before.
fn in_containers(image: &str, version: u32, port: u16) -> String {
    format!(
        "name: pages
serve: {{ image: \"{image}\", run: 'echo serves {version} with $TOKEN; exec httpd -f -p $PORT -h www', secrets: [TOKEN], port: auto, ready: {{ path: /index.html }}, inputs: [train] }}
stages:
  train:
    image: \"{image}\"
    run: mkdir www; echo {version} > www/index.html; echo '{{\"quality\":{version}}}' > metrics.json
    train: {{ model: pages, artifact: www, metrics: metrics.json }}
  promote:
    needs: [train]
    promote:
      model: pages
      better_if: {{ quality: {{ goal: maximize }} }}
      deploy: {{ strategy: replace, port: {port} }}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_another_container_is_refused_by_its_name() {
    let instance = format!("foreign-{}", std::process::id());
    let Some(runner) = images::engine(&instance).await else { return };
    let image = images::busybox(&runner).await;
    let (ours, taken) = (free_port(), free_port());
    let foreign = UnitSpec {
        name: UnitName(format!("orc-{instance}-squatter")),
        image: Some(image.clone()),
        port: Some(80),
        publish: Some(taken),
        ..spec("squatter", Command::Arguments(["httpd", "-f", "-p", "80"].map(str::to_owned).to_vec()))
    };
    runner.create(&foreign, None).await.unwrap();
    drop(runner.start(&foreign.name).await.unwrap());
    let place = Place::with(&in_containers(&image, 1, taken));
    tokio::task::block_in_place(|| refused_and_then_not(&place, &image, (ours, taken), &foreign.name));
    runner.remove(&foreign.name).await.unwrap();
}

/// A command that has the secret.
fn with_token(place: &Place, code: i32, arguments: &[&str]) -> Ended {
    let ended = ended(place.command(arguments).env("TOKEN", "hunter2 & co").output().unwrap());
    assert_eq!(ended.code, code, "{arguments:?}\n{}\n{}", ended.out, ended.err);
    ended
}

/// The engine's log has the secret in plain; this program does not show it.
fn its_output_is_shown_masked(place: &Place) {
    let shown = with_token(place, 0, &["deployments", "logs", "pages"]);
    assert_eq!(shown.out, "serves 4 with ***\n");
    let unmasked = place.expect(2, &["deployments", "logs", "pages"]);
    assert_eq!(unmasked.out, "");
    assert!(unmasked.err.contains("secrets TOKEN, which its engine's log does not hide"), "{}", unmasked.err);
}

fn refused_and_then_not(place: &Place, image: &str, (ours, taken): (u16, u16), foreign: &UnitName) {
    let words = format!("port {taken} is used by the container `{foreign}` (image `");
    let first = with_token(place, 1, &["run"]);
    assert!(first.out.contains(&words), "{}", first.out);
    assert!(live(place).is_empty());

    place.write("pipeline.yaml", &in_containers(image, 2, ours));
    with_token(place, 0, &["run"]);
    let served = live(place);
    assert_eq!((served.len(), &served[0]["port"]), (1, &ours.into()), "{served:#?}");
    // Another version on the taken port: what serves is not touched.
    place.write("pipeline.yaml", &in_containers(image, 3, taken));
    let third = with_token(place, 1, &["run"]);
    assert!(third.out.contains(&words), "{}", third.out);
    assert_eq!(live(place)[0]["unit"], served[0]["unit"]);
    // Its own container is no stranger on its own port.
    place.write("pipeline.yaml", &in_containers(image, 4, ours));
    with_token(place, 0, &["run"]);
    assert_ne!(live(place)[0]["unit"], served[0]["unit"]);
    its_output_is_shown_masked(place);
    // A process of this machine is one.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    place.write("pipeline.yaml", &in_containers(image, 5, port));
    let fifth = with_token(place, 1, &["run"]);
    assert!(fifth.out.contains(&format!("port {port} is used by `")), "{}", fifth.out);
    place.expect(0, &["deployments", "stop", "pages"]);
    let instance = place.instance();
    eventually("nothing is left", || {
        tokio::runtime::Handle::current().block_on(async {
            let runner = DockerRunner::connect(DockerSettings::new(&instance)).await.unwrap();
            runner.list().await.unwrap().is_empty()
        })
    });
}
