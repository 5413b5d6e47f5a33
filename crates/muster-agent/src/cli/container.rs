//! `muster-agent container`: enrolls if the environment variables require it, and runs the agent.
//!
//! The variables are those of Elastic Agent's images, so that existing manifests can be used.

mod decision;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Parser;
use clap::error::ContextKind;
use muster_core::error_chain::chain;
use muster_core::replace_token;

use self::decision::{Decision, KEY_REJECTED, Key, Stored, Wanted, decide};
use super::enroll_options::Options;
use super::guard::{Guarded, guard};
use super::server_options::{Local, ServerOptions, Target};
use super::signals::Signals;
use super::{check_base, enroll, enrolling, run, transport};
use crate::enroll::plan::Plan;
use crate::entropy::System;
use crate::exit::{self, Failure};
use crate::fleet::{CallError, FleetClient};
use crate::interrupt::Interrupt;
use crate::local_server::LocalServer;
use crate::net::Server;
use crate::paths::Layout;
use crate::state::Store;
use crate::state::disk::DiskStore;
use crate::state::enrollment::Enrollment;

/// Variables that correspond to a flag of `enroll` with a value.
const FLAGS: [(&str, &str); 10] = [
    ("FLEET_URL", "--url"),
    ("FLEET_ENROLLMENT_TOKEN", "--enrollment-token"),
    ("FLEET_CA", "--certificate-authorities"),
    ("ELASTIC_AGENT_ID", "--id"),
    ("FLEET_REPLACE_TOKEN", "--replace-token"),
    ("ELASTIC_AGENT_TAGS", "--tag"),
    ("FLEET_ENROLL_TIMEOUT", "--timeout"),
    ("ELASTIC_AGENT_CERT", "--elastic-agent-cert"),
    ("ELASTIC_AGENT_CERT_KEY", "--elastic-agent-cert-key"),
    ("ELASTIC_AGENT_CERT_KEY_PASSPHRASE", "--elastic-agent-cert-key-passphrase"),
];

/// Other names of these variables, in the order in which they count.
const FORMER: [(&str, &str); 3] =
    [("FLEET_CA", "KIBANA_CA"), ("FLEET_CA", "ELASTICSEARCH_CA"), ("FLEET_SERVER_POLICY_ID", "FLEET_SERVER_POLICY")];

/// Variables that correspond to a flag of `enroll` about the server of this container.
const SERVER_FLAGS: [(&str, &str); 12] = [
    ("FLEET_SERVER_POLICY_ID", "--fleet-server-policy"),
    ("FLEET_SERVER_HOST", "--fleet-server-host"),
    ("FLEET_SERVER_PORT", "--fleet-server-port"),
    ("FLEET_SERVER_CERT", "--fleet-server-cert"),
    ("FLEET_SERVER_CERT_KEY", "--fleet-server-cert-key"),
    ("FLEET_SERVER_CERT_KEY_PASSPHRASE", "--fleet-server-cert-key-passphrase"),
    ("FLEET_SERVER_CLIENT_AUTH", "--fleet-server-client-auth"),
    ("FLEET_SERVER_TIMEOUT", "--fleet-server-timeout"),
    // These are not Elastic's.
    ("FLEET_SERVER_LOCAL_PORT", "--fleet-server-local-port"),
    ("FLEET_SERVER_PROGRAM", "--fleet-server-program"),
    ("FLEET_SERVER_DATA_DIR", "--fleet-server-data-dir"),
    ("FLEET_SERVER_DATABASE", "--fleet-server-database"),
];
/// Variables that correspond to a flag about the Elasticsearch of the server, each with its former name.
const ELASTICSEARCH_FLAGS: [(&str, &str, &str); 5] = [
    ("FLEET_SERVER_ELASTICSEARCH_HOST", "ELASTICSEARCH_HOST", "--fleet-server-es"),
    ("FLEET_SERVER_ELASTICSEARCH_CA", "ELASTICSEARCH_CA", "--fleet-server-es-ca"),
    ("FLEET_SERVER_ELASTICSEARCH_CA_TRUSTED_FINGERPRINT", "", "--fleet-server-es-ca-trusted-fingerprint"),
    ("FLEET_SERVER_ES_CERT", "", "--fleet-server-es-cert"),
    ("FLEET_SERVER_ES_CERT_KEY", "", "--fleet-server-es-cert-key"),
];
/// Variables with the credential of the server at Elasticsearch. Without one, the server uses none.
const SERVICE_TOKENS: [(&str, &str); 2] = [
    ("FLEET_SERVER_SERVICE_TOKEN", "--fleet-server-service-token"),
    ("FLEET_SERVER_SERVICE_TOKEN_PATH", "--fleet-server-service-token-path"),
];
/// Elastic's default.
const ELASTICSEARCH_DEFAULT: &str = "http://elasticsearch:9200";

