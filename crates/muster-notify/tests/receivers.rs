//! Senders against receivers in this process: what they are sent, and what is refused.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;

use muster_core::alert::{Digest, Filter, MailSecurity, Message, Receiver, Target};
use muster_core::id::{AlertReceiverId, SecretId, SpaceId};
use muster_core::testing::at;
use muster_fleet::alerts::sender::{AlertSender, Outgoing, SendError};
use muster_fleet::outgoing::LocalTargets;
use muster_notify::{Senders, signature};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn message() -> Message {
    let receiver = Receiver {
        id: AlertReceiverId::trusted("r"),
        space: SpaceId::default(),
        name: "größer".into(),
        target: Target::Syslog { host: "log".into(), port: 1, tls: false, ca: None },
        filter: Filter::default(),
        digest: Digest::default(),
        is_enabled: true,
        muted_until: None,
        version: 1,
        created_at: at(0),
        created_by: "local:root".into(),
        updated_at: at(0),
    };
    Message::test(&receiver, at(5))
}

async fn send_by(local: LocalTargets, target: &Target, secret: Option<&str>) -> Result<(), SendError> {
    Senders::new(local).send(Outgoing { target, secret, message: &message(), now: at(60) }).await
}

async fn send(target: &Target, secret: Option<&str>) -> Result<(), SendError> {
    send_by(LocalTargets::Permitted, target, secret).await
}

fn webhook(url: String) -> Target {
    Target::Webhook { url, secret: SecretId::trusted("s"), ca: None }
}

/// Answers one request with this status; returns its head and its body.
async fn http(status: &'static str) -> (u16, JoinHandle<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let mut stream = BufReader::new(listener.accept().await.unwrap().0);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).await.unwrap() > 0);
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n");
        stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    });
    (port, serving)
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap()
}

#[tokio::test]
async fn mg170_a_webhook_is_signed_and_an_altered_body_does_not_verify() {
    let (port, serving) = http("204 No Content").await;
    send(&webhook(format!("http://127.0.0.1:{port}/hook")), Some(SECRET)).await.unwrap();
    let (head, body) = serving.await.unwrap();
    assert!(head.starts_with("POST /hook HTTP/1.1"), "{head}");
    let (id, seconds) = (header(&head, "webhook-id"), header(&head, "webhook-timestamp").parse().unwrap());
    assert_eq!(header(&head, "webhook-signature"), signature(SECRET, id, seconds, &body));
    assert_ne!(header(&head, "webhook-signature"), signature(SECRET, id, seconds, &body.replace("test", "tset")));
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((json["id"].as_str().unwrap(), &json["type"]), (id, &"test".into()));
}

#[tokio::test]
async fn errors_and_redirects_of_a_webhook_are_failures_and_tell_nothing_of_the_response() {
    for status in ["500 Internal Server Error", "302 Found", "410 Gone"] {
        let (port, serving) = http(status).await;
        let error = send(&webhook(format!("http://127.0.0.1:{port}/secret-path")), Some(SECRET)).await.unwrap_err();
        serving.await.unwrap();
        let text = error.to_string();
        assert!(text.contains(&status[..3]) && !text.contains("secret-path"), "{text}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = send(&webhook(format!("http://127.0.0.1:{port}/secret-path")), Some(SECRET)).await.unwrap_err();
    assert!(matches!(&error, SendError::Failed(text) if !text.contains("secret-path")), "{error}");
}

#[tokio::test]
async fn local_addresses_need_a_permission_for_every_type_of_receiver() {
    let email = Target::Email {
        host: "localhost".into(),
        port: 25,
        security: MailSecurity::None,
        username: None,
        password: None,
        from: "a@example.com".into(),
        to: vec!["b@example.com".into()],
        ca: None,
    };
    let syslog = Target::Syslog { host: "127.0.0.1".into(), port: 601, tls: false, ca: None };
    for target in [
        webhook("https://localhost/".into()),
        webhook("https://169.254.169.254/latest/meta-data".into()),
        webhook("https://[::ffff:127.0.0.1]/".into()),
        email,
        syslog,
    ] {
        let error = send_by(LocalTargets::Refused, &target, Some(SECRET)).await.unwrap_err();
        assert!(
            matches!(&error, SendError::NotPermitted(text) if text.contains("outgoing.allow_local_targets")),
            "{error}"
        );
    }
}

/// An authority, and an acceptor whose certificate it signed for `localhost`.
fn tls() -> (String, TlsAcceptor) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".into()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
    (pem, TlsAcceptor::from(Arc::new(config)))
}

async fn read_all(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    text
}

#[tokio::test]
async fn syslog_messages_are_framed_by_their_length_and_end_with_json() {
    let (ca, acceptor) = tls();
    for tls in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = acceptor.clone();
        let serving = tokio::spawn(async move {
            let stream = listener.accept().await.unwrap().0;
            if tls { read_all(acceptor.accept(stream).await.unwrap()).await } else { read_all(stream).await }
        });
        let target = Target::Syslog { host: "localhost".into(), port, tls, ca: tls.then(|| ca.clone()) };
        send(&target, None).await.unwrap();
        let text = serving.await.unwrap();
        let (length, line) = text.split_once(' ').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), line.len(), "{text}");
        let json = line.strip_prefix("<134>1 ").unwrap().split_once(" - muster - test - ").unwrap().1;
        assert_eq!(serde_json::from_str::<serde_json::Value>(json).unwrap()["detail"]["receiver"], "größer");
        assert!(line.is_ascii());
    }
}

