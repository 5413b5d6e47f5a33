//! Errors, in the form of each plane (FL §0.3, §1.12).
//!
//! osqueryd ignores the status of a response. Any body without a member `error` is a success to it, so every refusal has
//! one. With `node_invalid: true`, it discards its key: only a wrong key gets that, never trouble of the server.

use std::time::Duration;

use http::StatusCode;
use muster_core::denial::Denial;
use muster_core::error_chain::SharedError;
use muster_core::{Error, ErrorKind};
use muster_listen::receive::BodyError;
use muster_protocol::fleetd::{FleetError, FleetErrorReason, OsqueryError};

use super::route::Plane;

/// A failed request.
#[derive(Debug)]
pub struct Failure {
    /// Status of the response.
    pub status: StatusCode,
    /// Code, for the list of refusals and for metrics.
    pub reason: &'static str,
    /// What failed, for the client. Contains no secret.
    pub message: String,
    /// Whether osqueryd must discard its key.
    pub is_key_invalid: bool,
    /// Time after which the client may try again.
    pub retry_after: Option<Duration>,
    /// Cause, for the log.
    pub cause: Option<SharedError>,
}

impl Failure {
    /// Creates a failure.
    pub fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into(), is_key_invalid: false, retry_after: None, cause: None }
    }

    /// A request that can't be read.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// The node key is unknown, revoked, or missing.
    pub fn invalid_key() -> Self {
        let message = "Authentication required";
        Self { is_key_invalid: true, ..Self::new(StatusCode::UNAUTHORIZED, "InvalidNodeKey", message) }
    }

    /// Returns the failure of an enrollment: osqueryd enrolls again whatever the reason (FL4), but trouble of the server must
    /// look like that.
    pub fn of_enrollment(error: Error) -> Self {
        let is_secret = error.denial == Some(Denial::UnknownKey);
        let is_one_time = matches!(error.denial, Some(Denial::OneTimeSecretSpent | Denial::OneTimeSecretMismatch));
        let reason = error.code;
        let failure = Self::from(error);
        let is_key_invalid = !failure.status.is_server_error();
        if is_secret {
            // Only people with the server's log may learn that a secret was valid once.
            let reason = if failure.cause.is_some() { "RevokedEnrollSecret" } else { "InvalidEnrollSecret" };
            return Self { reason, message: "enroll failed: invalid secret".into(), is_key_invalid, ..failure };
        }
        if is_one_time {
            // The host learns no more than of a secret that never was: the reason is in the audit log.
            return Self { reason, message: "enroll failed: invalid secret".into(), is_key_invalid, ..failure };
        }
        Self { is_key_invalid, ..failure }
    }

    /// Returns the body.
    pub fn body(&self, plane: Plane, uuid: &str) -> Vec<u8> {
        let (message, node_invalid) = (self.message.as_str(), self.is_key_invalid);
        let body = match plane {
            Plane::Osquery => serde_json::to_vec(&OsqueryError { error: message, uuid, node_invalid }),
            Plane::Page => return super::device::error_page(self).into_bytes(),
            Plane::Push => return format!("{message}\n").into_bytes(),
            Plane::Orbit | Plane::Device => {
                let errors = [FleetErrorReason { name: "base", reason: message }];
                serde_json::to_vec(&FleetError { message, errors, uuid })
            }
        };
        // Strings always serialize. An empty body would be a success to osqueryd.
        body.unwrap_or_else(|_| br#"{"error":"internal error","message":"internal error"}"#.to_vec())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.denial == Some(Denial::OtherCertificate) {
            // The key itself is valid: once the host has its certificate again, it works.
            return Self::new(StatusCode::UNAUTHORIZED, "OtherCertificate", error.message);
        }
        let status = match error.kind {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Unauthenticated => return Self { cause: error.source, ..Self::invalid_key() },
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::TooMany => StatusCode::TOO_MANY_REQUESTS,
            // Without the details, such as paths on the server's disk.
            ErrorKind::Unavailable => {
                let message = "the server is not available now: retry later";
                let cause = error.source.or_else(|| Some(error.message.into()));
                return Self { cause, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, error.code, message) };
            }
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { cause: error.source, ..Self::new(status, error.code, error.message) }
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { limit, .. } => {
                let message = format!("request body too large: at most {limit} bytes are accepted");
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge", message)
            }
            BodyError::Late => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", "the request body did not arrive in time")
            }
            BodyError::Broken => Self::bad_request("the request body could not be read"),
            BodyError::Lengths => Self::bad_request("conflicting lengths of the request body"),
            BodyError::NotGzip => Self::bad_request("the request body is not valid gzip"),
            BodyError::Coding => {
                let message = "unsupported content coding: use gzip, or none";
                Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
            }
            BodyError::Busy => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "MaxLimit", "too many large requests at once; retry later")
            }
        }
    }
}

