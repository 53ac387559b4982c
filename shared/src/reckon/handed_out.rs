//! What the kubelet has handed out: a fact, whatever was planned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Held, Holder, NodePod, Seat, located};
use crate::device_id::DeviceId;
use crate::gpu::{Gpu, locate, locate_leftover};
use crate::occupancy::GpuState;
use crate::pack::{self, Chosen, Demand, Mix};
use crate::plan::Plan;
use crate::policy::{Occupied, ShareWith};
use crate::resource::ResourceName;
use crate::share::ShareSize;

/// The devices of the pods that the kubelet has served, by UID and resource.
pub(super) type Served<'h> = BTreeMap<&'h str, BTreeMap<&'h ResourceName, Vec<Chosen>>>;

/// Counts what is held, and tells of each device whose it is.
pub(super) fn handed_out<'h, 'a>(
    gpus: &[Arc<Gpu>],
    held: &'h [Held<'h>],
    pods: &[NodePod<'a>],
    told: &mut dyn FnMut(Seat<'a>),
) -> (Occupied, Served<'h>) {
    let states = gpus.iter().cloned().map(GpuState::idle).collect();
    let node = Occupied { gpus: states, ..Occupied::default() };
    let mut counted = Counted { node, served: Served::new(), told };
    let said: BTreeMap<&str, (Option<ShareSize>, ShareWith)> =
        pods.iter().map(|pod| (pod.uid, (Plan::share_of(pod.plan, pod.request), pod.share_with))).collect();
    let said = |uid: &str| said.get(uid).copied().unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (at, of) in held.iter().enumerate() {
        let (share, share_with) = said(of.uid);
        for text in of.device_ids {
            let Some(id) = text.parse::<DeviceId>().ok() else { continue };
            // A container reuses what an init container of its pod had: the same id, the same device.
            if !seen.insert((of.resource, text.as_str())) {
                continue;
            }
            let all = || gpus.iter().map(|gpu| &**gpu);
            if let Some((gpu, offer)) = locate(all(), of.resource, &id) {
                counted.count(of, share_with, Seat { gpu, offer, share, holder: Holder::Held(at) });
            } else if let Some((gpu, leftover)) = locate_leftover(all(), of.resource, &id) {
                counted.node.gpus[gpu].keep(leftover, share);
                counted.node.company.join(gpu, of.namespace, share_with);
                (counted.told)(Seat { gpu, offer: leftover.offer(), share, holder: Holder::Held(at) });
            }
        }
    }
    for (at, gpu) in unbooked(gpus, held) {
        let of = &held[at];
        // It is the kubelet's fact that somebody has it, and a slice will be built for it as soon as there is room: the
        // one that its plan names, as for a pod that waits, else the core's choice.
        if is_planned_on(gpus, pods, of.uid, of.resource, gpu) {
            continue;
        }
        let mix = Mix::prior([&*gpus[gpu]]);
        let one = std::slice::from_ref(&counted.node.gpus[gpu]);
        let Ok(placement) = pack::place(one, &Demand::from([(of.resource.clone(), 1)]), &mix) else {
            continue;
        };
        let (_, share_with) = said(of.uid);
        for Chosen { offer, .. } in placement.devices.into_values().flatten() {
            counted.count(of, share_with, Seat { gpu, offer, share: None, holder: Holder::Held(at) });
        }
    }
    (counted.node, counted.served)
}

/// What was counted so far.
struct Counted<'h, 't, 'a> {
    node: Occupied,
    served: Served<'h>,
    told: &'t mut dyn FnMut(Seat<'a>),
}

impl<'h, 'a> Counted<'h, '_, 'a> {
    /// Counts one device.
    fn count(&mut self, of: &Held<'h>, share_with: ShareWith, seat: Seat<'a>) {
        let Seat { gpu, offer, share, .. } = seat;
        self.node.gpus[gpu].take(offer, share);
        self.node.company.join(gpu, of.namespace, share_with);
        self.served.entry(of.uid).or_default().entry(of.resource).or_default().push(Chosen { gpu, offer });
        (self.told)(seat);
    }
}

/// Tokens that somebody holds and that no slice is booked for yet: the place of who holds it, and on which GPU.
fn unbooked(gpus: &[Arc<Gpu>], held: &[Held<'_>]) -> Vec<(usize, usize)> {
    let mut seen = BTreeSet::new();
    let mut unbooked = Vec::new();
    for (at, held) in held.iter().enumerate() {
        for text in held.device_ids {
            let Some(id) = text.parse::<DeviceId>().ok() else { continue };
            let Some((gpu, profile)) = id.token_of() else { continue };
            let Some(gpu) = gpus.iter().position(|known| known.uuid.as_str() == gpu) else { continue };
            let is_known = gpus[gpu].offer_of(held.resource, &id).is_some();
            let is_its = profile.parse().is_ok_and(|profile| *held.resource == ResourceName::mig(&profile));
            if !is_known && is_its && seen.insert(text.as_str()) {
                unbooked.push((at, gpu));
            }
        }
    }
    unbooked
}

/// Whether a pod's plan names a device of this resource on this GPU.
fn is_planned_on(
    gpus: &[Arc<Gpu>],
    pods: &[NodePod<'_>],
    uid: &str,
    resource: &ResourceName,
    gpu: usize,
) -> bool {
    let Some(pod) = pods.iter().find(|pod| pod.uid == uid) else { return false };
    let planned = pod.plan.and_then(|plan| plan.sets(pod.request).remove(resource)).unwrap_or_default();
    located(gpus, resource, &planned).iter().any(|chosen| chosen.gpu == gpu)
}
