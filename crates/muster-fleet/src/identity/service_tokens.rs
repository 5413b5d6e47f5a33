//! Tokens for tools that enroll agents by themselves (MG §1.12): of a service account of the space, whose role reads
//! policies and the tokens of enrollment keys and nothing else.

use std::sync::Arc;

use muster_core::authorization::{BindingScope, BuiltIn, EnrollmentReveal, Entitlement, Grant, OpContext};
use muster_core::credential::ApiKey;
use muster_core::entropy::random_uuid;
use muster_core::id::{BindingId, SpaceId, TokenId, UserId};
use muster_core::identity::{ApiToken, Binding, DEFAULT_TOKEN_LIFETIME, Subject, User, UserKind};
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error};
use muster_store::query::Page;
use muster_store::{IdentityWrite, Precondition, StoreError, Write};
use serde_json::json;

use super::tokens::MOST_TOKENS;
use super::{check_covers, users};
use crate::audit::audit_line;
use crate::watched_store::WatchedStore;

/// Name of the service account of the default space, as in Elasticsearch.
const ACCOUNT: &str = "fleet-server";
/// Attempts, if other servers create the account at the same time.
const TRIES: usize = 2;

/// The service of service tokens.
pub struct ServiceTokens {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl ServiceTokens {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { store, clock, entropy }
    }

    /// Creates a token of the space's service account, and the account if there is none. The caller must have every
    /// privilege of the token in the whole space.
    pub async fn create(&self, context: &OpContext) -> Result<(ApiToken, String), Error> {
        let grant = context.grant::<EnrollmentReveal>()?;
        let scope = BindingScope::Space(grant.space().clone());
        check_covers(context, &[Entitlement { privileges: BuiltIn::Gateway.privileges(), scope: scope.clone() }])?;
        for _ in 0..TRIES {
            let now = self.clock.now();
            let (account, mut writes) = self.account(&grant, &scope, now).await?;
            let (token, secret) = self.token(&grant, &account, now);
            let detail = json!({"owner": account.id, "name": token.name, "expires_at": token.expires_at.map(Timestamp::to_rfc3339_seconds)});
            let line = audit_line(grant.origin(), now, "token.create", format_args!("token:{}", token.id), detail);
            writes.extend([IdentityWrite::InsertToken(Box::new(token.clone())).into(), line]);
            match self.store.commit(&grant, writes).await {
                Ok(_) => return Ok((token, secret)),
                // Another server has created the account at the same time.
                Err(StoreError::Conflict(Precondition::NameTaken(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::conflict("conflict", "the service account was changed at the same time"))
    }

    /// Returns the account, and the writes that create it.
    async fn account(
        &self,
        grant: &Grant<EnrollmentReveal>,
        scope: &BindingScope,
        now: Timestamp,
    ) -> Result<(User, Vec<Write>), Error> {
        let (name, store) = (account_name(grant.space()), self.store.identity(grant));
        if let Some(found) = store.user_principal(&name, grant.space()).await? {
            let user = found.user;
            // A person of that name would get a token that acts as them.
            if user.kind != UserKind::ServiceAccount {
                return Err(Error::conflict("name_taken", format!("the user {name} is not a service account")));
            }
            if store.tokens(Some(&user.id), Page { offset: 0, limit: 0 }).await?.total >= MOST_TOKENS {
                return Err(Error::conflict(
                    "too_many_tokens",
                    format!("{name} already has {MOST_TOKENS} tokens, the maximum"),
                ));
            }
            return Ok((user, Vec::new()));
        }
        let user = self.new_account(grant, name, now);
        let binding = Binding {
            id: BindingId::trusted(random_uuid(&*self.entropy)),
            subject: Subject::User(user.id.clone()),
            role: BuiltIn::Gateway.id(),
            scope: scope.clone(),
            created_at: now,
            created_by: grant.actor().to_string(),
        };
        let detail = json!({"name": user.name, "kind": user.kind, "role": binding.role, "scope": binding.scope});
        let line = audit_line(grant.origin(), now, "user.create", users::subject(&user.id), detail);
        let writes = vec![
            IdentityWrite::InsertUser(Box::new(user.clone())).into(),
            IdentityWrite::InsertBinding(Box::new(binding)).into(),
            line,
        ];
        Ok((user, writes))
    }

    fn new_account(&self, grant: &Grant<EnrollmentReveal>, name: String, now: Timestamp) -> User {
        User {
            id: UserId::trusted(random_uuid(&*self.entropy)),
            kind: UserKind::ServiceAccount,
            name,
            full_name: format!("Enrollment of agents in the space {}", grant.space()),
            password: None,
            federated: None,
            locked_at: None,
            version: 1,
            created_at: now,
            created_by: grant.actor().to_string(),
            updated_at: now,
        }
    }

    fn token(&self, grant: &Grant<EnrollmentReveal>, account: &User, now: Timestamp) -> (ApiToken, String) {
        let key = ApiKey::generate(&*self.entropy);
        let token = ApiToken {
            id: TokenId::trusted(random_uuid(&*self.entropy)),
            key_id: key.id.clone(),
            hash: key.hash(),
            owner: account.id.clone(),
            name: format!("token-{}", now.as_unix_millis()),
            // Also if an administrator gives the account more.
            privileges: BuiltIn::Gateway.privileges(),
            login: None,
            groups: Vec::new(),
            expires_at: Some(now.plus(DEFAULT_TOKEN_LIFETIME)),
            created_at: now,
            created_by: grant.actor().to_string(),
            last_used_at: None,
            revoked_at: None,
        };
        (token, key.token())
    }
}

fn account_name(space: &SpaceId) -> String {
    if *space == SpaceId::default() { ACCOUNT.to_owned() } else { format!("{ACCOUNT}-{space}") }
}
