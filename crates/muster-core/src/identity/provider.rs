//! OpenID providers, where people log in (MG §8.2), and what the claims about a person mean here.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::canonical;
use crate::id::ProviderId;
use crate::identity::{BadName, check_display, check_name};
use crate::time::Timestamp;

/// Path of the callback below the URL of the management API, in front of the id and behind it.
const CALLBACK: (&str, &str) = ("/api/v1/login/oidc/", "/callback");
/// Maximum length of a subject, bytes (OpenID Connect Core, section 2).
const MAX_SUBJECT: usize = 255;
/// Maximum number of groups of a person. Each request of a session looks for the bindings of all of them.
const MAX_GROUPS: usize = 500;
/// Maximum length of the name of a group with its prefix, bytes.
const MAX_GROUP: usize = 255;

/// An OpenID provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcProvider {
    /// Id, which is part of the URL of the login.
    pub id: ProviderId,
    /// Issuer: the URL of the provider, exactly as in its discovery document.
    pub issuer: String,
    /// The settings.
    pub settings: OidcSettings,
    /// The client secret, encrypted; `None` for a public client.
    pub sealed_secret: Option<Vec<u8>>,
    /// Number of changes, for preconditions.
    pub version: i64,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

/// The settings of an OpenID provider that need no column of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OidcSettings {
    /// Id of this installation as a client of the provider.
    pub client_id: String,
    /// URL of the management API, as browsers reach it.
    pub url: String,
    /// Requested scopes; `openid` is always one of them.
    pub scopes: Vec<String>,
    /// Claim with the name of the user.
    pub user_name_claim: String,
    /// Claim with the groups of the user.
    pub groups_claim: String,
    /// Prefix of the names of groups in bindings, which keeps groups of several providers apart.
    pub group_prefix: String,
    /// Who may log in for the first time.
    pub new_users: NewUsers,
}

/// What happens at the first login of a person who has no user here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewUsers {
    /// The login is refused until an administrator links a user.
    #[default]
    Refuse,
    /// A user is created. What it may do depends on its groups.
    Create,
}

impl OidcProvider {
    /// Returns the URL to which the provider sends browsers back. It must be registered there.
    pub fn redirect_uri(&self) -> String {
        format!("{}{}{}{}", self.settings.url.trim_end_matches('/'), CALLBACK.0, self.id, CALLBACK.1)
    }
}

/// Validates a URL that carries credentials: `https`, or `http` to this host, for tests and proxies on it.
pub fn check_secure_url(text: &str) -> Result<String, String> {
    let url = canonical::url(text, &["https", "http"])?;
    if url.contains(['?', '#', '@']) {
        return Err("must have no query, no fragment and no user".to_owned());
    }
    let plain = url.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or_default());
    match plain.map(host_of) {
        None | Some("localhost" | "127.0.0.1" | "[::1]") => Ok(url),
        Some(_) => Err("must begin with https://".to_owned()),
    }
}

fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    }
}

/// A person, as a provider describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Subject: unique at the provider and never reassigned.
    pub subject: String,
    /// Name of the user.
    pub name: String,
    /// Name for people; empty if the provider tells none.
    pub full_name: String,
    /// Groups, with the prefix of the provider.
    pub groups: Vec<String>,
}

/// Reason why the claims of a verified token cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimFault {
    /// The claim is missing or no string.
    #[error("the claim `{0}` is missing or not a string")]
    Missing(String),
    /// The subject is too long, or has characters that a subject may not have.
    #[error("the claim `sub` is not a valid subject")]
    Subject,
    /// The user name is not valid here.
    #[error("the claim `{claim}` is not a valid user name: it {reason}")]
    Name {
        /// The claim.
        claim: String,
        /// Reason.
        #[source]
        reason: BadName,
    },
    /// The provider has not verified the address that is the user name.
    #[error("the provider has not verified the email address")]
    UnverifiedEmail,
    /// The groups are neither a string nor a list of strings, or a name is too long.
    #[error("the claim `{0}` is not a list of groups")]
    Groups(String),
    /// Too many groups, or the provider left them out for that reason.
    #[error("the person is in more than {MAX_GROUPS} groups")]
    TooManyGroups,
}

/// Reads the claims of a verified token.
pub fn person(claims: &Map<String, Value>, settings: &OidcSettings) -> Result<Person, ClaimFault> {
    let subject = text(claims, "sub").ok_or_else(|| ClaimFault::Missing("sub".to_owned()))?;
    if subject.is_empty() || subject.len() > MAX_SUBJECT || !subject.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(ClaimFault::Subject);
    }
    let claim = &settings.user_name_claim;
    let name = text(claims, claim).ok_or_else(|| ClaimFault::Missing(claim.clone()))?;
    // A provider that does not send this claim is trusted to have verified the address.
    if claim == "email" && claims.get("email_verified").is_some_and(|value| !is_true(value)) {
        return Err(ClaimFault::UnverifiedEmail);
    }
    let name = check_name(name).map_err(|reason| ClaimFault::Name { claim: claim.clone(), reason })?;
    // Only for display, so an odd one is no reason to refuse anybody.
    let full_name = text(claims, "name").and_then(|name| check_display(name).ok()).unwrap_or_default();
    Ok(Person { subject: subject.to_owned(), name, full_name, groups: groups(claims, settings)? })
}

/// Some providers send booleans as strings.
fn is_true(value: &Value) -> bool {
    *value == Value::Bool(true) || *value == "true"
}

