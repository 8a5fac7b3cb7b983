//! What only a real engine can prove of the Docker runner: security, limits, exact output, archives, networks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

use std::collections::BTreeMap;
use std::io::Read;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use orchestrator::pipeline::types::{ImageSource, Network, Resources};
use orchestrator::runner::docker::{DockerRunner, DockerSettings};
use orchestrator::runner::spec::{CacheMount, Command, Join, LABEL_INSTANCE, LABEL_ROLE, Steps, UnitName, UnitSpec};
use orchestrator::runner::{Output, Pull, Runner, RunnerError, Signal, Stream, UnitStatus};

use crate::images::{Item, built, busybox, engine, pack, streamed};

/// A runner of an instance of its own, of which nothing is left afterwards.
struct Bench {
    runner: DockerRunner,
    instance: String,
    image: String,
}

async fn bench(test: impl AsyncFnOnce(&Bench)) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let instance = format!("test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let Some(runner) = engine(&instance).await else { return };
    // All tests share the image (and its cached layers); it is found by its own instance.
    let images = engine("test-images").await.expect("it was there just now");
    let bench = Bench { image: busybox(&images).await, runner, instance };
    let done = AssertUnwindSafe(test(&bench)).catch_unwind().await;
    for unit in bench.runner.list().await.unwrap() {
        bench.runner.remove(&unit.name).await.unwrap();
    }
    for network in bench.runner.list_networks().await.unwrap() {
        bench.runner.remove_network(&network).await.unwrap();
    }
    for cache in bench.runner.caches().await.unwrap() {
        bench.runner.remove_cache(&cache).await.unwrap();
    }
    for image in bench.runner.built_images().await.unwrap() {
        bench.runner.remove_image(&image.reference).await.unwrap();
    }
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

impl Bench {
    fn spec(&self, name: &str, command: Command) -> UnitSpec {
        UnitSpec {
            name: UnitName(format!("{}-{name}", self.instance)),
            labels: BTreeMap::from([(LABEL_INSTANCE.to_owned(), self.instance.clone())]),
            image: Some(self.image.clone()),
            command,
            env: vec![],
            resources: Resources::default(),
            network: Network::None,
            join: None,
            caches: vec![],
            port: None,
            publish: None,
            restart: false,
            grace: Duration::from_secs(1),
            workspace_variable: true,
            masked: Vec::new(),
        }
    }

    /// A unit that runs a script, without the marks of steps.
    fn script(&self, name: &str, script: &str) -> UnitSpec {
        self.spec(name, Command::Arguments(["sh", "-c", script].map(str::to_owned).to_vec()))
    }

    fn steps(&self, name: &str, scripts: &[&str]) -> UnitSpec {
        let scripts = scripts.iter().map(|script| (*script).to_owned()).collect();
        self.spec(name, Command::Steps(Steps { scripts, shell: None, nonce: "nonce".to_owned() }))
    }

    async fn start(&self, unit: &UnitSpec) -> Output {
        self.runner.create(unit, None).await.unwrap();
        self.runner.start(&unit.name).await.unwrap()
    }

    /// Runs to the end.
    async fn run(&self, unit: &UnitSpec) -> (Text, UnitStatus) {
        let text = read(self.start(unit).await).await.unwrap();
        (text, self.runner.wait(&unit.name).await.unwrap())
    }
}

/// All output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Text {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Text {
    fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

async fn read(mut output: Output) -> Result<Text, RunnerError> {
    let mut text = Text::default();
    while let Some(chunk) = output.recv().await {
        let chunk = chunk?;
        match chunk.stream {
            Stream::Stdout => text.stdout.extend_from_slice(&chunk.bytes),
            Stream::Stderr => text.stderr.extend_from_slice(&chunk.bytes),
        }
    }
    Ok(text)
}

fn code(status: &UnitStatus) -> i64 {
    match status {
        UnitStatus::Exited(exit) => exit.code,
        other => panic!("not ended: {other:?}"),
    }
}

#[tokio::test]
async fn two_hundred_thousand_fast_lines() {
    bench(async |bench| {
        let unit = bench.script("fast", "seq 1 200000");
        let (text, status) = bench.run(&unit).await;
        let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
        assert_eq!(code(&status), 0);
        assert!(text.out() == expected, "{} bytes of {}", text.stdout.len(), expected.len());
        let again = read(bench.runner.reattach(&unit.name).await.unwrap()).await.unwrap();
        assert!(again == text, "the log has {} bytes", again.stdout.len());
    })
    .await;
}

/// An attached reader that stands still would lose the end of the output, and block the engine's other answers.
#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    bench(async |bench| {
        // 2.9 MB on each stream: more than all buffers between here and the unit.
        let lines = "seq 1 40000 | sed 's/$/ ................................................................./'";
        let unit = bench.script("slow", &format!("{lines} & {lines} >&2; wait"));
        let mut output = bench.start(&unit).await;
        let first = output.recv().await.unwrap().unwrap();
        // The unit ends while nobody reads: the answer comes although its reader stands still.
        let ended = tokio::time::timeout(Duration::from_secs(60), bench.runner.wait(&unit.name)).await;
        assert_eq!(code(&ended.expect("the engine is not blocked").unwrap()), 0);
        let mut text = read(output).await.unwrap();
        let front = match first.stream {
            Stream::Stdout => &mut text.stdout,
            Stream::Stderr => &mut text.stderr,
        };
        front.splice(0..0, first.bytes.iter().copied());
        let expected: Vec<u8> = (1..=40_000).flat_map(|n| format!("{n} {}\n", ".".repeat(65)).into_bytes()).collect();
        assert!(text.stdout == expected, "stdout {} of {}", text.stdout.len(), expected.len());
        assert!(text.stderr == expected, "stderr {} of {}", text.stderr.len(), expected.len());
    })
    .await;
}

