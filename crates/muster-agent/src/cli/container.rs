//! `muster-agent container`: enrolls if the environment variables require it, and runs the agent.
//!
//! The variables are those of Elastic Agent's images, so that existing manifests can be used.

mod decision;

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Parser;
use muster_core::error_chain::chain;
use muster_core::replace_token;

use self::decision::{Decision, Key, Stored, Wanted, decide};
use super::enroll_options::Options;
use super::signals::Signals;
use super::{check_base, enroll, run, transport};
use crate::enroll::plan::Plan;
use crate::entropy::System;
use crate::exit::{self, Failure};
use crate::fleet::{CallError, FleetClient};
use crate::net::Server;
use crate::paths::Layout;
use crate::state::Store;
use crate::state::disk::DiskStore;
use crate::state::enrollment::Enrollment;

/// Variables that correspond to a flag of `enroll` with a value.
const FLAGS: [(&str, &str); 7] = [
    ("FLEET_URL", "--url"),
    ("FLEET_ENROLLMENT_TOKEN", "--enrollment-token"),
    ("FLEET_CA", "--certificate-authorities"),
    ("ELASTIC_AGENT_ID", "--id"),
    ("FLEET_REPLACE_TOKEN", "--replace-token"),
    ("ELASTIC_AGENT_TAGS", "--tag"),
    ("FLEET_ENROLL_TIMEOUT", "--timeout"),
];

/// The flags of `enroll`, which are parsed from the variables.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Flags {
    #[command(flatten)]
    options: Options,
}

/// Enrolls if necessary, and runs the agent until it is stopped.
pub async fn run(layout: &Layout, args: &run::Args) -> Result<u8, Failure> {
    let variables: BTreeMap<String, String> = std::env::vars().collect();
    if is_set(&variables, "FLEET_SERVER_ENABLE") {
        let failure = Failure::new(exit::USAGE, "FLEET_SERVER_ENABLE: muster-agent does not run a Fleet Server");
        return Err(failure.hint("run muster serve in a container of its own"));
    }
    let mut signals = Signals::listen()?;
    if is_set(&variables, "FLEET_ENROLL") {
        let options = options(&variables)?;
        let plan = options.plan(&[])?;
        check_base(layout.base())?;
        let force = is_set(&variables, "FLEET_FORCE");
        tokio::select! {
            enrolled = enroll_if_needed(layout, &plan, &options, force) => enrolled?,
            // An interrupted enrollment is repeated at the next start.
            () = signals.stop() => return Ok(exit::DONE),
        }
    }
    run::run_until(layout, args, signals).await
}

/// Returns whether a variable is true: `1`, `true`, `yes` or `y`.
fn is_set(variables: &BTreeMap<String, String>, name: &str) -> bool {
    variables.get(name).is_some_and(|value| matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "y"))
}

/// Converts the variables to the options of `enroll`. They never become arguments of a process.
fn options(variables: &BTreeMap<String, String>) -> Result<Options, Failure> {
    let given = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let mut flags: Vec<String> =
        FLAGS.iter().filter_map(|(name, flag)| given(name).map(|value| format!("{flag}={value}"))).collect();
    flags.extend(is_set(variables, "FLEET_INSECURE").then(|| "--insecure".to_owned()));
    // The message of clap can contain the value of the variable, which may be a token.
    let wrong = |error: clap::Error| Failure::new(exit::USAGE, format!("a variable is malformed: {}", error.kind()));
    Ok(Flags::try_parse_from(flags).map_err(wrong)?.options)
}

