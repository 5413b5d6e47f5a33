//! Query parameters, paging and preconditions.

use axum::extract::FromRequestParts;
use axum::extract::rejection::QueryRejection;
use axum::http::Uri;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use muster_core::Error;
use muster_core::policy::problem::{is_typo, nearest, shortened};
use muster_protocol::management::envelope::DEFAULT_PER_PAGE;
use muster_store::query::Page;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::body::field_error;
use super::error::ApiError;

/// Maximum of page × perPage (MG §1.1). Longer lists are read with cursors.
const MAX_ROWS: u64 = 10_000;

/// Parameters of the query string. Unknown ones are checked by [`check_names`] before the handler runs.
pub struct Query<T>(pub T);

/// The parameter of [`is_dry_run`], which every request that changes something has.
const DRY_RUN: &str = "dryRun";

/// Rejects unknown parameters of a request that changes something: `?dryrun=true` would otherwise make the change. Also those of a read
/// that Kibana does not have (`is_own`): a list that ignores a filter has too many rows. Kibana's clients send many parameters with reads
/// that have no effect here, so that only those are rejected which resemble a known one.
pub fn check_names(uri: &Uri, is_change: bool, is_own: bool, known: &[String]) -> Result<(), Error> {
    let Ok(axum::extract::Query(sent)) = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        // The handler rejects it.
        return Ok(());
    };
    for (name, _) in sent {
        // Some clients mark repeated parameters.
        let name = name.strip_suffix("[]").unwrap_or(&name);
        if known.iter().any(|known| known == name) || (is_change && name == DRY_RUN) {
            continue;
        }
        let mut candidates: Vec<&str> = known.iter().map(String::as_str).collect();
        candidates.extend(is_change.then_some(DRY_RUN));
        let near = nearest(name, &candidates);
        if !is_change && !is_own && !near.is_some_and(|near| is_typo(name, near)) {
            continue;
        }
        let remedy = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if candidates.is_empty() => "this request has no parameters".to_owned(),
            None => format!("the parameters of this request are {}", candidates.join(", ")),
        };
        return Err(Error::invalid(shortened(name), "unknown query parameter").remedy(remedy));
    }
    Ok(())
}

/// Returns the error of a query string that cannot be decoded. Its field is the parameter.
fn undecodable(rejection: &QueryRejection) -> Error {
    let text = rejection.body_text();
    let reason = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
    match reason.split_once(": ") {
        Some((name, reason)) if !name.contains(' ') => field_error(name, reason),
        _ => field_error(".", reason),
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let axum::extract::Query(query) = query.map_err(|rejection| ApiError(undecodable(&rejection)))?;
        Ok(Self(query))
    }
}

/// `?dryRun=true`: performs all checks without changing anything.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DryRun {
    #[serde(default)]
    dry_run: bool,
}

/// Returns whether a request is a dry run. A value other than `true` or `false` is an error, and not a request to make
/// the change.
pub fn is_dry_run(uri: &Uri) -> Result<bool, Error> {
    let query = axum::extract::Query::<DryRun>::try_from_uri(uri);
    let axum::extract::Query(DryRun { dry_run }) = query.map_err(|rejection| undecodable(&rejection))?;
    Ok(dry_run)
}

/// `If-Match`: the expected `version` of the object, against lost updates. `*` matches any version.
pub struct IfMatch(pub Option<String>);

impl IfMatch {
    /// Returns the version of an object whose versions are numbers.
    pub fn number(self) -> Result<Option<i64>, Error> {
        let parse = |version: String| version.parse().map_err(|_| Error::invalid("If-Match", "must be a number"));
        self.0.map(parse).transpose()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Some(header) = parts.headers.get(IF_MATCH) else { return Ok(Self(None)) };
        let text = header.to_str().map_err(|_| Error::invalid("If-Match", "must be visible ASCII"))?.trim();
        // Only that the object exists, which the update requires anyway (RFC 9110 §13.1.1).
        if text == "*" {
            return Ok(Self(None));
        }
        // An entity tag is quoted; scripts often leave the quotes out.
        let version = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        if version.is_empty() || version.contains(['"', ',']) {
            return Err(Error::invalid("If-Match", "must be one version, such as \"3-1700000000000000\"").into());
        }
        Ok(Self(Some(version.to_owned())))
    }
}

/// The requested page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Page number as requested.
    pub page: u32,
    /// Number of rows on a page.
    pub per_page: u32,
    /// Number of the first page, 0 or 1.
    first: u32,
}

impl Paging {
    /// Validates a page that is numbered from 1.
    pub fn from_one(page: Option<u32>, per_page: Option<u32>) -> Result<Self, Error> {
        Self::check(page.unwrap_or(1), per_page, 1)
    }

    /// Validates a page that is numbered from 0. In Kibana, only the list of actions is.
    pub fn from_zero(page: Option<u32>, per_page: Option<u32>) -> Result<Self, Error> {
        Self::check(page.unwrap_or(0), per_page, 0)
    }

    fn check(page: u32, per_page: Option<u32>, first: u32) -> Result<Self, Error> {
        let per_page = per_page.unwrap_or(DEFAULT_PER_PAGE);
        if page < first {
            return Err(Error::invalid("page", format!("the first page is {first}")));
        }
        // In 64 bits, since page × perPage may overflow 32.
        let pages = u64::from(page - first) + 1;
        if pages * u64::from(per_page) > MAX_ROWS {
            return Err(Error::invalid("perPage", format!("page × perPage must not exceed {MAX_ROWS}")));
        }
        Ok(Self { page, per_page, first })
    }

    /// Returns offset and limit for the store.
    pub fn rows(&self) -> Page {
        Page { offset: (self.page - self.first) * self.per_page, limit: self.per_page }
    }

    /// Returns the rows of this page.
    pub fn cut<T>(&self, all: Vec<T>) -> Vec<T> {
        let Page { offset, limit } = self.rows();
        all.into_iter().skip(offset as usize).take(limit as usize).collect()
    }
}
