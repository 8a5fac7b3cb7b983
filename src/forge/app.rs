//! A GitHub App: how it says who it is, and the tokens that it gets. Sources: GitHub, "Generating a JSON Web Token (JWT) for a
//! GitHub App", "Generating an installation access token"; RFC 7515, RFC 7518 section 3.3 (RS256).

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::Untold;

/// A clock of ours may be ahead of GitHub's by as much.
const AHEAD: u64 = 60;
/// GitHub takes tokens that hold for 10 minutes at most.
const HOLDS: u64 = 9 * 60;
/// A token is not used in its last minutes.
const SPARE: Duration = Duration::from_secs(5 * 60);

/// The token of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The token.
    pub token: String,
    ends: SystemTime,
}

impl Installed {
    /// Reads GitHub's answer.
    pub fn read(answer: &Value) -> Option<Self> {
        let ends: jiff::Timestamp = answer["expires_at"].as_str()?.parse().ok()?;
        let ends = UNIX_EPOCH + Duration::from_secs(u64::try_from(ends.as_second()).ok()?);
        Some(Self { token: answer["token"].as_str()?.to_owned(), ends })
    }

    /// Whether it may still be used.
    pub fn holds(&self, now: SystemTime) -> bool {
        now + SPARE < self.ends
    }
}

/// The App's own token, signed by its key.
///
/// # Errors
/// [`Untold::Later`] if the key cannot be read: whoever mends the file need not send anything again.
pub fn jwt(id: u64, key: &Path, now: SystemTime) -> Result<String, Untold> {
    let wrong = |what: String| Untold::later(format!("the App's key {} {what} (github.app.key_file)", key.display()));
    let pem = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let pair = match &pem {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        _ => return Err(wrong("is no RSA key".to_owned())),
    };
    let pair = pair.map_err(|error| wrong(format!("is no RSA key that can be used: {error}")))?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = json!({ "iat": now.saturating_sub(AHEAD), "exp": now + HOLDS, "iss": id.to_string() });
    let head = BASE64.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", BASE64.encode(claims.to_string()));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| wrong("does not sign".to_owned()))?;
    Ok(format!("{signed}.{}", BASE64.encode(signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_left_before_it_ends() {
        let read = |ends: &str| Installed::read(&json!({ "token": "t", "expires_at": ends }));
        let installed = read("2026-01-01T01:00:00Z").expect("read");
        let at = |second: u64| UNIX_EPOCH + Duration::from_secs(1_767_225_600 + second);
        assert!(installed.holds(at(0)) && installed.holds(at(54 * 60)) && !installed.holds(at(56 * 60)));
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn what_is_wrong_with_a_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        let check = |expected: &str| {
            let error = jwt(1, &path, SystemTime::now()).expect_err("no key").to_string();
            assert!(error.contains(expected) && error.contains("github.app.key_file"), "{error}");
        };
        check("cannot be read");
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").expect("written");
        check("no RSA key");
    }
}
