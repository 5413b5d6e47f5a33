//! `/hosts/{id}/disk-key`: the recovery key of a host's encrypted disk.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use muster_core::authorization::DiskKeysReveal;
use muster_core::disk_key::{AgentDiskKey, DiskKey, MAX_ASKED};
use muster_core::plural::counted;
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::authority::Authorized;
use zeroize::Zeroizing;

use super::TAB;
use super::facts::cut;
use super::host::name_of;
use super::scripts::State3;
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::Frame;
use crate::request::{Id, Pressed};
use crate::settings::shown;
use crate::text::Moment;
use crate::visitor::Visitor;
use crate::{confirm, failure, notice};

/// What is known of the key of a host, without the key.
pub struct KeyState {
    pub state: State3,
    /// When the stored key was reported.
    pub stored: Option<Moment>,
    /// Why the host could not report a key the last time it tried, and when that was.
    pub error: Option<(String, Moment)>,
    /// What is known of a request that the host has not answered; empty without one.
    pub request: String,
}

impl KeyState {
    /// Creates the state of a key.
    pub fn new(key: &DiskKey, now: Timestamp) -> Self {
        let is_given_up = key.escrow.is_some_and(|request| request.is_given_up());
        let (class, sign, text) = match (&key.sealed, &key.error, key.escrow) {
            (Some(_), ..) => ("good", "●", "stored"),
            (None, _, Some(_)) if !is_given_up => ("busy", "◐", "requested"),
            (None, Some(_), _) => ("bad", "✕", "failed"),
            (None, None, Some(_)) => ("warn", "▲", "no answer"),
            (None, None, None) => ("quiet", "○", "none reported"),
        };
        let request = key.escrow.map(|request| match (request.asked, request.is_given_up()) {
            (_, true) => format!("The host was asked {} and has not answered.", counted(request.asked, "time")),
            (0, _) => "The host will ask its user within a minute.".to_owned(),
            (asked, _) => format!("The host was asked {asked} of at most {MAX_ASKED} times, and has not answered yet."),
        });
        Self {
            state: (class, sign, text.to_owned()),
            stored: Moment::of(key.stored_at, now),
            error: key.error.as_ref().zip(key.error_at).map(|(error, at)| (cut(error), Moment::new(at, now))),
            request: request.unwrap_or_default(),
        }
    }
}

#[derive(Template)]
#[template(path = "hosts/disk_key.html")]
struct KeyPage {
    frame: Frame,
    id: String,
    key: KeyState,
    has_key: bool,
    /// The key, its salt and its slot, on the one page that shows them.
    secret: Option<(Zeroizing<String>, String, String)>,
    cli: String,
    api: String,
}

/// A host with its key, for somebody who may reveal it.
struct Found {
    id: String,
    name: String,
    key: Authorized<AgentDiskKey, DiskKeysReveal>,
}

async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<Found, Error> {
    let key = fleet.disk_keys().find(&visitor.context, id).await?;
    // Somebody who may only reveal keys does not see the name of the host.
    let name = match visitor.context.grant() {
        Ok(grant) => name_of(&fleet.agents().host(&grant, id).await?),
        Err(_) => id.to_owned(),
    };
    Ok(Found { id: id.to_owned(), name: cut(&name), key })
}

impl Found {
    fn page(&self, visitor: &Visitor, now: Timestamp) -> KeyPage {
        KeyPage {
            frame: Frame::new(visitor, format!("Disk key of {}", self.name), TAB),
            key: KeyState::new(&self.key.key, now),
            has_key: self.key.key.sealed.is_some(),
            secret: None,
            cli: cli(visitor, &format!("host disk-key {} --status", shell::argument(&self.id))),
            api: curl(visitor, "GET", &api(&self.id, ""), ""),
            id: self.id.clone(),
        }
    }

    fn question(&self, visitor: &Visitor, title: String, to: &str) -> Confirm {
        Confirm::of(visitor, title, TAB, &format!("{TAB}/{}/disk-key", self.id), to)
    }
}

