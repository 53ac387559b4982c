//! One script of requests, for the API server stand-in and for the real one.
//!
//! Include it with `#[path = "…/api_server_script/mod.rs"]` and run [`script`] against both: the two lists
//! of outcomes must be equal. An outcome is a line of text with nothing in it that differs from run to
//! run: no UIDs, versions, times or generated names, and every number in a sentence is a `#`.
//!
//! What kube-apiserver 1.36.1 answers is in [`ANSWERS`], so that the stand-in is held to it where there
//! is no real server. `tests/api_server/conformance.rs` says how the files are made anew.
//!
//! What the server needs beforehand: the custom resource [`widget_crd`]. What it gets: namespaces
//! called [`NAMESPACE`], `script-streams` and `script-extra`, a node called `script-node`, and widgets,
//! all deleted in the end. No other program may write to them; a controller manager does not disturb.

mod patches;
mod pods;
mod reads;
mod writes;

use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::{Body, Client};
use serde_json::{Value, json};

/// What the real API server answers to [`script`]: `step: outcome` lines.
pub const ANSWERS: &str = include_str!("kubernetes-1.36.1.txt");
/// What it answers to [`streaming_script`], with etcd 3.6.5.
#[allow(dead_code)] // each includer uses what its server can do
pub const STREAMING_ANSWERS: &str = include_str!("kubernetes-1.36.1-streaming.txt");

/// Where the script does its work.
pub const NAMESPACE: &str = "script";
/// A UID that no object has.
const WRONG_UID: &str = "00000000-0000-4000-8000-000000000000";

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

const PODS: &str = "/api/v1/namespaces/script/pods";
const CONFIG_MAPS: &str = "/api/v1/namespaces/script/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/script/leases";
const WIDGETS: &str = "/apis/script.stowage.dev/v1/widgets";

/// The custom resource that the script writes, for a real server: cluster-scoped, with a status,
/// without a schema.
#[allow(dead_code)] // each includer uses what its server needs
pub fn widget_crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.script.stowage.dev" },
        "spec": {
            "group": "script.stowage.dev",
            "names": { "plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList" },
            "scope": "Cluster",
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "schema": {
                    "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                },
            }],
        },
    })
}

/// Runs all steps, and says what came of each: its name and its outcome.
pub async fn script(client: Client) -> Vec<(String, String)> {
    let mut run = Run { client, steps: Vec::new() };
    run.set_up().await;
    run.unknown_things().await;
    run.creates().await;
    run.lists().await;
    run.updates().await;
    run.statuses().await;
    run.patches().await;
    run.applies().await;
    run.bindings().await;
    run.deletions().await;
    run.watches().await;
    run.other_resources().await;
    run.tear_down().await;
    run.steps
}

/// Streaming lists, by themselves: a real server has them only with an etcd that reports its progress
/// (3.4.31, 3.5.13 or newer; Debian's is older), and answers with an error event otherwise.
#[allow(dead_code)] // as above
pub async fn streaming_script(client: Client) -> Vec<(String, String)> {
    let mut run = Run { client, steps: Vec::new() };
    run.streaming_lists().await;
    run.steps
}

struct Run {
    client: Client,
    steps: Vec<(String, String)>,
}

impl Run {
    async fn set_up(&mut self) {
        self.post("/api/v1/namespaces", json!({ "metadata": { "name": NAMESPACE } })).await;
        // A pod needs its service account on a real server; a controller may be making it just now.
        let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
        self.post(&accounts, json!({ "metadata": { "name": "default" } })).await;
    }

    async fn tear_down(&mut self) {
        for path in
            ["/api/v1/nodes/script-node", "/api/v1/namespaces/script", "/api/v1/namespaces/script-extra"]
        {
            self.call(Method::DELETE, path, "", Value::Null).await;
        }
        self.call(Method::DELETE, WIDGETS, "", Value::Null).await;
    }

    /// Records what was seen.
    fn note(&mut self, step: &str, outcome: impl Into<String>) {
        self.steps.push((step.to_owned(), outcome.into()));
    }

