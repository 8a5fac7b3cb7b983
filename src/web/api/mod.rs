//! `/api/v1`: the same things as the command line, for programs. `openapi.json` describes it; it is made from these types.

pub mod artifacts;
mod atom;
pub mod builds;
pub mod champion;
pub mod deliveries;
pub mod events;
pub mod feeds;
pub mod logs;
pub mod models;
pub mod page;
pub mod projects;
pub mod queue;
pub mod sealed;
pub mod secrets;
pub mod tokens;
pub mod view;

use axum::Router;
use axum::routing::{delete, get, post, put};
use utoipa::OpenApi;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, ContentBuilder, Ref, RefOr, Required, Response, ResponseBuilder};

use super::App;
use super::session::CSRF_HEADER;

/// The content type of errors (RFC 9457).
const PROBLEM_JSON: &str = "application/problem+json";

/// The description of the API.
#[derive(OpenApi)]
#[openapi(
    info(title = "orchestrator", description = "CI/CD for machine-learning teams"),
    servers((url = "/api/v1")),
    security(("token" = []), ("cookieAuth" = [])),
    modifiers(&Schemes, &Keys, &Signs, &Problems),
    paths(
        builds::list, builds::show, builds::cancel, builds::retry_build, builds::approve, builds::move_build, events::of_build,
        logs::lines, logs::raw, logs::search, logs::follow,
        projects::list, projects::show, projects::trigger,
        deliveries::triggers, deliveries::trigger,
        deliveries::list, deliveries::show, deliveries::body, deliveries::replay,
        artifacts::list, artifacts::get,
        models::list, models::versions, models::version, models::promotions, models::deployments,
        champion::promote, champion::reject, champion::rollback,
        atom::feed, feeds::badge, feeds::cctray, feeds::plot, events::all,
        queue::show, queue::pause, queue::resume, queue::runners,
        secrets::list_of_project, secrets::set_of_project, secrets::remove_of_project,
        secrets::list, secrets::set_of_all, secrets::remove_of_all, secrets::rotate,
        tokens::list, tokens::create, tokens::revoke, tokens::audit,
    )
)]
pub struct Description;

/// By what callers are known.
struct Schemes;

impl utoipa::Modify for Schemes {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("`orchestrator tokens create NAME --scope read`, or `POST /tokens`."))
            .build();
        let cookie = ApiKeyValue::with_description(
            "orchestrator-INSTANCE",
            "A browser that signed in at `/sign-in`. INSTANCE is the data folder's own number; by https the name begins with \
             `__Host-`. What changes something needs the header `x-csrf-token` as well, and has to come from one of the \
             server's own pages (`Sec-Fetch-Site`, `Origin`).",
        );
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        components.add_security_scheme("cookieAuth", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// Whatever changes something is signed by who is known by a cookie.
struct Signs;

impl utoipa::Modify for Signs {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let header = ParameterBuilder::new()
            .name(CSRF_HEADER)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "Only with the cookie: the session's CSRF token, as the field `csrf` of every form has it.",
            ))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .build();
        for item in openapi.paths.paths.values_mut() {
            for operation in [&mut item.put, &mut item.post, &mut item.delete].into_iter().flatten() {
                operation.parameters.get_or_insert_default().push(header.clone());
            }
        }
    }
}

/// Every POST takes a key by which it is known again.
struct Keys;

impl utoipa::Modify for Keys {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let key = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "Chosen by the sender, 1 to 255 visible characters, kept for a day: the same request with the same key gets the \
                 first one's answer, another request with it 409.",
            ))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255))))
            .build();
        for (path, item) in &mut openapi.paths.paths {
            // The answer of this one holds a token, and is not kept.
            if let Some(post) = item.post.as_mut().filter(|_| path != "/tokens") {
                post.parameters.get_or_insert_default().push(key.clone());
            }
        }
    }
}

/// What every operation may answer instead of what was asked for, always as a problem.
struct Problems;

/// Status, when, and what it means.
const PROBLEMS: &[(&str, When, &str)] = &[
    ("400", When::Read, "Something of the request cannot be read, or makes no sense."),
    ("401", When::Always, "No token, or none that is valid."),
    ("403", When::Always, "The token does not allow this."),
    ("404", When::Named, "There is no such thing, or the token does not allow to know of it."),
    ("409", When::Post, "Not possible in this state; or the Idempotency-Key was another request's."),
    ("413", When::Body, "The body is too large."),
    ("429", When::Always, "Too many wrong tokens from this address; `retry_after` says when to go on."),
    ("503", When::Always, "The database is busy or its disk is full; try again."),
];

/// For which operations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// Those that read more than their path.
    Read,
    /// Those with a name or number in the path.
    Named,
    Post,
    Body,
}

