//! What was promised and the kubelet has not handed out yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::handed_out::Served;
use super::{Holder, NodePod, Seat, located};
use crate::gpu::Gpu;
use crate::occupancy::GpuState;
use crate::pack::{self, Chosen, Demand, Mix};
use crate::plan::Plan;
use crate::policy::Occupied;
use crate::resource::ResourceName;
use crate::share::ShareSize;
use crate::topology;

/// What was promised and not yet handed out.
pub(super) struct Waiting<'p, 'a> {
    gpus: &'p [Arc<Gpu>],
    lacks: Vec<Lack<'p, 'a>>,
    /// Planned devices that nobody holds yet.
    promised: BTreeMap<Shape, Vec<Chosen>>,
}

/// A pod's planned devices and how many it still lacks, for one resource.
struct Lack<'p, 'a> {
    pod: &'p NodePod<'a>,
    shape: Shape,
    missing: u32,
}

/// Within which plans swap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    resource: ResourceName,
    count: u32,
    share: Option<ShareSize>,
}

impl<'p, 'a> Waiting<'p, 'a> {
    pub(super) fn of(gpus: &'p [Arc<Gpu>], pods: &'p [NodePod<'a>], served: &Served<'_>) -> Self {
        let mut lacks = Vec::new();
        let mut promised: BTreeMap<Shape, Vec<Chosen>> = BTreeMap::new();
        let mut used: Vec<(Shape, Chosen)> = Vec::new();
        for pod in pods {
            let share = Plan::share_of(pod.plan, pod.request);
            let mut planned = pod.plan.map(|plan| plan.sets(pod.request)).unwrap_or_default();
            for (resource, count) in pod.request.total() {
                let shape = Shape { resource: resource.clone(), count, share };
                let plan = planned.remove(&resource).unwrap_or_default();
                promised.entry(shape.clone()).or_default().extend(located(gpus, &resource, &plan));
                let has = served.get(pod.uid).and_then(|resources| resources.get(&resource));
                // Who has no plan swaps with nobody: a share that it has is none of those that were promised to others on
                // that GPU, as long as there is room for them beside it.
                if !plan.is_empty() {
                    used.extend(has.into_iter().flatten().map(|&chosen| (shape.clone(), chosen)));
                }
                let has = u32::try_from(has.map_or(0, Vec::len)).unwrap_or(u32::MAX);
                if has < count {
                    lacks.push(Lack { pod, shape, missing: count - has });
                }
            }
        }
        for (shape, chosen) in used {
            take_from(promised.get_mut(&shape), chosen);
        }
        Self { gpus, lacks, promised }
    }

    /// Counts what waiting pods will get: their own plan, else another of their shape, else the core's choice.
    pub(super) fn promise(mut self, node: &mut Occupied, told: &mut dyn FnMut(Seat<'a>)) {
        let mix = Mix::prior(self.gpus.iter().map(|gpu| &**gpu));
        for lack in &mut self.lacks {
            let Some(pool) = self.promised.get_mut(&lack.shape) else { continue };
            let plan = lack.pod.plan.map(|plan| plan.sets(lack.pod.request)).unwrap_or_default();
            let own = plan.get(&lack.shape.resource).map_or(&[][..], Vec::as_slice);
            for chosen in located(self.gpus, &lack.shape.resource, own) {
                if lack.missing > 0
                    && take_from(Some(pool), chosen)
                    && promise_if_room(node, lack, chosen, told)
                {
                    lack.missing -= 1;
                }
            }
        }
        for lack in &mut self.lacks {
            let pool = self.promised.entry(lack.shape.clone()).or_default();
            while lack.missing > 0
                && let Some(chosen) = pool.pop()
            {
                lack.missing -= u32::from(promise_if_room(node, lack, chosen, told));
            }
        }
        for lack in self.lacks.iter().filter(|lack| lack.missing > 0) {
            let Shape { resource, share, .. } = &lack.shape;
            let demand = Demand { share: *share, ..Demand::from([(resource.clone(), lack.missing)]) };
            let Ok(mut placement) = pack::place(&node.gpus, &demand, &mix) else { continue };
            topology::draw_together(&mut placement, &node.gpus, &[]);
            for chosen in placement.devices.into_values().flatten() {
                promise(node, lack, chosen, told);
            }
        }
    }
}

/// Counts a device as one that a waiting pod will get.
fn promise<'a>(node: &mut Occupied, lack: &Lack<'_, 'a>, chosen: Chosen, told: &mut dyn FnMut(Seat<'a>)) {
    let Chosen { gpu, offer } = chosen;
    node.gpus[gpu].take(offer, lack.shape.share);
    told(Seat { gpu, offer, share: lack.shape.share, holder: Holder::Pod(lack.pod.uid) });
    node.company.join(chosen.gpu, lack.pod.namespace, lack.pod.share_with);
}

/// The same where nobody else has got it meanwhile: what the kubelet gave is a fact, and the promise is void then.
fn promise_if_room<'a>(
    node: &mut Occupied,
    lack: &Lack<'_, 'a>,
    chosen: Chosen,
    told: &mut dyn FnMut(Seat<'a>),
) -> bool {
    let GpuState { gpu, occupancy } = &node.gpus[chosen.gpu];
    let has_room = occupancy.room_for(&gpu.kind, chosen.offer, lack.shape.share) > 0;
    if has_room {
        promise(node, lack, chosen, told);
    }
    has_room
}

/// Takes a device out of what was promised; whether it was there.
fn take_from(pool: Option<&mut Vec<Chosen>>, chosen: Chosen) -> bool {
    let Some(pool) = pool else { return false };
    pool.iter().position(|&other| other == chosen).map(|at| pool.swap_remove(at)).is_some()
}
