//! Answers of the map, each with the headers that keep a browser from doing more with it than showing it.

use std::convert::Infallible;

use bytes::Bytes;
use futures::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

/// The body of any answer.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Scripts and styles are files of this origin, connections go to it alone, and nobody may put the page into a frame.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-frame-options", "DENY"),
];

/// A file of the page. It may be kept if it is asked for again before it is used.
pub(super) fn file(kind: &'static str, text: &'static str) -> Response<Body> {
    let mut response = whole(StatusCode::OK, kind, text);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A sentence.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", text.into() + "\n")
}

/// JSON.
pub(super) fn json(text: impl Into<Bytes>) -> Response<Body> {
    whole(StatusCode::OK, "application/json", text)
}

/// Server-sent events.
pub(super) fn events(stream: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    use futures::StreamExt;
    let frames = stream.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    with_headers("text/event-stream", StreamBody::new(frames).boxed_unsync())
}

fn whole(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = with_headers(kind, Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn with_headers(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // What a cluster does is nothing to keep on a disk.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}
