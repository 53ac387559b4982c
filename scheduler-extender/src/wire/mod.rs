//! kube-scheduler's JSON, exactly.
//!
//! The Go types (`k8s.io/kube-scheduler/extender/v1`) carry no JSON tags, so their keys are PascalCase, and nil
//! arrives as `null`. Older releases wrote lower-case keys: they are read as well. Of the pod only what placement
//! looks at is read, and node names are borrowed from the body: a request may carry thousands.
//!
//! `Pod` is an ordinary API object; full `Nodes` come only where `nodeCacheCapable` is off, as who simulates a
//! scheduler has it: they are kept whole, since the answer carries them back.

mod answer;
mod names;
mod preempt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use stowage_shared::host::Host;
use stowage_shared::pod::{OwnAnnotations, PodSpec};
use stowage_shared::policy::{PolicyError, Want};
use stowage_shared::request::{Request, RequestError};

pub use self::answer::{Outcome, binding_result, filter_error, filter_result, host_priorities};
pub use self::names::Name;
pub use self::preempt::{
    Candidates, ExtenderPreemptionArgs, MetaVictim, Victims, WholeVictim, preemption_result,
    read_preemption_args,
};
use crate::state::GpuNames;

/// What kube-scheduler sends to filter and prioritize.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExtenderArgs<'a> {
    /// The pod to place.
    #[serde(alias = "pod", default)]
    pub pod: Option<Pod>,
    /// The nodes that are left, as API objects.
    #[serde(alias = "nodes", default)]
    nodes: Option<NodeList>,
    /// The nodes that are left.
    #[serde(alias = "nodenames", alias = "nodeNames", default, borrow)]
    node_names: Option<Vec<Name<'a>>>,
}

/// The same, and of the nodes only whether there are any.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AboutPod {
    #[serde(alias = "pod", default)]
    pod: Option<Pod>,
    #[serde(alias = "nodes", default)]
    nodes: Option<IgnoredAny>,
    #[serde(alias = "nodenames", alias = "nodeNames", default)]
    node_names: Option<IgnoredAny>,
}

/// API objects of nodes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeList {
    #[serde(deserialize_with = "null_is_default")]
    items: Vec<Value>,
}

/// A pod, as far as filter and prioritize go.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Who it is.
    #[serde(deserialize_with = "null_is_default")]
    pub metadata: Metadata,
    /// What it asks for.
    #[serde(deserialize_with = "null_is_default")]
    pub spec: PodSpec,
}

/// Who a pod is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Its namespace.
    #[serde(deserialize_with = "null_is_default")]
    pub namespace: String,
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Its UID.
    #[serde(deserialize_with = "null_is_default")]
    pub uid: String,
    /// What it says to us.
    pub annotations: OwnAnnotations,
}

impl Pod {
    /// What it wants of a node; `None` where it asks for no GPU.
    ///
    /// # Errors
    /// [`Unservable`].
    pub fn want(&self, names: &GpuNames) -> Result<Option<Want>, Unservable> {
        let annotation = |key: &str| self.metadata.annotations.get(key);
        let request = Request::of_pod(&self.spec, annotation, |name| names.is_gpu(name))?;
        let want = Want::of(&request, annotation)?;
        Ok(want.map(|want| Want { host: Host::of_pod(&self.spec), ..want }))
    }
}

/// What kube-scheduler sends to bind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExtenderBindingArgs {
    /// The pod's name.
    #[serde(alias = "podName", alias = "podname", deserialize_with = "null_is_default")]
    pub pod_name: String,
    /// The pod's namespace.
    #[serde(alias = "podNamespace", alias = "podnamespace", deserialize_with = "null_is_default")]
    pub pod_namespace: String,
    /// The pod's UID.
    #[serde(rename = "PodUID", alias = "podUID", alias = "poduid", deserialize_with = "null_is_default")]
    pub pod_uid: String,
    /// The node.
    #[serde(alias = "node", deserialize_with = "null_is_default")]
    pub node: String,
}

/// Why nobody can serve a pod.
#[derive(Debug, thiserror::Error)]
pub enum Unservable {
    /// What it asks for.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// What else it wants.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Why a body is no request that we can answer.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not JSON at all.
    #[error("the body is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// JSON, but not what kube-scheduler sends.
    #[error("the body is not kube-scheduler's: {0}")]
    NotArgs(serde_json::Error),
    /// There is no pod in it.
    #[error("the request has no Pod")]
    NoPod,
}

/// A checked request to filter or prioritize.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The pod.
    pub pod: Pod,
    names: Vec<Name<'a>>,
    /// One for each name, or none at all.
    nodes: Vec<Value>,
}

impl<'a> Asked<'a> {
    /// The nodes to choose from, in kube-scheduler's order.
    pub fn names(&self) -> &[Name<'a>] {
        &self.names
    }

    /// Those nodes as API objects, in the same order; empty where the request has names only.
    pub fn nodes(&self) -> &[Value] {
        &self.nodes
    }
}

/// Reads a request to filter or prioritize.
///
/// # Errors
/// [`WireError`].
pub fn read_args(body: &[u8]) -> Result<Asked<'_>, WireError> {
    let ExtenderArgs { pod, nodes, node_names } = read(body)?;
    let pod = pod.ok_or(WireError::NoPod)?;
    // Both are null where no node is left.
    let nodes = nodes.filter(|_| node_names.is_none()).unwrap_or_default().items;
    let names = node_names.unwrap_or_else(|| nodes.iter().map(Name::of).collect());
    Ok(Asked { pod, names, nodes })
}

/// Reads only which pod kube-scheduler wants to place; `None` also where whole nodes mean a simulation.
pub fn read_asker(body: &[u8]) -> Option<Pod> {
    let AboutPod { pod, nodes, node_names } = read(body).ok()?;
    pod.filter(|_| nodes.is_none() || node_names.is_some())
}

/// Reads a request to bind.
///
/// # Errors
/// [`WireError`].
pub fn read_binding_args(body: &[u8]) -> Result<ExtenderBindingArgs, WireError> {
    read(body)
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, WireError> {
    serde_json::from_slice(body)
        .map_err(|error| if error.is_data() { WireError::NotArgs(error) } else { WireError::NotJson(error) })
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn write_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Texts and JSON trees have a JSON form, and writing to a Vec cannot fail.
    let _ = value.serialize(&mut serde_json::Serializer::new(out));
}

#[cfg(test)]
mod tests;
