//! Syslog messages (RFC 5424) over TCP, with octet counting (RFC 6587), or over TLS (RFC 5425).
//!
//! The protocol has no confirmation. A message counts as sent once the server has taken it and closed the connection, or has
//! kept it open without an error for a moment.

use std::sync::Arc;
use std::time::Duration;

use muster_core::alert::Message;
use muster_core::event::Severity;
use muster_fleet::alerts::sender::SendError;
use muster_fleet::outgoing::LocalTargets;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls;

/// Time to wait for an error after a message was written.
const LINGER: Duration = Duration::from_millis(500);
/// The facility `local0`.
const FACILITY: u8 = 16;

/// A syslog server.
#[derive(Clone, Copy)]
pub(crate) struct Server<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) ca: Option<&'a str>,
}

fn failed(what: &str) -> impl FnOnce(std::io::Error) -> SendError {
    let what = what.to_owned();
    move |error| SendError::Failed(format!("{what}: {error}"))
}

/// Sends a message.
pub(crate) async fn send(local: LocalTargets, server: Server<'_>, message: &Message) -> Result<(), SendError> {
    let addresses = local.resolve(server.host, server.port).await.map_err(crate::unresolved)?;
    let stream = TcpStream::connect(addresses.as_slice()).await.map_err(failed("cannot connect"))?;
    let frame = frame(message);
    if !server.tls {
        return write(stream, &frame).await;
    }
    let config = tls::client_config("syslog.ca", server.ca)?;
    let name = ServerName::try_from(server.host.to_owned())
        .map_err(|_| SendError::Unusable { field: "syslog.host", reason: "is not a host name or an address".into() })?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    write(stream.map_err(failed("TLS handshake failed"))?, &frame).await
}

async fn write(mut stream: impl AsyncRead + AsyncWrite + Unpin, frame: &[u8]) -> Result<(), SendError> {
    let sent = async {
        stream.write_all(frame).await?;
        stream.shutdown().await
    };
    sent.await.map_err(failed("cannot write"))?;
    // A server that refuses the connection only now, for example since it is restarting, resets it.
    let mut ignored = [0; 64];
    match tokio::time::timeout(LINGER, stream.read(&mut ignored)).await {
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => Err(failed("cannot write")(error)),
        // Closed, silent, or with something to say: no error so far.
        _ => Ok(()),
    }
}

const fn severity(severity: Severity) -> u8 {
    // RFC 5424, section 6.2.1.
    match severity {
        Severity::Error => 3,
        Severity::Warning => 4,
        Severity::Notice => 5,
        Severity::Info => 6,
    }
}

/// Returns the message with its length. The text is JSON in ASCII, which needs no byte order mark.
fn frame(message: &Message) -> Vec<u8> {
    let priority = FACILITY * 8 + severity(message.kind.severity());
    // A message id has at most 32 characters, and no spaces.
    let (at, id) = (message.at.to_rfc3339_millis(), message.kind.as_str());
    // Without the host name, the process id and structured data.
    let line = format!("<{priority}>1 {at} - muster - {id} - {}", ascii(&message.body()));
    format!("{} {line}", line.len()).into_bytes()
}

/// Escapes other characters than ASCII, which only occur in strings of the JSON text.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_characters_than_ascii_are_escaped() {
        assert_eq!(ascii(r#"{"a": "ä😀"}"#), r#"{"a": "\u00e4\ud83d\ude00"}"#);
    }
}
