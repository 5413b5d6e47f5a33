//! `/settings/providers`: OpenID providers, where people log in.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{PrivilegeName, UsersRead, UsersWrite};
use muster_core::identity::{NewUsers, OidcProvider};
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::authority::Authorized;
use muster_fleet::identity::providers::ProviderChange;
use muster_management::error::status_of;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::side::Side;
use super::{TAB, given, lines, shown};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::request::{Id, Posted, Pressed};
use crate::versioned::{Edit, Field, compared};
use crate::visitor::{May, Visitor};
use crate::{failure, notice};

/// Path of the list, and of the providers in the API.
pub const PATH: &str = "/settings/providers";
const API: &str = "/api/v1/oidc_providers";

#[derive(Template)]
#[template(path = "settings/providers.html")]
struct ProvidersPage {
    frame: Frame,
    side: Side,
    /// The providers: id, issuer, and who may log in.
    rows: Vec<(String, String, &'static str)>,
    lacks: &'static str,
    cli: String,
    api: String,
}

/// Shows the list.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        let found = fleet.providers().list(&visitor.context.grant()?).await?;
        let row = |one: OidcProvider| (one.id.to_string(), one.issuer, who(one.settings.new_users));
        Ok(ProvidersPage {
            frame: Frame::new(&visitor, "OpenID providers", TAB),
            side: Side::new(&visitor, PATH),
            rows: found.into_iter().map(row).collect(),
            lacks: visitor.lacks(PrivilegeName::UsersWrite),
            cli: cli(&visitor, "oidc-provider list"),
            api: curl(&visitor, "GET", API, ""),
        })
    };
    shown(&visitor, TAB, made.await)
}

const fn who(new_users: NewUsers) -> &'static str {
    match new_users {
        NewUsers::Refuse => "users that an administrator has linked",
        NewUsers::Create => "everybody whom the provider admits",
    }
}

/// The form. A secret is never shown again.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    id: String,
    issuer: String,
    client_id: String,
    client_secret: String,
    /// Whether the stored secret is removed.
    is_public: Option<String>,
    url: String,
    scopes: String,
    user_name_claim: String,
    groups_claim: String,
    group_prefix: String,
    new_users: String,
    /// The version that the form was made from; empty for a new provider.
    version: String,
}

impl Fields {
    fn of(provider: &OidcProvider) -> Self {
        let settings = provider.settings.clone();
        Self {
            id: provider.id.to_string(),
            issuer: provider.issuer.clone(),
            client_id: settings.client_id,
            client_secret: String::new(),
            is_public: None,
            url: settings.url,
            scopes: settings.scopes.join(" "),
            user_name_claim: settings.user_name_claim,
            groups_claim: settings.groups_claim,
            group_prefix: settings.group_prefix,
            new_users: if settings.new_users == NewUsers::Create { "create".to_owned() } else { String::new() },
            version: provider.version.to_string(),
        }
    }

    /// The fields, as the form calls them, without the secret.
    fn labelled(&self) -> Vec<(&'static str, String)> {
        let new_users = if self.new_users == "create" { NewUsers::Create } else { NewUsers::Refuse };
        vec![
            ("client id", self.client_id.clone()),
            ("URL of these pages", self.url.clone()),
            ("scopes", lines(&self.scopes.replace([' ', ','], "\n")).join(" ")),
            ("claim with the user name", self.user_name_claim.clone()),
            ("claim with the groups", self.groups_claim.clone()),
            ("prefix of group names", self.group_prefix.clone()),
            ("who may log in", who(new_users).to_owned()),
        ]
    }

    fn change(&self) -> ProviderChange {
        let secret = match (given(&self.client_secret), self.is_public.is_some()) {
            (_, true) => Some(String::new()),
            (typed, false) => typed,
        };
        ProviderChange {
            client_id: Some(self.client_id.trim().to_owned()),
            client_secret: secret.map(Zeroizing::new),
            url: Some(self.url.trim().to_owned()),
            scopes: given(&self.scopes).map(|text| lines(&text.replace([' ', ','], "\n"))),
            user_name_claim: given(&self.user_name_claim),
            groups_claim: given(&self.groups_claim),
            group_prefix: Some(self.group_prefix.trim().to_owned()),
            new_users: Some(if self.new_users == "create" { NewUsers::Create } else { NewUsers::Refuse }),
        }
    }
}

#[derive(Template)]
#[template(path = "settings/provider.html")]
struct ProviderPage {
    frame: Frame,
    side: Side,
    /// The address to register at the provider; empty for a new provider.
    redirect_uri: String,
    has_secret: bool,
    /// Whether a secret was typed, which no page shows again.
    has_lost_secret: bool,
    fields: Fields,
    error: Option<Error>,
    lacks: &'static str,
    cli: String,
    api: String,
}

/// Shows the form of a new provider.
pub async fn ask(May { visitor, .. }: May<UsersWrite>) -> Response {
    let (user_name_claim, groups_claim) = ("preferred_username".to_owned(), "groups".to_owned());
    let scopes = "openid profile".to_owned();
    render(&visitor, None, Fields { user_name_claim, groups_claim, scopes, ..Fields::default() }, None)
}

