//! Choosing devices for a pod that is being bound, and holding them until it is known what became of it.

use std::sync::Arc;

use stowage_shared::plan::{Plan, PlanError};
use stowage_shared::policy::{PolicyError, WhyNot};
use stowage_shared::request::RequestError;
use stowage_shared::topology::draw_together;

use super::assumptions::Chosen;
use super::snapshot::KnownGpus;
use super::{AssumptionId, State, Unknown, event};
use crate::clock::Now;

/// Why a pod is not bound as kube-scheduler wants. What it reads is in the pod's event.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Somebody asks us to bind another scheduler's pod.
    #[error("the pod does not ask for one of the schedulers that this extender serves (--scheduler-names)")]
    NotOurs,
    /// The name belongs to another pod than the UID.
    #[error("the pod with that UID has another name")]
    OtherPod,
    /// It was bound before.
    #[error("the pod is already bound to node {0}")]
    AlreadyBound(String),
    /// It is going.
    #[error("the pod is being deleted")]
    Deleting,
    /// It will never run again.
    #[error("the pod has ended")]
    Ended,
    /// Its request cannot be served by anybody.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// What it wants of its placement cannot be read.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The node is not in our cache.
    #[error("node {0} is not known to Stowage")]
    UnknownNode(String),
    /// The node has no GPUs.
    #[error("node {0} has no GPUs known to Stowage")]
    NoGpus(String),
    /// It is not known what of the node's GPUs is in use.
    #[error("{0}")]
    Unknown(Unknown),
    /// The room was taken since filter, and there is no other on that node.
    #[error("{0} any more")]
    NoFit(WhyNot),
    /// It asks for more than a plan can say.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// What to write on the Binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// No plan: the pod asks for no GPU.
    Plain,
    /// The plan's text. Its devices are held under this id.
    Planned(AssumptionId, String),
}

impl State {
    /// A pod as the watch last told it, if it matters to us.
    pub fn pod(&self, uid: &str) -> Option<event::Pod> {
        self.pods.get(uid).map(|record| record.pod())
    }

    /// Chooses devices on `node` for a pod, and holds them from now on.
    ///
    /// A pod whose last Binding may still succeed gets the same plan again on the same node: then it does not
    /// matter which of the two is told back.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing is held that was not before.
    pub fn choose(&mut self, pod: &event::Pod, node: &str, now: Now) -> Result<Choice, Refusal> {
        let request = pod.request(&self.names)?;
        let Some(want) = pod.want(&request)? else { return Ok(Choice::Plain) };
        if let Some(bound) = self.assumptions.bound_to(&pod.uid)
            && &**bound != node
        {
            return Err(Refusal::AlreadyBound(bound.to_string()));
        }
        let usable = |state: &mut Self| -> Result<Arc<super::NodeView>, Refusal> {
            let view = state.view(node).ok_or_else(|| Refusal::UnknownNode(node.to_owned()))?;
            match view.usable(now.monotonic) {
                Ok(_) => Ok(view),
                Err(None) => Err(Refusal::NoGpus(node.to_owned())),
                Err(Some(why)) => Err(Refusal::Unknown(why)),
            }
        };
        let view = usable(self)?;
        if let Some(held) = self.assumptions.get(&pod.uid)
            && &*held.chosen.node == node
        {
            if view.usable(now.monotonic).is_ok_and(|known| still_there(&held.chosen, known)) {
                let choice = Choice::Planned(held.id, held.chosen.annotation.clone());
                self.assumptions.prolong(&pod.uid, now);
                return Ok(choice);
            }
            self.give_back(&pod.uid);
        }
        let view = usable(self)?;
        let Ok(known) = view.usable(now.monotonic) else { return Err(Refusal::NoGpus(node.to_owned())) };
        // Beside the places of pods that are nominated to this node, if it can be. If not, a pod that is being bound
        // goes before one that only hopes.
        let beside =
            view.nominated.as_ref().map(|kept| kept.without(known, pod.priority, &pod.uid, &self.mix));
        let beside = beside.and_then(|room| room.place(&want, &pod.namespace, &self.mix).ok());
        let mut placement = match beside {
            Some(placement) => placement,
            None => known.now.place(&want, &pod.namespace, &self.mix).map_err(Refusal::NoFit)?,
        };
        draw_together(&mut placement, &known.now.gpus, &[]);
        let containers = placement.to_plan(&known.now.gpus, &request);
        let plan = Plan { uid: pod.uid.clone(), node: node.to_owned(), containers };
        let annotation = plan.to_annotation()?;
        self.give_back(&pod.uid);
        let chosen = Chosen {
            node: view.name.clone(),
            namespace: pod.namespace.clone(),
            share_with: want.policy.share_with,
            request,
            host: want.host,
            plan,
            annotation: annotation.clone(),
        };
        let id = self.assumptions.hold(chosen, now);
        self.touch(node);
        self.touch_nominated(&pod.uid);
        Ok(Choice::Planned(id, annotation))
    }

    /// The API server has bound the pod: what is held stays held until the watch shows it.
    pub fn bound(&mut self, uid: &str, id: AssumptionId) {
        self.assumptions.bound(uid, id);
    }

    /// The pod will not be bound by this: what was held for it is free again.
    pub fn failed(&mut self, uid: &str, id: AssumptionId) {
        if self.assumptions.get(uid).is_some_and(|assumption| assumption.id == id) {
            self.give_back(uid);
        }
    }

    fn give_back(&mut self, uid: &str) {
        if let Some(node) = self.assumptions.drop(uid) {
            self.touch(&node);
            self.touch_nominated(uid);
        }
    }
}

/// Whether every device of a plan is still offered, on a healthy GPU.
fn still_there(chosen: &Chosen, known: &KnownGpus) -> bool {
    let gpus = &known.now.gpus;
    chosen.plan.sets(&chosen.request).iter().all(|(resource, devices)| {
        devices.iter().all(|device| {
            let place = device.locate(gpus.iter().map(|state| &*state.gpu), resource);
            place.is_some_and(|(gpu, offer)| gpus[gpu].gpu.why_not(offer).is_none())
        })
    })
}

/// Whether a pod may be bound by us, whoever asks: another process on this machine can reach the verb's port.
///
/// # Errors
/// [`Refusal`].
pub fn may_be_bound(pod: &event::Pod, namespace: &str, name: &str) -> Result<(), Refusal> {
    if pod.namespace != namespace || pod.name != name {
        return Err(Refusal::OtherPod);
    }
    if !pod.ours {
        return Err(Refusal::NotOurs);
    }
    if !pod.node.is_empty() {
        return Err(Refusal::AlreadyBound(pod.node.clone()));
    }
    if pod.terminal {
        return Err(Refusal::Ended);
    }
    if pod.deleting { Err(Refusal::Deleting) } else { Ok(()) }
}
