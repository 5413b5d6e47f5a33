//! Entry of a request: newer names of routes, the caller, and its teams.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::Response;
use muster_core::authorization::{BindingScope, OpContext, Privilege, SpacesRead};
use muster_core::credential::ApiKey;
use muster_core::fleetd::numbers;
use muster_core::id::SpaceId;
use muster_core::identity::Space;
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;
use muster_fleet::identity::sign_in::Presented;
use muster_listen::reply::Peer;
use muster_management::credentials;
use muster_management::entry::{Connection, record_refusal};

use crate::failure::Failure;
use crate::params::Params;

/// Beginning of the tokens that a login returns, which are keys of sessions. No API token begins like this.
pub const SESSION: &str = "session.";
/// Maximum length of a token, bytes.
const MAX_TOKEN: usize = 2_048;

/// Routes that need no credentials, or get them in a message.
pub const PUBLIC: [&str; 2] = ["/login", "/results/websocket"];
/// Names that FleetDM has for hosts of no team. No team can have them.
pub const NO_TEAM: [&str; 2] = ["No team", "Unassigned"];
/// Newer names of the first segment of a path, and those of the routes.
const RENAMED: [(&str, &str); 4] = [
    ("/fleets", "/teams"),
    ("/reports", "/queries"),
    ("/spec/fleets", "/spec/teams"),
    ("/spec/reports", "/spec/queries"),
];

/// Credentials of a request, with which it can be authenticated again.
#[derive(Clone)]
pub struct Credentials {
    presented: Arc<Presented>,
    connection: Connection,
}

impl Credentials {
    /// Reads a token: an API token, or one that a login returned.
    pub fn of_token(token: &str, connection: Connection) -> Result<Self, Failure> {
        let malformed = || Error::new(ErrorKind::Unauthenticated, "unauthenticated", "the token is malformed");
        // A longer text cannot be a token, and is not hashed to look it up.
        let fits = token.len() <= MAX_TOKEN;
        let key = |text| ApiKey::parse(text).ok().filter(|_| fits).ok_or_else(malformed);
        let presented = match token.strip_prefix(SESSION) {
            // The prefix alone decides, so that a token is looked up in one table and refused once.
            Some(session) => Presented::Session(key(session)?),
            None => Presented::Token(key(token)?),
        };
        Ok(Self { presented: Arc::new(presented), connection })
    }

    fn of_headers(headers: &HeaderMap, connection: Connection) -> Result<Self, Failure> {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer =
            bearer.and_then(|text| text.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        if let Some((_, token)) = bearer {
            return Self::of_token(token.trim(), connection);
        }
        // Without cookies, so that no page of another site can act here.
        let presented = headers.get(AUTHORIZATION).and_then(|_| credentials::presented(headers, false).ok().flatten());
        let missing = || {
            Error::new(ErrorKind::Unauthenticated, "unauthenticated", "this request requires an API token")
                .remedy("send Authorization: Bearer …")
        };
        Ok(Self { presented: Arc::new(presented.ok_or_else(missing)?), connection })
    }

    /// The key of the session, if it is one.
    pub fn session(&self) -> Option<&ApiKey> {
        match &*self.presented {
            Presented::Session(key) => Some(key),
            _ => None,
        }
    }

    /// Authenticates, in the default space.
    pub async fn authenticate(&self, fleet: &Fleet, headers: &HeaderMap) -> Result<OpContext, Failure> {
        let address = self.connection.ip();
        let found = fleet.sign_in().authenticate(&self.presented, &SpaceId::default(), address).await;
        let context = found.inspect_err(|error| {
            record_refusal(fleet, &self.connection, headers, &self.presented.shown(), error);
        })?;
        Ok(context.coming_from(address.map(|ip| ip.to_string().into()), None))
    }
}

/// The caller of a request.
#[derive(Clone)]
pub struct Caller {
    /// The fleet.
    pub fleet: Arc<Fleet>,
    /// Its rights, in the default space.
    pub context: OpContext,
    /// Credentials that it was authenticated with.
    pub credentials: Credentials,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        // Missing only if a route was added outside of `enter`; it then fails closed.
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Error::internal("a route outside the entry, or without credentials").into())
    }
}

/// Admits a request, or returns the error.
pub async fn enter(State(fleet): State<Arc<Fleet>>, mut request: Request, next: Next) -> Response {
    let response = match admit(&fleet, &mut request).await {
        Ok(()) => next.run(request).await,
        Err(failure) => return failure.respond(fleet.entropy()),
    };
    match response.extensions().get::<Failure>().cloned() {
        Some(failure) => failure.respond(fleet.entropy()),
        None => response,
    }
}

async fn admit(fleet: &Arc<Fleet>, request: &mut Request) -> Result<(), Failure> {
    *request.uri_mut() = renamed(request.uri())?;
    let peer = request.extensions().get::<Peer>().cloned();
    if PUBLIC.contains(&request.uri().path()) {
        return Ok(());
    }
    let connection = Connection::of(peer.clone());
    let credentials = Credentials::of_headers(request.headers(), connection)?;
    let context = credentials.authenticate(fleet, request.headers()).await?;
    if let Some(peer) = peer {
        peer.set_authenticated();
    }
    let params = Params::parse(request.uri().query().unwrap_or_default())?;
    if !request.method().is_safe() {
        params.check_change()?;
    }
    // Read here for every route: services skip their commit if the context is one of a dry run.
    let is_dry_run = params.flag("dry_run")?;
    let caller = Caller { fleet: Arc::clone(fleet), context: context.trying(is_dry_run), credentials };
    request.extensions_mut().insert(caller);
    Ok(())
}

