//! The fields of objects: those with an input on the form, and what the form says about all others.

use super::inputs::{Input, Shape};

/// Other fields of an object, and what they are.
pub type Hints = &'static [(&'static str, &'static str)];

const ELASTIC: &[&str] = &["elasticsearch", "remote_elasticsearch"];
const KAFKA: &[&str] = &["kafka"];
const WITH_HOSTS: &[&str] = &["elasticsearch", "remote_elasticsearch", "logstash", "kafka", "otlp"];
const WITH_PASSWORD: &[&str] = &["elasticsearch", "remote_elasticsearch", "kafka"];

const fn input(name: &'static str, label: &'static str, shape: Shape, hint: &'static str) -> Input {
    Input { name, label, hint, shape, types: &[] }
}

const fn of(types: &'static [&'static str], input: Input) -> Input {
    Input { types, ..input }
}

const CA: &str = "Only if they are not in the trust store of the hosts: certificates in PEM format, or paths of files on the hosts, one a line.";
const PROXY: Input = input("proxy_id", "Proxy", Shape::Proxy, "");

/// Inputs of outputs.
pub const OUTPUT: &[Input] = &[
    of(
        WITH_HOSTS,
        input(
            "hosts",
            "Hosts",
            Shape::Lines,
            "One a line. Elasticsearch and OTLP: URLs, such as https://elasticsearch.example:9200. Logstash and Kafka: HOST:PORT.",
        ),
    ),
    of(WITH_HOSTS, input("ssl.certificate_authorities", "Certificate authorities", Shape::Certificates, CA)),
    of(
        ELASTIC,
        input(
            "ca_trusted_fingerprint",
            "Fingerprint of the certificate authority",
            Shape::Line,
            "In place of its certificate: SHA-256 in hexadecimal digits.",
        ),
    ),
    of(
        ELASTIC,
        input(
            "service_token",
            "Service token",
            Shape::Secret,
            "With it, the server creates an API key for each agent, and agents never get the token.",
        ),
    ),
    of(
        WITH_PASSWORD,
        input("username", "User name", Shape::Line, "Agents get it with the password, unless agent_keys is true."),
    ),
    of(WITH_PASSWORD, input("password", "Password", Shape::Secret, "")),
    of(KAFKA, input("topic", "Topic", Shape::Line, "A name, or a format such as logs-%{[data_stream.dataset]}.")),
    of(WITH_HOSTS, PROXY),
];

/// Inputs of Fleet Server hosts.
pub const HOST: &[Input] = &[
    input(
        "host_urls",
        "URLs",
        Shape::Lines,
        "One a line, such as https://fleet.example:8220. Agents try them in order.",
    ),
    input("ssl.agent_certificate_authorities", "Certificate authorities", Shape::Certificates, CA),
    PROXY,
];

/// Inputs of proxies.
pub const PROXY_OBJECT: &[Input] = &[
    input("url", "URL", Shape::Line, "Such as http://proxy.example:3128."),
    input(
        "certificate_authorities",
        "Certificate authorities",
        Shape::Text,
        "Of a proxy with TLS: one certificate in PEM format, or the path of a file on the hosts.",
    ),
];

/// Inputs of download sources.
pub const DOWNLOAD: &[Input] = &[
    input(
        "host",
        "Host",
        Shape::Line,
        "URL of the directory that contains beats/elastic-agent, such as https://artifacts.example/downloads/.",
    ),
    input("ssl.certificate_authorities", "Certificate authorities", Shape::Certificates, CA),
    input("auth.username", "User name", Shape::Line, ""),
    input("auth.password", "Password", Shape::Secret, ""),
    input("auth.api_key", "API key", Shape::Secret, "In place of a user name and a password."),
    PROXY,
];

