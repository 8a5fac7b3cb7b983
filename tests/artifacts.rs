//! Artifacts: the same contract in a folder and on S3; and builds whose artifacts are lost, damaged, old, or in a bucket.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use orchestrator::artifact::manifest::{Digest, Manifest};
use orchestrator::artifact::{ArtifactError, ArtifactSettings, ArtifactStore, Caps, Environment, Names, Sweep, tar_of};

use super::harness::{Place, ended, eventually};
use super::s3::{KEY, SECRET, Server, files};
use super::served::Site;

/// The daemon keeps artifacts where its configuration says; other commands on its data folder find them there.
fn kept_where_configured(url: &str, more: &str, keys: &[(&str, &str)]) -> Site {
    let pipeline =
        "name: demo\non: { push: {} }\nstages: { make: { run: 'echo made > made.txt', outputs: [made.txt] } }\n";
    let site = Site::new(pipeline, "");
    site.configure(&format!("poll = \"watch\"\n[artifacts]\nurl = {url:?}\n{more}"));
    let daemon = site.serve_with(keys);
    eventually("it is built", || daemon.counts().get("passed") == Some(&1));
    drop(daemon);
    assert!(files(&site.place.data().join("artifacts")).is_empty(), "nothing is in the data folder");
    let mut get = site.place.command(&["artifacts", "get", "1", "make", "-o", "got"]);
    let got = ended(get.envs(keys.iter().copied()).output().unwrap());
    assert_eq!(got.code, 0, "{}", got.err);
    assert_eq!(fs::read_to_string(site.place.project().join("got/made.txt")).unwrap(), "made\n");
    site
}

#[test]
fn the_daemon_keeps_artifacts_in_a_folder_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let site = kept_where_configured(folder.path().to_str().unwrap(), "", &[]);
    assert!(!files(folder.path()).is_empty());
    site.configure("poll = \"watch\"\n[artifacts]\nurl = \"/somewhere/else\"\n");
    let refused = site.try_serve().map(drop).unwrap_err();
    assert!(refused.contains("keeps its artifacts in") && refused.contains("/somewhere/else"), "{refused}");
}

#[test]
fn the_daemon_keeps_artifacts_in_a_bucket() {
    let server = Server::start();
    let address = server.address("team");
    let (url, endpoint) = address.split_once("?endpoint=").unwrap();
    let endpoint = endpoint.split('&').next().unwrap().replace("%3A", ":").replace("%2F", "/");
    let keys = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    kept_where_configured(url, &format!("endpoint = {endpoint:?}\nregion = \"us-east-1\"\n"), &keys);
    assert!(!files(&server.objects("team")).is_empty());
}

const DAY: Duration = Duration::from_secs(24 * 3600);

fn key(id: &str, secret: &str) -> Environment {
    let pairs =
        [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_ENDPOINT_URL", "http://127.0.0.1:1")];
    Environment::of(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())))
}

fn settings(folder: &Path, url: String, environment: Environment) -> ArtifactSettings {
    let instance = "an-instance".to_owned();
    ArtifactSettings { url: Some(url), instance, environment, ..ArtifactSettings::folder(folder.to_owned()) }
}

async fn open(settings: &ArtifactSettings) -> Arc<ArtifactStore> {
    Arc::new(ArtifactStore::open(settings).unwrap())
}

fn blob(blobs: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.to_string();
    blobs.join(&hex[..2]).join(&hex[2..])
}

fn make_old(path: &Path) {
    File::open(path).unwrap().set_modified(SystemTime::now() - 2 * DAY).unwrap();
}

