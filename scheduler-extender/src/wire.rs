//! kube-scheduler's JSON, exactly.
//!
//! The Go types (`k8s.io/kube-scheduler/extender/v1`) carry no JSON tags, so their keys are PascalCase, and nil
//! arrives as `null`. Older releases wrote lower-case keys: they are read as well. Of the pod only what placement
//! looks at is read, and node names are borrowed from the body: a request may carry thousands.
//!
//! `Pod` is an ordinary API object; full `Nodes` come only where `nodeCacheCapable` is off, which is refused.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use stowage_shared::pod::{OwnAnnotations, PodSpec};
use stowage_shared::request::{Request, RequestError};

use crate::state::GpuNames;

/// What kube-scheduler sends to filter and prioritize.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExtenderArgs<'a> {
    /// The pod to place.
    #[serde(alias = "pod", default)]
    pub pod: Option<Pod>,
    /// Full nodes: not read, only noticed.
    #[serde(alias = "nodes", default)]
    nodes: Option<IgnoredAny>,
    /// The nodes that are left.
    #[serde(alias = "nodenames", alias = "nodeNames", default, borrow)]
    node_names: Option<Vec<Name<'a>>>,
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
    /// What it asks for of GPUs.
    ///
    /// # Errors
    /// [`RequestError`], where nobody could serve it.
    pub fn request(&self, names: &GpuNames) -> Result<Request, RequestError> {
        Request::of_pod(&self.spec, |key| self.metadata.annotations.get(key), |name| names.is_gpu(name))
    }
}

/// A node's name, borrowed from the body where it has no escapes.
#[derive(Debug, Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

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
    /// It carries whole nodes.
    #[error("the request carries no NodeNames: set nodeCacheCapable: true for this extender")]
    NoNames,
}

/// A checked request to filter or prioritize.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The pod.
    pub pod: Pod,
    names: Vec<Name<'a>>,
}

impl Asked<'_> {
    /// The nodes to choose from, in kube-scheduler's order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(|name| &*name.0)
    }
}

/// Reads a request to filter or prioritize.
///
/// # Errors
/// [`WireError`].
pub fn read_args(body: &[u8]) -> Result<Asked<'_>, WireError> {
    let ExtenderArgs { pod, nodes, node_names } = read(body)?;
    let pod = pod.ok_or(WireError::NoPod)?;
    match node_names {
        // Both are null where no node is left.
        None if nodes.is_some() => Err(WireError::NoNames),
        names => Ok(Asked { pod, names: names.unwrap_or_default() }),
    }
}

/// What kube-scheduler sends to preempt.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExtenderPreemptionArgs {
    /// The pod that wants room.
    #[serde(alias = "pod", default)]
    pub pod: Option<Pod>,
    /// Where it could have it, and who would have to go; with whole pods. Comes where nodes come whole.
    #[serde(alias = "nodeNameToVictims", default, deserialize_with = "null_is_default")]
    pub node_name_to_victims: BTreeMap<String, Victims<WholeVictim>>,
    /// The same by UID.
    #[serde(alias = "nodeNameToMetaVictims", default, deserialize_with = "null_is_default")]
    pub node_name_to_meta_victims: BTreeMap<String, Victims<MetaVictim>>,
}

/// Who would have to go from one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Victims<V: Default> {
    /// The pods.
    #[serde(deserialize_with = "null_is_default", bound(deserialize = "V: Deserialize<'de>"))]
    pub pods: Vec<V>,
    /// How many of them a PodDisruptionBudget protects.
    #[serde(rename = "NumPDBViolations", deserialize_with = "null_is_default")]
    pub num_pdb_violations: i64,
}

/// A victim, by UID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct MetaVictim {
    /// Its UID.
    #[serde(rename = "UID", alias = "uid", deserialize_with = "null_is_default")]
    pub uid: String,
}

/// A victim as an API object, of which the UID is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct WholeVictim {
    #[serde(deserialize_with = "null_is_default")]
    metadata: Metadata,
}

/// Candidates for preemption: by node, who would have to go.
pub type Candidates = BTreeMap<String, Victims<MetaVictim>>;