#[tokio::test]
async fn the_log_equals_what_was_attached() {
    bench(async |bench| {
        let check = async |name: &str, script: &str| {
            let unit = bench.script(name, script);
            let (attached, _) = bench.run(&unit).await;
            assert!(!attached.stdout.is_empty(), "{name}");
            let again = read(bench.runner.reattach(&unit.name).await.unwrap()).await.unwrap();
            assert!(again == attached, "{name}: {} and {} bytes", attached.stdout.len(), again.stdout.len());
        };
        check(
            "long",
            "head -c 100000 /dev/zero | tr '\\0' x; echo; head -c 16384 /dev/zero | tr '\\0' y; echo; echo z",
        )
        .await;
        check("mixed", "for i in $(seq 1 2000); do echo out $i; echo err $i >&2; done").await;
        check("open-end", "printf 'one\\ntwo'; printf err >&2").await;
        check("long-open-end", "head -c 40000 /dev/zero | tr '\\0' x").await;
        check("blank", "printf '\\n\\n \\r\\n\\t\\n'").await;
        check("controls", "printf 'a\\0b\\033[1mc\\\\ \\\" <&> \\342\\200\\250\\n'").await;
    })
    .await;
}

/// The engine's log is JSON: each byte that is not UTF-8 becomes U+FFFD. Lines stay lines.
#[tokio::test]
async fn bytes_that_are_no_text_keep_their_lines() {
    bench(async |bench| {
        let unit = bench.script("binary", "printf 'a\\377\\376b\\nc\\303\\nd\\n'; printf '\\200\\n' >&2");
        let (attached, _) = bench.run(&unit).await;
        assert_eq!(attached.stdout, b"a\xff\xfeb\nc\xc3\nd\n");
        let again = read(bench.runner.reattach(&unit.name).await.unwrap()).await.unwrap();
        assert_eq!(again.out(), "a\u{fffd}\u{fffd}b\nc\u{fffd}\nd\n");
        assert_eq!(String::from_utf8_lossy(&again.stderr), "\u{fffd}\n");
        let random = bench.script("random", "head -c 300000 /dev/urandom");
        let (attached, _) = bench.run(&random).await;
        let again = read(bench.runner.reattach(&random.name).await.unwrap()).await.unwrap();
        let lines = |text: &Text| text.stdout.iter().filter(|b| **b == b'\n').count();
        assert_eq!(lines(&attached), lines(&again));
    })
    .await;
}

