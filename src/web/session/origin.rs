//! Where a browser says that a request comes from. Other programs say nothing of it, and are not held up by it.
//!
//! PURE.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use url::{Host, Url};

/// What browsers say of where a request was begun. No page can set it.
const FETCH_SITE: &str = "sec-fetch-site";
/// What for: `navigate` for a link that was followed.
const FETCH_MODE: &str = "sec-fetch-mode";

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// One of our own pages, or the person (an address that was typed, a bookmark).
    Ours,
    /// Another site's page.
    Foreign,
    /// No browser says anything.
    Unsaid,
}

/// Where this request comes from. `https` says whether the browser reached us that way, `public` is how others reach us.
pub fn from(parts: &Parts, https: bool, public: Option<&Url>) -> From {
    let text = |name| parts.headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let site = text(FETCH_SITE).map(|site| matches!(site, "same-origin" | "none"));
    let origin = match text(header::ORIGIN.as_str()) {
        // Pages that tell nobody where they are say so of a form; the other header knows better.
        Some("null") if site.is_some() => None,
        Some(origin) => Some(is_ours(origin, host(parts), https, public)),
        None => None,
    };
    match (site, origin) {
        (None, None) => From::Unsaid,
        (Some(false), _) | (_, Some(false)) => From::Foreign,
        (Some(true), _) | (None, Some(true)) => From::Ours,
    }
}

/// Whether another site's page asks for itself to read, and not because a person followed a link.
pub fn is_foreign_read(parts: &Parts, from: From) -> bool {
    let followed = parts.headers.get(FETCH_MODE).is_some_and(|mode| mode.as_bytes() == b"navigate")
        && !parts.headers.contains_key(header::ORIGIN);
    from == From::Foreign && !followed
}

/// Whether a request may change something.
pub fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn is_ours(origin: &str, host: Option<&str>, https: bool, public: Option<&Url>) -> bool {
    let Ok(origin) = Url::parse(origin) else { return false };
    if public.is_some_and(|public| public.origin() == origin.origin()) {
        return true;
    }
    let scheme = origin.scheme();
    let Some(ours) = host.and_then(|host| Url::parse(&format!("{scheme}://{host}")).ok()) else { return false };
    // Whoever is on the way makes pages on http as he likes; on this machine nobody is.
    let safe = scheme == "https" || (scheme == "http" && (!https || is_loopback(&ours)));
    safe && ours.origin() == origin.origin()
}

/// The host that was asked for, as the browser has it in its address line.
fn host(parts: &Parts) -> Option<&str> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => parts.headers.get(header::HOST).map(|value| value.to_str().unwrap_or_default()),
    }
}

/// Whether the host that was asked for is this machine or the public one. A name of somebody else's that leads here is
/// neither: his pages would be taken for ours (DNS rebinding).
pub fn is_known_host(parts: &Parts, public: Option<&Url>) -> bool {
    let Some(host) = host(parts) else { return true };
    let Ok(asked) = Url::parse(&format!("http://{host}")) else { return false };
    is_loopback(&asked) || public.is_some_and(|public| public.host() == asked.host())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}

/// What a trusted proxy says of how it was reached.
pub fn is_forwarded_https(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn parts(host: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri("/x").header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn where_a_request_comes_from() {
        let public = Url::parse("https://ci.example.org").unwrap();
        let check = |host: &str, https: bool, headers: &[(&str, &str)], expected: From| {
            let found = from(&parts(host, headers), https, Some(&public));
            assert_eq!(found, expected, "{host} {https} {headers:?}");
        };
        check("localhost:8484", false, &[], From::Unsaid);
        check("localhost:8484", false, &[("origin", "http://localhost:8484")], From::Ours);
        check("localhost:8484", false, &[("origin", "http://LOCALHOST:8484")], From::Ours);
        check("localhost:8484", true, &[("origin", "http://localhost:8484")], From::Ours);
        check("localhost:8484", false, &[("origin", "http://localhost:3000")], From::Foreign);
        check("localhost:8484", false, &[("origin", "http://127.0.0.1:8484")], From::Foreign);
        check("localhost:8484", false, &[("origin", "http://localhost:8484.evil.org")], From::Foreign);
        check("localhost:8484", false, &[("origin", "null")], From::Foreign);
        check("localhost:8484", false, &[("origin", "")], From::Foreign);
        check("localhost:8484", false, &[("origin", "file://")], From::Foreign);
        check("10.0.0.5", false, &[("origin", "http://10.0.0.5")], From::Ours);
        check("10.0.0.5", false, &[("origin", "https://10.0.0.5")], From::Ours);
        check("10.0.0.5", true, &[("origin", "http://10.0.0.5")], From::Foreign);
        check("10.0.0.5:443", true, &[("origin", "https://10.0.0.5")], From::Ours);
        // A proxy may ask for another host; the public URL holds.
        check("upstream", false, &[("origin", "https://ci.example.org")], From::Ours);
        check("upstream", false, &[("origin", "http://ci.example.org")], From::Foreign);
        let site = |site| ("sec-fetch-site", site);
        check("localhost:8484", false, &[site("same-origin")], From::Ours);
        check("localhost:8484", false, &[site("none")], From::Ours);
        check("localhost:8484", false, &[site("same-site")], From::Foreign);
        check("localhost:8484", false, &[site("cross-site")], From::Foreign);
        check("localhost:8484", false, &[site("new-word")], From::Foreign);
        check("localhost:8484", false, &[site("same-origin"), ("origin", "null")], From::Ours);
        check("localhost:8484", false, &[site("cross-site"), ("origin", "null")], From::Foreign);
        check("localhost:8484", false, &[site("cross-site"), ("origin", "http://localhost:8484")], From::Foreign);
        check("localhost:8484", false, &[site("same-origin"), ("origin", "http://evil.org")], From::Foreign);
    }

    #[test]
    fn names_that_lead_here() {
        let public = Url::parse("https://ci.example.org").unwrap();
        let check = |host: &str, expected: bool| {
            assert_eq!(is_known_host(&parts(host, &[]), Some(&public)), expected, "{host}");
        };
        for known in [
            "localhost",
            "localhost:8484",
            "LocalHost.:1",
            "a.localhost",
            "127.0.0.1:8484",
            "127.9.9.9",
            "[::1]:8484",
            "[::ffff:127.0.0.1]",
            "ci.example.org",
            "ci.example.org:8484",
        ] {
            check(known, true);
        }
        for stranger in [
            "evil.org",
            "evil.org:8484",
            "localhost.evil.org",
            "127.0.0.1.evil.org",
            "10.0.0.1",
            "",
            "a b",
            "x@localhost@evil.org",
        ] {
            check(stranger, false);
        }
    }

    #[test]
    fn links_may_be_followed() {
        let check = |headers: &[(&str, &str)], expected: bool| {
            let parts = parts("localhost", headers);
            assert_eq!(is_foreign_read(&parts, from(&parts, false, None)), expected, "{headers:?}");
        };
        let site = ("sec-fetch-site", "cross-site");
        check(&[], false);
        check(&[site, ("sec-fetch-mode", "navigate")], false);
        check(&[site, ("sec-fetch-mode", "cors")], true);
        check(&[site, ("sec-fetch-mode", "navigate"), ("origin", "http://evil.org")], true);
        check(&[site], true);
        check(&[("origin", "http://evil.org")], true);
        check(&[("origin", "http://localhost")], false);
    }
}
