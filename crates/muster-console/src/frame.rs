//! What all pages share: the frame around the content, and the headers.

use std::fmt::Write as _;

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
        Ok(html) => with_headers(status, visible(html)),
        Err(error) => {
            tracing::error!(%error, "cannot render a page");
            with_headers(StatusCode::INTERNAL_SERVER_ERROR, "internal error".to_owned())
        }
    }
}

/// Returns whether a character is replaced on pages. What an agent reports could otherwise change the direction of the text
/// around it.
fn is_hidden(c: char) -> bool {
    is_deceptive(c) && !matches!(c, '\n' | '\t')
}

/// Replaces deceptive characters. In the values of fields, they are written as references instead: a browser sends them back,
/// and saving a form must not change a script that contains an escape sequence.
fn visible(html: String) -> String {
    if !html.contains(is_hidden) {
        return html;
    }
    let (mut shown, mut rest) = (String::with_capacity(html.len()), html.as_str());
    let replaced = |c| if is_hidden(c) { char::REPLACEMENT_CHARACTER } else { c };
    while let Some((start, end)) = next_value(rest) {
        shown.extend(rest[..start].chars().map(replaced));
        for c in rest[start..end].chars() {
            match c {
                // Browsers decode references to these as something else.
                '\0' => shown.push(char::REPLACEMENT_CHARACTER),
                '\u{80}'..='\u{9f}' => shown.push(c),
                c if is_hidden(c) => {
                    // Writing to a string does not fail.
                    let _ = write!(shown, "&#{};", u32::from(c));
                }
                c => shown.push(c),
            }
        }
        rest = &rest[end..];
    }
    shown.extend(rest.chars().map(replaced));
    shown
}

/// Returns the range of the first value of a field. Templates escape quotation marks and angle brackets in values and texts, so
/// that these marks are always those of the page.
fn next_value(html: &str) -> Option<(usize, usize)> {
    const ATTRIBUTE: &str = " value=\"";
    let attribute = html.find(ATTRIBUTE).map(|at| (at + ATTRIBUTE.len(), "\""));
    let text = html.find("<textarea").and_then(|at| Some((at + html[at..].find('>')? + 1, "</textarea>")));
    let (start, mark) = attribute.into_iter().chain(text).min()?;
    let length = html[start..].find(mark).unwrap_or(html.len() - start);
    Some((start, start + length))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deceives_is_replaced_on_pages_but_sent_back_unchanged_by_forms() {
        let html = "<p>a\u{202e}b\u{1b}</p><input name=\"x\" value=\"\u{1b}[31m\u{200b}\u{85}\0\">\u{200b}\
            <textarea name=\"y\" rows=\"4\">\n\u{1b}\t1</textarea>\u{1b}";
        let shown = "<p>a\u{fffd}b\u{fffd}</p><input name=\"x\" value=\"&#27;[31m&#8203;\u{85}\u{fffd}\">\u{fffd}\
            <textarea name=\"y\" rows=\"4\">\n&#27;\t1</textarea>\u{fffd}";
        assert_eq!(visible(html.to_owned()), shown);
        assert_eq!(visible("<p>plain\n\u{200d}</p>".to_owned()), "<p>plain\n\u{200d}</p>");
    }
}
