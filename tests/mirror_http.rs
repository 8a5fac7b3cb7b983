//! Mirrors of repositories over http and https, from servers that behave and servers that do not.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orchestrator::artifact::{ArtifactSettings, ArtifactStore};
use orchestrator::source::mirror::{
    Control, Credentials, Limits, Mirror, MirrorError, Network, Oid, Remote, Token, TreeOptions, Wanted,
};

use crate::git_server::{GitServer, Request, Treat, head, reply};
use crate::served::git;

pub const TOKEN: &str = "a token of the server";

/// Repositories to be served, and a folder for mirrors.
pub struct Shelf {
    root: tempfile::TempDir,
}

impl Shelf {
    /// A shelf with the repository `demo`, which has one commit.
    pub fn new() -> Self {
        let shelf = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir(shelf.served()).unwrap();
        shelf.add("demo");
        shelf.commit("demo", "a.txt", "1");
        shelf
    }

    pub fn served(&self) -> PathBuf {
        self.path("served")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    pub fn add(&self, name: &str) {
        fs::create_dir_all(self.served().join(name)).unwrap();
        self.git(name, &["init", "-q", "-b", "main", "."]);
    }

    pub fn git(&self, name: &str, arguments: &[&str]) -> String {
        git(&self.served().join(name), arguments)
    }

    /// Writes a file and commits all.
    pub fn commit(&self, name: &str, path: &str, text: &str) -> Oid {
        fs::write(self.served().join(name).join(path), text).unwrap();
        self.git(name, &["add", "-A"]);
        self.git(name, &["commit", "-q", "-m", "a commit"]);
        self.git(name, &["rev-parse", "HEAD"]).parse().unwrap()
    }

    pub fn mirror(&self, remote: Remote, limits: Limits) -> Mirror {
        Mirror::open(&self.path("mirrors"), remote, limits).unwrap()
    }

    fn over_https(&self, server: &GitServer, token: Option<&str>) -> Mirror {
        let ca = self.path("ca.pem");
        fs::write(&ca, &server.authority).unwrap();
        let credentials = match token {
            Some(token) => {
                Credentials::Token { user: "x-access-token".to_owned(), token: Token::Text(token.to_owned()) }
            }
            None => Credentials::None,
        };
        let network = Network { plain_http: false, authorities: Some(ca) };
        // The demo repository's `.git`: git serves the work tree's folder too.
        self.mirror(Remote { url: server.url("demo"), credentials, network }, Limits::default())
    }

    fn over_http(&self, server: &GitServer, limits: Limits) -> Mirror {
        let remote = Remote { url: server.url("demo"), credentials: Credentials::None, network: Network::default() };
        self.mirror(remote, limits)
    }

    pub fn store(&self) -> Arc<ArtifactStore> {
        Arc::new(ArtifactStore::open(&ArtifactSettings::folder(self.path("artifacts"))).unwrap())
    }
}

/// A fetch of all, which must end in a minute.
pub async fn fetch(mirror: &Mirror) -> Result<usize, MirrorError> {
    let control = Control::default();
    let fetched = tokio::time::timeout(Duration::from_secs(60), mirror.fetch(&Wanted::All, &control)).await;
    fetched.expect("the fetch ends").map(|fetched| fetched.bytes)
}

pub async fn has(mirror: &Mirror, commit: Oid) -> bool {
    mirror.has(commit).await.unwrap()
}

pub fn is_pack(request: &Request) -> bool {
    request.method == "POST"
}

#[tokio::test]
async fn a_repository_is_fetched_over_https_and_what_is_there_is_not_fetched_again() {
    let shelf = Shelf::new();
    let server = GitServer::https(&shelf.served(), TOKEN, |_| Treat::Git);
    let mirror = shelf.over_https(&server, Some(TOKEN));
    let big: String = (0..200_000).map(|line| format!("{line}\n")).collect();
    let one = shelf.commit("demo", "big.txt", &big);
    shelf.git("demo", &["tag", "-am", "text", "v1"]);
    let heads = mirror.heads(&Control::default()).await.unwrap();
    let names: Vec<_> = heads.iter().map(|head| (head.name.as_str(), head.target)).collect();
    assert_eq!(names, [("HEAD", one), ("refs/heads/main", one), ("refs/tags/v1", one)]);
    assert_eq!(heads[0].symref.as_deref(), Some("refs/heads/main"));
    let first = fetch(&mirror).await.unwrap();
    assert_eq!(mirror.file_at(one, "big.txt", 1 << 24).await.unwrap().unwrap(), big.as_bytes());
    let two = shelf.commit("demo", "a.txt", "2");
    let second = fetch(&mirror).await.unwrap();
    assert!(has(&mirror, two).await);
    assert!(second < first / 100, "{second} bytes after {first}");
    let before = server.seen().len();
    assert_eq!(fetch(&mirror).await.unwrap(), 0);
    assert_eq!(server.seen().len(), before + 1, "one look at the refs is enough");
    assert!(server.seen().iter().all(|request| request.authorization.is_some()), "the token goes with each request");
}

#[tokio::test]
async fn a_host_may_show_a_certificate_that_signed_itself_if_just_that_is_named() {
    let shelf = Shelf::new();
    let (server, other) =
        (GitServer::self_signed(&shelf.served(), TOKEN), GitServer::self_signed(&shelf.served(), TOKEN));
    fetch(&shelf.over_https(&server, Some(TOKEN))).await.unwrap();
    // The file names the first one's now.
    let other = Remote { url: other.url("demo"), ..shelf.over_https(&server, Some(TOKEN)).remote().clone() };
    let error = fetch(&shelf.mirror(other, Limits::default())).await.unwrap_err();
    assert!(matches!(error, MirrorError::Untrusted { .. }), "{error:?}");
}

#[tokio::test]
async fn many_refs_and_a_long_history_are_agreed_upon() {
    let shelf = Shelf::new();
    let server = GitServer::http(&shelf.served(), |_| Treat::Git);
    let mirror = shelf.over_http(&server, Limits::default());
    let mut script = String::new();
    for number in 0..300 {
        let from = if number == 0 { "from refs/heads/main^0\n" } else { "" };
        script += &format!("commit refs/heads/main\ncommitter t <t@t> {number} +0000\ndata 1\nx\n{from}\n");
    }
    fs::write(shelf.path("script"), script).unwrap();
    let import = |shelf: &Shelf| {
        let mut command = std::process::Command::new("git");
        command.args(["fast-import", "--quiet"]).current_dir(shelf.served().join("demo"));
        assert!(command.stdin(fs::File::open(shelf.path("script")).unwrap()).status().unwrap().success());
    };
    import(&shelf);
    let main = shelf.git("demo", &["rev-parse", "main"]);
    let refs: String = (0..3000).map(|number| format!("create refs/heads/topic/{number} {main}\n")).collect();
    fs::write(shelf.path("script"), refs).unwrap();
    let mut update = std::process::Command::new("git");
    update.args(["update-ref", "--stdin"]).current_dir(shelf.served().join("demo"));
    assert!(update.stdin(fs::File::open(shelf.path("script")).unwrap()).status().unwrap().success());
    fetch(&mirror).await.unwrap();
    assert_eq!(mirror.heads(&Control::default()).await.unwrap().len(), 3002);
    // A branch that is far behind shares its history: several rounds of questions.
    let old = shelf.git("demo", &["rev-parse", "main~250"]);
    shelf.git("demo", &["reset", "-q", "--hard", &old]);
    let side = shelf.commit("demo", "b.txt", "1");
    fetch(&mirror).await.unwrap();
    assert!(has(&mirror, side).await);
}

#[tokio::test]
async fn submodules_and_lfs_pointers_come_as_from_local_repositories() {
    let shelf = Shelf::new();
    shelf.add("library");
    shelf.commit("library", "lib.txt", "1");
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1\n", "0".repeat(64));
    shelf.commit("demo", "model.bin", &pointer);
    shelf.git("demo", &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../library", "libs/one"]);
    let commit = shelf.commit("demo", "a.txt", "2");
    let server = GitServer::https(&shelf.served(), TOKEN, |_| Treat::Git);
    let mirror = shelf.over_https(&server, Some(TOKEN));
    fetch(&mirror).await.unwrap();
    let (store, options) = (shelf.store(), TreeOptions::default());
    let taken = mirror.tree(commit, &options, &store, &Control::default()).await.unwrap();
    let paths: Vec<&str> = taken.manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, [".gitmodules", "a.txt", "libs/one/lib.txt", "model.bin"]);
    assert!(taken.warnings[0].starts_with("model.bin: only the LFS pointer"), "{:?}", taken.warnings);
}

#[tokio::test]
async fn refs_of_pull_requests_and_commits_without_a_ref_are_fetched() {
    let shelf = Shelf::new();
    let main = shelf.git("demo", &["rev-parse", "main"]);
    let pull = shelf.commit("demo", "a.txt", "a pull request");
    shelf.git("demo", &["update-ref", "refs/pull/7/head", &pull.to_string()]);
    let lost = shelf.commit("demo", "a.txt", "forced away");
    shelf.git("demo", &["reset", "-q", "--hard", &main]);
    let server = GitServer::http(&shelf.served(), |_| Treat::Git);
    let (mirror, control) = (shelf.over_http(&server, Limits::default()), Control::default());
    let wanted = Wanted::Refs(vec!["refs/pull/7/head".to_owned()]);
    mirror.fetch(&wanted, &control).await.unwrap();
    assert!(has(&mirror, pull).await);
    let error = mirror.fetch(&Wanted::Commit(lost), &control).await.unwrap_err();
    assert!(matches!(&error, MirrorError::NotFound(text) if text.contains("no ref names")), "{error:?}");
    assert!(!has(&mirror, lost).await);
    shelf.git("demo", &["config", "uploadpack.allowAnySHA1InWant", "true"]);
    mirror.fetch(&Wanted::Commit(lost), &control).await.unwrap();
    assert!(has(&mirror, lost).await);
}

#[tokio::test]
async fn empty_repositories_and_those_of_another_kind_are_told_apart() {
    let shelf = Shelf::new();
    shelf.add("empty");
    fs::create_dir(shelf.served().join("sha256")).unwrap();
    shelf.git("sha256", &["init", "-q", "-b", "main", "--object-format=sha256", "."]);
    shelf.git("sha256", &["commit", "-q", "--allow-empty", "-m", "one"]);
    let server = GitServer::http(&shelf.served(), |_| Treat::Git);
    let mirror = |name: &str| {
        let remote = Remote { url: server.url(name), credentials: Credentials::None, network: Network::default() };
        shelf.mirror(remote, Limits::default())
    };
    assert_eq!(mirror("empty").heads(&Control::default()).await.unwrap(), []);
    fetch(&mirror("empty")).await.unwrap();
    let error = fetch(&mirror("sha256")).await.unwrap_err();
    assert!(matches!(&error, MirrorError::Refused(text) if text.contains("SHA-256")), "{error:?}");
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let shelf = Shelf::new();
    let server = GitServer::https(&shelf.served(), TOKEN, |request| match request.target.split('/').nth(1) {
        Some("forbidden") => Treat::Bytes(reply("403 Forbidden", "", b"")),
        Some("page") => Treat::Bytes(reply("200 OK", "content-type: text/html\r\n", b"<h1>Sign in</h1>")),
        Some("busy") => Treat::Bytes(reply("503 Busy", "", b"")),
        Some(_) | None => Treat::Git,
    });
    let known = shelf.over_https(&server, None).remote().network.clone();
    let check = async |path: &str, token: Option<&str>, network: Network, transient: bool, part: &str| {
        let credentials = token.map_or(Credentials::None, |token| Credentials::Token {
            user: "x-access-token".to_owned(),
            token: Token::Text(token.to_owned()),
        });
        let remote = Remote { url: server.url(path), credentials, network };
        let mirror = shelf.mirror(remote, Limits::default());
        let error = mirror.heads(&Control::default()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(part) && text.contains(&server.url(path)), "{path}: {text}");
        assert!(!text.contains(TOKEN) && !text.contains("wrong-token"), "{text}");
        assert_eq!(error.is_transient(), transient, "{error:?}");
        error
    };
    let denied = check("demo", Some("wrong-token"), known.clone(), false, "the token is wrong or expired").await;
    assert!(matches!(denied, MirrorError::Denied { .. }));
    let denied = check("demo", None, known.clone(), false, "asks for credentials, and none are set").await;
    assert!(matches!(denied, MirrorError::Denied { .. }));
    let denied = check("forbidden", Some(TOKEN), known.clone(), false, "the token may not read it").await;
    assert!(matches!(denied, MirrorError::Denied { .. }));
    let absent = check("absent", Some(TOKEN), known.clone(), false, "was not found (404)").await;
    assert!(matches!(absent, MirrorError::NotFound(_)));
    let page = check("page", Some(TOKEN), known.clone(), false, "it answers with text/html").await;
    assert!(matches!(page, MirrorError::NotFound(_)));
    check("busy", Some(TOKEN), known.clone(), true, "status 503").await;
    let stranger = check("demo", Some(TOKEN), Network::default(), false, "`ca_file`").await;
    assert!(matches!(stranger, MirrorError::Untrusted { .. }));
    let no_file = Network { authorities: Some(shelf.path("none")), ..known };
    check("demo", Some(TOKEN), no_file, false, "cannot be read").await;
    let before = server.seen().len();
    assert!(server.seen().iter().all(|request| request.target.ends_with("/info/refs?service=git-upload-pack")));
    assert_eq!(before, 6, "who is not trusted is told nothing");
}

#[tokio::test]
async fn a_token_goes_to_its_own_host_alone() {
    let shelf = Shelf::new();
    let other = GitServer::http(&shelf.served(), |_| Treat::Git);
    let elsewhere = format!("{}/info/refs?service=git-upload-pack", other.url("demo"));
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let location = format!("location: {elsewhere}\r\n");
        let server = GitServer::https(&shelf.served(), TOKEN, move |_| Treat::Bytes(reply(status, &location, b"")));
        let error = fetch(&shelf.over_https(&server, Some(TOKEN))).await.unwrap_err();
        assert!(matches!(&error, MirrorError::Refused(text) if text.contains("it is another host")), "{error}");
    }
    // Nor once the list of refs is there.
    let location = format!("location: {}/git-upload-pack\r\n", other.url("demo"));
    let server = GitServer::https(&shelf.served(), TOKEN, move |request| match is_pack(request) {
        true => Treat::Bytes(reply("307 Temporary", &location, b"")),
        false => Treat::Git,
    });
    let error = fetch(&shelf.over_https(&server, Some(TOKEN))).await.unwrap_err();
    assert!(matches!(&error, MirrorError::Refused(text) if text.contains("after its list of refs")), "{error}");
    assert!(other.seen().is_empty(), "{:?}", other.seen());
}

