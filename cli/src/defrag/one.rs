//! One pod: evicted, and replaced by another.

use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::apply::{Movable, PAUSE};
use super::proposal::Planned;
use super::stays::controller;
use crate::world::{PodFacts, World};

/// Who may replace a pod that leaves: a pod of its controller that was not there before.
pub(super) struct Leaving {
    owner: Option<String>,
    before: Vec<String>,
}

fn owner(pod: &PodFacts) -> Option<String> {
    controller(pod).map(|owner| owner.uid.clone())
}

/// Evicts a pod.
pub(super) async fn evict(cluster: &mut impl Movable, world: &World, planned: &Planned) -> Result<Leaving> {
    let Planned { namespace, name, uid, .. } = planned;
    let Some(pod) = world.pod(namespace, name).filter(|pod| pod.uid() == uid) else {
        bail!("it is not there any more")
    };
    let before = world.pods.iter().map(|pod| pod.uid().to_owned()).collect();
    cluster.evict(namespace, name, uid).await?;
    Ok(Leaving { owner: owner(pod), before })
}

/// Waits until another pod of its controller runs in the place of one that was evicted, holds its devices, and the old
/// one is gone.
pub(super) async fn replaced(
    cluster: &mut impl Movable,
    leaving: &Leaving,
    planned: &Planned,
    timeout: Duration,
) -> Result<(PodFacts, (World, Vec<PodDisruptionBudget>))> {
    let mut waited = Duration::ZERO;
    while waited < timeout {
        cluster.pause(PAUSE).await;
        waited += PAUSE;
        let (world, budgets) = cluster.look().await?;
        let gone = !world.pods.iter().any(|pod| pod.uid() == planned.uid);
        let is_new = |pod: &&PodFacts| {
            pod.namespace() == planned.namespace
                && owner(pod) == leaving.owner
                && !leaving.before.iter().any(|uid| uid == pod.uid())
        };
        let new = world.pods.iter().find(is_new).filter(|new| gone && is_settled(new, &world)).cloned();
        if let Some(new) = new {
            return Ok((new, (world, budgets)));
        }
    }
    bail!("no other pod of its controller runs in its place after {} s", timeout.as_secs())
}

/// Whether a pod runs, is ready, and its devices are told.
fn is_settled(pod: &PodFacts, world: &World) -> bool {
    let conditions = pod.object.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready =
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let told = world.node(pod.node()).and_then(|node| node.published.as_ref());
    ready && told.is_some_and(|told| told.allocations.iter().any(|held| held.uid == pod.uid()))
}
