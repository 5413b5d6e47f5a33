//! `/scripts/run`: the form of a run, which states the script and the hosts before it begins.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{PrivilegeName, ScriptsRun};
use muster_core::host_run::DEFAULT_EXPIRY;
use muster_core::script::{DEFAULT_TIMEOUT, ScriptRun};
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::scripts::{NewScriptRun, ScriptSource};
use muster_management::error::status_of;
use muster_management::kql::agents::visible;
use muster_management::scripts::check_selection;
use serde::Deserialize;

use super::super::TAB;
use super::super::facts::cut;
use super::{API, MAX_FORM, PATH};
use crate::durations;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::request::Posted;
use crate::settings::{given, lines};
use crate::visitor::{May, Params, Visitor};
use crate::{failure, notice};

/// Number of hosts that the review names.
const NAMED: u32 = 10;
/// Times within which hosts must fetch a script: seconds, and their names.
const EXPIRIES: [(&str, &str); 4] =
    [("3600", "1 hour"), ("86400", "1 day"), ("259200", "3 days"), ("604800", "7 days")];

/// Parameters of the page: what the form begins with.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Id of a saved script.
    saved: String,
    /// Id of a run, whose script is run again.
    again: String,
    /// A host.
    host: String,
}

/// The form.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    script: String,
    /// Name of a script that is typed.
    name: String,
    /// Id of the saved script that is run instead.
    saved: String,
    /// Names or ids of hosts, one in each line.
    hosts: String,
    kuery: String,
    /// Maximum duration on a host, such as `5m`.
    timeout: String,
    /// Time within which hosts must fetch it, seconds.
    expiry: String,
    /// What was confirmed: [`Fields::seal`] of the form that was shown.
    confirmed: String,
}

impl Fields {
    /// Returns what a confirmation stands for: the script, the number of hosts, and the fields from which they follow.
    fn seal(&self, run: &ScriptRun) -> String {
        let mut hasher = DefaultHasher::new();
        // The hash of the script: a saved one may change between the review and the run.
        (&run.work.sha256, &self.name, &self.saved, &self.hosts, &self.kuery, &self.timeout, &self.expiry)
            .hash(&mut hasher);
        format!("{}-{:x}", run.targets, hasher.finish())
    }

    fn hosts(&self) -> Vec<String> {
        lines(&self.hosts.replace(',', "\n"))
    }
}

/// What a person confirms.
struct Review {
    run: ScriptRun,
    /// The first hosts, by name.
    names: Vec<String>,
    seal: String,
}

impl Review {
    fn more(&self) -> u64 {
        self.run.targets.saturating_sub(self.names.len() as u64)
    }
}

#[derive(Template)]
#[template(path = "hosts/script_run.html")]
struct RunPage {
    frame: Frame,
    fields: Fields,
    /// Name of the saved script.
    saved_name: String,
    /// The saved script; empty for those who may not read it.
    saved_script: String,
    expiries: [(&'static str, &'static str); 4],
    is_enabled: bool,
    review: Option<Review>,
    error: Option<Error>,
    lacks_switch: &'static str,
    cli: String,
    api: String,
}

/// Shows the form.
pub async fn ask(
    State(fleet): State<Arc<Fleet>>,
    May { visitor, .. }: May<ScriptsRun>,
    Params(asked): Params<Asked>,
) -> Response {
    let mut fields = Fields {
        saved: asked.saved,
        hosts: asked.host,
        timeout: durations::written(DEFAULT_TIMEOUT),
        expiry: DEFAULT_EXPIRY.as_secs().to_string(),
        ..Fields::default()
    };
    if !asked.again.is_empty() {
        match fleet.scripts().find(&visitor.context, &asked.again).await {
            // Without the right to read scripts, the form begins empty.
            Ok(seen) => (fields.script, fields.name) = (seen.run().work.script.clone(), seen.run().name.clone()),
            Err(error) => return failure::inside(&visitor, &error, TAB),
        }
    }
    form_page(&fleet, &visitor, fields, None, None).await
}

