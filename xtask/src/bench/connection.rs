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
        let head = format!("GET {path} HTTP/1.1\r\nhost: admin\r\n{authorization}\r\n");
        self.0.get_mut().write_all(head.as_bytes())?;
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            anyhow::ensure!(self.0.read_line(&mut line)? > 0, "the server closed the connection");
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest.get(..3).context("no status")?.parse()?;
            }
            if let Some((_, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, body))
    }
}
