//! Carves (FL §1.9).

use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::request::Parts;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use muster_core::agent::Family;
use muster_core::carve::{Announced, MAX_BLOCK_BODY};
use muster_fleet::carves::OpenCarve;
use muster_listen::receive::{self, BodyError, Bounds, Coding};
use muster_listen::reply::Reply;
use muster_protocol::fleetd::{BlockTaken, CarveBegin, CarveBegun, CarveBlock};

use super::carve_block::{Beginning, BlockHead, beginning, closed};
use super::client::Client;
use super::failure::Failure;
use super::{BODY_TIMEOUT, Call, Inner, headers, json, parse};

impl Inner {
    pub(super) async fn carve_begin(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: CarveBegin<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.node_key, Family::Osquery).await?;
        let announced = Announced {
            block_count: wire.block_count,
            block_size: wire.block_size,
            size: wire.carve_size,
            carve_id: wire.carve_id.into_owned(),
            request_id: wire.request_id.into_owned(),
        };
        let session = self.fleet.carves().begin(&entry, announced, &self.options.uploads).await?;
        json(&CarveBegun { session_id: session.secret(), success: true })
    }

    /// Takes a block. Its ids are read and checked first, the rest of the body only for a carve that exists.
    pub(super) async fn carve_block<B>(&self, head: &Parts, body: B, peer: &Client) -> Result<Reply, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        if receive::coding(&head.headers)? != Coding::Identity {
            return Err(BodyError::Coding.into());
        }
        let mut rest = Box::pin(body);
        let reading = read_beginning(rest.as_mut());
        let (first, length) = tokio::time::timeout(BODY_TIMEOUT, reading).await.map_err(|_| BodyError::Late)??;
        let ids = closed(&first[..length]);
        let ids: BlockHead<'_> = serde_json::from_slice(&ids).map_err(|_| unknown_session())?;
        let found = self.fleet.carves().of_session(&ids.session_id, &ids.request_id).await?;
        let carve = found.ok_or_else(unknown_session)?;
        // Before anything of the carve changes: another host must not end it either.
        self.fleet.authentication().check_connection(carve.agent(), self.certificate(peer)).await?;
        if let Some(key) = headers::osquery_key(&head.headers) {
            let call = Call { head, peer, text: "" };
            if !carve.is_of(&*self.node(&call, key, Family::Osquery).await?) {
                return Err(unknown_session());
            }
        }
        let outcome = self.receive_block(&carve, head, Resumed { first: Some(first), rest }).await;
        if let Err(failure) = &outcome
            && !failure.status.is_server_error()
        {
            // osqueryd would send the other blocks, and call the carve a success (FL165).
            self.fleet.carves().fail(&carve, &failure.message).await?;
        }
        outcome
    }

    async fn receive_block<B>(&self, carve: &OpenCarve, head: &Parts, body: B) -> Result<Reply, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let bounds = Bounds { limit: MAX_BLOCK_BODY, timeout: BODY_TIMEOUT };
        let received = receive::read(&head.headers, body, bounds, &self.bodies).await?;
        let text = std::str::from_utf8(&received).map_err(|_| Failure::bad_request("the block is not UTF-8"))?;
        let wire: CarveBlock<'_> = parse(text)?;
        // The decoded bytes are a copy, which the store holds until they are on disk.
        let _share = self.bodies.copies(wire.data.len())?;
        let data = STANDARD.decode(wire.data.as_bytes());
        let data = data.map_err(|_| Failure::bad_request(format!("block {} is not base64", wire.block_id)))?;
        self.fleet.carves().take_block(carve, wire.block_id, data, &self.options.uploads).await?;
        json(&BlockTaken { success: true })
    }
}

fn unknown_session() -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, "UnknownCarve", "no carve has this session_id and request_id")
}

/// Reads a body until its ids are complete. Returns what was read, and the length of the ids.
async fn read_beginning<B>(mut body: Pin<&mut B>) -> Result<(Bytes, usize), Failure>
where
    B: Body<Data = Bytes, Error: Into<BodyError>>,
{
    let mut first = BytesMut::new();
    loop {
        match beginning(&first) {
            Beginning::Head(length) => return Ok((first.freeze(), length)),
            Beginning::Malformed => return Err(unknown_session()),
            Beginning::Short => {}
        }
        let frame = body.frame().await.ok_or_else(unknown_session)?;
        if let Ok(data) = frame.map_err(Into::into)?.into_data() {
            first.extend_from_slice(&data);
        }
    }
}

/// A body whose first bytes were read before.
struct Resumed<B> {
    first: Option<Bytes>,
    rest: Pin<Box<B>>,
}

impl<B: Body<Data = Bytes>> Body for Resumed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        match this.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => this.rest.as_mut().poll_frame(cx),
        }
    }
}
