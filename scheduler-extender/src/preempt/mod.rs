//! Preemption across resource names: room is made where a pod's devices are blocked by devices of other names.
//!
//! kube-scheduler's preemption finds victims where the *same* resource name is short. Three `mig-1g` slices in the place
//! of a `mig-3g` are no shortage to it. So for a pod that it has found no node for, and for which it makes no room itself,
//! this looks for the least important pods whose going gives it a placement.
//!
//! The rules: pods of lower priority only, none where the pod's `preemptionPolicy` is `Never`; no PodDisruptionBudget is
//! broken, and the API server's eviction, which counts them itself, is the only way; the UID is a precondition; for one
//! pod at a time, so many pods an hour; each victim's Event tells why. The pod is nominated to the node, so that the room
//! is kept for it.

pub mod course;
pub(crate) mod evict;
#[cfg(test)]
pub(crate) mod tests;
pub mod victims;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;

use self::course::{Course, Ended, Making, Next};
use self::evict::Evicted;
pub use self::evict::Reason;
use self::victims::{Price, Victim, pain, price};
use crate::book::feed::Desk;
use crate::book::objects::Pod;
use crate::clock::Now;
use crate::lease::Held;
use crate::metrics::Metrics;
use crate::planner::plan::want;
use crate::planner::write;
use crate::state::{Broken, Store};
use crate::verbs::Asker;

/// How often it is looked what to do next.
const TICK: Duration = Duration::from_secs(1);
/// Nodes where somebody's going would help, before the best of them is taken; as kube-scheduler's own preemption has it.
const OFFERS_MAX: usize = 100;
/// Nodes that are looked at before other tasks have their turn.
const NODES_AT_ONCE: usize = 64;

/// Makes room for pods, while the Lease is held.
pub struct Preemptor {
    /// Writes.
    pub client: Client,
    /// The GPUs.
    pub store: Arc<Store>,
    /// Everything else.
    pub desk: Arc<Desk>,
    /// Whether we are the one who acts.
    pub held: Held,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Pods that are evicted in an hour, at most.
    pub evictions_per_hour: u32,
    /// How long a pod has been unschedulable before room is made for it.
    pub patience: Duration,
}

impl Preemptor {
    /// Makes room until the process ends.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn run(self) -> Result<(), Broken> {
        let mut course = Course::new(self.evictions_per_hour, self.patience);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let next = {
                let desk = self.desk.open();
                let may = self.held.now() && desk.budgets_known && self.store.snapshot().synced;
                if may { course.next(&desk.book, Instant::now()) } else { course.stop() }
            };
            match next {
                Next::Nothing => {}
                Next::LookFor(pod) => self.look_for(&mut course, &pod).await?,
                Next::Evict(making, victim) => self.evict(&mut course, &making, &victim).await?,
                Next::Nominate(making) => write::nominate_for(&self.client, &self.desk, &making).await,
                Next::End(Ended { uid, .. }) => self.store.change(|state| state.unnominate(&uid))?,
            }
        }
    }

    /// Finds the node where making room hurts least, and begins.
    async fn look_for(&self, course: &mut Course, pod: &Pod) -> Result<(), Broken> {
        let snapshot = self.store.snapshot();
        let Some(want) = want(pod, &snapshot) else { return Ok(()) };
        let (uid, namespace) = (&pod.uid, &pod.namespace);
        let asker = Asker { uid, namespace, priority: pod.priority, want: &want };
        let mut offers: Vec<(String, Vec<Victim>)> = Vec::new();
        for (at, node) in snapshot.nodes().enumerate().filter(|(_, node)| node.is_gpu_node()) {
            if at % NODES_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            let asked = {
                let desk = self.desk.open();
                let now = Now::read();
                self.store
                    .change(|state| price(&desk.book, state, &snapshot, pod, &asker, &node.name, now))?
            };
            match asked {
                // kube-scheduler finds it, once those who are leaving are gone.
                Some(Price::Free) => return Ok(()),
                Some(Price::Victims(victims)) => offers.push((node.name.to_string(), victims)),
                None => {}
            }
            if offers.len() >= OFFERS_MAX {
                break;
            }
        }
        let best = offers.into_iter().min_by(|(one, a), (two, b)| (pain(a), one).cmp(&(pain(b), two)));
        let Some((node, victims)) = best else { return Ok(()) };
        let Some(making) = course.begin(pod, &node, victims, Instant::now()) else { return Ok(()) };
        // Whatever the API server has, filter keeps the room from now on.
        let to_go = making.victims.iter().map(|victim| victim.uid.clone()).collect();
        if !self.store.change(|state| state.make_room(&pod.uid, &node, to_go))? {
            // Somebody else does, or it is bound.
            course.stop();
            return Ok(());
        }
        tracing::info!(
            pod.namespace = pod.namespace,
            pod.name = pod.name,
            node,
            victims = making.victims.len(),
            "Room is made for a pod."
        );
        write::nominate_for(&self.client, &self.desk, &making).await;
        Ok(())
    }

    async fn evict(&self, course: &mut Course, making: &Making, victim: &Victim) -> Result<(), Broken> {
        let evicted = if self.held.now() {
            evict::evict(&self.client, victim).await
        } else {
            Evicted::Failed("the Lease is lost".into())
        };
        self.metrics.eviction(evicted.result());
        let (pod, node) = (&making.name, &making.node);
        match evicted {
            Evicted::Done => {
                tracing::info!(
                    pod.namespace = victim.namespace,
                    pod.name = victim.name,
                    node,
                    preemptor = pod,
                    "Pod evicted."
                );
                let note = format!(
                    "Preempted by pod {} on node {}: its devices of another resource name were in the way",
                    making.uid, making.node
                );
                evict::tell(&self.client, Reason::Preempted, victim.into(), making.into(), note).await;
                course.evicted(&victim.uid);
            }
            Evicted::Gone => course.evicted(&victim.uid),
            Evicted::Protected | Evicted::Failed(_) => {
                tracing::warn!(
                    pod.namespace = victim.namespace,
                    pod.name = victim.name,
                    node,
                    preemptor = pod,
                    result = ?evicted,
                    "A pod is not evicted, and no more room is made on this node."
                );
                if let Next::End(Ended { uid, .. }) = course.stop() {
                    self.store.change(|state| state.unnominate(&uid))?;
                }
            }
        }
        Ok(())
    }
}
