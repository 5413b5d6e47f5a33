//! Senders of alerts: webhooks, mail and syslog.
//!
//! [`Senders`] implements the fleet's port [`AlertSender`]. Every attempt has a deadline and a connection of its own, to an
//! address that was checked after its name was resolved ([`address`]). Nothing that a receiver responds is stored but its
//! status.

mod address;
mod email;
mod syslog;
mod tls;
mod webhook;

use std::time::Duration;

use async_trait::async_trait;
use muster_core::alert::Target;
use muster_fleet::alerts::sender::{AlertSender, Outgoing, SendError};

pub use self::address::LocalTargets;
pub use self::webhook::signature;

/// Maximum time of an attempt, from the name's resolution to the end of the response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The senders of all types of receivers.
#[derive(Clone, Copy, Debug)]
pub struct Senders {
    local: LocalTargets,
}

impl Senders {
    /// Creates the senders.
    pub fn new(local: LocalTargets) -> Self {
        Self { local }
    }

    async fn attempt(&self, outgoing: Outgoing<'_>) -> Result<(), SendError> {
        let Outgoing { target, secret, message, now } = outgoing;
        match target {
            Target::Webhook { url, ca, .. } => {
                let secret = secret.ok_or_else(|| unreadable("webhook.secret"))?;
                webhook::send(self.local, url, ca.as_deref(), secret, message, now).await
            }
            Target::Email { .. } => email::send(self.local, target, secret, message).await,
            Target::Syslog { host, port, tls, ca } => {
                let server = syslog::Server { host, port: *port, tls: *tls, ca: ca.as_deref() };
                syslog::send(self.local, server, message).await
            }
        }
    }
}

fn unreadable(field: &'static str) -> SendError {
    SendError::Unusable { field, reason: "its secret is missing; set it again".to_owned() }
}

#[async_trait]
impl AlertSender for Senders {
    fn check(&self, target: &Target) -> Result<(), SendError> {
        match target {
            Target::Webhook { url, ca, .. } => {
                webhook::parse(url)?;
                tls::check("webhook.ca", ca.as_deref())
            }
            Target::Email { from, to, ca, .. } => {
                email::check(from, to)?;
                tls::check("email.ca", ca.as_deref())
            }
            Target::Syslog { ca, .. } => tls::check("syslog.ca", ca.as_deref()),
        }
    }

    async fn send(&self, outgoing: Outgoing<'_>) -> Result<(), SendError> {
        let late = |_| SendError::Failed(format!("no response within {} seconds", TIMEOUT.as_secs()));
        tokio::time::timeout(TIMEOUT, self.attempt(outgoing)).await.map_err(late)?
    }
}
