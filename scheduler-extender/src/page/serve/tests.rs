use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use serde_json::{Value, json};
use stowage_shared::contract::MAP_BODY_MAX_BYTES;

use super::super::body::POLICY;
use super::*;
use crate::clock::Now;
use crate::state::event::{Change, Event};
use crate::synthetic;

/// An API server that is not there.
fn nobody() -> Client {
    let service = tower::service_fn(|_: Request<kube::client::Body>| async {
        Err::<Response<Full<Bytes>>, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    });
    Client::new(service, "default")
}

/// An API server that takes every token, and lets nobody list pods.
fn lenient() -> Client {
    let service = tower::service_fn(|request: Request<kube::client::Body>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut review: Value = serde_json::from_slice(&body).unwrap();
        let allowed = review["spec"]["resourceAttributes"]["resource"] != "pods";
        review["status"] = json!({ "authenticated": true, "user": { "username": "x" }, "allowed": allowed });
        Ok::<_, std::io::Error>(Response::new(Full::new(Bytes::from(review.to_string()))))
    });
    Client::new(service, "default")
}

fn page(access: Option<Access>) -> Arc<Page> {
    Page::of(Arc::new(Store::new(synthetic::state(2, 4, Now::read()))), access)
}

const LOCAL: &[(&str, &str)] = &[("host", "localhost:9413")];
const JSON: &[(&str, &str)] = &[("host", "localhost:9413"), ("content-type", "application/json")];

fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).unwrap()
}

async fn ask(page: &Arc<Page>, request: Request<Full<Bytes>>) -> (u16, String) {
    let response = respond(page, request).await;
    let headers = response.headers();
    assert_eq!(headers["content-security-policy"], POLICY, "every answer has it");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    assert!(headers.get("access-control-allow-origin").is_none());
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[track_caller]
fn check((status, body): (u16, String), want: u16, says: &str) {
    assert!(status == want && body.contains(says), "{status} {body}");
}

fn manifest(text: &str) -> String {
    json!({ "manifest": text }).to_string()
}

#[tokio::test]
async fn every_request_has_its_status() {
    let page = page(None);
    let on = |request| ask(&page, request);
    check(on(request("GET", "/", LOCAL, "")).await, 200, "<!doctype html>");
    check(on(request("GET", "/main.js", LOCAL, "")).await, 200, "import");
    check(on(request("GET", "/../Cargo.toml", LOCAL, "")).await, 404, "the map is at /");
    check(on(request("POST", "/", LOCAL, "")).await, 405, "only GET");
    check(on(request("DELETE", "/api/v1/events", LOCAL, "")).await, 405, "only GET");
    check(on(request("GET", "/api/v1/what-if", LOCAL, "")).await, 405, "only POST");
    check(on(request("POST", "/api/v1/what-if", LOCAL, "{}")).await, 415, "application/json");
    check(on(request("POST", "/api/v1/what-if", JSON, "{")).await, 422, "manifest");
    check(
        on(request("POST", "/api/v1/what-if", JSON, r#"{"manifest":"a: ["}"#)).await,
        422,
        "neither YAML nor JSON",
    );
    let too_large = vec![b' '; MAP_BODY_MAX_BYTES + 1];
    check(on(request("POST", "/api/v1/what-if", JSON, too_large)).await, 413, "at most 1048576 bytes");
    let no_gpu = manifest("kind: Pod\nspec: { containers: [ { name: a } ] }");
    check(on(request("POST", "/api/v1/what-if", JSON, no_gpu)).await, 422, "asks for no GPU");
    let half = manifest(
        "kind: Pod\nspec: { containers: [ { name: a, resources: { limits: { nvidia.com/gpu: 500m } } } ] }",
    );
    check(on(request("POST", "/api/v1/what-if", JSON, half)).await, 422, "whole devices only");
    check(on(request("GET", "/api/v1/waiting/nobody", LOCAL, "")).await, 404, "no such pod");
}

#[tokio::test]
async fn another_site_gets_nothing() {
    let page = page(None);
    let rebound = [("host", "evil.example:9413")];
    for path in ["/", "/api/v1/events", "/api/v1/waiting/u"] {
        check(ask(&page, request("GET", path, &rebound, "")).await, 421, "http://localhost");
    }
    let cross = [JSON, &[("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")]].concat();
    check(ask(&page, request("POST", "/api/v1/what-if", &cross, "{}")).await, 403, "another site");
    check(ask(&page, request("GET", "/api/v1/events", &cross, "")).await, 403, "another site");
}

#[tokio::test]
async fn a_pod_that_is_tried_out_holds_nothing() {
    let page = page(None);
    let pod = manifest(
        "kind: Pod\nspec: { containers: [ { name: a, resources: { limits: { nvidia.com/gpu: 1 } } } ] }",
    );
    let before = page.store.change(|state| state.assumptions()).unwrap();
    let (status, body) = ask(&page, request("POST", "/api/v1/what-if", JSON, pod)).await;
    let said: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &said["said"]["fits"]), (200, &json!(2)), "{body}");
    assert_eq!(page.store.change(|state| state.assumptions()).unwrap(), before);
}

#[tokio::test]
async fn a_pod_that_waits_is_explained() {
    let page = page(None);
    let pod = synthetic::pod("p", "u", synthetic::WHOLE, 9);
    page.store.change(|state| state.apply(Event::Pod(Change::Applied(pod)), Now::read())).unwrap();
    let answer = ask(&page, request("GET", "/api/v1/waiting/u", LOCAL, "")).await;
    check(answer, 200, "fewer nvidia.com/gpu on this node than the pod asks for");
}

#[tokio::test]
async fn on_another_address_data_need_a_token_and_files_do_not() {
    let page = page(Some(Access::new(nobody())));
    let remote = [("host", "map.example")];
    check(ask(&page, request("GET", "/", &remote, "")).await, 200, "<!doctype html>");
    for (method, path) in
        [("GET", "/api/v1/events"), ("GET", "/api/v1/waiting/u"), ("POST", "/api/v1/what-if")]
    {
        check(ask(&page, request(method, path, &remote, "")).await, 401, "Authorization: Bearer");
        let token = [remote[0], ("authorization", "Bearer t")];
        check(ask(&page, request(method, path, &token, "")).await, 503, "the API server cannot be asked");
    }
}

#[tokio::test]
async fn who_may_not_list_pods_is_told_of_none() {
    let page = page(Some(Access::new(lenient())));
    let token =
        [("host", "map.example"), ("authorization", "Bearer t"), ("content-type", "application/json")];
    check(
        ask(&page, request("GET", "/api/v1/waiting/u", &token, "")).await,
        403,
        "list pods in all namespaces",
    );
    let pod = manifest(
        "kind: Pod\nmetadata: { namespace: secret }\nspec: { containers: [ { name: a, resources: { limits: { nvidia.com/gpu: 1 } } } ] }",
    );
    let (status, body) = ask(&page, request("POST", "/api/v1/what-if", &token, pod)).await;
    assert!(status == 200 && !body.contains("secret"), "{status} {body}");
}

#[tokio::test]
async fn one_reader_too_many_is_told_so() {
    let page = page(None);
    let readers: Vec<_> = std::iter::from_fn(|| page.hub.join()).collect();
    check(ask(&page, request("GET", "/api/v1/events", LOCAL, "")).await, 503, "close another map");
    drop(readers);
    let response = respond(&page, request("GET", "/api/v1/events", LOCAL, "")).await;
    let headers = response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store");
}
