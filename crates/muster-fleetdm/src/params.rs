//! Parameters of the query string, pages, and JSON bodies. Requests that only read ignore unknown parameters, as FleetDM does.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use muster_store::query::Page;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// Maximum number of rows of a page, and of a list without pages.
pub const MAX_ROWS: u32 = 10_000;
/// Number of rows of a page whose size is not given (FleetDM's default).
const DEFAULT_PER_PAGE: u32 = 20;

/// Parameters of requests that change something. `force` means to skip validations of FleetDM.
const OF_CHANGES: [&str; 4] = ["dry_run", "force", "team_id", "fleet_id"];

/// The parameters of the query string.
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl Params {
    /// Parses a query string.
    pub fn parse(query: &str) -> Result<Self, Failure> {
        serde_html_form::from_str(query).map(Self).map_err(|error| Failure::bad(error.to_string()))
    }

    /// Rejects what cannot be a parameter of a request that changes something: a dry run that is misspelled would be a real run.
    pub fn check_change(&self) -> Result<(), Failure> {
        for (at, (name, value)) in self.0.iter().enumerate() {
            if !OF_CHANGES.contains(&name.as_str()) {
                let reason = format!("is unknown; requests that change something have {}", OF_CHANGES.join(", "));
                return Err(Failure::invalid(name, reason));
            }
            if name == "dry_run" && value.is_empty() {
                return Err(Failure::invalid(name, "must be true or false"));
            }
            if self.0[..at].iter().any(|(other, _)| other == name) {
                return Err(Failure::invalid(name, "occurs twice"));
            }
        }
        Ok(())
    }

    /// Returns a parameter; an empty one counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Returns an integer.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Failure::bad(format!("{name}: {text:?} is not an integer of 0 or more")))
    }

    /// Returns a boolean; false by default.
    pub fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(text) => Err(Failure::bad(format!("{name}: {text:?} is not a boolean"))),
        }
    }

    /// Returns whether a name contains the words of a search, ignoring case.
    pub fn finds(&self, name: &str) -> bool {
        self.text("query").is_none_or(|words| name.to_lowercase().contains(&words.to_lowercase()))
    }

    /// Returns the number of a team, under its present and its former name.
    pub fn team(&self) -> Result<Option<u64>, Failure> {
        let team = self.number("team_id")?;
        if team.is_some() { Ok(team) } else { self.number("fleet_id") }
    }

    /// Returns the requested page, numbered from 0. Without page and size, the whole list.
    pub fn paging(&self) -> Result<Paging, Failure> {
        let (page, per_page) = (self.number("page")?, self.number("per_page")?);
        let is_whole = page.is_none() && per_page.is_none();
        let small = |name, number: u64| {
            u32::try_from(number).map_err(|_| Failure::invalid(name, format!("must be at most {}", u32::MAX)))
        };
        let page = small("page", page.unwrap_or(0))?;
        let default = if is_whole { MAX_ROWS } else { DEFAULT_PER_PAGE };
        let per_page = small("per_page", per_page.filter(|rows| *rows > 0).unwrap_or(default.into()))?;
        if per_page > MAX_ROWS {
            return Err(Failure::invalid("per_page", format!("must be at most {MAX_ROWS}")));
        }
        let offset = page.checked_mul(per_page).ok_or_else(|| Failure::invalid("page", "is too large"))?;
        Ok(Paging { offset, limit: per_page, is_whole })
    }

    /// Returns whether the order is descending.
    pub fn descending(&self) -> Result<bool, Failure> {
        match self.text("order_direction") {
            None | Some("asc") => Ok(false),
            Some("desc") => Ok(true),
            Some(_) => Err(Failure::invalid("order_direction", "must be asc or desc")),
        }
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Params {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }
}

/// Returns the names in a list that is separated by commas, such as one of platforms.
pub fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The requested rows of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Number of rows before.
    pub offset: u32,
    /// Maximum number of rows.
    pub limit: u32,
    /// Whether the client wants the whole list.
    pub is_whole: bool,
}

impl Paging {
    /// Returns the page for services.
    pub fn rows(&self) -> Page {
        Page { offset: self.offset, limit: self.limit }
    }

    /// Cuts the page out of a complete list.
    pub fn cut<T>(&self, all: Vec<T>) -> Vec<T> {
        all.into_iter().skip(self.offset as usize).take(self.limit as usize).collect()
    }

