//! The verb preempt: who would have to go, and whose going helps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Metadata, Pod, WireError, null_is_default, read};

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
