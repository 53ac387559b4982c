//! Whole GPUs that a node keeps for large pods.
//!
//! A node with the label `stowage.dev/reserve-whole-gpus: "4"` keeps four GPUs idle for pods that ask for as many whole
//! GPUs at once, and takes others beside them only. A pool keeps them where each of its nodes has the label. What is
//! in use already stays: it is judged where a pod may still go, never who must leave.

use super::{NotAllowed, Occupied, Want, WhyNot};
use crate::contract::GPUS_PER_NODE_MAX;
use crate::gpu::{Gpu, Offer, Part};
use crate::occupancy::GpuState;
use crate::pack::{Mix, Placement};
use crate::resource::ResourceName;

/// How many whole GPUs a node keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reserve {
    /// None, as nearly every node.
    #[default]
    None,
    /// So many, at least one.
    Gpus(usize),
    /// Its label says what cannot be read: it takes nobody, since it must not quietly keep nothing.
    Unreadable,
}

impl Reserve {
    /// Reads what the node's label [`RESERVE_LABEL`](crate::contract::RESERVE_LABEL) says, if it has it.
    pub fn of(label: Option<&str>) -> Self {
        match label.map(str::parse) {
            None | Some(Ok(0)) => Self::None,
            Some(Ok(gpus)) if gpus <= GPUS_PER_NODE_MAX => Self::Gpus(gpus),
            Some(_) => Self::Unreadable,
        }
    }
}

impl Occupied {
    /// How many whole GPUs a pod must leave idle: none if it asks for as many as are kept.
    ///
    /// # Errors
    /// [`NotAllowed::ReserveUnreadable`].
    pub fn to_leave_idle(&self, want: &Want) -> Result<usize, NotAllowed> {
        let kept = match self.reserve {
            Reserve::None => return Ok(0),
            Reserve::Gpus(kept) => kept,
            Reserve::Unreadable => return Err(NotAllowed::ReserveUnreadable),
        };
        let gpus = || self.gpus.iter().map(|state| &*state.gpu);
        let is_whole =
            |resource: &ResourceName| gpus().any(|gpu| whole(gpu).any(|(_, of)| of.resource == *resource));
        let asked = want.demand.devices.iter().filter(|(resource, _)| is_whole(resource));
        let asked: u64 = asked.map(|(_, &count)| u64::from(count)).sum();
        Ok(if usize::try_from(asked).is_ok_and(|asked| asked < kept) { kept } else { 0 })
    }

    /// The GPUs that a large pod could have: whole ones, healthy, that nobody uses.
    pub fn idle_whole_gpus(&self) -> Vec<usize> {
        (0..self.gpus.len()).filter(|&gpu| is_whole_and_idle(&self.gpus[gpu])).collect()
    }

    /// Places what a pod wants beside the GPUs that the node keeps for large ones.
    pub(super) fn place_beside_kept(
        &self,
        want: &Want,
        namespace: &str,
        mix: &Mix,
    ) -> Result<Placement, WhyNot> {
        let leave = self.to_leave_idle(want)?;
        let placement = self.place_anywhere(want, namespace, mix)?;
        let idle = self.idle_whole_gpus();
        let is_taken = |gpu: usize| placement.devices.values().flatten().any(|chosen| chosen.gpu == gpu);
        if idle.iter().filter(|&&g| !is_taken(g)).count() >= leave {
            return Ok(placement);
        }
        let kept = self.least_useful(idle, leave, want, namespace);
        let rest: Vec<usize> = (0..self.gpus.len()).filter(|g| !kept.contains(g)).collect();
        let placement = self.only(&rest).place_anywhere(want, namespace, mix);
        let mut placement = placement.map_err(|_| NotAllowed::Reserved)?;
        placement.devices.values_mut().flatten().for_each(|chosen| chosen.gpu = rest[chosen.gpu]);
        Ok(placement)
    }

    /// So many of these GPUs that the pod has the least use for, by what they could give it, then by how they look:
    /// nodes that are alike keep GPUs that are alike.
    fn least_useful(&self, mut gpus: Vec<usize>, count: usize, want: &Want, namespace: &str) -> Vec<usize> {
        let could_give = |gpu: usize| -> u32 {
            let state = &self.gpus[gpu];
            if want.policy.allows(namespace, &state.gpu, &[]).is_err() {
                return 0;
            }
            want.demand.devices.keys().map(|resource| state.copies_for(resource, want.demand.share)).sum()
        };
        gpus.sort_by_cached_key(|&gpu| (could_give(gpu), super::place::look(&self.gpus[gpu])));
        gpus.truncate(count);
        gpus
    }
}

fn is_whole_and_idle(state: &GpuState) -> bool {
    state.occupancy.is_idle() && whole(&state.gpu).any(|(offer, _)| state.gpu.why_not(offer).is_none())
}

/// The offers of a GPU as a whole, to one pod alone.
fn whole(gpu: &Gpu) -> impl Iterator<Item = (usize, &Offer)> {
    let is_whole = |(_, of): &(usize, &Offer)| of.part == Part::Whole && of.replicas.is_none();
    gpu.kind.offers().iter().enumerate().filter(is_whole)
}
