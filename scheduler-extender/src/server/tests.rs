use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use hyper::{Request, Response};
use prometheus_client::registry::Registry;
use stowage_shared::contract::EXTENDER_BODY_MAX_BYTES;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::*;
use crate::clock::Now;
use crate::state::Store;
use crate::synthetic;

/// An API server that is not there.
pub(crate) fn nobody() -> kube::Client {
    let service = tower::service_fn(|_: Request<kube::client::Body>| async {
        Err::<Response<Full<Bytes>>, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    });
    kube::Client::new(service, "default")
}

fn server() -> (Server, Registry) {
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::new(&mut registry));
    let store = Arc::new(Store::new(synthetic::state(2, 4, Now::read())));
    let binder = Binder::new(nobody(), store.clone(), metrics.clone());
    (
        Server { verbs: Arc::new(Verbs::new(store)), binder, metrics, tls: None, leads: None, rush: None },
        registry,
    )
}

async fn ask<B>(server: &Server, request: Request<B>, local: &str) -> (u16, String)
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>,
{
    let response = respond(server, request, &Pace::default(), local.parse().ok()).await;
    let status = response.status().as_u16();
    assert!(response.body().size_hint().exact().is_some(), "every answer has a Content-Length");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(path).body(Full::new(body.into())).unwrap()
}

const LOOPBACK: &str = "127.0.0.1:9412";

#[track_caller]
fn check((status, body): (u16, String), want: u16, says: &str) {
    assert!(status == want && body.contains(says), "{status} {body}");
}

#[tokio::test]
async fn every_request_has_its_status() {
    let (server, _) = server();
    let good = synthetic::request(synthetic::WHOLE, 1, ["gpu-node-0"]);
    let too_large = vec![b' '; EXTENDER_BODY_MAX_BYTES + 1];
    let on = |request| ask(&server, request, LOOPBACK);
    check(on(request("POST", "/filter", good.clone())).await, 200, r#""NodeNames":["gpu-node-0"]"#);
    check(on(request("POST", "/prioritize", good)).await, 200, r#"[{"Host":"gpu-node-0","Score":10}]"#);
    for path in ["/filter", "/prioritize", "/bind"] {
        check(on(request("POST", path, "{")).await, 400, "not JSON");
        check(on(request("POST", path, too_large.clone())).await, 413, "nodeCacheCapable: true");
        check(on(request("GET", path, "")).await, 405, "only POST");
    }
    check(on(request("POST", "/filter", "{}")).await, 200, r#""Error":"the request has no Pod""#);
    check(on(request("POST", "/prioritize", "{}")).await, 500, "no Pod");
    check(on(request("POST", "/bind", "{}")).await, 200, "PodNamespace is not a name");
    check(on(request("POST", "/bind", "[7]")).await, 200, "not kube-scheduler's");
    check(on(request("POST", "/", "")).await, 404, "/filter /prioritize /preempt /bind");
    check(on(request("POST", "/filter/", "")).await, 404, "");
}

#[tokio::test]
async fn a_declared_length_is_enough_to_refuse() {
    let (server, _) = server();
    let mut request = request("POST", "/filter", "");
    request.headers_mut().insert("content-length", "99999999".parse().unwrap());
    check(ask(&server, request, LOOPBACK).await, 413, "larger than 8388608 bytes");
}

/// A body that never ends, nor goes on.
struct Stalled;

impl Body for Stalled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_given_up() {
    let (server, _) = server();
    let request = Request::builder().method("POST").uri("/filter").body(Stalled).unwrap();
    check(ask(&server, request, LOOPBACK).await, 408, "did not come within 5 s");
}

#[tokio::test]
async fn the_audit_is_served_on_the_loopback_alone() {
    let (server, _) = server();
    check(ask(&server, request("GET", "/debug/audit", ""), LOOPBACK).await, 200, "no findings");
    check(ask(&server, request("GET", "/debug/audit?format=json", ""), "[::1]:1").await, 200, "[]");
    check(ask(&server, request("POST", "/debug/audit", ""), LOOPBACK).await, 405, "only GET");
    check(ask(&server, request("GET", "/debug/audit", ""), "10.0.0.1:9412").await, 404, "");
}

#[tokio::test]
async fn requests_are_counted_by_verb_and_result() {
    let (server, registry) = server();
    for (path, body) in [("/filter", "{}"), ("/bind", "{"), ("/bind", "{}")] {
        ask(&server, request("POST", path, body), LOOPBACK).await;
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"stowage_scheduler_extender_requests_total{verb="filter",result="error"} 1"#,
        r#"stowage_scheduler_extender_requests_total{verb="bind",result="bad_request"} 1"#,
        r#"stowage_scheduler_extender_binds_total{result="refused"} 1"#,
        r#"stowage_scheduler_extender_request_duration_seconds_count{verb="filter"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// A server on a real socket; what stops it, and its end.
async fn listening() -> (TcpStream, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stop, stopped) = oneshot::channel();
    let stopped = async { drop(stopped.await) };
    let serving = tokio::spawn(server().0.serve(listener, stopped, Duration::from_secs(10)));
    (client, stop, serving)
}

fn http(body: &[u8]) -> Vec<u8> {
    let head = format!("POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Reads one answer: its head and as much body as the head says.
async fn read_answer(client: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        text.push(client.read_u8().await.unwrap());
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(text).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    client.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

#[tokio::test]
async fn one_connection_serves_many_requests_also_after_a_bad_one() {
    let (mut client, _stop, _) = listening().await;
    for body in [synthetic::request(synthetic::WHOLE, 1, ["gpu-node-0"]), b"{".to_vec(), b"{}".to_vec()] {
        client.write_all(&http(&body)).await.unwrap();
        let answer = read_answer(&mut client).await;
        assert!(answer.starts_with("http/1.1 200") || answer.starts_with("http/1.1 400"), "{answer}");
    }
}

#[tokio::test]
async fn a_request_under_way_is_answered_when_the_server_stops() {
    let (mut client, stop, serving) = listening().await;
    let body = synthetic::request(synthetic::WHOLE, 1, ["gpu-node-1"]);
    let length = body.len();
    let head = format!(
        "POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    client.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n", "the server has begun to read");
    drop(stop);
    client.write_all(&body).await.unwrap();
    let answer = read_answer(&mut client).await;
    assert!(
        answer.starts_with("http/1.1 200") && answer.contains(r#""NodeNames":["gpu-node-1"]"#),
        "{answer}"
    );
    tokio::time::timeout(Duration::from_secs(5), serving).await.expect("it ends at once").unwrap();
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let (mut client, stop, serving) = listening().await;
    client.write_all(&http(b"{}")).await.unwrap();
    read_answer(&mut client).await;
    drop(stop);
    tokio::time::timeout(Duration::from_secs(5), serving).await.expect("it ends at once").unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[test]
fn a_change_that_panics_half_way_is_never_built_upon() {
    let store = Arc::new(Store::default());
    let inside = store.clone();
    let panicked = std::thread::spawn(move || inside.change(|_| panic!("on purpose"))).join();
    assert!(panicked.is_err());
    assert_eq!(store.change(|_| ()), Err(crate::state::Broken));
}
