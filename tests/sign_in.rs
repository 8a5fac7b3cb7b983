//! People sign in at a provider: OpenID Connect, and GitHub.

use serde_json::{Value, json};

use crate::harness::eventually;
use crate::provider_model::{CLIENT, ProviderModel, SECRET, Signed, Ways};
use crate::served::{Served, Site};
use crate::sessions::{Answer, ask, database, rewrite};

/// A daemon whose people sign in at the model.
fn oidc(model: &ProviderModel, more: &str) -> (Site, Served) {
    let allowed = r#"allowed = ["@example.com", "group:ml", "sub:99"]"#;
    daemon("oidc", &format!("issuer = \"{}\"\n{allowed}", model.url()), more)
}

fn daemon(mode: &str, table: &str, more: &str) -> (Site, Served) {
    let site = Site::new("stages: { a: { run: echo one } }", "poll = \"off\"\n");
    let secret = site.secret("client-secret", SECRET);
    let auth = format!(
        "[auth]\nmode = \"{mode}\"\n[auth.{mode}]\nclient_id = \"{CLIENT}\"\nclient_secret_file = {secret:?}\n{table}\n{more}\n"
    );
    rewrite(&site, "[auth]\nmode = \"none\"\n", &auth);
    // The provider sends browsers back to a port that has to be known before.
    let port = crate::deployment::free_port();
    rewrite(&site, "127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let daemon = site.serve();
    (site, daemon)
}

/// Another process, which remembers nobody's tries.
fn restart(site: &Site, daemon: &mut Option<Served>) {
    if let Some(before) = daemon.take() {
        before.terminate();
    }
    *daemon = Some(site.serve());
}

/// A browser.
struct Browser<'a> {
    daemon: &'a Served,
    cookies: Vec<(String, String)>,
}

impl<'a> Browser<'a> {
    fn new(daemon: &'a Served) -> Self {
        Self { daemon, cookies: Vec::new() }
    }