fn api(id: &str, act: &str) -> String {
    format!("/api/fleet/hosts/{id}/disk_key{act}")
}

/// Shows the state of the key.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async { Ok(find(&fleet, &visitor, &id).await?.page(&visitor, fleet.now())) };
    shown(&visitor, TAB, made.await)
}

/// Asks before the key is revealed.
pub async fn ask_to_reveal(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let found = find(&fleet, &visitor, &id).await?;
        let refused = if found.key.key.sealed.is_none() { "The host has not reported a key." } else { "" };
        let text = "Everybody who has this key and the disk can read the disk. The next page shows it once. The audit log \
                    records that you have revealed it.";
        Ok(Confirm {
            text: vec![text.to_owned()],
            refused: refused.to_owned(),
            button: "Reveal the key",
            cli: cli(&visitor, &format!("host disk-key {}", shell::argument(&id))),
            api: curl(&visitor, "POST", &api(&id, "/reveal"), ""),
            ..found.question(&visitor, format!("Reveal the disk key of {}?", found.name), "reveal")
        })
    };
    confirm::shown(&visitor, TAB, made.await)
}

/// Shows the key. An audit event, so it is not a link.
pub async fn reveal(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let found = find(&fleet, &visitor, &id).await?;
        let secret = fleet.disk_keys().reveal(&found.key).await?;
        let salt = secret.salt.clone().unwrap_or_default();
        let slot = secret.key_slot.map(|slot| slot.to_string()).unwrap_or_default();
        let secret = (Zeroizing::new(secret.key.clone()), salt, slot);
        Ok(KeyPage { secret: Some(secret), ..found.page(&visitor, fleet.now()) })
    };
    shown(&visitor, TAB, made.await)
}

/// Asks before a host is made to ask its user.
pub async fn ask_to_request(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let found = find(&fleet, &visitor, &id).await?;
        let text = format!(
            "A Linux host asks its user for the passphrase of the disk, and reports a new key. It is asked at most {MAX_ASKED} \
             times, ten minutes apart, until it answers. Hosts with other systems cannot be asked. A stored key stays \
             valid until the new one comes."
        );
        Ok(Confirm {
            text: vec![text],
            button: "Request the key",
            is_dangerous: false,
            cli: cli(&visitor, &format!("host disk-key {} --request", shell::argument(&id))),
            api: curl(&visitor, "POST", &api(&id, "/escrow"), ""),
            ..found.question(&visitor, format!("Request a disk key from {}?", found.name), "request")
        })
    };
    confirm::shown(&visitor, TAB, made.await)
}

/// Makes a host ask its user for the passphrase.
pub async fn request(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let found = find(&fleet, &visitor, &id).await?;
        fleet.disk_keys().escrow(&found.key).await?;
        let text = "The host will ask its user for the passphrase within a minute.";
        Ok::<_, Error>(notice::redirect(visitor.base.link(format_args!("{TAB}/{id}/disk-key")), text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

#[cfg(test)]
mod tests {
    use muster_core::disk_key::Escrow;
    use muster_core::testing::at;

    use super::*;

    #[test]
    fn a_key_is_shown_as_stored_requested_failed_or_not_answered() {
        let state = |key: DiskKey| KeyState::new(&key, at(9)).state.2;
        let request = |due: bool| Some(Escrow { asked: 3, due_at: due.then(|| at(5)) });
        let failed = || DiskKey { error: Some("no TPM".into()), error_at: Some(at(1)), ..DiskKey::default() };
        assert_eq!(state(DiskKey::default()), "none reported");
        assert_eq!(state(DiskKey { escrow: request(true), ..failed() }), "requested");
        assert_eq!(state(DiskKey { escrow: request(false), ..DiskKey::default() }), "no answer");
        assert_eq!(state(failed()), "failed");
        assert_eq!(state(DiskKey { sealed: Some(vec![1]), escrow: request(true), ..failed() }), "stored");
        let asked = KeyState::new(&DiskKey { escrow: request(false), ..DiskKey::default() }, at(9)).request;
        assert_eq!(asked, "The host was asked 3 times and has not answered.");
    }
}
