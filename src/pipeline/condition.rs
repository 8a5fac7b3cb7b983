//! `when`: whether a stage runs for what started the build.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::types::When;

/// What is known of a build when its stages are chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// `push`, `pull_request`, `tag`, `release`, `schedule`, `manual`.
    pub event: String,
    /// The branch; of a pull request the one that it wants to go into.
    pub branch: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// Paths that the build's commits changed; `None` if that is not known.
    pub changed_paths: Option<Vec<String>>,
    /// The repository's default branch.
    pub default_branch: String,
}

/// Whether all parts of a condition hold, `status` apart, which is judged while the build runs.
///
/// Where the changed paths are not known, `paths` holds: to build too much is better than too little.
///
/// # Errors
/// Why the stage is skipped, for people.
pub fn holds(when: &When, facts: &Facts) -> Result<(), String> {
    if !when.event.is_empty() && !when.event.contains(&facts.event) {
        return Err(format!("the build was started by {}, not by {}", facts.event, when.event.join(" or ")));
    }
    one_of("branch", facts.branch.as_deref(), &when.branch)?;
    one_of("tag", facts.tag.as_deref(), &when.tag)?;
    let known_paths = facts.changed_paths.as_ref().filter(|_| !when.paths.is_empty());
    let changed = |paths: &Vec<String>| {
        let globs = glob_set(&when.paths);
        paths.iter().any(|path| globs.is_match(path))
    };
    if known_paths.is_some_and(|paths| !changed(paths)) {
        return Err(format!("no changed path matches {}", when.paths.join(" or ")));
    }
    Ok(())
}

fn one_of(what: &str, value: Option<&str>, globs: &[String]) -> Result<(), String> {
    match value {
        _ if globs.is_empty() => Ok(()),
        Some(value) if any_glob(globs, value) => Ok(()),
        Some(value) => Err(format!("the {what} is {value}, not {}", globs.join(" or "))),
        None => Err(format!("the build has no {what}, and {} is asked for", globs.join(" or "))),
    }
}

/// Whether a branch or tag matches one of the globs. `*` stays within one part, `**` crosses `/`.
pub fn any_glob(globs: &[String], value: &str) -> bool {
    glob_set(globs).is_match(value)
}

/// The globs as one set, for many paths: it is made once. What is no glob matches nothing.
pub fn glob_set(globs: &[String]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for glob in globs.iter().filter_map(|glob| GlobBuilder::new(glob).literal_separator(true).build().ok()) {
        set.add(glob);
    }
    set.build().unwrap_or_else(|_| GlobSet::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            event: "push".into(),
            branch: Some("release/1.2".into()),
            changed_paths: Some(vec!["src/train.py".into()]),
            default_branch: "main".into(),
            ..Facts::default()
        }
    }

    #[test]
    fn conditions() {
        let check = |change: fn(&mut When), expected: Result<(), &str>| {
            let mut when = When::default();
            change(&mut when);
            assert_eq!(holds(&when, &facts()), expected.map_err(str::to_owned), "{when:?}");
        };
        check(|_| (), Ok(()));
        check(|when| when.branch = vec!["main".into(), "release/*".into()], Ok(()));
        check(|when| when.branch = vec!["*".into()], Err("the branch is release/1.2, not *"));
        check(|when| when.branch = vec!["**".into()], Ok(()));
        check(|when| when.tag = vec!["v*".into()], Err("the build has no tag, and v* is asked for"));
        check(
            |when| when.event = vec!["tag".into(), "manual".into()],
            Err("the build was started by push, not by tag or manual"),
        );
        check(|when| when.paths = vec!["src/**".into()], Ok(()));
        check(|when| when.paths = vec!["*.py".into()], Err("no changed path matches *.py"));
    }

    #[test]
    fn unknown_paths_hold() {
        let when = When { paths: vec!["x".into()], ..When::default() };
        assert_eq!(holds(&when, &Facts { changed_paths: None, ..facts() }), Ok(()));
    }
}
