//! Hints over WebSocket: orbit holds a connection, and fetches queries, or its configuration, when it is told that some are due (FL §2.9).

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use muster_core::agent::Family;
use muster_fleet::check_in::Contact;
use muster_fleet::hints::{Event, HintChannel, Reason};
use muster_listen::upgrade::{Stream, Upgrade};
use muster_listen::websocket::{self, Limits, handshake};
use muster_protocol::fleetd::{HINT_DISTRIBUTED_READ, HINT_ORBIT_CONFIG, Hint};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::client::Client;
use super::failure::Failure;
use super::{Inner, KEY_BYTES, headers};

/// Interval of pings. orbit gives the connection up after ten minutes without one, and a ping must come within five (FL166).
const PING: Duration = Duration::from_secs(280);
/// Maximum time until a host answers a ping.
const PONG: Duration = Duration::from_secs(60);
/// Maximum time to send a message. Messages are so small that one waits only if the host has not read for long.
const SEND: Duration = Duration::from_secs(1);
/// Messages of a host are ignored. It usually sends nothing but pongs.
const LIMITS: Limits = Limits { read_buffer: 64, max_message: 1024 };
/// Maximum number of messages of a host between two pings.
const MAX_MESSAGES: u32 = 1000;

impl Inner {
    /// Authenticates an orbit, and upgrades its connection.
    pub(super) async fn notifications(&self, head: &Parts, peer: &Client) -> Result<Upgrade, Failure> {
        if !self.options.push {
            return Err(Failure::new(StatusCode::NOT_FOUND, "PushIsOff", "push is off"));
        }
        let key = headers::orbit_key(&head.headers).filter(|key| (1..=KEY_BYTES).contains(&key.len()));
        let key = key.ok_or_else(Failure::invalid_key)?;
        let entry = self.fleet.authentication().node_key(key, Family::Orbit, self.certificate(peer)).await?;
        peer.authenticated_as(&entry);
        let handshake = handshake(head).map_err(Failure::bad_request)?;
        let contact = Contact { address: &peer.ip(), ..Contact::default() };
        self.fleet.check_ins().contact(&entry, contact).await?;
        let channel = self.fleet.hints().open(&entry);
        let mut upgrade = Upgrade::new(HeaderValue::from_static("websocket"), |stream| serve(stream, channel));
        for (name, value) in &handshake {
            upgrade.reply.headers_mut().insert(name, value.clone());
        }
        Ok(upgrade)
    }
}

/// Sends hints until the connection ends.
pub(super) async fn serve(stream: impl Stream, channel: HintChannel) {
    let socket = websocket::serve(stream, LIMITS).await;
    Connection { socket, channel, ping: Ping::Due(Instant::now() + PING), messages: 0 }.run().await;
}

/// A connection with an orbit.
struct Connection<S> {
    socket: WebSocketStream<S>,
    channel: HintChannel,
    ping: Ping,
    /// Number of messages since the last ping.
    messages: u32,
}

/// Whether the host is known to be there.
#[derive(Clone, Copy)]
enum Ping {
    /// The next ping is sent at this time.
    Due(Instant),
    /// A ping was sent; the host must answer until this time.
    Sent(Instant),
}

/// The connection is lost, or must be cut.
struct Lost;

impl<S: Stream> Connection<S> {
    async fn run(mut self) {
        loop {
            let (Ping::Due(deadline) | Ping::Sent(deadline)) = self.ping;
            let done = tokio::select! {
                event = self.channel.next(deadline) => self.handle(event).await,
                received = self.socket.next() => self.received(matches!(received, Some(Ok(_)))),
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn handle(&mut self, event: Event) -> Result<(), Lost> {
        match event {
            Event::Hint(reason) => self.send(hint(&reason)).await,
            Event::Deadline => self.ping().await,
            Event::Revoked => self.close(CloseCode::Policy, "the host was deleted, or its key revoked").await,
            Event::Ended => self.close(CloseCode::Restart, "connect again").await,
        }
    }

    async fn ping(&mut self) -> Result<(), Lost> {
        if let Ping::Sent(_) = self.ping {
            return Err(Lost);
        }
        self.messages = 0;
        self.ping = Ping::Sent(Instant::now() + PONG);
        self.send(Message::Ping(Bytes::new())).await
    }

    /// Takes a message of the host. Whatever it contains, it shows that the host is there.
    fn received(&mut self, is_message: bool) -> Result<(), Lost> {
        self.messages += 1;
        if !is_message || self.messages > MAX_MESSAGES {
            return Err(Lost);
        }
        if let Ping::Sent(_) = self.ping {
            self.ping = Ping::Due(Instant::now() + PING);
        }
        Ok(())
    }

    async fn send(&mut self, message: Message) -> Result<(), Lost> {
        match timeout(SEND, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Lost),
        }
    }

    async fn close(&mut self, code: CloseCode, reason: &'static str) -> Result<(), Lost> {
        let frame = CloseFrame { code, reason: reason.into() };
        // The host may be gone. The connection ends anyway.
        let _ = timeout(SEND, self.socket.close(Some(frame))).await;
        Err(Lost)
    }
}

fn hint(reason: &Reason) -> Message {
    let kind = if *reason == Reason::Config { HINT_ORBIT_CONFIG } else { HINT_DISTRIBUTED_READ };
    let hint = Hint { kind, reason: &reason.to_string() };
    // Strings always serialize.
    Message::text(serde_json::to_string(&hint).unwrap_or_default())
}
