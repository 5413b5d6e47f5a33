//! Users, service accounts, roles, bindings, API tokens, spaces, and the caller itself.

use muster_protocol::management::envelope::Whole;
use muster_protocol::management::identity::{
    Binding, CreateBinding, CreateSpace, CreateToken, CreateUser, ListBindings, ListTokens, ListUsers, LoggedIn, Role,
    SaveRole, Session, SetPassword, SetupLink, Space, Token, UpdateSpace, UpdateUser, UseSetupLink, User,
};
use muster_protocol::management::{Empty, Item, Items};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::transport::DRY_RUN;
use crate::{Client, Result};

/// Kind of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// A person.
    Person,
    /// A program.
    Service,
}

impl Account {
    const fn path(self) -> &'static str {
        match self {
            Self::Person => "users",
            Self::Service => "service_accounts",
        }
    }
}

impl Client {
    async fn v1<T: DeserializeOwned>(
        &self,
        method: Method,
        segments: &[&str],
        query: &impl Serialize,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<T> {
        let request = self.request(method, self.v1_url(segments)?).query(query);
        self.answer(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    pub(crate) async fn v1_get<T: DeserializeOwned>(&self, segments: &[&str], query: &impl Serialize) -> Result<T> {
        self.v1(Method::GET, segments, query, None::<&Empty>).await
    }

    pub(crate) async fn v1_item<T: DeserializeOwned>(
        &self,
        method: Method,
        segments: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        Ok(self.v1::<Item<T>>(method, segments, &(), Some(body)).await?.item)
    }

    pub(crate) async fn v1_delete(&self, segments: &[&str], dry_run: bool) -> Result<()> {
        let query: &[(&str, &str)] = if dry_run { &DRY_RUN } else { &[] };
        self.v1::<Empty>(Method::DELETE, segments, &query, None::<&Empty>).await.map(drop)
    }

    /// Returns a page of users, by name.
    pub async fn users(&self, account: Account, query: &ListUsers) -> Result<Items<User>> {
        self.v1_get(&[account.path()], query).await
    }

    /// Returns a user or a service account, by id or name.
    pub async fn user(&self, id: &str) -> Result<User> {
        Ok(self.v1_get::<Item<_>>(&["users", id], &()).await?.item)
    }

    /// Creates a user, without privileges.
    pub async fn create_user(&self, account: Account, user: &CreateUser) -> Result<User> {
        self.v1_item(Method::POST, &[account.path()], user).await
    }

    /// Changes a user.
    pub async fn update_user(&self, id: &str, change: &UpdateUser) -> Result<User> {
        self.v1_item(Method::PUT, &["users", id], change).await
    }

    /// Sets the password of a user.
    pub async fn set_password(&self, id: &str, password: &SetPassword) -> Result<User> {
        self.v1_item(Method::PUT, &["users", id, "password"], password).await
    }

    /// Creates a link with which the user sets a password.
    pub async fn create_setup_link(&self, id: &str) -> Result<SetupLink> {
        self.v1_item(Method::POST, &["users", id, "setup_link"], &Empty {}).await
    }

    /// Sets the password of the user of a set-up link. Needs no other credentials.
    pub async fn use_setup_link(&self, link: &UseSetupLink) -> Result<User> {
        self.v1_item(Method::POST, &["setup"], link).await
    }

    /// Returns the sessions of a user; those of the caller without one.
    pub async fn sessions(&self, user: Option<&str>) -> Result<Vec<LoggedIn>> {
        let found = match user {
            Some(user) => self.v1_get::<Whole<LoggedIn>>(&["users", user, "sessions"], &()).await?,
            None => self.v1_get(&["sessions"], &()).await?,
        };
        Ok(found.items)
    }

    /// Deletes a user with its tokens, sessions and bindings. A dry run changes nothing.
    pub async fn delete_user(&self, id: &str, dry_run: bool) -> Result<()> {
        self.v1_delete(&["users", id], dry_run).await
    }

    /// Returns all roles, the built-in ones first.
    pub async fn roles(&self) -> Result<Vec<Role>> {
        Ok(self.v1_get::<Whole<_>>(&["roles"], &()).await?.items)
    }

    /// Returns a role.
    pub async fn role(&self, id: &str) -> Result<Role> {
        Ok(self.v1_get::<Item<_>>(&["roles", id], &()).await?.item)
    }

    /// Creates a role.
    pub async fn create_role(&self, role: &SaveRole) -> Result<Role> {
        self.v1_item(Method::POST, &["roles"], role).await
    }

    /// Changes a role.
    pub async fn update_role(&self, id: &str, role: &SaveRole) -> Result<Role> {
        self.v1_item(Method::PUT, &["roles", id], role).await
    }

    /// Deletes a role that nobody has. A dry run changes nothing.
    pub async fn delete_role(&self, id: &str, dry_run: bool) -> Result<()> {
        self.v1_delete(&["roles", id], dry_run).await
    }

    /// Returns a page of bindings.
    pub async fn bindings(&self, query: &ListBindings) -> Result<Items<Binding>> {
        self.v1_get(&["bindings"], query).await
    }

    /// Gives a role to a user or a group.
    pub async fn create_binding(&self, binding: &CreateBinding) -> Result<Binding> {
        self.v1_item(Method::POST, &["bindings"], binding).await
    }

    /// Takes a role away. A dry run changes nothing.
    pub async fn delete_binding(&self, id: &str, dry_run: bool) -> Result<()> {
        self.v1_delete(&["bindings", id], dry_run).await
    }

    /// Returns a page of API tokens, newest first.
    pub async fn tokens(&self, query: &ListTokens) -> Result<Items<Token>> {
        self.v1_get(&["tokens"], query).await
    }

    /// Returns an API token, without its secret.
    pub async fn token(&self, id: &str) -> Result<Token> {
        Ok(self.v1_get::<Item<_>>(&["tokens", id], &()).await?.item)
    }

    /// Creates an API token; the response contains it.
    pub async fn create_token(&self, token: &CreateToken) -> Result<Token> {
        self.v1_item(Method::POST, &["tokens"], token).await
    }

    /// Revokes an API token. A dry run changes nothing.
    pub async fn revoke_token(&self, id: &str, dry_run: bool) -> Result<()> {
        self.v1_delete(&["tokens", id], dry_run).await
    }

    /// Returns all spaces.
    pub async fn spaces(&self) -> Result<Vec<Space>> {
        Ok(self.v1_get::<Whole<_>>(&["spaces"], &()).await?.items)
    }

    /// Returns a space.
    pub async fn space(&self, id: &str) -> Result<Space> {
        Ok(self.v1_get::<Item<_>>(&["spaces", id], &()).await?.item)
    }

    /// Creates a space.
    pub async fn create_space(&self, space: &CreateSpace) -> Result<Space> {
        self.v1_item(Method::POST, &["spaces"], space).await
    }

    /// Changes a space.
    pub async fn update_space(&self, id: &str, space: &UpdateSpace) -> Result<Space> {
        self.v1_item(Method::PUT, &["spaces", id], space).await
    }

    /// Deletes an empty space. A dry run changes nothing.
    pub async fn delete_space(&self, id: &str, dry_run: bool) -> Result<()> {
        self.v1_delete(&["spaces", id], dry_run).await
    }

    /// Returns the caller, and what it may do.
    pub async fn session(&self) -> Result<Session> {
        Ok(self.v1_get::<Item<_>>(&["session"], &()).await?.item)
    }
}
