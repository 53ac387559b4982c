//! What the planner decides, first for single pods and then in a world where everything happens at random.

mod course;
mod rules;
mod world;

use std::time::Instant;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Round, Scene, plan};
use crate::book::Book;
use crate::book::objects::Pod;
use crate::book::tests::{node, pod};
use crate::clock::Now;
use crate::state::State;
use crate::state::event::{Change, Event};
use crate::synthetic;
use crate::verbs::Memo;

pub(crate) fn now() -> Now {
    Now { monotonic: Instant::now(), wall: Timestamp::now() }
}

/// A GPU node as the API server has it, for the book.
pub(crate) fn site(name: &str, cpu: u32, more: &Value) -> Value {
    let mut node = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": {},
        "status": { "allocatable": { "cpu": cpu.to_string(), "memory": "64Gi", "pods": "20",
            synthetic::WHOLE: "4", synthetic::SLICE: "14", synthetic::SHARE: "8" } },
    });
    if let Some(more) = more.as_object() {
        more.iter().for_each(|(key, value)| node["spec"][key] = value.clone());
    }
    node
}

/// A waiting pod as the API server has it.
pub(crate) fn asks(name: &str, resource: &str, count: u32, more: &Value) -> Value {
    let limits = json!({ resource: count.to_string(), "cpu": "1" });
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name, "resourceVersion": "1",
            "creationTimestamp": "2026-11-24T09:00:00Z" },
        "spec": { "schedulerName": "stowage-scheduler",
            "containers": [{ "name": "main", "resources": { "limits": limits } }] },
        "status": { "phase": "Pending" },
    });
    if let Some(more) = more.as_object() {
        more.iter().for_each(|(key, value)| pod["spec"][key] = value.clone());
    }
    pod
}

/// A cluster with its two books.
pub(crate) struct Cluster {
    pub(crate) state: State,
    pub(crate) book: Book,
    memo: Memo,
    pub(crate) now: Now,
}

impl Cluster {
    pub(crate) fn of(nodes: usize) -> Self {
        let now = now();
        let mut book = Book::default();
        for name in (0..nodes).map(synthetic::gpu_node_name) {
            book.apply_node(Change::Applied(node(site(&name, 16, &json!({})))));
        }
        Self { state: synthetic::state(nodes, 0, now), book, memo: Memo::default(), now }
    }

    /// Tells both books of a pod.
    pub(crate) fn tell(&mut self, object: &Value) -> Pod {
        let object: crate::book::read::PodObject = serde_json::from_value(object.clone()).unwrap();
        self.state.apply(Event::Pod(Change::Applied(object.narrow())), self.now);
        let told = Pod::of(object, &mut self.book.names);
        self.book.apply_pod(Change::Applied(told.clone()));
        told
    }

    pub(crate) fn gone(&mut self, uid: &str) {
        self.state.apply(Event::Pod(Change::Deleted(uid.into())), self.now);
        self.book.apply_pod(Change::Deleted(uid.into()));
    }

    fn plan(&mut self, limit: usize) -> Round {
        // Whatever was told meanwhile or not: a new one.
        self.state.touch_any();
        let snapshot = self.state.snapshot().unwrap();
        self.book.refresh();
        let scene =
            Scene { snapshot: &snapshot, memo: &self.memo, book: &self.book, now: self.now.monotonic };
        plan(&scene, None, limit, |_| false)
    }

    /// Plans, and keeps room for what is planned; who goes where.
    fn nominate(&mut self, limit: usize) -> Vec<(String, String)> {
        let round = self.plan(limit);
        for it in &round.nominations {
            self.state.nominate(&it.uid, &it.node);
        }
        round.nominations.into_iter().map(|it| (it.uid, it.node.to_string())).collect()
    }
}

/// A book's own pod, for tests elsewhere.
#[test]
fn objects_are_read_as_the_tests_mean_them() {
    let pod = pod(asks("p", synthetic::WHOLE, 2, &json!({ "priority": 3 })));
    assert_eq!((pod.priority, pod.wants.get(synthetic::WHOLE), pod.wants.get("cpu")), (3, 2, 1000));
}
