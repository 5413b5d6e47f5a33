//! Error responses: the table of EA §1.11, and the mapping of domain errors to its rows.

use std::borrow::Cow;

use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use muster_core::denial::Denial;
use muster_core::error_chain::SharedError;
use muster_core::reported::shortened_to;
use muster_core::{Error, ErrorKind};
use muster_protocol::elastic::error::ErrorBody;

use muster_listen::refusal::Refusal;
use muster_listen::reply::{Reply, ReplyBody};

/// Default `Retry-After` in seconds.
const RETRY_SECONDS: u32 = 10;

/// Maximum bytes of the reason in a 400: decoders quote the value that they could not parse, which may be long.
const LONGEST_REASON: usize = 512;

/// A row: the `error` code, the HTTP status, and the message. With an empty message, the error's own text is used.
type Row = (&'static str, u16, &'static str);

// Agents log the code and the message, and decide by the status.
/// All errors by code. Where the protocol has two messages for a code, the second one is set where it is used.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("AgentNotFound", 404, "agent could not be found"),
    ("Unauthorized", 401, "Agent not active"),
    ("StatusClientClosedRequest", 499, "server is stopping"),
    ("AgentNotReplaceable", 403, "existing agent cannot be replaced"),
    ("InvalidUserAgent", 400, "user-agent is invalid"),
    ("UnsupportedVersion", 400, "version is not supported"),
    ("NotFound", 404, "not found"),
    ("Forbidden", 403, ""),
    ("TooManyRequests", 429, "too many requests"),
    ("RateLimit", 429, "exceeded the rate limit"),
    ("MaxLimit", 429, "exceeded the max limit"),
    ("TooManyBulkDispatches", 429, "too many pending bulk dispatches"),
    ("EnrollDuplicate", 429, "concurrent enrollment for same id: retry"),
    ("RequestTimeout", 408, "timeout on request"),
    ("TransitHashRequired", 400, "Transit hash required"),
    ("ErrAgentIdentity", 403, "Agent header contains wrong identifier"),
    ("ErrAgentCorrupted", 400, "Agent record corrupted"),
    ("ErrAgentInactive", 401, "Agent inactive"),
    ("ErrFileInfoBodyRequired", 400, "file info body is required"),
    ("ErrAgentIDMissing", 400, "required field agent_id is missing"),
    ("ErrTLSRequired", 501, "server must run with tls to use this endpoint"),
    ("ErrNoAuthHeader", 401, "no authorization header"),
    ("ErrMalformedHeader", 400, "malformed authorization header"),
    ("ErrUnauthorized", 401, "unauthorized"),
    ("ErrMalformedToken", 400, "malformed token"),
    ("ErrInvalidToken", 401, "token not valid utf8"),
    ("ErrAPIKeyNotFound", 401, "api key not found"),
    ("ErrFileSizeTooLarge", 400, ""),
    ("ErrFileFeatureDisable", 403, "File Transfer is disabled in Fleet Server configuration"),
    ("ErrMissingChunks", 400, "file data incomplete, not all chunks were uploaded"),
    ("ErrHashMismatch", 400, "hash does not match"),
    ("ErrUploadExpired", 400, "upload has expired"),
    ("ErrUploadStopped", 400, "upload has stopped"),
    ("ErrInvalidChunkNum", 400, "invalid chunk number"),
    ("ErrFailValidation", 400, "file contents failed validation"),
    ("ErrStatusNoUploads", 400, "file closed, not accepting uploads"),
    ("ErrPayloadRequired", 400, "upload start payload required"),
    ("ErrFileSizeRequired", 400, "file.size is required"),
    ("ErrInvalidFileSize", 400, ""),
    ("ErrFieldRequired", 400, ""),
    ("ErrInvalidAPIVersionFormat", 400, "elastic-api-version must be a date: YYYY-MM-DD"),
    ("ErrUnsupportedAPIVersion", 400, "unsupported elastic-api-version; this server supports 2023-06-01"),
    ("ErrNoFile", 404, "file not found"),
    ("ErrRangeNotSatisfiable", 416, "range not satisfiable"),
    ("ErrInvalidFileID", 400, "ErrInvalidID"),
    ("ErrClientFileForbidden", 403, "client forbidden"),
    ("ErrFileForDeliveryNotFound", 404, "file not found"),
    ("ErrPolicyNotFound", 400, "ErrPolicyNotFound"),
    ("ErrAuditReasonConflict", 409, "agent document contains audit_unenroll_reason"),
    ("ErrPayloadSizeTooLarge", 413, "the request body exceeds the maximum allowed size"),
    ("BadRequest", 400, ""),
    ("UnsupportedMediaType", 415, "unsupported Content-Encoding: use gzip for check-ins, and no encoding for other requests"),
    ("HeaderTooLarge", 431, ""),
    ("EnrolledAfterBackup", 503, "the server was restored from a backup and does not know this key"),
    ("ServiceUnavailable", 503, ""),
    ("InternalServerError", 500, ""),
];

