//! Whatever a build's scripts and servers print, a secret is nowhere in what this program stores or says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Ended, Place, ended, eventually};

/// With characters that every encoding writes in its own way, and digits, which groups of errors lose.
const SECRET: &str = "p@ss/w\"rd 47-Größe";

/// An API that answers everything with the secret: in the status line, headers, and a body of several encodings.
const SERVER: &str = r#"
use strict; use IO::Socket::INET;
my $s = $ENV{TOKEN};
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ENV{PORT}, Listen => 64, ReuseAddr => 1) or die;
print "serving with $s\n"; $| = 1;
while (my $c = $listener->accept) {
    next if fork;
    while (my $line = <$c>) {
        my ($path) = $line =~ /^\w+ (\S+)/; my $length = 0;
        while (my $header = <$c>) { $length = $1 if $header =~ /^content-length: (\d+)/i; last if $header =~ /^\r?\n$/; }
        read($c, my $got, $length) if $length;
        my $good = ($path eq '/healthz' or ($path eq '/once' and !-e 'asked' and open(my $mark, '>', 'asked')));
        (my $json = $s) =~ s/(["\\])/\\$1/g;
        my $long = 'x' x 4080;
        my $body = $good ? "{\"ok\":true,\"t\":\"$json\"}" : "{\"error\":\"$json\"} $s $long$s";
        my $status = $good ? '200 OK' : "500 wrong";
        print $c "HTTP/1.1 $status\r\nX-Token: $s\r\nContent-Type: application/json\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
    }
    exit;
}
"#;

const PIPELINE: &str = r#"
name: leaky
secrets: [TOKEN]
params: { word: { type: string, default: fine } }
serve: { run: exec perl server.pl, port: auto, secrets: [TOKEN], ready: { path: /healthz, timeout: 20s } }
stages:
  prints:
    run: |
      echo "$TOKEN"; echo "$TOKEN" >&2
      printf %s "$TOKEN" | base64; printf 'x%s' "$TOKEN" | base64
      printf '%s' "{\"a\":\"$JSON\"}"
      echo "$TOKEN" | sed 's/47/\x1b[01;31m\x1b[K47\x1b[m\x1b[K/'
      exit 3
    allow_failure: true
  metric-names:
    run: |
      echo model > model; printf '{"%s": 1}' "$JSON" > metrics.json
    train: { model: a, artifact: model, metrics: metrics.json }
    allow_failure: true
  metric-values:
    run: |
      echo model > model; printf '{"accuracy": "%s"}' "$JSON" > metrics.json
    train: { model: b, artifact: model, metrics: metrics.json }
    allow_failure: true
  predictions:
    run: |
      echo model > model; printf 'id,label,prediction\n%s,1,1\n%s,1,1\n' "$TOKEN" "$TOKEN" > predictions.csv
    train: { model: c, artifact: model, predictions: predictions.csv }
    allow_failure: true
  params-file:
    run: |
      echo model > model; printf '{"%s": ["%s", 1]}' "$JSON" "$JSON" > params.json; echo '{"accuracy": 0.5}' > metrics.json
    train: { model: d, artifact: model, metrics: metrics.json, params: params.json }
  names:
    run: |
      mkdir out; echo x > "out/$(printf %s "$TOKEN" | tr / _)"; echo x > "out/$(printf %s "$TOKEN" | base64 | tr / _)"
    outputs: [out]
    allow_failure: true
  check:
    test-api:
      checks:
        - { request: GET /bad, expect: { status: 200, json: { "$.error": none }, headers: { x-token: none } } }
        - { request: GET /bad, expect: { body_contains: never } }
    allow_failure: true
  check-and-script:
    test-api:
      checks: [{ request: GET /healthz, expect: { json: { "$.ok": true } } }]
    run: "true"
  load:
    loadtest:
      scenario: [{ request: GET /bad }]
      users: 2
      duration: 1s
    allow_failure: true
  load-fails:
    loadtest:
      # Good for the contract's one request only.
      scenario: [{ request: GET /once }]
      users: 2
      duration: 1s
    allow_failure: true
"#;

/// All forms of the secret that may not be found anywhere; a part of it is enough where only a part can be known.
fn forms() -> Vec<Vec<u8>> {
    let url: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    let json = serde_json::to_string(SECRET).unwrap();
    let mut forms = vec![
        SECRET.to_owned(),
        SECRET.replace('/', "_"),
        url.clone(),
        url.replace('+', "%20"),
        json[1..json.len() - 1].to_owned(),
        json[1..json.len() - 1].replace('\\', "\\\\").replace('"', "\\\""),
        format!("{SECRET:?}").trim_matches('"').to_owned(),
        // As groups of errors show it, and as a cut leaves it.
        "p@ss/w\"rd #".to_owned(),
        "p@ss/w".to_owned(),
    ];
    for shift in 0..3 {
        let text = format!("{}{SECRET}", "x".repeat(shift));
        let encoded = STANDARD.encode(&text);
        let inside = encoded.trim_end_matches('=').get((shift * 8).div_ceil(6)..text.len() * 8 / 6).unwrap().to_owned();
        forms.extend([inside.replace('+', "-").replace('/', "_"), inside]);
    }
    forms.into_iter().map(String::into_bytes).collect()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

fn holds(bytes: &[u8]) -> Option<String> {
    let form = forms().into_iter().find(|form| memchr::memmem::find(bytes, form).is_some())?;
    Some(String::from_utf8_lossy(&form).into_owned())
}

/// Looks through the data folder. What scripts wrote into their own outputs is theirs, and lies in the artifact store as it is.
#[track_caller]
fn assert_clean(place: &Place) {
    let mut found = Vec::new();
    files(&place.data(), &mut found);
    for file in found {
        let mut bytes = fs::read(&file).unwrap();
        if file.extension().is_some_and(|end| end == "zst") {
            let mut unpacked = Vec::new();
            std::io::copy(&mut zeekstd::Decoder::new(fs::File::open(&file).unwrap()).unwrap(), &mut unpacked).unwrap();
            bytes = unpacked;
        }
        let name = file.strip_prefix(place.data()).unwrap().display().to_string();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
        let is_content = name.starts_with("artifacts")
            && (bytes.starts_with(b"{\"p@ss") || bytes.starts_with(b"{\"accuracy") || bytes.starts_with(b"id,label"));
        if !is_content {
            assert_eq!(holds(&bytes), None, "{name} holds the secret: {shown}");
        }
    }
}

#[track_caller]
fn assert_silent(ended: &Ended) {
    assert_eq!(holds(ended.out.as_bytes()), None, "{}", ended.out);
    assert_eq!(holds(ended.err.as_bytes()), None, "{}", ended.err);
}

fn leaky() -> Place {
    let place = Place::new();
    // In JSON, as the scripts of the pipeline write it.
    let pipeline = PIPELINE.replace("$JSON", "$(printf %s \"$TOKEN\" | sed 's/\"/\\\\\"/g')");
    place.write("pipeline.yaml", &pipeline);
    place.write("server.pl", SERVER);
    place
}

#[test]
fn a_secret_is_nowhere_in_the_data_folder_nor_on_the_screen() {
    let place = leaky();
    for arguments in [&["run", "--plain"][..], &["run", "--json", "--no-reuse"], &["run", "--keep", "-vv"]] {
        let ended = ended(place.command(arguments).env("TOKEN", SECRET).output().unwrap());
        assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
        assert_silent(&ended);
        if arguments.contains(&"--keep") {
            place.expect(0, &["gc"]);
        }
        assert_clean(&place);
    }
    let failure = |stage: &str| place.stage(1, stage)["failure"]["message"].as_str().unwrap().to_owned();
    assert!(failure("metric-names").contains("`***` holds the value of a secret"), "{}", failure("metric-names"));
    assert!(failure("metric-values").contains("***"), "{}", failure("metric-values"));
    assert!(failure("predictions").contains("***"), "{}", failure("predictions"));
    assert!(failure("names").contains("holds the value of a secret"), "{}", failure("names"));
    let quoted = |stage: &str, report: &str| place.stage(1, stage)["attempts"][0]["reports"][report].to_string();
    for (stage, report) in
        [("check", "checks"), ("check-and-script", "checks"), ("load", "contract"), ("load-fails", "loadtest")]
    {
        assert!(quoted(stage, report).contains("***"), "{}", quoted(stage, report));
    }
    assert_silent(&place.expect(0, &["show", "1"]));
    assert_silent(&place.expect(0, &["models", "show", "d"]));
    for stage in ["prints", "check", "load", "check-and-script"] {
        assert_silent(&place.expect(0, &["logs", "1", stage]));
    }
    assert_silent(&place.expect(0, &["logs", "1", "check", "--serve"]));
}

#[test]
fn a_secret_is_no_parameter() {
    let place = leaky();
    let param = format!("word=it is {SECRET}");
    let ended = ended(place.command(&["run", "--param", &param]).env("TOKEN", SECRET).output().unwrap());
    assert_eq!(ended.code, 2, "{}{}", ended.out, ended.err);
    assert!(ended.err.contains("--param word holds the value of a secret"), "{}", ended.err);
    assert_silent(&ended);
    assert_eq!(place.json(&["builds", "--json"]).as_array().unwrap().len(), 0);
}

#[test]
fn a_build_goes_on_with_its_own_secrets_only_while_a_stage_is_under_way() {
    let place = Place::new();
    let gate = place.outside("gate");
    place.write(
        "pipeline.yaml",
        &format!(
            "secrets: [TOKEN]\nstages:\n  a:\n    run: |\n      echo \"$TOKEN\"; while [ ! -f {} ]; do sleep 0.02; done; echo \"$TOKEN end\"\n  b: {{ needs: [a], run: 'echo \"b $TOKEN\"' }}\n",
            gate.display()
        ),
    );
    let mut child =
        place.command(&["run"]).env("TOKEN", "old-value").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let log = place.data().join("logs/1/a.1.log");
    eventually("the stage prints", || fs::read_to_string(&log).is_ok_and(|text| text.contains("***")));
    child.kill().unwrap();
    child.wait().unwrap();
    let resume = |value: Option<&str>| {
        let mut command = place.command(&["run", "--resume"]);
        command.env_remove("TOKEN");
        if let Some(value) = value {
            command.env("TOKEN", value);
        }
        ended(command.output().unwrap())
    };
    let rotated = resume(Some("new-value"));
    assert_eq!(rotated.code, 2, "{}{}", rotated.out, rotated.err);
    assert!(rotated.err.contains("secret TOKEN has another value than when the build began"), "{}", rotated.err);
    assert!(rotated.err.contains("`a`") && rotated.err.contains("orchestrator cancel"), "{}", rotated.err);
    assert!(resume(None).err.contains("no value for secret TOKEN"));
    fs::write(&gate, "").unwrap();
    assert!(!fs::read_to_string(&log).unwrap().contains("-value"));
    let again = resume(Some("old-value"));
    assert_eq!(again.code, 0, "{}{}", again.out, again.err);
    assert_eq!(place.lines(1, "a", "stdout"), ["***", "*** end"]);
    let database = fs::read(place.data().join("orchestrator.db")).unwrap();
    assert_eq!(memchr::memmem::find(&database, b"old-value"), None);
}
