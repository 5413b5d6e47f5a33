//! The Fleet Server protocol, as Elastic Agents speak it (elastic-agent-protocol reference).

pub mod ack;
pub mod audit;
pub mod check_in;
pub mod enroll;
pub mod error;
pub mod status;
pub mod upload;

/// The one API version there is, and the default (EA §1.8).
pub const API_VERSION: &str = "2023-06-01";
/// Name of the header that carries it.
pub const API_VERSION_HEADER: &str = "elastic-api-version";
/// Name of the request id header (EA §1.5).
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Header with the SHA-256 of an upload's chunk, hex (EA §7.2).
pub const CHUNK_SHA2_HEADER: &str = "x-chunk-sha2";
