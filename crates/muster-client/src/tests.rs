//! Errors have the class that exit codes need, and nothing is sent to the wrong server.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::types::ErrorBody;
use std::error::Error as _;

use crate::{Client, Error, ErrorCode, Failure, HttpOptions};

fn answered(status_code: u16, field: Option<&str>) -> Error {
    let field = field.map(str::to_owned);
    Error::Answered(Box::new(ErrorBody { status_code, field, message: "no".into(), ..ErrorBody::default() }))
}

/// A server that reads the head of one request, responds, and closes; returns its URL and what it reads.
async fn server(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let read = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            let length = stream.read(&mut buffer).await.unwrap();
            head.extend_from_slice(&buffer[..length]);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8(head).unwrap()
    });
    (url, read)
}

async fn error_of(answer: &'static str) -> Error {
    let (url, _read) = server(answer).await;
    Client::http(&url, Some("token")).unwrap().agent("a").await.unwrap_err()
}

#[test]
fn responses_are_classified_by_status() {
    for (status, field, failure) in [
        (400, Some("kuery"), Failure::Usage),
        (400, None, Failure::Failed),
        (401, None, Failure::Refused),
        (403, None, Failure::Refused),
        (404, None, Failure::NotFound),
        (409, None, Failure::Conflict),
        (429, None, Failure::Failed),
        (500, None, Failure::Failed),
        (503, None, Failure::Unreachable),
    ] {
        assert_eq!(answered(status, field).failure(), failure, "{status}");
    }
}

#[test]
fn every_class_has_its_own_exit_code() {
    use Failure::{Conflict, Failed, NotFound, Refused, Unreachable, Usage};
    let codes = [Failed, Usage, NotFound, Refused, Unreachable, Conflict].map(Failure::exit_code);
    assert_eq!(codes, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn only_errors_that_the_caller_can_fix_have_a_remedy() {
    let denied = Error::Denied { target: "/x/admin.sock".into(), source: None };
    assert_eq!((denied.failure(), denied.to_string().as_str()), (Failure::Refused, "/x/admin.sock: permission denied"));
    assert!(denied.remedy().unwrap().contains("as root or as the server's user"));
    assert_eq!(answered(404, None).remedy(), None);
    let broken = Error::Broken { target: "x".into(), reason: "reset".into(), source: None };
    assert_eq!((broken.failure(), broken.remedy()), (Failure::Failed, None));
    assert!(broken.to_string().contains("may have been processed"));
}

#[test]
fn an_ambiguous_host_is_a_usage_error() {
    let body = |code: &str| ErrorBody { status_code: 409, code: code.to_owned(), ..ErrorBody::default() };
    let failures = ["host_ambiguous", "host_busy"].map(|code| Error::Answered(Box::new(body(code))).failure());
    assert_eq!(failures, [Failure::Usage, Failure::Conflict]);
}

#[tokio::test]
async fn the_servers_error_is_returned_with_the_http_status() {
    let error = error_of(concat!(
        "HTTP/1.1 409 Conflict\r\ncontent-type: application/json\r\ncontent-length: 106\r\n\r\n",
        r#"{"statusCode":200,"error":"Conflict","message":"name taken","code":"policy_name_taken","remedy":"another"}"#
    ))
    .await;
    assert_eq!((error.failure(), error.to_string().as_str()), (Failure::Conflict, "name taken"));
    assert_eq!((error.remedy().as_deref(), error.body().unwrap().status_code), (Some("another"), 409));
    assert_eq!(error.code(), Some(ErrorCode::PolicyNameTaken));
}

#[tokio::test]
async fn a_response_of_another_kind_of_server_is_detected() {
    let error = error_of("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 13\r\n\r\n<html>proxy</").await;
    assert!(matches!(&error, Error::Unexpected { status: 502, reason, .. } if reason == "<html>proxy</"), "{error:?}");
    let error = error_of("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]").await;
    assert!(matches!(&error, Error::Unexpected { status: 200, .. }), "{error:?}");
    assert_eq!((error.failure(), error.body()), (Failure::Failed, None));
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_token() {
    let (elsewhere, read) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let redirect = format!("HTTP/1.1 302 Found\r\nlocation: {elsewhere}/\r\ncontent-length: 0\r\n\r\n");
    let error = error_of(redirect.leak()).await;
    assert!(matches!(error, Error::Unexpected { status: 302, .. }), "{error:?}");
    assert!(!read.is_finished(), "nothing was sent to {elsewhere}");
}

#[tokio::test]
async fn after_a_broken_connection_the_request_may_have_been_processed() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"] {
        let error = error_of(answer).await;
        assert!(matches!(error, Error::Broken { .. }), "{error:?}");
        assert!(error.source().is_some(), "the chain of causes is kept");
    }
}

#[tokio::test]
async fn a_server_that_is_not_running_is_unreachable_by_socket_and_url() {
    let missing = std::env::temp_dir().join("muster-client-test-no-such-directory/admin.sock");
    let client = Client::unix(&missing).unwrap();
    assert_eq!(client.target(), missing.display().to_string());
    let error = client.agent("a").await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { reason, .. } if reason.contains("No such file")), "{error:?}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Client::http(&url, None).unwrap().server_status().await.unwrap_err();
    assert_eq!(error.failure(), Failure::Unreachable, "{error:?}");
    assert!(error.remedy().unwrap().contains("that the server is running"));
}

#[tokio::test]
async fn requests_carry_token_version_and_space_and_escape_ids() {
    let (url, read) = server("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    let client = Client::http(&url, Some("t0ken")).unwrap().in_space("blue");
    drop(client.agent("a/../b?c").await);
    let head = read.await.unwrap();
    assert!(head.starts_with("GET /s/blue/api/fleet/agents/a%2F..%2Fb%3Fc HTTP/1.1\r\n"), "{head}");
    for line in ["authorization: Bearer t0ken", "elastic-api-version: 2023-10-31", "kbn-xsrf: true"] {
        assert!(
            head.to_ascii_lowercase().contains(&format!("\r\n{}\r\n", line.to_ascii_lowercase())),
            "{line}: {head}"
        );
    }
    for id in ["", ".", ".."] {
        assert_eq!(client.agent(id).await.unwrap_err().failure(), Failure::Usage, "{id:?}");
    }
}

#[test]
fn an_invalid_configuration_is_a_usage_error() {
    for url in ["nonsense", "ftp://host/", "unix:/x", "mailto:a@b"] {
        assert_eq!(Client::http(url, None).unwrap_err().failure(), Failure::Usage, "{url}");
    }
    let with = |token, ca: &[u8]| {
        Client::http_with("https://host/", token, &HttpOptions { ca_pem: Some(ca.to_vec()) }).unwrap_err()
    };
    assert_eq!(with(None, b"no certificate").failure(), Failure::Usage);
    let error = Client::http("http://host/", Some("secret\nline")).unwrap_err();
    assert_eq!(error.failure(), Failure::Usage);
    assert!(!error.to_string().contains("secret"), "{error}");
}
