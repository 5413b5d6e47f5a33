//! Tests of the whole server in the process, on free ports and in a directory of its own.

mod base_path;
mod client_certificates;
mod fleet_keys;
mod lost_database;
mod several_servers;

use std::time::Duration;

use camino::Utf8PathBuf;
use muster_core::authorization::{Actor, OpContext, PoliciesRead};
use muster_core::error_chain::chain;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::{Layers, load};
use muster_fleet::disk::Disk as _;
use muster_fleet::force::Force;
use muster_fleet::policies::PolicyDraft;

fn config(directory: &tempfile::TempDir, more: &[&str]) -> Config {
    let directory = Utf8PathBuf::from_path_buf(directory.path().join("data")).unwrap();
    let mut assignments = vec![
        format!("data_dir={directory}"),
        "agent.listen=127.0.0.1:0".into(),
        "local.listen=none".into(),
        "admin.listen=127.0.0.1:0".into(),
    ];
    assignments.extend(more.iter().map(|text| (*text).to_owned()));
    load(&Layers { assignments, root: true, ..Layers::default() }).unwrap().config
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: S, path: &str) -> String {
    ask_as(stream, "localhost:8230", path).await
}

async fn ask_as<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, host: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn admin(server: &Server, path: &str) -> String {
    ask(TcpStream::connect(server.addresses.admin.unwrap()).await.unwrap(), path).await
}

async fn agent(server: &Server, path: &str) -> String {
    ask(agent_stream(server).await, path).await
}

async fn agent_stream(server: &Server) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(server.data.join("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = builder.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(server.addresses.agent.unwrap()).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn a_server_writes_logs_of_hosts_to_a_directory_that_exists() {
    let directory = tempfile::tempdir().unwrap();
    let logs = Utf8PathBuf::from_path_buf(directory.path().join("logs")).unwrap();
    let config = config(&directory, &[&format!("osquery.log_directory={logs}")]);
    let error = Server::start(&config).await.map(|_| ()).unwrap_err();
    assert!(chain(&error).to_string().contains("(osquery.log_directory)"), "{error}");
    fs_err::create_dir(&logs).unwrap();
    let server = Server::start(&config).await.unwrap();
    assert!(logs.join("osquery_result.log").try_exists().unwrap());
    server.stop().await;
}

#[tokio::test]
async fn a_server_responds_on_every_listener_and_shuts_down_cleanly() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&config(&directory, &[])).await.unwrap();
    let status = agent(&server, "/api/status").await;
    assert!(status.starts_with("HTTP/1.1 200") && status.contains("HEALTHY"), "{status}");
    for path in ["/healthz", "/readyz"] {
        assert!(admin(&server, path).await.ends_with("ok\n"), "{path}");
    }
    let metrics = admin(&server, "/metrics").await;
    assert!(metrics.contains("muster_requests_total{operation=\"status\",status=\"2xx\"} 1"), "{metrics}");
    let socket = UnixStream::connect(server.data.join("admin.sock")).await.unwrap();
    assert!(ask(socket, "/healthz").await.starts_with("HTTP/1.1 200"));

    let told: serde_json::Value =
        serde_json::from_slice(&fs_err::read(server.data.join("listen.json")).unwrap()).unwrap();
    assert_eq!(told["agent"], server.addresses.agent.unwrap().to_string());
    assert_eq!(told["local"], serde_json::Value::Null);
    let data = Arc::clone(&server.data);
    let stopped = server.stop().await;
    assert_eq!(stopped.drained.cut, 0);
    for name in ["listen.json", "admin.sock"] {
        assert!(!data.join(name).try_exists().unwrap(), "{name} was left behind");
    }
}

#[tokio::test]
async fn a_changed_external_url_creates_one_policy_revision_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let revision = async |url: &str| {
        let server = Server::start(&config(&directory, &[&format!("external_url={url}")])).await.unwrap();
        let context = OpContext::administrator(Actor::System);
        let policy = server.fleet.policies().find_by_name(&context, "Default policy").await.unwrap();
        let newest = server.fleet.policies().revision(&policy, policy.revision).await.unwrap();
        server.stop().await;
        (newest.revision, newest.compiled["fleet"]["hosts"][0].as_str().unwrap().to_owned())
    };
    let (old, new) = ("https://old.example:8220", "https://new.example:8220");
    assert_eq!(revision(old).await, (1, old.to_owned()));
    assert_eq!(revision(old).await, (1, old.to_owned()), "nothing changed");
    assert_eq!(revision(new).await, (2, new.to_owned()));
    assert_eq!(revision(new).await, (2, new.to_owned()), "once, and not at every start");
}

