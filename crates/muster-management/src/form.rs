//! Forms that browsers send.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Uri};
use muster_core::{Error, ErrorKind};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::credentials;

/// Maximum size of a form, bytes.
const MAX_FORM: usize = 16 << 10;

/// Reads the parameters of a URL. One that occurs several times is read into a `Vec`.
///
/// # Errors
/// If they cannot be read.
pub fn parameters<T: DeserializeOwned>(uri: &Uri) -> Result<T, Error> {
    let text = uri.query().unwrap_or_default();
    serde_html_form::from_str(text).map_err(|error| Error::invalid("parameters", error.to_string()))
}

/// Reads a form (`application/x-www-form-urlencoded`) of at most 16 KiB.
///
/// # Errors
/// If it does not come from a page of this server, is too large or malformed.
pub async fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Error> {
    read_up_to(MAX_FORM, headers, body).await
}

/// Reads a form of at most `max` bytes, as it is sent: a document in a form can take three bytes for each of its own. A
/// field that occurs several times is read into a `Vec`.
///
/// # Errors
/// Those of [`read`].
pub async fn read_up_to<T: DeserializeOwned>(max: usize, headers: &HeaderMap, body: Body) -> Result<T, Error> {
    // A page of another site could otherwise act as its visitor, or log its visitor in as somebody else.
    credentials::check_same_origin(headers)?;
    let malformed = || Error::invalid("form", "the form cannot be read");
    let too_large = || {
        let message = format!("what you sent is too large: at most {} kB are possible", max / 1_000);
        Error::new(ErrorKind::Invalid, "form_too_large", message)
            .remedy("go back in your browser to the form, where your text still is, and shorten it")
    };
    // It may contain a password: nothing of it stays in memory.
    let bytes = to_bytes(body, max).await.map(|bytes| with_plain_lines(&bytes)).map_err(|_| too_large())?;
    serde_html_form::from_bytes(&bytes).map_err(|_| malformed())
}

/// Replaces the line breaks of forms, which are always CR and LF, with those of all other texts.
fn with_plain_lines(form: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(form.len()));
    let mut rest = form;
    while let Some((first, others)) = rest.split_first() {
        let is_break = rest.get(..6).is_some_and(|six| six.eq_ignore_ascii_case(b"%0D%0A"));
        if is_break {
            rest = &rest[3..];
            continue;
        }
        plain.push(*first);
        rest = others;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_of_forms_become_plain_ones() {
        let plain = |form: &str| String::from_utf8(with_plain_lines(form.as_bytes()).to_vec()).unwrap();
        assert_eq!(plain("sql=SELECT+1%0D%0AFROM%0d%0ax%0D%0A&b=%0D"), "sql=SELECT+1%0AFROM%0ax%0A&b=%0D");
        assert_eq!(plain("a=%0D%0D%0A%0"), "a=%0D%0A%0");
    }
}
