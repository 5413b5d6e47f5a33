//! `--fleet-server-es…`: the server on this host gets an Elasticsearch output, which is tested before anything is stored.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use muster_elasticsearch::testing::{Stub, TOKEN};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::canary::{contains, files};
use crate::host::{Daemon, Host};

/// Permits the stub, which listens on this host.
const LOCAL: [&str; 2] = ["--fleet-server-set", "outgoing.allow_local_targets=true"];
const OUTPUT: &str = "fleet-server-elasticsearch";

/// A stub that runs until the end of the test's process.
fn stub() -> Stub {
    let (started, stub) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            started.send(Stub::start().await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    stub.recv().unwrap()
}

fn enroll(host: &Host, url: &str, more: &[&str]) -> (i32, String) {
    host.enroll(&[&["--fleet-server-es", url][..], &LOCAL, &["--fleet-server-timeout", "10s"], more].concat())
}

/// The outputs of a server that runs without its agent.
fn outputs(host: &Host) -> Vec<Value> {
    let _server: Daemon = host.serve();
    host.muster_json(&["output", "list"]).as_array().unwrap().clone()
}

#[test]
fn ag103_ag172_one_command_makes_a_fleet_whose_agents_get_keys_at_elasticsearch() {
    let (host, stub) = (Host::new(), stub());
    // Elastic's agent would use whatever listens here.
    let tempting = TcpListener::bind("127.0.0.1:9200").ok();
    let file = host.path("").with_file_name("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let token = ["--fleet-server-service-token-path", file.to_str().unwrap()];
    let (code, text) = enroll(&host, &stub.url(), &token);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Elasticsearch 8.18.8 accepts the server") && !text.contains(TOKEN), "{text}");
    assert_eq!(stub.calls().version, 1, "used from the first attempt");
    std::fs::remove_file(&file).unwrap();
    let daemon = host.run();
    let agent = host.until_healthy()["agent_id"].as_str().unwrap().to_owned();
    let named = format!("{agent}:default");
    let begun = Instant::now();
    while !stub.valid().iter().any(|key| key.name == named) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", stub.keys());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(stub.complaints(), Vec::<String>::new());
    let output = host.muster_json(&["output", "show", OUTPUT])["output"].clone();
    assert_eq!((&output["hosts"], &output["bootstrap"]["hosts"]), (&json!([stub.url()]), &json!([stub.url()])));
    drop(daemon);
    if let Some(tempting) = tempting {
        tempting.set_nonblocking(true).unwrap();
        assert!(tempting.accept().is_err(), "nothing asked for another Elasticsearch");
    }
    let mut left = Vec::new();
    files(&host.path(""), &mut left);
    files(&host.data(), &mut left);
    for path in left {
        assert!(!contains(&std::fs::read(&path).unwrap_or_default(), TOKEN.as_bytes()), "{}", path.display());
    }
}

#[test]
fn ag11_ag10_the_options_of_elasticsearch_are_validated_before_the_server_starts() {
    let host = Host::new();
    let file = host.path("").with_file_name("token");
    std::fs::write(&file, "secret\nsecret\n").unwrap();
    let (url, token) = (["--fleet-server-es", "https://es:9200"], ["--fleet-server-service-token", "secret"]);
    let path = ["--fleet-server-service-token-path", file.to_str().unwrap()];
    for (flags, word) in [
        ([&url[..], &token, &path].concat(), "--fleet-server-service-token"),
        (url.to_vec(), "--fleet-server-service-token"),
        (token.to_vec(), "--fleet-server-es"),
        (vec!["--fleet-server-es-insecure"], "--fleet-server-es"),
        ([&["--fleet-server-es", "es:9200"][..], &token].concat(), "not an http or https URL"),
        ([&["--fleet-server-es", "ftp://es"][..], &token].concat(), "not an http or https URL"),
        ([&["--fleet-server-es", "https://u:secret@es"][..], &token].concat(), "contains a user"),
        ([&url[..], &path].concat(), "spaces or line breaks"),
        ([&url[..], &["--fleet-server-service-token-path", "token"]].concat(), "not absolute"),
        (
            [&url[..], &token, &["--fleet-server-es-ca", "ca.pem"]].concat(),
            "--fleet-server-es-ca: ca.pem is not absolute",
        ),
        ([&url[..], &token, &["--fleet-server-es-ca", "/etc/hostname"]].concat(), "--fleet-server-es-ca"),
        ([&url[..], &token, &["--fleet-server-es-cert", "/c"]].concat(), "--fleet-server-es-cert-key"),
        ([&url[..], &token, &["--fleet-server-es-cert", "/c", "--fleet-server-es-cert-key", "/k"]].concat(), "/c"),
    ] {
        let (code, text) = host.enroll(&flags);
        assert!(code == 2 && text.contains(word) && !text.contains("secret\n"), "{flags:?}: {code} {text}");
    }
    assert!(!host.path("").try_exists().unwrap() && !host.data().try_exists().unwrap(), "nothing was created");
}

#[test]
fn ag100_a_bootstrap_names_why_elasticsearch_cannot_be_used_and_leaves_no_settings() {
    let (host, stub) = (Host::new(), stub());
    let token = format!("--fleet-server-service-token={TOKEN}");
    let made = host.certificate("localhost");
    let other = host.certificate("localhost");
    let secured = tls_server(&made.chain, &made.key);
    let ca = ["--fleet-server-es-ca", other.ca.as_str(), token.as_str()];
    for (url, more, code, word) in [
        (stub.url(), &["--fleet-server-service-token=wrong"][..], 6, "401"),
        ("http://127.0.0.1:1".into(), &[token.as_str()], 8, "Connection refused"),
        (secured, &ca, 8, "invalid peer certificate"),
    ] {
        let begun = Instant::now();
        let (found, text) = enroll(&host, &url, more);
        let last = text.lines().rfind(|line| !line.starts_with("hint")).unwrap_or_default();
        assert!(found == code && last.contains(word), "{url}: {found} {text}");
        assert!(begun.elapsed() < Duration::from_secs(25), "{url}: {:?}", begun.elapsed());
        assert!(!host.path("server.json").try_exists().unwrap() && !host.path("fleet.enc").try_exists().unwrap());
    }
    let refused = ["--fleet-server-es", &stub.url(), &token, "--fleet-server-timeout", "10s"];
    let (code, text) = host.enroll(&refused);
    assert!(code == 6 && text.contains("--fleet-server-set outgoing.allow_local_targets=true"), "{code} {text}");
    assert_eq!(outputs(&host), Vec::<Value>::new());
    let (code, text) = enroll(&host, &stub.url(), &[&token]);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn ag103_another_start_replaces_the_bootstrap_settings_and_keeps_what_an_administrator_set() {
    let (host, first, second) = (Host::new(), stub(), stub());
    let token = format!("--fleet-server-service-token={TOKEN}");
    let hosts = || {
        let output = outputs(&host).remove(0);
        (output["hosts"].clone(), output["bootstrap"]["hosts"].clone())
    };
    let at = |stub: &Stub| json!([stub.url()]);
    assert_eq!(enroll(&host, &first.url(), &[&token]).0, 0);
    let (code, text) = enroll(&host, &second.url(), &[&token, "--force"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(hosts(), (at(&second), at(&second)), "nobody has changed the output");
    // The administrator sends the data elsewhere.
    let server = host.serve();
    let body =
        json!({"hosts": ["https://own.example:9200"], "bootstrap": {"hosts": [second.url()], "service_token": TOKEN}});
    let sent = std::process::Command::new("curl")
        .args(["-sS", "--fail-with-body", "-X", "PUT", "-H", "content-type: application/json", "-d", &body.to_string()])
        .arg("--unix-socket")
        .arg(host.data().join("admin.sock"))
        .arg(format!("http://localhost/api/fleet/outputs/{OUTPUT}"))
        .output()
        .unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stdout));
    drop(server);
    let (code, text) = enroll(&host, &first.url(), &[&token, "--force"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(hosts(), (json!(["https://own.example:9200"]), at(&first)));
}

#[test]
fn ag90_the_proxy_and_the_headers_of_a_bootstrap_are_for_elasticsearch() {
    let host = Host::new();
    let (address, heads) = answering_proxy();
    let token = format!("--fleet-server-service-token={TOKEN}");
    let proxy = format!("http://{address}");
    let more = [token.as_str(), "--proxy-url", &proxy, "--header", "X-Site=north"];
    let (code, text) = enroll(&host, "http://es.invalid:9200", &more);
    assert_eq!(code, 0, "{text}");
    let heads = heads.lock().unwrap();
    assert!(
        !heads.is_empty() && heads.iter().all(|head| head.starts_with("GET http://es.invalid:9200/ ")),
        "{heads:?}"
    );
    assert!(heads[0].to_lowercase().contains("x-site: north"), "{heads:?}");
}

/// A server that completes a TLS handshake at most. Returns its URL.
fn tls_server(chain: &str, key: &str) -> String {
    let chain = CertificateDer::pem_file_iter(Path::new(chain)).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let _ = connection.complete_io(&mut stream);
        }
    });
    format!("https://localhost:{port}")
}

/// A proxy that answers requests itself, as Elasticsearch does. Returns its address, and the heads of the requests.
fn answering_proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|client| answer(client, &seen)));
    (address, heads)
}

fn answer(mut client: TcpStream, seen: &Mutex<Vec<String>>) {
    let (mut reader, mut head) = (BufReader::new(client.try_clone().unwrap()), String::new());
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|length| length > 0) {}
    seen.lock().unwrap().push(head);
    let body = json!({"version": {"number": "9.0.0"}}).to_string();
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length:";
    let _ = write!(client, "{head} {}\r\n\r\n{body}", body.len());
}