async fn enroll_if_needed(layout: &Layout, plan: &Plan, options: &Options, force: bool) -> Result<(), Failure> {
    let store = DiskStore::new(layout.clone());
    let former = enroll::former(&store, true)?;
    let decision = match &former {
        enroll::Former::Enrolled(former) => {
            let early = decide(&wanted(plan, force), &stored(former, plan), None);
            match early {
                // Only if nothing else requires an enrollment, the server is asked.
                Decision::AskServer => decide(&wanted(plan, force), &stored(former, plan), Some(key(former).await)),
                decision => decision,
            }
        }
        enroll::Former::None => Decision::Enroll("not enrolled yet"),
        enroll::Former::Unreadable(_) => Decision::Enroll("the stored enrollment is not readable"),
    };
    let Decision::Enroll(reason) = decision else {
        eprintln!("Not enrolling: the stored enrollment matches the variables");
        return Ok(());
    };
    eprintln!("Enrolling: {reason}");
    let item = enroll::join(&store, plan, &former, options).await?;
    remember_token(&store, plan)?;
    enroll::say_farewell(layout, former, &item.id, plan).await;
    Ok(())
}

fn wanted(plan: &Plan, force: bool) -> Wanted {
    Wanted { force, id: plan.id.clone() }
}

fn stored(former: &Enrollment, plan: &Plan) -> Stored {
    let matches = |hash: &Option<String>| hash.as_deref().map(|hash| replace_token::verify(plan.token.expose(), hash));
    // The same URL in another notation is the same server.
    let urls = |urls: &[String]| urls.iter().filter_map(|url| Server::parse(url).ok()).collect::<Vec<_>>();
    let own = urls(&former.servers);
    let replace = plan.replace_token.as_ref();
    Stored {
        id: former.agent_id.clone(),
        has_servers: urls(&plan.servers).iter().all(|server| own.contains(server)),
        token_matches: matches(&former.token_hash),
        replace_token_matches: replace.map(|token| former.replace_token.as_ref() == Some(token)),
    }
}

/// Asks the server whether the access key is valid, with an empty ack.
async fn key(former: &Enrollment) -> Key {
    let Ok(transport) = transport(&former.trust) else { return Key::Unknown };
    let servers = former.servers.iter().filter_map(|url| Server::parse(url).ok()).collect();
    let client = FleetClient::new(transport, servers, former.access_api_key.clone(), Arc::new(System));
    match client.acknowledge(&former.agent_id, &[]).await {
        Ok(_) => Key::Valid,
        Err(CallError::Refused { status: 401, .. }) => Key::Rejected,
        Err(error) => {
            // An unreachable server is no reason to enroll again (AG30).
            eprintln!("The server did not confirm the access key: {}", chain(&error));
            Key::Unknown
        }
    }
}

/// Stores a slow hash of the token, so that a changed one is recognized at the next start (AG29, AG40).
fn remember_token(store: &DiskStore, plan: &Plan) -> Result<(), Failure> {
    if let Some(enrollment) = store.enrollment()? {
        let token_hash = Some(replace_token::hash(plan.token.expose(), replace_token::ITERATIONS, &System));
        store.save_enrollment(&Enrollment { token_hash, ..enrollment })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::enrollment::Secret;

    #[test]
    fn variables_become_options_and_an_error_does_not_print_them() {
        let variables = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let good = variables(&[
            ("FLEET_URL", "https://fleet.example"),
            ("FLEET_ENROLLMENT_TOKEN", "dG9rOmVu"),
            ("ELASTIC_AGENT_TAGS", "a, b,"),
            ("ELASTIC_AGENT_ID", ""),
        ]);
        let plan = options(&good).unwrap().plan(&[]).unwrap();
        assert_eq!((plan.servers[0].as_str(), plan.id), ("https://fleet.example:8220", None));
        assert_eq!((plan.tags, plan.token), (vec!["a".to_owned(), "b".to_owned()], Secret::new("dG9rOmVu")));
        let error = options(&variables(&[("FLEET_ENROLL_TIMEOUT", "s3cret")])).unwrap_err();
        assert_eq!((error.code, error.message.contains("s3cret")), (exit::USAGE, false), "{}", error.message);
        for (value, set) in [("1", true), ("Yes", true), ("true", true), ("0", false), ("", false), ("no", false)] {
            assert_eq!(is_set(&variables(&[("FLEET_ENROLL", value)]), "FLEET_ENROLL"), set, "{value:?}");
        }
    }
}
