//! Reads of users, roles, bindings, tokens, sessions and spaces.

use async_trait::async_trait;
use muster_core::authorization::{Entitlement, Role};
use muster_core::id::{BindingId, KeyId, ProviderId, RoleId, SpaceId, TokenId, UserId};
use muster_core::identity::{
    ApiToken, Binding, DeviceLogIn, OidcProvider, Principal, Session, SetupLink, Space, User, UserCode, UserKind,
};
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::identity;
use crate::port::{IdentityStore, StoreError};
use crate::query::{Listed, Page};

#[async_trait]
impl IdentityStore for SqlStore {
    async fn token_principal(&self, key: &KeyId, space: &SpaceId) -> Result<Option<(ApiToken, Principal)>, StoreError> {
        let (key, space) = (key.clone(), space.clone());
        self.points.read(move |c| identity::of_token(c, &key, &space)).await
    }

    async fn session_principal(
        &self,
        key: &KeyId,
        space: &SpaceId,
    ) -> Result<Option<(Session, Principal)>, StoreError> {
        let (key, space) = (key.clone(), space.clone());
        self.points.read(move |c| identity::of_session(c, &key, &space)).await
    }

    async fn user_principal(&self, name: &str, space: &SpaceId) -> Result<Option<Principal>, StoreError> {
        let (name, space) = (name.to_owned(), space.clone());
        self.points.read(move |c| identity::of_user(c, &name, &space)).await
    }

    async fn user_rights(&self, name: &str) -> Result<Vec<Entitlement>, StoreError> {
        let name = name.to_owned();
        self.points.read(move |c| identity::rights(c, &name)).await
    }

    async fn user(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| identity::user(c, &id)).await
    }

    async fn user_by_subject(&self, issuer: &str, subject: &str) -> Result<Option<User>, StoreError> {
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        self.points.read(move |c| identity::user_by_subject(c, &issuer, &subject)).await
    }

    async fn users(&self, kind: UserKind, page: Page) -> Result<Listed<User>, StoreError> {
        self.lists.snapshot(move |c| identity::users(c, kind, page)).await
    }

    async fn roles(&self) -> Result<Vec<Role>, StoreError> {
        self.lists.read(identity::roles).await
    }

    async fn role(&self, id: &RoleId) -> Result<Option<Role>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| identity::role(c, &id)).await
    }

    async fn bindings(&self, user: Option<&UserId>, page: Page) -> Result<Listed<Binding>, StoreError> {
        let user = user.cloned();
        self.lists.snapshot(move |c| identity::bindings(c, user.as_ref(), page)).await
    }

    async fn binding(&self, id: &BindingId) -> Result<Option<Binding>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| identity::binding(c, &id)).await
    }

    async fn tokens(&self, owner: Option<&UserId>, page: Page) -> Result<Listed<ApiToken>, StoreError> {
        let owner = owner.cloned();
        self.lists.snapshot(move |c| identity::tokens(c, owner.as_ref(), page)).await
    }

    async fn sessions(&self, user: &UserId, now: Timestamp) -> Result<Vec<Session>, StoreError> {
        let user = user.clone();
        self.lists.snapshot(move |c| identity::sessions(c, &user, now)).await
    }

    async fn token(&self, id: &TokenId) -> Result<Option<ApiToken>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| identity::token(c, &id)).await
    }

    async fn setup_link(&self, key: &KeyId) -> Result<Option<SetupLink>, StoreError> {
        let key = key.clone();
        self.points.read(move |c| identity::setup_link(c, &key)).await
    }

    async fn oidc_providers(&self) -> Result<Vec<OidcProvider>, StoreError> {
        self.lists.read(identity::providers).await
    }

    async fn oidc_provider(&self, id: &ProviderId) -> Result<Option<OidcProvider>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| identity::provider(c, &id)).await
    }

    async fn device_by_key(&self, key: &KeyId) -> Result<Option<DeviceLogIn>, StoreError> {
        let key = key.clone();
        self.points.read(move |c| identity::device_by_key(c, &key)).await
    }

    async fn device_by_code(&self, code: &UserCode) -> Result<Option<DeviceLogIn>, StoreError> {
        let code = code.clone();
        self.points.read(move |c| identity::device_by_code(c, &code)).await
    }

    async fn views(&self, user: &UserId, space: &SpaceId) -> Result<Vec<(String, String)>, StoreError> {
        let (user, space) = (user.clone(), space.clone());
        self.lists.read(move |c| identity::views(c, &user, &space)).await
    }

    async fn spaces(&self) -> Result<Vec<Space>, StoreError> {
        self.lists.read(identity::spaces).await
    }

    async fn space(&self, id: &SpaceId) -> Result<Option<Space>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| identity::space(c, &id)).await
    }
}