/// An error response before it is serialized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    row: Row,
    message: Cow<'static, str>,
    retry_after: Option<u32>,
    /// Cause, for the log.
    source: Option<SharedError>,
    /// A reason for operators that is more precise than the code.
    because: Option<&'static str>,
}

impl ApiError {
    /// Creates the error with this code and the message of its row. A code without a row is a bug, and becomes a 500.
    pub fn of(code: &'static str) -> Self {
        let row = row(code).unwrap_or(("InternalServerError", 500, "internal error; see the server's log"));
        Self {
            row,
            message: row.2.into(),
            retry_after: matches!(row.1, 429 | 503).then_some(1),
            source: None,
            because: None,
        }
    }

    /// Creates a 400 `BadRequest` with this reason.
    pub fn bad_request(text: impl std::fmt::Display) -> Self {
        let text = text.to_string();
        Self::of("BadRequest").message(format!("Bad request: {}", shortened_to(&text, LONGEST_REASON)))
    }

    /// Creates the error for a request that the connection layer refuses.
    pub fn refused(refusal: &Refusal) -> Self {
        let code = match refusal {
            Refusal::HeadTooLarge => "HeaderTooLarge",
            Refusal::Full => "TooManyRequests",
            Refusal::Handshake(_)
            | Refusal::TooManyConnections
            | Refusal::TooManyIdle
            | Refusal::Displaced
            | Refusal::SentAhead => "ServiceUnavailable",
            Refusal::Malformed(_)
            | Refusal::Length(_)
            | Refusal::PlainHttp
            | Refusal::ProxyProtocol
            | Refusal::NoCertificate
            | Refusal::CertificateInvalidated => "BadRequest",
        };
        Self::of(code).message(format!("Bad request: {refusal}"))
    }

    /// Replaces the message.
    #[must_use]
    pub fn message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    /// Sets `Retry-After`, in seconds; at least 1.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds.max(1));
        self
    }

    /// Sets a reason for operators that is more precise than the code.
    #[must_use]
    pub fn because(mut self, reason: &'static str) -> Self {
        self.because = Some(reason);
        self
    }

    /// Returns the reason as a single word, for logs and metrics.
    pub fn reason(&self) -> &'static str {
        self.because.unwrap_or(self.row.0)
    }

    /// Returns the message.
    pub fn text(&self) -> &str {
        &self.message
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.row.1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Returns the protocol's error code.
    pub fn code(&self) -> &'static str {
        self.row.0
    }

    /// Returns the cause, for the log. Clients must not see it.
    pub fn cause(&self) -> Option<&SharedError> {
        self.source.as_ref()
    }

    /// Converts the error to the response.
    pub fn into_reply(self) -> Reply {
        let status = self.status();
        let body = ErrorBody { status_code: self.row.1, error: self.row.0.into(), message: self.message };
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let mut reply = Response::new(ReplyBody::from(bytes::Bytes::from(json)));
        *reply.status_mut() = status;
        let headers = reply.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        // Messages can quote input, which a browser must not interpret as HTML.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        // Distinguishes a refused content coding from a refused media type (RFC 9110 §15.5.16).
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        reply
    }
}

fn row(code: &str) -> Option<Row> {
    TABLE.iter().find(|row| row.0 == code).copied()
}

impl From<Error> for ApiError {
    /// Maps by the denial if there is one, else by the kind.
    fn from(error: Error) -> Self {
        let Error { kind, message, source, denial, .. } = error;
        let found = match denial.map(code_of) {
            // A row without a message is used for several reasons.
            Some(code) if row(code).is_some_and(|row| row.2.is_empty()) => Self::of(code).message(message),
            Some(code) => Self::of(code),
            None => of_kind(kind, message),
        };
        Self { source, ..found }
    }
}