async fn form_page(
    fleet: &Fleet,
    visitor: &Visitor,
    fields: Fields,
    review: Option<Review>,
    error: Option<Error>,
) -> Response {
    let read = async {
        let saved = match fields.saved.as_str() {
            "" => None,
            id => Some(fleet.scripts().show_saved(&visitor.context, id).await?),
        };
        Ok::<_, Error>((saved, fleet.scripts().are_enabled(&visitor.context).await?))
    };
    let (saved, is_enabled) = match read.await {
        Ok(read) => read,
        Err(error) => return failure::inside(visitor, &error, TAB),
    };
    let (saved_name, saved_script) = saved.map(|saved| (saved.name, saved.script)).unwrap_or_default();
    let shown = RunPage {
        frame: Frame::new(visitor, if review.is_some() { "Review the run" } else { "Run a script" }, TAB),
        cli: cli(visitor, &command(&fields, &saved_name)),
        api: curl(visitor, "POST", API, &body(&fields).to_string()),
        lacks_switch: visitor.lacks(PrivilegeName::ScriptsWrite),
        expiries: EXPIRIES,
        saved_name,
        saved_script,
        is_enabled,
        review,
        fields,
        error,
    };
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

fn command(fields: &Fields, saved: &str) -> String {
    let mut command = match saved {
        "" => format!("script run {}", shell::argument(&given(&fields.name).unwrap_or_else(|| "script.sh".into()))),
        saved => format!("script run {}", shell::option("--saved", saved)),
    };
    for host in fields.hosts() {
        command += &format!(" {}", shell::option("--host", &host));
    }
    if let Some(kuery) = given(&fields.kuery) {
        command += &format!(" {}", shell::option("--filter", &kuery));
    }
    // The option takes seconds.
    let timeout = durations::parse("timeout_seconds", &fields.timeout);
    let timeout = timeout.map_or_else(|_| fields.timeout.clone(), |seconds| seconds.to_string());
    for (flag, value) in [("--timeout", &timeout), ("--expires", &fields.expiry)] {
        if let Some(value) = given(value) {
            command += &format!(" {}", shell::option(flag, &value));
        }
    }
    command
}

fn body(fields: &Fields) -> serde_json::Value {
    let mut body = serde_json::json!({"hosts": fields.hosts()});
    match fields.saved.as_str() {
        "" => body["script"] = fields.script.as_str().into(),
        saved => body["saved"] = saved.into(),
    }
    for (member, value) in [("kuery", &fields.kuery), ("name", &fields.name)] {
        if let Some(value) = given(value) {
            body[member] = value.into();
        }
    }
    if let Ok(seconds) = durations::parse("timeout_seconds", &fields.timeout) {
        body["timeout_seconds"] = seconds.into();
    }
    if let Ok(seconds) = expiry(fields) {
        body["expires_in_seconds"] = seconds.into();
    }
    body
}

/// Returns the chosen time in which hosts must fetch the script, in seconds.
fn expiry(fields: &Fields) -> Result<u64, Error> {
    fields.expiry.trim().parse().map_err(|_| Error::invalid("expires_in_seconds", "choose one of the list"))
}

async fn new_run(fleet: &Fleet, visitor: &Visitor, fields: &Fields) -> Result<NewScriptRun, Error> {
    let (hosts, kuery) = (fields.hosts(), given(&fields.kuery));
    check_selection(&hosts, kuery.as_deref())?;
    let source = match fields.saved.as_str() {
        "" => ScriptSource::Text { name: given(&fields.name), script: fields.script.clone() },
        saved => ScriptSource::Saved(Box::new(fleet.scripts().find_saved(&visitor.context, saved).await?)),
    };
    Ok(NewScriptRun {
        source,
        hosts,
        filter: visible(kuery.as_deref().unwrap_or_default(), false, fleet.now())?,
        expiry: Duration::from_secs(expiry(fields)?),
        timeout: durations::parse("timeout_seconds", &fields.timeout)?,
    })
}

/// Validates the form, and returns what the person is to confirm.
async fn reviewed(fleet: &Fleet, visitor: &Visitor, fields: &Fields) -> Result<(NewScriptRun, Review), Error> {
    let new = new_run(fleet, visitor, fields).await?;
    // A dry run finds exactly the hosts of the run, and validates it.
    let trial = visitor.context.clone().trying(true);
    let run = fleet.scripts().create(&trial.grant()?, new.clone()).await?;
    let names = fleet.scripts().target_names(&trial.grant::<ScriptsRun>()?, &new, NAMED).await?;
    let names = names.iter().map(|name| cut(name)).collect();
    Ok((new, Review { names, seal: fields.seal(&run), run }))
}

/// Reviews the run; with the confirmation of what was reviewed, begins it.
pub async fn run(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields, MAX_FORM>) -> Response {
    let (new, review) = match reviewed(&fleet, &visitor, &fields).await {
        Ok(reviewed) => reviewed,
        Err(error) => return form_page(&fleet, &visitor, fields, None, Some(error)).await,
    };
    // If other hosts match by now, or the saved script has changed, the person is asked again.
    if fields.confirmed != review.seal {
        return form_page(&fleet, &visitor, fields, Some(review), None).await;
    }
    let made = async { fleet.scripts().create(&visitor.context.grant()?, new).await };
    match made.await {
        Ok(run) => {
            let text = "The script run has started. Hosts fetch the script within 30 seconds.";
            notice::redirect(visitor.base.link(format_args!("{PATH}/runs/{}", run.id)), text)
        }
        Err(error) => form_page(&fleet, &visitor, fields, None, Some(error)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_requests_state_the_same_run() {
        let fields = Fields {
            script: "echo a\necho b\n".into(),
            hosts: "web-1, web-2".into(),
            kuery: " tags:a ".into(),
            timeout: "1m".into(),
            expiry: "x".into(),
            ..Fields::default()
        };
        assert_eq!(
            command(&fields, ""),
            "script run script.sh --host=web-1 --host=web-2 --filter=tags:a --timeout=60 --expires=x"
        );
        let expected = serde_json::json!({"hosts": ["web-1", "web-2"], "script": "echo a\necho b\n", "kuery": "tags:a",
            "timeout_seconds": 60});
        assert_eq!(body(&fields), expected);
        assert!(command(&fields, "clean up").starts_with("script run --saved='clean up' "));
    }
}
