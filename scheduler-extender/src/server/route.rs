//! One request, one answer.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use stowage_shared::contract::EXTENDER_BODY_MAX_BYTES;

use super::Server;
use super::pace::{ARRIVAL_MAX, Pace};
use crate::debug;
use crate::metrics::Verb;
use crate::seldom::Seldom;
use crate::verbs::{Answer, not_json};
use crate::wire::{self, WireError};

/// How often a complaint about requests is logged at most.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

static TOO_LARGE: Seldom = Seldom::every(COMPLAINT_EVERY);
static REFUSED: Seldom = Seldom::every(COMPLAINT_EVERY);

/// Answers one request.
pub(super) async fn respond<B>(
    server: &Server,
    request: Request<B>,
    pace: &Pace,
    local: Option<SocketAddr>,
) -> Response<Full<Bytes>>
where
    B: hyper::body::Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>,
{
    let verb = match request.uri().path() {
        "/filter" => Verb::Filter,
        "/prioritize" => Verb::Prioritize,
        "/preempt" => Verb::Preempt,
        "/bind" => Verb::Bind,
        debug::AUDIT_PATH if local.is_some_and(|local| local.ip().is_loopback()) => {
            if request.method() != Method::GET {
                return only("GET");
            }
            let json =
                request.uri().query().is_some_and(|query| query.split('&').any(|q| q == "format=json"));
            return to_http(debug::audit_request(server.verbs.store(), json));
        }
        _ => return to_http(Answer::text(404, "served here: POST /filter /prioritize /preempt /bind\n")),
    };
    if request.method() != Method::POST {
        return only("POST");
    }
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(answer) => {
            server.metrics.answered(verb, answer.outcome, 0.0);
            let mut response = to_http(answer);
            // What is left of the body is not read.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
    };
    let _answering = pace.arrived();
    if verb == Verb::Filter {
        wait_for_nominations(server, &body).await;
    }
    let start = Instant::now();
    let answer = answer(server, verb, body).await;
    server.metrics.answered(verb, answer.outcome, start.elapsed().as_secs_f64());
    if answer.outcome != crate::verbs::Outcome::Ok && verb != Verb::Bind && REFUSED.now() {
        let answer = String::from_utf8_lossy(&answer.body);
        tracing::warn!(?verb, %answer, "A request cannot be served; more of these are not logged for a minute.");
    }
    to_http(answer)
}

/// Lets pods be nominated before kube-scheduler takes up the next one.
async fn wait_for_nominations(server: &Server, body: &[u8]) {
    if let Some(rush) = &server.rush
        && let Some(uid) = server.verbs.asker(body)
        && rush.over(&uid).await
    {
        server.metrics.waited();
    }
}

async fn answer(server: &Server, verb: Verb, body: Bytes) -> Answer {
    let now = Instant::now();
    let answer = match verb {
        Verb::Filter => catch_unwind(AssertUnwindSafe(|| server.verbs.filter(&body, now))).ok(),
        Verb::Prioritize => catch_unwind(AssertUnwindSafe(|| server.verbs.prioritize(&body, now))).ok(),
        Verb::Preempt => catch_unwind(AssertUnwindSafe(|| server.verbs.preempt(&body, now))).ok(),
        Verb::Bind => bind(server, &body).await,
    };
    answer.unwrap_or_else(|| {
        // The panic itself is on standard error.
        server.metrics.panicked();
        tracing::error!(?verb, "A request ended in a defect of ours.");
        Answer::text(500, "a defect of the extender: see its log\n")
    })
}

/// `None` where it panicked.
async fn bind(server: &Server, body: &[u8]) -> Option<Answer> {
    let args = match wire::read_binding_args(body) {
        Ok(args) => args,
        Err(error @ WireError::NotJson(_)) => return Some(not_json(&error)),
        Err(error) => return Some(Answer::binding_error(&error.to_string())),
    };
    // A task of its own: when kube-scheduler hangs up, what became of the Binding must still be found out.
    let binder = server.binder.clone();
    let bound = tokio::spawn(async move { binder.bind(&args).await }).await.ok()?;
    Some(match bound {
        Ok(()) => Answer::json(wire::binding_result("")),
        Err(error) => Answer::binding_error(&error.to_string()),
    })
}

async fn read_body<B>(request: Request<B>) -> Result<Bytes, Answer>
where
    B: hyper::body::Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>,
{
    let too_large = || {
        let text = format!(
            "the body is larger than {EXTENDER_BODY_MAX_BYTES} bytes: set nodeCacheCapable: true for this \
             extender, so that nodes come by name only\n"
        );
        if TOO_LARGE.now() {
            tracing::warn!(
                error = text.trim_end(),
                "A request is refused; more of these are not logged for a minute."
            );
        }
        Answer::text(413, text)
    };
    let length =
        request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > EXTENDER_BODY_MAX_BYTES as u64) {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), EXTENDER_BODY_MAX_BYTES).collect();
    match tokio::time::timeout(ARRIVAL_MAX, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Answer::text(400, format!("the body cannot be read: {error}\n"))),
        Err(_) => {
            Err(Answer::text(408, format!("the body did not come within {} s\n", ARRIVAL_MAX.as_secs())))
        }
    }
}

/// Answers no, and ends the connection: the next one may lead elsewhere, or show another certificate.
pub(super) fn turn_away(status: u16, why: String) -> Response<Full<Bytes>> {
    let mut response = to_http(Answer::text(status, why));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn only(method: &'static str) -> Response<Full<Bytes>> {
    let mut response = to_http(Answer::text(405, format!("only {method} is served here\n")));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

fn to_http(answer: Answer) -> Response<Full<Bytes>> {
    let kind = if answer.json { "application/json" } else { "text/plain; charset=utf-8" };
    let mut response = Response::new(Full::new(answer.body.into()));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
