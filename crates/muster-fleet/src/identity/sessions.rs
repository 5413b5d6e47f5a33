//! The service of sessions: who is logged in, and the end of that.

use std::sync::Arc;

use muster_core::Error;
use muster_core::authorization::{OpContext, UsersRead, UsersWrite};
use muster_core::id::KeyId;
use muster_core::identity::{Session, User};
use muster_core::time::Clock;
use muster_store::IdentityWrite;
use serde_json::json;

use super::users::subject;
use crate::audit::audit_line;
use crate::authority::{Authorized, Own};
use crate::watched_store::WatchedStore;

/// The service of sessions.
pub struct Sessions {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
}

impl Sessions {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Returns the caller's sessions, newest first, at most 100.
    pub async fn own(&self, context: &OpContext) -> Result<Vec<Session>, Error> {
        let own = Own::of(context)?;
        Ok(self.store.identity(&own).sessions(own.user(), self.clock.now()).await?)
    }

    /// Returns the sessions of a user, newest first, at most 100.
    pub async fn of(&self, user: &Authorized<User, UsersRead>) -> Result<Vec<Session>, Error> {
        Ok(self.store.identity(user.grant()).sessions(&user.id, self.clock.now()).await?)
    }

    /// Ends one of the caller's sessions, with the tokens of devices that were approved in it.
    pub async fn end_own(&self, context: &OpContext, key: &str) -> Result<(), Error> {
        let own = Own::of(context)?;
        let found = self.own(context).await?.into_iter().find(|session| session.key_id.as_str() == key);
        let key_id: KeyId = found.ok_or_else(|| Error::not_found("session", key))?.key_id;
        let line = audit_line(own.origin(), self.clock.now(), "session.delete", subject(own.user()), json!({}));
        Ok(self.store.commit(&own, vec![IdentityWrite::DeleteSession { key_id }.into(), line]).await.map(drop)?)
    }

    /// Ends all sessions of the caller, with its set-up links and the tokens of its devices.
    pub async fn end_all_own(&self, context: &OpContext) -> Result<(), Error> {
        let own = Own::of(context)?;
        let line = audit_line(own.origin(), self.clock.now(), "session.delete_all", subject(own.user()), json!({}));
        let end = IdentityWrite::EndSessions { user: own.user().clone() };
        Ok(self.store.commit(&own, vec![end.into(), line]).await.map(drop)?)
    }

    /// Ends all sessions of a user whom the caller may change, with its set-up links and the tokens of its devices.
    pub async fn end_all(&self, user: &Authorized<User, UsersWrite>) -> Result<(), Error> {
        let detail = json!({"name": user.name});
        let line = audit_line(user.grant().origin(), self.clock.now(), "session.delete_all", subject(&user.id), detail);
        let end = IdentityWrite::EndSessions { user: user.id.clone() };
        Ok(self.store.commit(user.grant(), vec![end.into(), line]).await.map(drop)?)
    }
}