    fn get(&mut self, path: &str) -> Answer {
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookie = pairs.join("; ");
        let site = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("cookie", &*cookie)];
        let answer = ask(self.daemon.address(), &format!("GET {path}"), &site, "");
        for line in answer.headers("set-cookie") {
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            assert!(line.contains("HttpOnly; SameSite=Lax"), "{line}");
            self.cookies.retain(|(other, _)| other != name);
            if !line.contains("Max-Age=0") {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }

    /// Goes to the provider, and gives the path by which it sends the browser back.
    fn there(&mut self, model: &ProviderModel, next: &str) -> String {
        let begun = self.get(&format!("/sign-in/start?next={next}"));
        assert_eq!(begun.status, 303, "{}", begun.body);
        let to = begun.header("location").unwrap();
        let path = to.strip_prefix(&model.url()).unwrap_or_else(|| panic!("{to}"));
        let sent = ask(model.address, &format!("GET {path}"), &[], "");
        let back = sent.header("location").unwrap_or_else(|| panic!("{} {}", sent.status, sent.body));
        back.strip_prefix(&format!("http://{}", self.daemon.address())).unwrap_or_else(|| panic!("{back}")).to_owned()
    }

    fn sign_in(&mut self, model: &ProviderModel) -> Answer {
        let back = self.there(model, "/builds");
        self.get(&back)
    }

    fn status(&mut self, path: &str) -> u16 {
        self.get(path).status
    }
}

#[test]
fn by_openid_connect() {
    let model = ProviderModel::start();
    let more = "[access.boss]\nwho = [\"boss@example.com\"]\nscopes = [\"admin\"]\n\
                [access.ml]\nwho = [\"group:ml\"]\nscopes = [\"trigger\"]\nprojects = [\"other\"]\n";
    let (site, daemon) = oidc(&model, more);
    let mut ann = Browser::new(&daemon);
    let page = ann.get("/sign-in?next=/builds");
    assert!(page.body.contains("/sign-in/start?next=%2Fbuilds"), "{}", page.body);
    let answer = ann.sign_in(&model);
    assert_eq!((answer.status, answer.header("location")), (303, Some("/builds")), "{}", answer.body);
    assert_eq!(ann.cookies.len(), 1, "what was begun is over");
    // A key that was made since is looked for, though not at every turn.
    let looks = || model.asked().iter().filter(|path| *path == "/jwks").count();
    model.change(|ways| ways.kid = "k2".to_owned());
    assert_eq!((Browser::new(&daemon).sign_in(&model).status, looks()), (303, 2));
    model.change(|ways| ways.kid = "k3".to_owned());
    assert_eq!((Browser::new(&daemon).sign_in(&model).status, looks()), (400, 2));
    model.change(|ways| ways.kid = "k2".to_owned());
    // Nobody says more of ann than that she may sign in.
    assert_eq!((ann.status("/api/v1/projects/demo"), ann.status("/api/v1/audit")), (200, 403));

    model.change(|ways| ways.claims = json!({"email": "boss@example.com"}));
    model.change(|ways| ways.signed = Signed::Rsa);
    let mut boss = Browser::new(&daemon);
    assert_eq!(boss.sign_in(&model).status, 303);
    let audit = boss.get("/api/v1/audit");
    assert_eq!(audit.status, 200);
    let audit = audit.json();
    let actors: Vec<&Value> = audit["items"].as_array().unwrap().iter().map(|row| &row["actor"]).collect();
    assert_eq!(actors, ["boss@example.com", "ann@example.com", "ann@example.com"]);

    // Not in the ID token, but where it is asked for.
    model.change(|ways| ways.claims = json!({"email": null, "email_verified": null, "sub": "8"}));
    model.change(|ways| ways.userinfo = json!({"sub": "8", "groups": ["ml"]}));
    let mut member = Browser::new(&daemon);
    let answer = member.sign_in(&model);
    assert_eq!(answer.status, 303, "{}", answer.body);
    assert_eq!((member.status("/api/v1/projects/demo"), member.status("/api/v1/projects")), (404, 200));
    model.change(|ways| ways.userinfo = json!({"sub": "other", "groups": ["ml"]}));
    assert_eq!(Browser::new(&daemon).sign_in(&model).status, 403);

    let cookies = ann.cookies;
    daemon.terminate();
    let daemon = site.serve();
    let mut ann = Browser { daemon: &daemon, cookies };
    assert_eq!(ann.status("/api/v1/projects"), 401, "a restart looks again who may");
}

#[test]
fn what_is_not_believed() {
    let model = ProviderModel::start();
    let (site, daemon) = oidc(&model, "");
    let mut daemon = Some(daemon);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut tried = 0;
    let mut check = |change: &dyn Fn(&mut Ways), expected: u16, words: &str| {
        model.change(|ways| {
            (ways.claims, ways.signed) = (json!({}), Signed::Ec);
            change(ways);
        });
        let mut browser = Browser::new(daemon.as_ref().unwrap());
        let answer = browser.sign_in(&model);
        assert_eq!(answer.status, expected, "{words}: {}", answer.body);
        assert!(answer.body.contains(words), "{words}: {}", answer.body);
        assert!(browser.cookies.is_empty() && answer.body.contains("/sign-in/start"), "{words}");
        tried += 1;
        if tried % 8 == 0 {
            // An address that is wrong too often has to wait.
            restart(&site, &mut daemon);
        }
    };
    let claims = |value: Value| move |ways: &mut Ways| ways.claims = value.clone();
    check(&claims(json!({"nonce": "of another"})), 400, "another sign-in");
    check(&claims(json!({"exp": now - 120})), 400, "expired");
    check(&claims(json!({"iat": now + 120})), 400, "future");
    check(&claims(json!({"aud": "another client"})), 400, "another client");
    check(&claims(json!({"iss": "https://evil.example"})), 400, "another issuer");
    check(&|ways| ways.signed = Signed::Strange, 400, "signature is wrong");
    check(&|ways| ways.signed = Signed::None, 400, "another method");
    check(&claims(json!({"email": "eve@evil.example"})), 403, "`eve@evil.example` may not sign in");
    check(&claims(json!({"email": "ann@example.com.evil.example"})), 403, "may not sign in");
    check(&claims(json!({"email_verified": false})), 403, "`sub:7` may not sign in");
    // Clocks may differ a little.
    model.change(|ways| (ways.claims, ways.signed) = (json!({"exp": now - 5, "iat": now + 50}), Signed::Ec));
    assert_eq!(Browser::new(daemon.as_ref().unwrap()).sign_in(&model).status, 303);
    let sessions: i64 = database(&site).query_row("SELECT count(*) FROM sessions", [], |row| row.get(0)).unwrap();
    assert_eq!(sessions, 1);
}

#[test]
fn codes_and_states_of_others() {
    let model = ProviderModel::start();
    let (_site, daemon) = oidc(&model, "");
    let refused = |answer: &Answer, words: &str| {
        assert_eq!(answer.status, 400, "{words}: {}", answer.body);
        assert!(answer.body.contains(words), "{words}: {}", answer.body);
    };
    let (mut ann, mut eve) = (Browser::new(&daemon), Browser::new(&daemon));
    // Eve's own code in ann's browser would have ann work as eve.
    let of_eve = eve.there(&model, "/");
    refused(&ann.get(&of_eve), "not begun in this browser");
    let of_ann = ann.there(&model, "/");
    refused(&ann.get(&of_eve), "not begun in this browser");
    refused(&ann.get(&of_ann), "not begun in this browser");
    // Ann's code with eve's state: the verifier is another one.
    let of_ann = ann.there(&model, "/");
    let part = |path: &str, name: &str| {
        let query = path.split_once('?').unwrap().1;
        url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).unwrap().1.into_owned()
    };
    let mixed = format!("/sign-in/callback?code={}&state={}", part(&of_ann, "code"), part(&of_eve, "state"));
    refused(&eve.get(&mixed), "does not know this code");
    // Once, and not again.
    let of_eve = eve.there(&model, "//evil.example");
    let kept = eve.cookies.clone();
    let entered = eve.get(&of_eve);
    assert_eq!((entered.status, entered.header("location")), (303, Some("/")));
    refused(&eve.get(&of_eve), "over already");
    eve.cookies = kept;
    refused(&eve.get(&of_eve), "does not know this code");
    // The provider says no; another provider speaks.
    let back = ann.there(&model, "/");
    refused(
        &ann.get(&format!("/sign-in/callback?error=access_denied&state={}", part(&back, "state"))),
        "access_denied",
    );
    let back = ann.there(&model, "/");
    refused(&ann.get(&format!("{back}&iss=https%3A%2F%2Fevil.example")), "another provider");
}