#[tokio::test]
async fn reattached_while_it_runs() {
    bench(async |bench| {
        let script =
            "trap go=1 TERM; seq 1 20000; while [ -z \"$go\" ]; do sleep 0.05; done; seq 20001 40000; printf end";
        let unit = bench.script("running", script);
        let first = bench.start(&unit).await;
        drop(first);
        let mut output = bench.runner.reattach(&unit.name).await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"\n20000\n") {
            text.extend_from_slice(&output.recv().await.unwrap().unwrap().bytes);
        }
        assert_eq!(bench.runner.status(&unit.name).await.unwrap(), UnitStatus::Running);
        // Let it go on only now, so that the second half is followed live.
        bench.runner.signal(&unit.name, Signal::Term).await.unwrap();
        text.extend(read(output).await.unwrap().stdout);
        let expected: String = (1..=40_000).map(|n| format!("{n}\n")).chain(["end".to_owned()]).collect();
        assert!(text == expected.into_bytes(), "{} bytes", text.len());
        assert_eq!(code(&bench.runner.wait(&unit.name).await.unwrap()), 0);
    })
    .await;
}

/// What a unit prints just before its end is the part that following a log may miss.
#[tokio::test]
async fn a_burst_at_the_end_is_followed() {
    bench(async |bench| {
        let expected: String = (1..=3000).map(|n| format!("{n}\n")).collect();
        for n in 0..12 {
            let unit = bench.script(&format!("burst-{n}"), "sleep 0.2; seq 1 3000");
            drop(bench.start(&unit).await);
            let text = read(bench.runner.reattach(&unit.name).await.unwrap()).await.unwrap();
            assert!(text.out() == expected, "{n}: {} of {} bytes", text.stdout.len(), expected.len());
        }
    })
    .await;
}

/// A way to the engine that can be cut, as when the engine dies.
struct Cuttable {
    host: String,
    ways: tokio::task::JoinSet<()>,
    _folder: tempfile::TempDir,
}

impl Cuttable {
    fn new(engine: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let engine = engine.trim_start_matches("unix://").to_owned();
        let mut ways = tokio::task::JoinSet::new();
        ways.spawn(async move {
            let mut inner = tokio::task::JoinSet::new();
            while let Ok((mut here, _)) = listener.accept().await {
                let engine = engine.clone();
                inner.spawn(async move {
                    let mut there = tokio::net::UnixStream::connect(engine).await.unwrap();
                    tokio::io::copy_bidirectional(&mut here, &mut there).await.ok();
                });
            }
        });
        Self { host: format!("unix://{}", path.display()), ways, _folder: folder }
    }

    async fn cut(&mut self) {
        self.ways.shutdown().await;
    }
}

#[tokio::test]
async fn an_engine_that_dies_is_no_end() {
    bench(async |bench| {
        let host = bench.runner.about().await.unwrap().host;
        if !host.starts_with("unix://") {
            println!("skipped: the engine has no socket of its own here");
            return;
        }
        let script = "trap go=1 TERM; seq 1 500; while [ -z \"$go\" ]; do sleep 0.05; done; seq 501 1000";
        for reattached in [false, true] {
            let mut way = Cuttable::new(&host);
            let settings = DockerSettings { host: Some(way.host.clone()), ..DockerSettings::new(&bench.instance) };
            let runner = DockerRunner::connect(settings).await.unwrap();
            let unit = bench.script(&format!("cut-{reattached}"), script);
            runner.create(&unit, None).await.unwrap();
            let mut output = runner.start(&unit.name).await.unwrap();
            if reattached {
                output = runner.reattach(&unit.name).await.unwrap();
            }
            let mut text = Vec::new();
            while !text.ends_with(b"\n500\n") {
                text.extend_from_slice(&output.recv().await.unwrap().unwrap().bytes);
            }
            let waiting = runner.wait(&unit.name);
            let (waited, ()) = tokio::join!(waiting, async {
                // Lets the wait reach the engine; earlier or later, the answer is the same.
                tokio::time::sleep(Duration::from_millis(50)).await;
                way.cut().await;
            });
            assert!(matches!(waited, Err(RunnerError::Unreachable { .. })), "{waited:?}");
            let end = output.recv().await.expect("an end that is told");
            assert!(matches!(end, Err(RunnerError::Unreachable { .. })), "{end:?}");
            assert!(output.recv().await.is_none());
            let gone = runner.status(&unit.name).await;
            assert!(matches!(gone, Err(RunnerError::Unreachable { .. })), "{gone:?}");

            bench.runner.signal(&unit.name, Signal::Term).await.unwrap();
            let again = read(bench.runner.reattach(&unit.name).await.unwrap()).await.unwrap();
            let expected: String = (1..=1000).map(|n| format!("{n}\n")).collect();
            assert_eq!(again.out(), expected);
        }
    })
    .await;
}

