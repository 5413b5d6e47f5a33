//! The npm package oidc-provider as a process: see tests/oidc-provider/server.mjs.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A provider. It ends with this value.
pub struct Provider {
    pub issuer: String,
    process: Child,
    /// Its warnings go here, and a write to a closed pipe would end it.
    _output: BufReader<ChildStdout>,
}

impl Provider {
    /// Starts a provider with the client `muster`, which may send browsers to this URL.
    pub fn start(redirect_uri: &str) -> Self {
        let installed = Command::new(format!("{ROOT}/.ci/npm")).arg("oidc-provider").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(installed.status.success(), "cannot install oidc-provider: {}", text(&installed.stderr));
        let mut process = Command::new("node")
            .args([&format!("{ROOT}/crates/muster/tests/oidc-provider/server.mjs"), redirect_uri])
            .env("OIDC_PROVIDER_MODULES", text(&installed.stdout))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut issuer = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut issuer).unwrap();
        assert!(issuer.starts_with("http://127.0.0.1:"), "the provider does not start: {issuer}");
        Self { issuer: issuer.trim().to_owned(), process, _output: output }
    }

    async fn control(&self, method: reqwest::Method, path: &str, body: &Value) {
        let url = format!("{}/control/{path}", self.issuer);
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let response = client.request(method, url).json(body).send().await.unwrap();
        assert!(response.status().is_success());
    }

    /// Sets the claims of an account.
    pub async fn account(&self, name: &str, claims: Value) {
        self.control(reqwest::Method::PUT, &format!("accounts/{name}"), &claims).await;
    }

    /// Replaces the signing key.
    pub async fn rotate_keys(&self) {
        self.control(reqwest::Method::POST, "rotate", &Value::Null).await;
    }

    /// Ends the process.
    pub fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
