//! Which request gets which answer.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::header::{ALLOW, CONNECTION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use stowage_shared::contract::{MAP_BODY_MAX_BYTES, MAP_READERS_MAX};

use super::access::{Audience, Denied};
use super::assets::asset;
use super::body::{Body, events, file, json as json_body, text};
use super::serve::Page;
use super::survey::{Asker, survey};
use super::{guard, manifest, stream};
use crate::state::event::Pod;
use crate::verbs::NOT_SYNCED;

const EVENTS: &str = "/api/v1/events";
const WAITING: &str = "/api/v1/waiting/";
const WHAT_IF: &str = "/api/v1/what-if";
/// How long a body may take to come.
const BODY_MAX: Duration = Duration::from_secs(5);

/// Answers one request.
pub(super) async fn respond<B>(page: &Arc<Page>, request: Request<B>) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes, Error: Error + Send + Sync + 'static>,
{
    let (parts, body) = request.into_parts();
    if page.access.is_none()
        && let Err(why) = guard::names_this_machine(&parts.headers)
    {
        return text(StatusCode::MISDIRECTED_REQUEST, why);
    }
    let path = parts.uri.path();
    let allowed = if path == WHAT_IF { Method::POST } else { Method::GET };
    if parts.method != allowed {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed} is served here"));
        let allowed = if path == WHAT_IF { "POST" } else { "GET" };
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return response;
    }
    if let Some(asset) = asset(path) {
        return file(asset.kind, asset.text);
    }
    let waiting = path.strip_prefix(WAITING);
    if path != EVENTS && path != WHAT_IF && waiting.is_none() {
        return text(StatusCode::NOT_FOUND, "there is no such page: the map is at /");
    }
    if let Err(why) = guard::is_our_pages(&parts.headers) {
        return text(StatusCode::FORBIDDEN, why);
    }
    let audience = match page.audience(&parts.headers).await {
        Ok(audience) => audience,
        Err(denied) => return refuse(&denied),
    };
    match waiting {
        Some(uid) => explain(page, uid, audience).await,
        None if path == EVENTS => watch(page, &parts.headers, audience),
        None => what_if(page, &parts.headers, body, audience).await,
    }
}

fn refuse(denied: &Denied) -> Response<Body> {
    let status = match denied {
        Denied::NoToken | Denied::BadToken => StatusCode::UNAUTHORIZED,
        Denied::NotAllowed(_) => StatusCode::FORBIDDEN,
        Denied::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = text(status, denied.to_string());
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn watch(page: &Arc<Page>, headers: &HeaderMap, audience: Audience) -> Response<Body> {
    let Some(reader) = page.hub.join() else {
        let why = format!("{MAP_READERS_MAX} are watching already: close another map");
        return text(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    let (page, headers) = (page.clone(), headers.clone());
    let hub = page.hub.clone();
    // Rights may be taken away while somebody watches.
    let may_go_on = move || {
        let (page, headers) = (page.clone(), headers.clone());
        async move { page.audience(&headers).await == Ok(audience) }
    };
    events(stream::events(hub, reader, audience == Audience::Names, may_go_on))
}

async fn explain(page: &Arc<Page>, uid: &str, audience: Audience) -> Response<Body> {
    if audience == Audience::NoNames {
        return text(StatusCode::FORBIDDEN, "who may not list pods in all namespaces is told of none");
    }
    let Ok(pod) = page.store.change(|state| state.waiting_pod(uid)) else { return defect() };
    match pod {
        Some(pod) => ask(page, pod).await,
        None => text(StatusCode::NOT_FOUND, "no such pod waits for Stowage: it may have been bound just now"),
    }
}

/// What the page sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhatIf {
    manifest: String,
}

async fn what_if<B>(page: &Arc<Page>, headers: &HeaderMap, body: B, audience: Audience) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes, Error: Error + Send + Sync + 'static>,
{
    if !guard::is_json(headers) {
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send JSON with Content-Type: application/json");
    }
    let body = match tokio::time::timeout(BODY_MAX, Limited::new(body, MAP_BODY_MAX_BYTES).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return closing(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a manifest has at most {MAP_BODY_MAX_BYTES} bytes"),
            );
        }
        Ok(Err(error)) => {
            return closing(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}"));
        }
        Err(_) => {
            let why = format!("the body did not come within {} s", BODY_MAX.as_secs());
            return closing(StatusCode::REQUEST_TIMEOUT, why);
        }
    };
    let read = tokio::task::spawn_blocking(move || {
        let WhatIf { manifest } = serde_json::from_slice(&body)
            .map_err(|error| format!(r#"send {{"manifest": "a pod's YAML or JSON"}}: {error}"#))?;
        manifest::pod(&manifest).map_err(|error| error.to_string())
    });
    match read.await {
        Ok(Ok(mut pod)) => {
            if audience == Audience::NoNames {
                // By its namespace one could find out on which GPUs that namespace is.
                pod.namespace.clear();
            }
            ask(page, pod).await
        }
        Ok(Err(why)) => text(StatusCode::UNPROCESSABLE_ENTITY, why),
        Err(_) => defect(),
    }
}

/// What is left of the body is not read.
fn closing(status: StatusCode, why: String) -> Response<Body> {
    let mut response = text(status, why);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Asks every node about a pod, on a thread of its own and one pod at a time: filters go first.
async fn ask(page: &Arc<Page>, pod: Pod) -> Response<Body> {
    let Ok(_turn) = page.turn.acquire().await else { return defect() };
    let page = page.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let snapshot = page.store.snapshot();
        if !snapshot.synced {
            return Err((StatusCode::SERVICE_UNAVAILABLE, NOT_SYNCED.to_owned()));
        }
        let unserved =
            |why: String| (StatusCode::UNPROCESSABLE_ENTITY, format!("nobody can serve this pod: {why}"));
        let request = pod.request(&snapshot.names).map_err(|error| unserved(error.to_string()))?;
        let want = pod.want(&request).map_err(|error| unserved(error.to_string()))?;
        let Some(want) = want else {
            let why = "this pod asks for no GPU: a container asks for one by resources.limits, such as nvidia.com/gpu: 1";
            return Err((StatusCode::UNPROCESSABLE_ENTITY, why.to_owned()));
        };
        let being_bound = snapshot.assumed.get(&pod.uid).map(|node| node.to_string());
        let asker = Asker { uid: pod.uid, namespace: pod.namespace, priority: pod.priority, want };
        let said = survey(&snapshot, &page.memo, &asker, Instant::now());
        Ok(json!({ "namespace": asker.namespace, "name": pod.name, "beingBound": being_bound, "said": said }))
    });
    match asked.await {
        Ok(Ok(said)) => json_body(said.to_string()),
        Ok(Err((status, why))) => text(status, why),
        Err(_) => defect(),
    }
}

fn defect() -> Response<Body> {
    text(StatusCode::INTERNAL_SERVER_ERROR, "a defect of the extender: see its log")
}
