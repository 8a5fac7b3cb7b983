//! `X-Hub-Signature-256`: whether a delivery was sent by someone who knows the secret.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The header that holds the signature.
pub const HEADER: &str = "x-hub-signature-256";

/// Why a signature was not accepted. For our own log and metrics; whoever sent it is told nothing but that it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureProblem {
    /// There is no such header.
    #[error("the delivery is not signed: set the secret in the webhook's settings")]
    Missing,
    /// The header does not begin with `sha256=`.
    #[error("the signature is not of the scheme sha256")]
    Scheme,
    /// Not 64 hexadecimal digits.
    #[error("the signature is not 64 hexadecimal digits")]
    Form,
    /// It is of other bytes, or made with another secret.
    #[error("the signature does not match: the secret here and that of the webhook differ, or the body was changed")]
    Wrong,
    /// The project has no secret, or an empty one; nothing is accepted then.
    #[error("no webhook secret is set, so no delivery is accepted")]
    NoSecret,
}

/// Checks the signature of a delivery over its body as it was received, byte for byte, in a time that does not depend on how
/// much of it is right.
///
/// # Errors
/// [`SignatureProblem`]; every one of them means that the delivery must not be looked at.
pub fn verify(secret: &[u8], body: &[u8], header: Option<&[u8]>) -> Result<(), SignatureProblem> {
    if secret.is_empty() {
        return Err(SignatureProblem::NoSecret);
    }
    let digits = header.ok_or(SignatureProblem::Missing)?.strip_prefix(b"sha256=").ok_or(SignatureProblem::Scheme)?;
    let given = unhex(digits).ok_or(SignatureProblem::Form)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(body);
    mac.verify_slice(&given).map_err(|_| SignatureProblem::Wrong)
}

/// The signature of a body as the header's value, for tests and for whoever sends deliveries.
pub fn sign(secret: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(body);
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}

fn unhex(digits: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of GitHub's own documentation of webhooks.
    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const SIGNED: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn only_the_right_signature_is_accepted() {
        let check = |header: Option<&str>, expected: Result<(), SignatureProblem>| {
            assert_eq!(verify(SECRET, BODY, header.map(str::as_bytes)), expected, "{header:?}");
        };
        let digits = &SIGNED["sha256=".len()..];
        check(Some(SIGNED), Ok(()));
        check(Some(&format!("sha256={}", digits.to_uppercase())), Ok(()));
        check(None, Err(SignatureProblem::Missing));
        check(Some(""), Err(SignatureProblem::Scheme));
        check(Some(digits), Err(SignatureProblem::Scheme));
        check(Some(&format!("sha1={digits}")), Err(SignatureProblem::Scheme));
        check(Some(&format!("SHA256={digits}")), Err(SignatureProblem::Scheme));
        check(Some("sha256="), Err(SignatureProblem::Form));
        check(Some(&SIGNED[..SIGNED.len() - 2]), Err(SignatureProblem::Form));
        check(Some(&format!("{SIGNED}00")), Err(SignatureProblem::Form));
        check(Some(&format!("{} ", &SIGNED[..SIGNED.len() - 1])), Err(SignatureProblem::Form));
        check(Some(&format!("sha256=é{}", &digits[2..])), Err(SignatureProblem::Form));
        check(Some(&format!("sha256={}8", &digits[..63])), Err(SignatureProblem::Wrong));
        check(Some(&format!("sha256=0{}", &digits[1..])), Err(SignatureProblem::Wrong));
    }

    #[test]
    fn other_bytes_and_other_secrets_are_wrong() {
        let header = Some(SIGNED.as_bytes());
        assert_eq!(verify(SECRET, b"Hello, World?", header), Err(SignatureProblem::Wrong));
        assert_eq!(verify(SECRET, b"", header), Err(SignatureProblem::Wrong));
        assert_eq!(verify(b"another", BODY, header), Err(SignatureProblem::Wrong));
    }

    #[test]
    fn an_empty_secret_opens_nothing() {
        let signed = sign(b"", BODY);
        assert_eq!(verify(b"", BODY, Some(signed.as_bytes())), Err(SignatureProblem::NoSecret));
    }

    #[test]
    fn what_is_signed_here_is_accepted_here() {
        assert_eq!(sign(SECRET, BODY), SIGNED);
    }
}
