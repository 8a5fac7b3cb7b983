//! Who looks at a page, and what proves that a form is ours.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::store::access::Scope;
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::problem::Problem;
use crate::web::session::mask;

/// Who looks.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// What they may do.
    pub caller: Caller,
    /// Goes into every form, and has to come back with it.
    pub csrf: String,
    /// They signed in, and can sign out.
    pub signed_in: bool,
}

impl Visitor {
    /// Whether a button for this is shown in a project.
    pub fn may_in(&self, scope: Scope, project: &str) -> bool {
        self.caller.may_in(scope, project).is_ok()
    }
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Ok(Caller::from_request_parts(parts, app).await?.into())
    }
}

impl From<Caller> for Visitor {
    fn from(caller: Caller) -> Self {
        Self { csrf: mask(caller.csrf()), signed_in: caller.session().is_some(), caller }
    }
}