/// Other fields of outputs.
pub const OUTPUT_HINTS: Hints = &[
    ("description", "text"),
    ("config_yaml", "text: YAML with settings that only agents know"),
    ("preset", "Elasticsearch: balanced, throughput, scale, latency or custom"),
    ("agent_keys", "true: each agent gets its own API key, also with a user name and a password; false: none does"),
    ("bootstrap", "object: settings that the server uses while those above fail"),
    ("ssl", "object: certificate, verification_mode, supported_protocols, cipher_suites …"),
    ("secrets", "object: values that are stored encrypted, such as ssl.key and kibana_api_key"),
    ("ca_sha256", "hash of a certificate authority, in Base64"),
    ("api_key", "Elasticsearch: a key that all agents share"),
    ("headers", "Kafka: list of {key, value}; OTLP: object"),
    ("proxy_url", "URL of a proxy that is no object of its own"),
    ("proxy_headers", "object: headers for that proxy"),
    ("proxy_disable", "true: without the proxy of the host's environment"),
    ("timeout", "seconds until a request fails; Kafka: until a broker answers"),
    ("compression_level", "0 to 9"),
    ("compression", "Kafka: none, gzip, snappy or lz4"),
    ("version", "Kafka: version of the brokers"),
    ("client_id", "Kafka: name of the client"),
    ("key", "Kafka: key of the messages"),
    ("topics", "Kafka: list of topics with conditions"),
    ("partition", "Kafka: random, round_robin or hash"),
    ("random", "Kafka: object: group_events"),
    ("round_robin", "Kafka: object: group_events"),
    ("hash", "Kafka: object: hash, random"),
    ("required_acks", "Kafka: 1, 0 or -1"),
    ("broker_timeout", "Kafka: seconds a broker waits for acknowledgments"),
    ("auth_type", "Kafka: none, user_pass, ssl or kerberos"),
    ("connection_type", "Kafka: plaintext or encryption"),
    ("sasl", "Kafka: object: mechanism"),
    ("kibana_url", "remote Elasticsearch: URL of its Kibana"),
    ("sync_integrations", "remote Elasticsearch: true: integrations are synchronized"),
    ("sync_uninstalled_integrations", "remote Elasticsearch: true: removed integrations, too"),
    ("write_to_logs_streams", "true: agents may write to wired streams"),
    ("shipper", "object: disk queue"),
    ("allow_edit", "list of fields; kept for Kibana's clients"),
    ("is_internal", "true or false; kept for Kibana's clients"),
    ("is_preconfigured", "true or false; kept for Kibana's clients"),
];

/// Other fields of Fleet Server hosts.
pub const HOST_HINTS: Hints = &[
    (
        "ssl",
        "object: agent_certificate and agent_key (PEM or paths) for agents; the other fields are for Elastic's Fleet Server",
    ),
    ("secrets", "object: ssl.agent_key, ssl.key, ssl.es_key, stored encrypted"),
    ("is_internal", "true or false; kept for Kibana's clients"),
    ("is_preconfigured", "true or false; kept for Kibana's clients"),
];

/// Other fields of proxies.
pub const PROXY_HINTS: Hints = &[
    ("proxy_headers", "object: headers that agents send to the proxy"),
    ("certificate", "PEM or path: certificate of the agents for the proxy"),
    ("certificate_key", "PEM or path: its key, stored encrypted"),
    ("secrets", "object: certificate_key"),
    ("is_preconfigured", "true or false; kept for Kibana's clients"),
];

/// Other fields of download sources.
pub const DOWNLOAD_HINTS: Hints = &[
    ("ssl", "object: certificate and key (PEM or paths) of the agents"),
    ("auth", "object: headers, a list of {key, value}"),
    ("secrets", "object: ssl.key, stored encrypted"),
    ("is_preconfigured", "true or false; kept for Kibana's clients"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use muster_core::network_object::{NetworkObjectKind, field_names};
    use muster_core::policy::check::OUTPUT_FIELDS;

    use super::*;

    #[test]
    fn every_field_of_an_object_has_an_input_or_a_hint() {
        let of_form = ["type", "is_default"];
        for (inputs, hints, fields) in [
            (OUTPUT, OUTPUT_HINTS, OUTPUT_FIELDS.to_vec()),
            (HOST, HOST_HINTS, field_names(NetworkObjectKind::ServerHost)),
            (PROXY_OBJECT, PROXY_HINTS, field_names(NetworkObjectKind::Proxy)),
            (DOWNLOAD, DOWNLOAD_HINTS, field_names(NetworkObjectKind::DownloadSource)),
        ] {
            let named = inputs.iter().map(|input| input.name.split('.').next().unwrap_or_default());
            let named: BTreeSet<&str> = named.chain(hints.iter().map(|hint| hint.0)).collect();
            let fields: BTreeSet<&str> = fields.into_iter().filter(|name| !of_form.contains(name)).collect();
            assert_eq!(named, fields);
        }
    }
}
