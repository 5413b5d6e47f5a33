//! A file in a request: the first file of a form, or the whole body.

use axum::body::Bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use muster_core::Error;

use super::body::{MaxBody, unreadable};
use super::error::{ApiError, http_error};

/// MIME type of a file without one.
pub const UNKNOWN_TYPE: &str = "application/octet-stream";

/// A file from a request.
#[derive(Debug, PartialEq, Eq)]
pub struct FilePart {
    /// The name according to the client.
    pub name: Option<String>,
    /// Its MIME type.
    pub mime_type: Option<String>,
    /// Its bytes.
    pub data: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for FilePart {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or(UNKNOWN_TYPE).to_owned();
        let limit = MaxBody::of(&request);
        if !is_form(&content_type) {
            let body = Bytes::from_request(request, state).await.map_err(|rejection| unreadable(&rejection, limit))?;
            return Ok(Self { name: None, mime_type: Some(content_type), data: body });
        }
        match Multipart::from_request(request, state).await {
            Ok(form) => first_file(form, limit).await,
            Err(rejection) => Err(ApiError(Error::invalid("Content-Type", rejection.body_text())).into_response()),
        }
    }
}

fn is_form(content_type: &str) -> bool {
    // Media types are case-insensitive and may have parameters (RFC 9110 §8.3.1).
    let kind = content_type.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("multipart/form-data")
}

/// Reads the first part with a file name. Other fields are skipped.
async fn first_file(mut form: Multipart, limit: Option<MaxBody>) -> Result<FilePart, Response> {
    while let Some(field) = form.next_field().await.map_err(|error| broken(&error, limit))? {
        // Not by the name of the field, which differs between clients.
        let Some(name) = field.file_name().map(str::to_owned) else { continue };
        let mime_type = field.content_type().map(str::to_owned);
        // The route's body limit bounds this: the form is a part of the body.
        let data = field.bytes().await.map_err(|error| broken(&error, limit))?;
        return Ok(FilePart { name: Some(name).filter(|name| !name.is_empty()), mime_type, data });
    }
    Err(ApiError(Error::invalid("body", "the form contains no file")).into_response())
}

fn broken(error: &MultipartError, limit: Option<MaxBody>) -> Response {
    match error.status() {
        http::StatusCode::PAYLOAD_TOO_LARGE => {
            http_error(http::StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", MaxBody::message(limit))
        }
        status => http_error(status, "body_unreadable", error.body_text()),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const FORM: &str = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nnote\r\n\
        --x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a; b=c.bin\"\r\nContent-Type: text/plain\r\n\r\n\
        line\r\n--y\r\n\r\n--x--\r\n";

    async fn read(content_type: &str, body: &str) -> Result<FilePart, Response> {
        let request = Request::builder().header(CONTENT_TYPE, content_type).body(Body::from(body.to_owned())).unwrap();
        FilePart::from_request(request, &()).await
    }

    #[tokio::test]
    async fn the_first_file_of_a_form_is_read_whatever_its_name() {
        let part = read("Multipart/Form-Data; charset=utf-8; boundary=\"x\"", FORM).await.unwrap();
        assert_eq!((part.name.as_deref(), part.mime_type.as_deref()), (Some("a; b=c.bin"), Some("text/plain")));
        assert_eq!(part.data, "line\r\n--y\r\n");
        for (given, read_as) in [("filename=plain.bin", "plain.bin"), (r#"filename="q\"uote.bin""#, "q\"uote.bin")] {
            let form = FORM.replace("filename=\"a; b=c.bin\"", given);
            let part = read("multipart/form-data; boundary=x", &form).await.unwrap();
            assert_eq!(part.name.as_deref(), Some(read_as));
        }
    }

    #[tokio::test]
    async fn a_form_without_a_complete_file_is_rejected() {
        for cut in 0..FORM.len() - 8 {
            let answer = read("multipart/form-data; boundary=x", &FORM[..cut]).await;
            assert_eq!(answer.unwrap_err().status(), 400, "{cut}");
        }
        for boundary in ["multipart/form-data; boundary=z", "multipart/form-data", "multipart/form-data; boundary="] {
            assert_eq!(read(boundary, FORM).await.unwrap_err().status(), 400, "{boundary}");
        }
    }

    #[tokio::test]
    async fn any_other_body_is_the_file() {
        let part = read("text/plain", "whole").await.unwrap();
        assert_eq!(part, FilePart { name: None, mime_type: Some("text/plain".into()), data: "whole".into() });
    }
}
