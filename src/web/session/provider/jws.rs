//! Whether an ID token is the provider's, for us, of now (OpenID Connect Core 1.0, section 3.1.3.7; RFC 7515, 7517, 7518).
//!
//! PURE.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

/// Seconds that the provider's clock and ours may differ.
pub const SKEW: i64 = 60;
/// Bytes of a token at most.
const LONGEST: usize = 64 << 10;
/// Keys that are tried for a token that names none.
const TRIED: usize = 16;

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No key of the provider's fits: it may have new ones.
    #[error("it is signed with a key that the provider does not publish")]
    UnknownKey,
    /// Anything else; it stays so.
    #[error("{0}")]
    Token(&'static str),
}

/// A public key of the provider.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// What a token has to say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Who made it.
    pub issuer: &'a str,
    /// For whom.
    pub client: &'a str,
    /// For which sign-in.
    pub nonce: &'a str,
    /// Now, in seconds since the epoch.
    pub now: i64,
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
}

/// The claims of a token that holds.
///
/// # Errors
/// [`Invalid`].
pub fn verify(token: &str, keys: &[Jwk], expected: Expected<'_>) -> Result<Map<String, Value>, Invalid> {
    let claims = signed(token, keys)?;
    check(&claims, expected)?;
    Ok(claims)
}

/// The claims, if a key of these signed them.
fn signed(token: &str, keys: &[Jwk]) -> Result<Map<String, Value>, Invalid> {
    let broken = || Invalid::Token("it is no signed token");
    if token.len() > LONGEST {
        return Err(Invalid::Token("it is too long"));
    }
    let (message, signature) = token.rsplit_once('.').ok_or_else(broken)?;
    let (head, body) = message.split_once('.').ok_or_else(broken)?;
    let bytes = |text: &str| BASE64.decode(text).map_err(|_| broken());
    let head: Head = serde_json::from_slice(&bytes(head)?).map_err(|_| broken())?;
    let algorithm = match head.alg.as_str() {
        "RS256" => Algorithm::Rs256,
        "ES256" => Algorithm::Es256,
        _ => return Err(Invalid::Token("it is signed by another method than RS256 and ES256")),
    };
    if head.crit.is_some() {
        return Err(Invalid::Token("it demands an extension"));
    }
    let signature = bytes(signature)?;
    let fits = |key: &&Jwk| {
        key.usage.as_deref().is_none_or(|usage| usage == "sig")
            && key.alg.as_deref().is_none_or(|alg| alg == head.alg)
            && head.kid.as_ref().is_none_or(|kid| key.kid.as_ref() == Some(kid))
    };
    let mut fitting = keys.iter().filter(fits).take(TRIED).peekable();
    if fitting.peek().is_none() {
        return Err(Invalid::UnknownKey);
    }
    if !fitting.any(|key| holds(key, algorithm, message.as_bytes(), &signature)) {
        // Without a name, or under one that was given to another key since, a new key is possible.
        return if head.kid.is_none() {
            Err(Invalid::UnknownKey)
        } else {
            Err(Invalid::Token("its signature is wrong"))
        };
    }
    serde_json::from_slice(&bytes(body)?).map_err(|_| broken())
}

fn holds(key: &Jwk, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
    let part = |text: &Option<String>| text.as_ref().and_then(|text| BASE64.decode(text).ok());
    match algorithm {
        Algorithm::Rs256 if key.kty == "RSA" => {
            let (Some(n), Some(e)) = (part(&key.n), part(&key.e)) else { return false };
            // Some write a zero before the number.
            let n = n.strip_prefix(&[0]).unwrap_or(&n);
            RsaPublicKeyComponents { n, e: e.as_slice() }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok()
        }
        Algorithm::Es256 if key.kty == "EC" && key.crv.as_deref() == Some("P-256") => {
            let (Some(x), Some(y)) = (part(&key.x), part(&key.y)) else { return false };
            let point = [&[4][..], &x, &y].concat();
            x.len() == 32 && UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
        }
        Algorithm::Rs256 | Algorithm::Es256 => false,
    }
}

