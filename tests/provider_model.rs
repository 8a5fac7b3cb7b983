//! A small model of those who sign people in, on loopback: OpenID Connect with real signatures, and GitHub's OAuth.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const CLIENT: &str = "orchestrator";
pub const SECRET: &str = "a secret: of +the client";

/// How ID tokens are signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    Rsa,
    Ec,
    /// By a key that nobody published, under the name of the published one.
    Strange,
    None,
}

/// What the model does; a test changes it.
pub struct Ways {
    pub signed: Signed,
    /// Changes the claims.
    pub claims: Value,
    /// More of what the provider says of itself.
    pub said: Value,
    pub userinfo: Value,
    /// The name of the key: another one is a key that was made since.
    pub kid: String,
    /// GitHub's user, and what they are in.
    pub login: String,
    pub member: Vec<String>,
    pub down: bool,
}

struct Held {
    ways: Ways,
    codes: HashMap<String, HashMap<String, String>>,
    asked: Vec<String>,
}

#[derive(Clone)]
pub struct ProviderModel {
    pub address: SocketAddr,
    held: Arc<Mutex<Held>>,
    keys: Arc<Keys>,
}

struct Keys {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    strange: EcdsaKeyPair,
}

fn ec() -> EcdsaKeyPair {
    let key = rcgen::KeyPair::generate().unwrap().serialize_der();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &SystemRandom::new()).unwrap()
}

fn rsa() -> RsaKeyPair {
    let arguments = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "DER"];
    let made = std::process::Command::new("openssl").args(arguments).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    RsaKeyPair::from_pkcs8(&made.stdout).or_else(|_| RsaKeyPair::from_der(&made.stdout)).unwrap()
}