#[tokio::test]
async fn a_start_that_fails_because_of_its_certificate_does_not_change_the_urls() {
    let directory = tempfile::tempdir().unwrap();
    let old = "external_url=https://old.example:8220";
    Server::start(&config(&directory, &[old])).await.unwrap().stop().await;
    let broken = directory.path().join("broken.pem");
    std::fs::write(&broken, "\u{feff}no certificate").unwrap();
    let (cert, key) = (format!("tls.cert={}", broken.display()), format!("tls.key={}", broken.display()));
    let wrong = ["external_url=https://typo.example:8220", &cert, &key];
    assert!(Server::start(&config(&directory, &wrong)).await.is_err());
    let server = Server::start(&config(&directory, &[])).await.unwrap();
    let context = OpContext::administrator(Actor::System);
    let policy = server.fleet.policies().find_by_name::<PoliciesRead>(&context, "Default policy").await.unwrap();
    assert_eq!(policy.revision, 1, "the URLs are as before");
    server.stop().await;
}

#[tokio::test]
async fn a_server_with_a_read_only_store_is_not_ready_and_recovers_automatically() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&config(&directory, &[])).await.unwrap();
    let full = muster_store::StoreError::no_room("database or disk is full");
    let overall = async || ask(UnixStream::connect(server.data.join("admin.sock")).await.unwrap(), "/api/status").await;
    assert!(overall().await.contains("available"));
    server.fleet.note(Some(&full));
    let told = admin(&server, "/readyz").await;
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("is read-only: not applied: database or disk"), "{told}");
    assert!(admin(&server, "/healthz").await.ends_with("ok\n"));
    let status = agent(&server, "/api/status").await;
    assert!(status.starts_with("HTTP/1.1 503") && status.contains("DEGRADED"), "{status}");
    let overall = overall().await;
    assert!(overall.contains("degraded"), "{overall}");
    let well = async || {
        while !admin(&server, "/readyz").await.ends_with("ok\n") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), well()).await.expect("the server tries the store by itself");
    server.stop().await;
}

/// Writes a certificate and key that are valid until `until`, counted in days from now.
fn custom_certificate(directory: &tempfile::TempDir, until: i64) -> [String; 2] {
    let mut params = rcgen::CertificateParams::new(vec!["fleet.example".to_owned()]).unwrap();
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let date = |days: i64| {
        let date = now.checked_add(jiff::Span::new().days(days)).unwrap();
        rcgen::date_time_ymd(date.year().into(), date.month() as u8, date.day() as u8)
    };
    (params.not_before, params.not_after) = (date(-30), date(until));
    let key = rcgen::KeyPair::generate().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs_err::write(path("c.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs_err::write(path("k.pem"), key.serialize_pem()).unwrap();
    [format!("tls.cert={}", path("c.pem")), format!("tls.key={}", path("k.pem"))]
}

#[tokio::test]
async fn a_used_reserve_is_restored_when_the_server_stops() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&config(&directory, &[])).await.unwrap();
    let data = Arc::clone(&server.data);
    assert!(data.disk().release_reserve());
    server.stop().await;
    assert!(data.join("reserve").try_exists().unwrap(), "the next start may need it");
}

#[tokio::test]
async fn expiring_certificates_are_reported_by_readyz_and_metrics() {
    for (until, status, word) in [(200, "200", "ok\n"), (5, "200", "ok\nwarning: "), (-2, "503", "expired at ")] {
        let directory = tempfile::tempdir().unwrap();
        let [cert, key] = custom_certificate(&directory, until);
        let url = "external_url=https://fleet.example:8220";
        let server = Server::start(&config(&directory, &[&cert, &key, url])).await.unwrap();
        let told = admin(&server, "/readyz").await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status}")) && told.contains(word), "{until}: {told}");
        assert_eq!(told.contains("warning: "), until != 200, "{told}");
        let metrics = admin(&server, "/metrics").await;
        let line = metrics.lines().find(|line| line.starts_with("muster_certificate_expires_seconds{")).unwrap();
        let (label, seconds) = line.rsplit_once(' ').unwrap();
        assert!(label.ends_with("{certificate=\"server\"}"), "{line}");
        let days = seconds.parse::<i64>().unwrap().div_euclid(86_400);
        assert!((until - 1..=until).contains(&days), "{line}");
        server.stop().await;
    }
}

