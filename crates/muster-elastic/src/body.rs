//! Errors of request bodies in the protocol's format.

use muster_listen::receive::BodyError;

use super::error::ApiError;

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            // 400 and not 413 (EA19). Only upload calls use 413.
            BodyError::TooLarge { limit, length } => {
                let length = length.map(|length| format!("{length} bytes, but ")).unwrap_or_default();
                let message = format!("http: request body too large: {length}at most {limit} bytes are accepted");
                Self::bad_request(message).because("BodyTooLarge")
            }
            BodyError::Late => Self::of("RequestTimeout"),
            BodyError::Broken => Self::bad_request("the request body could not be read"),
            BodyError::Lengths => Self::bad_request("conflicting lengths of the request body"),
            BodyError::NotGzip => Self::bad_request("the request body is not valid gzip"),
            BodyError::Coding => Self::of("UnsupportedMediaType"),
            BodyError::Busy => Self::of("MaxLimit"),
        }
    }
}

/// Returns the error of an upload call, where a body that is too large gets 413 (EA20).
pub fn of_upload(error: BodyError) -> ApiError {
    match error {
        BodyError::TooLarge { .. } => ApiError::of("ErrPayloadSizeTooLarge").because("BodyTooLarge"),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_bodies_are_408_and_unknown_codings_415() {
        assert_eq!(ApiError::from(BodyError::Late).status().as_u16(), 408);
        assert_eq!(ApiError::from(BodyError::Coding).status().as_u16(), 415);
    }
}
