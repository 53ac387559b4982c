//! Pods and nodes, as far as a scheduler looks at them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::amounts::{Amounts, PodAmounts};

/// A pod.
#[derive(Debug, Clone, Default)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `spec.schedulerName`.
    pub scheduler_name: String,
    /// `spec.nodeName`; empty while it waits.
    pub node_name: String,
    /// `spec.priority`.
    pub priority: i64,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// `spec.tolerations`.
    pub tolerations: Vec<Toleration>,
    /// What it asks for.
    pub amounts: PodAmounts,
    /// It waits behind a scheduling gate, or is being deleted: not to be scheduled.
    pub held_back: bool,
    /// It has succeeded or failed: it takes nothing any more.
    pub ended: bool,
    /// The whole object, for extenders; `null` where there is none.
    pub object: Arc<Value>,
}

/// One toleration of a pod.
#[derive(Debug, Clone, Default)]
pub struct Toleration {
    key: String,
    exists: bool,
    value: String,
    effect: String,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.unschedulable`: cordoned.
    pub unschedulable: bool,
    /// `spec.taints`.
    pub taints: Vec<Taint>,
    /// `status.allocatable`.
    pub allocatable: Amounts,
}

/// One taint of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl Pod {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Reads a pod object.
    pub fn read(object: Arc<Value>) -> Self {
        let (metadata, spec) = (&object["metadata"], &object["spec"]);
        let phase = object["status"]["phase"].as_str().unwrap_or_default();
        let tolerations = spec["tolerations"].as_array().into_iter().flatten();
        Self {
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
            uid: text(&metadata["uid"]),
            version: text(&metadata["resourceVersion"]),
            scheduler_name: text(&spec["schedulerName"]),
            node_name: text(&spec["nodeName"]),
            priority: spec["priority"].as_i64().unwrap_or_default(),
            node_selector: texts(&spec["nodeSelector"]),
            tolerations: tolerations.map(Toleration::read).collect(),
            amounts: PodAmounts::of(spec),
            held_back: !text(&metadata["deletionTimestamp"]).is_empty()
                || spec["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()),
            ended: ["Succeeded", "Failed"].contains(&phase),
            object,
        }
    }
}

impl Toleration {
    fn read(value: &Value) -> Self {
        Self {
            key: text(&value["key"]),
            exists: value["operator"] == "Exists",
            value: text(&value["value"]),
            effect: text(&value["effect"]),
        }
    }

    /// Whether it lets a pod onto a node with this taint. An empty key with `Exists` tolerates all keys,
    /// an empty effect all effects.
    pub(super) fn tolerates(&self, taint: &Taint) -> bool {
        let key = if self.key.is_empty() { self.exists } else { self.key == taint.key };
        let value = self.exists || self.value == taint.value;
        let effect = self.effect.is_empty() || self.effect == taint.effect;
        key && value && effect
    }
}

impl Node {
    /// Reads a node object.
    pub fn read(object: &Value) -> Self {
        let (metadata, spec) = (&object["metadata"], &object["spec"]);
        let taint = |taint: &Value| Taint {
            key: text(&taint["key"]),
            value: text(&taint["value"]),
            effect: text(&taint["effect"]),
        };
        Self {
            name: text(&metadata["name"]),
            uid: text(&metadata["uid"]),
            version: text(&metadata["resourceVersion"]),
            labels: texts(&metadata["labels"]),
            unschedulable: spec["unschedulable"] == true,
            taints: spec["taints"].as_array().into_iter().flatten().map(taint).collect(),
            allocatable: Amounts::of(&object["status"]["allocatable"]),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect()
}
