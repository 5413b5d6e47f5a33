//! Minimal client of the management API over the server's Unix socket, with one request per connection.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::{Value, json};

/// Client of one server.
pub struct Admin {
    socket: PathBuf,
}

impl Admin {
    /// Creates a client without connecting.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask("GET", path, None)
    }

    /// `POST`.
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask("POST", path, Some(body))
    }

    /// `PUT`.
    pub fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask("PUT", path, Some(body))
    }

    /// Creates a policy with this configuration, and returns its id.
    pub fn make_policy(&self, name: &str, config: &Value) -> anyhow::Result<String> {
        let made =
            self.post("/api/fleet/agent_policies", &json!({"name": name, "namespace": "default", "config": config}))?;
        Ok(made["item"]["id"].as_str().with_context(|| format!("no policy id in {made}"))?.to_owned())
    }

    /// Creates an enrollment key for a policy, and returns its token.
    pub fn make_token(&self, policy: &str) -> anyhow::Result<String> {
        self.token(&json!({"policy_id": policy, "name": "drones"}))
    }

    /// The same, for agents that get this tag.
    pub fn make_token_with_tag(&self, policy: &str, tag: &str) -> anyhow::Result<String> {
        self.token(&json!({"policy_id": policy, "name": tag, "tags": [tag]}))
    }

    fn token(&self, key: &Value) -> anyhow::Result<String> {
        let made = self.post("/api/fleet/enrollment_api_keys", key)?;
        Ok(made["item"]["api_key"].as_str().with_context(|| format!("no token in {made}"))?.to_owned())
    }

    /// Returns the ids of up to `count` agents, at least one.
    pub fn agents(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let page = self.get(&format!("/api/fleet/agents?perPage={count}"))?;
        let ids = page["items"].as_array().into_iter().flatten().filter_map(|item| item["id"].as_str());
        let ids: Vec<_> = ids.map(str::to_owned).collect();
        anyhow::ensure!(!ids.is_empty(), "no agents are listed");
        Ok(ids)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let stream = UnixStream::connect(&self.socket).with_context(|| self.socket.display().to_string())?;
        exchange(stream, method, "admin", path, body)
    }
}

/// Sends a request with a JSON body over a connection of its own, and returns the JSON of the response.
pub fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    host: &str,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nkbn-xsrf: true\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 64 << 10];
    // Some servers leave the connection open all the same; then the length says where the response ends.
    while !is_complete(&answer) {
        match stream.read(&mut buffer)? {
            0 => break,
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
    let (status, body) = parse(&answer).with_context(|| format!("{method} {path}: malformed response"))?;
    anyhow::ensure!((200..300).contains(&status), "{method} {path}: {status} {}", String::from_utf8_lossy(body));
    Ok(serde_json::from_slice(body).unwrap_or(Value::Null))
}

/// Returns whether a response has a length, and is as long.
fn is_complete(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= end + 4 + length)
}

/// Splits a response into status and body.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, &answer[end + 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_parsed() {
        assert_eq!(parse(b"HTTP/1.1 201 Created\r\na: b\r\n\r\n{}"), Some((201, &b"{}"[..])));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n"), None);
        assert!(is_complete(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"));
        assert!(!is_complete(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}"));
        assert!(!is_complete(b"HTTP/1.1 200 OK\r\n\r\n{}"));
    }
}
