//! Senders of alerts (webhooks, mail and syslog), and of log lines ([`LogReceiver`]).
//!
//! [`Senders`] implements the fleet's port [`AlertSender`]. Every attempt has a deadline and a connection of its own, to an
//! address that was checked after its name was resolved ([`muster_fleet::outgoing`]). Nothing that a receiver responds is stored but its
//! status.

mod email;
mod log_receiver;
mod syslog;
mod tls;
mod webhook;

use std::time::Duration;

use async_trait::async_trait;
use muster_core::alert::Target;
use muster_fleet::alerts::sender::{AlertSender, Outgoing, SendError};
use muster_fleet::outgoing::{LocalTargets, ResolveError};

pub use self::log_receiver::{LogFormat, LogReceiver, NotAccepted};
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

    /// Rejects an address that would be refused at every attempt.
    fn check_host(&self, field: &'static str, host: &str) -> Result<(), SendError> {
        // A name is judged by its addresses, at each attempt.
        let checked = self.local.check_literal(host);
        checked.map_err(|error| SendError::Unusable { field, reason: error.to_string() })
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

fn unresolved(error: ResolveError) -> SendError {
    match error {
        ResolveError::NotPermitted(reason) => SendError::NotPermitted(reason),
        ResolveError::Failed(reason) => SendError::Failed(reason),
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
                let url = webhook::parse(url)?;
                self.check_host("webhook.url", url.host_str().unwrap_or_default())?;
                tls::check("webhook.ca", ca.as_deref())
            }
            Target::Email { host, from, to, ca, .. } => {
                self.check_host("email.host", host)?;
                email::check(from, to)?;
                tls::check("email.ca", ca.as_deref())
            }
            Target::Syslog { host, ca, .. } => {
                self.check_host("syslog.host", host)?;
                tls::check("syslog.ca", ca.as_deref())
            }
        }
    }

    async fn send(&self, outgoing: Outgoing<'_>) -> Result<(), SendError> {
        let late = |_| SendError::Failed(format!("no response within {} seconds", TIMEOUT.as_secs()));
        tokio::time::timeout(TIMEOUT, self.attempt(outgoing)).await.map_err(late)?
    }
}
