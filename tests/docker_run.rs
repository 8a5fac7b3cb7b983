//! Whole builds in containers, by the real program: limits, networks, services, caches, built images, registries, and what is
//! left for a look.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;

use base64::Engine as _;
use orchestrator::runner::Runner;
use orchestrator::runner::docker::{DockerRunner, DockerSettings};

use crate::harness::Place;
use crate::images;

/// Runs a test with the test image's id, where there is an engine.
async fn with_image(name: &str, test: impl FnOnce(&str)) {
    let Some(runner) = images::engine(&format!("{name}-{}", std::process::id())).await else { return };
    let image = images::busybox(&runner).await;
    tokio::task::block_in_place(|| test(&image));
}

/// Names of a place's containers.
fn containers(place: &Place) -> Vec<String> {
    let instance = place.instance();
    let found = tokio::runtime::Handle::current().block_on(async {
        let runner = DockerRunner::connect(DockerSettings::new(&instance)).await.unwrap();
        runner.list().await.unwrap()
    });
    found.into_iter().map(|unit| unit.name.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory_is_called_that() {
    with_image("oom", |image| {
        let place = Place::with(&format!(
            "stages:\n  hungry:\n    image: \"{image}\"\n    resources: {{ memory: 64MiB }}\n    run:\n      - echo fine\n      - {{ name: eat, run: dd if=/dev/zero of=/dev/null bs=200M count=1 }}\n"
        ));
        let ended = place.expect(1, &["run"]);
        assert!(ended.out.contains("out of memory: limit 64 MiB"), "{}", ended.out);
        let failure = &place.stage(1, "hungry")["failure"];
        assert_eq!(failure["kind"], "out-of-memory", "{failure}");
        assert!(!failure["message"].as_str().unwrap().contains("137"), "{failure}");
        assert_eq!(place.lines(1, "hungry", "stdout"), ["fine"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_network_is_no_network() {
    with_image("nonet", |image| {
        let place = Place::with(&format!(
            "stages:\n  alone: {{ image: \"{image}\", network: none, run: ls /sys/class/net }}\n  usual: {{ image: \"{image}\", run: ls /sys/class/net }}\n"
        ));
        place.expect(0, &["run"]);
        assert_eq!(place.lines(1, "alone", "stdout"), ["lo"]);
        assert!(place.lines(1, "usual", "stdout").contains(&"eth0".to_owned()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_built_image_serves_as_a_service_found_by_name() {
    with_image("svc", |image| {
        let place = Place::new();
        place.write("web/Dockerfile", &format!("FROM {image}\nARG WORD=none\nRUN mkdir /www && echo $WORD > /www/index.html\nCMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n"));
        place.write(
            "pipeline.yaml",
            "stages:\n  look:\n    build: { context: web, args: { WORD: first } }\n    run: cat /www/index.html\n",
        );
        let ended = place.expect(0, &["run", "-v"]);
        assert_eq!(place.lines(1, "look", "stdout"), ["first"], "{}", ended.out);
        // A service names an image; the one that the engine has just built is known by its id.
        let built = tokio::runtime::Handle::current().block_on(async {
            let runner = DockerRunner::connect(DockerSettings::new(&place.instance())).await.unwrap();
            runner.built_images().await.unwrap().remove(0).reference
        });
        place.write(
            "pipeline.yaml",
            &format!(
                "stages:\n  ask:\n    image: \"{image}\"\n    services: {{ web: {{ image: \"{built}\", port: 8080, ready: {{ path: /index.html, timeout: 30s }} }} }}\n    run: wget -qO- http://web:8080/index.html\n"
            ),
        );
        place.expect(0, &["run"]);
        assert_eq!(place.lines(2, "ask", "stdout"), ["first"]);
        assert_eq!(containers(&place), Vec::<String>::new(), "the service is gone with its stage");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_last_from_build_to_build() {
    with_image("cache", |image| {
        let place = Place::with(&format!(
            "stages:\n  count: {{ image: \"{image}\", cache: [/cache], run: echo x >> /cache/runs; wc -l < /cache/runs }}\n"
        ));
        place.expect(0, &["run"]);
        place.expect(0, &["run"]);
        assert_eq!(place.lines(2, "count", "stdout"), ["2"]);
        // Another project's cache of the same path is another one.
        let pipeline = fs::read_to_string(place.project().join("pipeline.yaml")).unwrap();
        place.write("pipeline.yaml", &format!("name: other\n{pipeline}"));
        place.expect(0, &["run"]);
        assert_eq!(place.lines(3, "count", "stdout"), ["1"]);
    })
    .await;
}

/// A registry that lets nobody in, and tells with what credentials it was asked.
fn registry() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    break;
                }
                if let Some(("authorization", value)) = line
                    .split_once(':')
                    .map(|(name, value)| (name.to_ascii_lowercase(), value))
                    .as_ref()
                    .map(|(n, v)| (n.as_str(), *v))
                {
                    // The test may be over.
                    let _ = tell.send(value.trim().to_owned());
                }
                if line == "\r\n" {
                    let answer =
                        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\"\r\nContent-Length: 0\r\n\r\n";
                    if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            }
        }
    });
    (port, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_gets_the_credentials_of_the_users_docker_config() {
    with_image("login", |_| {
        let (port, told) = registry();
        let place =
            Place::with(&format!("stages:\n  a: {{ image: \"127.0.0.1:{port}/some/image:1\", run: echo never }}\n"));
        let config = place.outside("docker");
        fs::create_dir(&config).unwrap();
        let secret = base64::engine::general_purpose::STANDARD.encode("someone:registry-password");
        let text = format!("{{\"auths\":{{\"127.0.0.1:{port}\":{{\"auth\":\"{secret}\"}}}}}}");
        fs::write(config.join("config.json"), text).unwrap();
        let ended = crate::harness::ended(place.command(&["run"]).env("DOCKER_CONFIG", &config).output().unwrap());
        assert_eq!(ended.code, 1, "{}{}", ended.out, ended.err);
        assert!(ended.out.contains(&format!("127.0.0.1:{port}/some/image:1")), "{}", ended.out);
        assert!(!ended.out.contains("registry-password") && !ended.out.contains(&secret), "{}", ended.out);
        assert_eq!(place.stage(1, "a")["failure"]["kind"], "image");
        // An engine on another machine cannot reach this one's loopback.
        if std::env::var_os("DOCKER_HOST").is_none() {
            assert_eq!(told.try_iter().next(), Some(format!("Basic {secret}")));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_container_stays_until_gc_and_can_be_entered() {
    with_image("keep", |image| {
        let place = Place::with(&format!(
            "stages:\n  bad: {{ image: \"{image}\", run: 'echo clue > note.txt; exit 3' }}\n  good: {{ image: \"{image}\", run: echo fine }}\n"
        ));
        let ended = place.expect(1, &["run", "--keep"]);
        let kept = containers(&place);
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert!(kept[0].contains("-bad-"), "{kept:?}");
        let command = format!("docker run --rm -it --entrypoint sh $(docker commit {})", kept[0]);
        for said in [command, format!("docker rm -v {}", kept[0]), "orchestrator gc".to_owned()] {
            assert!(ended.out.contains(&said), "{said} is not in {}", ended.out);
        }
        // The next run leaves it alone, and so does going on with the same build.
        place.write("other.yaml", &format!("stages:\n  a: {{ image: \"{image}\", run: echo one }}\n"));
        place.expect(0, &["run", "other.yaml"]);
        assert_eq!(containers(&place), kept);
        if Command::new("docker").arg("version").output().is_ok_and(|output| output.status.success()) {
            let note = Command::new("docker").args(["cp", &format!("{}:/workspace/note.txt", kept[0]), "-"]).output().unwrap();
            assert!(String::from_utf8_lossy(&note.stdout).contains("clue"), "{note:?}");
            let again = Command::new("docker").args(["start", "-a", &kept[0]]).output().unwrap();
            assert_eq!(again.status.code(), Some(3), "{again:?}");
        }
        let gone = place.expect(0, &["gc"]);
        assert!(gone.out.contains(&kept[0]), "{}", gone.out);
        assert_eq!(containers(&place), Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_without_any_file_has_an_empty_workspace() {
    with_image("nofile", |image| {
        let place = Place::with(&format!(
            "stages:\n  bare: {{ image: \"{image}\", run: 'pwd; ls -a; echo made > made.txt', outputs: [made.txt] }}\n"
        ));
        let nothing = place.outside("nothing");
        fs::create_dir(&nothing).unwrap();
        place.expect(0, &["run", "--source", nothing.to_str().unwrap()]);
        assert_eq!(place.lines(1, "bare", "stdout"), ["/workspace", ".", ".."]);
        assert!(place.expect(0, &["artifacts", "list", "1"]).out.contains("made.txt"));
    })
    .await;
}
