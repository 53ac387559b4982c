//! Who is on which GPU of a node, and how much of it is in use.

use std::collections::BTreeSet;
use std::sync::Arc;

use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::{Gpu, locate};
use stowage_shared::host::Host;
use stowage_shared::plan::Plan;
use stowage_shared::policy::{Occupied, Reserve, ShareWith};
use stowage_shared::reckon::{Held, NodePod, reckon};
use stowage_shared::request::Request;
use stowage_shared::resource::ResourceName;

use super::{NodeGpus, PodFacts, Told};

/// A pod that has something of a GPU, or was promised something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// What it has.
    pub resource: ResourceName,
    /// Which offer of the GPU that is.
    pub offer: usize,
    /// How many of its devices.
    pub count: u32,
    /// With whom it shares.
    pub share_with: ShareWith,
}

/// What of a node's GPUs is in use or promised, and by whom.
pub(super) fn in_use(
    gpus: &[Arc<Gpu>],
    told: &Told,
    pods: &[&PodFacts],
    reserve: Reserve,
    host: Host,
) -> NodeGpus {
    let held: Vec<Held<'_>> = told
        .allocations
        .iter()
        .map(|held| Held {
            uid: &held.uid,
            namespace: &held.namespace,
            resource: &held.resource,
            device_ids: &held.device_ids,
        })
        .collect();
    let users: Vec<(&PodFacts, &Request, Option<&Plan>)> = pods
        .iter()
        .filter(|pod| pod.asks_for_gpus())
        .filter_map(|pod| {
            let plan = pod.plan.as_ref().and_then(|plan| plan.as_ref().ok());
            Some((*pod, pod.request.as_ref().ok()?, plan))
        })
        .collect();
    let mut bound: Vec<NodePod<'_>> = users
        .iter()
        .map(|(pod, request, plan)| NodePod {
            uid: pod.uid(),
            namespace: pod.namespace(),
            share_with: pod.share_with(),
            request,
            plan: *plan,
        })
        .collect();
    bound.sort_by_key(|pod| pod.uid);
    let now = Occupied { reserve, host, ..reckon(gpus, &held, &bound) };
    // A container reuses what an init container of its pod had: the same id, the same device.
    let mut seen: BTreeSet<(usize, usize, &str, &str, &ResourceName, String)> = BTreeSet::new();
    for held in &told.allocations {
        for id in held.device_ids.iter().filter_map(|id| id.parse::<DeviceId>().ok()) {
            if let Some((gpu, offer)) = locate(gpus.iter().map(|gpu| &**gpu), &held.resource, &id) {
                seen.insert((gpu, offer, &held.namespace, &held.pod, &held.resource, id.to_string()));
            }
        }
    }
    // A plan is history once its pod holds devices.
    let waits = |pod: &PodFacts| !told.allocations.iter().any(|held| held.uid == pod.uid());
    let promised: Vec<_> = users
        .iter()
        .filter(|(pod, ..)| waits(pod))
        .filter_map(|(pod, request, plan)| Some((pod, plan.as_ref()?.sets(request))))
        .collect();
    for (pod, sets) in &promised {
        for (resource, devices) in sets {
            for (number, device) in devices.iter().enumerate() {
                if let Some((gpu, offer)) = device.locate(gpus.iter().map(|gpu| &**gpu), resource) {
                    seen.insert((gpu, offer, pod.namespace(), pod.name(), resource, number.to_string()));
                }
            }
        }
    }
    let share_with = |namespace: &str, name: &str| {
        let pod = pods.iter().find(|pod| pod.namespace() == namespace && pod.name() == name);
        pod.map(|pod| pod.share_with()).unwrap_or_default()
    };
    let mut holders: Vec<Vec<Holder>> = vec![Vec::new(); gpus.len()];
    for (gpu, offer, namespace, pod, resource, _) in seen {
        let same = |h: &&mut Holder| {
            h.offer == offer && h.namespace == namespace && h.pod == pod && h.resource == *resource
        };
        match holders[gpu].iter_mut().find(same) {
            Some(known) => known.count += 1,
            None => holders[gpu].push(Holder {
                namespace: namespace.into(),
                pod: pod.into(),
                resource: resource.clone(),
                offer,
                count: 1,
                share_with: share_with(namespace, pod),
            }),
        }
    }
    NodeGpus::Known { now, holders }
}
