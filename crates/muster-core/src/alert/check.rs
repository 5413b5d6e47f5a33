//! Validation of receivers. What only the sender can judge, such as URLs and certificates, is checked there.

use std::time::Duration;

use super::{Receiver, Target};
use crate::Error;

/// Maximum length of a name, bytes.
pub const MAX_NAME: usize = 100;
/// Maximum number of items of a list: kinds, policies, tags, recipients.
pub const MAX_ITEMS: usize = 100;
/// Maximum digest window.
pub const MAX_WINDOW: Duration = Duration::from_secs(3600);
/// Smallest and largest number of events from which they are combined.
const THRESHOLDS: std::ops::RangeInclusive<u32> = 2..=10_000;
/// Maximum length of a URL, a host, an address, bytes.
const MAX_TEXT: usize = 2_000;
/// Maximum length of CA certificates, bytes.
const MAX_CA: usize = 64 << 10;

impl Receiver {
    /// Rejects values outside of the limits.
    pub fn check(&self) -> Result<(), Error> {
        let name = self.name.trim();
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(crate::reported::is_deceptive) {
            return Err(Error::invalid("name", format!("1 to {MAX_NAME} characters, without control characters")));
        }
        for (field, items) in [
            ("events", self.filter.events.len()),
            ("policy_ids", self.filter.policies.len()),
            ("tags", self.filter.tags.len()),
            ("except_tags", self.filter.except_tags.len()),
        ] {
            at_most(field, items)?;
        }
        if !THRESHOLDS.contains(&self.digest.threshold) {
            return Err(Error::invalid("digest.threshold", "2 to 10000"));
        }
        if self.digest.window > MAX_WINDOW {
            return Err(Error::invalid("digest.window_seconds", format!("at most {}", MAX_WINDOW.as_secs())));
        }
        self.target.check()
    }
}

impl Target {
    fn check(&self) -> Result<(), Error> {
        match self {
            Self::Webhook { url, ca, .. } => {
                plain("webhook.url", url)?;
                certificates("webhook.ca", ca.as_deref())
            }
            Self::Email { host, from, to, username, ca, .. } => {
                plain("email.host", host)?;
                plain("email.from", from)?;
                if to.is_empty() {
                    return Err(Error::invalid("email.to", "at least one recipient is required"));
                }
                at_most("email.to", to.len())?;
                to.iter().try_for_each(|one| plain("email.to", one))?;
                username.iter().try_for_each(|name| plain("email.username", name))?;
                certificates("email.ca", ca.as_deref())
            }
            Self::Syslog { host, ca, .. } => {
                plain("syslog.host", host)?;
                certificates("syslog.ca", ca.as_deref())
            }
        }
    }
}

fn at_most(field: &str, items: usize) -> Result<(), Error> {
    if items > MAX_ITEMS { Err(Error::invalid(field, format!("at most {MAX_ITEMS} items"))) } else { Ok(()) }
}

/// Rejects line breaks, too: they would end a header of a mail.
fn plain(field: &str, text: &str) -> Result<(), Error> {
    if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(Error::invalid(field, format!("1 to {MAX_TEXT} characters, without control characters")));
    }
    Ok(())
}

fn certificates(field: &str, pem: Option<&str>) -> Result<(), Error> {
    match pem {
        Some(pem) if pem.len() > MAX_CA => Err(Error::invalid(field, format!("at most {MAX_CA} bytes"))),
        _ => Ok(()),
    }
}
