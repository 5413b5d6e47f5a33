//! New receivers and changes of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::Error;
use muster_core::alert::{Digest, Filter, MailSecurity, Receiver, Target};
use muster_core::authorization::{AlertsWrite, Grant};
use muster_core::entropy::random_bytes;
use muster_core::id::{AlertReceiverId, SecretId};
use muster_core::time::Timestamp;
use muster_store::Write;
use zeroize::Zeroizing;

use super::Alerts;

/// Beginning of a generated key of signatures, by which libraries recognize it.
const PREFIX: &str = "whsec_";
/// Minimum length of a given key, bytes.
const MIN_SECRET: usize = 16;

/// A new receiver or a change of one. Absent fields stay as they are.
#[derive(Clone, Default)]
pub struct ReceiverDraft {
    /// Its name.
    pub name: Option<String>,
    /// Where messages are sent. Replaces the target as a whole, except for its secret.
    pub target: Option<TargetDraft>,
    /// Which events are sent.
    pub filter: Option<Filter>,
    /// When events are combined.
    pub digest: Option<Digest>,
    /// Whether anything is sent.
    pub is_enabled: Option<bool>,
}

/// A target with its secret in plain text.
#[derive(Clone)]
pub enum TargetDraft {
    /// An HTTP endpoint.
    Webhook {
        /// Its URL.
        url: String,
        /// Key of the signatures; generated for a new webhook if absent.
        secret: Option<Zeroizing<String>>,
        /// PEM certificates of CAs.
        ca: Option<String>,
    },
    /// Mailboxes.
    Email {
        /// Host of the mail server.
        host: String,
        /// Port of the mail server; absent for the usual one.
        port: Option<u16>,
        /// How the connection is encrypted.
        security: MailSecurity,
        /// User name.
        username: Option<String>,
        /// Password of the user.
        password: Option<Zeroizing<String>>,
        /// Sender.
        from: String,
        /// Recipients.
        to: Vec<String>,
        /// PEM certificates of CAs.
        ca: Option<String>,
    },
    /// A syslog server.
    Syslog {
        /// Host.
        host: String,
        /// Port; absent for the usual one.
        port: Option<u16>,
        /// Whether the connection uses TLS.
        tls: bool,
        /// PEM certificates of CAs.
        ca: Option<String>,
    },
}

/// The result of a draft.
pub(super) struct Applied {
    pub(super) receiver: Receiver,
    /// The writes of new secrets.
    pub(super) writes: Vec<Write>,
    /// A generated secret.
    pub(super) generated: Option<Zeroizing<String>>,
}

/// A target with the writes of its secret, and the secret if it was generated.
type NewTarget = (Target, Vec<Write>, Option<Zeroizing<String>>);

/// Returns a receiver for a draft to fill.
pub(super) fn blank(id: AlertReceiverId, grant: &Grant<AlertsWrite>, now: Timestamp) -> Receiver {
    Receiver {
        id,
        space: grant.space().clone(),
        name: String::new(),
        // Never stored: a draft of a new receiver without a target is rejected.
        target: Target::Syslog { host: String::new(), port: 0, tls: true, ca: None },
        filter: Filter::default(),
        digest: Digest::default(),
        is_enabled: true,
        muted_until: None,
        version: 1,
        created_at: now,
        created_by: grant.actor().to_string(),
        updated_at: now,
    }
}

