//! Slim API objects: of each object only what the state wants is kept, already while it is read.
//!
//! A cluster has tens of thousands of pods; managed fields, environments and volumes of each are skipped by the
//! parser instead of being stored for a moment. Nothing here fails for an object that somebody wrote oddly: one
//! broken GpuNode must not keep every other one from being read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ApiResource, ObjectMeta};
use kube::core::DynamicResourceScope;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use stowage_shared::contract::{API_GROUP, API_VERSION, RESERVE_LABEL};
use stowage_shared::gpu_node;
use stowage_shared::host::Host;
use stowage_shared::pod::{OwnAnnotations, PodSpec, PodStatus, Quantity};
use stowage_shared::policy::Reserve;
use stowage_shared::resource::ResourceName;

use crate::state::event;

/// An API object with the fields of its spec and status that `S` and `T` name, and with what `K` keeps of its metadata.
#[derive(Debug, Clone, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>, T: Deserialize<'de>, K: Keeps"))]
pub struct Object<S, T, K> {
    #[serde(deserialize_with = "K::metadata")]
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: Option<S>,
    #[serde(default)]
    pub(crate) status: Option<T>,
    #[serde(skip)]
    keeps: PhantomData<K>,
}

/// What is kept of an object's metadata.
pub trait Keeps {
    /// Reads metadata, as far as it is kept.
    ///
    /// # Errors
    /// Where it is no metadata.
    fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error>;
}

impl<S, T, K> kube::Resource for Object<S, T, K> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// An API object of which the state alone is told.
pub type Slim<S, T> = Object<S, T, WhoItIs>;

/// Names, versions, what annotations and labels say to us: all that the state needs of metadata.
#[derive(Debug, Clone, Copy)]
pub struct WhoItIs;

/// What the parser keeps of an object's metadata.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    #[serde(default)]
    deletion_timestamp: Option<Time>,
    #[serde(default)]
    annotations: OwnAnnotations,
    #[serde(default)]
    labels: Option<OwnLabels>,
}

/// The one label that matters to us, on nodes.
#[derive(Deserialize)]
struct OwnLabels {
    #[serde(rename = "stowage.dev/reserve-whole-gpus", default)]
    reserve: Option<String>,
}

impl OwnLabels {
    fn into_labels(self) -> Option<BTreeMap<String, String>> {
        self.reserve.map(|reserve| BTreeMap::from([(RESERVE_LABEL.to_owned(), reserve)]))
    }
}

impl Keeps for WhoItIs {
    fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
        let kept = Metadata::deserialize(deserializer)?;
        Ok(ObjectMeta {
            name: kept.name,
            namespace: kept.namespace,
            uid: kept.uid,
            resource_version: kept.resource_version,
            deletion_timestamp: kept.deletion_timestamp,
            annotations: Some(kept.annotations.into()),
            labels: kept.labels.and_then(OwnLabels::into_labels),
            ..ObjectMeta::default()
        })
    }
}

/// A kind that is watched.
pub trait Watched: kube::Resource<DynamicType = ApiResource> + Clone + Debug + Send + 'static {
    /// What the state is told.
    type Seen;

    /// Where it lives.
    fn resource() -> ApiResource;

    /// What the state is told of it.
    fn seen(self) -> Self::Seen;

    /// The key under which the state knows it.
    fn key(&self) -> String;
}

pub(crate) fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource {
        group: group.into(),
        version: version.into(),
        api_version,
        kind: kind.into(),
        plural: plural.into(),
    }
}

/// A pod.
pub type Pod = Slim<PodSpec, PodStatus>;

impl Watched for Pod {
    type Seen = event::Pod;

    fn resource() -> ApiResource {
        resource("", "v1", "Pod", "pods")
    }

    fn seen(mut self) -> event::Pod {
        let deleting = self.metadata.deletion_timestamp.is_some();
        let annotations = self.metadata.annotations.take().unwrap_or_default().into_iter().collect();
        let id = event::PodId {
            uid: self.metadata.uid.unwrap_or_default(),
            namespace: self.metadata.namespace.unwrap_or_default(),
            name: self.metadata.name.unwrap_or_default(),
        };
        let (spec, status) = (self.spec.unwrap_or_default(), self.status.unwrap_or_default());
        event::Pod::of(id, deleting, annotations, spec, &status)
    }

    fn key(&self) -> String {
        self.metadata.uid.clone().unwrap_or_default()
    }
}

/// A Node.
pub type Node = Slim<serde::de::IgnoredAny, NodeStatus>;

