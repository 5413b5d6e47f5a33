//! The navigation beside the settings, and the page that leads to them all.

use askama::Template;
use axum::response::Response;
use muster_core::authorization::PrivilegeName as Name;

use super::{TAB, shown};
use crate::frame::Frame;
use crate::visitor::Visitor;

/// A subject of the settings.
struct Subject {
    path: &'static str,
    name: &'static str,
    about: &'static str,
    /// What reading it needs; `None` for one's own things.
    needs: Option<Name>,
}

const fn subject(path: &'static str, name: &'static str, about: &'static str, needs: Option<Name>) -> Subject {
    Subject { path, name, about, needs }
}

/// The subjects, in groups.
const GROUPS: [(&str, &[Subject]); 4] = [
    (
        "This space",
        &[
            subject("/settings/outputs", "Outputs", "Where agents send their data.", Some(Name::OutputsRead)),
            subject(
                "/settings/hosts",
                "Fleet Server hosts",
                "URLs at which agents reach the fleet.",
                Some(Name::ServerHostsRead),
            ),
            subject("/settings/proxies", "Proxies", "What agents connect through.", Some(Name::ProxiesRead)),
            subject(
                "/settings/downloads",
                "Download sources",
                "Where agents download their programs.",
                Some(Name::DownloadSourcesRead),
            ),
            subject(
                "/settings/space",
                "Space settings",
                "Data namespaces, retention of agents.",
                Some(Name::SettingsRead),
            ),
        ],
    ),
    (
        "People",
        &[
            subject(
                "/settings/users",
                "Users",
                "People and service accounts, and what they may do.",
                Some(Name::UsersRead),
            ),
            subject(
                "/settings/bindings",
                "Role bindings",
                "Which users and groups have which role.",
                Some(Name::UsersRead),
            ),
            subject(
                "/settings/providers",
                "OpenID providers",
                "Where people log in instead of using a password.",
                Some(Name::UsersRead),
            ),
            subject("/settings/roles", "Roles", "Named sets of privileges.", Some(Name::RolesRead)),
            subject("/settings/spaces", "Spaces", "Separate parts of the installation.", Some(Name::SpacesRead)),
        ],
    ),
    (
        "Server",
        &[subject(
            "/settings/servers",
            "Servers",
            "The servers of the fleet, and the signing key.",
            Some(Name::NodesRead),
        )],
    ),
    (
        "You",
        &[
            subject("/settings/account", "My account", "Password, sessions, theme, time zone.", None),
            subject("/settings/tokens", "API tokens", "Credentials of scripts.", None),
        ],
    ),
];

/// A link of the navigation.
pub struct Link {
    pub path: String,
    pub name: &'static str,
    pub about: &'static str,
    pub lacks: &'static str,
    pub is_current: bool,
}

/// The navigation.
pub struct Side {
    pub groups: Vec<(&'static str, Vec<Link>)>,
}

impl Side {
    /// Creates the navigation of the page of a subject.
    pub fn new(visitor: &Visitor, current: &str) -> Self {
        let link = |one: &Subject| Link {
            path: format!("{}{}", visitor.base, one.path),
            name: one.name,
            about: one.about,
            lacks: one.needs.map(|name| visitor.lacks(name)).unwrap_or_default(),
            is_current: one.path == current,
        };
        Self { groups: GROUPS.iter().map(|(name, subjects)| (*name, subjects.iter().map(link).collect())).collect() }
    }
}

#[derive(Template)]
#[template(path = "settings/index.html")]
struct Index {
    frame: Frame,
    side: Side,
}

/// Shows all subjects.
pub async fn index(visitor: Visitor) -> Response {
    shown(&visitor, TAB, Ok(Index { frame: Frame::new(&visitor, "Settings", TAB), side: Side::new(&visitor, "") }))
}