/// The flags of `enroll`, which are parsed from the variables.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Flags {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    server: ServerOptions,
}

/// Enrolls if necessary, and runs the agent until it is stopped.
pub async fn run(layout: &Layout, args: &run::Args) -> Result<u8, Failure> {
    let variables: BTreeMap<String, String> = std::env::vars().collect();
    // Before the enrollment: process 1 of a container ignores signals that it does not handle.
    let mut signals = Signals::listen()?;
    for warning in words::warnings(&variables) {
        eprintln!("Warning: {warning}");
    }
    if is_set(&variables, "FLEET_ENROLL") || is_set(&variables, "FLEET_SERVER_ENABLE") {
        let Flags { options, server } = flags(&variables)?;
        let target = Target::new(layout, &options, &server, &[]).map_err(words::in_variables)?;
        check_base(layout.base())?;
        let force = is_set(&variables, "FLEET_FORCE");
        // Released before the daemon takes it.
        DiskStore::new(layout.clone()).prepare()?;
        let held = run::lock(layout)?;
        let enroll = async {
            match &target {
                Target::Remote(plan) => enroll_if_needed(layout, plan, &options, force).await,
                Target::Local(local) => enroll_here(layout, &target, local, &options, force).await,
            }
        };
        tokio::select! {
            enrolled = enrolling::answering(layout, enroll) => enrolled?,
            // An interrupted enrollment is repeated at the next start.
            () = signals.stop() => return Ok(exit::DONE),
        }
        drop(held);
    }
    run::run_until(layout, args, signals).await
}

/// Returns whether a variable is true: `1`, `true`, `yes` or `y`.
fn is_set(variables: &BTreeMap<String, String>, name: &str) -> bool {
    variables.get(name).is_some_and(|value| matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "y"))
}

/// Converts the variables to the options of `enroll`. They never become arguments of a process.
fn flags(variables: &BTreeMap<String, String>) -> Result<Flags, Failure> {
    let given = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let former =
        |name: &str| FORMER.iter().filter(move |(known, _)| *known == name).find_map(|(_, former)| given(former));
    let value = |name: &str| given(name).or_else(|| former(name));
    let as_flag = |(name, flag): &(&str, &str)| value(name).map(|value| format!("{flag}={value}"));
    let mut flags: Vec<String> = FLAGS.iter().filter_map(as_flag).collect();
    // A list, whose values can contain neither commas nor line breaks.
    let headers = given("FLEET_HEADER").or_else(|| given("FLEET_HEADERS")).map(String::as_str).unwrap_or_default();
    let headers = headers.split([',', '\n']).map(str::trim).filter(|header| !header.is_empty());
    flags.extend(headers.map(|header| format!("--header={header}")));
    flags.extend(is_set(variables, "FLEET_INSECURE").then(|| "--insecure".to_owned()));
    if is_set(variables, "FLEET_SERVER_ENABLE") {
        flags.extend(elasticsearch_flags(variables));
        flags.push("--fleet-server".into());
        flags.extend(SERVER_FLAGS.iter().filter_map(as_flag));
        flags
            .extend(is_set(variables, "FLEET_SERVER_INSECURE_HTTP").then(|| "--fleet-server-insecure-http".to_owned()));
        let settings = given("FLEET_SERVER_SET").map(String::as_str).unwrap_or_default();
        flags.extend(settings.split_whitespace().map(|setting| format!("--fleet-server-set={setting}")));
    }
    Flags::try_parse_from(flags).map_err(|error| wrong(&error))
}

/// Describes an error of the variables. The message of clap can contain the value of a variable, which may be a token.
fn wrong(error: &clap::Error) -> Failure {
    let named = error.get(ContextKind::InvalidArg).map(|found| words::renamed(&found.to_string()));
    let what = named
        .map_or_else(|| "a variable is malformed".to_owned(), |name| format!("{name} is malformed or in conflict"));
    Failure::new(exit::USAGE, format!("{what}: {}", error.kind()))
}

/// Returns the flags about the Elasticsearch of the server; none without a credential for it.
fn elasticsearch_flags(variables: &BTreeMap<String, String>) -> Vec<String> {
    let given = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let as_flag = |(name, flag): &(&str, &str)| given(name).map(|value| format!("{flag}={value}"));
    let mut flags: Vec<String> = SERVICE_TOKENS.iter().filter_map(as_flag).collect();
    let found = ELASTICSEARCH_FLAGS.map(|(name, former, flag)| (flag, given(name).or_else(|| given(former))));
    if flags.is_empty() {
        if found[0].1.is_some() {
            eprintln!("Warning: FLEET_SERVER_ELASTICSEARCH_HOST is ignored: there is no FLEET_SERVER_SERVICE_TOKEN");
        }
        return flags;
    }
    flags.extend(found.iter().filter_map(|(flag, value)| value.map(|value| format!("{flag}={value}"))));
    flags.extend(found[0].1.is_none().then(|| format!("--fleet-server-es={ELASTICSEARCH_DEFAULT}")));
    let insecure = is_set(variables, "FLEET_SERVER_ELASTICSEARCH_INSECURE");
    flags.extend(insecure.then(|| "--fleet-server-es-insecure".to_owned()));
    flags
}

