//! HTTP/1.1 in front of the store: connections, users, faults and the audit log.
//!
//! A request goes the same way whatever it is: [`route`] says what it asks for, the user is looked
//! up, the fault hook has its say, [`answer`] asks the store, the log takes it down.

mod answer;
mod discovery;
mod parameters;
mod route;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::route::Target;
use super::audit::{Attributes, AuditLog};
use super::error::ApiError;
use super::fault::{Fault, Faults};
use super::object::write_json;
use super::options::User;
use super::store::Store;

/// The largest request body in bytes, as in the real server.
const MAX_BODY: usize = 3 * 1024 * 1024;
/// How much of a body that is too large is read before the connection is closed.
const MAX_DISCARDED: usize = 64 * 1024 * 1024;
/// How many clients may be connected at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 2_048;
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long `accept` rests after a failure, which is nearly always too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A body that is there, or one that comes as things happen.
type Body = UnsyncBoxBody<Bytes, Cut>;

/// The connection is closed here and now, by a fault that a test asked for.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut by a fault hook")]
struct Cut;

/// What all connections share.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) users: Vec<User>,
    pub(super) audit: AuditLog,
    pub(super) faults: Faults,
    /// Counts how often all watches were told to end.
    pub(super) watches: watch::Sender<u64>,
    pub(super) git_version: String,
}

/// Serves until the task that runs it is aborted; every connection ends with it.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) -> Infallible {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await.expect("this semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    serve_connection(stream, shared).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "The API server stand-in cannot accept a connection.");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>) {
    // Watch events are small and must not wait for each other.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { handle(&shared, request).await }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "A connection to the API server stand-in ended.");
    }
}

/// Why a request gets no ordinary answer.
enum Trouble {
    Refused(ApiError),
    Cut,
}

impl From<ApiError> for Trouble {
    fn from(refusal: ApiError) -> Self {
        Self::Refused(refusal)
    }
}

async fn handle(shared: &Shared, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let target = route::target(request.uri());
    let user = user_of(&shared.users, &request);
    let mut attributes = target.attributes(request.method(), request.uri());
    attributes.user = user.unwrap_or_default().to_owned();
    let answer = match user {
        None => Err(ApiError::unauthorized().into()),
        Some(_) => with_faults(shared, &target, &attributes, request).await,
    };
    let answer = match answer {
        Ok(response) => Ok(response),
        Err(Trouble::Refused(refusal)) => Ok(refusal_response(&refusal)),
        Err(Trouble::Cut) => Err(Cut),
    };
    shared.audit.add(attributes, answer.as_ref().map_or(0, |response| response.status().as_u16()));
    answer
}

async fn with_faults(
    shared: &Shared,
    target: &Target,
    attributes: &Attributes,
    request: Request<Incoming>,
) -> Result<Response<Body>, Trouble> {
    let watches = attributes.verb == "watch";
    match shared.faults.of(attributes) {
        None => Ok(answer::answer(shared, target, attributes, request, None).await?),
        Some(Fault::Delay(time)) => {
            sleep(time).await;
            Ok(answer::answer(shared, target, attributes, request, None).await?)
        }
        Some(Fault::Refuse(refusal)) => Err(refusal.into()),
        Some(Fault::Drop) => Err(Trouble::Cut),
        // Held until the client gives up, which ends this future.
        Some(Fault::Stall) if !watches => std::future::pending().await,
        Some(Fault::LoseAnswer | Fault::CutWatchAfter(_)) if !watches => {
            // Whether it succeeded is what the client shall not learn.
            let _ = answer::answer(shared, target, attributes, request, None).await;
            Err(Trouble::Cut)
        }
        fault => Ok(answer::answer(shared, target, attributes, request, fault).await?),
    }
}

/// The user whose token the request bears; an empty name where no tokens are asked for.
fn user_of<'a>(users: &'a [User], request: &Request<Incoming>) -> Option<&'a str> {
    if users.is_empty() {
        return Some("");
    }
    let header = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = header.strip_prefix("Bearer ")?;
    users.iter().find(|user| user.token == token).map(|user| user.name.as_str())
}

fn refusal_response(refusal: &ApiError) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut body = Vec::new();
    write_json(&mut body, &refusal.to_status());
    let mut response = json_response(status, body);
    if let Some(seconds) = refusal.details["retryAfterSeconds"].as_u64() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn json_response(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    response(status, "application/json", whole(body))
}

fn text_response(status: StatusCode, text: &str) -> Response<Body> {
    response(status, "text/plain; charset=utf-8", whole(text.as_bytes().to_vec()))
}

fn whole(body: Vec<u8>) -> Body {
    Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync()
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The whole body of a request.
///
/// # Errors
/// 413 for one that is too large, 400 for one that breaks off.
async fn read_body(request: Request<Incoming>) -> Result<Bytes, ApiError> {
    let mut body = request.into_body();
    let mut kept = Vec::new();
    let mut length = 0;
    // A client that is still sending may not look at an answer, and a connection that is closed under
    // it takes the answer along: so a body that is too large is read on, and thrown away.
    while length <= MAX_DISCARDED
        && let Some(frame) = body.frame().await
    {
        let frame =
            frame.map_err(|error| ApiError::bad_request(format!("the request's body broke off: {error}")))?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        if length <= MAX_BODY {
            kept.extend_from_slice(data);
        }
    }
    if length > MAX_BODY {
        let message = format!("Request entity too large: limit is {MAX_BODY}");
        return Err(ApiError::new(413, "RequestEntityTooLarge", message));
    }
    Ok(Bytes::from(kept))
}
