//! What people decide about a model: each asked for once more, with what it means. The deed itself is the API's.

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use crate::engine::by_hand::Wish;
use crate::store::deployments::{self, DeploymentRow};
use crate::store::models::{self, Promotion};
use crate::web::App;
use crate::web::api::champion::{self as api, Back, Pick};
use crate::web::api::page::{Body, Cursor, Named, Perhaps};
use crate::web::pages::confirm::Confirm;
use crate::web::pages::form::Posted;
use crate::web::pages::shell::Section;
use crate::web::pages::visitor::Visitor;
use crate::web::problem::{Answer, Problem};

/// What the form says.
#[derive(Debug, Deserialize)]
pub struct Decision {
    #[serde(default)]
    reason: String,
    /// The champion that the page showed.
    champion: Option<Cursor>,
}

/// How a model stands before the deed.
struct Standing {
    champion: Option<u64>,
    /// The champion before this one.
    before: Option<u64>,
    live: Option<DeploymentRow>,
    /// The newest decision about the version that is asked about.
    last: Option<Promotion>,
}

/// Decisions among which one about the version is looked for.
const DECISIONS: usize = 200;

async fn standing(visitor: &Visitor, app: &App, model: &str, wish: Wish) -> Answer<Standing> {
    api::may(&visitor.caller, app, model, wish).await?;
    let version = match wish {
        Wish::Promote(version) | Wish::Reject(version) => Some(version),
        Wish::RollBack => None,
    };
    let model = model.to_owned();
    let read = app.engine.store.read(move |db| {
        let champion = models::champion(db, &model)?;
        let before = match champion {
            Some(champion) => models::before(db, &model, champion)?,
            None => None,
        };
        let history = models::history(db, &model, DECISIONS)?;
        let last = history.into_iter().find(|decision| Some(decision.about()) == version);
        Ok(Standing { champion, before, live: deployments::live(db, &model)?, last })
    });
    Ok(read.await?)
}

impl Standing {
    /// What happens to what serves if this version becomes champion.
    fn server(&self, version: u64) -> String {
        match &self.live {
            None => "Nothing serves this model: only the registry changes.".to_owned(),
            Some(live) if live.version == version => format!("It serves already, on port {}.", live.port),
            Some(live) => format!(
                "Version {} serves on port {}: it stops, and version {version} takes its port. If that does not get ready, version \
                 {} comes back.",
                live.version, live.port, live.version
            ),
        }
    }

    fn judged(&self, version: u64) -> String {
        let Some(last) = &self.last else { return format!("Version {version} was never judged against a champion.") };
        let reason = last.evidence.get("reason").and_then(serde_json::Value::as_str).unwrap_or_default();
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        format!("The last decision about version {version} was “{}”, by {}{reason}.", last.verdict, last.actor)
    }

    fn hidden(&self) -> Vec<(&'static str, String)> {
        self.champion.map(|champion| ("champion", champion.to_string())).into_iter().collect()
    }
}

fn paths(model: &str, version: u64, verb: &str) -> (String, String) {
    let back = format!("/models/{model}/versions/{version}");
    (format!("{back}/{verb}"), back)
}

fn to_model(model: &str) -> Response {
    Redirect::to(&format!("/models/{model}")).into_response()
}

/// Before a version becomes champion.
pub async fn ask_promote(
    visitor: Visitor,
    State(app): State<App>,
    Named((model, version)): Named<(String, u64)>,
) -> Answer<Response> {
    let standing = standing(&visitor, &app, &model, Wish::Promote(version)).await?;
    if standing.champion == Some(version) {
        return Ok(to_model(&model));
    }
    let champion =
        standing.champion.map_or("It has no champion now.".to_owned(), |now| format!("Version {now} is champion now."));
    let facts = vec![champion, standing.judged(version), standing.server(version)];
    let question = format!("Make version {version} the champion of {model}?");
    let asked = Confirm::new(&visitor, Section::Models, question, paths(&model, version, "promote"));
    let buttons = vec![("", "Promote it", true)];
    super::super::page(&Confirm { facts, buttons, reason: true, hidden: standing.hidden(), ..asked })
}

/// Makes a version champion.
pub async fn promote(
    State(app): State<App>,
    Named((model, version)): Named<(String, u64)>,
    posted: Posted<Decision>,
) -> Answer<Response> {
    let pick = pick(version, posted.form)?;
    let _ = api::promote(posted.visitor.caller, State(app), Named(model.clone()), Body(pick)).await?;
    Ok(to_model(&model))
}

/// Before a version is rejected.
pub async fn ask_reject(
    visitor: Visitor,
    State(app): State<App>,
    Named((model, version)): Named<(String, u64)>,
) -> Answer<Response> {
    let standing = standing(&visitor, &app, &model, Wish::Reject(version)).await?;
    let facts = vec![
        standing.judged(version),
        "No pipeline promotes it from then on, nor another version with the very same files. A person still can."
            .to_owned(),
    ];
    let question = format!("Reject version {version} of {model}?");
    let asked = Confirm::new(&visitor, Section::Models, question, paths(&model, version, "reject"));
    let buttons = vec![("", "Reject it", true)];
    super::super::page(&Confirm { facts, buttons, reason: true, hidden: standing.hidden(), ..asked })
}

/// Rejects a version.
pub async fn reject(
    State(app): State<App>,
    Named((model, version)): Named<(String, u64)>,
    posted: Posted<Decision>,
) -> Answer<Response> {
    let pick = pick(version, posted.form)?;
    let _ = api::reject(posted.visitor.caller, State(app), Named(model.clone()), Body(pick)).await?;
    Ok(to_model(&model))
}

fn pick(version: u64, form: Decision) -> Answer<Pick> {
    let version = Cursor::try_from(version).map_err(Problem::invalid)?;
    Ok(Pick { version, reason: form.reason, champion: form.champion })
}

/// Before the champion before comes back.
pub async fn ask_rollback(visitor: Visitor, State(app): State<App>, Named(model): Named<String>) -> Answer<Response> {
    let standing = standing(&visitor, &app, &model, Wish::RollBack).await?;
    let Some((champion, before)) = standing.champion.zip(standing.before) else {
        return Err(Problem::conflict(format!("`{model}` has no champion before this one to go back to")));
    };
    let facts = vec![
        format!("Version {champion} is champion now; version {before} was it before, and becomes it again."),
        standing.server(before),
        format!("No pipeline promotes version {champion} again by itself. A person still can."),
    ];
    let question = format!("Roll {model} back to version {before}?");
    let (action, back) = (format!("/models/{model}/rollback"), format!("/models/{model}"));
    let asked = Confirm::new(&visitor, Section::Models, question, (action, back));
    let buttons = vec![("", "Roll back", true)];
    super::super::page(&Confirm { facts, buttons, reason: true, hidden: standing.hidden(), ..asked })
}

/// Makes the champion before champion again.
pub async fn rollback(
    State(app): State<App>,
    Named(model): Named<String>,
    posted: Posted<Decision>,
) -> Answer<Response> {
    let back = Back { reason: posted.form.reason, champion: posted.form.champion };
    let _ = api::rollback(posted.visitor.caller, State(app), Named(model.clone()), Perhaps(Some(back))).await?;
    Ok(to_model(&model))
}