/// Sets up the server of this container and enrolls at it, unless both have been done with the same options.
async fn enroll_here(
    layout: &Layout,
    target: &Target,
    local: &Local,
    options: &Options,
    force: bool,
) -> Result<(), Failure> {
    let store = DiskStore::new(layout.clone());
    let former = enroll::former(&store, true)?;
    let is_enrolled_here = matches!(&former, enroll::Former::Enrolled(former) if former.local_server);
    if !force && is_enrolled_here && LocalServer::load(layout)?.as_ref() == Some(local.server()) {
        eprintln!("Not enrolling: the server and the enrollment match the variables");
        // The image may contain a newer server.
        return local.install_program(layout);
    }
    guard(layout, &store, "container", &Guarded::of_environment()).await?;
    let (plan, item) = enroll::join_at(&store, layout, target, &former, options, &Interrupt::never()).await?;
    enroll::say_farewell(layout, former, &item.id, &plan).await;
    Ok(())
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
    // A policy no longer protects an agent whose key its own server rejects.
    if reason != KEY_REJECTED {
        guard(layout, &store, "container", &Guarded::of_environment()).await?;
    }
    eprintln!("Enrolling: {reason}");
    let item = enroll::join(&store, plan, &former, options).await?;
    // If this is lost, only a changed token goes unnoticed.
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
    let Ok(transport) = transport(&former.trust_in_effect()) else { return Key::Unknown };
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
    fn variables_of_elasticsearch_become_options_if_there_is_a_service_token() {
        let found = |pairs: &[(&str, &str)]| {
            let all = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            elasticsearch_flags(&all)
        };
        assert_eq!(found(&[("FLEET_SERVER_ELASTICSEARCH_HOST", "http://es")]), Vec::<String>::new());
        let default = ["--fleet-server-service-token=t", "--fleet-server-es=http://elasticsearch:9200"];
        assert_eq!(found(&[("FLEET_SERVER_SERVICE_TOKEN", "t")]), default);
        let all = found(&[
            ("FLEET_SERVER_SERVICE_TOKEN_PATH", "/t"),
            ("FLEET_SERVER_SERVICE_TOKEN", ""),
            ("ELASTICSEARCH_HOST", "https://former"),
            ("ELASTICSEARCH_CA", "/former"),
            ("FLEET_SERVER_ELASTICSEARCH_CA", "/ca"),
            ("FLEET_SERVER_ELASTICSEARCH_CA_TRUSTED_FINGERPRINT", "ab"),
            ("FLEET_SERVER_ES_CERT", "/c"),
            ("FLEET_SERVER_ES_CERT_KEY", "/k"),
            ("FLEET_SERVER_ELASTICSEARCH_INSECURE", "yes"),
        ]);
        let expected = "--fleet-server-service-token-path=/t --fleet-server-es=https://former --fleet-server-es-ca=/ca \
                        --fleet-server-es-ca-trusted-fingerprint=ab --fleet-server-es-cert=/c \
                        --fleet-server-es-cert-key=/k --fleet-server-es-insecure";
        assert_eq!(all.join(" "), expected);
    }

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
            ("FLEET_HEADER", "X-A=1, X-B=2"),
        ]);
        let plan = flags(&good).unwrap().options.plan(&[]).unwrap();
        assert_eq!((plan.servers[0].as_str(), plan.id), ("https://fleet.example:8220", None));
        assert_eq!((plan.tags, plan.token), (vec!["a".to_owned(), "b".to_owned()], Secret::new("dG9rOmVu")));
        assert_eq!(plan.trust.headers, [("X-A".into(), Secret::new("1")), ("X-B".into(), Secret::new("2"))]);
        let error = flags(&variables(&[("FLEET_ENROLL_TIMEOUT", "s3cret")])).unwrap_err();
        assert_eq!((error.code, error.message.contains("s3cret")), (exit::USAGE, false), "{}", error.message);
        assert!(error.message.starts_with("FLEET_ENROLL_TIMEOUT "), "{}", error.message);
        for (value, set) in [("1", true), ("Yes", true), ("true", true), ("0", false), ("", false), ("no", false)] {
            assert_eq!(is_set(&variables(&[("FLEET_ENROLL", value)]), "FLEET_ENROLL"), set, "{value:?}");
        }
    }
}
