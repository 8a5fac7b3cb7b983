//! Tokens, and the audit log.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::page::{Asked, Body, Listed, Named, Page};
use crate::engine::now;
use crate::ids::{Micros, is_name};
use crate::store::access::{self, AuditRow, NewToken, Scope, TokenRow};
use crate::store::{StoreError, Tx};
use crate::web::App;
use crate::web::auth::{Caller, hash, new_token};
use crate::web::problem::{Answer, Problem};

/// Tokens that are listed.
pub const LISTED: usize = 1000;

/// A token, without itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenView {
    /// Its number.
    pub id: u64,
    /// What it is called.
    pub name: String,
    /// What it allows.
    #[schema(value_type = Vec<String>)]
    pub scopes: Vec<Scope>,
    /// For which projects; null for all.
    pub projects: Option<Vec<String>>,
    /// Who made it.
    pub made_by: String,
    /// When, in microseconds since the epoch.
    pub made_at: i64,
    /// When it ends by itself.
    pub expires_at: Option<i64>,
    /// When it was last used, to the minute.
    pub used_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}

impl From<TokenRow> for TokenView {
    fn from(row: TokenRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            scopes: row.scopes,
            projects: row.projects,
            made_by: row.made_by,
            made_at: row.made_at.0,
            expires_at: row.expires_at.map(|at| at.0),
            used_at: row.used_at.map(|at| at.0),
            revoked_at: row.revoked_at.map(|at| at.0),
        }
    }
}

/// All tokens, newest first.
#[utoipa::path(get, path = "/tokens", responses((status = 200, body = Vec<TokenView>), (status = 403, body = Problem)))]
pub async fn list(caller: Caller, State(app): State<App>) -> Answer<Json<Vec<TokenView>>> {
    caller.may(Scope::Admin)?;
    let rows = app.engine.store.read(|db| access::tokens(db, LISTED)).await?;
    Ok(Json(rows.into_iter().map(TokenView::from).collect()))
}

/// What the token is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// What it is called: `[a-z0-9][a-z0-9-]{0,62}`.
    pub name: String,
    /// What it allows: `read`, `trigger`, `approve`, `admin`.
    #[schema(value_type = Vec<String>)]
    pub scopes: Vec<Scope>,
    /// For which projects; all without it.
    pub projects: Option<Vec<String>>,
    /// Days until it ends by itself; never without it.
    #[schema(minimum = 1, maximum = 3650)]
    pub days: Option<u16>,
}

impl Wish {
    /// A new token of this kind, and how it is stored.
    ///
    /// # Errors
    /// What is wrong with the wish.
    pub fn token(self, made_by: &str, at: Micros) -> Result<(String, NewToken), String> {
        if !is_name(&self.name) {
            return Err("`name` is lower-case letters, digits and `-`, at most 63".to_owned());
        }
        if self.scopes.is_empty() {
            return Err("`scopes` is empty; there are read, trigger, approve, admin".to_owned());
        }
        if self.days.is_some_and(|days| !(1..=3650).contains(&days)) {
            return Err("`days` is 1 to 3650".to_owned());
        }
        let token = new_token();
        let new = NewToken {
            name: self.name,
            hash: hash(&token),
            scopes: self.scopes,
            projects: self.projects,
            made_by: made_by.to_owned(),
            expires_at: self.days.map(|days| Micros(at.0 + i64::from(days) * 24 * 3600 * 1_000_000)),
        };
        Ok((token, new))
    }
}

/// Stores a token, and that it was made.
///
/// # Errors
/// The database's.
pub fn store(tx: &Tx, new: &NewToken, at: Micros) -> Result<u64, StoreError> {
    let id = access::create_token(tx, new, at)?;
    access::audit(tx, &new.made_by, "token.create", &new.name, &format!("{:?}", new.scopes), at)?;
    Ok(id)
}

/// A new token.
#[derive(Debug, Serialize, ToSchema)]
pub struct Made {
    /// Its number.
    pub id: u64,
    /// The token. It is shown this once.
    pub token: String,
}

/// Makes a token.
#[utoipa::path(post, path = "/tokens", request_body = Wish,
    responses((status = 201, body = Made), (status = 400, body = Problem), (status = 403, body = Problem)))]
pub async fn create(
    caller: Caller,
    State(app): State<App>,
    Body(wish): Body<Wish>,
) -> Answer<(StatusCode, Json<Made>)> {
    caller.may(Scope::Admin)?;
    let at = now();
    let (token, new) = wish.token(&caller.name, at).map_err(Problem::invalid)?;
    let id = app.engine.store.write(move |tx| store(tx, &new, at)).await?;
    Ok((StatusCode::CREATED, Json(Made { id, token })))
}

/// Ends a token, and every browser session that was opened with it.
#[utoipa::path(delete, path = "/tokens/{token}", params(("token" = u64, Path)),
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn revoke(caller: Caller, State(app): State<App>, Named(id): Named<u64>) -> Answer<StatusCode> {
    caller.may(Scope::Admin)?;
    let at = now();
    app.engine
        .store
        .write(move |tx| {
            access::revoke_token(tx, id, at)?;
            access::audit(tx, &caller.name, "token.revoke", &id.to_string(), "", at)
        })
        .await?;
    app.guard.tell_end();
    Ok(StatusCode::NO_CONTENT)
}

/// A line of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditView {
    /// Its number.
    pub id: u64,
    /// When, in microseconds since the epoch.
    pub at: i64,
    /// Who.
    pub actor: String,
    /// What was done.
    #[schema(example = "build.cancel")]
    pub action: String,
    /// To what.
    pub target: String,
    /// More, for people.
    pub detail: String,
}

impl From<AuditRow> for AuditView {
    fn from(row: AuditRow) -> Self {
        let AuditRow { id, at, actor, action, target, detail } = row;
        Self { id, at: at.0, actor, action, target, detail }
    }
}

/// Who did what, newest first.
#[utoipa::path(get, path = "/audit", params(Page),
    responses((status = 200, body = Listed<AuditView>), (status = 403, body = Problem)))]
pub async fn audit(
    caller: Caller,
    State(app): State<App>,
    Asked(page): Asked<Page>,
) -> Answer<Json<Listed<AuditView>>> {
    caller.may(Scope::Admin)?;
    let rows = app.engine.store.read(move |db| access::audit_log(db, page.before(), page.limit() + 1)).await?;
    let listed = Listed::of(rows, page.limit(), |row| row.id);
    Ok(Json(Listed { items: listed.items.into_iter().map(AuditView::from).collect(), next: listed.next }))
}
