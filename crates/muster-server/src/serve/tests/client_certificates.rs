//! Client certificates: where they are required.

use super::*;
use crate::tls::tests::clients::{Ca, connector};

/// Requests a path; an error if the handshake or the connection fails.
async fn get(server: &Server, client: &TlsConnector, path: &str) -> io::Result<String> {
    let stream = TcpStream::connect(server.addresses.agent.unwrap()).await?;
    let mut stream = client.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

fn file(directory: &tempfile::TempDir, name: &str, content: &str) -> Utf8PathBuf {
    let path = Utf8PathBuf::from_path_buf(directory.path().join(name)).unwrap();
    fs_err::write(&path, content).unwrap();
    path
}

#[tokio::test]
async fn fl148_agents_need_a_required_certificate_but_browsers_do_not() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), Ca::new());
    let path = file(&directory, "clients.crt", &ca.pem);
    let config = config(&directory, &[&format!("tls.client_ca={path}"), "tls.client_auth=required"]);
    let server = Server::start(&config).await.unwrap();
    let own = fs_err::read_to_string(server.data.join("ca.crt")).unwrap();
    let (without, with) = (connector(&own, None), connector(&own, Some(ca.issue(1))));
    for path in [
        "/api/fleet/agents/a-1/checkin",
        "/api/v1/osquery/config",
        "/api/fleet/orbit/config",
        "/api/fleet/artifacts/a/b",
    ] {
        let refused = get(&server, &without, path).await.unwrap();
        assert!(refused.starts_with("HTTP/1.1 400"), "{path}: {refused}");
        let body = refused.split("\r\n\r\n").nth(1).unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(body["error"].is_string() && body.get("node_invalid").is_none(), "{path}: {body}");
        let passed = get(&server, &with, path).await.unwrap();
        assert!(!passed.contains("client certificate"), "{path}: {passed}");
    }
    for path in ["/api/status", "/api/fleet/orbit/ping", "/device/some-token"] {
        let passed = get(&server, &without, path).await.unwrap();
        assert!(!passed.contains("client certificate"), "{path}: {passed}");
    }
    let refused = server.fleet.refusals().list(&OpContext::administrator(Actor::System).grant().unwrap());
    assert!(refused.iter().any(|row| row.refused.reason == "NoCertificate"), "an administrator can find it");
    server.stop().await;
}

#[test]
fn settings_of_client_certificates_require_a_ca() {
    for (given, expected) in [
        (vec!["tls.client_auth=required"], "tls.client_auth: `required` requires tls.client_ca"),
        (vec!["tls.client_crl=/crl.pem"], "tls.client_crl: requires tls.client_ca"),
        (vec!["tls.client_auth=always"], "tls.client_auth"),
        (
            vec!["tls.client_auth=required", "tls.client_ca=/ca.pem", "insecure_http=true", "agent.listen=127.0.0.1:0"],
            "tls.client_auth: `required` has no effect with insecure_http",
        ),
    ] {
        let assignments = given.iter().map(|text| (*text).to_owned()).collect();
        let problems = load(&Layers { assignments, root: true, ..Layers::default() }).unwrap_err().to_string();
        assert!(problems.contains(expected), "{problems}");
    }
}