impl utoipa::Modify for Problems {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut openapi.paths.paths {
            let named = path.contains('{');
            let all = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
            for (at, operation) in all.into_iter().enumerate().filter_map(|(at, one)| Some((at, one.as_mut()?))) {
                let (post, body) = (at == 2, operation.request_body.is_some());
                let given = operation.parameters.as_ref();
                let more = given.is_some_and(|all| all.iter().any(reads_more));
                for (status, when, means) in PROBLEMS {
                    let holds = match when {
                        When::Always => true,
                        When::Read => body || more,
                        When::Named => named,
                        When::Post => post,
                        When::Body => body,
                    };
                    if holds {
                        let response = problem_response(means);
                        operation.responses.responses.entry((*status).to_owned()).or_insert(RefOr::T(response));
                    }
                }
                for response in operation.responses.responses.values_mut() {
                    as_problem(response);
                }
            }
        }
    }
}

/// Whether a parameter can be wrong by itself: those of the path name what is not there then, and a CSRF token is refused.
fn reads_more(one: &Parameter) -> bool {
    one.parameter_in != ParameterIn::Path && one.name != CSRF_HEADER
}

fn problem_response(means: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(means).content(PROBLEM_JSON, content).build()
}

/// Problems have a content type of their own.
fn as_problem(response: &mut RefOr<Response>) {
    let RefOr::T(response) = response else { return };
    let is_problem =
        |content: &Content| matches!(&content.schema, Some(RefOr::Ref(to)) if to.ref_location.ends_with("/Problem"));
    if response.content.get("application/json").is_some_and(is_problem)
        && let Some(content) = response.content.shift_remove("application/json")
    {
        response.content.insert(PROBLEM_JSON.to_owned(), content);
    }
}

/// The reference page as it has to be: what lies between its marks is made anew.
///
/// # Errors
/// The mark that is missing.
pub fn reference(page: &str) -> Result<String, &'static str> {
    const BEGIN: &str = "<!-- problems: begin -->\n";
    const END: &str = "<!-- problems: end -->";
    let (before, rest) = page.split_once(BEGIN).ok_or(BEGIN)?;
    let (_, after) = rest.split_once(END).ok_or(END)?;
    Ok(format!("{before}{BEGIN}{}{END}{after}", super::problem::table()))
}

/// The description as pretty JSON, as it is kept in the repository.
///
/// # Errors
/// If it has no JSON form, which would be our own fault.
pub fn description() -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&Description::openapi()).map(|text| text + "\n")
}

/// The API's routes.
pub fn router() -> Router<App> {
    Router::new()
        .route("/openapi.json", get(async || axum::Json(Description::openapi())))
        .route("/builds", get(builds::list))
        .route("/builds/{build}", get(builds::show))
        .route("/builds/{build}/cancel", post(builds::cancel))
        .route("/builds/{build}/retry", post(builds::retry_build))
        .route("/builds/{build}/approve", post(builds::approve))
        .route("/builds/{build}/move", post(builds::move_build))
        .route("/builds/{build}/events", get(events::of_build))
        .route("/builds/{build}/stages/{stage}/attempts/{attempt}/log", get(logs::lines))
        .route("/builds/{build}/stages/{stage}/attempts/{attempt}/log/raw", get(logs::raw))
        .route("/builds/{build}/stages/{stage}/attempts/{attempt}/log/search", get(logs::search))
        .route("/builds/{build}/stages/{stage}/attempts/{attempt}/log/follow", get(logs::follow))
        .route("/builds/{build}/stages/{stage}/artifacts", get(artifacts::list))
        .route("/builds/{build}/stages/{stage}/artifacts/{*path}", get(artifacts::get))
        .route("/events", get(events::all))
        .route("/cctray.xml", get(feeds::cctray))
        .route("/models", get(models::list))
        .route("/models/{model}/versions", get(models::versions))
        .route("/models/{model}/versions/{version}", get(models::version))
        .route("/models/{model}/promotions", get(models::promotions))
        .route("/models/{model}/promote", post(champion::promote))
        .route("/models/{model}/reject", post(champion::reject))
        .route("/models/{model}/rollback", post(champion::rollback))
        .route("/deployments", get(models::deployments))
        .route("/projects", get(projects::list))
        .route("/projects/{project}", get(projects::show))
        .route("/projects/{project}/badge.svg", get(feeds::badge))
        .route("/projects/{project}/feed.atom", get(atom::feed))
        .route("/builds/{build}/plot.svg", get(feeds::plot))
        .route("/projects/{project}/builds", post(projects::trigger))
        .route("/projects/{project}/secrets", get(secrets::list_of_project))
        .route("/projects/{project}/secrets/{name}", put(secrets::set_of_project).delete(secrets::remove_of_project))
        .route("/secrets", get(secrets::list))
        .route("/secrets/rotate", post(secrets::rotate))
        .route("/secrets/{name}", put(secrets::set_of_all).delete(secrets::remove_of_all))
        .route("/triggers", get(deliveries::triggers))
        .route("/triggers/{trigger}", get(deliveries::trigger))
        .route("/deliveries", get(deliveries::list))
        .route("/deliveries/{delivery}", get(deliveries::show))
        .route("/deliveries/{delivery}/body", get(deliveries::body))
        .route("/deliveries/{delivery}/replay", post(deliveries::replay))
        .route("/queue", get(queue::show))
        .route("/queue/pause", post(queue::pause))
        .route("/queue/resume", post(queue::resume))
        .route("/runners", get(queue::runners))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{token}", delete(tokens::revoke))
        .route("/audit", get(tokens::audit))
}
