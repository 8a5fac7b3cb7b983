//! `.dockerignore`: which files of a context are left out.
//!
//! PURE. Lines are globs relative to the context; `!` takes back; the last line that matches counts; a folder that is left
//! out takes with it what is in it. The Dockerfile and the ignore file itself always go along: the engine needs them.

use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

/// A read `.dockerignore`.
#[derive(Debug, Default)]
pub(super) struct IgnoreFile {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    glob: GlobMatcher,
    /// With `!`: taken back.
    back: bool,
}

impl IgnoreFile {
    /// Reads the file.
    ///
    /// # Errors
    /// The line that is no valid glob, and why.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (back, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
            let pattern = pattern.trim_start_matches("./").trim_matches('/');
            if pattern.is_empty() || pattern == "." {
                continue;
            }
            let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
            let glob = glob.map_err(|error| format!(".dockerignore line {}: {error}", number + 1))?;
            rules.push(Rule { glob: glob.compile_matcher(), back });
        }
        Ok(Self { rules })
    }

    /// Whether a path is left out.
    pub(super) fn excludes(&self, path: &Path) -> bool {
        let matches = |rule: &Rule| {
            let above = path.ancestors().filter(|path| !path.as_os_str().is_empty());
            above.into_iter().any(|path| rule.glob.is_match(path))
        };
        self.rules.iter().rev().find(|rule| matches(rule)).is_some_and(|rule| !rule.back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let text = "# comment\n\n/data\n*.log\n**/*.pyc\n!data/keep\n./tmp/\nsub/*/x\n";
        let file = IgnoreFile::parse(text).unwrap();
        let check = |path: &str, expected: bool| assert_eq!(file.excludes(Path::new(path)), expected, "{path}");
        check("data", true);
        check("data/a/b", true);
        check("data/keep", false);
        check("data/keep/x", false);
        check("a.log", true);
        check("a/a.log", false);
        check("a/b/c.pyc", true);
        check("tmp/x", true);
        check("sub/a/x/y", true);
        check("sub/a/b/x", false);
        check("main.py", false);
        assert!(IgnoreFile::parse("[").unwrap_err().contains("line 1"));
    }

    #[test]
    fn all_but_some() {
        let file = IgnoreFile::parse("**\n!src\n").unwrap();
        assert!(file.excludes(Path::new("a")) && !file.excludes(Path::new("src/a")));
    }
}
