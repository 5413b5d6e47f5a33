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
async fn m32_fl148_agents_need_a_required_certificate_but_browsers_do_not() {
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

#[tokio::test]
async fn a_revoked_certificate_ends_connections_that_are_open() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), Ca::new());
    let cas = file(&directory, "clients.crt", &ca.pem);
    let crl = file(&directory, "clients.crl", &ca.revoke(&[]));
    let (cas, crl) = (format!("tls.client_ca={cas}"), format!("tls.client_crl={crl}"));
    let config = config(&directory, &[&cas, &crl, "tls.client_auth=required"]);
    let server = Server::start(&config).await.unwrap();
    let own = fs_err::read_to_string(server.data.join("ca.crt")).unwrap();
    let mut open = Vec::new();
    for serial in [1, 2] {
        let client = connector(&own, Some(ca.issue(serial)));
        let stream = TcpStream::connect(server.addresses.agent.unwrap()).await.unwrap();
        open.push(client.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap());
    }
    // A request on an open connection; returns the response, which has no body.
    let ask = async |stream: &mut tokio_rustls::client::TlsStream<TcpStream>| {
        stream.write_all(b"HEAD /api/fleet/orbit/ping HTTP/1.1\r\nhost: h\r\n\r\n").await?;
        let (mut bytes, mut text) = ([0; 4_096], String::new());
        while !text.contains("\r\n\r\n") {
            match stream.read(&mut bytes).await? {
                0 => break,
                count => text.push_str(&String::from_utf8_lossy(&bytes[..count])),
            }
        }
        io::Result::Ok(text)
    };
    for stream in &mut open {
        assert!(ask(stream).await.unwrap().starts_with("HTTP/1.1 200"));
    }
    file(&directory, "clients.crl", &ca.revoke(&[1]));
    let mut refused = String::new();
    for _ in 0..100 {
        // Changed files are noticed within five seconds.
        tokio::time::sleep(Duration::from_millis(200)).await;
        refused = ask(&mut open[0]).await.unwrap();
        if !refused.starts_with("HTTP/1.1 200") {
            break;
        }
    }
    assert!(refused.starts_with("HTTP/1.1 400") && refused.to_lowercase().contains("connection: close"), "{refused}");
    assert!(ask(&mut open[1]).await.unwrap().starts_with("HTTP/1.1 200"), "the other one stays");
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