/// Returns the URI with the name that the routes have.
fn renamed(uri: &Uri) -> Result<Uri, Failure> {
    let path = uri.path();
    let is_below = |rest: &str| rest.is_empty() || rest.starts_with('/');
    let found =
        RENAMED.iter().find_map(|(new, old)| Some((path.strip_prefix(new).filter(|rest| is_below(rest))?, old)));
    // Only whole segments are renamed: `/fleetsomething` is not a name of `/teams`.
    let Some((rest, old)) = found else { return Ok(uri.clone()) };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let inner: PathAndQuery = format!("{old}{rest}{query}").parse().map_err(|_| Failure::not_found("path", path))?;
    Ok(Uri::from(inner))
}

impl Caller {
    /// Returns the spaces in which the caller has rights: the default space, and the others by id.
    pub async fn spaces(&self) -> Result<Vec<Space>, Failure> {
        let mut spaces = match self.context.grant::<SpacesRead>() {
            Ok(grant) => self.fleet.spaces().list(&grant).await?,
            Err(_) => self.own_spaces(),
        };
        // The right to list spaces includes no rights in them.
        spaces.retain(|space| self.within(&space.id).may_enter_space());
        // The sort is stable, so the other spaces keep their order by id, and pages across teams do not shift.
        spaces.sort_by_key(|space| space.id != SpaceId::default());
        Ok(spaces)
    }

    /// Returns the spaces of the caller's bindings. Their names are not the caller's to read.
    fn own_spaces(&self) -> Vec<Space> {
        let bound = self.context.entitlements().iter().filter_map(|one| match &one.scope {
            BindingScope::System => None,
            BindingScope::Space(space) | BindingScope::Part { space, .. } => Some(space.clone()),
        });
        let mut ids: Vec<SpaceId> = bound.chain([SpaceId::default()]).collect();
        ids.sort();
        ids.dedup();
        ids.into_iter().map(|id| Space { name: id.to_string(), id, ..Space::default_space() }).collect()
    }

    /// Returns the caller twice, for a request with several changes: first for a dry run of all of them, so that one that is rejected
    /// leaves none of the others made. This API has no result for each. A request that is a dry run itself has only the first.
    pub fn attempts(&self) -> Vec<Self> {
        let trying = Self { context: self.context.clone().trying(true), ..self.clone() };
        if self.context.is_dry_run() { vec![trying] } else { vec![trying, self.clone()] }
    }

    /// Returns the rights of the caller in a space.
    pub fn within(&self, space: &SpaceId) -> OpContext {
        self.context.clone().in_space(space.clone())
    }

    /// Returns a team by its number.
    pub async fn team(&self, number: u64) -> Result<Space, Failure> {
        let mut spaces = self.spaces().await?.into_iter();
        spaces.find(|space| team_number(&space.id) == number).ok_or_else(|| Failure::not_found("team", number))
    }

    /// Returns the rights of the caller in a team; without a number, for hosts of no team.
    pub async fn in_team(&self, number: Option<u64>) -> Result<OpContext, Failure> {
        match number {
            // FleetDM's number for "no team" is 0, and most clients omit it.
            None | Some(0) => Ok(self.context.clone()),
            Some(number) => Ok(self.within(&self.team(number).await?.id)),
        }
    }

    /// Returns the rights of the caller in the team with a name; without a name, or with one of [`NO_TEAM`], for hosts of no team.
    pub async fn in_team_named(&self, name: Option<&str>) -> Result<OpContext, Failure> {
        let is_team = |name: &&str| !name.is_empty() && !NO_TEAM.iter().any(|none| none.eq_ignore_ascii_case(name));
        let Some(name) = name.filter(is_team) else { return Ok(self.context.clone()) };
        let found = self.team_named(name).await?;
        Ok(self.within(&found.ok_or_else(|| Failure::not_found("team", name))?.id))
    }

    /// Finds a team by the id of its space or by its name, which several spaces can have.
    pub async fn team_named(&self, name: &str) -> Result<Option<Space>, Failure> {
        let spaces = self.spaces().await?;
        let mut teams: Vec<Space> = spaces.into_iter().filter(|space| space.id != SpaceId::default()).collect();
        if let Some(at) = teams.iter().position(|space| space.id.as_str() == name) {
            return Ok(Some(teams.swap_remove(at)));
        }
        teams.retain(|space| space.name == name);
        match teams.as_slice() {
            [one, other, ..] => {
                let (one, other) = (&one.id, &other.id);
                let reason = format!("several teams are named {name:?}; use the id of the space ({one}, {other} …)");
                Err(Failure::invalid("team", reason))
            }
            _ => Ok(teams.pop()),
        }
    }

    /// Returns the rights of the caller in a team, or without a number in all teams in which it has the privilege.
    pub async fn everywhere<P: Privilege>(&self, team: Option<u64>) -> Result<Vec<OpContext>, Failure> {
        if team.is_some() {
            return Ok(vec![self.in_team(team).await?]);
        }
        let spaces = self.spaces().await?;
        let contexts = spaces.iter().map(|space| self.within(&space.id));
        let contexts: Vec<OpContext> = contexts.filter(|context| context.grant::<P>().is_ok()).collect();
        // Without the privilege anywhere, the caller gets the error about it rather than an empty list.
        if contexts.is_empty() {
            self.context.grant::<P>()?;
        }
        Ok(contexts)
    }
}

/// Returns the number of a team: 0 for the default space, whose hosts have no team.
pub fn team_number(space: &SpaceId) -> u64 {
    if *space == SpaceId::default() { 0 } else { numbers::of(space.as_str()) }
}

/// Returns the number of a team for a response, which has `null` for no team.
pub fn team_id(space: &SpaceId) -> Option<u64> {
    Some(team_number(space)).filter(|number| *number != 0)
}
