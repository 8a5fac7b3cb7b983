//! Where in a project's repository a build stands: the commit, the default branch, the paths that changed.

use crate::source::mirror::{Changes, CommitInfo, Control, Head, Mirror, MirrorError, Oid, Wanted};
use crate::trigger::decide::{Candidate, Event};

use super::builds::Unmade;
use super::decider::Trouble;
use super::projects::Project;

/// Changed paths that are looked at; more count as unknown, and then every filter of paths lets the build through.
const PATHS: usize = 10_000;

/// A commit of a project's repository that is in its mirror.
#[derive(Debug, Clone)]
pub struct Place {
    /// The commit.
    pub commit: Oid,
    /// The default branch, and where it stands.
    pub default_branch: (String, Option<Oid>),
}

/// A ref of a repository, in words for people.
pub fn short(git_ref: &str) -> &str {
    ["refs/heads/", "refs/tags/"].iter().find_map(|prefix| git_ref.strip_prefix(prefix)).unwrap_or(git_ref)
}

/// The default branch of a list of refs: what `HEAD` names, else `main` or `master`, if they are there.
pub fn default_branch(heads: &[Head]) -> (String, Option<Oid>) {
    let at = |name: &str| heads.iter().find(|head| head.name == name).map(|head| head.target);
    let named = heads.iter().find(|head| head.name == "HEAD").and_then(|head| head.symref.as_deref());
    let usual = ["refs/heads/main", "refs/heads/master"].into_iter().find(|name| at(name).is_some());
    let name = named.or(usual).unwrap_or("refs/heads/main");
    (short(name).to_owned(), at(name))
}

impl Place {
    /// Finds a candidate's commit, fetching it if it is not there.
    ///
    /// # Errors
    /// The mirror's.
    pub async fn of_candidate(project: &Project, candidate: &Candidate) -> Result<Self, Unmade> {
        let git_ref = candidate.git_ref.as_str();
        let Some(commit) = &candidate.commit else { return Self::of_ref(project, git_ref).await };
        let place = Self::of_commit(project, commit.as_str(), Some(git_ref)).await?;
        if let Some(base) = &candidate.base {
            fetched(project.mirror()?, parse(base.commit.as_str())?, None).await?;
        }
        Ok(place)
    }

    /// Where a ref stands now.
    ///
    /// # Errors
    /// The mirror's; [`Trouble::Final`] if there is no such ref.
    pub async fn of_ref(project: &Project, git_ref: &str) -> Result<Self, Unmade> {
        let heads = look(project).await?;
        let found = heads.iter().find(|head| head.name == git_ref).map(|head| head.target);
        let commit =
            found.ok_or_else(|| Trouble::Final(format!("there is no `{}` in the repository", short(git_ref))))?;
        Ok(Self { commit, default_branch: default_branch(&heads) })
    }

    /// Where the default branch stands now.
    ///
    /// # Errors
    /// The mirror's; [`Trouble::Final`] if the repository is empty.
    pub async fn of_default(project: &Project) -> Result<Self, Unmade> {
        let heads = look(project).await?;
        let (name, commit) = default_branch(&heads);
        let empty = || Trouble::Final("the repository has no branch yet".to_owned());
        Ok(Self { commit: commit.ok_or_else(empty)?, default_branch: (name, commit) })
    }

    /// A commit by its id. `git_ref` says where it may be found.
    ///
    /// # Errors
    /// The mirror's; [`Trouble::Final`] if there is no such commit.
    pub async fn of_commit(project: &Project, commit: &str, git_ref: Option<&str>) -> Result<Self, Unmade> {
        let (mirror, commit) = (project.mirror()?, parse(commit)?);
        let known = project.heads();
        let heads = match known {
            Some(heads) if mirror.has(commit).await? => heads,
            Some(_) | None => look(project).await?,
        };
        fetched(mirror, commit, git_ref).await?;
        Ok(Self { commit, default_branch: default_branch(&heads) })
    }

    /// The commit's own words.
    ///
    /// # Errors
    /// The mirror's.
    pub async fn info(&self, mirror: &Mirror) -> Result<CommitInfo, MirrorError> {
        mirror.commit_info(self.commit).await
    }

    /// Paths that a candidate changes; `last` is the commit of its ref that was acted upon before.
    ///
    /// # Errors
    /// The mirror's.
    pub async fn changed(
        &self,
        mirror: &Mirror,
        candidate: &Candidate,
        last: Option<&str>,
    ) -> Result<Option<Vec<String>>, MirrorError> {
        let given = candidate.before.as_ref().map(|before| before.as_str());
        let old = match (candidate.event, &candidate.base) {
            // What a pull request brings: since it left its base.
            (Event::PullRequest, Some(base)) => mirror.merge_base(parse(base.commit.as_str())?, self.commit).await?,
            // What has been built before counts, not what this one push brought: pushes may have been missed.
            (Event::Push, _) => last.or(given).map(parse).transpose()?,
            (Event::PullRequest | Event::Tag | Event::Release | Event::Manual, _) => return Ok(None),
        };
        let default_branch = self.default_branch.1;
        mirror.changed_paths(Changes { old, new: self.commit, default_branch, most: PATHS }).await
    }
}

/// Brings the mirror up to date and notes the refs.
async fn look(project: &Project) -> Result<std::sync::Arc<Vec<Head>>, MirrorError> {
    let fetched = project.mirror()?.fetch(&Wanted::All, &Control::default()).await?;
    if let Some(remade) = &fetched.remade {
        tracing::warn!(project = project.name, "{remade}");
    }
    Ok(project.saw(fetched.heads))
}

/// Gets a commit that may lie on no branch: by its ref, else by its id.
async fn fetched(mirror: &Mirror, commit: Oid, git_ref: Option<&str>) -> Result<(), Unmade> {
    if mirror.has(commit).await? {
        return Ok(());
    }
    if let Some(name) = git_ref.filter(|name| name.starts_with("refs/pull/")) {
        match mirror.fetch(&Wanted::Refs(vec![name.to_owned()]), &Control::default()).await {
            Ok(_) | Err(MirrorError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !mirror.has(commit).await? {
        let gone = || {
            Trouble::Final(format!("there is no commit {commit} in the repository; a forced push may have removed it"))
        };
        match mirror.fetch(&Wanted::Commit(commit), &Control::default()).await {
            Ok(_) => {}
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(_) => return Err(gone().into()),
        }
        if !mirror.has(commit).await? {
            return Err(gone().into());
        }
    }
    Ok(())
}

fn parse(commit: &str) -> Result<Oid, MirrorError> {
    Oid::from_str(commit).map_err(|_| MirrorError::Refused(format!("`{commit}` is no commit's id")))
}