#[tokio::test]
async fn quick_units_never_lose_their_line() {
    bench(async |bench| {
        for n in 0..10 {
            let unit = bench.script(&format!("quick-{n}"), "echo here; echo there >&2");
            let (text, _) = bench.run(&unit).await;
            assert_eq!((text.stdout.as_slice(), text.stderr.as_slice()), (&b"here\n"[..], &b"there\n"[..]));
        }
    })
    .await;
}

#[tokio::test]
async fn limits_hold() {
    bench(async |bench| {
        let mut hungry = bench.script("memory", "head -c 200m /dev/zero | tail");
        hungry.resources.memory_bytes = Some(32 << 20);
        let (_, status) = bench.run(&hungry).await;
        assert!(matches!(status, UnitStatus::Exited(exit) if exit.out_of_memory), "{status:?}");

        let mut many = bench.script("pids", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 2 & done; wait");
        many.resources.pids = Some(8);
        let (text, _) = bench.run(&many).await;
        assert!(String::from_utf8_lossy(&text.stderr).contains("can't fork"), "{text:?}");

        let mut fast = bench.script("cpus", "echo here");
        fast.resources.cpus = Some(100_000.0);
        assert_eq!(bench.run(&fast).await.0.out(), "here\n", "more processors than there are is no error");

        let mut tiny = bench.script("tiny", "true");
        tiny.resources.memory_bytes = Some(1);
        let error = bench.runner.create(&tiny, None).await.unwrap_err();
        assert!(matches!(error, RunnerError::Unsupported(_)), "{error}");
    })
    .await;
}

#[tokio::test]
async fn nothing_of_the_host_gets_in() {
    bench(async |bench| {
        let script = "cat /proc/self/status; ls /sys/class/net; cat /proc/mounts; ls -la /var/run /run 2>&1; id -u";
        let (text, _) = bench.run(&bench.script("security", script)).await;
        let text = text.out();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().to_owned()
        };
        assert_eq!(field("NoNewPrivs:"), "1");
        let capabilities = u64::from_str_radix(&field("CapEff:"), 16).unwrap();
        let has = |bit: u32| capabilities & (1 << bit) != 0;
        // chown, dac_override, fowner, setgid, setuid: what `apt-get` and `pip` need.
        assert!([0, 1, 3, 6, 7].into_iter().all(has), "{capabilities:x}");
        // net_raw, mknod, audit_write, setfcap, sys_chroot, and what the engine never gives: sys_admin, sys_ptrace, net_admin.
        assert!(![13, 27, 29, 31, 18, 21, 19, 12].into_iter().any(has), "{capabilities:x}");
        assert!(!text.contains("docker.sock"), "{text}");
        // The engine's own: files that it writes for the container, and its small init.
        let own = ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/sbin/docker-init"];
        let device = |line: &&str| line.starts_with("/dev/");
        for line in text.lines().filter(device) {
            assert!(own.contains(&line.split(' ').nth(1).unwrap()), "a mount of the host: {line}");
        }

        let script = "chown 1000:1000 . && echo chown; mknod x c 1 3 2>&1 || echo no mknod; ping -c1 127.0.0.1 2>&1 || echo no ping; \
                      ls /sys/class/net | xargs echo net:; ulimit -c";
        let (text, _) = bench.run(&bench.script("refused", script)).await;
        let text = text.out();
        for expected in ["chown", "no mknod", "no ping", "net: lo\n"] {
            assert!(text.contains(expected), "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_workspace_goes_in_and_outputs_come_out() {
    bench(async |bench| {
        let long = format!("deep/{}/{}", "d".repeat(120), "f".repeat(120));
        let big = vec![7; 3_000_000];
        let tree = pack(&[
            Item::folder("empty"),
            Item::file("bin/tool", b"#!/bin/sh\necho tool\n").mode(0o755),
            Item::file("big", &big),
            Item::file(&long, b"long"),
            Item::symlink("link", "bin/tool"),
        ]);
        let script = format!(
            "pwd; echo $ORCHESTRATOR_WORKSPACE; ./link; cat {long}; stat -c %u:%g big; mkdir -p out/sub; cp big out/sub/big; \
             cp -a bin/tool out/tool; ln -s tool out/alias; touch empty/x"
        );
        let unit = bench.script("files", &script);
        bench.runner.create(&unit, Some(streamed(tree))).await.unwrap();
        let text = read(bench.runner.start(&unit.name).await.unwrap()).await.unwrap();
        assert_eq!(text.out(), "/workspace\n/workspace\ntool\nlong0:0\n");
        bench.runner.wait(&unit.name).await.unwrap();

        let mut archive = Vec::new();
        let mut stream = bench.runner.collect(&unit.name, "out").await.unwrap().unwrap();
        while let Some(piece) = stream.next().await {
            archive.extend_from_slice(&piece.unwrap());
        }
        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string()).unwrap_or_default();
            let mode = entry.header().mode().unwrap() & 0o777;
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.insert(name.trim_end_matches('/').to_owned(), (mode, link, content.len()));
        }
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["out", "out/alias", "out/sub", "out/sub/big", "out/tool"]);
        assert_eq!(found["out/alias"].1, "tool");
        assert_eq!(found["out/tool"].0, 0o755);
        assert_eq!(found["out/sub/big"].2, big.len());

        assert!(bench.runner.collect(&unit.name, "none/such").await.unwrap().is_none());
        assert!(bench.runner.collect(&unit.name, "big").await.unwrap().is_some());
        for path in ["/etc/passwd", "../etc", "out/../../etc", ""] {
            assert!(bench.runner.collect(&unit.name, path).await.is_err(), "{path}");
        }
        let absent = UnitName(format!("{}-absent", bench.instance));
        assert!(matches!(bench.runner.collect(&absent, "x").await, Err(RunnerError::Absent(_))));
    })
    .await;
}

#[tokio::test]
async fn the_images_own_user_owns_its_workspace() {
    bench(async |bench| {
        let dockerfile = format!("FROM {}\nUSER app\nENV GREETING=hello\n", bench.image);
        let tree = pack(&[Item::file("Dockerfile", dockerfile.as_bytes())]);
        let image = built(&bench.runner, tree, BTreeMap::new()).await.unwrap();
        let mut unit = bench.script(
            "user",
            "id -u; stat -c %u:%g . file ~/.cache ~/.cache/pip; touch new ~/.cache/pip/x && echo $GREETING",
        );
        unit.image = Some(image);
        unit.env = vec![("HOME".to_owned(), "/home/app".to_owned())];
        unit.caches = vec![CacheMount { path: "~/.cache/pip".to_owned(), volume: "pip".to_owned(), read_only: false }];
        bench.runner.create(&unit, Some(streamed(pack(&[Item::file("file", b"x")])))).await.unwrap();
        let text = read(bench.runner.start(&unit.name).await.unwrap()).await.unwrap();
        assert_eq!(text.out(), "1000\n1000:1001\n1000:1001\n1000:1001\n1000:1001\nhello\n", "{text:?}");
    })
    .await;
}

#[tokio::test]
async fn caches_are_kept() {
    bench(async |bench| {
        let cache = |read_only| vec![CacheMount { path: "~/c".to_owned(), volume: "c.1".to_owned(), read_only }];
        let mut write = bench.script("write", "echo kept > /root/c/file");
        write.caches = cache(false);
        assert_eq!(code(&bench.run(&write).await.1), 0);
        let mut look = bench.script("look", "cat ~/c/file; touch ~/c/x 2>/dev/null || echo read-only");
        look.caches = cache(true);
        look.env = vec![("HOME".to_owned(), "/root".to_owned())];
        assert_eq!(bench.run(&look).await.0.out(), "kept\nread-only\n");
        bench.runner.remove(&write.name).await.unwrap();
        bench.runner.remove(&look.name).await.unwrap();
        assert_eq!(bench.runner.caches().await.unwrap(), ["c.1"], "removing a unit leaves its caches");
    })
    .await;
}

#[tokio::test]
async fn a_term_reaches_grandchildren_and_handlers_run() {
    bench(async |bench| {
        let step = "trap 'wait $child; echo cleaned; exit 3' TERM\n\
                    sh -c 'trap \"echo grandchild; exit 0\" TERM; echo ready; while :; do sleep 0.1; done' & child=$!\n\
                    while :; do sleep 0.1; done";
        let unit = bench.steps("term", &["echo first", step, "echo never"]);
        let mut output = bench.start(&unit).await;
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains("ready\n") {
            let chunk = output.recv().await.unwrap().unwrap();
            text.extend_from_slice(&chunk.bytes);
        }
        bench.runner.signal(&unit.name, Signal::Term).await.unwrap();
        text.extend(read(output).await.unwrap().stdout);
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains("first") && text.contains("grandchild\n") && text.contains("cleaned\n"), "{text}");
        assert!(!text.contains("never"), "{text}");
        assert_eq!(code(&bench.runner.wait(&unit.name).await.unwrap()), 3);
        bench.runner.signal(&unit.name, Signal::Kill).await.unwrap();

        let plain = bench.script("kill", "echo up; sleep 100");
        let mut output = bench.start(&plain).await;
        output.recv().await.unwrap().unwrap();
        bench.runner.signal(&plain.name, Signal::Kill).await.unwrap();
        assert_eq!(code(&bench.runner.wait(&plain.name).await.unwrap()), 137);
        let absent = UnitName(format!("{}-absent", bench.instance));
        assert!(matches!(bench.runner.signal(&absent, Signal::Kill).await, Err(RunnerError::Absent(_))));
    })
    .await;
}

