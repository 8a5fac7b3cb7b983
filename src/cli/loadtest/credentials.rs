//! What of the command line is secret: it is sent, and never shown. Servers like to quote it in their error pages.

use anyhow::Context;
use base64::Engine;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::load::checks::CheckResult;
use crate::load::report::LoadReport;
use crate::logs::Quotes;

/// Headers whose values are secret, in small letters.
const SECRET_HEADERS: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-auth-token"];

/// The value of `Authorization` that a URL's name and password make, and the URL without them.
///
/// # Errors
/// If they are not text.
pub(super) fn split(url: &Url) -> anyhow::Result<(Url, Option<Login>)> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok((url.clone(), None));
    }
    let decode = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8().context("the URL's user and password are not UTF-8 text");
        decoded.map(std::borrow::Cow::into_owned)
    };
    let (user, password) = (decode(url.username())?, decode(url.password().unwrap_or_default())?);
    let mut bare = url.clone();
    // Neither can fail for http and https, which have a host.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    Ok((bare, Some(Login { user, password })))
}

/// A name and a password.
pub(super) struct Login {
    user: String,
    password: String,
}

impl Login {
    /// As a header's value.
    pub(super) fn header(&self) -> String {
        let pair = format!("{}:{}", self.user, self.password);
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    }
}

/// Hides the secrets of these headers, and of the URL's login.
pub(super) fn quotes<'a>(login: Option<&Login>, headers: impl Iterator<Item = (&'a String, &'a String)>) -> Quotes {
    let mut secrets: Vec<(String, String)> = Vec::new();
    for (name, value) in headers.filter(|(name, _)| SECRET_HEADERS.contains(&name.to_ascii_lowercase().as_str())) {
        // `Bearer TOKEN`, `a=b; c=d`: each part is one, too.
        let parts = value.split([' ', ';', '=']).map(str::trim).filter(|part| part.len() >= 8);
        secrets.extend(parts.chain([value.as_str()]).map(|part| (name.clone(), part.to_owned())));
    }
    if let Some(login) = login {
        secrets.push(("password".to_owned(), login.password.clone()));
    }
    Quotes::new(secrets.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// Everything in the report that quotes others.
pub(super) fn hide(report: &mut LoadReport, quotes: &Quotes) {
    let texts = report.errors.iter_mut().flat_map(|group| {
        [&mut group.name, &mut group.kind, &mut group.message].into_iter().chain(group.example.as_mut())
    });
    let names = report.requests.iter_mut().map(|request| &mut request.name);
    for text in texts.chain(names).chain(&mut report.reasons).chain(&mut report.notes) {
        *text = quotes.text(text);
    }
}

/// As [`hide`], in the contract's results.
pub(super) fn hide_checks(results: &mut [CheckResult], quotes: &Quotes) {
    for result in results {
        let headers = result.headers.iter_mut().map(|(_, value)| value);
        let texts = [&mut result.name, &mut result.request, &mut result.body].into_iter();
        for text in texts.chain(headers).chain(&mut result.failures).chain(&mut result.expected) {
            *text = quotes.text(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_becomes_a_header_and_leaves_the_url() {
        let (bare, login) = split(&Url::parse("http://me:p%40ss%20w@h:1/x?y").unwrap()).unwrap();
        assert_eq!(bare.as_str(), "http://h:1/x?y");
        assert_eq!(login.unwrap().header(), "Basic bWU6cEBzcyB3");
        assert!(split(&Url::parse("http://h/").unwrap()).unwrap().1.is_none());
        assert!(split(&Url::parse("http://%ff@h/").unwrap()).is_err());
    }

    #[test]
    fn parts_of_secret_headers_are_hidden() {
        let headers = [
            ("Authorization".to_owned(), "Bearer abcdefgh12".to_owned()),
            ("cookie".to_owned(), "session=0123456789".to_owned()),
            ("accept".to_owned(), "application/json".to_owned()),
        ];
        let quotes = quotes(None, headers.iter().map(|(name, value)| (name, value)));
        let shown = quotes.text("bad token abcdefgh12 in 0123456789; accept: application/json");
        assert_eq!(shown, "bad token *** in ***; accept: application/json");
    }
}