/// Files in memory, a file that travels in parts, an empty one, one twice, and one that may be executed.
fn tree(folder: &Path) {
    fs::create_dir_all(folder.join("sub/deep")).unwrap();
    for number in 0..40 {
        fs::write(folder.join(format!("sub/{number}")), format!("small {}", number / 2)).unwrap();
    }
    fs::write(folder.join("sub/deep/empty"), "").unwrap();
    let large: Vec<u8> = (0..9_000_000u32).map(|number| (number / 5) as u8).collect();
    fs::write(folder.join("large with a space"), large).unwrap();
    let script = folder.join("run.sh");
    fs::write(&script, "true\n").unwrap();
    fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

async fn take(store: &Arc<ArtifactStore>, folder: &Path) -> (Digest, Manifest) {
    let manifest = store.ingest_folder(folder, &Caps::default()).await.unwrap();
    (store.put_manifest(&manifest).await.unwrap(), manifest)
}

/// What every store promises. `blobs` is the folder where its objects can be seen.
async fn contract(store: Arc<ArtifactStore>, blobs: &Path) {
    let work = tempfile::tempdir().unwrap();
    tree(&work.path().join("in"));
    let (list, manifest) = take(&store, &work.path().join("in")).await;
    assert_eq!(store.missing(&list).await.unwrap(), None);
    assert_eq!(store.manifest(&list).await.unwrap(), manifest);
    // Contents are stored once: 20 small ones, the empty, the large, the script, and the manifest.
    assert_eq!(files(blobs).len(), 24);
    assert_eq!(take(&store, &work.path().join("in")).await.0, list);
    assert_eq!(files(blobs).len(), 24);
    assert_eq!(fs::read_dir(store.spool()).unwrap().count(), 0);

    let out = work.path().join("out");
    store.materialize(&manifest, &out).await.unwrap();
    assert_eq!(take(&store, &out).await.0, list, "what comes out is what went in");
    let tar = tar_of(Arc::clone(&store), manifest.clone());
    let again = store.ingest_tar(tar, Names::Within(String::new()), None, &Caps::default()).await.unwrap();
    assert_eq!(again, manifest);
    assert_eq!(store.get_file(&manifest, "run.sh", 5).await.unwrap(), b"true\n");
    let error = store.get_file(&manifest, "run.sh", 4).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Refused(_)), "{error}");

    // Damaged: named, set aside, missed, healed.
    let named = manifest.clone().from_origin("stage `train`");
    for path in ["run.sh", "large with a space"] {
        let file = blob(blobs, &manifest.find(path).unwrap().digest);
        let size = usize::try_from(manifest.find(path).unwrap().size).unwrap();
        let wrongs = [vec![1; size / 2], vec![1; size], vec![1; size + 1]];
        // What is large takes its time on the way to a bucket.
        let tries = if size > 1000 { 1 } else { wrongs.len() };
        for wrong in wrongs.into_iter().take(tries) {
            fs::remove_file(&file).unwrap();
            fs::write(&file, wrong).unwrap();
            let error = tar_of(Arc::clone(&store), named.clone()).try_for_each(|_| async { Ok(()) }).await.unwrap_err();
            assert!(error.to_string().contains(&format!("`{path}` of stage `train` is damaged")), "{error}");
            assert_eq!(store.missing(&list).await.unwrap(), Some(format!("`{path}`")));
            take(&store, &work.path().join("in")).await;
            assert_eq!(store.missing(&list).await.unwrap(), None);
        }
        fs::remove_file(&file).unwrap();
        fs::write(&file, "x").unwrap();
        assert_eq!(store.missing(&list).await.unwrap(), Some(format!("`{path}`")), "by its size");
        take(&store, &work.path().join("in")).await;
        assert_eq!(store.missing(&list).await.unwrap(), None, "storing again heals");
    }
    let tar = tar_of(Arc::clone(&store), manifest.clone());
    assert_eq!(store.ingest_tar(tar, Names::Within(String::new()), None, &Caps::default()).await.unwrap(), manifest);
    sweep(&store, blobs, list, &work.path().join("in")).await;
}