#[tokio::test]
async fn a_new_name_on_the_same_host_is_followed_and_circles_are_not() {
    let shelf = Shelf::new();
    let server = GitServer::https(&shelf.served(), TOKEN, |request| match request.target.as_str() {
        "/demo/info/refs?service=git-upload-pack" => {
            let location = "location: /new/info/refs?service=git-upload-pack\r\n";
            Treat::Bytes(reply("301 Moved", location, b""))
        }
        target => Treat::GitAt(target.replace("/new/", "/demo/")),
    });
    let mirror = shelf.over_https(&server, Some(TOKEN));
    fetch(&mirror).await.unwrap();
    assert!(server.seen().iter().any(|request| request.target == "/new/git-upload-pack"));
    let circle = GitServer::http(&shelf.served(), |request| {
        Treat::Bytes(reply("302 Found", &format!("location: {}\r\n", request.target), b""))
    });
    let error = fetch(&shelf.over_http(&circle, Limits::default())).await.unwrap_err();
    assert!(error.to_string().contains("in circles"), "{error}");
    assert!(circle.seen().len() < 10);
    let sign_in = GitServer::http(&shelf.served(), |_| Treat::Bytes(reply("302 Found", "location: /sign-in\r\n", b"")));
    let error = fetch(&shelf.over_http(&sign_in, Limits::default())).await.unwrap_err();
    assert!(error.to_string().contains("it may want credentials"), "{error}");
}

