//! The fleet's own CA: `GET /api/v1/ca`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The certificate that agents trust if the server's certificate was issued by the fleet's own CA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct CaCertificate {
    /// The certificate, PEM.
    pub certificate: String,
    /// SHA-256 of the certificate (DER), as 64 hexadecimal digits: the value of `muster-agent enroll --ca-sha256`.
    pub sha256: String,
    /// When the certificate expires (RFC 3339).
    pub expires_at: String,
}
