//! The Fleet Server protocol of Elastic Agents (`docs/reference/elastic-agent-protocol.md`).

pub mod ack;
pub mod audit;
pub mod check_in;
pub mod enroll;
pub mod error;
pub mod status;
pub mod upload;

// Requests of agents must be accepted with unknown, missing and `null` fields (EA8, EA27, EA52, EA147), so nearly every
// field here has a default. Strings are `Cow`, to borrow from the request unless they contain escapes.
/// The only API version (EA §1.8).
pub const API_VERSION: &str = "2023-06-01";
/// Header of the API version.
pub const API_VERSION_HEADER: &str = "elastic-api-version";
/// Header of the request id (EA §1.5).
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Header with the SHA-256 of a chunk in hex (EA §7.2).
pub const CHUNK_SHA2_HEADER: &str = "x-chunk-sha2";
