//! What people decide about models: promote, reject, roll back.
//!
//! The answer comes when the decision is durable. What follows from it, a server that takes another one's port, goes on by
//! itself: the deployments say how it stands, and the decisions what came of it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::models::{DeploymentView, no_model, seen_as};
use super::page::{Body, Cursor, Named, Perhaps};
use crate::engine::EngineError;
use crate::engine::by_hand::{self, Asked, Decided, Refused, Wish};
use crate::store::access::Scope;
use crate::store::models;
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::problem::{Answer, Problem};

/// For so long a request waits for others that change what serves the model.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest reason, in characters.
const LONGEST: usize = 1000;

/// A decision about a version.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pick {
    /// The version.
    #[schema(value_type = u64)]
    pub version: Cursor,
    /// Why, for the history: up to 1000 characters.
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub reason: String,
    /// The champion that you saw: nothing is done if it is another one by now.
    #[schema(value_type = Option<u64>)]
    pub champion: Option<Cursor>,
}

/// A wish to go back.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Back {
    /// Why, for the history: up to 1000 characters.
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub reason: String,
    /// The champion that you saw: nothing is done if it is another one by now.
    #[schema(value_type = Option<u64>)]
    pub champion: Option<Cursor>,
}

/// What was decided.
#[derive(Debug, Serialize, ToSchema)]
pub struct DecidedView {
    /// About which version.
    pub version: u64,
    /// `promoted`, `rejected` or `rolled-back`; none if things stood like that already.
    pub verdict: Option<&'static str>,
    /// The champion before.
    pub before: Option<u64>,
    /// The server that takes the port now, if one served.
    pub deployment: Option<DeploymentView>,
}

