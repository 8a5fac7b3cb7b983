//! The variables of a unit.
//!
//! A unit does not get the environment of this program: tokens of the person who started it would be in every build, and a
//! build would pass on one machine and fail on the next. It gets what programs cannot do without, and what the pipeline says:
//!
//! | variable | value |
//! |---|---|
//! | `PATH` | as in this program, since the host's tools are what the local runner is for |
//! | `HOME`, `TMPDIR` | folders of the unit, gone with it |
//! | `USER`, `LOGNAME` | the user who runs this program |
//! | `LANG` | as in this program, else `C.UTF-8` |
//! | `ORCHESTRATOR_WORKSPACE` | the workspace |
//! | `ORCHESTRATOR_UNIT` | the unit's folder: the mark by which leftover processes are found |
//!
//! The pipeline's own variables come last and win, but for the mark.

use std::env;
use std::path::Path;

use nix::unistd::{Uid, User};

use super::folder::{HOME, TMP, WORKSPACE};
use super::process::MARKER;

/// Where a shell looks when nothing else is said.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is taken over from this program.
#[derive(Debug, Clone)]
pub struct Host {
    path: String,
    lang: String,
    user: String,
}

impl Host {
    /// Looks at this program's environment.
    pub fn look() -> Self {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let by_number = || User::from_uid(Uid::current()).ok().flatten().map(|user| user.name);
        Self {
            path: variable("PATH").unwrap_or_else(|| USUAL_PATH.to_owned()),
            lang: variable("LANG").unwrap_or_else(|| "C.UTF-8".to_owned()),
            user: by_number().or_else(|| variable("USER")).unwrap_or_else(|| Uid::current().to_string()),
        }
    }

    /// All variables of the unit in `folder`.
    ///
    /// # Errors
    /// What is wrong with a variable of the pipeline.
    pub fn variables(&self, folder: &Path, wanted: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
        for (name, value) in wanted {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!("`{}` cannot be a variable's name", name.escape_debug()));
            }
            if value.contains('\0') {
                return Err(format!("the value of variable `{name}` holds a NUL byte, which no process can be given"));
            }
        }
        let below = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let mut all: Vec<(String, String)> = [
            ("PATH", self.path.clone()),
            ("HOME", below(HOME)),
            ("TMPDIR", below(TMP)),
            ("USER", self.user.clone()),
            ("LOGNAME", self.user.clone()),
            ("LANG", self.lang.clone()),
            ("ORCHESTRATOR_WORKSPACE", below(WORKSPACE)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        all.extend(wanted.iter().cloned());
        all.push((MARKER.to_owned(), folder.to_string_lossy().into_owned()));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(wanted: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let host = Host { path: "/bin".into(), lang: "C".into(), user: "me".into() };
        let wanted: Vec<_> = wanted.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        host.variables(Path::new("/u"), &wanted)
    }

    #[test]
    fn the_pipelines_variables_win_but_for_the_mark() {
        let all = variables(&[("PATH", "/mine"), (MARKER, "forged")]).expect("good");
        let last = |name: &str| all.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(last("PATH"), Some("/mine"));
        assert_eq!(last(MARKER), Some("/u"));
        assert_eq!(last("HOME"), Some("/u/home"));
    }

    #[test]
    fn variables_that_no_process_can_have_are_refused() {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0y")] {
            assert!(variables(&[(name, value)]).is_err(), "{name:?}");
        }
        assert!(variables(&[("odd.name-1", "=\n\u{1e}")]).is_ok());
    }
}
