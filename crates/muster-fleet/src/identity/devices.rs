//! Login of commands on devices without a browser (RFC 8628): the device shows a code, a logged-in person approves it, and
//! the device gets an API token that ends with the day's work.

use muster_core::error_chain::chain;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use muster_core::authorization::{OpContext, PrivilegeName};
use muster_core::credential::ApiKey;
use muster_core::entropy::random_uuid;
use muster_core::id::{KeyId, TokenId};
use muster_core::identity::{
    ApiToken, Approval, DEVICE_INTERVAL, DEVICE_LIFETIME, Decision, DeviceLogIn, Login, MOST_DEVICE_LOG_INS,
    SESSION_LIFETIME, UserCode, check_display,
};
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::{IdentityWrite, LogInWrite, Precondition, StoreError};
use serde_json::json;

use super::sign_in::SignIn;
use super::tokens::expires_within;
use crate::audit::audit_line;
use crate::authority::{Own, System};
use crate::watched_store::WatchedStore;

/// Attempts to find a code that is not in use.
const TRIES: usize = 3;

/// The service of logins of devices.
pub struct Devices {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    sign_in: Arc<SignIn>,
    /// When each device polled last, at this node. As many as can wait at all.
    polls: Mutex<HashMap<KeyId, Timestamp>>,
}

