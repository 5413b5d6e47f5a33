//! The methods of the component protocol (AG §5.2).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, unfold};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::MESSAGE_MAX;
use super::chunk::Joiner;
use super::line::{AlreadyOpen, Line, Parts};
use super::messages::{ActionRequest, ActionResponse, CheckinExpected, CheckinObserved};

/// Time for the first message of a stream (AG70).
const FIRST_MESSAGE: Duration = Duration::from_secs(5);
/// Minimum time between two check-ins of a component.
const PAUSE: Duration = Duration::from_millis(5);
/// Id of the first message of an action stream.
const INIT: &str = "init";

/// A stream of messages to the component.
type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<Outgoing<T>>, Status>> + Send>>;

/// Handles a request of the component with this line.
pub(super) async fn handle(
    line: Arc<Line>,
    request: http::Request<Incoming>,
) -> Result<http::Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        "/proto.ElasticAgent/CheckinV2" => grpc().streaming(CheckIns(line), request).await,
        "/proto.ElasticAgent/Actions" => grpc().streaming(Actions(line), request).await,
        // Version 1 of the protocol.
        "/proto.ElasticAgent/Checkin" => Status::unavailable("only version 2 of the protocol is available").into_http(),
        _ => Status::new(Code::Unimplemented, "unknown method").into_http(),
    })
}

fn grpc<Out, In>() -> Grpc<ProstCodec<Out, In>>
where
    Out: prost::Message + 'static,
    In: prost::Message + Default + 'static,
{
    // A larger message is rejected by its length, before memory is allocated for it.
    Grpc::new(ProstCodec::default()).max_decoding_message_size(MESSAGE_MAX)
}

struct CheckIns(Arc<Line>);

impl StreamingService<CheckinObserved> for CheckIns {
    type Response = CheckinExpected;
    type ResponseStream = Outgoing<CheckinExpected>;
    type Future = Answer<CheckinExpected>;

    fn call(&mut self, request: Request<Streaming<CheckinObserved>>) -> Self::Future {
        let (line, incoming) = (self.0.clone(), request.into_inner());
        Box::pin(async move {
            let (incoming, first) = first(incoming).await?;
            check_token(&line, &first.token)?;
            let (own, parts) = line.open_check_ins().map_err(already_open)?;
            tokio::spawn(read_check_ins(line, own, incoming, first));
            Ok(Response::new(joined(parts)))
        })
    }
}

async fn read_check_ins(
    line: Arc<Line>,
    own: mpsc::Sender<Parts>,
    mut incoming: Streaming<CheckinObserved>,
    first: CheckinObserved,
) {
    let (mut joiner, mut next) = (Joiner::default(), Some(first));
    while let Some(message) = next {
        match joiner.add(message) {
            Ok(Some(whole)) => line.observed(whole),
            Ok(None) => {}
            // The stream ends, so that the component notices.
            Err(error) => {
                tracing::error!(%error, "closing the connection of a component");
                break;
            }
        }
        // A component that floods the agent is slowed down by the flow control of its connection.
        tokio::time::sleep(PAUSE).await;
        next = incoming.message().await.ok().flatten();
    }
    line.close_check_ins(&own);
}

struct Actions(Arc<Line>);

impl StreamingService<ActionResponse> for Actions {
    type Response = ActionRequest;
    type ResponseStream = Outgoing<ActionRequest>;
    type Future = Answer<ActionRequest>;

    fn call(&mut self, request: Request<Streaming<ActionResponse>>) -> Self::Future {
        let (line, incoming) = (self.0.clone(), request.into_inner());
        Box::pin(async move {
            let (mut incoming, first) = first(incoming).await?;
            check_token(&line, &first.token)?;
            if first.id != INIT {
                return Err(Status::invalid_argument("the id of the first message must be `init`"));
            }
            let (own, requests) = line.open_actions().map_err(already_open)?;
            tokio::spawn(async move {
                while let Ok(Some(response)) = incoming.message().await {
                    line.answered(response);
                }
                line.close_actions(&own);
            });
            let next = |mut requests: mpsc::Receiver<ActionRequest>| async {
                requests.recv().await.map(|request| (Ok(request), requests))
            };
            Ok(Response::new(Box::pin(unfold(requests, next)) as Outgoing<ActionRequest>))
        })
    }
}

/// Waits for the first message of a stream.
async fn first<T>(mut incoming: Streaming<T>) -> Result<(Streaming<T>, T), Status> {
    match tokio::time::timeout(FIRST_MESSAGE, incoming.message()).await {
        Err(_) => Err(Status::deadline_exceeded("no message within 5 s")),
        Ok(message) => message?.map(|message| (incoming, message)).ok_or_else(|| Status::cancelled("no message")),
    }
}

fn check_token(line: &Line, token: &str) -> Result<(), Status> {
    let known = line.credentials.token.as_bytes();
    // In constant time, although the certificate has already shown which component this is.
    let same = aws_lc_rs::constant_time::verify_slices_are_equal(known, token.as_bytes());
    same.map_err(|_| Status::permission_denied("unknown token"))
}

fn already_open(AlreadyOpen: AlreadyOpen) -> Status {
    Status::already_exists("the component has an open stream of this kind")
}

/// Sends the parts of each check-in one after another.
fn joined(parts: mpsc::Receiver<Parts>) -> Outgoing<CheckinExpected> {
    let next = |(mut parts, mut left): (mpsc::Receiver<Parts>, std::vec::IntoIter<CheckinExpected>)| async {
        loop {
            if let Some(part) = left.next() {
                return Some((Ok(part), (parts, left)));
            }
            left = parts.recv().await?.into_iter();
        }
    };
    Box::pin(unfold((parts, Vec::new().into_iter()), next))
}