#[tokio::test]
async fn management_listener_accepts_only_its_own_names() {
    let directory = tempfile::tempdir().unwrap();
    let more = ["admin.hosts=proxy.example", "external_url=https://fleet.example:8220"];
    let server = Server::start(&config(&directory, &more)).await.unwrap();
    let connect = async || TcpStream::connect(server.addresses.admin.unwrap()).await.unwrap();
    for path in ["/metrics", "/healthz", "/readyz", "/api/status", "/api/fleet/agents"] {
        for own in ["proxy.example", "fleet.example:8230", "127.0.0.1"] {
            let told = ask_as(connect().await, own, path).await;
            assert!(!told.starts_with("HTTP/1.1 421"), "{own} {path}: {told}");
        }
        let told = ask_as(connect().await, "rebound.example:8230", path).await;
        assert!(
            told.starts_with("HTTP/1.1 421") && told.contains("unknown_host") && !told.contains("muster_"),
            "{told}"
        );
    }
    let socket = UnixStream::connect(server.data.join("admin.sock")).await.unwrap();
    assert!(ask_as(socket, "anything", "/healthz").await.starts_with("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn metrics_can_be_hidden_from_other_users_of_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&config(&directory, &["admin.metrics=socket"])).await.unwrap();
    let told = admin(&server, "/metrics").await;
    assert!(told.starts_with("HTTP/1.1 403") && told.contains("admin.sock") && !told.contains("muster_"), "{told}");
    assert!(admin(&server, "/healthz").await.starts_with("HTTP/1.1 200"));
    let socket = UnixStream::connect(server.data.join("admin.sock")).await.unwrap();
    assert!(ask(socket, "/metrics").await.contains("muster_connections"));
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn startup_ends_on_a_stop_request() {
    struct Ended(Arc<std::sync::atomic::AtomicBool>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let ended = Ended(Arc::default());
    let has_ended = Arc::clone(&ended.0);
    let starting = tokio::spawn(async move {
        let _ended = ended;
        std::future::pending::<Result<(), ServeError>>().await
    });
    let stopped = started_unless(starting, std::future::ready("SIGTERM")).await.unwrap();
    assert!(stopped.is_none() && has_ended.load(std::sync::atomic::Ordering::SeqCst));
    // One that is nearly done is stopped in order, by whoever gets it.
    let nearly = tokio::spawn(async {
        tokio::time::sleep(START_ENDS / 2).await;
        Ok(7)
    });
    let started = started_unless(nearly, std::future::ready("SIGTERM")).await.unwrap().unwrap();
    assert_eq!((started.server, started.signal), (7, Some("SIGTERM")));
    let started = started_unless(tokio::spawn(async { Ok(7) }), std::future::pending()).await.unwrap().unwrap();
    assert_eq!((started.server, started.signal), (7, None));
}

#[tokio::test]
async fn corrupt_store_is_not_ready_once_corruption_was_read() {
    const PAGE: usize = 4096;
    let directory = tempfile::tempdir().unwrap();
    let settings = config(&directory, &[]);
    let server = Server::start(&settings).await.unwrap();
    let page = muster_store::query::Page { offset: 0, limit: 1 };
    let key = server
        .fleet
        .store()
        .enrollment_keys(&muster_core::id::SpaceId::default(), None, page)
        .await
        .unwrap()
        .items
        .remove(0);
    server.stop().await;
    // The page that holds the key's token, which no start reads.
    let path = settings.data_dir.join("muster.db");
    let mut bytes = fs_err::read(&path).unwrap();
    let token = key.sealed_token.unwrap();
    let part = &token[..32];
    let pages = bytes.chunks_mut(PAGE).skip(1).filter(|page| page.windows(part.len()).any(|there| there == part));
    assert!(pages.map(|page| page.fill(0xa5)).count() > 0);
    fs_err::write(&path, bytes).unwrap();

    let server = Server::start(&settings).await.unwrap();
    assert!(admin(&server, "/readyz").await.starts_with("HTTP/1.1 200"), "nobody came upon it yet");
    let socket = UnixStream::connect(server.data.join("admin.sock")).await.unwrap();
    let told = ask(socket, "/api/fleet/enrollment_api_keys").await;
    assert!(told.starts_with("HTTP/1.1 500"), "{told}");
    let told = admin(&server, "/readyz").await;
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("the store is corrupt: "), "{told}");
    let told = agent(&server, "/api/status").await;
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("DEGRADED"), "{told}");
    server.stop().await;
}

#[tokio::test]
async fn the_first_start_creates_policy_and_key_once() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory, &["external_url=https://fleet.example:8220"]);
    let server = Server::start(&config).await.unwrap();
    let policy = server
        .fleet
        .store()
        .policy_by_name(&muster_core::id::SpaceId::default(), "Default policy")
        .await
        .unwrap()
        .unwrap();
    assert!(policy.is_default);
    let first = server.first_start.clone();
    let token = first.enrollment_token.clone().unwrap();
    let greeting = first.greeting(&config, &server.addresses);
    let flags = format!(
        "enroll --url=https://fleet.example:8220 --enrollment-token={token} --certificate-authorities={}",
        first.ca_path.clone().unwrap()
    );
    for line in [format!("  muster-agent {flags}\n"), format!("  elastic-agent {flags}\n")] {
        assert!(greeting.contains(&line), "{line} is missing in\n{greeting}");
    }
    assert!(greeting.contains(&first.ca_fingerprint.clone().unwrap()));
    let setup = format!("  muster user setup {}", muster_core::shell::argument(first.setup_token.as_deref().unwrap()));
    assert!(greeting.contains(&setup) && greeting.contains("/setup?token="), "{greeting}");
    let user =
        server.fleet.store().user_principal("admin", &muster_core::id::SpaceId::default()).await.unwrap().unwrap();
    assert_eq!((user.user.password, user.entitlements.len()), (None, 1));
    let signing_key = server.fleet.inner().signer.public_key().to_owned();
    server.stop().await;

    let server = Server::start(&config).await.unwrap();
    assert_eq!((&server.first_start.enrollment_token, &server.first_start.setup_token), (&None, &None));
    let greeting = server.first_start.greeting(&config, &server.addresses);
    let key = format!("To create an enrollment key: muster enrollment-key create --data-dir={}", config.data_dir);
    assert!(greeting.contains(&format!("{key} --policy='Default policy'\n")), "{greeting}");
    assert_eq!(server.first_start.ca_fingerprint, first.ca_fingerprint);
    assert_eq!(server.fleet.inner().signer.public_key(), signing_key, "the signing key is kept");
    let page = muster_store::query::Page { offset: 0, limit: 10 };
    assert_eq!(
        server
            .fleet
            .store()
            .enrollment_keys(&muster_core::id::SpaceId::default(), None, page)
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    server.stop().await;
}

async fn delete_policy(server: &Server, context: &OpContext, id: &str) {
    let policies = server.fleet.policies();
    policies.delete(&policies.find(context, id).await.unwrap(), Force::No).await.unwrap();
}

#[tokio::test]
async fn the_startup_message_names_an_existing_policy() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory, &[]);
    let server = Server::start(&config).await.unwrap();
    let root = OpContext::administrator(Actor::System);
    let default = server
        .fleet
        .store()
        .policy_by_name(&muster_core::id::SpaceId::default(), "Default policy")
        .await
        .unwrap()
        .unwrap();
    let web = PolicyDraft { name: Some("--it's web".into()), ..PolicyDraft::default() };
    server.fleet.policies().create(&root.grant().unwrap(), web).await.unwrap();
    delete_policy(&server, &root, default.id.as_str()).await;
    server.stop().await;

    let server = Server::start(&config).await.unwrap();
    let greeting = server.first_start.greeting(&config, &server.addresses);
    assert!(greeting.contains(r"--policy='--it'\''s web'"), "{greeting}");
    assert!(!greeting.contains("Default policy"), "{greeting}");
    let web =
        server.fleet.store().policy_by_name(&muster_core::id::SpaceId::default(), "--it's web").await.unwrap().unwrap();
    delete_policy(&server, &root, web.id.as_str()).await;
    server.stop().await;

    let server = Server::start(&config).await.unwrap();
    let greeting = server.first_start.greeting(&config, &server.addresses);
    let make = format!("To create one: muster policy create --data-dir={} NAME\n", config.data_dir);
    assert!(greeting.contains(&make), "{greeting}");
    server.stop().await;
}

