//! The port through which messages are sent.

use async_trait::async_trait;
use muster_core::alert::{Message, Target};
use muster_core::time::Timestamp;

/// A message with where it goes.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// Where it is sent.
    pub target: &'a Target,
    /// The key of a webhook's signatures, or the password at a mail server.
    pub secret: Option<&'a str>,
    /// The message.
    pub message: &'a Message,
    /// The current time.
    pub now: Timestamp,
}

/// Why a message was not sent. The texts contain nothing of the response of the receiver but its status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The settings can't be used.
    #[error("{field}: {reason}")]
    Unusable {
        /// The field.
        field: &'static str,
        /// The reason.
        reason: String,
    },
    /// The address is not permitted.
    #[error("{0}")]
    NotPermitted(String),
    /// The receiver could not be reached, or did not accept the message.
    #[error("{0}")]
    Failed(String),
}

/// Sends messages. Implementations limit the time of an attempt.
#[async_trait]
pub trait AlertSender: Send + Sync + 'static {
    /// Rejects settings that can't be used, without connecting.
    fn check(&self, target: &Target) -> Result<(), SendError>;
    /// Sends a message. `Ok` means that the receiver has accepted it.
    async fn send(&self, outgoing: Outgoing<'_>) -> Result<(), SendError>;
}

/// A sender that sends nothing.
#[derive(Debug, Default)]
pub struct NoSender;

#[async_trait]
impl AlertSender for NoSender {
    fn check(&self, _target: &Target) -> Result<(), SendError> {
        Ok(())
    }

    async fn send(&self, _outgoing: Outgoing<'_>) -> Result<(), SendError> {
        Err(SendError::Failed("this server sends no alerts".to_owned()))
    }
}
