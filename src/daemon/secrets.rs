//! Where the values of a build's secrets come from, and how they are kept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::keyring::{KeyError, Keyring};
use crate::deploy::secret_names;
use crate::engine::deployments::{FromEnvironment, ServerSecrets};
use crate::engine::environment::Secrets;
use crate::engine::{EngineError, now, submit};
use crate::pipeline::condition::any_glob;
use crate::store::builds::{self, BuildRequest};
use crate::store::deployments::DeploymentRow;
use crate::store::secrets::{self, SecretRow};
use crate::store::{Store, StoreError, Tx, access, models};

/// Gives a build the secrets that it may have.
#[async_trait]
pub trait SecretSource: Send + Sync {
    /// Values by name, and why others are withheld.
    ///
    /// # Errors
    /// If they cannot be read now; it is tried again.
    async fn for_build(&self, request: &BuildRequest) -> Result<Secrets, EngineError>;
}

/// A value may be so long, in bytes.
pub const LONGEST: usize = 64 << 10;

/// A secret that is to be set.
#[derive(Debug, Clone)]
pub struct NewSecret {
    /// Its name: that of the variable that scripts see.
    pub name: String,
    /// Whose; empty for all projects.
    pub project: String,
    /// Globs of branches that get it; empty for all.
    pub branches: Vec<String>,
    /// Stages that get it; empty for all.
    pub stages: Vec<String>,
}

impl NewSecret {
    /// What is wrong with it, or with its value.
    ///
    /// # Errors
    /// That, for people; never the value.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let name = &self.name;
        if name.is_empty()
            || name.len() > 255
            || !name.bytes().all(fits)
            || name.starts_with(|c: char| c.is_ascii_digit())
        {
            return Err("a secret's name is that of a variable: letters, digits and `_`, not a digit first".to_owned());
        }
        if name.starts_with("ORCHESTRATOR") || name == "CI" || name == "PORT" {
            return Err(format!("{name} is a name that orchestrator gives to scripts itself; take another one"));
        }
        if value.is_empty() {
            return Err("the value is empty".to_owned());
        }
        if value.len() > LONGEST || value.contains('\0') {
            return Err(format!("the value has more than {LONGEST} bytes, or holds a NUL"));
        }
        let lists = [("branches", &self.branches), ("stages", &self.stages)];
        for (what, list) in lists {
            if list.len() > 100 || list.iter().any(|entry| entry.is_empty() || entry.len() > 255) {
                return Err(format!("`{what}` is a list of at most 100 names of 1 to 255 bytes"));
            }
        }
        Ok(())
    }
}

/// Secrets in the store, opened with the keys of a file.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The database.
    pub store: Arc<Store>,
    /// The key file. It is read each time, so that a rotation holds at once.
    pub keys: PathBuf,
}

