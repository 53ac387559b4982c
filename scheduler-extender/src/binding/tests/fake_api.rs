//! As much of an API server as a bind needs, as a service below kube's client: it reads pods and binds them, with
//! the preconditions of the real one, and loses answers on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use stowage_shared::contract::PLAN_ANNOTATION;

use crate::state::event;

/// What goes wrong with a POST of a Binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// It is carried out, and the connection breaks before the answer.
    AnswerCut,
    /// The connection breaks before it is carried out.
    RequestCut,
    /// It is answered with this status, and not carried out.
    Status(u16),
    /// It is carried out, and answered with this status nevertheless.
    StatusAfter(u16),
    /// Nobody answers.
    Hangs,
}

#[derive(Debug, Default)]
struct Inner {
    pods: BTreeMap<String, event::Pod>,
    posts: usize,
    gets: usize,
}

/// The fake API server.
#[derive(Clone)]
pub(super) struct FakeApi {
    inner: Arc<Mutex<Inner>>,
    fault: Arc<Mutex<Fault>>,
    /// Whether pods can be read.
    readable: Arc<Mutex<bool>>,
}

impl FakeApi {
    pub(super) fn new(pods: impl IntoIterator<Item = event::Pod>) -> Self {
        let pods = pods.into_iter().map(|pod| (pod.name.clone(), pod)).collect();
        Self {
            inner: Arc::new(Mutex::new(Inner { pods, ..Inner::default() })),
            fault: Arc::new(Mutex::new(Fault::None)),
            readable: Arc::new(Mutex::new(true)),
        }
    }

    pub(super) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.serve(request).await }
        });
        Client::new(service, "default")
    }

    pub(super) fn set(&self, fault: Fault, readable: bool) {
        *self.fault.lock().unwrap() = fault;
        *self.readable.lock().unwrap() = readable;
    }

    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut event::Pod)) {
        change(self.inner.lock().unwrap().pods.get_mut(name).unwrap());
    }

    pub(super) fn remove(&self, name: &str) {
        self.inner.lock().unwrap().pods.remove(name);
    }

    pub(super) fn pods(&self) -> Vec<event::Pod> {
        self.inner.lock().unwrap().pods.values().cloned().collect()
    }

    /// How many (POSTs, GETs) there were.
    pub(super) fn calls(&self) -> (usize, usize) {
        let inner = self.inner.lock().unwrap();
        (inner.posts, inner.gets)
    }

    async fn serve(&self, request: Request<Body>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        // Gives other binds a chance to come in between, as a network does.
        tokio::task::yield_now().await;
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["api", "v1", "namespaces", _, "pods", name]) => {
                if !*self.readable.lock().unwrap() {
                    return Err(std::io::ErrorKind::ConnectionReset.into());
                }
                Ok(self.get(name))
            }
            (&Method::POST, ["api", "v1", "namespaces", _, "pods", name, "binding"]) => {
                let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap();
                self.post(name, &body).await
            }
            other => panic!("nobody should call {other:?}"),
        }
    }

    fn get(&self, name: &str) -> Response<Full<Bytes>> {
        let mut inner = self.inner.lock().unwrap();
        inner.gets += 1;
        let Some(pod) = inner.pods.get(name) else { return status(404, "NotFound", "no such pod") };
        let annotations = pod.plan.as_ref().map(|plan| json!({ PLAN_ANNOTATION: plan }));
        let deleted = pod.deleting.then_some("2026-11-24T09:00:00Z");
        let mut spec = serde_json::to_value(&pod.spec).unwrap();
        spec["nodeName"] = json!(pod.node);
        spec["schedulerName"] = json!(if pod.ours { "stowage-scheduler" } else { "default-scheduler" });
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "spec": spec, "status": { "phase": "Pending" },
            "metadata": { "name": pod.name, "namespace": pod.namespace, "uid": pod.uid, "resourceVersion": "1",
                "annotations": annotations, "deletionTimestamp": deleted },
        });
        answer(200, &object)
    }

    async fn post(&self, name: &str, binding: &Value) -> Result<Response<Full<Bytes>>, std::io::Error> {
        self.inner.lock().unwrap().posts += 1;
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::RequestCut => Err(std::io::ErrorKind::ConnectionReset.into()),
            Fault::Status(code) => Ok(status(code, "Fault", "as asked")),
            Fault::Hangs => std::future::pending().await,
            Fault::None => Ok(self.carry_out(name, binding)),
            Fault::AnswerCut => {
                self.carry_out(name, binding);
                Err(std::io::ErrorKind::ConnectionReset.into())
            }
            Fault::StatusAfter(code) => {
                self.carry_out(name, binding);
                Ok(status(code, "Fault", "as asked"))
            }
        }
    }

    /// Binds as the real one does: `uid` is a precondition, a bound pod stays bound, annotations are merged.
    fn carry_out(&self, name: &str, binding: &Value) -> Response<Full<Bytes>> {
        assert_eq!((&binding["apiVersion"], &binding["kind"]), (&json!("v1"), &json!("Binding")));
        assert_eq!(binding["target"]["kind"], "Node");
        let mut inner = self.inner.lock().unwrap();
        let Some(pod) = inner.pods.get_mut(name) else { return status(404, "NotFound", "no such pod") };
        if binding["metadata"]["uid"] != json!(pod.uid) {
            return status(409, "Conflict", "the UID in the precondition does not match");
        }
        if pod.deleting {
            return status(409, "Conflict", "pod is being deleted, cannot be assigned to a host");
        }
        if !pod.node.is_empty() {
            return status(409, "Conflict", &format!("pod {name} is already assigned to node {}", pod.node));
        }
        pod.node = binding["target"]["name"].as_str().unwrap().to_owned();
        if let Some(plan) = binding["metadata"]["annotations"][PLAN_ANNOTATION].as_str() {
            pod.plan = Some(plan.to_owned());
        }
        answer(201, &json!({ "apiVersion": "v1", "kind": "Status", "status": "Success", "code": 201 }))
    }
}

fn status(code: u16, reason: &str, message: &str) -> Response<Full<Bytes>> {
    let status = json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
        "reason": reason, "message": message });
    answer(code, &status)
}

fn answer(code: u16, body: &Value) -> Response<Full<Bytes>> {
    let body = Full::new(Bytes::from(body.to_string()));
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}
