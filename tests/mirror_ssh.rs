//! Mirrors of repositories over ssh, from a real sshd on this machine.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use orchestrator::source::mirror::{
    Control, Credentials, Limits, Mirror, MirrorError, Network, Remote, TreeOptions, Wanted,
};

use crate::harness::eventually;
use crate::mirror_http::{Shelf, fetch, has};
use crate::served::Site;

/// An sshd that serves the user of this test. Killed when dropped.
struct Sshd {
    child: Child,
    port: u16,
    folder: PathBuf,
    user: String,
}

fn run(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

fn keygen(path: &Path, passphrase: &str) -> String {
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", path.to_str().unwrap()]);
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

impl Sshd {
    /// An sshd with its files in one folder, and those of who asks it in another; `more` is of its configuration.
    fn start(own: &Path, folder: &Path, more: &str) -> Self {
        let user = run("id", &["-un"]);
        let allowed = keygen(&folder.join("user key"), "");
        fs::write(own.join("authorized_keys"), allowed).unwrap();
        let host_key = keygen(&own.join("host"), "");
        fs::write(folder.join("host.pub"), &host_key).unwrap();
        if user == "root" {
            // sshd's own demand of a machine where it is not a service yet.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = own.display();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {at}/host\nPidFile none\nStrictModes no\nUsePAM no\n\
             AuthorizedKeysFile {at}/authorized_keys\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\n{more}\n"
        );
        fs::write(own.join("sshd_config"), config).unwrap();
        // It wants to be called by its whole path.
        let program = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|path| Path::new(path).exists());
        let child = Command::new(program.expect("openssh-server is installed"))
            .args(["-D", "-q", "-f"])
            .arg(own.join("sshd_config"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let known = format!("[127.0.0.1]:{port} {host_key}");
        fs::write(folder.join("known_hosts"), known).unwrap();
        eventually("sshd listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port, folder: folder.to_owned(), user }
    }

    fn credentials(&self) -> Credentials {
        Credentials::SshKey { path: self.folder.join("user key"), known_hosts: self.folder.join("known_hosts") }
    }

    fn remote(&self, path: &Path, credentials: Credentials) -> Remote {
        let url = format!("ssh://{}@127.0.0.1:{}{}", self.user, self.port, path.display());
        Remote { url, credentials, network: Network::default() }
    }

    fn mirror(&self, shelf: &Shelf, credentials: Credentials) -> Mirror {
        shelf.mirror(self.remote(&shelf.served().join("demo"), credentials), Limits::default())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A shelf with an sshd beside it, whose folder's name is one that a shell would take apart.
fn shelf_and_sshd(more: &str) -> (Shelf, Sshd) {
    let shelf = Shelf::new();
    let (own, folder) = (shelf.path("sshd"), shelf.path("of ssh, 100%h"));
    fs::create_dir(&own).unwrap();
    fs::create_dir(&folder).unwrap();
    let sshd = Sshd::start(&own, &folder, more);
    (shelf, sshd)
}

/// Processes of ssh that were started with a path of this folder.
fn clients(folder: &Path) -> usize {
    let name = folder.parent().unwrap().display().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| line.starts_with(b"ssh\0") && String::from_utf8_lossy(line).contains(&name)).count()
}

#[tokio::test]
async fn a_repository_is_fetched_over_ssh() {
    let (shelf, sshd) = shelf_and_sshd("");
    shelf.add("library");
    shelf.commit("library", "lib.txt", "1");
    shelf.git("demo", &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../library", "libs/one"]);
    let one = shelf.commit("demo", "a.txt", "2");
    let mirror = sshd.mirror(&shelf, sshd.credentials());
    let heads = mirror.heads(&Control::default()).await.unwrap();
    assert_eq!(heads[0].symref.as_deref(), Some("refs/heads/main"));
    fetch(&mirror).await.unwrap();
    let (store, options) = (shelf.store(), TreeOptions::default());
    let taken = mirror.tree(one, &options, &store, &Control::default()).await.unwrap();
    let paths: Vec<&str> = taken.manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, [".gitmodules", "a.txt", "libs/one/lib.txt"]);
    let big: String = (0..200_000).map(|line| format!("{line}\n")).collect();
    let two = shelf.commit("demo", "big.txt", &big);
    fetch(&mirror).await.unwrap();
    assert_eq!(mirror.file_at(two, "big.txt", 1 << 24).await.unwrap().unwrap(), big.as_bytes());
    assert_eq!(fetch(&mirror).await.unwrap(), 0);
    eventually("no ssh is left", || clients(&sshd.folder) == 0);
}

#[tokio::test]
async fn paths_are_no_words_of_a_shell() {
    let (shelf, sshd) = shelf_and_sshd("");
    let trap = shelf.path("trap");
    let name = format!("a'; touch {}; echo '$(id)`id`!", trap.display().to_string().replace('/', "_"));
    shelf.add(&name);
    let commit = shelf.commit(&name, "a", "1");
    let path = url_path(&shelf.served().join(&name));
    let url = format!("ssh://{}@127.0.0.1:{}{path}", sshd.user, sshd.port);
    let mirror =
        shelf.mirror(Remote { url, credentials: sshd.credentials(), network: Network::default() }, Limits::default());
    fetch(&mirror).await.unwrap();
    assert!(has(&mirror, commit).await);
}

/// A path as a URL has it.
fn url_path(path: &Path) -> String {
    let bytes = path.to_str().unwrap().bytes();
    bytes
        .map(|b| if b.is_ascii_alphanumeric() || b == b'/' { char::from(b).to_string() } else { format!("%{b:02x}") })
        .collect()
}

#[tokio::test]
async fn only_known_hosts_are_spoken_to() {
    let (shelf, sshd) = shelf_and_sshd("");
    let other = keygen(&sshd.folder.join("other"), "");
    let mine = fs::read_to_string(sshd.folder.join("host.pub")).unwrap();
    let name = format!("[127.0.0.1]:{}", sshd.port);
    for (known, part) in [
        (String::new(), "its key is not in"),
        (format!("{name} {other}"), "it changed, or somebody stands between"),
        (format!("@revoked {name} {mine}{name} {mine}"), "marked as revoked"),
        (format!("other.example.com {mine}"), "its key is not in"),
    ] {
        fs::write(sshd.folder.join("known_hosts"), &known).unwrap();
        let error = fetch(&sshd.mirror(&shelf, sshd.credentials())).await.unwrap_err();
        assert!(matches!(error, MirrorError::Untrusted { .. }), "{known}: {error:?}");
        assert!(error.to_string().contains(part), "{known}: {error}");
    }
    fs::remove_file(sshd.folder.join("known_hosts")).unwrap();
    let error = fetch(&sshd.mirror(&shelf, sshd.credentials())).await.unwrap_err();
    assert!(error.to_string().contains(&format!("ssh-keyscan -p {} 127.0.0.1", sshd.port)), "{error}");
}

#[tokio::test]
async fn only_the_named_key_is_shown() {
    let (shelf, sshd) = shelf_and_sshd("");
    keygen(&sshd.folder.join("stranger"), "");
    keygen(&sshd.folder.join("locked"), "a passphrase");
    fs::copy(sshd.folder.join("user key"), sshd.folder.join("open")).unwrap();
    fs::set_permissions(sshd.folder.join("open"), fs::Permissions::from_mode(0o644)).unwrap();
    let known_hosts = sshd.folder.join("known_hosts");
    for (key, part) in [
        ("stranger", "Permission denied (publickey)"),
        ("locked", "must have no passphrase"),
        ("open", "are too open"),
        ("absent", "cannot be read"),
    ] {
        let credentials = Credentials::SshKey { path: sshd.folder.join(key), known_hosts: known_hosts.clone() };
        let error = fetch(&sshd.mirror(&shelf, credentials)).await.unwrap_err();
        assert!(matches!(error, MirrorError::Denied { .. }), "{key}: {error:?}");
        assert!(error.to_string().contains(part), "{key}: {error}");
    }
    let error = fetch(&sshd.mirror(&shelf, Credentials::None)).await.unwrap_err();
    assert!(error.to_string().contains("`ssh_key_file`"), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_told_apart_from_who_does_not_answer() {
    let (shelf, sshd) = shelf_and_sshd("");
    let absent = shelf.mirror(sshd.remote(&shelf.served().join("absent"), sshd.credentials()), Limits::default());
    let error = fetch(&absent).await.unwrap_err();
    assert!(matches!(error, MirrorError::NotFound(_)), "{error:?}");
    assert!(error.to_string().contains("does not appear to be a git repository"), "{error}");
    let mirror = sshd.mirror(&shelf, sshd.credentials());
    drop(sshd);
    let error = fetch(&mirror).await.unwrap_err();
    assert!(matches!(&error, MirrorError::Unreachable { detail, .. } if detail.contains("refused")), "{error:?}");
}

#[tokio::test]
async fn a_host_that_is_silent_or_says_nonsense_is_left_and_its_ssh_is_ended() {
    for (command, part) in
        [("sleep 60", "it sent nothing for"), ("echo hello; sleep 60", ""), ("true", ""), ("yes", "")]
    {
        let (shelf, sshd) = shelf_and_sshd(&format!("ForceCommand {command}"));
        let limits = Limits { stall: Duration::from_secs(1), ..Limits::default() };
        let mirror = shelf.mirror(sshd.remote(&shelf.served().join("demo"), sshd.credentials()), limits);
        let error = fetch(&mirror).await.unwrap_err();
        assert!(matches!(error, MirrorError::Unreachable { .. }), "{command}: {error:?}");
        assert!(error.to_string().contains(part), "{command}: {error}");
        eventually("no ssh is left", || clients(&sshd.folder) == 0);
    }
    let (shelf, sshd) = shelf_and_sshd("ForceCommand sleep 60");
    let (mirror, control) = (sshd.mirror(&shelf, sshd.credentials()), Control::default());
    let stopper = async {
        while clients(&sshd.folder) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        control.cancel.cancel();
    };
    let (fetched, ()) = tokio::join!(mirror.fetch(&Wanted::All, &control), stopper);
    assert!(matches!(fetched, Err(MirrorError::Cancelled)), "{fetched:?}");
    eventually("no ssh is left", || clients(&sshd.folder) == 0);
}

#[test]
fn the_daemon_polls_and_builds_a_repository_over_ssh() {
    let (shelf, sshd) = shelf_and_sshd("");
    shelf.commit("demo", "pipeline.yaml", "name: demo\non: { push: {} }\nstages:\n  hello: { run: 'echo hello' }\n");
    let site = Site::new("", "poll = \"off\"");
    let url = sshd.remote(&shelf.served().join("demo"), Credentials::None).url;
    // The file of known hosts is the one beside the key.
    site.configure_for(&url, &format!("poll = \"1s\"\nssh_key_file = {:?}", sshd.folder.join("user key")));
    let check = ["project", "check", "demo", "--config", &site.config().display().to_string()];
    let told = site.place.expect(0, &check).out;
    assert!(told.contains("pipeline pipeline.yaml: valid, 1 stages"), "{told}");
    let daemon = site.serve();
    eventually("the default branch is built at first sight", || daemon.counts().get("passed") == Some(&1));
    shelf.commit("demo", "a.txt", "2");
    eventually("what was pushed is built", || daemon.counts().get("passed") == Some(&2));
    assert_eq!(daemon.terminate(), 0);
    eventually("no ssh is left", || clients(&sshd.folder) == 0);
}
