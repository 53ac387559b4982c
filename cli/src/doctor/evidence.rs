//! What the doctor looks at, read with the rights of whoever runs the command.
//!
//! Only pods, nodes and GpuNodes are needed. Of the rest each is looked at where it may be, and named where not.

use std::fmt::Debug;

use anyhow::Result;
use futures::join;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::objects::{self, GpuNode, Objects, list};
use crate::schedulers::Schedulers;
use crate::world::World;

/// Pods that the kubelet refused, among others.
const FAILED_PODS: &str = "status.phase=Failed";

/// A kind that was looked at, or the reason why it was not.
pub type Seen<T> = Result<Vec<T>, String>;

/// Everything that the checks judge.
#[derive(Debug)]
pub struct Evidence {
    /// Nodes, GpuNodes and live pods, reckoned.
    pub world: World,
    /// The GpuNodes as they are.
    pub gpu_nodes: Vec<GpuNode>,
    /// Whether the API server knows GpuNodes at all.
    pub has_crd: bool,
    /// Pods that failed.
    pub failed: Seen<Pod>,
    /// Leases: which schedulers live.
    pub leases: Seen<Lease>,
    /// Admission policies.
    pub policies: Seen<ValidatingAdmissionPolicy>,
    /// What puts them into force.
    pub bindings: Seen<ValidatingAdmissionPolicyBinding>,
    /// ConfigMaps of the namespaces where our pods are: kube-scheduler's configuration may be in one.
    pub config_maps: Seen<ConfigMap>,
}

impl Evidence {
    /// Reads it.
    ///
    /// # Errors
    /// Where nodes or pods cannot be listed.
    pub async fn read(client: &Client, now: Timestamp, schedulers: &Schedulers) -> Result<Self> {
        let (nodes, pods, gpu_nodes) =
            join!(objects::nodes(client), objects::pods(client), objects::gpu_nodes(client));
        let (has_crd, gpu_nodes) = match gpu_nodes {
            Ok(found) => (true, found),
            Err(error) if is_not_found(&error) => (false, Vec::new()),
            Err(error) => return Err(error),
        };
        let objects = Objects { now, nodes: nodes?, gpu_nodes: gpu_nodes.clone(), pods: pods? };
        let world = World::of(&objects, schedulers);
        let (failed, leases, policies, bindings, config_maps) = join!(
            seen(client, FAILED_PODS),
            seen(client, ""),
            seen(client, ""),
            seen(client, ""),
            config_maps(client, &world),
        );
        Ok(Self { world, gpu_nodes, has_crd, failed, leases, policies, bindings, config_maps })
    }
}

/// The kind is not known to the API server.
fn is_not_found(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if status.code == 404)
}

async fn seen<K>(client: &Client, fields: &str) -> Seen<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    list(&Api::<K>::all(client.clone()), fields).await.map_err(why)
}

fn why(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => other.to_string(),
    }
}

/// Only of namespaces where something of ours runs: the others' are nobody's business.
async fn config_maps(client: &Client, world: &World) -> Seen<ConfigMap> {
    let ours = world.pods.iter().filter(|pod| super::parts::is_ours(pod)).map(|pod| pod.namespace());
    let namespaces: std::collections::BTreeSet<&str> = ours.collect();
    let mut found = Vec::new();
    for namespace in namespaces {
        found.extend(list(&Api::namespaced(client.clone(), namespace), "").await.map_err(why)?);
    }
    Ok(found)
}