impl Devices {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        sign_in: Arc<SignIn>,
    ) -> Self {
        Self { store, clock, entropy, sign_in, polls: Mutex::default() }
    }

    /// Begins a login. Returns it with the secret that the device polls with.
    pub async fn begin(&self, device: &str, address: Option<IpAddr>) -> Result<(DeviceLogIn, String), Error> {
        let now = self.clock.now();
        let device = check_display(device).map_err(|error| Error::invalid("device", chain(&error).to_string()))?;
        // Per address, because a device has no credentials yet.
        self.sign_in.attempts().may_begin_device(address, now).map_err(|wait| {
            let message = "too many login codes were requested from this address";
            Error::new(ErrorKind::TooMany, "too_many_log_ins", message).retry_after(wait)
        })?;
        for _ in 0..TRIES {
            let key = ApiKey::generate(&*self.entropy);
            let log_in = DeviceLogIn {
                key_id: key.id.clone(),
                hash: key.hash(),
                user_code: UserCode::generate(&*self.entropy),
                device: device.clone(),
                address: address.map(|ip| ip.to_string()),
                decision: None,
                created_at: now,
                expires_at: now.plus(DEVICE_LIFETIME),
            };
            match self.store.commit(&System, vec![LogInWrite::InsertDevice(Box::new(log_in.clone())).into()]).await {
                Ok(_) => return Ok((log_in, key.token())),
                // The short code is taken. People type it, so it cannot be long enough to be unique by chance.
                Err(StoreError::Conflict(Precondition::Exists(_))) => {}
                Err(StoreError::Conflict(Precondition::InUse(_))) => return Err(full()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(full())
    }

    /// Finds the login of a code, for the person who decides about it. Wrong codes are throttled per person.
    pub async fn find(&self, context: &OpContext, code: &str) -> Result<DeviceLogIn, Error> {
        let (user, now, attempts) = (context.actor().user(), self.clock.now(), self.sign_in.attempts());
        // Per person, not per address: the code is what is guessed, by somebody who is logged in.
        if let Some(user) = user {
            attempts.may_try_code(user, now).map_err(|wait| {
                let message = "you entered too many unknown device codes";
                Error::new(ErrorKind::TooMany, "too_many_failures", message).retry_after(wait)
            })?;
        }
        let found = match UserCode::parse(code) {
            Some(code) => self.store.identity(&System).device_by_code(&code).await?,
            None => None,
        };
        let waiting = found.filter(|log_in| log_in.expires_at > now && log_in.decision.is_none());
        waiting.ok_or_else(|| {
            if let Some(user) = user {
                attempts.code_failed(user, now);
            }
            // Shown back shortened: the text comes from a form.
            let code = if code.len() > 32 { "of that length" } else { code };
            Error::not_found("device code", code).remedy("codes expire after ten minutes, and can be used only once")
        })
    }

    /// Approves a login. The device gets what the caller has now, and no longer than the caller's own login: the token ends
    /// with `session`, the one of the request.
    pub async fn approve(
        &self,
        context: &OpContext,
        session: Option<&KeyId>,
        code: &str,
    ) -> Result<DeviceLogIn, Error> {
        let log_in = self.find(context, code).await?;
        let own = Own::of(context)?;
        let now = self.clock.now();
        let own_token = match context.actor().token() {
            Some(token) => self.store.identity(&own).token(token).await?,
            None => None,
        };
        let of_token = own_token.as_ref().and_then(|token| token.login.clone());
        // The token ends with the session of the person who approved it, also through several devices.
        let login = of_token.or(session.cloned().map(Login::Session)).unwrap_or(Login::Other);
        let ends = [own_token.and_then(|token| token.expires_at), context.membership().map(|member| member.until)];
        let approval = Approval {
            user: own.user().clone(),
            privileges: context.privileges(),
            groups: context.membership().map(|member| member.groups.clone()).unwrap_or_default(),
            expires_at: expires_within(now.plus(SESSION_LIFETIME), &ends),
            login,
        };
        let names: Vec<&str> = approval.privileges.iter().map(PrivilegeName::as_str).collect();
        let detail = json!({
            "device": log_in.device, "device_address": log_in.address, "privileges": names,
            "expires_at": approval.expires_at.to_rfc3339_seconds()
        });
        // What the caller may do now is stored with the decision; what it may do later is compared again with each
        // request.
        self.decide(&own, &log_in, Decision::Approved(approval), "device.approve", detail).await
    }

    /// Denies a login.
    pub async fn deny(&self, context: &OpContext, code: &str) -> Result<DeviceLogIn, Error> {
        let log_in = self.find(context, code).await?;
        let own = Own::of(context)?;
        let detail = json!({"device": log_in.device, "device_address": log_in.address});
        self.decide(&own, &log_in, Decision::Denied, "device.deny", detail).await
    }

    async fn decide(
        &self,
        own: &Own,
        log_in: &DeviceLogIn,
        decision: Decision,
        action: &str,
        detail: serde_json::Value,
    ) -> Result<DeviceLogIn, Error> {
        let line = audit_line(own.origin(), self.clock.now(), action, format_args!("user:{}", own.user()), detail);
        let write = LogInWrite::DecideDevice { user_code: log_in.user_code.clone(), decision: decision.clone() };
        match self.store.commit(own, vec![write.into(), line]).await {
            Err(StoreError::Conflict(Precondition::KeyRefused)) => {
                Err(Error::conflict("decided", "this code was already approved or denied"))
            }
            other => other.map(|_| DeviceLogIn { decision: Some(decision), ..log_in.clone() }).map_err(Error::from),
        }
    }

    /// Returns the token of an approved device, once. Until then, the error tells why there is none (RFC 8628 §3.5).
    pub async fn poll(&self, secret: &str, address: Option<IpAddr>) -> Result<(ApiToken, String), Error> {
        let now = self.clock.now();
        let unknown = || pending("expired_token", "the device code is unknown, used or older than ten minutes");
        let Ok(key) = ApiKey::parse(secret) else { return Err(unknown()) };
        let found = self.store.identity(&System).device_by_key(&key.id).await?;
        // Compared by hash: the id alone, which appears in the store, must not be enough.
        let live = found.filter(|log_in| key.matches(&log_in.hash) && log_in.expires_at > now);
        let log_in = live.ok_or_else(unknown)?;
        match &log_in.decision {
            None if self.is_early(&log_in.key_id, now) => {
                Err(pending("slow_down", "the device polls too often; wait longer between polls"))
            }
            None => Err(pending("authorization_pending", "the device has not been approved yet")),
            Some(Decision::Denied) => {
                let take = LogInWrite::TakeDevice { key_id: log_in.key_id.clone() };
                // The denial is told once; afterwards the code is unknown.
                // Already gone after a concurrent poll, which is no matter.
                let _ = self.store.commit(&System, vec![take.into()]).await;
                Err(Error::new(ErrorKind::Forbidden, "access_denied", "the login was denied"))
            }
            Some(Decision::Approved(approval)) => self.issue(&log_in, approval, address, now).await,
        }
    }

    fn is_early(&self, key: &KeyId, now: Timestamp) -> bool {
        let mut polls = self.polls.lock().unwrap_or_else(PoisonError::into_inner);
        if polls.len() >= MOST_DEVICE_LOG_INS as usize {
            // The map only slows down polls, so losing entries of old logins is harmless.
            polls.retain(|_, last| now.since(*last) < DEVICE_LIFETIME);
        }
        if polls.len() >= MOST_DEVICE_LOG_INS as usize && !polls.contains_key(key) {
            return false;
        }
        // Half of the interval, because requests are delayed by different times on the way.
        polls.insert(key.clone(), now).is_some_and(|last| now.since(last) < DEVICE_INTERVAL / 2)
    }

    async fn issue(
        &self,
        log_in: &DeviceLogIn,
        approval: &Approval,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(ApiToken, String), Error> {
        let (key, own) = (ApiKey::generate(&*self.entropy), Own::proven(approval.user.clone(), address));
        // Created when it is fetched, not when it was approved: a secret that nobody fetches never exists.
        let token = ApiToken {
            id: TokenId::trusted(random_uuid(&*self.entropy)),
            key_id: key.id.clone(),
            hash: key.hash(),
            owner: approval.user.clone(),
            name: format!("login of {}", log_in.device),
            privileges: approval.privileges,
            groups: approval.groups.clone(),
            expires_at: Some(approval.expires_at),
            login: Some(approval.login.clone()),
            created_at: now,
            created_by: own.origin().actor.to_string(),
            last_used_at: None,
            revoked_at: None,
        };
        let detail = json!({
            "owner": token.owner, "name": token.name, "expires_at": approval.expires_at.to_rfc3339_seconds()
        });
        let line = audit_line(own.origin(), now, "token.create", format_args!("token:{}", token.id), detail);
        let writes = vec![
            // First, so that of two polls at the same time one gets a token.
            LogInWrite::TakeDevice { key_id: log_in.key_id.clone() }.into(),
            IdentityWrite::InsertToken(Box::new(token.clone())).into(),
            line,
        ];
        match self.store.commit(&own, writes).await {
            Err(StoreError::Conflict(_)) => Err(pending("expired_token", "the device code was used")),
            other => other.map(|_| (token, key.token())).map_err(Error::from),
        }
    }
}

fn pending(code: &'static str, message: &str) -> Error {
    Error::new(ErrorKind::Invalid, code, message)
}

fn full() -> Error {
    let message = format!("{MOST_DEVICE_LOG_INS} devices are waiting for approval");
    Error::new(ErrorKind::TooMany, "too_many_devices", message)
        .remedy("try again in a few minutes, or use an API token")
}