/// Returns what an operator can do about a reason; empty if there is nothing to do.
pub fn remedy(reason: &str) -> &'static str {
    match reason {
        "InvalidEnrollSecret" => {
            "create an enroll secret with `muster enrollment-key create --family fleetd`, and build the package with it"
        }
        "RevokedEnrollSecret" => {
            "the enroll secret of the package is revoked or expired: build the package with a valid one, as `muster enrollment-key create --family fleetd` prints it"
        }
        "TooManyEnrollSecrets" => {
            "an address sends invalid enroll secrets: find the host, and remove or rebuild its package"
        }
        "one_time_secret_spent" => {
            "the host has used its one-time secret: if it was reinstalled, create another one with `muster enrollment-key create --family fleetd --one-time`"
        }
        "one_time_secret_identifier_mismatch" => {
            "a host uses the one-time secret of another one: find out how it got it, and create one for this host"
        }
        "enroll_cooldown" => {
            "no action is needed if it happens once; otherwise, two hosts may have the same identifier: package fleetd with --host-identifier=instance"
        }
        "InvalidNodeKey" => {
            "no action is needed if the host enrolls again; otherwise, its enroll secret is revoked, or belongs to another server"
        }
        "OtherCertificate" => {
            "if the host has a new client certificate with other names, delete the host, which then enrolls again; otherwise, find out who else has its node key or its hardware UUID"
        }
        "UnknownQuery" => {
            "no action is needed if the server was restarted; otherwise, find out who else has the host's node key"
        }
        "UnknownCarve" => "no action is needed if the carve was deleted, or the host began another one",
        "PushIsOff" => {
            "to use push, set osquery.push in the server's configuration; otherwise, orbit continues to poll"
        }
        "BadRequest" | "invalid" => {
            "the request is malformed: check whether a proxy changes bodies, and the version of the program that sends it"
        }
        "InvalidDeviceToken" => {
            "no action is needed if it happens once: Fleet Desktop gets a new token from orbit; otherwise, check that orbit runs on the host"
        }
        "TooManyDeviceTokens" => "an address sends invalid device tokens: find out what runs there",
        "BodyTooLarge" => "the maximum sizes are in docs/fleetd.md; for logs of osquery, lower logger_tls_max_lines",
        "NoSuchPath" => "unknown path: check the URL that is configured in the package or the proxy",
        "MethodNotAllowed" => "check the proxy or the monitor that sends it",
        "RequestTimeout" => "the connection is slow, or a proxy delays requests",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn body(failure: &Failure, plane: Plane) -> Value {
        serde_json::from_slice(&failure.body(plane, "u")).unwrap()
    }

    #[test]
    fn fl3_fl5_fl53_a_wrong_key_has_the_form_of_its_plane() {
        let osquery = body(&Failure::from(Error::from(Denial::UnknownKey)), Plane::Osquery);
        assert_eq!(osquery, serde_json::json!({"error": "Authentication required", "uuid": "u", "node_invalid": true}));
        let orbit = body(&Failure::invalid_key(), Plane::Orbit);
        assert!(orbit.get("node_invalid").is_none() && orbit.get("error").is_none());
        assert_eq!(orbit["errors"][0], serde_json::json!({"name": "base", "reason": "Authentication required"}));
    }

    #[test]
    fn fl7_trouble_of_the_server_never_invalidates_a_key() {
        for kind in [ErrorKind::Unavailable, ErrorKind::Internal] {
            let error = || Error::new(kind, "x", "x");
            for failure in [Failure::from(error()), Failure::of_enrollment(error())] {
                assert!(failure.status.is_server_error());
                assert!(body(&failure, Plane::Osquery).get("node_invalid").is_none());
            }
        }
    }

    #[test]
    fn fl4_other_failures_of_an_enrollment_have_node_invalid() {
        let failure = Failure::of_enrollment(Error::new(ErrorKind::Invalid, "x", "x"));
        assert_eq!(body(&failure, Plane::Osquery)["node_invalid"], true);
    }

    #[test]
    fn fl42_a_body_over_the_limit_is_413_with_an_error() {
        let failure = Failure::from(BodyError::TooLarge { limit: 5, length: None });
        assert_eq!(failure.status, 413);
        assert!(body(&failure, Plane::Osquery)["error"].is_string());
    }

    #[test]
    fn fl42_fl159_a_late_body_is_408_with_an_error() {
        let failure = Failure::from(BodyError::Late);
        assert_eq!(failure.status, 408);
        assert!(body(&failure, Plane::Osquery)["error"].is_string());
        assert!(body(&failure, Plane::Osquery).get("node_invalid").is_none());
    }
}