/// Makes a version champion, whatever a pipeline said of it. If a version serves, this one takes its port.
#[utoipa::path(post, path = "/models/{model}/promote", params(("model" = String, Path)), request_body = Pick,
    responses((status = 202, body = DecidedView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn promote(
    caller: Caller,
    State(app): State<App>,
    Named(model): Named<String>,
    Body(pick): Body<Pick>,
) -> Answer<(StatusCode, Json<DecidedView>)> {
    let wish = Wish::Promote(pick.version.number());
    decide(&caller, app, asked(&caller, model, wish, pick.reason, pick.champion)?).await
}

/// Keeps a version, and any other with the same files, from being promoted by a pipeline.
#[utoipa::path(post, path = "/models/{model}/reject", params(("model" = String, Path)), request_body = Pick,
    responses((status = 202, body = DecidedView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn reject(
    caller: Caller,
    State(app): State<App>,
    Named(model): Named<String>,
    Body(pick): Body<Pick>,
) -> Answer<(StatusCode, Json<DecidedView>)> {
    let wish = Wish::Reject(pick.version.number());
    decide(&caller, app, asked(&caller, model, wish, pick.reason, pick.champion)?).await
}

/// Makes the champion before champion again. If a version serves, that one takes its port back.
#[utoipa::path(post, path = "/models/{model}/rollback", params(("model" = String, Path)), request_body = Option<Back>,
    responses((status = 202, body = DecidedView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn rollback(
    caller: Caller,
    State(app): State<App>,
    Named(model): Named<String>,
    Perhaps(back): Perhaps<Back>,
) -> Answer<(StatusCode, Json<DecidedView>)> {
    let back = back.unwrap_or_default();
    decide(&caller, app, asked(&caller, model, Wish::RollBack, back.reason, back.champion)?).await
}

fn asked(caller: &Caller, model: String, wish: Wish, reason: String, seen: Option<Cursor>) -> Answer<Asked> {
    let reason = reason.trim().to_owned();
    if reason.chars().count() > LONGEST {
        return Err(Problem::invalid(format!("`reason` has more than {LONGEST} characters")));
    }
    Ok(Asked { model, wish, seen: seen.map(Cursor::number), reason, actor: caller.name.to_string() })
}

/// Whether the caller may decide about the model, and about the version that would be champion or rejected. Answers the champion
/// that this was found out for.
pub async fn may(caller: &Caller, app: &App, model: &str, wish: Wish) -> Answer<Option<u64>> {
    let project = seen_as(caller, app, model).await?;
    caller.may_in(Scope::Approve, &project)?;
    let name = model.to_owned();
    let read = app.engine.store.read(move |db| {
        let champion = models::champion(db, &name)?;
        let version = match wish {
            Wish::Promote(version) | Wish::Reject(version) => Some(models::version(db, &name, version)?.version),
            Wish::RollBack => champion.map(|now| models::before(db, &name, now)).transpose()?.flatten(),
        };
        let made_in = version.map(|version| models::made_in(db, &name, version)).transpose()?.flatten();
        Ok((champion, made_in))
    });
    let (champion, made_in) = read.await?;
    // It is told as one that there is not: whose it is may be none of the caller's business.
    if made_in.is_some_and(|project| !caller.sees(&project)) {
        return Err(match wish {
            Wish::Promote(version) | Wish::Reject(version) => Problem::missing(models::no_version(model, version)),
            Wish::RollBack => no_model(model),
        });
    }
    Ok(champion)
}

async fn decide(caller: &Caller, app: App, mut asked: Asked) -> Answer<(StatusCode, Json<DecidedView>)> {
    let champion = may(caller, &app, &asked.model, asked.wish).await?;
    if asked.wish == Wish::RollBack {
        // What it goes back to hangs on the champion: another one by then is asked about anew.
        asked.seen = asked.seen.or(champion);
    }
    let (turn, mut came) = oneshot::channel();
    let (tell, told) = oneshot::channel();
    let model = asked.model.clone();
    // In a task of its own: a caller who hangs up must not leave a deployment in the middle.
    tokio::spawn(carry_out(app, asked, turn, tell));
    if tokio::time::timeout(PATIENCE, &mut came).await.is_err() {
        came.close();
        // It may have come in this very moment.
        if came.try_recv().is_err() {
            let who = "another deployment or promotion";
            return Err(Problem::conflict(format!(
                "{who} is changing what serves `{model}`, and nothing was done: look again when it has ended"
            )));
        }
    }
    let decided = told.await.map_err(|error| Problem::internal(&error))??;
    let view = DecidedView {
        version: decided.version,
        verdict: decided.verdict,
        before: decided.before,
        deployment: decided.deployment.map(DeploymentView::from),
    };
    Ok((StatusCode::ACCEPTED, Json(view)))
}

/// The whole walk. `turn` is told when it may begin: whoever waited has to be there still.
async fn carry_out(app: App, asked: Asked, turn: oneshot::Sender<()>, tell: oneshot::Sender<Answer<Decided>>) {
    let (engine, model) = (&app.engine, &asked.model);
    let holder = format!("{} by the daemon", asked.actor);
    let waits = |who: &str| tracing::info!(model, "a decision {who}");
    let (_right, recovered) = match by_hand::right(engine, model, &holder, (&app.secrets, waits)).await {
        Ok(taken) => taken,
        Err(error) => {
            let _gone = tell.send(Err(error.into()));
            return;
        }
    };
    for found in recovered {
        tracing::warn!("version {} of `{model}` {}", found.version, found.what);
    }
    if turn.send(()).is_err() {
        return;
    }
    let decided = match by_hand::decide(engine, &asked).await {
        Ok(decided) => decided,
        Err(refused) => {
            let _gone = tell.send(Err(problem(refused)));
            return;
        }
    };
    let _gone = tell.send(Ok(decided.clone()));
    match by_hand::make_true(engine, &decided, &app.secrets).await {
        Ok(()) => {
            tracing::info!(model, version = decided.version, verdict = decided.verdict, by = asked.actor, "decided")
        }
        // The rows say so, too, and what serves now.
        Err(error) => tracing::error!(model, version = decided.version, "a decision could not be made true: {error}"),
    }
}

fn problem(refused: Refused) -> Problem {
    match refused {
        Refused::Impossible(why) => Problem::conflict(why),
        // Its files are gone, or the store of artifacts cannot be reached: nothing was changed.
        Refused::Engine(error @ (EngineError::Artifact(_) | EngineError::Source(_))) => {
            Problem::conflict(format!("the version cannot be started: {error}"))
        }
        Refused::Engine(error) => error.into(),
    }
}
