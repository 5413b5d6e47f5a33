//! Bad input always gets the protocol's status and error format.

use http::Method;
use serde_json::json;

use crate::setting::{AGENT, Ask, Enrolled, Server, online, refused};

fn check_in(agent: &Enrolled, body: impl Into<bytes::Bytes>) -> Ask {
    Ask::post(&agent.path("checkin")).key(&agent.token).agent(AGENT).body(body)
}

#[tokio::test]
async fn d22_ambiguous_json_is_refused() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let texts: [&[u8]; 10] = [
        br#"{"status":"online","status":"error"}"#,
        br#"{"status":"online","local_metadata":{"a":1,"a":2}}"#,
        br#"{"status":"online","message":"\ud800"}"#,
        b"{\"status\":\"online\",\"message\":\"\xff\"}",
        br#"{"status":"online"}{"status":"online"}"#,
        br#"{"status":"online"} x"#,
        br#"{"status":"online""#,
        br#""online""#,
        b"",
        b"\xef\xbb\xbf{\"status\":\"online\"}",
    ];
    for text in texts {
        let got = server.get(check_in(&agent, text.to_vec())).await;
        assert_eq!(got.refusal(), refused(400, "BadRequest"), "{}", String::from_utf8_lossy(text));
    }
    let got = server.get(Ask::post(&agent.path("acks")).key(&agent.token).body(r#"{"events":[],"events":null}"#)).await;
    assert_eq!(got.refusal(), refused(400, "BadRequest"));
}

#[tokio::test]
async fn excessive_nesting_is_refused() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!(r#"{{"status":"online","components":{}1{}}}"#, open.repeat(100_000), close.repeat(100_000));
        assert_eq!(server.get(check_in(&agent, deep.clone())).await.refusal(), refused(400, "BadRequest"));
        assert_eq!(server.get(check_in(&agent, deep).gzip()).await.refusal(), refused(400, "BadRequest"));
    }
}

#[tokio::test]
async fn d23_conflicting_lengths_are_refused_and_huge_ones_allocate_nothing() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let body = online().to_string();
    let both = check_in(&agent, body.clone()).header("content-length", body.len().to_string());
    assert_eq!(server.get(both.header("transfer-encoding", "chunked")).await.refusal(), refused(400, "BadRequest"));
    for length in ["18446744073709551615", "99999999999999999999999999", "8388609"] {
        let got = server.get(check_in(&agent, body.clone()).header("content-length", length)).await;
        assert_eq!(got.refusal(), refused(400, "BadRequest"), "{length}");
    }
    let two = check_in(&agent, body).header("content-length", "1").header("content-length", "2");
    assert_eq!(server.get(two).await.refusal(), refused(400, "BadRequest"));
}

#[tokio::test]
async fn ea19_oversized_bodies_are_400() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let token = server.enrollment_key("k", None).await;
    let enroll = json!({"type": "PERMANENT", "metadata": {"local": {"x": "x".repeat(512 << 10)}}});
    for ask in [
        Ask::post("/api/fleet/agents/enroll").key(&token).agent(AGENT).json(&enroll),
        check_in(&agent, format!(r#"{{"status":"online","message":"{}"}}"#, "x".repeat(8 << 20))),
    ] {
        let got = server.get(ask).await;
        assert_eq!(got.refusal(), refused(400, "BadRequest"));
        assert!(got.json()["message"].as_str().unwrap().contains("http: request body too large"));
    }
}

#[tokio::test]
async fn unusual_header_bytes_get_a_response() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    for (name, value) in [
        ("user-agent", &b"Elastic Agent v\xff"[..]),
        ("authorization", b"ApiKey \xff\xfe"),
        ("elastic-api-version", b"\xff"),
        ("content-encoding", b"\xff"),
        ("accept-encoding", b"\xff, gzip"),
        ("x-request-id", b"\xff"),
    ] {
        let got = server.ask(check_in(&agent, online().to_string()).header(name, value)).await;
        if let muster_listen::reply::Answer::Reply(reply) = got {
            let status = reply.status().as_u16();
            assert!((400..500).contains(&status), "{name}: {status}");
        }
    }
}

#[tokio::test]
async fn a_request_id_cannot_inject_into_logs() {
    let server = Server::start().await;
    for id in [&b"a\x1b[31m"[..], b"a b", b"\"", b"<script>"] {
        if http::HeaderValue::from_bytes(id).is_ok() {
            let got = server.get(Ask::get("/api/status").header("x-request-id", id)).await;
            assert_eq!(got.header("x-request-id").len(), 36, "{id:?}");
        }
    }
}

#[tokio::test]
async fn every_method_on_every_path_gets_a_response() {
    let server = Server::start().await;
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::OPTIONS, Method::TRACE];
    let paths = [
        "/",
        "/api/status",
        "/api/fleet/uploads",
        "/api/fleet/uploads/a/b",
        "//api//status",
        "/api/fleet/agents/%",
        "/%2e%2e/%2e%2e",
    ];
    for method in methods {
        for path in paths {
            let got = server.get(Ask::new(method.clone(), path)).await;
            assert!([200, 400, 401, 404, 405].contains(&got.status), "{method} {path}: {}", got.status);
        }
    }
}

#[tokio::test]
async fn untrusted_names_are_treated_as_data() {
    let server = Server::start().await;
    let token = server.enrollment_key("k", None).await;
    for id in ["../../etc/passwd", "a\r\nb", "a\u{0}b", "\u{1b}[31m", "a b", &"x".repeat(4096)] {
        let ask = Ask::post("/api/fleet/agents/enroll").key(&token).agent(AGENT);
        let got = server.get(ask.json(&json!({"type": "PERMANENT", "id": id}))).await;
        assert_eq!(got.refusal().0, 400, "{id:?}");
    }
    let long = json!({"type": "PERMANENT", "metadata": {"local": {"host": {"hostname": "\u{1b}[31m".repeat(1000)}}}});
    server.enroll_with(&token, &long).await;
}
