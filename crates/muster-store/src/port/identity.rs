//! Users, roles, bindings, tokens, sessions and spaces.

use muster_core::authorization::{Entitlement, Role};
use muster_core::id::{BindingId, KeyId, ProviderId, RoleId, SpaceId, TokenId, UserId};
use muster_core::identity::{
    ApiToken, Binding, Decision, DeviceLogIn, OidcProvider, Principal, Session, SetupLink, Space, User, UserCode,
    UserKind,
};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::{Listed, Page};

/// A change of users, roles, bindings, tokens, sessions and spaces.
#[derive(Clone, Debug)]
pub enum IdentityWrite {
    /// Inserts a user. Fails with `Exists` or `NameTaken`.
    InsertUser(Box<User>),
    /// Updates a user from the version before. Fails with `Changed` or `NameTaken`.
    UpdateUser(Box<User>),
    /// Deletes a user with its bindings, tokens and sessions. Fails with `Missing`.
    DeleteUser {
        /// The user.
        id: UserId,
    },
    /// A precondition only, to be listed after the writes that it checks: fails with `LastAdministrator` unless a user that
    /// is not locked, and no service account, is an administrator of the installation.
    KeepsAdministrator,
    /// Inserts a role. Fails with `Exists` or `NameTaken`.
    InsertRole(Box<Role>),
    /// Updates a role from the version before. Fails with `Changed` or `NameTaken`.
    UpdateRole(Box<Role>),
    /// Deletes a role. Fails with `Missing`, or with `InUse` if a binding refers to it.
    DeleteRole {
        /// The role.
        id: RoleId,
    },
    /// Inserts a binding. Fails with `Missing` if its user or its space does not exist.
    InsertBinding(Box<Binding>),
    /// Deletes a binding. Fails with `Missing`.
    DeleteBinding {
        /// The binding.
        id: BindingId,
    },
    /// Inserts a token. Fails with `Missing` if its owner does not exist.
    InsertToken(Box<ApiToken>),
    /// Revokes a token; ignored if it is revoked. Fails with `Missing`.
    RevokeToken {
        /// The token.
        id: TokenId,
        /// Time.
        now: Timestamp,
    },
    /// Records a use of a token; ignored if it is gone.
    UseToken {
        /// The token.
        id: TokenId,
        /// Time of the use.
        now: Timestamp,
    },
    /// Inserts a session. Fails with `Missing` if its user does not exist.
    InsertSession(Box<Session>),
    /// Records a use of a session, if it exists.
    UseSession {
        /// The session.
        key_id: KeyId,
        /// Time of the use.
        now: Timestamp,
    },
    /// Deletes a session, if it exists.
    DeleteSession {
        /// The session.
        key_id: KeyId,
    },
    /// Deletes all sessions and set-up links of a user.
    EndSessions {
        /// The user.
        user: UserId,
    },
    /// Inserts a set-up link, which replaces others of the user. Fails with `Missing` if the user does not exist.
    InsertSetupLink(Box<SetupLink>),
    /// Uses up a set-up link. Fails with `KeyRefused` if it does not exist: of two concurrent uses, one succeeds.
    UseSetupLink {
        /// The link.
        key_id: KeyId,
    },
    /// Inserts a space. Fails with `Exists`.
    InsertSpace(Box<Space>),
    /// Updates a space from the version before, and inserts the default space. Fails with `Changed`.
    UpdateSpace(Box<Space>),
    /// Deletes a space with the bindings in it. Fails with `Missing`, or with `InUse` while anything is in it.
    DeleteSpace {
        /// The space.
        id: SpaceId,
    },
    /// A precondition only: the space exists, and is not deleted before the end of the commit. Fails with `Missing`.
    HasSpace {
        /// The space.
        id: SpaceId,
    },
    /// Inserts an OpenID provider. Fails with `Exists`.
    InsertProvider(Box<OidcProvider>),
    /// Updates an OpenID provider, except its issuer, from the version before. Fails with `Changed`.
    UpdateProvider(Box<OidcProvider>),
    /// Deletes an OpenID provider, the sessions of its users, and their tokens with rights from groups. Fails with
    /// `Missing`.
    DeleteProvider {
        /// The provider.
        id: ProviderId,
        /// Its issuer.
        issuer: String,
        /// Time.
        now: Timestamp,
    },
    /// Inserts or replaces a saved view. Fails with `Missing` if the user does not exist.
    PutView {
        /// The user.
        user: UserId,
        /// The space.
        space: SpaceId,
        /// Name of the view.
        name: String,
        /// Parameters of the list.
        query: String,
    },
    /// Deletes a saved view, if it exists.
    DeleteView {
        /// The user.
        user: UserId,
        /// The space.
        space: SpaceId,
        /// Name of the view.
        name: String,
    },
    /// Of logins that are not complete yet.
    LogIn(LogInWrite),
    /// Deletes sessions, links and logins that ended, and tokens that expired or were revoked before `keep_tokens_from`.
    Expire {
        /// Time.
        now: Timestamp,
        /// Tokens that ended at this time or later are kept.
        keep_tokens_from: Timestamp,
    },
}

