//! `/software/installers/{id}/install`: the form of an install or uninstall, which says on how many hosts it will run before it does.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::SoftwareInstall;
use muster_core::host_run::DEFAULT_EXPIRY;
use muster_core::install::InstallKind;
use muster_core::installer::Installer;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::installs::NewInstall;
use muster_management::error::status_of;
use muster_management::kql::agents::visible;
use muster_management::scripts::check_selection;
use serde::Deserialize;

use super::{INSTALLS, INSTALLS_API};
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::hosts::TAB;
use crate::request::{Id, Posted};
use crate::settings::{given, lines};
use crate::text::platform_name;
use crate::visitor::{Params, Visitor};
use crate::{failure, notice};

/// Parameters of the page: what the form begins with.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// `uninstall`; anything else installs.
    kind: String,
    /// A host.
    host: String,
}

/// The form.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    kind: String,
    /// Names or ids of hosts, one in each line.
    hosts: String,
    kuery: String,
    retries: String,
    /// What was confirmed: [`Fields::seal`] of the form that was shown.
    confirmed: String,
}

impl Fields {
    /// Returns what a confirmation stands for: the number of hosts, and the fields from which it was counted.
    fn seal(&self, hosts: u64) -> String {
        let mut hasher = DefaultHasher::new();
        (&self.kind, &self.hosts, &self.kuery, &self.retries).hash(&mut hasher);
        format!("{hosts}-{:x}", hasher.finish())
    }

    fn hosts(&self) -> Vec<String> {
        lines(&self.hosts.replace(',', "\n"))
    }

    fn kind(&self) -> InstallKind {
        InstallKind::parse(&self.kind).unwrap_or(InstallKind::Install)
    }

    fn new_install(&self, fleet: &Fleet, installer: &Installer) -> Result<NewInstall, Error> {
        let (hosts, kuery) = (self.hosts(), given(&self.kuery));
        check_selection(&hosts, kuery.as_deref())?;
        let retries = given(&self.retries).map_or(Ok(0), |retries| retries.parse());
        Ok(NewInstall {
            kind: self.kind(),
            installer: installer.clone(),
            hosts,
            filter: visible(kuery.as_deref().unwrap_or_default(), false, fleet.now())?,
            expiry: DEFAULT_EXPIRY,
            max_retries: retries.map_err(|_| Error::invalid("max_retries", "must be a number"))?,
        })
    }

    fn command(&self, installer: &str) -> String {
        let mut command = format!("software {} {}", self.kind().as_str(), shell::argument(installer));
        for host in self.hosts() {
            command += &format!(" {}", shell::option("--host", &host));
        }
        if let Some(kuery) = given(&self.kuery) {
            command += &format!(" {}", shell::option("--filter", &kuery));
        }
        // Only installs have this flag.
        if let Some(retries) = given(&self.retries).filter(|_| self.kind() == InstallKind::Install) {
            command += &format!(" {}", shell::option("--retries", &retries));
        }
        command
    }

    fn body(&self, installer: &str) -> serde_json::Value {
        let mut body = serde_json::json!({"installer": installer, "kind": self.kind().as_str(), "hosts": self.hosts()});
        if let Some(kuery) = given(&self.kuery) {
            body["kuery"] = kuery.into();
        }
        if let Ok(retries) = self.retries.trim().parse::<u64>() {
            body["max_retries"] = retries.into();
        }
        body
    }
}

#[derive(Template)]
#[template(path = "hosts/install.html")]
struct StartPage {
    frame: Frame,
    /// Id of the installer.
    id: String,
    platform: &'static str,
    is_install: bool,
    fields: Fields,
    /// Number of hosts on which it will run, once it was counted, and the confirmation of it.
    counted: Option<(u64, String)>,
    error: Option<Error>,
    cli: String,
    api: String,
}

