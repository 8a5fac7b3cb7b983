//! The commits between the last good build and one.

use std::time::Duration;

use super::view::{Rows, Since};
use crate::source::mirror::Oid;
use crate::web::App;
use crate::web::pages::line::short;

/// Commits that are shown.
pub const COMMITS: usize = 10;
/// Git may take so long for them; without them the page is whole, too.
const PATIENCE: Duration = Duration::from_millis(300);

/// The commits, newest first; nothing where git does not have them any more, or not soon.
pub async fn commits(app: &App, rows: &Rows) -> Vec<Since> {
    let request = &rows.build.request;
    let ends = rows.good.as_ref().and_then(|good| good.commit.as_deref()).zip(request.commit.as_deref());
    let Some((from, to)) = ends.filter(|(from, to)| from != to) else { return Vec::new() };
    let (Ok(from), Ok(to), Some(project)) =
        (Oid::from_str(from), Oid::from_str(to), app.projects.get(&request.project))
    else {
        return Vec::new();
    };
    let Ok(mirror) = project.mirror() else { return Vec::new() };
    match tokio::time::timeout(PATIENCE, mirror.commits_between(from, to, COMMITS + 1)).await {
        Ok(Ok(found)) => found
            .into_iter()
            .map(|commit| Since {
                id: short(Some(&commit.id.to_string())),
                title: commit.message.lines().next().unwrap_or_default().to_owned(),
                author: commit.author,
            })
            .collect(),
        Ok(Err(error)) => {
            tracing::debug!(build = %rows.build.id, %error, "the commits since the last good build cannot be listed");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}