fn render(visitor: &Visitor, known: Option<&OidcProvider>, fields: Fields, error: Option<Error>) -> Response {
    let or = |text: &str, other: &str| given(text).unwrap_or_else(|| other.to_owned());
    let (id, client, url) = (or(&fields.id, "ID"), or(&fields.client_id, "CLIENT"), or(&fields.url, "URL"));
    let issuer = or(&fields.issuer, "ISSUER");
    let (title, verb, method, path) = match known {
        None => ("Add an OpenID provider".to_owned(), "create", "POST", API.to_owned()),
        Some(one) => (format!("OpenID provider {}", one.id), "update", "PUT", format!("{API}/{}", one.id)),
    };
    let mut command = format!("oidc-provider {verb} {}", shell::argument(&id));
    if known.is_none() {
        command += &format!(" {}", shell::option("--issuer", &issuer));
    }
    command += &format!(" {} {}", shell::option("--client-id", &client), shell::option("--api-url", &url));
    let mut body = serde_json::json!({"client_id": client, "url": url});
    if known.is_none() {
        (body["id"], body["issuer"]) = (id.into(), issuer.into());
    }
    let shown = ProviderPage {
        frame: Frame::new(visitor, title, TAB),
        side: Side::new(visitor, PATH),
        redirect_uri: known.map(OidcProvider::redirect_uri).unwrap_or_default(),
        has_secret: known.is_some_and(|one| one.sealed_secret.is_some()),
        has_lost_secret: !fields.client_secret.is_empty(),
        lacks: visitor.lacks(PrivilegeName::UsersWrite),
        cli: cli(visitor, &command),
        api: curl(visitor, method, &path, &body.to_string()),
        fields: Fields { client_secret: String::new(), ..fields },
        error,
    };
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

/// Adds a provider.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    let change = fields.change();
    match fleet.providers().create(&visitor.context, fields.id.trim(), fields.issuer.trim(), &change).await {
        Ok(provider) => {
            let text = format!("The provider {} is added. Register its redirect URI there.", provider.id);
            notice::redirect(visitor.base.link(format_args!("{PATH}/{}", provider.id)), &text)
        }
        Err(error) => render(&visitor, None, fields, Some(error)),
    }
}

/// Shows a provider.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    match fleet.providers().find::<UsersRead>(&visitor.context, &id).await {
        Ok(provider) => render(&visitor, Some(&provider), Fields::of(&provider), None),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

impl Edit for Fields {
    type Record = Authorized<OidcProvider, UsersWrite>;

    const CHANGED: &'static str = "provider_changed";

    async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<Self::Record, Error> {
        fleet.providers().find(&visitor.context, id).await
    }

    fn version_of(provider: &Self::Record) -> String {
        provider.version.to_string()
    }

    fn version(&mut self) -> &mut String {
        &mut self.version
    }

    fn what(_: &Self::Record) -> String {
        "provider".to_owned()
    }

    fn subject(_: &Visitor, provider: &Self::Record) -> String {
        format!("oidc_provider:{}", provider.id)
    }

    fn fields(&self, provider: &Self::Record) -> Vec<Field> {
        compared(&self.labelled(), Self::of(provider).labelled())
    }

    async fn save(&self, fleet: &Fleet, visitor: &Visitor, provider: &Self::Record) -> Result<Response, Error> {
        let after = fleet.providers().update(&visitor.context, provider, &self.change()).await?;
        let text = format!("The provider {} is saved. The change applies from the next login.", after.id);
        Ok(notice::redirect(visitor.base.link(format_args!("{PATH}/{}", after.id)), &text))
    }

    async fn again(self, _: &Fleet, visitor: &Visitor, provider: &Self::Record, error: Error) -> Response {
        // Neither can be changed.
        let fields = Self { id: provider.id.to_string(), issuer: provider.issuer.clone(), ..self };
        render(visitor, Some(provider), fields, Some(error))
    }
}

/// Asks before a provider is deleted.
pub async fn ask_to_delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let provider = fleet.providers().find::<UsersWrite>(&visitor.context, &id).await?;
        let title = format!("Delete the provider {}?", provider.id);
        Ok(Confirm {
            text: vec![
                "The sessions of all people who log in there end now, and they cannot log in any more. \
                 The users remain. This cannot be undone."
                    .to_owned(),
            ],
            button: "Delete the provider",
            cli: cli(&visitor, &format!("oidc-provider delete {}", shell::argument(&id))),
            api: curl(&visitor, "DELETE", &format!("{API}/{id}"), ""),
            ..Confirm::of(&visitor, title, TAB, &format!("{PATH}/{id}"), "delete")
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Deletes a provider.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let provider = fleet.providers().find::<UsersWrite>(&visitor.context, &id).await?;
        fleet.providers().delete(&visitor.context, &provider).await?;
        let text = format!("The provider {id} is deleted.");
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
