//! What of a node is in use, reckoned from everything that is known of it.
//!
//! Three sources disagree for a while after each change: what the kubelet handed out (published in the
//! GpuNode, true but late), what pods were promised (their plans), and what pods ask for. A pod that the
//! kubelet has served counts with what it holds. One that it has not yet served counts with its plan, up to a
//! swap: plans of one shape on one node are interchangeable, since the kubelet does not say for which pod it
//! allocates. A pod without a plan counts with what the packing core would choose, as the plugin will.

mod handed_out;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::Arc;

use self::handed_out::handed_out;
use self::waiting::Waiting;
use crate::gpu::Gpu;
use crate::pack::Chosen;
use crate::plan::{Plan, PlannedDevice};
use crate::policy::{Occupied, ShareWith};
use crate::request::Request;
use crate::resource::ResourceName;
use crate::share::ShareSize;

/// A pod that is bound to the node and not terminal.
#[derive(Debug, Clone)]
pub struct NodePod<'a> {
    /// The pod's UID.
    pub uid: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// With whom it shares a GPU.
    pub share_with: ShareWith,
    /// What it asks for.
    pub request: &'a Request,
    /// What it was promised, if anything valid.
    pub plan: Option<&'a Plan>,
}

/// Devices that the kubelet handed to a container.
#[derive(Debug, Clone)]
pub struct Held<'a> {
    /// The pod's UID; empty where it is not known.
    pub uid: &'a str,
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The resource.
    pub resource: &'a ResourceName,
    /// The device ids.
    pub device_ids: &'a [String],
}

/// A device that counts as in use, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat<'a> {
    /// The GPU, by its place among the node's.
    pub gpu: usize,
    /// Which of its offers; of a leftover of another configuration, one whose place it takes.
    pub offer: usize,
    /// The size of the share, where the pod says it.
    pub share: Option<ShareSize>,
    /// Who has it or will.
    pub holder: Holder<'a>,
}

/// Who has a device or will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder<'a> {
    /// The kubelet handed it out: the place of that among what is held.
    Held(usize),
    /// A pod with this UID was promised it, or will get it as far as can be told.
    Pod(&'a str),
}

/// Reckons what of a node's GPUs is in use or promised, and by whom.
///
/// `held` is what the kubelet handed out, whoever has it, leftovers of another configuration too; ids that belong to no GPU
/// here are skipped (the audit names them). A device that several containers of one pod hold counts once. What the node keeps for large pods
/// is not known here, and changes nothing of what is there.
pub fn reckon(gpus: &[Arc<Gpu>], held: &[Held<'_>], pods: &[NodePod<'_>]) -> Occupied {
    reckon_seats(gpus, held, pods, &mut |_| ())
}

/// The same, and tells of each device that counts for whom it does.
pub fn reckon_seats<'a>(
    gpus: &[Arc<Gpu>],
    held: &[Held<'_>],
    pods: &[NodePod<'a>],
    told: &mut dyn FnMut(Seat<'a>),
) -> Occupied {
    let (mut occupied, served) = handed_out(gpus, held, pods, told);
    Waiting::of(gpus, pods, &served).promise(&mut occupied, told);
    occupied
}

/// Where planned devices of a resource are, as far as they exist.
fn located(gpus: &[Arc<Gpu>], resource: &ResourceName, planned: &[PlannedDevice]) -> Vec<Chosen> {
    let find = |device: &PlannedDevice| device.locate(gpus.iter().map(|g| &**g), resource);
    planned.iter().filter_map(find).map(|(gpu, offer)| Chosen { gpu, offer }).collect()
}
