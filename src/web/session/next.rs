//! Where somebody who signed in wants to go. Always a page of ours.
//!
//! PURE.

use url::Url;

/// Bytes of such a path at most.
const LONGEST: usize = 2048;

/// The path if it is one of ours, else the first page.
pub fn local(next: Option<&str>) -> &str {
    next.filter(|next| is_local(next)).unwrap_or("/")
}

/// Whether no browser reads this as another place than a path below our own address.
pub fn is_local(next: &str) -> bool {
    // Browsers take `\` for `/`, and drop tabs and line ends anywhere.
    let plain = next.len() <= LONGEST && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if !plain || !next.starts_with('/') || next.starts_with("//") {
        return false;
    }
    let Ok(base) = Url::parse("http://here.invalid/a/b") else { return false };
    base.join(next).is_ok_and(|joined| joined.origin() == base.origin() && !joined.path().starts_with("//"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_ours() {
        for good in
            ["/", "/builds/7", "/builds?branch=a%2Fb&x=1#log", "/a//b", "/%2F%2Fevil.org", "/%5Cevil.org", "/@evil.org"]
        {
            assert!(is_local(good), "{good}");
        }
        let long = format!("/{}", "a".repeat(LONGEST));
        for bad in [
            "",
            "builds",
            "//evil.org",
            "///evil.org",
            "/\\evil.org",
            "\\\\evil.org",
            "/a\\b",
            "https://evil.org",
            "https:evil.org",
            "javascript:alert(1)",
            "%2F%2Fevil.org",
            " //evil.org",
            "/\t/evil.org",
            "/\n/evil.org",
            "/a\r\nset-cookie: b=c",
            "/a\0",
            "/.//evil.org",
            "/a/..//evil.org",
            "/é",
            &long,
        ] {
            assert!(!is_local(bad), "{bad:?}");
            assert_eq!(local(Some(bad)), "/");
        }
        assert_eq!(local(None), "/");
    }
}
