//! Forms that only our own pages can send.

use axum::Form;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, Method, header};
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::CSRF_HEADER;
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::problem::Problem;

/// The field that carries the CSRF token.
const FIELD: &str = "csrf";
const FORM: &str = "application/x-www-form-urlencoded";

/// A form with the CSRF token of who sends it, in the field `csrf` or the header `x-csrf-token`. `T` has the other fields.
pub struct SignedForm<T> {
    /// Who sends it.
    pub caller: Caller,
    /// What it says.
    pub form: T,
}

impl<T: DeserializeOwned> FromRequest<App> for SignedForm<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::identify(&parts, app).await?;
        let given = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let header = parts.headers.get(CSRF_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let request = Request::from_parts(parts.clone(), body);
        let bytes = Bytes::from_request(request, app).await.map_err(|error| Problem::too_large(error.body_text()))?;
        let kind = given.as_deref().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !bytes.is_empty() && !kind.eq_ignore_ascii_case(FORM) {
            return Err(Problem::invalid(format!("send the form as {FORM}")));
        }
        let (signs, fields): (Vec<_>, Vec<_>) = form_urlencoded::parse(&bytes).partition(|(name, _)| name == FIELD);
        let sign = header.as_deref().or_else(|| signs.first().map(|(_, value)| value.as_ref()));
        caller.signed(sign)?;
        let rest = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        parts.method = Method::POST;
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FORM));
        let form = Form::<T>::from_request(Request::from_parts(parts, Body::from(rest)), app).await;
        let Form(form) = form.map_err(|error| Problem::invalid(format!("the form: {}", error.body_text())))?;
        Ok(Self { caller, form })
    }
}