/// Shows the form.
pub async fn ask(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    Params(asked): Params<Asked>,
) -> Response {
    let fields = Fields { kind: asked.kind, hosts: asked.host, ..Fields::default() };
    match found(&fleet, &visitor, &id).await {
        Ok(installer) => form_page(&visitor, &installer, fields, None, None),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn found(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<Installer, Error> {
    // Those who may not install get no form.
    visitor.context.grant::<SoftwareInstall>()?;
    fleet.installs().installer(&visitor.context, id).await
}

fn form_page(
    visitor: &Visitor,
    installer: &Installer,
    fields: Fields,
    counted: Option<u64>,
    error: Option<Error>,
) -> Response {
    let is_install = fields.kind() == InstallKind::Install;
    let verb = if is_install { "Install" } else { "Uninstall" };
    let shown = StartPage {
        frame: Frame::new(visitor, format!("{verb} {} {}", installer.name, installer.version), TAB),
        id: installer.id.to_string(),
        platform: platform_name(installer.platform.as_str()),
        is_install,
        cli: cli(visitor, &fields.command(installer.id.as_str())),
        api: curl(visitor, "POST", INSTALLS_API, &fields.body(installer.id.as_str()).to_string()),
        counted: counted.map(|number| (number, fields.seal(number))),
        fields,
        error,
    };
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

/// Counts the hosts; with the confirmation of that number, installs or uninstalls.
pub async fn run(State(fleet): State<Arc<Fleet>>, Id(id): Id, Posted(visitor, fields): Posted<Fields>) -> Response {
    let installer = match found(&fleet, &visitor, &id).await {
        Ok(installer) => installer,
        Err(error) => return failure::inside(&visitor, &error, TAB),
    };
    // A dry run counts exactly the hosts that it would run on, and validates it.
    let counted = async {
        let new = fields.new_install(&fleet, &installer)?;
        let trial = visitor.context.clone().trying(true).grant()?;
        Ok::<_, Error>((new.clone(), fleet.installs().create(&trial, new).await?.targets))
    };
    let (new, number) = match counted.await {
        Ok(counted) => counted,
        Err(error) => return form_page(&visitor, &installer, fields, None, Some(error)),
    };
    // The number is part of the seal: if more hosts match by now, the person is asked again.
    if fields.confirmed != fields.seal(number) {
        return form_page(&visitor, &installer, fields, Some(number), None);
    }
    let made = async { fleet.installs().create(&visitor.context.grant()?, new).await };
    match made.await {
        Ok(run) => {
            let text = "Hosts begin within half a minute, once they are online.";
            notice::redirect(visitor.base.link(format_args!("{INSTALLS}/{}", run.id)), text)
        }
        Err(error) => form_page(&visitor, &installer, fields, None, Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_is_for_one_number_and_one_form() {
        let fields = |hosts: &str, kind: &str| Fields { hosts: hosts.into(), kind: kind.into(), ..Fields::default() };
        assert_eq!(fields("a", "").seal(2), fields("a", "").seal(2));
        assert_ne!(fields("a", "").seal(2), fields("b", "").seal(2));
        assert_ne!(fields("a", "").seal(2), fields("a", "uninstall").seal(2));
        assert_ne!(fields("a", "").seal(2), fields("a", "").seal(3));
    }

    #[test]
    fn commands_and_requests_state_the_same_install() {
        let fields =
            Fields { hosts: "a, b".into(), kuery: " tags:x ".into(), retries: "2".into(), ..Fields::default() };
        assert_eq!(fields.command("i"), "software install i --host=a --host=b --filter=tags:x --retries=2");
        let expected = serde_json::json!({"installer": "i", "kind": "install", "hosts": ["a", "b"], "kuery": "tags:x",
            "max_retries": 2});
        assert_eq!(fields.body("i"), expected);
        assert_eq!(
            Fields { kind: "uninstall".into(), ..fields }.command("i"),
            "software uninstall i --host=a --host=b --filter=tags:x"
        );
    }
}
