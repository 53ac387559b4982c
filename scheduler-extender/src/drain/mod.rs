//! Scale-downs that drain: of a ReplicaSet's pods, the one whose going frees most goes first.
//!
//! Placement alone cannot keep GPUs unfragmented, since pods leave as they like. A scale-down is a choice that nobody
//! minds: Stowage keeps `controller.kubernetes.io/pod-deletion-cost` of GPU pods so that it falls on the pod that
//! strands most. What a pod's going frees is what its node could take of the requests to come without it, less what it
//! can take now.
//!
//! [`costs`] decides; this module goes through the nodes, a few at a time, and writes.

pub mod costs;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use serde_json::json;
use stowage_shared::contract::{DELETION_COST_ANNOTATION, OUR_DELETION_COST_ANNOTATION};

use self::costs::{Pace, Write, cost_of, replica_sets, writes};
use crate::binding::post::PostError;
use crate::book::feed::Desk;
use crate::lease::Held;
use crate::metrics::Metrics;
use crate::planner::write::{Target, patch};
use crate::seldom::Seldom;
use crate::state::{Broken, Class, Snapshot, Store};

/// How often the nodes are gone through. A scale-down that comes before is as good as one without us.
const TICK: Duration = Duration::from_secs(10);
/// Nodes that are looked at before other tasks have their turn.
const NODES_AT_ONCE: usize = 16;
/// How often a write that fails for a reason that a person must mend is logged at most.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// Keeps deletion costs, while the Lease is held.
pub struct Drainer {
    /// Writes.
    pub client: Client,
    /// The GPUs.
    pub store: Arc<Store>,
    /// Everything else.
    pub desk: Arc<Desk>,
    /// Whether we are the one who writes.
    pub held: Held,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Writes in a minute, at most.
    pub writes_per_minute: u32,
}

/// Where a cost comes from: a class of GPUs, and the version of a mix. Costs by two mixes do not compare.
type Origin = (Class, u64);

impl Drainer {
    /// Keeps them until the process ends.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn run(self) -> Result<(), Broken> {
        let mut known: HashMap<String, (Origin, i32)> = HashMap::new();
        let mut pace = Pace::new(self.writes_per_minute);
        let complaint = Seldom::every(COMPLAINT_EVERY);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let snapshot = self.store.snapshot();
            if !self.held.now() || !snapshot.synced {
                continue;
            }
            known = self.survey(&snapshot, &known).await?;
            for write in self.decide(&known) {
                if !self.held.now() || !pace.may(&write.uid, Instant::now()) {
                    continue;
                }
                if !self.write(&write, &complaint).await {
                    pace.failed(&write.uid, Instant::now());
                }
            }
        }
    }

    /// What the going of each pod would free. Where a node's GPUs and the mix are as they were, so is that.
    async fn survey(
        &self,
        snapshot: &Snapshot,
        before: &HashMap<String, (Origin, i32)>,
    ) -> Result<HashMap<String, (Origin, i32)>, Broken> {
        let mut costs = HashMap::new();
        for (at, node) in snapshot.nodes().enumerate() {
            if at % NODES_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            let now = Instant::now();
            let Ok(known) = node.usable(now) else { continue };
            let value = snapshot.mix.value(&known.now.gpus);
            let origin = (known.class, snapshot.mix_version);
            self.store.change(|state| {
                let users: Vec<String> = state.users(&node.name).map(|(pod, _)| pod.uid.clone()).collect();
                for uid in users {
                    let cost = match before.get(&uid) {
                        Some((before, cost)) if *before == origin => *cost,
                        _ => {
                            let gone = BTreeSet::from([&*uid]);
                            let Ok(room) = state.without(&node.name, &gone, now) else { continue };
                            cost_of(snapshot.mix.value(&room.gpus).saturating_sub(value))
                        }
                    };
                    costs.insert(uid, (origin, cost));
                }
            })?;
        }
        Ok(costs)
    }

    fn decide(&self, known: &HashMap<String, (Origin, i32)>) -> Vec<Write> {
        let desk = self.desk.open();
        let pods = known.iter().filter_map(|(uid, (_, cost))| Some((desk.book.pod(uid)?, *cost)));
        replica_sets(pods).values().flat_map(|pods| writes(pods)).collect()
    }

    /// Writes a cost; `false` where that failed.
    async fn write(&self, write: &Write, complaint: &Seldom) -> bool {
        let Some(pod) = self.desk.open().book.pod(&write.uid).cloned() else { return false };
        let target = Target {
            namespace: &pod.namespace,
            name: &pod.name,
            uid: &pod.uid,
            resource_version: &pod.resource_version,
        };
        let cost = write.cost.to_string();
        let change = json!({ "metadata": { "annotations": { DELETION_COST_ANNOTATION: cost, OUR_DELETION_COST_ANNOTATION: cost } } });
        let result = patch(&self.client, target, None, change).await;
        self.metrics.deletion_cost(result.is_ok());
        if let Err(error) = &result
            && error.is_forbidden()
            && complaint.now()
        {
            let cure = "apply deploy/options/drain-scale-downs.yaml";
            tracing::error!(%error, cure, "Deletion costs cannot be written.");
        }
        let error = result.as_ref().err().map(PostError::to_string);
        tracing::debug!(
            pod.namespace = pod.namespace,
            pod.name = pod.name,
            cost = write.cost,
            error,
            "Deletion cost written."
        );
        result.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::book::feed::Keep;
    use crate::clock::Now;
    use crate::planner::rush::Rush;
    use crate::server::tests::nobody;
    use crate::state::event::{Change, Event, GpuNode};
    use crate::synthetic;

    /// Costs by two mixes stood beside each other in one ReplicaSet.
    #[tokio::test]
    async fn a_cost_holds_as_long_as_the_gpus_and_the_mix_are_as_they_were() {
        let now = Now::read();
        let store = Arc::new(Store::new(synthetic::state(1, 3, now)));
        let drainer = Drainer {
            client: nobody(),
            store: store.clone(),
            desk: Arc::new(Desk::new(Keep::default(), Arc::new(Rush::new(1)))),
            held: Held::always(),
            metrics: Arc::new(Metrics::new(&mut Registry::default())),
            writes_per_minute: 1,
        };
        let before = drainer.survey(&store.snapshot(), &HashMap::new()).await.unwrap();
        // Whole GPUs are no longer expected in numbers: another node offers shares of one by that name.
        let mut status = synthetic::status("gpu-node-1", Vec::new(), now);
        status.gpus[0].offers[0].replicas = Some(4);
        let other = GpuNode { name: "gpu-node-1".into(), status: Ok(status) };
        store.change(|state| state.apply(Event::GpuNode(Change::Applied(other)), now)).unwrap();
        let snapshot = store.snapshot();
        let now_known = drainer.survey(&snapshot, &before).await.unwrap();
        assert_eq!(now_known, drainer.survey(&snapshot, &HashMap::new()).await.unwrap());
        let costs = |known: &HashMap<String, (Origin, i32)>| -> BTreeMap<String, i32> {
            known.iter().map(|(uid, (_, cost))| (uid.clone(), *cost)).collect()
        };
        assert_ne!(costs(&before), costs(&now_known));
        assert_eq!(drainer.survey(&snapshot, &now_known).await.unwrap(), now_known);
    }
}