impl Sealed {
    /// Sets a secret, or replaces it.
    ///
    /// # Errors
    /// The key file's or the database's.
    pub async fn set(&self, new: NewSecret, value: String, actor: String) -> Result<(), StoreError> {
        let file = self.keys.clone();
        let write = self.store.write(move |tx| {
            // Within the transaction: a rotation beside it comes before or after this.
            let keys = Keyring::read_or_make(&file)?;
            let mut row = SecretRow {
                name: new.name,
                project: new.project,
                branches: new.branches,
                stages: new.stages,
                key_id: String::new(),
                nonce: Vec::new(),
                sealed: Vec::new(),
                made_by: actor,
                made_at: now(),
            };
            keys.seal(&value, &mut row)?;
            secrets::set(tx, &row)?;
            access::audit(tx, &row.made_by, "secret.set", &target(&row.project, &row.name), &limits(&row), row.made_at)
        });
        write.await
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none.
    pub async fn remove(&self, project: String, name: String, actor: String) -> Result<(), StoreError> {
        let write = self.store.write(move |tx| {
            secrets::remove(tx, &project, &name)?;
            access::audit(tx, &actor, "secret.remove", &target(&project, &name), "", now())
        });
        write.await
    }

    /// Seals all secrets anew with a new key, and forgets the old ones. Killed at any point, everything opens.
    ///
    /// # Errors
    /// The key file's or the database's; then the old keys stay.
    pub async fn rotate(&self, actor: String) -> Result<(usize, String), StoreError> {
        let file = self.keys.clone();
        let write = self.store.write(move |tx| {
            let keys = Keyring::read_or_make(&file)?.add(&file)?;
            let count = reseal(tx, &keys)?;
            access::audit(tx, &actor, "secret.rotate", keys.newest(), &format!("{count} secrets"), now())?;
            Ok((count, keys))
        });
        let (count, keys) = write.await?;
        // Only now is nothing left that needs an older key.
        keys.keep_newest(&self.keys)?;
        Ok((count, keys.newest().to_owned()))
    }

    /// The values of these names for a build.
    async fn values_of(&self, request: &BuildRequest, names: &[String]) -> Result<Secrets, EngineError> {
        let project = request.project.clone();
        let read = self.store.read(move |db| Ok((secrets::of_project(db, "")?, secrets::of_project(db, &project)?)));
        let (shared, own) = read.await?;
        // A project's own goes before one of the same name for all projects.
        let rows: BTreeMap<String, SecretRow> =
            shared.into_iter().chain(own).map(|row| (row.name.clone(), row)).collect();
        let keys = match Keyring::read(&self.keys) {
            Err(KeyError::Absent(_)) if rows.is_empty() => None,
            other => Some(other.map_err(StoreError::from)?),
        };
        let mut given = Secrets::default();
        for name in names {
            let Some((row, keys)) = rows.get(name).zip(keys.as_ref()) else {
                given.withheld.insert(name.clone(), unset(name, &request.project));
                continue;
            };
            match refused(row, request) {
                Some(why) => {
                    given.withheld.insert(name.clone(), why);
                }
                None => {
                    given.values.insert(name.clone(), keys.open(row).map_err(StoreError::from)?);
                    if !row.stages.is_empty() {
                        given.stages.insert(name.clone(), row.stages.clone());
                    }
                }
            }
        }
        Ok(given)
    }
}

/// A server has the secrets that the build had which made its version; what is not stored may be in the daemon's environment.
#[async_trait]
impl ServerSecrets for Sealed {
    async fn values(&self, row: &DeploymentRow) -> BTreeMap<String, String> {
        let mut values = FromEnvironment.values(row).await;
        let names = secret_names(row);
        if names.is_empty() {
            return values;
        }
        let (model, version) = (row.model.clone(), row.version);
        let read = self.store.read(move |db| builds::get(db, models::version(db, &model, version)?.build));
        let stored = match read.await {
            Ok(build) if build.request.untrusted => return values,
            Ok(build) => self.values_of(&build.request, &names).await,
            Err(error) => Err(error.into()),
        };
        match stored {
            Ok(stored) => values.extend(stored.values),
            Err(error) => tracing::warn!(model = row.model, %error, "the secrets of a server cannot be read"),
        }
        values
    }
}

fn reseal(tx: &Tx, keys: &Keyring) -> Result<usize, StoreError> {
    let mut rows = secrets::all(tx)?;
    for row in &mut rows {
        let value = keys.open(row)?;
        keys.seal(&value, row)?;
        secrets::set(tx, row)?;
    }
    Ok(rows.len())
}

fn target(project: &str, name: &str) -> String {
    if project.is_empty() { name.to_owned() } else { format!("{project}/{name}") }
}

fn limits(row: &SecretRow) -> String {
    let list = |what: &str, list: &[String]| match list {
        [] => String::new(),
        list => format!("{what} {}", list.join(", ")),
    };
    [list("branches", &row.branches), list("stages", &row.stages)].join(" ").trim().to_owned()
}

fn unset(name: &str, project: &str) -> String {
    format!("{name} is not set: `orchestrator secrets set {name} --project {project}` sets it")
}

/// Why a build does not get a secret that there is.
fn refused(row: &SecretRow, request: &BuildRequest) -> Option<String> {
    let name = &row.name;
    if row.branches.is_empty() {
        return None;
    }
    // A pull request's branch is the one that it asks to be merged into: what it brings is not that branch's yet.
    let branch = request.branch.as_deref().filter(|_| request.pull_request.is_none());
    match branch {
        Some(branch) if any_glob(&row.branches, branch) => None,
        Some(branch) => Some(format!("{name} is for the branches {} and not for `{branch}`", row.branches.join(", "))),
        None => Some(format!("{name} is for builds of the branches {} alone", row.branches.join(", "))),
    }
}

#[async_trait]
impl SecretSource for Sealed {
    async fn for_build(&self, request: &BuildRequest) -> Result<Secrets, EngineError> {
        // Nearly all pipelines name none, and then nothing is read.
        if !request.text.contains("secrets") {
            return Ok(Secrets::default());
        }
        let names = submit::expand(request)?.secrets();
        if request.untrusted {
            let why = |name: &String| format!("{name} is not given to pull requests from forks");
            let withheld = names.iter().map(|name| (name.clone(), why(name))).collect();
            return Ok(Secrets { withheld, ..Secrets::default() });
        }
        self.values_of(request, &names).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        let check = |name: &str, value: &str, good: bool| {
            let new =
                NewSecret { name: name.to_owned(), project: String::new(), branches: Vec::new(), stages: Vec::new() };
            assert_eq!(new.check(value).is_ok(), good, "{name} {value}");
        };
        check("TOKEN_2", "x", true);
        check("2TOKEN", "x", false);
        check("TO-KEN", "x", false);
        check("", "x", false);
        check("ORCHESTRATOR_STAGE", "x", false);
        check("TOKEN", "", false);
        check("TOKEN", "a\0b", false);
        check("TOKEN", &"x".repeat(LONGEST + 1), false);
    }
}
