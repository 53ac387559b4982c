//! The extender of the script: it agrees to everything, but for what the script tells it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::fake_extender::FakeExtender;

/// A status and an answer, from the question.
type Rule = Arc<dyn Fn(&Value) -> (u16, Value) + Send + Sync>;

pub(super) struct Extender {
    server: FakeExtender,
    rules: Arc<Mutex<Rules>>,
}

#[derive(Default)]
struct Rules {
    /// By path, e.g. `filter`, or `widgets/filter` where one server is several extenders.
    answers: BTreeMap<String, Rule>,
    /// Binds, whatever is answered then.
    binds: bool,
}

impl Extender {
    /// Binds with this client.
    pub(super) async fn start(client: Client) -> Self {
        let rules = Arc::new(Mutex::new(Rules { binds: true, ..Rules::default() }));
        let known = rules.clone();
        let server = FakeExtender::start_with(move |path, asked| {
            let (known, client) = (known.clone(), client.clone());
            async move { answer(known, client, &path, &asked).await }.boxed()
        })
        .await;
        Self { server, rules }
    }

    /// `urlPrefix`.
    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    /// Where it listens: different in every run.
    pub(super) fn address(&self) -> String {
        self.server.address.to_string()
    }

    /// From now on this path is answered so. A `bind` is not carried out any more.
    pub(super) fn answer(&self, path: &str, rule: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static) {
        let mut rules = lock(&self.rules);
        rules.binds &= !path.ends_with("bind");
        rules.answers.insert(path.to_owned(), Arc::new(rule));
    }

    /// From now on this path is always answered so.
    pub(super) fn say(&self, path: &str, status: u16, answer: Value) {
        self.answer(path, move |_| (status, answer.clone()));
    }

    /// Gives nodes points, and the others none.
    pub(super) fn like<const COUNT: usize>(&self, path: &str, points: [(&'static str, i64); COUNT]) {
        self.answer(path, move |asked| {
            let points = BTreeMap::from(points);
            let score = |name| json!({ "Host": name, "Score": points.get(name).copied().unwrap_or(0) });
            (200, names(asked).map(score).collect())
        });
    }

    /// `bind` is carried out, and answered with an error.
    pub(super) fn bind_and_deny(&self, error: &str) {
        self.say("bind", 200, json!({ "Error": error }));
        lock(&self.rules).binds = true;
    }

    /// Agrees to everything again.
    pub(super) fn agree(&self) {
        *lock(&self.rules) = Rules { binds: true, ..Rules::default() };
    }

    /// All that was asked about the pod of this UID so far: path and question.
    pub(super) fn asked(&self, uid: &str) -> Vec<(String, Value)> {
        let about = |asked: &Value| asked.get("PodUID").unwrap_or(&asked["Pod"]["metadata"]["uid"]) == uid;
        self.server.asked().into_iter().filter(|(_, asked)| about(asked)).collect()
    }

    /// The names of all pods that a path was asked about, in order.
    pub(super) fn pods(&self, path: &str) -> Vec<String> {
        let name = |asked: &Value| asked["Pod"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.server.asked().iter().filter(|(p, _)| p == path).map(|(_, asked)| name(asked)).collect()
    }
}

/// The nodes that a question is about.
pub(super) fn names(asked: &Value) -> impl Iterator<Item = &str> {
    asked["NodeNames"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

async fn answer(rules: Arc<Mutex<Rules>>, client: Client, path: &str, asked: &Value) -> (u16, Value) {
    let (rule, binds) = {
        let rules = lock(&rules);
        (rules.answers.get(path).cloned(), rules.binds)
    };
    let is_bind = path.ends_with("bind");
    let error = if is_bind && binds { bind(client, asked).await } else { String::new() };
    match rule {
        Some(rule) => rule(asked),
        None if is_bind => (200, json!({ "Error": error })),
        None if path.ends_with("prioritize") => {
            (200, names(asked).map(|name| json!({ "Host": name, "Score": 0 })).collect())
        }
        None => (200, json!({ "NodeNames": asked["NodeNames"] })),
    }
}

/// Binds as asked; answers with what went wrong.
async fn bind(client: Client, asked: &Value) -> String {
    let text = |key: &str| asked[key].as_str().unwrap_or_default();
    let (namespace, name) = (text("PodNamespace"), text("PodName"));
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "namespace": namespace, "name": name, "uid": text("PodUID") },
        "target": { "apiVersion": "v1", "kind": "Node", "name": text("Node") },
    });
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let done = pods.create_subresource::<_, Value>("binding", name, &PostParams::default(), &binding).await;
    done.err().map(|error| error.to_string()).unwrap_or_default()
}

fn lock(rules: &Mutex<Rules>) -> MutexGuard<'_, Rules> {
    rules.lock().unwrap_or_else(PoisonError::into_inner)
}
