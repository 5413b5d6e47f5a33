//! Tests of the configuration: texts in, values or messages out.

use std::time::Duration;

use proptest::prelude::*;

use super::value::{Raw, parse_span, write_span};
use super::*;
use muster_elastic::limits::{Limits, Operation};

fn layers(file: &str) -> Layers {
    Layers { file: Some(("muster.toml".into(), file.into())), root: true, ..Layers::default() }
}

fn refused(layers: &Layers) -> String {
    load(layers).unwrap_err().to_string()
}

#[test]
fn defaults_are_a_valid_configuration() {
    let loaded = load(&Layers { root: true, ..Layers::default() }).unwrap();
    assert_eq!(loaded.config.data_dir, "/var/lib/muster");
    assert_eq!(loaded.config.limits, Limits::default());
    assert_eq!(loaded.config.listen.agent, Some("0.0.0.0:8220".parse().unwrap()));
    assert_eq!(loaded.config.timeouts.idle, Duration::from_secs(75));
    assert_eq!(loaded.config.highest_version, (9, None));
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let mut all = layers("[timeouts]\nidle = \"1s\"\ndrain = \"1s\"\nread = \"1s\"\n");
    let variable = |key: &str, value: &str| (format!("MUSTER_TIMEOUTS_{key}"), value.to_owned());
    all.environment.extend([variable("IDLE", "2s"), variable("DRAIN", "2s")]);
    all.assignments = vec!["timeouts.drain=3s".into()];
    let loaded = load(&all).unwrap();
    let muster_listen::Timeouts { idle, drain, read, .. } = loaded.config.timeouts;
    assert_eq!([read, idle, drain].map(|span| span.as_secs()), [1, 2, 3]);
    let source = |key: &str| loaded.values.source(key).to_string();
    assert_eq!(source("timeouts.read"), "muster.toml:4");
    assert_eq!(source("timeouts.idle"), "MUSTER_TIMEOUTS_IDLE");
    assert_eq!(source("timeouts.drain"), "--set timeouts.drain");
    assert_eq!(source("timeouts.write"), "default");
    assert!(loaded.values.describe().contains("timeouts.idle = \"2s\"  # MUSTER_TIMEOUTS_IDLE\n"));
}

#[test]
fn all_errors_are_reported_together_with_position_and_suggestion() {
    let mut all = layers("data_dri = \"/x\"\n\n[limits.checkin]\nburst = \"many\"\ninterval = \"5 parsecs\"\n");
    all.environment.insert("MUSTER_LOG_LEVEL".into(), "loud".into());
    all.assignments = vec!["timeouts.iddle=1s".into(), "nonsense".into()];
    let expected = "\
invalid configuration, 6 problems:
  --set nonsense: expected --set KEY=VALUE
  muster.toml:1: data_dri: unknown key; did you mean data_dir?
  muster.toml:4: limits.checkin.burst: expected a non-negative integer
  muster.toml:5: limits.checkin.interval: \"5 parsecs\" is not a duration, such as 250ms, 30s or 5m
  MUSTER_LOG_LEVEL: log.level: \"loud\" is not one of error, warn, info, debug, trace
  --set timeouts.iddle: timeouts.iddle: unknown key; did you mean timeouts.idle?";
    assert_eq!(refused(&all), expected);
}

#[test]
fn invalid_toml_is_reported_with_its_line() {
    let text = refused(&layers("data_dir = \"/x\"\n[timeouts\nidle = 3\n"));
    assert!(text.contains("muster.toml:2: "), "{text}");
    let text = refused(&layers("data_dir = \"/x\"\ndata_dir = \"/y\"\n"));
    assert!(text.contains("muster.toml:2: ") && text.contains("duplicate"), "{text}");
}