/// A change of logins that are not complete yet.
#[derive(Clone, Debug)]
pub enum LogInWrite {
    /// Records that a login at an OpenID provider was completed. Fails with `KeyRefused` if it was before.
    Complete {
        /// The state of the login.
        state: String,
        /// Time until which it is kept.
        expires_at: Timestamp,
    },
    /// Inserts the login of a device, and deletes those that ended. Fails with `InUse` if too many wait, and with `Exists`
    /// if the code is taken.
    InsertDevice(Box<DeviceLogIn>),
    /// Decides about the login of a device. Fails with `KeyRefused` if it is gone or decided, and with `Missing` if the
    /// user is gone.
    DecideDevice {
        /// The code.
        user_code: UserCode,
        /// The decision.
        decision: Decision,
    },
    /// Deletes the login of a device, whose token is created in the same commit. Fails with `KeyRefused` if it is gone:
    /// of two concurrent polls, one gets a token.
    TakeDevice {
        /// The key of the device.
        key_id: KeyId,
    },
}

impl From<LogInWrite> for Write {
    fn from(write: LogInWrite) -> Self {
        Self::Identity(IdentityWrite::LogIn(write))
    }
}

impl From<IdentityWrite> for Write {
    fn from(write: IdentityWrite) -> Self {
        Self::Identity(write)
    }
}

reads! {
    /// Reads of users, roles, bindings, tokens, sessions and spaces.
    pub trait IdentityStore {
        /// Selects the saved views of a user in a space, by name: names and parameters.
        async fn views(&self, user: &UserId, space: &SpaceId) -> Result<Vec<(String, String)>, StoreError>;
        /// Selects the token with this key id, and its owner for a request to a space. One read, because every request
        /// needs both.
        async fn token_principal(
            &self,
            key: &KeyId,
            space: &SpaceId,
        ) -> Result<Option<(ApiToken, Principal)>, StoreError>;
        /// Selects the session with this key id, and its user, with the bindings of its groups.
        async fn session_principal(
            &self,
            key: &KeyId,
            space: &SpaceId,
        ) -> Result<Option<(Session, Principal)>, StoreError>;
        /// Returns the newest sessions of a user that have not ended, newest first, at most 100.
        async fn sessions(&self, user: &UserId, now: Timestamp) -> Result<Vec<Session>, StoreError>;
        /// Selects the user with this name.
        async fn user_principal(&self, name: &str, space: &SpaceId) -> Result<Option<Principal>, StoreError>;
        /// Selects what the user with this name may do through own bindings, and through the groups of all its sessions and
        /// tokens.
        async fn user_rights(&self, name: &str) -> Result<Vec<Entitlement>, StoreError>;
        /// Selects a user.
        async fn user(&self, id: &UserId) -> Result<Option<User>, StoreError>;
        /// Selects the user with this subject at an OpenID provider.
        async fn user_by_subject(&self, issuer: &str, subject: &str) -> Result<Option<User>, StoreError>;
        /// Returns a page of the users of a kind, by name.
        async fn users(&self, kind: UserKind, page: Page) -> Result<Listed<User>, StoreError>;
        /// Selects the roles beside the built-in ones, by name.
        async fn roles(&self) -> Result<Vec<Role>, StoreError>;
        /// Selects a role that is not built in.
        async fn role(&self, id: &RoleId) -> Result<Option<Role>, StoreError>;
        /// Returns a page of bindings in the order of their ids, of one user or of all.
        async fn bindings(&self, user: Option<&UserId>, page: Page) -> Result<Listed<Binding>, StoreError>;
        /// Selects a binding.
        async fn binding(&self, id: &BindingId) -> Result<Option<Binding>, StoreError>;
        /// Returns a page of tokens, newest first, of one owner or of all.
        async fn tokens(&self, owner: Option<&UserId>, page: Page) -> Result<Listed<ApiToken>, StoreError>;
        /// Selects a token.
        async fn token(&self, id: &TokenId) -> Result<Option<ApiToken>, StoreError>;
        /// Selects a set-up link.
        async fn setup_link(&self, key: &KeyId) -> Result<Option<SetupLink>, StoreError>;
        /// Selects the OpenID providers, by id.
        async fn oidc_providers(&self) -> Result<Vec<OidcProvider>, StoreError>;
        /// Selects an OpenID provider.
        async fn oidc_provider(&self, id: &ProviderId) -> Result<Option<OidcProvider>, StoreError>;
        /// Selects the login of a device by its key.
        async fn device_by_key(&self, key: &KeyId) -> Result<Option<DeviceLogIn>, StoreError>;
        /// Selects the login of a device by its code.
        async fn device_by_code(&self, code: &UserCode) -> Result<Option<DeviceLogIn>, StoreError>;
        /// Selects the spaces that have a row, by id.
        async fn spaces(&self) -> Result<Vec<Space>, StoreError>;
        /// Selects a space that has a row.
        async fn space(&self, id: &SpaceId) -> Result<Option<Space>, StoreError>;
    }
}