/// A Node's status, as far as placement goes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    conditions: Option<Vec<Condition>>,
    allocatable: Option<BTreeMap<String, Quantity>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Watched for Node {
    type Seen = event::Node;

    fn resource() -> ApiResource {
        resource("", "v1", "Node", "nodes")
    }

    fn seen(self) -> event::Node {
        let status = self.status.unwrap_or_default();
        let ready = |condition: &Condition| condition.kind == "Ready" && condition.status == "True";
        event::Node {
            name: self.metadata.name.unwrap_or_default(),
            uid: self.metadata.uid.unwrap_or_default(),
            ready: status.conditions.unwrap_or_default().iter().any(ready),
            host: status.allocatable.as_ref().map(host).unwrap_or_default(),
            allocatable: counts(status.allocatable.unwrap_or_default()),
            reserve: reserve(self.metadata.labels.as_ref()),
        }
    }

    fn key(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }
}

/// What a node's labels say that it keeps for large pods.
pub(crate) fn reserve(labels: Option<&BTreeMap<String, String>>) -> Reserve {
    Reserve::of(labels.and_then(|labels| labels.get(RESERVE_LABEL)).map(String::as_str))
}

/// CPU and memory among quantities.
pub(crate) fn host(quantities: &BTreeMap<String, Quantity>) -> Host {
    Host::of_node(|name| quantities.get(name))
}

/// The extended resources among quantities, as counts. cpu, memory and the like have no domain, and so are no resource
/// names to us.
pub(crate) fn counts(quantities: BTreeMap<String, Quantity>) -> BTreeMap<ResourceName, u64> {
    let count = |(name, quantity): (String, Quantity)| Some((name.parse().ok()?, quantity.as_count()?));
    quantities.into_iter().filter_map(count).collect()
}

/// A GpuNode; its status is read by the state, which says what is wrong with it.
pub type GpuNode = Slim<serde::de::IgnoredAny, Value>;

impl Watched for GpuNode {
    type Seen = event::GpuNode;

    fn resource() -> ApiResource {
        resource(API_GROUP, API_VERSION, gpu_node::KIND, gpu_node::PLURAL)
    }

    fn seen(self) -> event::GpuNode {
        let status = self.status.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        event::GpuNode {
            name: self.metadata.name.unwrap_or_default(),
            status: serde_json::from_value(status).map_err(|error| error.to_string()),
        }
    }

    fn key(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_read_with_its_plan_and_without_its_ballast() {
        let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"ns","uid":"u","resourceVersion":"1",
            "deletionTimestamp":"2026-11-24T09:00:00Z","annotations":{"a":"b","stowage.dev/plan":"{}"},"managedFields":[{}]},
            "spec":{"nodeName":"n","schedulerName":"stowage-scheduler","volumes":[1],"containers":[
              {"name":"a","resources":{"limits":{"cpu":"1"}}},
              {"name":"b","resources":{"limits":{"cpu":"1","nvidia.com/gpu":"2"}}}]},
            "status":{"phase":"Running"}}"#;
        let pod = serde_json::from_str::<Pod>(text).unwrap().seen();
        assert!(pod.deleting && pod.ours && pod.running && !pod.terminal);
        assert_eq!((&*pod.uid, &*pod.node, pod.plan.as_deref()), ("u", "n", Some("{}")));
        assert_eq!(pod.spec.containers.len(), 1);
        assert_eq!(pod.spec.containers[0].resources.limits.len(), 1);
    }

    #[test]
    fn a_node_is_read_with_its_extended_resources_and_its_reserve_alone() {
        let text = r#"{"metadata":{"name":"n","uid":"u","labels":{"a":"b","stowage.dev/reserve-whole-gpus":"4"}},
            "spec":{"taints":[]},"status":{
            "conditions":[{"type":"MemoryPressure","status":"False"},{"type":"Ready","status":"True"}],
            "allocatable":{"cpu":"7500m","nvidia.com/gpu":"8","nvidia.com/gpu.shared":"0"}}}"#;
        let node = serde_json::from_str::<Node>(text).unwrap().seen();
        assert_eq!((node.ready, node.reserve), (true, Reserve::Gpus(4)));
        let allocatable: Vec<_> = node.allocatable.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(allocatable, [("nvidia.com/gpu", 8), ("nvidia.com/gpu.shared", 0)]);
    }

    #[test]
    fn a_broken_gpu_node_is_an_answer_and_no_error() {
        for (status, broken) in [(r#""gpus":5"#, true), (r#""observedAt":"x""#, false)] {
            let text = format!(r#"{{"metadata":{{"name":"n"}},"status":{{{status}}}}}"#);
            let seen = serde_json::from_str::<GpuNode>(&text).unwrap().seen();
            assert_eq!(seen.status.is_err(), broken, "{status}");
        }
        let none = serde_json::from_str::<GpuNode>(r#"{"metadata":{"name":"n"}}"#).unwrap().seen();
        assert!(none.status.unwrap().gpus.is_empty());
    }
}