    async fn get(&mut self, step: &str, path: &str, seen: &[&str]) -> Value {
        self.show(step, Method::GET, path, Value::Null, seen).await
    }

    async fn create(&mut self, step: &str, path: &str, body: Value, seen: &[&str]) -> Value {
        self.show(step, Method::POST, path, body, seen).await
    }

    async fn put(&mut self, step: &str, path: &str, body: Value, seen: &[&str]) -> Value {
        self.show(step, Method::PUT, path, body, seen).await
    }

    async fn delete(&mut self, step: &str, path: &str, options: Value, seen: &[&str]) -> Value {
        self.show(step, Method::DELETE, path, options, seen).await
    }

    async fn patch(&mut self, step: &str, path: &str, kind: &str, patch: Value, seen: &[&str]) -> Value {
        let (code, answer) = self.call(Method::PATCH, path, kind, patch).await;
        self.note(step, outcome(code, &answer, seen));
        answer
    }

    async fn show(&mut self, step: &str, method: Method, path: &str, body: Value, seen: &[&str]) -> Value {
        let (code, answer) = self.call(method, path, "application/json", body).await;
        self.note(step, outcome(code, &answer, seen));
        answer
    }

    /// A create that is part of no step.
    async fn post(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, path, "application/json", body).await.1
    }

    /// A read that is part of no step.
    async fn read(&self, path: &str) -> Value {
        self.call(Method::GET, path, "", Value::Null).await.1
    }

    /// One request. An answer that is no JSON comes back as text.
    async fn call(&self, method: Method, path: &str, content_type: &str, body: Value) -> (u16, Value) {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header("content-type", content_type)
            .body(Body::from(bytes))
            .unwrap_or_else(|error| panic!("{method} {path} is no request: {error}"));
        let response =
            self.client.send(request).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let code = response.status().as_u16();
        let body = response.into_body().collect().await;
        let body = body.unwrap_or_else(|error| panic!("{method} {path}: {error}")).to_bytes();
        let text = || Value::from(String::from_utf8_lossy(&body).into_owned());
        (code, serde_json::from_slice(&body).unwrap_or_else(|_| text()))
    }
}

/// The outcome of a step: what was refused and why, or the members at `seen` (JSON pointers).
fn outcome(code: u16, answer: &Value, seen: &[&str]) -> String {
    if let Some(text) = answer.as_str() {
        return format!("{code} {text:?}");
    }
    if code >= 400 {
        // A long message goes on with a diff that only the real server gives.
        let message = answer["message"].as_str().unwrap_or_default();
        let message = message.split(['\n', '{']).next().unwrap_or_default();
        let mut details = answer["details"].clone();
        if let Some(details) = details.as_object_mut() {
            details.remove("uid");
            details.remove("causes");
        }
        return format!("{code} {} {} {details}", answer["reason"], plain(message));
    }
    let seen: Vec<String> =
        seen.iter().map(|path| format!("{path}={}", answer.pointer(path).unwrap_or(&Value::Null))).collect();
    format!("{code} {}", seen.join(" "))
}

/// A sentence without UIDs and numbers.
fn plain(sentence: &str) -> String {
    let is_uid = |word: &str| {
        word.len() == 36 && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-') && word.contains('-')
    };
    let word = |word: &str| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let word = if is_uid(bare) { word.replace(bare, "UID") } else { word.to_owned() };
        let mut out = String::new();
        for c in word.chars() {
            match c {
                '0'..='9' if out.ends_with('#') => {}
                '0'..='9' => out.push('#'),
                other => out.push(other),
            }
        }
        out
    };
    sentence.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "main",
                "image": "example.com/none",
                "resources": { "limits": { "nvidia.com/gpu": "1" } },
            }],
        },
    })
}

/// The object with one long annotation.
fn annotated(mut object: Value, length: usize) -> Value {
    object["metadata"]["annotations"] = json!({ "long": "x".repeat(length) });
    object
}

/// The names of a list's items, in their order.
fn names_of(list: &Value) -> String {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect();
    names.join(" ")
}
