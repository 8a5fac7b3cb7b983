//! A build by hand.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};

use crate::daemon::subject::Asked;
use crate::store::access::Scope;
use crate::web::App;
use crate::web::api::page::{Body, Named};
use crate::web::api::projects as api;
use crate::web::pages::form::Posted;
use crate::web::problem::Answer;

/// Parameters have names of their own; this keeps them apart from the form's other fields.
pub const PARAM: &str = "param.";

/// Starts a build, and leads to where its decision is seen.
pub async fn start(
    State(app): State<App>,
    Named(name): Named<String>,
    posted: Posted<BTreeMap<String, String>>,
) -> Answer<Response> {
    super::found(&posted.visitor, &app, Scope::Trigger, &name)?;
    let asked = asked(&posted.form);
    let (_, Json(triggered)) =
        api::trigger(posted.visitor.caller, State(app), Named(name.clone()), Body(asked)).await?;
    Ok(Redirect::to(&format!("/projects/{name}?trigger={}", triggered.trigger)).into_response())
}

/// What the form asks for. An empty field is one that was not filled in.
fn asked(form: &BTreeMap<String, String>) -> Asked {
    let text = |name: &str| form.get(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let params = form.iter().filter_map(|(name, value)| Some((name.strip_prefix(PARAM)?.to_owned(), value.clone())));
    Asked {
        branch: text("branch"),
        pipeline: text("pipeline"),
        params: params.filter(|(_, value)| !value.is_empty()).collect(),
        no_reuse: form.contains_key("no_reuse"),
        ..Asked::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_become_wishes() {
        let form = [("branch", " main "), ("pipeline", ""), ("param.trees", "5"), ("param.name", ""), ("csrf", "x")];
        let form = form.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let asked = asked(&form);
        assert_eq!(asked.branch.as_deref(), Some("main"));
        assert_eq!(asked.pipeline, None);
        assert_eq!(asked.params, BTreeMap::from([("trees".to_owned(), "5".to_owned())]));
        assert!(!asked.no_reuse);
    }
}