/// Reads a request to preempt.
///
/// # Errors
/// [`WireError`].
pub fn read_preemption_args(body: &[u8]) -> Result<(Pod, Candidates), WireError> {
    let args: ExtenderPreemptionArgs = read(body)?;
    let pod = args.pod.ok_or(WireError::NoPod)?;
    let meta = |victims: Victims<WholeVictim>| Victims {
        pods: victims.pods.into_iter().map(|pod| MetaVictim { uid: pod.metadata.uid }).collect(),
        num_pdb_violations: victims.num_pdb_violations,
    };
    let mut candidates = args.node_name_to_meta_victims;
    candidates.extend(args.node_name_to_victims.into_iter().map(|(node, victims)| (node, meta(victims))));
    Ok((pod, candidates))
}

/// `ExtenderPreemptionResult`: always by UID.
pub fn preemption_result(candidates: &Candidates) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Result<'a> {
        node_name_to_meta_victims: &'a Candidates,
    }
    // Strings and numbers to a Vec: it cannot fail.
    serde_json::to_vec(&Result { node_name_to_meta_victims: candidates }).unwrap_or_default()
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

/// Filter's answer: each node of the request stands in one of the lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filtered<'a> {
    /// Where the pod fits, in the order of the request.
    pub fitting: Vec<&'a str>,
    /// Where it does not fit now, with the reason.
    pub failed: Vec<(&'a str, Reason)>,
    /// Where it would not fit even if other pods left, with the reason.
    pub unresolvable: Vec<(&'a str, Reason)>,
}

/// Why a node does not fit: one of few texts, so it is not copied for each node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A sentence of ours.
    Fixed(&'static str),
    /// One that names what the pod asks for.
    Shared(Arc<str>),
}

impl Deref for Reason {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Fixed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// Room for a name, its quotes and a comma.
const NAME_BYTES: usize = 32;
/// Room for a name with its reason.
const REASON_BYTES: usize = 96;

impl Filtered<'_> {
    /// `ExtenderFilterResult`.
    pub fn to_json(&self) -> Vec<u8> {
        let refused = self.failed.len() + self.unresolvable.len();
        let mut out = Vec::with_capacity(128 + self.fitting.len() * NAME_BYTES + refused * REASON_BYTES);
        out.extend_from_slice(br#"{"Nodes":null,"NodeNames":["#);
        for (i, name) in self.fitting.iter().enumerate() {
            separate(&mut out, i);
            write_text(&mut out, name);
        }
        out.extend_from_slice(br#"],"FailedNodes":{"#);
        write_reasons(&mut out, &self.failed);
        out.extend_from_slice(br#"},"FailedAndUnresolvableNodes":{"#);
        write_reasons(&mut out, &self.unresolvable);
        out.extend_from_slice(br#"},"Error":""}"#);
        out
    }
}

/// `ExtenderFilterResult` of a request that cannot be served.
pub fn filter_error(error: &str) -> Vec<u8> {
    let mut out =
        br#"{"Nodes":null,"NodeNames":null,"FailedNodes":null,"FailedAndUnresolvableNodes":null,"Error":"#
            .to_vec();
    write_text(&mut out, error);
    out.push(b'}');
    out
}

/// `HostPriorityList`: nodes with their scores, 0 to 10.
pub fn host_priorities<'a>(scores: impl ExactSizeIterator<Item = (&'a str, u8)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + scores.len() * (NAME_BYTES + 20));
    out.push(b'[');
    for (i, (name, score)) in scores.enumerate() {
        separate(&mut out, i);
        out.extend_from_slice(br#"{"Host":"#);
        write_text(&mut out, name);
        // Writing to a Vec cannot fail.
        let _ = write!(out, r#","Score":{score}}}"#);
    }
    out.push(b']');
    out
}

/// `ExtenderBindingResult`; an empty error means that the pod is bound.
pub fn binding_result(error: &str) -> Vec<u8> {
    let mut out = br#"{"Error":"#.to_vec();
    write_text(&mut out, error);
    out.push(b'}');
    out
}

fn write_reasons(out: &mut Vec<u8>, reasons: &[(&str, Reason)]) {
    for (i, (name, reason)) in reasons.iter().enumerate() {
        separate(out, i);
        write_text(out, name);
        out.push(b':');
        write_text(out, reason);
    }
}

fn separate(out: &mut Vec<u8>, i: usize) {
    if i > 0 {
        out.push(b',');
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    // Writing a string to a Vec cannot fail.
    let _ = text.serialize(&mut serde_json::Serializer::new(out));
}

#[cfg(test)]
mod tests;
