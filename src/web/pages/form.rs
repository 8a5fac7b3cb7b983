//! Forms that were sent: taken only from a page of ours.

use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;

use super::visitor::Visitor;
use crate::web::App;
use crate::web::problem::Problem;
use crate::web::session::SignedForm;

/// A form, and who sent it.
pub struct Posted<T> {
    /// Who.
    pub visitor: Visitor,
    /// What.
    pub form: T,
}

impl<T: DeserializeOwned> FromRequest<App> for Posted<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let SignedForm { caller, form } = SignedForm::<T>::from_request(request, app).await?;
        Ok(Self { visitor: caller.into(), form })
    }
}
