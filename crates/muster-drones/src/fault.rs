//! Why a request failed.

use std::fmt;

use muster_protocol::elastic::error::ErrorBody;

use crate::session::Answer;

/// The failure of one request.
#[derive(Debug)]
pub enum Fault {
    /// The server responded with a status other than 200. Contains the status and the name of the error.
    Refused(u16, String),
    /// There was no response, or a malformed one.
    Broken(anyhow::Error),
}

impl Fault {
    /// Returns whether the server rejected the credentials.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused(401, _))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status, kind) => write!(f, "{status} {kind}"),
            // Failures are counted by their text. This is the root cause, without details that differ between agents.
            Self::Broken(error) => write!(f, "{}", error.root_cause()),
        }
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

/// Parses the body of a response with status 200.
///
/// # Errors
/// On any other status, or a malformed body.
pub fn accepted<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, Fault> {
    if answer.status != 200 {
        let kind = serde_json::from_slice::<ErrorBody>(&answer.text()?).map(|body| body.error.into_owned());
        return Err(Fault::Refused(answer.status, kind.unwrap_or_default()));
    }
    Ok(serde_json::from_slice(&answer.text()?).map_err(anyhow::Error::from)?)
}

#[cfg(test)]
mod tests {
    use muster_protocol::elastic::check_in::CheckInResponse;

    use super::*;

    #[test]
    fn a_refusal_has_the_name_of_its_error() {
        let body = br#"{"statusCode":401,"error":"ErrUnauthorized"}"#;
        let answer = Answer { status: 401, body: body.as_slice().into(), packed: false };
        let fault = accepted::<CheckInResponse>(&answer).err().unwrap();
        assert!(fault.is_unauthorized());
        assert_eq!(fault.to_string(), "401 ErrUnauthorized");
    }
}