#[tokio::test]
async fn a_directory_in_use_and_an_address_in_use_are_named_in_errors() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&config(&directory, &[])).await.unwrap();
    let error = Server::start(&config(&directory, &[])).await.err().unwrap().to_string();
    assert!(error.contains("is in use by another server"), "{error}");
    let other = tempfile::tempdir().unwrap();
    let taken = server.addresses.agent.unwrap();
    let error = Server::start(&config(&other, &[&format!("agent.listen={taken}")])).await.err().unwrap().to_string();
    assert!(error.starts_with(&format!("listening on {taken}: ")), "{error}");
    server.stop().await;
}

fn has_no_traces(settings: &Config) {
    for name in ["listen.json", "admin.sock"] {
        assert!(!settings.data_dir.join(name).try_exists().unwrap(), "{name} was left behind");
    }
}

#[tokio::test]
async fn a_failed_start_removes_its_own_files_only() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&config(&directory, &[])).await.unwrap();
    Server::start(&config(&directory, &[])).await.err().unwrap();
    let socket = UnixStream::connect(server.data.join("admin.sock")).await.unwrap();
    assert!(ask(socket, "/healthz").await.starts_with("HTTP/1.1 200"));

    // An address that is taken; a socket that a killed server left goes too.
    let other = tempfile::tempdir().unwrap();
    let taken = server.addresses.agent.unwrap();
    let settings = config(&other, &[&format!("agent.listen={taken}")]);
    fs_err::create_dir(&settings.data_dir).unwrap();
    drop(std::os::unix::net::UnixListener::bind(settings.data_dir.join("admin.sock")).unwrap());
    Server::start(&settings).await.err().unwrap();
    has_no_traces(&settings);
    server.stop().await;

    // A database of another program's, which needs no master key of ours.
    let settings = config(&other, &[]);
    fs_err::write(settings.data_dir.join("muster.db"), "hello").unwrap();
    let error = chain(&Server::start(&settings).await.err().unwrap()).to_string();
    assert!(error.contains("muster.db is not a SQLite database, not a store of this program"), "{error}");
    has_no_traces(&settings);
    assert_eq!(fs_err::read(settings.data_dir.join("muster.db")).unwrap(), b"hello");
    assert!(!settings.data_dir.join("master.key").try_exists().unwrap());

    // The last thing that can fail.
    fs_err::remove_file(settings.data_dir.join("muster.db")).unwrap();
    fs_err::create_dir_all(settings.data_dir.join("listen.json.new/x")).unwrap();
    Server::start(&settings).await.err().unwrap();
    has_no_traces(&settings);
}

