//! A recorded cluster behind the API server stand-in.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kubectl_stowage::answer::{Answer, Output};
use kubectl_stowage::ask::ask;
use kubectl_stowage::connect::Connected;
use kubectl_stowage::flags::Cli;
use serde_json::{Value, json};
use stowage_stand_ins::api_server::resources::{self, Gvr, ResourceType};
use stowage_stand_ins::api_server::{ApiServer, Options, Part, Store, StoreOptions};

/// When the cluster was recorded.
pub const NOW: &str = "2026-11-24T10:15:00Z";

/// Where the recorded objects and the golden files are.
pub fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A server that has the recorded objects.
pub struct Cluster {
    /// The server.
    pub server: ApiServer,
}

impl Cluster {
    /// The recorded cluster.
    pub async fn recorded() -> Self {
        Self::of(Self::recorded_objects()).await
    }

    /// Its objects.
    pub fn recorded_objects() -> Vec<Value> {
        let text = std::fs::read_to_string(here().join("cluster.yaml")).unwrap();
        serde_saphyr::from_multiple(&text).unwrap()
    }

    /// A cluster of these objects.
    pub async fn of(objects: Vec<Value>) -> Self {
        let mut known = resources::known();
        let admission =
            |plural, kind: &str| ResourceType::custom("admissionregistration.k8s.io", "v1", plural, kind);
        known.push(admission("validatingadmissionpolicies", "ValidatingAdmissionPolicy"));
        known.push(admission("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"));
        known.push(
            ResourceType::custom("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
                .namespaced()
                .with_status(),
        );
        let store = Store::new(StoreOptions { resources: known, seed: 1, ..StoreOptions::default() });
        put(&store, &objects);
        let server = ApiServer::start(Options { store: Some(store), ..Options::default() }).await.unwrap();
        Self { server }
    }

    /// Connects as kubectl would.
    pub async fn connected(&self, namespace: Option<&str>) -> Connected {
        let file = Kubeconfig::from_yaml(&self.server.kubeconfig(None)).unwrap();
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        let namespace = namespace.unwrap_or("default").to_owned();
        Connected { client: kube::Client::try_from(config).unwrap(), namespace }
    }

    /// Asks `kubectl stowage QUESTION`.
    pub async fn ask(&self, question: &str) -> Result<(Answer, Output)> {
        let cli = Cli::try_parse_from(std::iter::once("kubectl-stowage").chain(question.split(' ')))?;
        let connected = self.connected(cli.connection.namespace.as_deref()).await;
        let answer = ask(&cli, &connected, NOW.parse().unwrap()).await?;
        Ok((answer, cli.output))
    }

    /// The verbs of all requests so far.
    pub fn verbs(&self) -> BTreeSet<String> {
        self.server.audit().into_iter().map(|record| record.attributes.verb).collect()
    }
}

/// Puts objects into a store as they were recorded, with their statuses. The store gives UIDs of its own, so those
/// that were recorded (`UID-…`) are replaced wherever they are mentioned.
fn put(store: &Store, objects: &[Value]) {
    let mut uids: Vec<(String, String)> = Vec::new();
    let mut made = Vec::new();
    for object in objects {
        let (gvr, namespace, name) = place(object);
        if !namespace.is_empty() {
            // It may be there already.
            let _ = store.create(&resources::NAMESPACES, "", json!({ "metadata": { "name": namespace } }));
        }
        let created = store.create(&gvr, &namespace, object.clone());
        let created = created.unwrap_or_else(|error| panic!("{gvr:?} {name}: {error:?}"));
        if let Some(uid) = object["metadata"]["uid"].as_str() {
            uids.push((uid.to_owned(), created.uid().to_owned()));
        }
        made.push((gvr, namespace, name, object));
    }
    let replaced = |value: &Value| -> Value {
        let text = uids.iter().fold(value.to_string(), |text, (old, new)| text.replace(old, new));
        serde_json::from_str(&text).unwrap()
    };
    for (gvr, namespace, name, object) in made {
        if object["metadata"]["annotations"].is_object() {
            let annotations = replaced(&object["metadata"]["annotations"]);
            let change = |value: &mut Value| value["metadata"]["annotations"] = annotations;
            store.modify(&gvr, &namespace, &name, Part::Main, change).unwrap();
        }
        if object["status"].is_object() {
            let status = replaced(&object["status"]);
            store.modify(&gvr, &namespace, &name, Part::Status, |value| value["status"] = status).unwrap();
        }
    }
}

/// Where an object lives.
fn place(object: &Value) -> (Gvr, String, String) {
    let api = object["apiVersion"].as_str().unwrap();
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    let plural = match object["kind"].as_str().unwrap() {
        "ValidatingAdmissionPolicy" => "validatingadmissionpolicies".to_owned(),
        kind => kind.to_lowercase() + "s",
    };
    let gvr =
        Gvr { group: group.to_owned().into(), version: version.to_owned().into(), resource: plural.into() };
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    (gvr, text("namespace"), text("name"))
}