#[test]
fn values_of_the_wrong_type_are_reported_with_the_expected_type() {
    for (file, reason) in [
        ("data_dir = 3", "expected a string in quotes, found a number"),
        ("data_dir = true", "expected a string in quotes, found a boolean"),
        ("data_dir = [\"a\"]", "expected a string, found a list"),
        ("data_dir = 1979-05-27", "expected a string in quotes, found a date"),
        ("insecure_http = \"perhaps\"", "expected true or false"),
        ("limits.max_connections = -1", "expected a non-negative integer"),
        ("limits.max_connections = 99999999999999999999999", "expected a non-negative integer"),
        ("limits.max_connections = 10000001", "10000001 exceeds the maximum of 10000000"),
        ("timeouts.idle = \"2d\"", "\"2d\" is not a duration"),
        ("timeouts.idle = \"0\"", "0 is outside 1ms to 24h"),
        ("external_url = [3]", "expected a string in quotes, found a list of something other than strings"),
        ("external_url = \"fleet.example\"", "is not a server URL; use https://HOST:PORT"),
        ("external_url = \"https://user:pw@fleet.example\"", "is not a server URL"),
        ("external_url = \"https://fleet.example/path\"", "has a path; use https://HOST:PORT"),
        ("external_url = \"http://fleet.example:8220\"", "is plain HTTP, which requires insecure_http"),
        ("external_url = \"https://fleet.example\"", "has no port; use https://fleet.example:8220, or another port"),
        ("external_url = \"https://[2001:db8::1]\"", "has no port; use https://[2001:db8::1]:8220"),
        ("external_url = \"https://fleet.example:\"", "has no port"),
        ("external_url = \"https://fleet.example:0\"", "has port 0"),
        ("external_url = \"https://0.0.0.0:8220\"", "is not a host that agents can connect to"),
        ("external_url = \"https://[::]:8220\"", "is not a host that agents can connect to"),
        ("external_url = \"https://*.example:8220\"", "is not a host that agents can connect to"),
        ("external_url = \"https://fleet.example:65536\"", "is not a server URL"),
        ("agent.listen = \"fleet.example:1\"", "is not a listen address; use ADDRESS:PORT or none"),
        ("agents.highest_version = \"new\"", "is not a version; use MAJOR or MAJOR.MINOR in quotes"),
        ("agents.lowest_version = \"8\"", "is not a version; use MAJOR.MINOR in quotes"),
        ("agents.lowest_version = \"10.0\"", "exceeds agents.highest_version"),
        ("tls.cert = \"a\"", "requires tls.key"),
        ("tls.key = \"a\"", "requires tls.cert"),
        ("timeouts.checkin_jitter = \"6m\"", "must be shorter than timeouts.checkin_long_poll, 5m"),
        ("database = \"postgres://h/d\"", "user, host and database are required"),
        ("database = \"postgres://u@h/d?sslmode=verify-ca\"", "sslmode=verify-ca is not supported"),
        ("limits = 3", "unknown key"),
        ("[limit]", "limit: unknown section; did you mean [limits]?"),
        ("[limits.check-in]", "limits.check-in: unknown section; did you mean [limits.checkin]?"),
        ("[timeouts]\nidle = {}", "timeouts.idle: unknown section"),
        ("nonsense = {}", "nonsense: unknown section"),
        ("admin.hosts = [\"fleet.example:8230\"]", "is not a host name; omit the scheme and the port"),
        ("admin.hosts = [\"*.example\"]", "is not a host name"),
        ("admin.hosts = \"https://fleet.example\"", "is not a host name"),
    ] {
        let text = refused(&layers(file));
        assert!(text.contains(reason), "{file}: {text}");
    }
}

#[test]
fn known_sections_can_be_empty() {
    load(&layers("[limits]\n[limits.checkin]\n[timeouts]\n[tls]\n[admin]\nhosts = [\"Fleet.example\"]\n")).unwrap();
}

#[test]
fn a_short_poll_requires_no_jitter_setting() {
    for (poll, jitter) in [("0s", 0), ("10s", 1), ("5m", 30), ("1h", 30)] {
        let assignments = vec![format!("timeouts.checkin_long_poll={poll}")];
        let loaded = load(&Layers { root: true, assignments, ..Layers::default() }).unwrap();
        assert_eq!(loaded.config.poll.jitter.as_secs(), jitter, "{poll}");
    }
}

