//! Errors and warnings in terms of the variables of a container: nobody can pass a flag there.

use std::collections::BTreeMap;

use super::{ELASTICSEARCH_FLAGS, FLAGS, SERVER_FLAGS, SERVICE_TOKENS};
use crate::exit::Failure;

/// Variables of Elastic's images that have no effect here.
const IGNORED: [&str; 31] = [
    "APMSERVER_GOGC",
    "APM_SERVER_PATH",
    "CONFIG_PATH",
    "DATA_PATH",
    "ELASTICSEARCH_PASSWORD",
    "ELASTICSEARCH_USERNAME",
    "ELASTIC_AGENT_CLOUD",
    "ELASTIC_AGENT_GRPC_PORT",
    "ELASTIC_AGENT_OTEL",
    "EVENTS_TO_STDERR",
    "FLEET_DAEMON_TIMEOUT",
    "FLEET_KIBANA_HEADER",
    "FLEET_KIBANA_HEADERS",
    "FLEET_SERVER_INIT_TIMEOUT",
    "FLEET_TOKEN_NAME",
    "FLEET_TOKEN_POLICY_NAME",
    "HOME_PATH",
    "HTTPPROF",
    "KIBANA_FLEET_CA",
    "KIBANA_FLEET_HOST",
    "KIBANA_FLEET_PASSWORD",
    "KIBANA_FLEET_SERVICE_TOKEN",
    "KIBANA_FLEET_SERVICE_TOKEN_PATH",
    "KIBANA_FLEET_SETUP",
    "KIBANA_FLEET_USERNAME",
    "KIBANA_HOST",
    "KIBANA_PASSWORD",
    "KIBANA_REQUEST_RETRY_COUNT",
    "KIBANA_REQUEST_RETRY_SLEEP",
    "KIBANA_USERNAME",
    "LOGS_PATH",
];
/// Variables that are true or false.
const SWITCHES: [&str; 6] = [
    "FLEET_ENROLL",
    "FLEET_FORCE",
    "FLEET_INSECURE",
    "FLEET_SERVER_ELASTICSEARCH_INSECURE",
    "FLEET_SERVER_ENABLE",
    "FLEET_SERVER_INSECURE_HTTP",
];
/// Flags that a variable stands for in another way than as `--FLAG=VALUE`.
const OTHERS: [(&str, &str); 5] = [
    ("FLEET_HEADER", "--header"),
    ("FLEET_INSECURE", "--insecure"),
    ("FLEET_SERVER_SET", "--fleet-server-set"),
    ("FLEET_SERVER_INSECURE_HTTP", "--fleet-server-insecure-http"),
    ("FLEET_SERVER_ELASTICSEARCH_INSECURE", "--fleet-server-es-insecure"),
];

/// Returns a line for each variable that has no effect, or not the one that its value suggests. No line contains a value.
pub(super) fn warnings(variables: &BTreeMap<String, String>) -> Vec<String> {
    let given = |name: &&&str| variables.get(**name).is_some_and(|value| !value.is_empty());
    let ignored = IGNORED.iter().filter(given).map(|name| format!("{name} is not supported and is ignored"));
    let known = |value: &str| {
        matches!(value.to_lowercase().as_str(), "" | "1" | "true" | "yes" | "y" | "0" | "false" | "no" | "n")
    };
    let unclear = SWITCHES.iter().filter(|name| variables.get(**name).is_some_and(|value| !known(value)));
    ignored.chain(unclear.map(|name| format!("{name} is neither true nor false, and counts as false"))).collect()
}

/// Names variables instead of flags in the message and the hint.
pub(super) fn in_variables(mut failure: Failure) -> Failure {
    failure.message = renamed(&failure.message);
    failure.hint = failure.hint.map(|hint| renamed(&hint));
    failure
}

/// Replaces flags by their variables.
pub(super) fn renamed(text: &str) -> String {
    let elasticsearch = ELASTICSEARCH_FLAGS.iter().map(|(name, _, flag)| (*name, *flag));
    let all = FLAGS.iter().chain(&SERVER_FLAGS).chain(&SERVICE_TOKENS).chain(&OTHERS).copied().chain(elasticsearch);
    let mut all: Vec<_> = all.collect();
    // The longest first: some flags begin with the name of another one.
    all.sort_by_key(|(_, flag)| std::cmp::Reverse(flag.len()));
    all.into_iter().fold(text.to_owned(), |text, (name, flag)| text.replace(flag, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    #[test]
    fn ignored_and_unclear_variables_are_named_without_their_values() {
        let variables = [
            ("FLEET_ENROLL", "canary"),
            ("KIBANA_PASSWORD", "canary"),
            ("LOGS_PATH", ""),
            ("FLEET_FORCE", "1"),
            ("HTTPPROF", "canary"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(
            warnings(&variables),
            [
                "HTTPPROF is not supported and is ignored",
                "KIBANA_PASSWORD is not supported and is ignored",
                "FLEET_ENROLL is neither true nor false, and counts as false"
            ]
        );
    }

    #[test]
    fn errors_name_variables() {
        let failure =
            Failure::new(exit::USAGE, "--url: the URL of the server is missing").hint("add --fleet-server-es-ca");
        let failure = in_variables(failure);
        assert_eq!(failure.message, "FLEET_URL: the URL of the server is missing");
        assert_eq!(failure.hint.as_deref(), Some("add FLEET_SERVER_ELASTICSEARCH_CA"));
        assert_eq!(renamed("--fleet-server-policy, --tag <TAG>"), "FLEET_SERVER_POLICY_ID, ELASTIC_AGENT_TAGS <TAG>");
    }
}