#[tokio::test]
async fn a_receiver_whose_certificate_is_not_trusted_gets_nothing() {
    let (_, acceptor) = tls();
    let (other, _) = tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move { acceptor.accept(listener.accept().await.unwrap().0).await.map(drop) });
    let target = Target::Syslog { host: "localhost".into(), port, tls: true, ca: Some(other) };
    let error = send(&target, None).await.unwrap_err();
    assert!(error.to_string().contains("TLS handshake failed"), "{error}");
    serving.await.unwrap().unwrap_err();
}

/// A mail server for one mail; returns the commands and the text.
async fn smtp(stream: impl AsyncRead + AsyncWrite + Unpin, greets: bool) -> (String, bool) {
    let mut stream = BufReader::new(stream);
    let (mut said, mut is_data) = (String::new(), false);
    if greets {
        stream.get_mut().write_all(b"220 stub\r\n").await.unwrap();
    }
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return (said, false);
        }
        said.push_str(&line);
        let answer: &[u8] = match line.split(' ').next().unwrap().trim_end() {
            _ if is_data && line != ".\r\n" => continue,
            "EHLO" => b"250-stub\r\n250-8BITMIME\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n",
            "DATA" => {
                is_data = true;
                b"354 go on\r\n"
            }
            "AUTH" => b"235 welcome\r\n",
            "STARTTLS" => {
                stream.get_mut().write_all(b"220 ready\r\n").await.unwrap();
                return (said, true);
            }
            "QUIT" => {
                stream.get_mut().write_all(b"221 bye\r\n").await.unwrap();
                return (said, false);
            }
            _ => {
                is_data = false;
                b"250 ok\r\n"
            }
        };
        stream.get_mut().write_all(answer).await.unwrap();
    }
}

async fn mail_server(security: MailSecurity, acceptor: TlsAcceptor, stream: TcpStream) -> String {
    match security {
        MailSecurity::None => smtp(stream, true).await.0,
        MailSecurity::Tls => smtp(acceptor.accept(stream).await.unwrap(), true).await.0,
        MailSecurity::Starttls => {
            let mut stream = stream;
            let (before, is_upgraded) = smtp(&mut stream, true).await;
            assert!(is_upgraded && !before.contains("AUTH"), "{before}");
            smtp(acceptor.accept(stream).await.unwrap(), false).await.0
        }
    }
}

#[tokio::test]
async fn a_mail_is_sent_in_each_mode_with_the_password_only_after_encryption() {
    let (ca, acceptor) = tls();
    for security in [MailSecurity::Tls, MailSecurity::Starttls, MailSecurity::None] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = acceptor.clone();
        let serving =
            tokio::spawn(async move { mail_server(security, acceptor, listener.accept().await.unwrap().0).await });
        let target = Target::Email {
            host: "localhost".into(),
            port,
            security,
            username: Some("muster".into()),
            password: Some(SecretId::trusted("s")),
            from: "Muster <muster@example.com>".into(),
            to: vec!["one@example.com".into(), "two@example.com".into()],
            ca: (security != MailSecurity::None).then(|| ca.clone()),
        };
        send(&target, Some("s3cret")).await.unwrap();
        let said = serving.await.unwrap();
        // `\0muster\0s3cret` in base64.
        assert!(said.contains("AUTH PLAIN AG11c3RlcgBzM2NyZXQ="), "{said}");
        assert!(said.contains("RCPT TO:<one@example.com>") && said.contains("RCPT TO:<two@example.com>"), "{said}");
        assert!(said.contains("Subject: [Muster] test: test message of Muster"), "{said}");
    }
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_rejected_before_anything_is_sent() {
    let senders = Senders::new(LocalTargets::Refused);
    let field = |target: &Target| match senders.check(target) {
        Err(SendError::Unusable { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(&webhook("nonsense".into())), "webhook.url");
    let with_ca = Target::Webhook { url: "https://x/".into(), secret: SecretId::trusted("s"), ca: Some("PEM".into()) };
    assert_eq!(field(&with_ca), "webhook.ca");
    let mail = |from: &str, to: &str| Target::Email {
        host: "mail".into(),
        port: 465,
        security: MailSecurity::Tls,
        username: None,
        password: None,
        from: from.into(),
        to: vec![to.into()],
        ca: None,
    };
    for url in ["https://127.0.0.1/a", "https://[::1]/", "https://localhost:8443/", "https://169.254.169.254/"] {
        assert_eq!(field(&webhook(url.into())), "webhook.url");
        Senders::new(LocalTargets::Permitted).check(&webhook(url.into())).unwrap();
    }
    assert_eq!(field(&mail("nobody", "a@example.com")), "email.from");
    assert_eq!(field(&mail("a@example.com", "nobody")), "email.to");
    senders.check(&mail("a@example.com", "b@example.com")).unwrap();
}