#[test]
fn a_provider_that_is_not_well() {
    let model = ProviderModel::start();
    model.change(|ways| ways.down = true);
    let (site, daemon) = oidc(&model, "");
    let token = site.place.expect(0, &["tokens", "create", "ann"]).out;
    let begin = || ask(daemon.address(), "GET /sign-in/start", &[], "");
    let check = |words: &str| {
        let answer = begin();
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(answer.body.contains("A token works") && answer.header("location").is_none(), "{}", answer.body);
        let log = || std::fs::read_to_string(site.place.outside("daemon.log")).unwrap_or_default();
        eventually(words, || log().contains(words));
        assert!(!log().contains(SECRET));
    };
    check("502 Bad Gateway");
    let said = |value: Value| model.change(|ways| (ways.down, ways.said) = (false, value));
    said(json!({"issuer": "https://evil.example"}));
    check("is of the issuer `https://evil.example`");
    said(json!({"token_endpoint": "http://example.com/token"}));
    check("is plain http");
    said(json!({"authorization_endpoint": "javascript:alert(1)"}));
    check("is no https URL");
    said(json!({"jwks_uri": format!("{}/nowhere", model.url())}));
    check("holds no keys");
    let form = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin")];
    assert_eq!(ask(daemon.address(), "POST /sign-in", &form, &format!("token={}", token.trim())).status, 303);
    said(json!({}));
    let mut ann = Browser::new(&daemon);
    let back = ann.there(&model, "/");
    model.change(|ways| ways.down = true);
    assert_eq!(ann.get(&back).status, 503);
    model.change(|ways| ways.down = false);
    assert_eq!(ann.sign_in(&model).status, 303);
    assert_eq!(model.asked().iter().filter(|path| *path == "/jwks").count(), 1, "what is known is not asked again");
}

#[test]
fn by_github() {
    let model = ProviderModel::start();
    let url = model.url();
    let table = format!("url = \"{url}\"\nallowed = [\"ann\", \"Acme/ml\", \"big/*\"]");
    let more = format!(
        "[access.ops]\nwho = [\"acme/ops\"]\nscopes = [\"admin\"]\n[access.ml]\nwho = [\"acme/ml\"]\nscopes = [\"approve\"]\n\
         [github]\napi_url = \"{url}/api\"\n"
    );
    let (site, daemon) = daemon("github", &table, &more);
    let check = |login: &str, member: &[&str], expected: Option<(u16, u16)>| {
        model.change(|ways| {
            login.clone_into(&mut ways.login);
            ways.member = member.iter().map(|place| (*place).to_owned()).collect();
        });
        let mut browser = Browser::new(&daemon);
        let answer = browser.sign_in(&model);
        match expected {
            None => assert_eq!(answer.status, 403, "{login} {}", answer.body),
            Some(expected) => {
                assert_eq!(answer.status, 303, "{login} {}", answer.body);
                assert_eq!((browser.status("/api/v1/projects/demo"), browser.status("/api/v1/audit")), expected);
            }
        }
    };
    let (ml, ops) = ("/orgs/acme/teams/ml/memberships/tom", "/orgs/acme/teams/ops/memberships/tom");
    check("Ann", &[], Some((200, 403)));
    check("tom", &[], None);
    check("tom", &[ml], Some((200, 403)));
    check("tom", &[ops], None);
    check("tom", &[ml, ops], Some((200, 200)));
    check("zoe", &["/user/memberships/orgs/big"], Some((200, 403)));
    model.change(|ways| ways.login = "../../x".to_owned());
    assert_eq!(Browser::new(&daemon).sign_in(&model).status, 503, "that is no name");
    let query =
        "SELECT group_concat(actor, ' ') FROM (SELECT actor FROM audit WHERE action = 'session.open' ORDER BY id)";
    let actors: String = database(&site).query_row(query, [], |row| row.get(0)).unwrap();
    assert_eq!(actors, "github:ann github:tom github:tom github:zoe");
}
