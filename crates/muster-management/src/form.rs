//! Forms that browsers send.

use axum::body::{Body, to_bytes};
use axum::extract::Query;
use axum::http::{HeaderMap, Uri};
use muster_core::Error;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::credentials;

/// Maximum size of a form, bytes.
const MAX_FORM: usize = 16 << 10;

/// Reads a form (`application/x-www-form-urlencoded`). It may contain a password, so that nothing of it stays in memory.
///
/// # Errors
/// If it does not come from a page of this server, is too large or malformed.
pub async fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Error> {
    // A page of another site could otherwise act as its visitor, or log its visitor in as somebody else.
    credentials::check_same_origin(headers)?;
    let malformed = || Error::invalid("form", format!("must be a form of at most {MAX_FORM} bytes"));
    let bytes = to_bytes(body, MAX_FORM).await.map(|bytes| Zeroizing::new(bytes.to_vec())).map_err(|_| malformed())?;
    // A form has the format of a query.
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
    let uri: Uri = Zeroizing::new(format!("/?{text}")).parse().map_err(|_| malformed())?;
    Query::try_from_uri(&uri).map(|Query(fields)| fields).map_err(|_| malformed())
}