fn groups(claims: &Map<String, Value>, settings: &OidcSettings) -> Result<Vec<String>, ClaimFault> {
    let claim = &settings.groups_claim;
    let malformed = || ClaimFault::Groups(claim.clone());
    let found = match at(claims, claim) {
        // A reference in place of the groups: some providers do this if there are many. Without them, rights would
        // vanish silently.
        None if claims.get("_claim_names").and_then(|names| names.get(claim)).is_some() => {
            return Err(ClaimFault::TooManyGroups);
        }
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(all)) => all.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(malformed)?,
        Some(_) => return Err(malformed()),
    };
    if found.len() > MAX_GROUPS {
        return Err(ClaimFault::TooManyGroups);
    }
    let mut groups: Vec<String> = found.iter().map(|name| format!("{}{name}", settings.group_prefix)).collect();
    if groups.iter().any(|name| name.len() > MAX_GROUP) {
        return Err(malformed());
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

/// Returns whether all claims that [`person`] reads are present. Otherwise they may be at the provider's endpoint for them.
pub fn has_all(claims: &Map<String, Value>, settings: &OidcSettings) -> bool {
    at(claims, &settings.user_name_claim).is_some() && at(claims, &settings.groups_claim).is_some()
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    at(claims, name)?.as_str()
}

/// Returns a claim by its name, or by a dotted path, such as `realm_access.roles`. Names of claims may be URLs.
fn at<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(found) = claims.get(name) {
        return Some(found);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, step| value.get(step))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> OidcSettings {
        OidcSettings {
            client_id: "muster".into(),
            url: "https://fleet.example/".into(),
            scopes: vec!["openid".into()],
            user_name_claim: "preferred_username".into(),
            groups_claim: "groups".into(),
            group_prefix: String::new(),
            new_users: NewUsers::Refuse,
        }
    }

    fn read(claims: &Value, settings: &OidcSettings) -> Result<Person, ClaimFault> {
        person(claims.as_object().unwrap(), settings)
    }

    #[test]
    fn claims_become_a_person_with_prefixed_groups() {
        let claims =
            json!({"sub": "17", "preferred_username": "Ann", "name": "Ann Lee", "groups": ["ops", "dev", "ops"]});
        let with_prefix = OidcSettings { group_prefix: "corp:".into(), ..settings() };
        let ann = read(&claims, &with_prefix).unwrap();
        assert_eq!((ann.subject.as_str(), ann.name.as_str(), ann.full_name.as_str()), ("17", "ann", "Ann Lee"));
        assert_eq!(ann.groups, ["corp:dev", "corp:ops"]);
        let nested = OidcSettings { groups_claim: "realm_access.roles".into(), ..settings() };
        let claims = json!({"sub": "17", "preferred_username": "ann", "realm_access": {"roles": "ops"}});
        assert_eq!(read(&claims, &nested).unwrap().groups, ["ops"]);
    }

    #[test]
    fn claims_that_cannot_be_used_are_refused_with_the_reason() {
        let fault = |claims: Value| read(&claims, &settings()).unwrap_err();
        assert_eq!(fault(json!({"preferred_username": "ann"})), ClaimFault::Missing("sub".into()));
        assert_eq!(fault(json!({"sub": "a\nb", "preferred_username": "ann"})), ClaimFault::Subject);
        assert_eq!(fault(json!({"sub": "1"})), ClaimFault::Missing("preferred_username".into()));
        assert!(matches!(fault(json!({"sub": "1", "preferred_username": "a b"})), ClaimFault::Name { .. }));
        let groups = |groups: Value| fault(json!({"sub": "1", "preferred_username": "ann", "groups": groups}));
        assert_eq!(groups(json!([1])), ClaimFault::Groups("groups".into()));
        assert_eq!(groups(json!(["x".repeat(256)])), ClaimFault::Groups("groups".into()));
        assert_eq!(groups(json!(vec!["x"; 501])), ClaimFault::TooManyGroups);
        let overage = json!({"sub": "1", "preferred_username": "ann", "_claim_names": {"groups": "src1"}});
        assert_eq!(fault(overage), ClaimFault::TooManyGroups);
        let by_mail = OidcSettings { user_name_claim: "email".into(), ..settings() };
        let mail = |verified: Value| {
            let claims = json!({"sub": "1", "email": "ann@example.org", "email_verified": verified});
            read(&claims, &by_mail)
        };
        for unverified in [json!(false), json!("false"), json!("no"), json!(0), json!(1), json!(null), json!([true])] {
            assert_eq!(mail(unverified.clone()), Err(ClaimFault::UnverifiedEmail), "{unverified}");
        }
        assert!(mail(json!(true)).is_ok() && mail(json!("true")).is_ok());
        assert!(read(&json!({"sub": "1", "email": "ann@example.org"}), &by_mail).is_ok());
    }

    #[test]
    fn urls_that_carry_credentials_are_encrypted_or_local() {
        for good in ["https://id.example/realm/", "http://127.0.0.1:9000", "http://localhost", "http://[::1]:9000/x"] {
            assert_eq!(check_secure_url(good).as_deref(), Ok(good));
        }
        for bad in ["http://id.example", "http://127.0.0.1.evil.example", "https://a@b", "https://a/?x", "ftp://a", ""]
        {
            assert!(check_secure_url(bad).is_err(), "{bad}");
        }
    }
}