#[tokio::test]
async fn plain_http_on_loopback_needs_no_ca() {
    let directory = tempfile::tempdir().unwrap();
    let settings = config(&directory, &["insecure_http=true"]);
    let server = Server::start(&settings).await.unwrap();
    let status = ask(TcpStream::connect(server.addresses.agent.unwrap()).await.unwrap(), "/api/status").await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    let greeting = server.first_start.greeting(&settings, &server.addresses);
    assert!(greeting.contains("--url=http://127.0.0.1:") && greeting.contains(" --insecure\n"), "{greeting}");
    assert!(!greeting.contains("certificate-authorities"), "{greeting}");
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_drains_within_its_grace_period() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&config(&directory, &["timeouts.drain=200ms"])).await.unwrap();
    let mut stream = TcpStream::connect(server.addresses.agent.unwrap()).await.unwrap();
    // A TLS hello that is never finished: the drain must not wait for it.
    stream.write_all(&[22, 3, 1]).await.unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while !server.metrics.render().contains("muster_connections{listener=\"agent\"} 1\n") {
        assert!(Instant::now() < end, "the connection is not accepted");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let stopped = server.stop().await;
    assert!(stopped.took < Duration::from_secs(5), "{stopped:?}");
    assert_eq!(stopped.drained.cut, 1);
}
