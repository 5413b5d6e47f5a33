//! `GET /api/fleet/file/{id}[?source=name]` (EA §7.3): files for agents, with range requests.

use std::sync::Arc;

use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use muster_core::file::DeliverableFile;

use super::error::ApiError;
use super::range::{BadRange, Wanted};
use super::shares::Share;
use super::{Inner, authorization};
use muster_fleet::files::Piece;
use muster_listen::reply::{Reply, ReplyBody};

const PRODUCT_ORIGIN: &str = "x-elastic-product-origin";
const FILE_SHA2: &str = "x-file-sha2";
/// The only product with a file library.
const LIBRARY_CLIENT: &str = "endpoint-security";

impl Inner {
    pub(super) async fn file(&self, id: &str, head: &Parts) -> Result<Reply, ApiError> {
        let key = authorization::api_key(&head.headers)?;
        let entry = self.fleet.authentication().any_agent(&key).await?;
        if let Some(source) = source(head.uri.query().unwrap_or_default()) {
            return Err(library_file(source, &head.headers));
        }
        let file = self.fleet.files().deliverable(&entry, id).await?;
        // Per agent first: one agent with many slow downloads must not use up the slots of all.
        let share = self.agent_streams.take(entry.id())?;
        let size = u64::try_from(file.size).unwrap_or(0);
        let wanted = Wanted::parse(range_header(&head.headers)?, size);
        match wanted {
            Ok(Wanted::Whole) => self.send(&file, Piece { first: 0, length: size }, StatusCode::OK, share).await,
            Ok(Wanted::Part { first, last }) => {
                // `first` and `last` lie within the file, so the length is positive and does not overflow.
                let piece = Piece { first, length: last - first + 1 };
                let mut reply = self.send(&file, piece, StatusCode::PARTIAL_CONTENT, share).await?;
                reply.headers_mut().insert(CONTENT_RANGE, header(format!("bytes {first}-{last}/{size}"))?);
                Ok(reply)
            }
            Err(bad) => not_satisfiable(bad, size),
        }
    }

    async fn send(
        &self,
        file: &DeliverableFile,
        piece: Piece,
        status: StatusCode,
        share: Share,
    ) -> Result<Reply, ApiError> {
        // Held until the last byte is sent, because a slow reader occupies memory all the time.
        let slot = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| ApiError::of("MaxLimit"))?;
        let pieces = self.fleet.files().read_file(file, piece, (slot, share)).await?;
        let mut reply = Response::new(ReplyBody::stream(pieces, piece.length));
        *reply.status_mut() = status;
        let headers = reply.headers_mut();
        // A value that is not valid in a header is not a media type.
        let media_type = HeaderValue::from_str(&file.mime_type).ok().filter(|value| !value.is_empty());
        headers.insert(CONTENT_TYPE, media_type.unwrap_or(HeaderValue::from_static("application/octet-stream")));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(piece.length));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(FILE_SHA2, header(&file.sha256)?);
        Ok(reply)
    }
}

fn header(text: impl AsRef<str>) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text.as_ref()).map_err(|_| ApiError::of("InternalServerError"))
}

fn range_header(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let text = headers.get(RANGE).map(HeaderValue::to_str).transpose();
    text.map_err(|_| ApiError::of("ErrRangeNotSatisfiable"))
}

fn not_satisfiable(bad: BadRange, size: u64) -> Result<Reply, ApiError> {
    let error = ApiError::of("ErrRangeNotSatisfiable");
    let error = if bad == BadRange::Several { error.message("Multipart ranges not satisfiable") } else { error };
    let mut reply = error.into_reply();
    // RFC 9110 §14.4: the size lets the client correct its range.
    reply.headers_mut().insert(CONTENT_RANGE, header(format!("bytes */{size}"))?);
    Ok(reply)
}

fn source(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("source=")).filter(|source| !source.is_empty())
}

/// Returns the error for a file of a product's library. Only that product may request it, and libraries are not
/// supported yet.
fn library_file(_source: &str, headers: &HeaderMap) -> ApiError {
    match headers.get(PRODUCT_ORIGIN) {
        Some(origin) if origin == LIBRARY_CLIENT => ApiError::of("ErrFileForDeliveryNotFound"),
        _ => ApiError::of("ErrClientFileForbidden"),
    }
}
