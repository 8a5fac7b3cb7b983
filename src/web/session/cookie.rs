//! The cookie of a session.
//!
//! PURE.

use std::time::Duration;

use axum::http::{HeaderMap, header};

/// What the cookie is called. With the number of the data folder, so that two daemons of one machine do not take each other's.
pub fn name(instance: &str, secure: bool) -> String {
    // Browsers take the prefix only by https, for all paths, and for this very host.
    let prefix = if secure { "__Host-" } else { "" };
    format!("{prefix}orchestrator-{instance}")
}

/// The line that sets a cookie; a time of zero removes it.
pub fn set(name: &str, value: &str, secure: bool, lasts: Duration) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax{secure}", lasts.as_secs())
}

/// The value of a cookie that a browser sent.
pub fn get<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(given, _)| *given == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_among_others() {
        let check = |lines: &[&str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, line.parse().unwrap());
            }
            assert_eq!(get(&headers, "orchestrator-1"), expected, "{lines:?}");
        };
        check(&[], None);
        check(&["orchestrator-1=abc"], Some("abc"));
        check(&["a=b; orchestrator-1=abc;c=d"], Some("abc"));
        check(&["a=b", "orchestrator-1=abc"], Some("abc"));
        check(&["xorchestrator-1=abc; orchestrator-12=d; orchestrator-1"], None);
        check(&["a=orchestrator-1=abc"], None);
    }

    #[test]
    fn flags() {
        let lasts = Duration::from_secs(60);
        let plain = set(&name("1", false), "v", false, lasts);
        assert_eq!(plain, "orchestrator-1=v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
        let secure = set(&name("1", true), "v", true, lasts);
        assert_eq!(secure, "__Host-orchestrator-1=v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure");
    }
}
