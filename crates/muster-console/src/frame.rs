//! What all pages share: the frame around the content, and the headers.

use askama::Template;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::authorization::PrivilegeName;
use muster_core::id::SpaceId;
use muster_core::reported::is_deceptive;

use crate::assets;
use crate::links::{Base, Link};
use crate::preferences::Preferences;
use crate::visitor::Visitor;

/// Nothing from another host, no inline script, and no other site may frame a page.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A link in the navigation.
pub struct Tab {
    /// Name.
    pub name: &'static str,
    /// Path below the space.
    pub path: &'static str,
}

/// The navigation.
const TABS: [Tab; 10] = [
    Tab { name: "Overview", path: "/" },
    Tab { name: "Agents", path: "/agents" },
    Tab { name: "Hosts", path: "/hosts" },
    Tab { name: "Policies", path: "/policies" },
    Tab { name: "Rollouts", path: "/rollouts" },
    Tab { name: "Actions", path: "/actions" },
    Tab { name: "Keys", path: "/keys" },
    Tab { name: "Alerts", path: "/alerts" },
    Tab { name: "Audit log", path: "/audit" },
    Tab { name: "Settings", path: "/settings" },
];

/// What the page that adds an agent needs.
const TO_ADD: [PrivilegeName; 2] = [PrivilegeName::EnrollmentCreate, PrivilegeName::PoliciesRead];

/// Beginnings of the paths of hosts' pages that are not below `/hosts`.
const OF_HOSTS: [&str; 8] = ["/carves", "/checks", "/fleetd", "/labels", "/packs", "/queries", "/scripts", "/software"];

/// A space to which the person can change.
pub struct SpaceLink {
    /// Name.
    pub name: String,
    /// Its overview.
    pub path: Link,
    /// Whether the page is in this space.
    pub is_current: bool,
}

/// The frame of a page.
pub struct Frame {
    /// Title of the page.
    pub title: String,
    /// The beginning of links in the space.
    pub base: Base,
    /// Name of the person; empty if nobody is logged in.
    pub user: String,
    /// Name of the space.
    pub space: String,
    /// The spaces that the person's roles name.
    pub spaces: Vec<SpaceLink>,
    /// What a form has done before it led to this page; empty if there was none.
    pub notice: String,
    /// The privilege that the person lacks to add agents; empty if it may.
    pub lacks_to_add: &'static str,
    /// Path of the current tab; empty if there is none.
    tab: &'static str,
}

impl Frame {
    /// Creates the frame of a page under a tab.
    pub fn new(visitor: &Visitor, title: impl Into<String>, tab: &'static str) -> Self {
        Self {
            title: title.into(),
            base: visitor.base.clone(),
            user: visitor.name.clone(),
            space: visitor.context.space().to_string(),
            spaces: spaces(visitor),
            notice: visitor.notice.clone(),
            lacks_to_add: TO_ADD.map(|one| visitor.lacks(one)).into_iter().find(|one| !one.is_empty()).unwrap_or(""),
            tab,
        }
    }

    /// Creates the frame of a page for people who are not logged in.
    pub fn outside(title: impl Into<String>) -> Self {
        let [user, space, notice] = [const { String::new() }; 3];
        Self {
            title: title.into(),
            base: Base::root(),
            user,
            space,
            spaces: Vec::new(),
            notice,
            lacks_to_add: "",
            tab: "",
        }
    }

    /// The navigation.
    pub fn tabs(&self) -> &'static [Tab] {
        &TABS
    }

    /// Returns whether a tab is the current one.
    pub fn is_current(&self, tab: &Tab) -> bool {
        self.tab == tab.path
    }

    /// Returns the link to a page in the space.
    pub fn link(&self, path: impl std::fmt::Display) -> Link {
        self.base.link(path)
    }

    /// Returns the link to a page that is in no space.
    pub fn outer(&self, path: &str) -> Link {
        Link::to(path)
    }

    /// The theme: `light`, `dark`, or empty for the system's.
    pub fn theme(&self) -> &'static str {
        Preferences::current().theme
    }

    /// Path of the style sheet.
    pub fn style(&self) -> Link {
        Link::to(&assets::paths().style)
    }

    /// Path of htmx.
    pub fn htmx(&self) -> Link {
        Link::to(&assets::paths().htmx)
    }

    /// Path of the script.
    pub fn script(&self) -> Link {
        Link::to(&assets::paths().script)
    }
}

/// Returns the spaces of the menu: this one, and those that the person's roles name. The others are in the list of spaces.
fn spaces(visitor: &Visitor) -> Vec<SpaceLink> {
    let mut links: Vec<_> = visitor.other_spaces().into_iter().map(|space| (space, false)).collect();
    links.push((visitor.context.space().clone(), true));
    links.sort();
    let link = |(space, is_current): (SpaceId, bool)| SpaceLink {
        path: Base::of(&space).link("/"),
        name: space.to_string(),
        is_current,
    };
    links.into_iter().map(link).collect()
}

/// Returns the tab to which a requested path belongs; empty if it belongs to none.
pub fn tab_of(path: &str) -> &'static str {
    let inner = path.strip_prefix("/s/").and_then(|rest| rest.find('/').map(|slash| &rest[slash..])).unwrap_or(path);
    if OF_HOSTS.iter().any(|path| inner.starts_with(path)) {
        return "/hosts";
    }
    let is_below = |tab: &&Tab| tab.path != "/" && inner.starts_with(tab.path);
    TABS.iter().find(is_below).map_or("", |tab| tab.path)
}

/// Renders a page.
pub fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        // What an agent reports could otherwise change the direction of the text around it.
        Ok(html) => {
            let shown = |c| if is_deceptive(c) && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c };
            with_headers(status, html.chars().map(shown).collect())
        }
        Err(error) => {
            tracing::error!(%error, "cannot render a page");
            with_headers(StatusCode::INTERNAL_SERVER_ERROR, "internal error".to_owned())
        }
    }
}

fn with_headers(status: StatusCode, html: String) -> Response {
    let plain = HeaderValue::from_static;
    let headers = [
        (CONTENT_TYPE, plain("text/html; charset=utf-8")),
        (CACHE_CONTROL, plain("no-store")),
        (X_CONTENT_TYPE_OPTIONS, plain("nosniff")),
        (REFERRER_POLICY, plain("same-origin")),
        (CONTENT_SECURITY_POLICY, plain(POLICY)),
    ];
    (status, headers, html).into_response()
}