#[tokio::test]
async fn services_are_found_by_name() {
    bench(async |bench| {
        let network = format!("{}-net", bench.instance);
        bench.runner.create_network(&network).await.unwrap();
        bench.runner.create_network(&network).await.unwrap();
        assert_eq!(bench.runner.list_networks().await.unwrap().join(" "), network);
        let join = |alias: &str| Some(Join { network: network.clone(), aliases: vec![alias.to_owned()] });
        let served = "mkdir w; echo page > w/index.html; exec httpd -f -v -p 80 -h w";
        let service =
            UnitSpec { network: Network::Default, join: join("web"), port: Some(80), ..bench.script("web", served) };
        let output = bench.start(&service).await;
        let client = "for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://web/ && exit 0; sleep 0.3; done; exit 1";
        let client = UnitSpec { network: Network::Default, join: join("me"), ..bench.script("client", client) };
        assert_eq!(bench.run(&client).await.0.out(), "page\n");

        let address = bench.runner.address(&service.name, 80).await.unwrap();
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut socket, &mut answer).await.unwrap();
        assert!(answer.ends_with("page\n"), "{answer}");

        bench.runner.remove(&service.name).await.unwrap();
        read(output).await.ok();
        bench.runner.remove(&client.name).await.unwrap();
        bench.runner.remove_network(&network).await.unwrap();
        bench.runner.remove_network(&network).await.unwrap();
        assert!(bench.runner.list_networks().await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_deployment_keeps_its_port_and_comes_back() {
    bench(async |bench| {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let served = "mkdir -p w; echo page > w/index.html; exec httpd -f -p 80 -h w";
        let deployment = UnitSpec {
            network: Network::Default,
            port: Some(80),
            publish: Some(free),
            restart: true,
            ..bench.script("deployment", served)
        };
        drop(bench.start(&deployment).await);
        let mut answered = false;
        // It starts in its own time.
        for _ in 0..100 {
            answered = tokio::net::TcpStream::connect(("127.0.0.1", free)).await.is_ok();
            if answered {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(answered);
        let twin = UnitSpec { name: UnitName(format!("{}-twin", bench.instance)), ..deployment.clone() };
        bench.runner.create(&twin, None).await.unwrap();
        let error = bench.runner.start(&twin.name).await.unwrap_err();
        assert!(matches!(error, RunnerError::Start { .. }), "{error}");
        assert!(error.to_string().contains(&format!("port 127.0.0.1:{free} is taken")), "{error}");
        assert_eq!(bench.runner.status(&twin.name).await.unwrap(), UnitStatus::Created, "it may be made anew");
    })
    .await;
}

#[tokio::test]
async fn calls_can_be_repeated() {
    bench(async |bench| {
        let mut unit = bench.script("again", "cat file");
        unit.labels.insert(LABEL_ROLE.to_owned(), "stage".to_owned());
        let name = &unit.name;
        let file = |content: &'static [u8]| Some(streamed(pack(&[Item::file("file", content)])));
        assert_eq!(bench.runner.status(name).await.unwrap(), UnitStatus::Absent);
        bench.runner.create(&unit, file(b"old")).await.unwrap();
        assert_eq!(bench.runner.status(name).await.unwrap(), UnitStatus::Created);
        assert!(bench.runner.reattach(name).await.is_err());
        bench.runner.create(&unit, file(b"new")).await.unwrap();
        let text = read(bench.runner.start(name).await.unwrap()).await.unwrap();
        assert_eq!(text.out(), "new");
        bench.runner.wait(name).await.unwrap();
        assert!(matches!(bench.runner.start(name).await, Err(RunnerError::AlreadyStarted(_))));
        assert!(matches!(bench.runner.create(&unit, None).await, Err(RunnerError::AlreadyStarted(_))));

        let listed = bench.runner.list().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((&listed[0].name, &listed[0].labels), (name, &unit.labels));
        assert_eq!(code(&listed[0].status), 0);
        bench.runner.remove(name).await.unwrap();
        bench.runner.remove(name).await.unwrap();
        assert_eq!(bench.runner.wait(name).await.unwrap(), UnitStatus::Absent);
        assert!(matches!(bench.runner.start(name).await, Err(RunnerError::Absent(_))));
        assert!(bench.runner.list().await.unwrap().is_empty());

        let running = bench.script("running", "sleep 100");
        drop(bench.start(&running).await);
        bench.runner.remove(&running.name).await.unwrap();
        assert_eq!(bench.runner.status(&running.name).await.unwrap(), UnitStatus::Absent);
    })
    .await;
}

#[tokio::test]
async fn a_workspace_that_breaks_off_leaves_no_unit() {
    bench(async |bench| {
        let unit = bench.script("broken", "true");
        let mut archive = pack(&[Item::file("file", &[7; 100_000])]);
        archive.truncate(50_000);
        let error = bench.runner.create(&unit, Some(streamed(archive))).await.unwrap_err();
        assert!(error.to_string().contains("cannot fill the workspace"), "{error}");
        let failing = futures_util::stream::iter([Err(std::io::Error::other("the disk is gone"))]).boxed();
        let error = bench.runner.create(&unit, Some(failing)).await.unwrap_err();
        assert!(error.to_string().contains("the disk is gone"), "{error}");
        assert_eq!(bench.runner.status(&unit.name).await.unwrap(), UnitStatus::Absent);
    })
    .await;
}

#[tokio::test]
async fn images_are_built_and_failures_explained() {
    bench(async |bench| {
        let dockerfile =
            format!("FROM {}\nARG WORD=none\nCOPY . /c\nRUN echo built $WORD && ls -A /c > /list\n", bench.image);
        let tree = || {
            pack(&[
                Item::file("sub/.dockerignore", b"secret\n"),
                Item::file("sub/Dockerfile", dockerfile.as_bytes()),
                Item::file("sub/kept", b""),
                Item::file("sub/secret", b""),
            ])
        };
        let source = |context: &str, dockerfile: &str| ImageSource::Build {
            context: context.to_owned(),
            dockerfile: dockerfile.to_owned(),
            args: BTreeMap::from([("WORD".to_owned(), "word".to_owned())]),
        };
        let said = std::sync::Mutex::new(Vec::new());
        let say = |line: String| said.lock().unwrap().push(line);
        let prepare = async |context: &str, dockerfile: &str, tree: Vec<u8>| {
            bench.runner.prepare_image(&source(context, dockerfile), Some(streamed(tree)), Pull::IfMissing, &say).await
        };
        let image = prepare("sub", "Dockerfile", tree()).await.unwrap();
        assert!(said.lock().unwrap().iter().any(|line| line == "built word"), "{said:?}");
        let mut unit = bench.script("list", "cat /list");
        unit.image = Some(image.reference.clone());
        assert_eq!(bench.run(&unit).await.0.out(), ".dockerignore\nDockerfile\nkept\n");
        assert_eq!(prepare("sub", "Dockerfile", tree()).await.unwrap(), image, "the same tree gives the same image");
        assert_eq!(bench.runner.built_images().await.unwrap()[0].reference, image.reference);
        let listed = bench.runner.list().await.unwrap();
        assert_eq!(listed[0].labels, unit.labels, "the image's labels are not the unit's");
        bench.runner.remove(&unit.name).await.unwrap();

        let fails = |error: Result<_, RunnerError>, expected: &[&str]| {
            let error = error.unwrap_err();
            assert!(matches!(error, RunnerError::Build { .. }), "{error:?}");
            let text = error.to_string();
            assert!(expected.iter().all(|part| text.contains(part)), "{text}");
        };
        fails(prepare("none", "Dockerfile", tree()).await, &["`none`", "no such folder"]);
        fails(prepare("sub", "Other", tree()).await, &["there is no `Other` in it"]);
        fails(prepare("../x", "Dockerfile", tree()).await, &["not a folder within"]);
        let bad = format!("FROM {}\nRUN echo why; exit 7\n", bench.image);
        let bad = pack(&[Item::file("Dockerfile", bad.as_bytes())]);
        fails(prepare(".", "Dockerfile", bad).await, &["Step 2/", "exit 7", "code: 7", "\n  why"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_missing_is_named() {
    bench(async |bench| {
        let prepare = async |image: &str| {
            let source = ImageSource::Image(image.to_owned());
            bench.runner.prepare_image(&source, None, Pull::IfMissing, &|_| {}).await
        };
        // Nothing listens there, so it fails at once and asks nobody.
        let error = prepare("127.0.0.1:1/no/such:tag").await.unwrap_err();
        assert!(matches!(error, RunnerError::Image { .. }), "{error}");
        assert!(
            error.to_string().contains("`127.0.0.1:1/no/such:tag`: the engine cannot reach the registry"),
            "{error}"
        );
        for image in ["Upper", "../../containers/json", &format!("sha256:{}", "0".repeat(64))] {
            assert!(matches!(prepare(image).await, Err(RunnerError::Image { .. })), "{image}");
        }
        assert_eq!(prepare(&bench.image).await.unwrap().reference, bench.image);

        let mut unit = bench.script("image", "true");
        unit.image = Some(format!("sha256:{}", "0".repeat(64)));
        assert!(matches!(bench.runner.create(&unit, None).await, Err(RunnerError::Image { .. })));

        let tree = pack(&[Item::file("Dockerfile", b"FROM scratch\nCOPY Dockerfile /\n")]);
        let empty = built(&bench.runner, tree, BTreeMap::new()).await.unwrap();
        let mut unit = bench.steps("shell", &["true"]);
        unit.image = Some(empty);
        bench.runner.create(&unit, None).await.unwrap();
        let error = bench.runner.start(&unit.name).await.unwrap_err();
        assert!(matches!(error, RunnerError::Start { .. }), "{error:?}");
        assert!(error.to_string().contains("the image has no `sh`"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_explained() {
    let connect = async |host: &str| {
        let settings = DockerSettings { host: Some(host.to_owned()), ..DockerSettings::new("test") };
        let error = DockerRunner::connect(settings).await.unwrap_err();
        assert!(matches!(error, RunnerError::Unreachable { .. }), "{error:?}");
        error.to_string()
    };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("engine.sock");
    let host = format!("unix://{}", socket.display());
    assert!(connect(&host).await.contains("there is no socket"));
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(connect(&host).await.contains("is the engine running"));
    assert!(connect("tcp://127.0.0.1:1").await.contains("nothing answers at tcp://127.0.0.1:1"));
    assert!(connect("ssh://there").await.contains("DOCKER_HOST=unix://"));
    assert!(connect("nonsense").await.contains("no address of an engine"));
}

#[tokio::test]
async fn the_engine_tells_about_itself() {
    bench(async |bench| {
        bench.runner.ping().await.unwrap();
        let about = bench.runner.about().await.unwrap();
        assert!(!about.version.is_empty() && !about.storage_driver.is_empty(), "{about:?}");
        assert!(about.ncpu > 0 && about.memory_bytes > 0, "{about:?}");
    })
    .await;
}
