//! Webhook calls and all other triggers, each with what came of it and why.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::page::{self, Cursor, Listed, Named, Page, Rows, rows};
use crate::engine::now;
use crate::store::access::{self, Scope};
use crate::store::deliveries::{self, DeliveryRow};
use crate::store::triggers::{self, TriggerRow};
use crate::store::{StoreError, Tx};
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::problem::{Answer, Problem};

/// What happened to a project, and what came of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TriggerView {
    /// Its number.
    pub id: u64,
    /// The project.
    pub project: String,
    /// `webhook`, `poll`, `watch`, `catch-up`, `schedule` or `manual`.
    pub source: String,
    /// The webhook call.
    pub delivery: Option<u64>,
    /// What was seen or asked for; null for a webhook call.
    #[schema(value_type = Object)]
    pub subject: serde_json::Value,
    /// When, in microseconds since 1970.
    pub received_at: i64,
    /// `started`, `awaiting`, `skipped`, `ignored`, `duplicate`, `cancelled` or `failed`; absent while it is open.
    pub decision: Option<String>,
    /// Why.
    pub reason: String,
    /// When it was decided, in microseconds since 1970.
    pub decided_at: Option<i64>,
    /// Builds that it started.
    pub builds: Vec<u64>,
}

impl TriggerView {
    /// A row as shown, with the builds that it started.
    ///
    /// # Errors
    /// The database's.
    pub fn read(db: &Tx, row: TriggerRow) -> Result<Self, StoreError> {
        let builds = triggers::builds(db, row.id)?.into_iter().map(|id| id.0).collect();
        Ok(Self::of(row, builds))
    }

    fn of(row: TriggerRow, builds: Vec<u64>) -> Self {
        Self {
            id: row.id,
            project: row.project,
            source: row.source.word().to_owned(),
            delivery: row.delivery,
            subject: row.subject,
            received_at: row.received_at.0,
            decision: row.decision.map(|decision| decision.word().to_owned()),
            reason: row.reason,
            decided_at: row.decided_at.map(|at| at.0),
            builds,
        }
    }
}

/// A webhook call.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryView {
    /// Our number of it.
    pub id: u64,
    /// Who sent it.
    pub source: String,
    /// The sender's own id of it.
    pub delivery: String,
    /// The sender's word for what happened.
    pub event: String,
    /// Size of the body in bytes.
    pub size: u64,
    /// When it came, in microseconds since 1970.
    pub received_at: i64,
    /// What came of it, for each project that it concerns and the caller sees.
    pub triggers: Vec<TriggerView>,
}

impl DeliveryView {
    /// A row as shown to whoever sees all projects.
    ///
    /// # Errors
    /// The database's.
    pub fn read(db: &Tx, row: DeliveryRow) -> Result<Self, StoreError> {
        let came = triggers::of_delivery(db, row.id)?.into_iter();
        let triggers = came.map(|trigger| TriggerView::read(db, trigger)).collect::<Result<_, _>>()?;
        Ok(Self::of(row, triggers))
    }

    fn of(row: DeliveryRow, triggers: Vec<TriggerView>) -> Self {
        let DeliveryRow { id, source, delivery, event, headers: _, size, received_at } = row;
        Self { id, source, delivery, event, size, received_at: received_at.0, triggers }
    }
}

/// Of which project.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Of {
    /// Only those of this project.
    pub project: Option<String>,
    /// Which page: the `next` of the page before.
    #[param(value_type = Option<i64>, minimum = 0)]
    pub before: Option<Cursor>,
    /// Rows, 1 to 200; 20 if not given.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 200)]
    pub limit: Option<Rows>,
}

/// Everything that happened to the projects, newest first.
#[utoipa::path(get, path = "/triggers", params(Of),
    responses((status = 200, body = Listed<TriggerView>), (status = 404, body = Problem)))]
pub async fn triggers(
    caller: Caller,
    State(app): State<App>,
    page::Asked(of): page::Asked<Of>,
) -> Answer<Json<Listed<TriggerView>>> {
    match &of.project {
        Some(project) => caller.may_in(Scope::Read, project)?,
        None => caller.may(Scope::Read)?,
    }
    let limit = rows(of.limit);
    let read = app.engine.store.read(move |db| {
        let rows = triggers::list(db, of.project.as_deref(), of.before.map(Cursor::number), limit + 1)?;
        rows.into_iter().map(|row| Ok((triggers::builds(db, row.id)?, row))).collect::<Result<Vec<_>, _>>()
    });
    let page = Listed::of(read.await?, limit, |(_, row)| row.id);
    let seen = page.items.into_iter().filter(|(_, row)| caller.sees(&row.project));
    let items = seen.map(|(builds, row)| TriggerView::of(row, builds.into_iter().map(|id| id.0).collect()));
    Ok(Json(Listed { items: items.collect(), next: page.next }))
}

/// One trigger.
#[utoipa::path(get, path = "/triggers/{trigger}", params(("trigger" = u64, Path)),
    responses((status = 200, body = TriggerView), (status = 404, body = Problem)))]
