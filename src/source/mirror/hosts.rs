//! Keys of ssh hosts, as OpenSSH's `known_hosts` has them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// What the file says of a host's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Trusted,
    /// The host is there, with other keys only.
    Changed,
    /// This key was taken back.
    Revoked,
    Unknown,
}

/// Looks a host's key up.
pub(super) fn verdict(known_hosts: &str, host: &str, port: u16, key: &[u8]) -> Verdict {
    let name = if port == 22 { host.to_lowercase() } else { format!("[{}]:{port}", host.to_lowercase()) };
    let mut found = Verdict::Unknown;
    for line in known_hosts.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut fields = line.split_ascii_whitespace();
        let Some(mut hosts) = fields.next() else { continue };
        let marker = hosts.starts_with('@').then_some(hosts);
        if marker.is_some() {
            let Some(next) = fields.next() else { continue };
            hosts = next;
        }
        let (Some(_kind), Some(encoded)) = (fields.next(), fields.next()) else { continue };
        if !matches(hosts, &name) {
            continue;
        }
        let same = STANDARD.decode(encoded).is_ok_and(|known| known == key);
        match marker {
            Some("@revoked") if same => return Verdict::Revoked,
            // Authorities sign certificates; libssh2 asks for plain keys.
            Some(_) => {}
            None if same => found = Verdict::Trusted,
            None if found == Verdict::Unknown => found = Verdict::Changed,
            None => {}
        }
    }
    found
}

fn matches(hosts: &str, name: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        let Some((salt, hash)) = hashed.split_once('|') else { return false };
        let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else { return false };
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(&salt) else { return false };
        mac.update(name.as_bytes());
        return mac.verify_slice(&hash).is_ok();
    }
    let mut found = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(not) if wild(&not.to_lowercase(), name) => return false,
            Some(_) => {}
            None => found |= wild(&pattern.to_lowercase(), name),
        }
    }
    found
}

/// `*` and `?`.
fn wild(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_matched_as_openssh_does() {
        let (one, two) = (STANDARD.encode(b"one"), STANDARD.encode(b"two"));
        let text = format!(
            "# comment\nexample.com,10.0.0.1 ssh-ed25519 {one} me\n[example.com]:2222 ssh-rsa {two}\n\
             *.wild.org,!bad.wild.org ssh-rsa {one}\n@revoked gone.org ssh-rsa {one}\ngone.org ssh-rsa {one}\n\
             @cert-authority ca.org ssh-rsa {one}\nbroken line\n"
        );
        for (host, port, key, expected) in [
            ("example.com", 22, "one", Verdict::Trusted),
            ("EXAMPLE.com", 22, "one", Verdict::Trusted),
            ("10.0.0.1", 22, "one", Verdict::Trusted),
            ("example.com", 22, "two", Verdict::Changed),
            ("example.com", 2222, "two", Verdict::Trusted),
            ("example.com", 2223, "two", Verdict::Unknown),
            ("a.wild.org", 22, "one", Verdict::Trusted),
            ("bad.wild.org", 22, "one", Verdict::Unknown),
            ("gone.org", 22, "one", Verdict::Revoked),
            ("ca.org", 22, "one", Verdict::Unknown),
            ("other.org", 22, "one", Verdict::Unknown),
        ] {
            assert_eq!(verdict(&text, host, port, key.as_bytes()), expected, "{host}:{port} {key}");
        }
    }

    #[test]
    fn hashed_hosts_are_matched() {
        let salt = b"saltsaltsaltsaltsalt";
        let mut mac = Hmac::<Sha1>::new_from_slice(salt).unwrap();
        mac.update(b"example.com");
        let hash = STANDARD.encode(mac.finalize().into_bytes());
        let text = format!("|1|{}|{hash} ssh-rsa {}", STANDARD.encode(salt), STANDARD.encode(b"one"));
        assert_eq!(verdict(&text, "example.com", 22, b"one"), Verdict::Trusted);
        assert_eq!(verdict(&text, "other.com", 22, b"one"), Verdict::Unknown);
    }
}