impl ProviderModel {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let ways = Ways {
            signed: Signed::Ec,
            claims: json!({}),
            said: json!({}),
            userinfo: json!({}),
            kid: "k1".to_owned(),
            login: "Ann".to_owned(),
            member: Vec::new(),
            down: false,
        };
        let held = Arc::new(Mutex::new(Held { ways, codes: HashMap::new(), asked: Vec::new() }));
        let keys = Arc::new(Keys { rsa: rsa(), ec: ec(), strange: ec() });
        let model = Self { address, held, keys };
        let app = Router::new().fallback(answer).with_state(model.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, app).await.unwrap();
            });
        });
        model
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn change(&self, change: impl FnOnce(&mut Ways)) {
        change(&mut self.held.lock().unwrap().ways);
    }

    /// Paths that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.held.lock().unwrap().asked.clone()
    }

    fn id_token(&self, nonce: &str) -> String {
        let held = self.held.lock().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": self.url(), "aud": CLIENT, "sub": "7", "iat": now, "exp": now + 300, "nonce": nonce,
            "email": "Ann@Example.com", "email_verified": true
        });
        for (name, value) in held.ways.claims.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let alg = match held.ways.signed {
            Signed::Rsa => "RS256",
            Signed::Ec | Signed::Strange => "ES256",
            Signed::None => "none",
        };
        let kid = if held.ways.signed == Signed::Rsa { "rsa" } else { &held.ways.kid };
        let head = json!({"alg": alg, "kid": kid, "typ": "JWT"});
        let message = format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match held.ways.signed {
            Signed::Rsa => {
                let mut signature = vec![0; self.keys.rsa.public().modulus_len()];
                self.keys.rsa.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
            Signed::Ec => self.keys.ec.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            Signed::Strange => self.keys.strange.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            Signed::None => Vec::new(),
        };
        format!("{message}.{}", BASE64.encode(signature))
    }

    fn jwks(&self) -> Value {
        let point = self.keys.ec.public_key().as_ref();
        let public = self.keys.rsa.public_key();
        let public = RsaPublicKeyComponents::<Vec<u8>>::from(public);
        json!({"keys": [
            {"kty": "oct", "k": "AAAA"},
            {"kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": BASE64.encode(public.n),
             "e": BASE64.encode(public.e)},
            {"kty": "EC", "kid": self.held.lock().unwrap().ways.kid, "crv": "P-256",
             "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..])},
        ]})
    }

    /// Sends the browser back with a code.
    fn authorize(&self, asked: HashMap<String, String>) -> Response {
        let mut held = self.held.lock().unwrap();
        let code = format!("code-{}", held.codes.len());
        let back = url::form_urlencoded::Serializer::new(format!("{}?", asked["redirect_uri"]))
            .append_pair("code", &code)
            .append_pair("state", &asked["state"])
            .finish()
            .replace("?&", "?");
        held.codes.insert(code, asked);
        Redirect::to(&back).into_response()
    }

    /// What was asked for when this code was made; each is taken once.
    fn redeem(&self, form: &HashMap<String, String>) -> Option<HashMap<String, String>> {
        let asked = self.held.lock().unwrap().codes.remove(form.get("code")?)?;
        let challenge = BASE64.encode(Sha256::digest(form.get("code_verifier")?));
        (asked["code_challenge"] == challenge
            && asked["code_challenge_method"] == "S256"
            && Some(&asked["redirect_uri"]) == form.get("redirect_uri"))
        .then_some(asked)
    }

    fn github(&self, path: &str, headers: &HeaderMap) -> Response {
        let held = self.held.lock().unwrap();
        if headers.get(header::AUTHORIZATION).is_none_or(|value| value != "Bearer of-github") {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        if path == "/api/user" {
            return axum::Json(json!({"login": held.ways.login, "id": 7})).into_response();
        }
        match held.ways.member.iter().find(|place| path == format!("/api{place}")) {
            Some(_) => axum::Json(json!({"state": "active"})).into_response(),
            None => (StatusCode::NOT_FOUND, axum::Json(json!({"message": "Not Found"}))).into_response(),
        }
    }
}

fn pairs(text: &[u8]) -> HashMap<String, String> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

async fn answer(State(model): State<ProviderModel>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    model.held.lock().unwrap().asked.push(uri.path().to_owned());
    if model.held.lock().unwrap().ways.down {
        return (StatusCode::BAD_GATEWAY, "<h1>bad gateway</h1>").into_response();
    }
    let (url, form) = (model.url(), pairs(&body));
    let no_grant = |error: &str| (StatusCode::BAD_REQUEST, axum::Json(json!({"error": error}))).into_response();
    match uri.path() {
        "/.well-known/openid-configuration" => {
            let mut said = json!({
                "issuer": url, "authorization_endpoint": format!("{url}/authorize"),
                "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/jwks"),
                "userinfo_endpoint": format!("{url}/userinfo"), "scopes_supported": ["openid", "email", "groups"]
            });
            for (name, value) in model.held.lock().unwrap().ways.said.as_object().unwrap() {
                said[name] = value.clone();
            }
            axum::Json(said).into_response()
        }
        "/jwks" => axum::Json(model.jwks()).into_response(),
        "/authorize" | "/login/oauth/authorize" => model.authorize(pairs(uri.query().unwrap_or("").as_bytes())),
        "/token" => {
            let escaped: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
            let login = format!("Basic {}", STANDARD.encode(format!("{CLIENT}:{escaped}")));
            if headers.get(header::AUTHORIZATION).is_none_or(|value| value != login.as_str()) {
                return no_grant("invalid_client");
            }
            let Some(asked) = model.redeem(&form) else { return no_grant("invalid_grant") };
            let token = model.id_token(&asked["nonce"]);
            axum::Json(json!({"id_token": token, "access_token": "of-oidc", "token_type": "Bearer"})).into_response()
        }
        "/userinfo" => {
            assert_eq!(headers[header::AUTHORIZATION], "Bearer of-oidc");
            axum::Json(model.held.lock().unwrap().ways.userinfo.clone()).into_response()
        }
        "/login/oauth/access_token" => {
            let known = form["client_id"] == CLIENT && form["client_secret"] == SECRET;
            match model.redeem(&form).filter(|_| known) {
                Some(_) => axum::Json(json!({"access_token": "of-github", "token_type": "bearer"})).into_response(),
                None => axum::Json(json!({"error": "bad_verification_code"})).into_response(),
            }
        }
        path if path.starts_with("/api/") => model.github(path, &headers),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
