//! Routing by path segments (EA §1.1). Written by hand: there are eleven routes, and the protocol's rules for trailing
//! slashes and escapes differ from those of router crates.

use std::borrow::Cow;

use http::{HeaderValue, Method};
use percent_encoding::percent_decode_str;

use super::limits::Operation;

/// A percent-decoded path segment. It is untrusted and not yet parsed. Invalid UTF-8 is replaced by U+FFFD, which no id
/// contains.
pub type Segment<'a> = Cow<'a, str>;

/// A known path with its variable parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/api/status`
    Status,
    /// `/api/fleet/agents/enroll`
    Enroll,
    /// `/api/fleet/agents/{id}/checkin`
    CheckIn(Segment<'a>),
    /// `/api/fleet/agents/{id}/acks`
    Acks(Segment<'a>),
    /// `/api/fleet/agents/{id}/audit/unenroll`
    AuditUnenroll(Segment<'a>),
    /// `/api/fleet/artifacts/{id}/{sha2}`
    Artifact(Segment<'a>, Segment<'a>),
    /// `/api/fleet/uploads`
    UploadBegin,
    /// `PUT /api/fleet/uploads/{id}/{chunk}`
    UploadChunk(Segment<'a>, Segment<'a>),
    /// `POST /api/fleet/uploads/{id}`
    UploadComplete(Segment<'a>),
    /// `/api/fleet/file/{id}`
    File(Segment<'a>),
    /// `/api/agents/upgrades/{major}.{minor}.{patch}/pgp-public-key`
    PgpKey(Segment<'a>),
}

impl<'a> Route<'a> {
    /// Returns the route of a path, or `None` if the path is unknown. `path` must not contain the query, not even an empty
    /// one (EA2).
    pub fn of(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/api/")?;
        let mut parts = rest.split('/');
        let mut next = || parts.next();
        // Six segments at most, so a path with thousands of slashes costs no more than one with six.
        let found = match (next(), next(), next(), next(), next(), next()) {
            (Some("status"), None, ..) => Self::Status,
            (Some("agents"), Some("upgrades"), Some(version), Some("pgp-public-key"), None, _) => {
                Self::PgpKey(decode(version)?)
            }
            (Some("fleet"), Some("agents"), third, fourth, fifth, None) => Self::of_agent(third?, fourth, fifth)?,
            (Some("fleet"), Some("artifacts"), Some(id), Some(sha2), None, _) => {
                Self::Artifact(decode(id)?, decode(sha2)?)
            }
            (Some("fleet"), Some("uploads"), id, chunk, None, _) => Self::of_upload(id, chunk)?,
            (Some("fleet"), Some("file"), Some(id), None, ..) => Self::File(decode(id)?),
            _ => return None,
        };
        Some(found)
    }

    fn of_agent(id: &'a str, verb: Option<&str>, object: Option<&str>) -> Option<Self> {
        match (verb, object) {
            // `enroll` stands where other paths have the id of an agent, so no agent can have this id in a path
            // without a verb.
            (None, None) if id == "enroll" => Some(Self::Enroll),
            (Some("checkin"), None) => Some(Self::CheckIn(decode(id)?)),
            (Some("acks"), None) => Some(Self::Acks(decode(id)?)),
            (Some("audit"), Some("unenroll")) => Some(Self::AuditUnenroll(decode(id)?)),
            _ => None,
        }
    }

    fn of_upload(id: Option<&'a str>, chunk: Option<&'a str>) -> Option<Self> {
        match (id, chunk) {
            (None, None) => Some(Self::UploadBegin),
            (Some(id), None) => Some(Self::UploadComplete(decode(id)?)),
            (Some(id), Some(chunk)) => Some(Self::UploadChunk(decode(id)?, decode(chunk)?)),
            (None, Some(_)) => None,
        }
    }

    /// Returns the method of the route.
    fn method(&self) -> Method {
        match self {
            Self::Status | Self::Artifact(..) | Self::File(_) | Self::PgpKey(_) => Method::GET,
            Self::UploadChunk(..) => Method::PUT,
            _ => Method::POST,
        }
    }

    /// Returns whether the route accepts `method`: its own, or HEAD instead of GET, which load balancers use for health
    /// checks.
    pub fn takes(&self, method: &Method) -> bool {
        let own = self.method();
        // The connection layer omits the body of a response to HEAD.
        *method == own || (own == Method::GET && *method == Method::HEAD)
    }

    /// Returns the methods that the route accepts, for the `Allow` header (RFC 9110 §15.5.6).
    pub fn allow(&self) -> HeaderValue {
        HeaderValue::from_static(match self.method() {
            Method::GET => "GET, HEAD",
            Method::PUT => "PUT",
            _ => "POST",
        })
    }

    /// Returns the operation whose limits apply to the route.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Status => Operation::Status,
            Self::Enroll => Operation::Enroll,
            Self::CheckIn(_) => Operation::CheckIn,
            Self::Acks(_) => Operation::Ack,
            Self::AuditUnenroll(_) => Operation::AuditUnenroll,
            Self::Artifact(..) => Operation::Artifact,
            Self::UploadBegin => Operation::UploadStart,
            Self::UploadChunk(..) => Operation::UploadChunk,
            Self::UploadComplete(_) => Operation::UploadEnd,
            Self::File(_) => Operation::FileDelivery,
            Self::PgpKey(_) => Operation::PgpRetrieval,
        }
    }
}

/// Decodes a segment. An empty one is not accepted: `/api/fleet/uploads/` differs from `/api/fleet/uploads`.
fn decode(segment: &str) -> Option<Segment<'_>> {
    // Decoded after splitting, so that an escaped slash stays inside its segment.
    (!segment.is_empty()).then(|| percent_decode_str(segment).decode_utf8_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ea1_every_path_of_the_table_is_known() {
        let routes = [
            ("/api/status", Route::Status),
            ("/api/fleet/agents/enroll", Route::Enroll),
            ("/api/fleet/agents/a-1/checkin", Route::CheckIn("a-1".into())),
            ("/api/fleet/agents/a-1/acks", Route::Acks("a-1".into())),
            ("/api/fleet/agents/a-1/audit/unenroll", Route::AuditUnenroll("a-1".into())),
            ("/api/fleet/artifacts/x/00ff", Route::Artifact("x".into(), "00ff".into())),
            ("/api/fleet/uploads", Route::UploadBegin),
            ("/api/fleet/uploads/u/0", Route::UploadChunk("u".into(), "0".into())),
            ("/api/fleet/uploads/u", Route::UploadComplete("u".into())),
            ("/api/fleet/file/f", Route::File("f".into())),
            ("/api/agents/upgrades/9.6.0/pgp-public-key", Route::PgpKey("9.6.0".into())),
        ];
        for (path, route) in routes {
            assert_eq!(Route::of(path), Some(route), "{path}");
        }
    }

    #[test]
    fn ea3_other_paths_are_unknown() {
        let unknown = [
            "",
            "/",
            "/api",
            "/api/",
            "/api/status/",
            "/api/status/x",
            "/api/fleet/agents",
            "/api/fleet/agents/",
            "/api/fleet/agents/x",
            "/api/fleet/agents//checkin",
            "/api/fleet/agents/a/b/checkin",
            "/api/fleet/agents/a/checkin/",
            "/api/fleet/agents/a/audit/unenroll/x",
            "/api/fleet/uploads/",
            "/api/fleet/uploads/u/0/1",
            "/api/fleet/file",
            "/api/agents/upgrades/9.6.0",
            "/v1/opamp",
        ];
        for path in unknown {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }

    #[test]
    fn escapes_are_decoded_within_a_segment() {
        assert_eq!(Route::of("/api/fleet/agents/..%2f..%2Fetc/checkin"), Some(Route::CheckIn("../../etc".into())));
        assert_eq!(Route::of("/api/fleet/agents/a%00b/acks"), Some(Route::Acks("a\0b".into())));
        assert_eq!(Route::of("/api/fleet/agents/%ff/acks"), Some(Route::Acks("\u{fffd}".into())));
    }
}