fn check(claims: &Map<String, Value>, expected: Expected<'_>) -> Result<(), Invalid> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    // Seconds, some with a part of one.
    let seconds = |name: &str| claims.get(name).and_then(Value::as_f64).map(|seconds| seconds as i64);
    let is_client = |value: &Value| value.as_str() == Some(expected.client);
    if text("iss") != Some(expected.issuer) {
        return Err(Invalid::Token("another issuer made it"));
    }
    let (ours, several) = match claims.get("aud") {
        Some(Value::Array(all)) => (all.iter().any(is_client), all.len() > 1),
        Some(one) => (is_client(one), false),
        None => (false, false),
    };
    let party = claims.get("azp");
    if !ours || party.is_some_and(|party| !is_client(party)) || (several && party.is_none()) {
        return Err(Invalid::Token("it is for another client"));
    }
    if seconds("exp").is_none_or(|end| end <= expected.now - SKEW) {
        return Err(Invalid::Token("it has expired; compare the clocks of this machine and the provider"));
    }
    let later = |at: i64| at > expected.now + SKEW;
    if seconds("iat").is_none_or(later) || (claims.contains_key("nbf") && seconds("nbf").is_none_or(later)) {
        return Err(Invalid::Token("it is from the future; compare the clocks of this machine and the provider"));
    }
    if !text("nonce").is_some_and(|nonce| bool::from(nonce.as_bytes().ct_eq(expected.nonce.as_bytes()))) {
        return Err(Invalid::Token("it was made for another sign-in"));
    }
    if text("sub").is_none_or(|sub| sub.is_empty() || sub.len() > 255) {
        return Err(Invalid::Token("it does not say whose it is"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    const EXPECTED: Expected<'static> =
        Expected { issuer: "https://id.example.com", client: "us", nonce: "n", now: 1_000_000 };

    struct Signer(EcdsaKeyPair);

    impl Signer {
        fn new() -> Self {
            let key = rcgen::KeyPair::generate().unwrap().serialize_der();
            Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &SystemRandom::new()).unwrap())
        }

        fn jwk(&self, kid: Option<&str>) -> Jwk {
            let point = self.0.public_key().as_ref();
            let part = |bytes: &[u8]| Some(BASE64.encode(bytes));
            Jwk {
                kty: "EC".to_owned(),
                kid: kid.map(str::to_owned),
                crv: Some("P-256".to_owned()),
                x: part(&point[1..33]),
                y: part(&point[33..]),
                ..Jwk::default()
            }
        }

        fn sign(&self, head: &Value, claims: &Value) -> String {
            let message = format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(claims.to_string()));
            let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
            format!("{message}.{}", BASE64.encode(signature))
        }
    }

    fn claims() -> Value {
        json!({"iss": EXPECTED.issuer, "aud": "us", "exp": 1_000_300, "iat": 999_990, "nonce": "n", "sub": "7"})
    }

    #[test]
    fn what_a_token_has_to_say() {
        let signer = Signer::new();
        let check = |change: Value, part: Option<&str>| {
            let mut claims = claims();
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
            let token = signer.sign(&json!({"alg": "ES256"}), &claims);
            let found = verify(&token, &[signer.jwk(None)], EXPECTED);
            match part {
                None => assert!(found.is_ok(), "{change} {found:?}"),
                Some(part) => assert!(found.unwrap_err().to_string().contains(part), "{change}"),
            }
        };
        check(json!({}), None);
        check(json!({"iss": "https://id.example.com/"}), Some("issuer"));
        check(json!({"iss": null}), Some("issuer"));
        check(json!({"aud": "them"}), Some("client"));
        check(json!({"aud": ["us"]}), None);
        check(json!({"aud": ["us", "them"]}), Some("client"));
        check(json!({"aud": ["us", "them"], "azp": "us"}), None);
        check(json!({"azp": "them"}), Some("client"));
        check(json!({"aud": null}), Some("client"));
        check(json!({"exp": 1_000_000 - 59}), None);
        check(json!({"exp": 1_000_000 - 60}), Some("expired"));
        check(json!({"exp": "2000000"}), Some("expired"));
        check(json!({"exp": null}), Some("expired"));
        check(json!({"iat": 1_000_060}), None);
        check(json!({"iat": 1_000_061}), Some("future"));
        check(json!({"nbf": 1_000_061}), Some("future"));
        check(json!({"nbf": "0"}), Some("future"));
        check(json!({"nonce": "m"}), Some("another sign-in"));
        check(json!({"nonce": null}), Some("another sign-in"));
        check(json!({"sub": ""}), Some("whose"));
        check(json!({"sub": 7}), Some("whose"));
    }

    #[test]
    fn whose_signature_it_is() {
        let (signer, other) = (Signer::new(), Signer::new());
        let check = |head: Value, keys: &[Jwk], expected: Result<(), Invalid>| {
            let token = signer.sign(&head, &claims());
            assert_eq!(verify(&token, keys, EXPECTED).map(drop), expected, "{head}");
        };
        let (own, strange) = (signer.jwk(Some("a")), other.jwk(Some("a")));
        let method = Err(Invalid::Token("it is signed by another method than RS256 and ES256"));
        let wrong = Err(Invalid::Token("its signature is wrong"));
        check(json!({"alg": "ES256", "kid": "a"}), from_ref(&own), Ok(()));
        check(json!({"alg": "ES256"}), &[strange.clone(), own.clone()], Ok(()));
        check(json!({"alg": "ES256", "kid": "b"}), from_ref(&own), Err(Invalid::UnknownKey));
        check(json!({"alg": "ES256", "kid": "a"}), from_ref(&strange), wrong.clone());
        check(json!({"alg": "ES256"}), &[strange], Err(Invalid::UnknownKey));
        check(json!({"alg": "RS256", "kid": "a"}), from_ref(&own), wrong);
        for alg in ["none", "None", "HS256", "ES384", ""] {
            check(json!({"alg": alg, "kid": "a"}), from_ref(&own), method.clone());
        }
        check(json!({"alg": "ES256", "crit": ["b64"]}), from_ref(&own), Err(Invalid::Token("it demands an extension")));
        let encrypts = Jwk { usage: Some("enc".to_owned()), ..own };
        check(json!({"alg": "ES256", "kid": "a"}), from_ref(&encrypts), Err(Invalid::UnknownKey));
    }

    #[test]
    fn what_is_no_token() {
        let signer = Signer::new();
        let keys = [signer.jwk(None)];
        let good = signer.sign(&json!({"alg": "ES256"}), &claims());
        let (message, signature) = good.rsplit_once('.').unwrap();
        let other = signer.sign(&json!({"alg": "ES256"}), &json!({"iss": "x"}));
        let mixed = format!("{message}.{}", other.rsplit_once('.').unwrap().1);
        let none = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(claims().to_string()));
        let long = "a".repeat(LONGEST + 1);
        for bad in [
            "",
            ".",
            "..",
            "a.b.c",
            message,
            &mixed,
            &none,
            &format!("{message}."),
            &format!("{signature}.{good}"),
            &long,
        ] {
            assert!(verify(bad, &keys, EXPECTED).is_err(), "{bad}");
        }
        assert!(verify(&good, &keys, EXPECTED).is_ok());
    }
}