#[test]
fn plain_http_is_allowed_only_on_loopback_addresses() {
    let mut all = Layers { root: true, assignments: vec!["insecure_http=true".into()], ..Layers::default() };
    let text = refused(&all);
    assert!(
        text.contains("agent.listen: insecure_http requires a loopback address, but this is 0.0.0.0:8220"),
        "{text}"
    );
    all.assignments.push("agent.listen=localhost:8220".into());
    assert!(load(&all).unwrap().config.insecure_http);
    all.assignments.push("agent.listen=none".into());
    all.assignments.push("local.listen=192.0.2.1:8221".into());
    assert!(refused(&all).contains("local.listen"));
}

#[test]
fn lists_without_brackets_are_separated_by_commas() {
    let set = |text: &str| Layers { root: true, assignments: vec![text.into()], ..Layers::default() };
    let loaded = load(&set("external_url=https://a.example:1/, https://[2001:db8::1]:2")).unwrap();
    assert_eq!(loaded.config.external_urls, ["https://a.example:1", "https://[2001:db8::1]:2"]);
}

#[test]
fn the_data_directory_depends_on_the_user() {
    let mut all = Layers::default();
    assert!(refused(&all).contains("data_dir: not set, and there is no home directory"));
    all.environment.insert("HOME".into(), "/home/ann".into());
    assert_eq!(load(&all).unwrap().config.data_dir, "/home/ann/.local/state/muster");
    all.environment.insert("XDG_STATE_HOME".into(), "/state".into());
    assert_eq!(load(&all).unwrap().config.data_dir, "/state/muster");
}

/// What is said of the variables that are ignored.
fn ignored(all: &Layers) -> Vec<String> {
    load(all).unwrap().ignored.iter().map(ToString::to_string).collect()
}

#[test]
fn unknown_variables_are_ignored_and_reported_with_a_suggestion() {
    let of = |names: &[&str]| Layers {
        root: true,
        environment: names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect(),
        ..Layers::default()
    };
    let told = ignored(&of(&["MUSTER_TLS_CLIENT_CAS"]));
    assert_eq!(told, ["MUSTER_TLS_CLIENT_CAS: unknown variable, ignored; did you mean MUSTER_TLS_CLIENT_CA?"]);
    let told = ignored(&of(&["MUSTER_NONSENSE_AND_MORE", "MUSTER_PORT"]));
    assert!(told[0].starts_with("MUSTER_NONSENSE_AND_MORE: unknown variable, ignored"), "{told:?}");
    assert!(told[1].starts_with("MUSTER_PORT: "), "a port alone is no service: {told:?}");
}

#[test]
fn unknown_variables_are_reported_together_with_errors() {
    let mut all = Layers { root: true, assignments: vec!["timeouts.idle=x".into()], ..Layers::default() };
    all.environment.insert("MUSTER_TIMEOUTS_IDEL".into(), "5s".into());
    assert!(
        refused(&all)
            .contains("\n  MUSTER_TIMEOUTS_IDEL: unknown variable, ignored; did you mean MUSTER_TIMEOUTS_IDLE?")
    );
}

#[test]
fn variables_of_other_commands_tests_and_orchestrators_are_ignored() {
    let names = [
        "MUSTER_URL",
        "MUSTER_TOKEN",
        "MUSTER_CA",
        "MUSTER_ENROLLMENT_TOKEN",
        "MUSTER_KILL_ROUNDS",
        "MUSTER_SERVICE_HOST",
        "MUSTER_SERVICE_PORT",
        "MUSTER_SERVICE_PORT_AGENTS",
        "MUSTER_SERVER_SERVICE_HOST",
        "MUSTER_PORT_8220_TCP",
        "MUSTER_PORT_8220_TCP_PORT",
        "MUSTER_SERVER_PORT_8220_TCP_ADDR",
        "HOME",
    ];
    let mut all = Layers { root: true, ..Layers::default() };
    all.environment.extend(names.map(|name| (name.to_owned(), "x".to_owned())));
    all.environment.insert("MUSTER_PORT".into(), "tcp://10.0.0.1:8220".into());
    assert_eq!(ignored(&all), [""; 0]);
}

#[test]
fn every_limit_of_every_operation_has_its_key() {
    for operation in Operation::ALL {
        let name = operation.key();
        let assignments =
            ["interval=7ms", "burst=7", "max=7", "max_body=7"].map(|rest| format!("limits.{name}.{rest}"));
        let all = Layers { root: true, assignments: assignments.to_vec(), ..Layers::default() };
        let limit = *load(&all).unwrap().config.limits.of(operation);
        let numbers = (limit.interval.as_millis(), limit.burst, limit.max, limit.max_body);
        assert_eq!(numbers, (7, 7, 7, 7), "{name}");
    }
}

