//! Enrollment and check-ins through an HTTP proxy.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::install::until;
use crate::server::TlsServer;
use crate::{Agent, TOKEN, output};

const PASSWORD: &str = "CANARY-proxy-password";

/// A proxy that requires a password, and connects to the server whatever the name is. Returns its address, and the heads of
/// the requests.
fn proxy(server: &TlsServer) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let port: u16 = server.url.rsplit(':').next().unwrap().parse().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let seen = seen.clone();
            std::thread::spawn(move || tunnel(client, port, &seen));
        }
    });
    (address, heads)
}

fn tunnel(client: TcpStream, port: u16, seen: &Mutex<Vec<String>>) {
    let (mut reader, mut head) = (BufReader::new(client.try_clone().unwrap()), String::new());
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|length| length > 0) {}
    let mut client = client;
    let is_allowed = head.contains("Proxy-Authorization: Basic ");
    seen.lock().unwrap().push(head);
    if !is_allowed {
        return drop(client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"));
    }
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut up, mut down) = (server.try_clone().unwrap(), server);
    std::thread::spawn(move || std::io::copy(&mut reader, &mut up));
    let _ = std::io::copy(&mut down, &mut client);
}

#[test]
fn ag90_servers_of_other_hosts_are_reached_through_the_proxy() {
    let server = TlsServer::issued(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("fleet.invalid".try_into().unwrap())];
    });
    let (address, heads) = proxy(&server);
    let agent = Agent::new();
    let url = server.url.replace("127.0.0.1", "fleet.invalid");
    let enroll = |more: &[&str], environment: &str| {
        let mut command = agent.command("enroll");
        command.args(["--url", &url, "--enrollment-token", TOKEN, "--attempts", "1", "-a"]).arg(&server.ca_file);
        output(command.args(more).env("HTTPS_PROXY", environment).env_remove("NO_PROXY").env_remove("no_proxy"))
    };
    let file = agent.directory.path().join("proxy");
    std::fs::write(&file, format!("http://user:{PASSWORD}@{address}\n")).unwrap();
    let with_password = format!("@{}", file.display());

    let (code, text) = enroll(&["--proxy-disabled"], &address);
    assert!(code == 4 && !text.contains("proxy"), "{code} {text}");
    let (code, text) = enroll(&["--proxy-url", &address], "");
    assert!(code == 4 && text.contains("407"), "without a password: {code} {text}");
    let (code, text) = enroll(&[], &address);
    assert!(code == 4 && text.contains("407"), "the proxy of the environment: {code} {text}");
    let (code, text) = enroll(&["--proxy-url", &format!("https://u:{PASSWORD}@{address}")], "");
    assert!(code == 2 && !text.contains(PASSWORD), "{code} {text}");
    assert!(server.lock().enrolled.is_empty());

    let (code, text) = enroll(&["--proxy-url", &with_password, "--proxy-header", "X-Site=a"], "");
    assert_eq!(code, 0, "{text}");
    let head = heads.lock().unwrap().last().unwrap().clone();
    assert!(head.starts_with("CONNECT fleet.invalid:") && head.contains("\r\nX-Site: a\r\n"), "{head}");
    let before = heads.lock().unwrap().len();
    let _daemon = agent.run();
    agent.until_status(|code, status| code == 0 && status["fleet"]["state"] == "HEALTHY");
    assert!(heads.lock().unwrap().len() > before, "the daemon uses the stored proxy");
    let stored = std::fs::read(agent.path("fleet.enc")).unwrap();
    assert!(!stored.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()));
}

#[test]
fn ag110_the_proxy_and_the_authority_of_a_policy_are_used_once_they_work() {
    let server = TlsServer::issued(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("fleet.invalid".try_into().unwrap())];
    });
    let ((first, _), (second, heads)) = (proxy(&server), proxy(&server));
    let agent = Agent::new();
    let url = server.url.replace("127.0.0.1", "fleet.invalid");
    let authority = std::fs::read_to_string(&server.ca_file).unwrap();
    server.lock().fleet = Some(json!({"hosts": [url], "proxy_url": format!("http://user:{PASSWORD}@{second}"),
        "proxy_headers": {"X-Site": "b"}, "ssl": {"certificate_authorities": [authority]}}));
    let mut command = agent.command("enroll");
    command.args(["--url", &url, "--enrollment-token", TOKEN, "--attempts", "1", "--ca-sha256", &server.fingerprint]);
    let (code, text) = output(command.args(["--proxy-url", &format!("http://a:b@{first}")]));
    assert_eq!(code, 0, "{text}");
    let _daemon = agent.run();
    until("the way of the policy is stored", || agent.enrollment().overrides.is_some());
    let head = heads.lock().unwrap().last().unwrap().clone();
    assert!(head.starts_with("CONNECT fleet.invalid:") && head.contains("\r\nX-Site: b\r\n"), "{head}");
    let trust = agent.enrollment().trust_in_effect();
    assert_eq!((trust.ca_sha256.len(), trust.certificate_authorities.len()), (0, 1));
    let (_, text) = output(agent.command("inspect").args(["--output", "json"]));
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["proxy"], format!("{second} (of the policy)"));
    let stored = std::fs::read(agent.path("fleet.enc")).unwrap();
    assert!(!stored.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()));
}

#[test]
fn ag110_an_authority_that_does_not_verify_the_server_is_not_used() {
    let (server, other) = (TlsServer::start(), TlsServer::start());
    let agent = Agent::new();
    let authority = std::fs::read_to_string(&other.ca_file).unwrap();
    server.lock().fleet = Some(json!({"hosts": [server.url], "ssl": {"certificate_authorities": [authority]}}));
    assert_eq!(agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]).0, 0);
    let _daemon = agent.run();
    let kept = |status: &serde_json::Value| {
        status["fleet"]["message"].as_str().is_some_and(|message| message.contains("keeping the current connection"))
    };
    let status = agent.until_status(|_, status| kept(status));
    assert_eq!((&status["policy"]["revision"], agent.enrollment().overrides), (&json!(1), None));
}
