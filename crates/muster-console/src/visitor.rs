//! The person that requests a page, from the session cookie, and the space, from the path.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::{FromRequestParts, OriginalUri, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use muster_core::authorization::{BindingScope, OpContext, Privilege, PrivilegeName};
use muster_core::id::SpaceId;
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;
use muster_fleet::identity::sign_in::Presented;
use muster_management::credentials;
use muster_management::entry::Connection;
use muster_management::form;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use crate::links::{Base, Link, page_of_form};
use crate::{failure, frame, log_in, notice};

/// The person that requests a page.
pub struct Visitor {
    /// Its rights in the space.
    pub context: OpContext,
    /// Its user name.
    pub name: String,
    /// The beginning of links in the space.
    pub base: Base,
    /// The tab of the requested page; empty if it has none.
    pub tab: &'static str,
    /// What a form has done before it led to this page; empty if there was none.
    pub notice: String,
}

impl Visitor {
    /// Identifies the person of a request for a page in a space.
    pub async fn of(parts: &mut Parts, fleet: &Arc<Fleet>, space: Option<&str>) -> Result<Self, Error> {
        let Ok(connection) = Connection::from_request_parts(parts, fleet).await;
        let visitor = identify(fleet, &connection, &parts.headers, space).await?;
        Ok(Self { tab: frame::tab_of(parts.uri.path()), ..visitor })
    }

    /// Returns the name of a privilege if the person does not have it in the space; otherwise an empty text. Pages show
    /// what needs it as disabled, with this reason.
    pub fn lacks(&self, privilege: PrivilegeName) -> &'static str {
        if self.context.check(privilege).is_ok() { "" } else { privilege.as_str() }
    }

    /// Returns why the person may not do something; `None` if it may.
    pub fn needs(&self, privilege: PrivilegeName) -> Option<String> {
        let lacks = self.lacks(privilege);
        (!lacks.is_empty()).then(|| format!("You need the privilege {lacks}."))
    }

    /// Returns the other spaces in which the person has rights.
    pub fn other_spaces(&self) -> Vec<SpaceId> {
        let bound = self.context.entitlements().iter().filter_map(|one| match &one.scope {
            BindingScope::System => None,
            BindingScope::Space(space) | BindingScope::Part { space, .. } => Some(space),
        });
        let others: BTreeSet<_> = bound.filter(|space| *space != self.context.space()).cloned().collect();
        others.into_iter().collect()
    }
}

/// Parameters of a page. Those that cannot be read lead to a page that says so.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Fleet>> for Params<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, fleet: &Arc<Fleet>) -> Result<Self, Response> {
        let error = match form::parameters(&parts.uri) {
            Ok(read) => return Ok(Self(read)),
            Err(error) => unreadable(&error),
        };
        // With the navigation, for people who are logged in.
        let visitor = Visitor::from_request_parts(parts, fleet).await?;
        Err(failure::inside(&visitor, &error, visitor.tab))
    }
}

/// Says in words that a parameter of the address cannot be read.
fn unreadable(error: &Error) -> Error {
    let reason = error.message.strip_prefix("parameters: ").unwrap_or(&error.message);
    Error::new(
        ErrorKind::Invalid,
        "invalid_parameters",
        format!("this address has a parameter that cannot be read ({reason})"),
    )
    .remedy("the link may have been cut; open the page from the navigation")
}

impl FromRequestParts<Arc<Fleet>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, fleet: &Arc<Fleet>) -> Result<Self, Response> {
        let space = space(parts, fleet).await;
        match Self::of(parts, fleet, space.as_deref()).await {
            Ok(visitor) => Ok(visitor),
            Err(error) if error.kind == ErrorKind::Unauthenticated => Err(to_log_in(parts, fleet).await),
            Err(error) => Err(failure::outside(&error)),
        }
    }
}

/// The person that requests a page for which it needs the privilege `P`. Others get a page that names the privilege, and no form
/// that could not be sent.
pub struct May<P> {
    /// The person.
    pub visitor: Visitor,
    privilege: PhantomData<P>,
}

impl<P: Privilege> FromRequestParts<Arc<Fleet>> for May<P> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, fleet: &Arc<Fleet>) -> Result<Self, Response> {
        let visitor = Visitor::from_request_parts(parts, fleet).await?;
        match visitor.context.check(P::NAME) {
            Ok(()) => Ok(Self { visitor, privilege: PhantomData }),
            Err(error) => Err(failure::inside(&visitor, &error.into(), visitor.tab)),
        }
    }
}

async fn space(parts: &mut Parts, fleet: &Arc<Fleet>) -> Option<String> {
    let params = RawPathParams::from_request_parts(parts, fleet).await.ok()?;
    params.iter().find(|(name, _)| *name == "space").map(|(_, value)| value.to_owned())
}

async fn identify(
    fleet: &Fleet,
    connection: &Connection,
    headers: &HeaderMap,
    space: Option<&str>,
) -> Result<Visitor, Error> {
    let key = credentials::cookie(headers)
        .ok_or_else(|| Error::new(ErrorKind::Unauthenticated, "unauthenticated", "this page needs a login"))?;
    let named = space.map(SpaceId::parse).transpose();
    // A malformed id is that of no space, and is reported like one after the session was verified.
    let wanted = named.as_ref().ok().cloned().flatten().unwrap_or_default();
    let context = fleet.sign_in().authenticate(&Presented::Session(key), &wanted, connection.ip()).await?;
    if named.is_err() {
        return Err(Error::not_found("space", space.unwrap_or_default()));
    }
    let name = fleet.sign_in().user(&context).await?.map(|user| user.name).unwrap_or_default();
    let address = connection.ip().map(|ip| ip.to_string().into());
    let base = space.map_or_else(Base::root, Base::below);
    Ok(Visitor { context: context.coming_from(address, None), name, base, tab: "", notice: notice::of(headers) })
}

/// Returns the link to the login page that leads back to a page.
fn link(page: &str) -> Link {
    Link::to(&format!("{}?return_to={}", log_in::PATH, utf8_percent_encode(page, NON_ALPHANUMERIC)))
}

/// Sends a browser to the login page, which leads back here. The response to a form is the login page itself, because only
/// then can the browser send the form again.
async fn to_log_in(parts: &Parts, fleet: &Fleet) -> Response {
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
    let here = uri.path_and_query().map_or("/", |here| here.as_str());
    // An open page that renews its rows: it must not take the login page for them.
    if parts.headers.contains_key("hx-request") {
        let here = here.split("&seen=").next().unwrap_or_default().split("?seen=").next().unwrap_or_default();
        let location = HeaderValue::try_from(link(here).as_str()).unwrap_or(HeaderValue::from_static(log_in::PATH));
        return (StatusCode::UNAUTHORIZED, [("hx-redirect", location)]).into_response();
    }
    if parts.method == Method::POST {
        return log_in::instead_of_a_form(fleet, &page_of_form(&parts.headers).unwrap_or_default()).await;
    }
    Redirect::to(link(here).as_str()).into_response()
}
