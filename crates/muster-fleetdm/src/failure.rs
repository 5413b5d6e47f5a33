//! Error responses in FleetDM's format: `{message, errors: [{name, reason}], uuid}`.

use std::num::NonZeroU16;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use muster_core::authorization::Forbidden;
use muster_core::entropy::random_uuid;
use muster_core::error_chain::SharedError;
use muster_core::{Entropy, Error, ErrorKind};
use serde_json::{Value, json};

/// The page that lists what this API has, which errors for missing routes name.
pub const DOCS: &str = "docs/fleetdm-api.md";

/// Name of an error that is not about a parameter.
const BASE: &str = "base";

/// The result of a handler.
pub type Answer = Result<Json<Value>, Failure>;

/// An error that becomes a response.
#[derive(Clone, Debug)]
pub struct Failure {
    status: StatusCode,
    message: String,
    /// The parameter, or [`BASE`].
    name: String,
    reason: String,
    retry_after: Option<NonZeroU16>,
    /// The cause, for the log only.
    cause: Option<SharedError>,
}

impl Failure {
    /// Creates an error. `message` is the kind of error in FleetDM's words.
    pub fn new(status: StatusCode, message: &str, reason: impl Into<String>) -> Self {
        let (message, name) = (message.to_owned(), BASE.to_owned());
        Self { status, message, name, reason: reason.into(), retry_after: None, cause: None }
    }

    /// Creates the error for a request that cannot be read.
    pub fn bad(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Bad request", reason)
    }

    /// Creates the error for an invalid parameter.
    pub fn invalid(name: &str, reason: impl Into<String>) -> Self {
        let failure = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Validation Failed", reason);
        Self { name: name.to_owned(), ..failure }
    }

    /// Creates the error for a missing object.
    pub fn not_found(what: &str, id: impl std::fmt::Display) -> Self {
        Self::missing(format!("{what} {id} was not found"))
    }

    /// Creates the error for a path that this API does not have.
    pub fn no_such_route(uri: &Uri) -> Self {
        Self::missing(format!("the path {} is not part of this API, in which ids are integers ({DOCS})", uri.path()))
    }

    /// Creates the error for a name that is taken.
    pub fn exists(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Resource Already Exists", reason)
    }

    fn missing(reason: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Resource Not Found", reason)
    }

    /// Returns what failed, for messages over WebSocket.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns the response, with an id under which the cause is logged.
    pub fn respond(self, entropy: &dyn Entropy) -> Response {
        let uuid = random_uuid(entropy);
        if let Some(cause) = &self.cause {
            // The cause can name tables and paths, so the client only gets the id under which it is logged.
            tracing::warn!(uuid, %cause, "request to the FleetDM API failed");
        }
        let errors = json!([{"name": self.name, "reason": self.reason}]);
        let body = json!({"message": self.message, "errors": errors, "uuid": uuid});
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.get()));
        }
        response
    }
}

/// Returns the name of a parameter of this API for a field of Muster's.
fn parameter(field: String) -> String {
    match field.as_str() {
        "sql" => "query".to_owned(),
        "kuery" | "hosts" => "selected".to_owned(),
        "platforms" => "platform".to_owned(),
        _ => field,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let Error { kind, code, message, field, remedy, source, retry_after, .. } = error;
        let mut reason = message;
        // FleetDM's errors have no field for a remedy, and clients print only the reason.
        if let Some(remedy) = remedy {
            reason = format!("{reason}; {remedy}");
        }
        let failure = match (kind, field) {
            (ErrorKind::Invalid, Some(field)) => {
                // Muster's messages begin with the field, which FleetDM's have in `name`.
                let text = reason.strip_prefix(&format!("{field}: ")).unwrap_or(&reason).to_owned();
                Self::invalid(&parameter(field), text)
            }
            (ErrorKind::Invalid, None) => Self::bad(reason),
            (ErrorKind::Unauthenticated, _) => Self::new(StatusCode::UNAUTHORIZED, "Authentication required", reason),
            (ErrorKind::Forbidden, _) => Self::new(StatusCode::FORBIDDEN, "Permission Denied", reason),
            (ErrorKind::NotFound, _) => Self::missing(reason),
            (ErrorKind::Conflict, _) if code.ends_with("_taken") || code.ends_with("exists") => Self::exists(reason),
            (ErrorKind::Conflict, _) => Self::new(StatusCode::CONFLICT, "Conflict", reason),
            (ErrorKind::TooMany, _) => Self::new(StatusCode::TOO_MANY_REQUESTS, "limit exceeded", reason),
            (ErrorKind::Unavailable, _) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable", reason),
            (ErrorKind::Internal, _) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error", reason),
        };
        Self { retry_after, cause: source, ..failure }
    }
}

impl From<Forbidden> for Failure {
    fn from(forbidden: Forbidden) -> Self {
        Error::from(forbidden).into()
    }
}

/// The body is added by [`enter`](crate::entry::enter), which has the source of random ids.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
