//! `/software/installers`: the packages that can be installed, and the newest installs.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use muster_core::authorization::{InstallersWrite, PrivilegeName};
use muster_core::installer::Installer;
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use serde::Deserialize;

use super::{INSTALLERS, INSTALLERS_API, RunRow};
use crate::agents::asked::encoded;
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::Frame;
use crate::hosts::TAB;
use crate::people::People;
use crate::request::{Id, Pressed};
use crate::settings::shown;
use crate::text::Moment;
use crate::text::size;
use crate::visitor::{Params, Visitor};
use crate::{failure, notice};

/// Number of runs on a page.
const RUNS: usize = 50;

/// Parameters of the list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Host on which something is to be installed.
    host: String,
}

#[derive(Template)]
#[template(path = "hosts/installers.html")]
struct ListPage {
    frame: Frame,
    rows: Vec<Row>,
    runs: Vec<RunRow>,
    /// Part of links to the form of an install: the host that was chosen.
    host: String,
    lacks_install: &'static str,
    lacks_write: &'static str,
    cli: String,
    api: String,
}

struct Row {
    id: String,
    name: String,
    version: String,
    platform: &'static str,
    file_name: String,
    size: String,
    created: Moment,
    created_by: String,
    /// Whether the package is complete.
    is_ready: bool,
}

impl Row {
    async fn new(one: &Installer, people: &mut People<'_>, now: Timestamp) -> Self {
        Self {
            id: one.id.to_string(),
            name: one.name.clone(),
            version: one.version.clone(),
            platform: one.platform.as_str(),
            file_name: one.file_name.clone(),
            size: size(one.size),
            created: Moment::new(one.created_at, now),
            created_by: people.name(&one.created_by).await,
            is_ready: one.uploaded_at.is_some(),
        }
    }
}

/// Shows the list.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    let made = async {
        let now = fleet.now();
        let found = fleet.installs().installers(&visitor.context).await?;
        let (mut people, mut rows) = (People::new(&fleet, &visitor), Vec::with_capacity(found.len()));
        for one in &found {
            rows.push(Row::new(one, &mut people, now).await);
        }
        Ok(ListPage {
            frame: Frame::new(&visitor, "Installers", TAB),
            rows,
            runs: runs(&fleet, &visitor, &mut people, |_| true).await?,
            host: if asked.host.is_empty() { String::new() } else { format!("?host={}", encoded(&asked.host)) },
            lacks_install: visitor.lacks(PrivilegeName::SoftwareInstall),
            lacks_write: visitor.lacks(PrivilegeName::InstallersWrite),
            cli: cli(&visitor, "software installer list"),
            api: curl(&visitor, "GET", INSTALLERS_API, ""),
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Returns the newest runs, for those who may see any.
async fn runs(
    fleet: &Fleet,
    visitor: &Visitor,
    people: &mut People<'_>,
    is_wanted: impl Fn(&muster_core::install::InstallRun) -> bool,
) -> Result<Vec<RunRow>, Error> {
    let lacks = [PrivilegeName::OsqueryRead, PrivilegeName::SoftwareInstall].map(|name| visitor.lacks(name));
    if lacks.iter().all(|lacks| !lacks.is_empty()) {
        return Ok(Vec::new());
    }
    let (found, now) = (fleet.installs().list(&visitor.context).await?, fleet.now());
    let mut rows = Vec::new();
    for run in found.iter().filter(|run| is_wanted(run)).take(RUNS) {
        rows.push(RunRow::new(run, people, now).await);
    }
    Ok(rows)
}

#[derive(Template)]
#[template(path = "hosts/installer.html")]
struct OnePage {
    frame: Frame,
    one: Row,
    sha256: String,
    /// Names and texts of the condition and the scripts.
    texts: Vec<(&'static str, String)>,
    can_uninstall: bool,
    runs: Vec<RunRow>,
    lacks_install: &'static str,
    lacks_write: &'static str,
    cli: String,
    api: String,
}

/// Shows an installer.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let one = fleet.installs().installer(&visitor.context, &id).await?;
        let texts = [
            ("Condition", &one.condition),
            ("Install script", &one.install_script),
            ("Post-install script", &one.post_install_script),
            ("Uninstall script", &one.uninstall_script),
        ];
        let given = texts.into_iter().filter(|(_, text)| !text.is_empty());
        let mut people = People::new(&fleet, &visitor);
        Ok(OnePage {
            frame: Frame::new(&visitor, format!("{} {}", one.name, one.version), TAB),
            texts: given.map(|(name, text)| (name, text.clone())).collect(),
            // Those who may only install do not see the scripts: the service refuses an uninstall without one.
            can_uninstall: !one.uninstall_script.is_empty() || one.install_script.is_empty(),
            runs: runs(&fleet, &visitor, &mut people, |run| run.work.installer == one.id).await?,
            lacks_install: visitor.lacks(PrivilegeName::SoftwareInstall),
            lacks_write: visitor.lacks(PrivilegeName::InstallersWrite),
            cli: cli(&visitor, &format!("software installer show {}", shell::argument(one.id.as_str()))),
            api: curl(&visitor, "GET", &format!("{INSTALLERS_API}/{}", one.id), ""),
            one: Row::new(&one, &mut people, fleet.now()).await,
            sha256: one.sha256,
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Asks before an installer is deleted.
pub async fn ask_to_delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let one = fleet.installs().installer(&visitor.context, &id).await?;
        let title = format!("Delete the installer of {} {}?", one.name, one.version);
        // A dry run, which finds the hosts that need it.
        let trial = visitor.context.clone().trying(true).grant::<InstallersWrite>()?;
        let refused = fleet.installs().delete_installer(&trial, one.id.as_str()).await.err();
        Ok(Confirm {
            text: vec![
                "This deletes the package and its scripts. Software that is installed stays on the hosts, but can no longer \
                 be uninstalled with this installer. The results of installs are kept."
                    .to_owned(),
            ],
            refused: refused.map(|error| crate::text::sentence(&error.message)).unwrap_or_default(),
            button: "Delete the installer",
            cli: cli(&visitor, &format!("software installer delete {}", shell::argument(one.id.as_str()))),
            api: curl(&visitor, "DELETE", &format!("{INSTALLERS_API}/{}", one.id), ""),
            ..Confirm::of(&visitor, title, TAB, &format!("{INSTALLERS}/{}", one.id), "delete")
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Deletes an installer.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        fleet.installs().delete_installer(&visitor.context.grant()?, &id).await?;
        Ok::<_, Error>(notice::redirect(visitor.base.link(INSTALLERS), "The installer is deleted."))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