#[test]
fn the_default_file_is_valid_also_with_every_line_uncommented() {
    let file = document::default_file();
    let as_it_is = load(&layers(&file)).unwrap();
    let live: String = file
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let in_force = load(&layers(&live)).unwrap();
    assert_eq!(format!("{:?}", in_force.config), format!("{:?}", as_it_is.config));
    let from_file = KEYS.iter().filter(|key| in_force.values.source(&key.key) != Source::Default).count();
    assert_eq!(from_file, KEYS.len());
}

#[test]
fn docs_configuration_md_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let page = document::page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs_err::write(path, &page).unwrap();
    }
    let stands = fs_err::read_to_string(path).unwrap();
    assert!(stands == page, "docs/configuration.md is stale: run this test with UPDATE_DOCS=1");
}

#[test]
fn keys_variables_and_flags_are_unique() {
    let mut seen = std::collections::BTreeSet::new();
    for key in KEYS.iter() {
        let names = [Some(key.key.clone()), Some(key.variable()), key.flag.map(str::to_owned)];
        for name in names.into_iter().flatten() {
            assert!(seen.insert(name.clone()), "{name} stands twice");
        }
    }
}

proptest! {
    #[test]
    fn no_input_makes_the_file_parser_panic(text in "\\PC{0,200}") {
        let _ = load(&layers(&text));
    }

    #[test]
    fn no_assignment_panics(key in "[a-z_.]{0,30}", value in "\\PC{0,40}") {
        let all = Layers { root: true, assignments: vec![format!("{key}={value}")], ..Layers::default() };
        let _ = load(&all);
    }

    #[test]
    fn no_value_of_any_kind_panics(at in 0..1000usize, value in "\\PC{0,40}", number in any::<i64>()) {
        let kind = KEYS[at % KEYS.len()].kind;
        for raw in [Raw::Text(value.clone()), Raw::Integer(number), Raw::List(vec![value])] {
            let _ = kind.parse(&raw);
        }
    }

    #[test]
    fn durations_survive_a_round_trip(nanos in any::<u64>()) {
        let span = Duration::from_nanos(nanos);
        prop_assert_eq!(parse_span(&write_span(span)), Some(span));
    }

    #[test]
    fn displayed_values_can_be_parsed(count in 0..10_000_000u64, idle in 1..86_400_000u64) {
        let file = format!("limits.max_connections = {count}\ntimeouts.idle = \"{}\"", write_span(Duration::from_millis(idle)));
        let loaded = load(&layers(&file)).unwrap();
        prop_assert_eq!(loaded.config.max_connections, count);
        prop_assert_eq!(loaded.config.timeouts.idle, Duration::from_millis(idle));
        let shown: String = loaded.values.describe().lines().map(|line| format!("{line}\n")).collect();
        let again = load(&layers(&shown)).unwrap();
        prop_assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
    }
}

#[test]
fn the_printed_configuration_does_not_contain_the_database_password() {
    for (given, shown) in [
        ("postgres://u:hunter2@localhost/d", "postgres://u:***@localhost/d"),
        ("postgres://u:hunt@er2@localhost/d", "postgres://u:***@localhost/d"),
        ("postgres://u@localhost/d?password=hunter2", "postgres://u@localhost/d?password=***"),
        ("postgres://u@localhost/d?pass%77ord=hunter2", "postgres://u@localhost/d?pass%77ord=***"),
        (
            "postgres://u@localhost/d?sslmode=disable&password=hunter2&application_name=a",
            "postgres://u@localhost/d?sslmode=disable&password=***&application_name=a",
        ),
    ] {
        let file = Some(("muster.toml".into(), format!("data_dir = \"/d\"\ndatabase = \"{given}\"")));
        let loaded = load(&Layers { file, ..Layers::default() }).unwrap();
        let told = loaded.values.describe();
        assert!(told.contains(&format!("database = \"{shown}\"")), "{told}");
        assert!(!format!("{:?}", loaded.config).contains("hunter2"));
    }
}
