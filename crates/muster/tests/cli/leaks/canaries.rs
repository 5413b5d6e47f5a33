//! The secrets that are searched for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::server::Server;

/// A secret in every place of a policy that takes one.
pub const POLICY: &str = r#"
name: leaks
config:
  outputs:
    default:
      type: elasticsearch
      hosts: ["CLUSTER"]
      service_token: canary-service-token
      ssl.key_passphrase: canary-ssl-passphrase
      proxy_headers: {authorization: canary-proxy-header, cookie: canary-policy-cookie}
    shipping:
      type: logstash
      hosts: ["127.0.0.1:5044"]
      ssl.key: canary-ssl-key
      proxy_url: socks5://u:canary-policy-proxy-password@127.0.0.1:1
  inputs:
    - type: httpjson
      id: http
      use_output: shared
      streams:
        - data_stream.dataset: a
          auth.basic.password: canary-input-password
          request.url: https://u:canary-input-url-password@api.example/
          auth.oauth2: {client.secret: canary-client-secret}
          request.transforms: [{set: {target: header.Authorization, token: canary-nested-token}}]
    - type: filestream
      id: through-the-proxy
      use_output: token
  agent.download.auth.api_key: canary-download-key
  receivers:
    httpcheck: {token: canary-receiver-token}
  exporters:
    otlp:
      headers: {authorization: canary-exporter-header}
"#;

/// Words of the policy, the rejected policy, the outputs and the action.
const WRITTEN: [&str; 34] = [
    "canary-service-token",
    "canary-ssl-passphrase",
    "canary-proxy-header",
    "canary-ssl-key",
    "canary-input-password",
    "canary-client-secret",
    "canary-nested-token",
    "canary-download-key",
    "canary-receiver-token",
    "canary-exporter-header",
    "canary-named-secret",
    "canary-rejected-token",
    "canary-rejected-password",
    "canary-rejected-passphrase",
    "canary-rejected-unknown",
    "canary-rejected-input",
    "canary-output-password",
    "canary-output-kibana-key",
    "canary-output-ssl-key",
    "canary-output-token",
    "canary-yaml-password",
    "canary-migrate-token",
    "canary-policy-cookie",
    "canary-policy-host-password",
    "canary-policy-proxy-password",
    "canary-input-url-password",
    "canary-output-host-password",
    "canary-output-proxy-password",
    "canary-output-proxy-header",
    "canary-yaml-url-password",
    "canary-proxy-password",
    "canary-proxy-authorization",
    "canary-source-password",
    "canary-source-header",
];
/// Those of network objects and of URLs, which agents get.
pub const DELIVERED: [&str; 12] = [
    "canary-input-password",
    "canary-policy-cookie",
    "canary-policy-host-password",
    "canary-policy-proxy-password",
    "canary-input-url-password",
    "canary-output-host-password",
    "canary-output-proxy-password",
    "canary-output-proxy-header",
    "canary-proxy-password",
    "canary-proxy-authorization",
    "canary-source-password",
    "canary-source-header",
];

/// The forms in which the secrets would be noticed.
pub struct Canaries(Vec<(String, String)>);

impl Canaries {
    /// None yet.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Those that administrators write.
    pub fn written() -> Self {
        let mut canaries = Self::none();
        WRITTEN.iter().for_each(|secret| canaries.add(secret));
        canaries
    }

    /// Adds one that a program made: as it is, in Base64 whatever is before it, and in hexadecimal.
    pub fn add(&mut self, secret: &str) {
        let name = |form: &str| format!("{secret} ({form})");
        self.0.push((name("plain"), secret.into()));
        for before in 0..3 {
            let text = STANDARD_NO_PAD.encode([&vec![b'x'; before][..], secret.as_bytes()].concat());
            // Without the characters that depend on what is before and after it.
            let inner = &text[[0, 2, 3][before]..text.len() - 2];
            self.0.push((name("Base64"), inner.to_owned()));
        }
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.0.push((name("hexadecimal"), hex));
    }

    /// Fails if one of them is there.
    pub fn check(&self, place: &str, bytes: &[u8]) {
        // The search in strings is the standard library's, which is optimized in debug builds too.
        let text = String::from_utf8_lossy(bytes);
        for (name, form) in &self.0 {
            let around = text.find(form.as_str()).map(|at| text[at..].chars().take(300).collect::<String>());
            assert!(around.is_none(), "{name} in {place}: {}", around.unwrap_or_default());
        }
    }

    /// Runs a command of `muster`, and checks what it prints. Returns its output.
    pub fn check_run(&self, server: &Server, words: &[&str], succeeds: bool) -> String {
        let ran = server.run(words);
        assert_eq!(ran.code == 0, succeeds, "{words:?}: {}{}", ran.out, ran.err);
        self.check(&words.join(" "), ran.out.as_bytes());
        self.check(&words.join(" "), ran.err.as_bytes());
        ran.out
    }
}
