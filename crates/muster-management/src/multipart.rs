//! `multipart/form-data`: the first file of a form, found in a body that is in memory whole.

use axum::body::Bytes;
use muster_core::Error;

/// A file from a form.
#[derive(Debug, PartialEq, Eq)]
pub struct FilePart {
    /// The name that the client gave it.
    pub name: Option<String>,
    /// Its MIME type.
    pub mime_type: Option<String>,
    /// Its bytes.
    pub data: Bytes,
}

/// The boundary, if the content type is that of a form.
pub fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    Some(value.trim_matches('"')).filter(|boundary| !boundary.is_empty())
}

/// The first part that is a file.
pub fn file_part(body: &Bytes, boundary: &str) -> Result<FilePart, Error> {
    let delimiter = format!("\r\n--{boundary}");
    let mut at = match body.strip_prefix(&delimiter.as_bytes()[2..]) {
        Some(_) => delimiter.len() - 2,
        None => find(body, 0, delimiter.as_bytes()).ok_or_else(no_file)? + delimiter.len(),
    };
    while body[at..].starts_with(b"\r\n") {
        let head_end = find(body, at, b"\r\n\r\n").ok_or_else(no_file)?;
        let data = head_end + 4;
        // The delimiter's own line end may be the one that ends an empty head.
        let end = find(body, data.saturating_sub(2), delimiter.as_bytes()).ok_or_else(no_file)?;
        let head = String::from_utf8_lossy(&body[at..head_end]);
        if let Some(name) = file_name(&head) {
            let mime_type = header(&head, "content-type").map(str::to_owned);
            let name = Some(name).filter(|name| !name.is_empty());
            return Ok(FilePart { name, mime_type, data: body.slice(data.min(end)..end) });
        }
        at = end + delimiter.len();
    }
    Err(no_file())
}

fn no_file() -> Error {
    Error::invalid("body", "the form holds no file")
}

fn find(body: &[u8], from: usize, wanted: &[u8]) -> Option<usize> {
    body.get(from..)?.windows(wanted.len()).position(|window| window == wanted).map(|at| at + from)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn file_name(head: &str) -> Option<String> {
    let disposition = header(head, "content-disposition")?;
    let value = disposition.split(';').find_map(|parameter| parameter.trim().strip_prefix("filename="))?;
    Some(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nnote\r\n\
        --x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a b.bin\"\r\nContent-Type: text/plain\r\n\r\n\
        line\r\n--y\r\n\r\n--x--\r\n";

    #[test]
    fn the_first_file_of_a_form_is_found() {
        let part = file_part(&Bytes::from(FORM), "x").unwrap();
        assert_eq!((part.name.as_deref(), part.mime_type.as_deref()), (Some("a b.bin"), Some("text/plain")));
        assert_eq!(part.data, "line\r\n--y\r\n");
    }

    #[test]
    fn what_is_no_form_with_a_file_is_refused() {
        for cut in 0..FORM.len() - 8 {
            assert!(file_part(&Bytes::from(&FORM[..cut]), "x").is_err(), "{cut}");
        }
        assert!(file_part(&Bytes::from(FORM), "z").is_err());
    }

    #[test]
    fn the_boundary_stands_in_the_content_type() {
        assert_eq!(boundary("multipart/form-data; boundary=\"x y\""), Some("x y"));
        assert_eq!(boundary("Multipart/Form-Data; charset=utf-8; boundary=x"), Some("x"));
        assert_eq!(boundary("application/octet-stream"), None);
        assert_eq!(boundary("multipart/form-data; boundary="), None);
    }
}