async fn sweep(store: &Arc<ArtifactStore>, blobs: &Path, list: Digest, source: &Path) {
    let only = source.parent().unwrap().join("only");
    fs::create_dir(&only).unwrap();
    for name in ["old", "young"] {
        fs::write(only.join(name), name).unwrap();
    }
    let (dead, others) = take(store, &only).await;
    files(blobs).iter().for_each(|file| make_old(file));
    let young = others.find("young").unwrap().digest;
    File::open(blob(blobs, &young)).unwrap().set_modified(SystemTime::now()).unwrap();
    for how in [Sweep::Tell, Sweep::Remove] {
        let swept = store.sweep(store.mark([list].into()).await.unwrap(), DAY, how).await.unwrap();
        assert_eq!((swept.removed, swept.kept, swept.young), (2, 24, 1), "{how:?}");
    }
    assert_eq!(store.missing(&list).await.unwrap(), None);
    assert!(store.missing(&dead).await.unwrap().is_some());
    // What is stored again while it is old is young from then on.
    take(store, source).await;
    let swept = store.sweep(store.mark([].into()).await.unwrap(), DAY, Sweep::Tell).await.unwrap();
    assert_eq!((swept.removed, swept.young), (0, 25));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&ArtifactSettings::folder(folder.path().to_owned())).await;
    contract(store, &folder.path().join("blobs")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_keeps_the_contract() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let store = open(&settings(folder.path(), server.address("team/a"), key(KEY, SECRET))).await;
    contract(store, &server.objects("team/a/an-instance/blobs")).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_bucket_is_said() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let check = async |url: String, environment: Environment, words: &[&str]| {
        let settings = settings(folder.path(), url, environment);
        let error = match ArtifactStore::open(&settings) {
            Ok(store) => store.probe().await.unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        for word in words {
            assert!(error.contains(word), "{error}");
        }
        assert!(!error.contains(SECRET) && !error.contains('\n'), "{error}");
    };
    let other = server.address("x").replace("models", "no-such-bucket");
    check(other, key(KEY, SECRET), &["bucket `no-such-bucket` at http://127.0.0.1:", "there is no such bucket"]).await;
    check(server.address("x"), key("another", SECRET), &["the key is refused", "AWS_ACCESS_KEY_ID"]).await;
    check(server.address("x"), key(KEY, "wrong"), &["the key is refused"]).await;
    check("s3://models?style=odd".to_owned(), key(KEY, SECRET), &["neither `path` nor `virtual-host`"]).await;
    let address = server.address("x");
    drop(server);
    check(address, key(KEY, SECRET), &["cannot be reached; is it running"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_a_file_is_found() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let file = folder.path().join("keys");
    fs::write(&file, format!("[ci]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")).unwrap();
    let pairs = [("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()), ("AWS_PROFILE", "ci")];
    let environment = Environment::of(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let settings = settings(folder.path(), server.address(""), environment);
    assert!(!format!("{settings:?}").contains(SECRET));
    let store = open(&settings).await;
    let list = store.put_manifest(&Manifest::default()).await.unwrap();
    assert_eq!(store.manifest(&list).await.unwrap(), Manifest::default());
    assert_eq!(files(&server.objects("an-instance/blobs")).len(), 1);
    drop(server);
    let error = store.put_manifest(&Manifest { files: Vec::new() }).await.unwrap_err().to_string();
    assert!(error.contains("bucket `models`") && error.contains("cannot be reached"), "{error}");
}

const TWO: &str = "
stages:
  make:
    run: |
      mkdir out && seq 1000 > out/numbers && echo $RANDOM > out/chance
    outputs: [out]
  use:
    needs: [make]
    run: test -s out/numbers && wc -l < out/numbers
";

/// The one blob of a data folder with this content.
fn find(blobs: &Path, content: &[u8]) -> PathBuf {
    blob(blobs, &Digest::of(content))
}

fn numbers() -> Vec<u8> {
    (1..=1000).flat_map(|number: u32| format!("{number}\n").into_bytes()).collect()
}

#[test]
fn a_stage_whose_outputs_are_gone_runs_again_and_says_so() {
    let place = Place::with(TWO);
    let blobs = place.data().join("artifacts/blobs");
    place.expect(0, &["run"]);
    place.expect(0, &["run"]);
    assert_eq!(place.stage(2, "make")["attempts"].as_array().unwrap().len(), 0, "reused");
    let why = "outputs are no longer stored: `out/numbers` of build #1";
    let mut build = 2;
    for ruin in [
        |path: &Path| fs::remove_file(path).unwrap(),
        |path: &Path| {
            fs::remove_file(path).unwrap();
            fs::write(path, "1\n").unwrap();
        },
    ] {
        ruin(&find(&blobs, &numbers()));
        let plan = place.expect(0, &["plan"]);
        let made_by = if build == 2 { 1 } else { build };
        let why = why.replace("#1", &format!("#{made_by}"));
        assert!(plan.out.contains(&why), "{}", plan.out);
        place.expect(0, &["run"]);
        build += 1;
        let attempts = place.stage(build, "make")["attempts"].clone();
        assert_eq!(attempts[0]["why"], why, "{attempts:#}");
        assert_eq!(place.stage(build, "use")["status"], "succeeded");
    }
}

#[test]
fn a_damaged_output_is_named_and_the_next_build_makes_it_anew() {
    let place = Place::with(TWO);
    place.expect(0, &["run"]);
    let numbers = numbers();
    let path = find(&place.data().join("artifacts/blobs"), &numbers);
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![b'7'; numbers.len()]).unwrap();
    let failed = place.expect(1, &["run"]);
    let words = "`out/numbers` of stage `make` is damaged in the artifact store";
    assert!(failed.out.contains(words) || failed.err.contains(words), "{}\n{}", failed.out, failed.err);
    let got = place.outside("got");
    let got = place.run(&["artifacts", "get", "1", "make", "-o", got.to_str().unwrap()]);
    assert_ne!(got.code, 0);
    assert!(
        got.err.contains("`out/numbers` of stage `make` of build #1 is not in the artifact store any more"),
        "{}",
        got.err
    );
    place.expect(0, &["run"]);
    let make = place.stage(3, "make");
    assert!(make["attempts"][0]["why"].as_str().unwrap().starts_with("outputs are no longer stored"), "{make:#}");
}

#[test]
fn outputs_and_source_files_that_are_in_each_others_way() {
    let place = Place::with(
        "
stages:
  file-over-folder:
    run: rm -r data && echo made > data
    outputs: [data]
  folder-over-file:
    run: rm notes && mkdir notes && echo made > notes/one
    outputs: [notes]
  both:
    needs: [file-over-folder, folder-over-file]
    run: test \"$(cat data notes/one)\" = \"$(printf 'made\\nmade')\"
",
    );
    place.write("data/a.csv", "1");
    place.write("data/sub/b.csv", "2");
    place.write("notes", "text");
    place.expect(0, &["run"]);

    let place = Place::with(
        "
stages:
  one: { run: mkdir x && touch x/same, outputs: [x/*] }
  two: { run: mkdir x && touch x/same, outputs: [x/*] }
  three: { run: touch x, outputs: ['?'] }
  same: { needs: [one, two], run: 'true' }
  beneath: { needs: [one, three], run: 'true' }
",
    );
    let ended = place.expect(1, &["run"]);
    let all = format!("{}{}", ended.out, ended.err);
    assert!(all.contains("stage `one` and stage `two` both made `x/same`; only one of them may"), "{all}");
    assert!(all.contains("stage `three` made the file `x`, and stage `one` made `x/same` beneath it"), "{all}");
}

#[test]
fn a_clean_up_removes_what_no_row_names() {
    let place = Place::with(TWO);
    place.expect(0, &["run"]);
    let blobs = place.data().join("artifacts/blobs");
    let orphan = find(&blobs, b"orphan");
    fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    fs::write(&orphan, "orphan").unwrap();
    let all = files(&blobs);
    all.iter().for_each(|file| make_old(file));
    let told = place.json(&["gc", "--dry-run", "--json"]);
    assert_eq!((&told["artifacts"]["removed"], &told["artifacts"]["bytes"]), (&1.into(), &6.into()), "{told:#}");
    assert!(orphan.exists());
    let ended = place.expect(0, &["gc"]);
    assert!(ended.out.contains("removed 1 file of artifacts, 6 B"), "{}", ended.out);
    assert_eq!(files(&blobs).len(), all.len() - 1);
    assert!(place.expect(0, &["gc"]).out.contains("nothing to remove"));
    place.expect(2, &["gc", "--min-age", "5m"]);
    // All that the build needs is there: it is reused, and its files are.
    place.expect(0, &["run"]);
    assert_eq!(place.stage(2, "make")["attempts"].as_array().unwrap().len(), 0);
    place.expect(0, &["artifacts", "get", "2", "make", "-o", "got"]);
    assert_eq!(fs::read(place.project().join("got/out/numbers")).unwrap(), numbers());
}

#[test]
fn a_build_keeps_its_artifacts_in_a_bucket() {
    let server = Server::start();
    let place = Place::with(TWO);
    let run = |arguments: &[&str], more: &[(&str, &str)]| {
        let mut command = place.command(arguments);
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET).envs(more.iter().copied());
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
    };
    let address = server.address("ci");
    let asked = [("ORCHESTRATOR_ARTIFACTS", address.as_str())];
    let (code, said) = run(&["run"], &asked);
    assert_eq!(code, 0, "{said}");
    let stored = files(&server.objects("ci"));
    assert!(stored.len() >= 5, "{stored:?}");
    assert!(!place.data().join("artifacts/blobs").exists());
    // Later commands find them without being told again.
    let (code, said) = run(&["run"], &[]);
    assert_eq!(code, 0, "{said}");
    let make = run(&["show", "2", "--json"], &[]).1;
    assert!(make.contains("\"reused\"") || make.contains("reused"), "{make}");
    let (code, said) = run(&["artifacts", "get", "2", "make", "-o", "got"], &[]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(fs::read(place.project().join("got/out/numbers")).unwrap(), numbers());
    stored.iter().for_each(|file| make_old(file));
    let (code, said) = run(&["gc"], &[]);
    assert_eq!((code, files(&server.objects("ci")).len()), (0, stored.len()), "{said}");

    let bare = Place::with(TWO);
    let mut wrong = bare.command(&["run"]);
    wrong.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
    wrong.env("ORCHESTRATOR_ARTIFACTS", address.replace("models", "misspelt"));
    let said = String::from_utf8(wrong.output().unwrap().stderr).unwrap();
    assert!(said.contains("there is no such bucket"), "{said}");
    bare.expect(0, &["run"]);

    let (code, said) = run(&["run"], &[("ORCHESTRATOR_ARTIFACTS", "s3://another")]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("keeps its artifacts in s3://models/ci?") && said.contains("says s3://another"), "{said}");
    let (code, said) = run(&["run"], &[("AWS_SECRET_ACCESS_KEY", "wrong")]);
    assert_ne!(code, 0);
    assert!(said.contains("the key is refused") && !said.contains(SECRET), "{said}");
    drop(server);
    // What is no artifact can be read all the same.
    assert_eq!(run(&["logs", "1", "use"], &[]).0, 0);
    let (code, said) = run(&["run"], &[]);
    assert_ne!(code, 0);
    assert!(said.contains("bucket `models` at http://127.0.0.1:") && said.contains("cannot be reached"), "{said}");
}