/// Returns the protocol's code for a denial. Exhaustive, so that a new denial does not compile without a code.
const fn code_of(denial: Denial) -> &'static str {
    match denial {
        // Only hosts of fleetd are bound to certificates.
        Denial::UnknownKey | Denial::OtherCertificate => "ErrUnauthorized",
        Denial::EnrolledAfterBackup => "EnrolledAfterBackup",
        Denial::ForeignKey => "ErrAgentIdentity",
        Denial::NotAnAgent => "AgentNotFound",
        Denial::NotReplaceable => "AgentNotReplaceable",
        // Only of programs of fleetd.
        Denial::OneTimeSecretSpent | Denial::OneTimeSecretMismatch | Denial::EnrollCooldown => "ErrUnauthorized",
        Denial::EnrollmentRace => "EnrollDuplicate",
        Denial::PolicyGone => "ErrPolicyNotFound",
        Denial::LeftForGood => "ErrAuditReasonConflict",
        Denial::UploadsDisabled => "ErrFileFeatureDisable",
        Denial::UploadField => "ErrFieldRequired",
        Denial::UploadSizeMissing => "ErrFileSizeRequired",
        Denial::UploadSizeInvalid => "ErrInvalidFileSize",
        Denial::UploadTooLarge => "ErrFileSizeTooLarge",
        Denial::TooManyUploads => "MaxLimit",
        Denial::UnknownUpload => "ErrInvalidFileID",
        Denial::UploadExpired => "ErrUploadExpired",
        Denial::UploadStopped => "ErrUploadStopped",
        Denial::ChunkNumber => "ErrInvalidChunkNum",
        Denial::ChunkHash => "ErrHashMismatch",
        Denial::UploadHashMissing => "TransitHashRequired",
        Denial::UploadClosed => "ErrStatusNoUploads",
        Denial::ChunksMissing => "ErrMissingChunks",
        Denial::UploadInvalid => "ErrFailValidation",
        Denial::UnknownFile => "ErrFileForDeliveryNotFound",
        Denial::FileGone => "ErrNoFile",
    }
}

fn of_kind(kind: ErrorKind, message: String) -> ApiError {
    match kind {
        ErrorKind::Invalid => ApiError::bad_request(message),
        ErrorKind::Unauthenticated => ApiError::of("ErrUnauthorized"),
        ErrorKind::Forbidden => ApiError::of("Forbidden").message(message),
        ErrorKind::NotFound => ApiError::of("NotFound").message(message),
        ErrorKind::TooMany => ApiError::of("TooManyRequests"),
        // The record changed concurrently, so the same request succeeds when it is retried. Not 409, which has its own
        // meaning for agents (EA138).
        ErrorKind::Conflict => ApiError::of("ServiceUnavailable").message(message).retry_after(1),
        ErrorKind::Unavailable => ApiError::of("ServiceUnavailable").message(message).retry_after(RETRY_SECONDS),
        ErrorKind::Internal => ApiError::of("InternalServerError").message(message),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn body(reply: Reply) -> String {
        String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn ea9_error_bodies_have_three_keys_and_the_json_content_type() {
        let reply = ApiError::of("ErrAgentIdentity").into_reply();
        assert_eq!(reply.status(), 403);
        assert_eq!(reply.headers()[CONTENT_TYPE], "application/json; charset=utf-8");
        assert_eq!(reply.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        let expected =
            r#"{"statusCode":403,"error":"ErrAgentIdentity","message":"Agent header contains wrong identifier"}"#;
        assert_eq!(body(reply).await, expected);
        let silent = ApiError::of("Forbidden").into_reply();
        assert_eq!(body(silent).await, r#"{"statusCode":403,"error":"Forbidden"}"#);
    }

    #[test]
    fn ea18_an_unavailable_store_is_503_with_retry_after() {
        let error = Error::new(ErrorKind::Unavailable, "store_unavailable", "the store can't write now");
        let reply = ApiError::from(error.caused_by("disk full")).into_reply();
        assert_eq!(reply.status(), 503);
        assert_eq!(reply.headers()[RETRY_AFTER], "10");
    }

    #[test]
    fn domain_errors_are_mapped_by_denial_or_kind() {
        assert_eq!(ApiError::from(Error::from(Denial::ForeignKey)), ApiError::of("ErrAgentIdentity"));
        let error = Denial::UploadField.because("src is required");
        assert_eq!(ApiError::from(error).message, "src is required");
        let error = Error::new(ErrorKind::Invalid, "invalid", "status: missing");
        assert_eq!(ApiError::from(error).message, "Bad request: status: missing");
    }

    #[test]
    fn codes_are_unique_and_unknown_codes_become_500() {
        for (at, row) in TABLE.iter().enumerate() {
            assert!(TABLE[..at].iter().all(|other| other.0 != row.0), "duplicate code {}", row.0);
            assert!(StatusCode::from_u16(row.1).is_ok());
        }
        assert_eq!(ApiError::of("NoSuchWord").status(), 500);
    }
}