    /// Returns the information about the page in a list of `total` rows. Fails if the client wants a whole list that is too
    /// long: it would take a part for the whole.
    pub fn meta(&self, total: u64) -> Result<Value, Failure> {
        if self.is_whole && total > u64::from(self.limit) {
            let reason =
                format!("is required: there are {total} rows, and a list without pages has at most {MAX_ROWS}");
            return Err(Failure::invalid("per_page", reason));
        }
        let end = u64::from(self.offset) + u64::from(self.limit);
        Ok(json!({"has_next_results": end < total, "has_previous_results": self.offset > 0}))
    }
}

/// Parameters of the path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let found = axum::extract::Path::from_request_parts(parts, state).await;
        // A word in the place of a number is the path of a page that this API does not have, such as hosts/report.
        found.map(|found| Self(found.0)).map_err(|_| Failure::no_such_route(&parts.uri))
    }
}

/// A JSON body.
pub struct Input<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "Request body is too large", rejection.body_text())
            }
            _ => Failure::bad(rejection.body_text()),
        })?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Failure::bad("Expected JSON Body"));
        }
        // serde also takes the fields of a struct from an array, and describes other values by the name of the struct.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(Failure::bad("expected a JSON object"));
        }
        serde_json::from_slice(&bytes).map(Self).map_err(|error| unreadable(&error.to_string()))
    }
}

/// Returns the error for a body that cannot be read.
fn unreadable(reason: &str) -> Failure {
    let unknown = reason.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    unknown.map_or_else(|| Failure::bad(reason), |(name, _)| unknown_field(name))
}

fn unknown_field(name: &str) -> Failure {
    Failure::invalid(name, "unknown field")
}

/// Checks the members of a body that a handler does not use: those of `unsupported` must not be set, those of `ignored` may have any value,
/// and no others may exist, because a misspelled member would be missing: a policy would be for all hosts, for example.
pub fn check_unused(members: &Map<String, Value>, unsupported: &[&str], ignored: &[&str]) -> Result<(), Failure> {
    reject_set(members, unsupported)?;
    let is_known = |name: &str| unsupported.contains(&name) || ignored.contains(&name);
    members.keys().find(|name| !is_known(name)).map_or(Ok(()), |name| Err(unknown_field(name)))
}

/// Rejects members of a body that Muster does not have and that would change what the body means, unless they say what is the case anyway.
pub fn reject_set(members: &Map<String, Value>, unsupported: &[&str]) -> Result<(), Failure> {
    match unsupported.iter().find(|name| members.get(**name).is_some_and(is_set)) {
        Some(name) => Err(Failure::invalid(name, "is not supported; without it, the object would have another effect")),
        None => Ok(()),
    }
}

/// Returns whether a value sets something: anything but what a program sends for nothing.
pub fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(elements) => elements.iter().any(is_set),
        Value::Object(members) => members.values().any(is_set),
        Value::Number(number) => number.as_u64() != Some(0),
        Value::String(text) => !text.is_empty(),
        Value::Bool(true) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paging(query: &str) -> Option<(u32, u32, bool)> {
        let paging = Params::parse(query).ok()?.paging().ok()?;
        Some((paging.offset, paging.limit, paging.is_whole))
    }

    #[test]
    fn pages_are_numbered_from_zero_and_bounded() {
        assert_eq!(paging(""), Some((0, MAX_ROWS, true)));
        assert_eq!(paging("page=2"), Some((40, 20, false)));
        assert_eq!(paging("page=1&per_page=50&other=x"), Some((50, 50, false)));
        for bad in ["page=-1", "page=x", "per_page=10001", "page=4294967295&per_page=2", "per_page=99999999999"] {
            assert_eq!(paging(bad), None, "{bad}");
        }
    }

    #[test]
    fn requests_that_change_something_have_no_unknown_parameters() {
        let check = |query: &str| Params::parse(query).ok().unwrap().check_change().is_ok();
        for good in ["", "dry_run=true", "dry_run=false&team_id=7", "fleet_id=7", "force=true", "team_id="] {
            assert!(check(good), "{good}");
        }
        for bad in ["dryRun=true", "dry-run=true", "DRY_RUN=true", "dry_run", "dry_run=", "dry_run=false&dry_run=true"]
        {
            assert!(!check(bad), "{bad}");
        }
    }

    #[test]
    fn a_whole_list_is_never_a_part_of_one() {
        let whole = Params::parse("").ok().unwrap().paging().ok().unwrap();
        assert!(whole.meta(10_000).is_ok() && whole.meta(10_001).is_err());
        let page = Params::parse("page=1&per_page=2").ok().unwrap().paging().ok().unwrap();
        assert_eq!(page.meta(5).ok(), Some(json!({"has_next_results": true, "has_previous_results": true})));
        assert_eq!(page.meta(4).ok().unwrap()["has_next_results"], false);
    }
}