impl Alerts {
    /// Applies a draft to the receiver `before`, or to a blank one.
    pub(super) fn apply_draft(
        &self,
        before: Option<&Receiver>,
        draft: ReceiverDraft,
        start: impl FnOnce() -> Receiver,
    ) -> Result<Applied, Error> {
        let mut receiver = start();
        let (mut writes, mut generated) = (Vec::new(), None);
        match (draft.target, before) {
            (Some(target), _) => {
                let known = before.and_then(|before| before.target.secret());
                let same_type = before.is_some_and(|before| before.target.kind() == target.kind());
                (receiver.target, writes, generated) = self.target(target, known.filter(|_| same_type))?;
                if let Some(before) = before {
                    refuse_moved_secret(&before.target, &receiver.target)?;
                }
            }
            (None, None) => {
                return Err(Error::invalid("target", "one of webhook, email and syslog is required"));
            }
            (None, Some(_)) => {}
        }
        receiver.name = draft.name.map_or(receiver.name, |name| name.trim().to_owned());
        receiver.filter = draft.filter.unwrap_or(receiver.filter);
        receiver.digest = draft.digest.unwrap_or(receiver.digest);
        receiver.is_enabled = draft.is_enabled.unwrap_or(receiver.is_enabled);
        Ok(Applied { receiver, writes, generated })
    }

    fn target(&self, draft: TargetDraft, known: Option<&SecretId>) -> Result<NewTarget, Error> {
        match draft {
            TargetDraft::Webhook { url, secret, ca } => {
                let (secret, generated) = match (secret, known) {
                    (None, Some(known)) => {
                        return Ok((Target::Webhook { url, secret: known.clone(), ca }, Vec::new(), None));
                    }
                    (Some(given), _) if given.len() < MIN_SECRET => {
                        return Err(Error::invalid("webhook.secret", format!("at least {MIN_SECRET} characters")));
                    }
                    (Some(given), _) => (given, None),
                    (None, None) => {
                        let made = self.generated_secret();
                        (made.clone(), Some(made))
                    }
                };
                let (id, write) = self.secrets.seal("webhook.secret", &secret)?;
                Ok((Target::Webhook { url, secret: id, ca }, vec![write], generated))
            }
            TargetDraft::Email { host, port, security, username, password, from, to, ca } => {
                let port = port.unwrap_or(usual_port(security));
                let (password, writes) = match password {
                    Some(password) => {
                        let (id, write) = self.secrets.seal("email.password", &password)?;
                        (Some(id), vec![write])
                    }
                    // Without a user, there is no password either.
                    None => (known.filter(|_| username.is_some()).cloned(), Vec::new()),
                };
                if username.is_some() != password.is_some() {
                    return Err(Error::invalid("email.password", "a user name and a password are required together"));
                }
                if username.is_some() && security == MailSecurity::None {
                    return Err(Error::invalid("email.security", "`none` would send the password in plain text")
                        .remedy("use `starttls` or `tls`, or omit the user name"));
                }
                let target = Target::Email { host, port, security, username, password, from, to, ca };
                Ok((target, writes, None))
            }
            TargetDraft::Syslog { host, port, tls, ca } => {
                // RFC 5425 and RFC 6587.
                let port = port.unwrap_or(if tls { 6514 } else { 601 });
                Ok((Target::Syslog { host, port, tls, ca }, Vec::new(), None))
            }
        }
    }

    fn generated_secret(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(random_bytes::<32>(&*self.entropy));
        Zeroizing::new(format!("{PREFIX}{}", STANDARD.encode(*bytes)))
    }
}

/// Rejects a change that would send the stored secret to another place: whoever may change a receiver could read it there.
fn refuse_moved_secret(before: &Target, after: &Target) -> Result<(), Error> {
    let is_kept = after.secret().is_some() && after.secret() == before.secret();
    let Some(moved) = after.moved_from(before).filter(|_| is_kept) else { return Ok(()) };
    let field = if matches!(after, Target::Webhook { .. }) { "webhook.secret" } else { "email.password" };
    let reason = format!("is required, because {moved} changes: a stored secret is never sent to a new destination");
    Err(Error::invalid(field, reason).remedy("send the secret again"))
}

impl TargetDraft {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Email { .. } => "email",
            Self::Syslog { .. } => "syslog",
        }
    }
}

/// Ports of mail submission (RFC 8314, RFC 6409), and of relays.
const fn usual_port(security: MailSecurity) -> u16 {
    match security {
        MailSecurity::Tls => 465,
        MailSecurity::Starttls => 587,
        MailSecurity::None => 25,
    }
}