/// A line as git frames it.
pub fn line(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

#[tokio::test]
async fn what_never_ends_is_cut_off() {
    let shelf = Shelf::new();
    let limits = Limits { heads: 1000, transfer: 4 << 20, ..Limits::default() };
    let refs = GitServer::http(&shelf.served(), |_| {
        let first = [head("advertisement"), line("# service=git-upload-pack\n"), b"0000".to_vec()].concat();
        Treat::Endless(first, line(&format!("{} refs/heads/a\n", "1".repeat(40))))
    });
    let error = fetch(&shelf.over_http(&refs, limits.clone())).await.unwrap_err();
    assert!(matches!(&error, MirrorError::TooLarge(text) if text.contains("more than 1000 refs")), "{error}");
    let much = "sends more than 4 MiB at once";
    let acknowledged = line(&format!("ACK {} continue\n", "1".repeat(40)));
    for (then, part) in
        [(line("\u{1}PACK"), "wrong pack version"), (line("\u{2}progress\n"), much), (acknowledged, much)]
    {
        let packs = GitServer::http(&shelf.served(), move |request| match is_pack(request) {
            true => Treat::Endless([head("result"), line("NAK\n")].concat(), then.clone()),
            false => Treat::Git,
        });
        let error = fetch(&shelf.over_http(&packs, limits.clone())).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    // A head without end, and headers without end.
    for first in [&b"HTTP/1.1 200 OK\r\n"[..], b""] {
        let heads = GitServer::http(&shelf.served(), move |_| Treat::Endless(first.to_vec(), b"x-a: b\r\n".to_vec()));
        let error = fetch(&shelf.over_http(&heads, limits.clone())).await.unwrap_err();
        assert!(matches!(error, MirrorError::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn silence_is_not_waited_for_without_end() {
    let shelf = Shelf::new();
    let limits = Limits { stall: Duration::from_millis(300), ..Limits::default() };
    let cases: [(bool, Vec<u8>); 4] = [
        (false, Vec::new()),
        (false, [head("advertisement"), line("# service=git-upload-pack\n")].concat()),
        (true, Vec::new()),
        (true, [head("result"), line("NAK\n"), line("\u{1}PACK\0\0\0\u{2}\0\0\0\u{9}")].concat()),
    ];
    for (pack, first) in cases {
        let silent = GitServer::http(&shelf.served(), move |request| match is_pack(request) == pack {
            true => Treat::Silent(first.clone()),
            false => Treat::Git,
        });
        let error = fetch(&shelf.over_http(&silent, limits.clone())).await.unwrap_err();
        assert!(matches!(&error, MirrorError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("it sent nothing for"), "{error}");
        // And a request to stop is heard at once.
        let (mirror, control) = (shelf.over_http(&silent, Limits::default()), Control::default());
        let stop = control.cancel.clone();
        let seen = || silent.seen().iter().filter(|request| is_pack(request) == pack).count();
        let before = seen();
        let stopper = async {
            while seen() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
        };
        let (fetched, ()) = tokio::join!(mirror.fetch(&Wanted::All, &control), stopper);
        assert!(matches!(fetched, Err(MirrorError::Cancelled)), "{fetched:?}");
    }
}

#[tokio::test]
async fn packs_that_are_broken_or_cut_off_leave_a_mirror_that_goes_on() {
    let shelf = Shelf::new();
    let big: String = (0..50_000).map(|line| format!("{line}\n")).collect();
    let commit = shelf.commit("demo", "big.txt", &big);
    let flip = |mut bytes: Vec<u8>| {
        let at = bytes.len() - 5000;
        bytes[at] ^= 0xff;
        bytes
    };
    let cut = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 5000);
        bytes
    };
    // Without a length the end of the connection is the end of the answer.
    let unmeasured = |bytes: Vec<u8>| {
        let end = bytes.windows(4).position(|at| at == b"\r\n\r\n").unwrap() + 4;
        [head("result"), bytes[end..bytes.len() - 5000].to_vec()].concat()
    };
    let changes: [fn(Vec<u8>) -> Vec<u8>; 3] = [flip, cut, unmeasured];
    for change in changes {
        let server = GitServer::http(&shelf.served(), move |request| match is_pack(request) {
            true => Treat::Changed(Box::new(change)),
            false => Treat::Git,
        });
        let mirror = shelf.over_http(&server, Limits::default());
        let error = fetch(&mirror).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert!(!has(&mirror, commit).await);
        // The same mirror, from a server that has come to its senses.
        let good = GitServer::http(&shelf.served(), |_| Treat::Git);
        let again = shelf.over_http(&good, Limits::default());
        fs::rename(mirror.folder(), again.folder()).unwrap();
        fetch(&again).await.unwrap();
        assert!(has(&again, commit).await);
        assert_eq!(again.file_at(commit, "big.txt", 1 << 24).await.unwrap().unwrap(), big.as_bytes());
    }
}
