//! Names of commits and refs as git allows them, and no others: what follows may hand them to git as they are.

use std::fmt;

use serde::Serialize;

/// The longest ref that is accepted, in bytes. File systems that hold loose refs end at about the same length.
pub const MAX_REF_BYTES: usize = 1024;

/// A commit: 40 hexadecimal digits, or 64 where the repository uses SHA-256. In lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct CommitId(String);

impl CommitId {
    /// Reads a full object name. `None` if it is none, or the null one that stands for "no commit".
    pub fn new(text: &str) -> Option<Self> {
        (is_object_name(text) && !is_null(text)).then(|| Self(text.to_ascii_lowercase()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A full ref, like `refs/heads/main`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct GitRef(String);

impl GitRef {
    /// Reads a full ref, by the rules of `git check-ref-format`. `None` if it is none.
    pub fn new(text: &str) -> Option<Self> {
        let made = (text.starts_with("refs/") && is_ref_format(text)).then(|| Self(text.to_owned()))?;
        // Git makes no such branches and tags: their names would read as an option of a command.
        let option = |name: Option<&str>| name.is_some_and(|name| name.starts_with('-'));
        (!option(made.branch()) && !option(made.tag())).then_some(made)
    }

    /// The ref of a branch.
    pub fn of_branch(branch: &str) -> Option<Self> {
        Self::new(&format!("refs/heads/{branch}"))
    }

    /// The ref of a tag.
    pub fn of_tag(tag: &str) -> Option<Self> {
        Self::new(&format!("refs/tags/{tag}"))
    }

    /// The ref under which GitHub keeps the head of a pull request.
    pub fn of_pull_request(number: u64) -> Self {
        Self(format!("refs/pull/{number}/head"))
    }

    /// The whole ref.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The branch's name, if it is one.
    pub fn branch(&self) -> Option<&str> {
        self.0.strip_prefix("refs/heads/")
    }

    /// The tag's name, if it is one.
    pub fn tag(&self) -> Option<&str> {
        self.0.strip_prefix("refs/tags/")
    }
}

impl fmt::Display for GitRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether the text is an object's full name: 40 or 64 hexadecimal digits.
pub fn is_object_name(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether an object's name is the null one: how a push says that a ref was made or deleted.
pub fn is_null(text: &str) -> bool {
    is_object_name(text) && text.bytes().all(|byte| byte == b'0')
}

/// The rules of `git check-ref-format`, and [`MAX_REF_BYTES`].
fn is_ref_format(text: &str) -> bool {
    let forbidden = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    text.len() <= MAX_REF_BYTES
        && text.contains('/')
        && !text.ends_with('.')
        && !text.contains(forbidden)
        && !text.contains("..")
        && !text.contains("@{")
        && text.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs() {
        for good in [
            "refs/heads/main",
            "refs/heads/release/1.2",
            "refs/heads/a@b",
            "refs/heads/@",
            "refs/tags/v1.0",
            "refs/heads/grün",
            "refs/notes/x",
            "refs/heads/a-b",
            "refs/heads/x/-y",
            "refs/heads/a./b",
            "refs/heads/lock",
        ] {
            assert!(GitRef::new(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "main",
            "refs",
            "refs/",
            "refs/heads/",
            "heads/main",
            "/refs/heads/main",
            "refs/heads//main",
            "refs/heads/main/",
            "refs/heads/-x",
            "refs/heads/--upload-pack=touch /tmp/x",
            "refs/tags/-x",
            "refs/heads/a..b",
            "refs/heads/../../etc/passwd",
            "refs/heads/.a",
            "refs/heads/a/.b",
            "refs/heads/a.",
            "refs/heads/a.lock",
            "refs/heads/a.lock/b",
            "refs/heads/a b",
            "refs/heads/a\tb",
            "refs/heads/a\nb",
            "refs/heads/a\0b",
            "refs/heads/a\x7fb",
            "refs/heads/a~1",
            "refs/heads/a^",
            "refs/heads/a:b",
            "refs/heads/a?",
            "refs/heads/a*",
            "refs/heads/a[b",
            "refs/heads/a\\b",
            "refs/heads/a@{0}",
        ] {
            assert_eq!(GitRef::new(bad), None, "{bad:?}");
        }
        let longest = format!("refs/heads/{}", "x".repeat(MAX_REF_BYTES - "refs/heads/".len()));
        assert!(GitRef::new(&longest).is_some());
        assert_eq!(GitRef::new(&format!("{longest}x")), None);
    }

    #[test]
    fn names_of_branches_and_tags() {
        assert_eq!(GitRef::new("refs/heads/a/b").as_ref().and_then(GitRef::branch), Some("a/b"));
        assert_eq!(GitRef::new("refs/heads/a/b").as_ref().and_then(GitRef::tag), None);
        assert_eq!(GitRef::of_tag("v1").as_ref().map(GitRef::as_str), Some("refs/tags/v1"));
        assert_eq!(GitRef::of_branch("-x"), None);
        assert_eq!(GitRef::of_branch("a b"), None);
        assert_eq!(GitRef::of_pull_request(7).as_str(), "refs/pull/7/head");
    }

    #[test]
    fn commits() {
        let sha = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";
        assert_eq!(CommitId::new(&sha.to_uppercase()).as_ref().map(CommitId::as_str), Some(sha));
        assert!(CommitId::new(&"a".repeat(64)).is_some());
        for bad in ["", "main", &sha[..39], &format!("{sha}0"), &"0".repeat(40), &"0".repeat(64), &"g".repeat(40)] {
            assert_eq!(CommitId::new(bad), None, "{bad}");
        }
        assert!(is_null(&"0".repeat(40)) && !is_null(sha) && !is_null("0"));
    }
}