pub async fn trigger(caller: Caller, State(app): State<App>, Named(id): Named<u64>) -> Answer<Json<TriggerView>> {
    caller.may(Scope::Read)?;
    let read = app.engine.store.read(move |db| Ok((triggers::get(db, id)?, triggers::builds(db, id)?)));
    let (row, builds) = read.await?;
    caller.may_in(Scope::Read, &row.project).map_err(|_| Problem::missing(format!("there is no trigger {id}")))?;
    Ok(Json(TriggerView::of(row, builds.into_iter().map(|id| id.0).collect())))
}

/// Webhook calls, newest first.
#[utoipa::path(get, path = "/deliveries", params(Page),
    responses((status = 200, body = Listed<DeliveryView>), (status = 401, body = Problem)))]
pub async fn list(
    caller: Caller,
    State(app): State<App>,
    page::Asked(page): page::Asked<Page>,
) -> Answer<Json<Listed<DeliveryView>>> {
    caller.may(Scope::Read)?;
    let limit = page.limit();
    let read = app.engine.store.read(move |db| {
        let rows = deliveries::list(db, page.before(), limit + 1)?;
        rows.into_iter().map(|row| with_triggers(db, row)).collect::<Result<Vec<_>, _>>()
    });
    let listed = Listed::of(read.await?, limit, |(row, _)| row.id);
    let items = listed.items.into_iter().filter_map(|(row, came)| view(&caller, row, came));
    Ok(Json(Listed { items: items.collect(), next: listed.next }))
}

/// One webhook call.
#[utoipa::path(get, path = "/deliveries/{delivery}", params(("delivery" = u64, Path)),
    responses((status = 200, body = DeliveryView), (status = 404, body = Problem)))]
pub async fn show(caller: Caller, State(app): State<App>, Named(id): Named<u64>) -> Answer<Json<DeliveryView>> {
    Ok(Json(seen(&caller, &app, id).await?))
}

/// The body of a webhook call, as it came.
#[utoipa::path(get, path = "/deliveries/{delivery}/body", params(("delivery" = u64, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 404, body = Problem)))]
pub async fn body(caller: Caller, State(app): State<App>, Named(id): Named<u64>) -> Answer<axum::response::Response> {
    use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
    use axum::response::IntoResponse;
    seen(&caller, &app, id).await?;
    let bytes = app.engine.store.read(move |db| deliveries::body(db, id)).await?;
    let name = format!("attachment; filename=\"delivery-{id}\"");
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_DISPOSITION, name),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, bytes).into_response())
}

/// Decides upon a webhook call again, for all its projects.
#[utoipa::path(post, path = "/deliveries/{delivery}/replay", params(("delivery" = u64, Path)),
    responses((status = 202, body = DeliveryView), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn replay(
    caller: Caller,
    State(app): State<App>,
    Named(id): Named<u64>,
) -> Answer<(StatusCode, Json<DeliveryView>)> {
    let before = seen(&caller, &app, id).await?;
    for trigger in &before.triggers {
        caller.may_in(Scope::Trigger, &trigger.project)?;
    }
    let name = caller.name.clone();
    let done = app.engine.store.write(move |tx| {
        triggers::replay(tx, id, now())?;
        access::audit(tx, &name, "delivery.replay", &id.to_string(), "", now())
    });
    done.await?;
    for trigger in &before.triggers {
        app.projects.waker(&trigger.project).notify_one();
    }
    Ok((StatusCode::ACCEPTED, Json(seen(&caller, &app, id).await?)))
}

type Came = Vec<(TriggerRow, Vec<u64>)>;

fn with_triggers(db: &Tx, row: DeliveryRow) -> Result<(DeliveryRow, Came), StoreError> {
    let came = triggers::of_delivery(db, row.id)?.into_iter().map(|trigger| {
        let builds = triggers::builds(db, trigger.id)?.into_iter().map(|id| id.0).collect();
        Ok((trigger, builds))
    });
    let came = came.collect::<Result<Came, StoreError>>()?;
    Ok((row, came))
}

/// A call as the caller sees it; none if it concerns only projects that the caller does not see.
fn view(caller: &Caller, row: DeliveryRow, came: Came) -> Option<DeliveryView> {
    let triggers: Vec<_> = came
        .into_iter()
        .filter(|(trigger, _)| caller.sees(&trigger.project))
        .map(|(trigger, builds)| TriggerView::of(trigger, builds))
        .collect();
    if triggers.is_empty() && caller.projects().is_some() {
        return None;
    }
    Some(DeliveryView::of(row, triggers))
}

async fn seen(caller: &Caller, app: &App, id: u64) -> Answer<DeliveryView> {
    caller.may(Scope::Read)?;
    let (row, came) = app.engine.store.read(move |db| with_triggers(db, deliveries::get(db, id)?)).await?;
    view(caller, row, came).ok_or_else(|| Problem::missing(format!("there is no delivery {id}")))
}
