//! A connection to the management API that stays open.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::Context as _;

/// A connection to the server's Unix socket.
pub struct Connection(BufReader<UnixStream>);

impl Connection {
    /// Connects.
    pub fn open(socket: &Path) -> anyhow::Result<Self> {
        Ok(Self(BufReader::new(UnixStream::connect(socket)?)))
    }

    /// Sends a `GET` request, with an API token if there is one, and returns the status and the body of the response.
    pub fn get(&mut self, path: &str, token: Option<&str>) -> anyhow::Result<(u16, Vec<u8>)> {
        let authorization = token.map(|token| format!("authorization: ApiKey {token}\r\n")).unwrap_or_default();
        let answer = self.send("GET", path, &authorization, "")?;
        Ok((answer.status, answer.body))
    }

    /// Sends a request. `headers` are lines that end with a line break.
    pub fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) -> anyhow::Result<Answer> {
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let request = format!("{method} {path} HTTP/1.1\r\nhost: admin\r\n{headers}{length}\r\n{body}");
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut answer = Answer { status: 0, head: Vec::new(), body: Vec::new() };
        loop {
            let mut line = String::new();
            anyhow::ensure!(self.0.read_line(&mut line)? > 0, "the server closed the connection");
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                answer.status = rest.get(..3).context("no status")?.parse()?;
            }
            answer
                .head
                .extend(line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())));
        }
        let length = answer.header("content-length").map_or(Ok(0), str::parse)?;
        answer.body = vec![0; length];
        self.0.read_exact(&mut answer.body)?;
        Ok(answer)
    }
}

/// A response.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Names, in lower case, and values of its headers.
    head: Vec<(String, String)>,
    /// Its body, as it was sent.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
