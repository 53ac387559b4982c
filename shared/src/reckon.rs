//! What of a node is in use, reckoned from everything that is known of it.
//!
//! Three sources disagree for a while after each change: what the kubelet handed out (published in the
//! GpuNode, true but late), what pods were promised (their plans), and what pods ask for. A pod that the
//! kubelet has served counts with what it holds. One that it has not yet served counts with its plan, up to a
//! swap: plans of one shape on one node are interchangeable, since the kubelet does not say for which pod it
//! allocates. A pod without a plan counts with what the packing core would choose, as the plugin will.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::device_id::DeviceId;
use crate::gpu::{Gpu, locate};
use crate::occupancy::GpuState;
use crate::pack::{self, Chosen, Demand, Mix};
use crate::plan::{Plan, PlannedDevice};
use crate::policy::{Company, Occupied, ShareWith};
use crate::request::Request;
use crate::resource::ResourceName;
use crate::share::ShareSize;
use crate::topology;

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
    /// Which of its offers.
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
/// `held` is what the kubelet handed out, whoever has it; ids that belong to no GPU here are skipped (the
/// audit names them). A device that several containers of one pod hold counts once. What the node keeps for large pods
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
    let mut states: Vec<GpuState> = gpus.iter().cloned().map(GpuState::idle).collect();
    let mut company = Company::default();
    let mut served: BTreeMap<&str, BTreeMap<&ResourceName, Vec<Chosen>>> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    let known: BTreeMap<&str, (Option<ShareSize>, ShareWith)> =
        pods.iter().map(|pod| (pod.uid, (Plan::share_of(pod.plan, pod.request), pod.share_with))).collect();
    for (at, held) in held.iter().enumerate() {
        for text in held.device_ids {
            let Some(id) = text.parse::<DeviceId>().ok() else { continue };
            let Some((gpu, offer)) = locate(gpus.iter().map(|g| &**g), held.resource, &id) else { continue };
            // A container reuses what an init container of its pod had: the same id, the same device.
            if seen.insert((held.resource, text.as_str())) {
                let (size, share_with) = known.get(held.uid).copied().unwrap_or_default();
                states[gpu].take(offer, size);
                told(Seat { gpu, offer, share: size, holder: Holder::Held(at) });
                company.join(gpu, held.namespace, share_with);
                served
                    .entry(held.uid)
                    .or_default()
                    .entry(held.resource)
                    .or_default()
                    .push(Chosen { gpu, offer });
            }
        }
    }
    for (at, gpu) in unbooked(gpus, held) {
        let holder = &held[at];
        let (uid, resource) = (holder.uid, holder.resource);
        // It is the kubelet's fact that somebody has it, and a slice will be built for it as soon as there is room: the
        // one that its plan names, as for a pod that waits, else the core's choice.
        if is_planned_on(gpus, pods, uid, resource, gpu) {
            continue;
        }
        let mix = Mix::prior([&*gpus[gpu]]);
        let one = std::slice::from_ref(&states[gpu]);
        let Ok(placement) = pack::place(one, &Demand::from([(resource.clone(), 1)]), &mix) else { continue };
        for Chosen { offer, .. } in placement.devices.into_values().flatten() {
            states[gpu].occupancy.take(offer);
            told(Seat { gpu, offer, share: None, holder: Holder::Held(at) });
            let (_, share_with) = known.get(uid).copied().unwrap_or_default();
            company.join(gpu, holder.namespace, share_with);
            served.entry(uid).or_default().entry(resource).or_default().push(Chosen { gpu, offer });
        }
    }
    let waiting = Waiting::of(gpus, pods, &served);
    let mut occupied = Occupied { gpus: states, company, ..Occupied::default() };
    waiting.promise(&mut occupied, told);
    occupied
}

/// Tokens that somebody holds and that no slice is booked for yet: the place of who holds it, and on which GPU.
fn unbooked(gpus: &[Arc<Gpu>], held: &[Held<'_>]) -> Vec<(usize, usize)> {
    let mut seen = std::collections::BTreeSet::new();
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

/// What was promised and not yet handed out.
struct Waiting<'p, 'a> {
    gpus: &'p [Arc<Gpu>],
    lacks: Vec<Lack<'p, 'a>>,
    /// Planned devices that nobody holds yet.
    promised: BTreeMap<Shape, Vec<Chosen>>,
}

impl<'p, 'a> Waiting<'p, 'a> {
    fn of(
        gpus: &'p [Arc<Gpu>],
        pods: &'p [NodePod<'a>],
        served: &BTreeMap<&str, BTreeMap<&ResourceName, Vec<Chosen>>>,
    ) -> Self {
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
    fn promise(mut self, node: &mut Occupied, told: &mut dyn FnMut(Seat<'a>)) {
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

/// Counts a device as one that a waiting pod will get.
fn promise<'a>(node: &mut Occupied, lack: &Lack<'_, 'a>, chosen: Chosen, told: &mut dyn FnMut(Seat<'a>)) {
    let Chosen { gpu, offer } = chosen;
    node.gpus[gpu].take(offer, lack.shape.share);
    told(Seat { gpu, offer, share: lack.shape.share, holder: Holder::Pod(lack.pod.uid) });
    node.company.join(chosen.gpu, lack.pod.namespace, lack.pod.share_with);
}

fn located(gpus: &[Arc<Gpu>], resource: &ResourceName, planned: &[PlannedDevice]) -> Vec<Chosen> {
    let find = |device: &PlannedDevice| device.locate(gpus.iter().map(|g| &**g), resource);
    planned.iter().filter_map(find).map(|(gpu, offer)| Chosen { gpu, offer }).collect()
}

fn take_from(pool: Option<&mut Vec<Chosen>>, chosen: Chosen) -> bool {
    let Some(pool) = pool else { return false };
    pool.iter().position(|&other| other == chosen).map(|at| pool.swap_remove(at)).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gpu::{GpuKind, Offer, Part};
    use crate::pod::PodSpec;
    use crate::units::MemoryMib;

    fn gpus(n: u32) -> Vec<Arc<Gpu>> {
        let resource = ResourceName::gpu().shared();
        let kind = GpuKind::new(
            "M",
            MemoryMib(1),
            vec![Offer { resource, part: Part::Whole, replicas: Some(4), distinct: false, capped: false }],
        );
        let kind = Arc::new(kind.unwrap());
        let gpu = |i| Gpu {
            uuid: format!("GPU-{i}").parse().unwrap(),
            index: i,
            numa_node: None,
            kind: kind.clone(),
            part_uuids: vec![format!("GPU-{i}")],
            near: Vec::new(),
            foreign: Vec::new(),
            unhealthy: None,
            sick: BTreeMap::new(),
        };
        (0..n).map(|i| Arc::new(gpu(i))).collect()
    }

    fn a30_on_demand() -> Arc<Gpu> {
        let geometry = crate::models::Model::by_key("a30").and_then(crate::models::Model::geometry).unwrap();
        let offers = Offer::on_demand(geometry.slices(), &[]);
        Arc::new(Gpu {
            part_uuids: vec![String::new(); offers.len()],
            kind: Arc::new(GpuKind::new("A30", MemoryMib(24_576), offers).unwrap()),
            ..(*gpus(1)[0]).clone()
        })
    }

    fn request() -> Request {
        let text = r#"{"containers":[{"name":"c","resources":{"limits":{"nvidia.com/gpu.shared":1}}}]}"#;
        Request::of_standard(&serde_json::from_str::<PodSpec>(text).unwrap()).unwrap()
    }

    fn plan(uid: &str, gpu: u32) -> Plan {
        let device = PlannedDevice { gpu: format!("GPU-{gpu}").parse().unwrap(), slice: None, memory: None };
        let resources = BTreeMap::from([(ResourceName::gpu().shared(), vec![device])]);
        Plan { uid: uid.into(), node: "n".into(), containers: BTreeMap::from([("c".into(), resources)]) }
    }

    fn node_pod<'a>(uid: &'a str, request: &'a Request, plan: Option<&'a Plan>) -> NodePod<'a> {
        NodePod { uid, namespace: "n", share_with: ShareWith::Anyone, request, plan }
    }

    /// Pods as (uid, planned GPU), held devices as (uid, device id); the answer is the shares in use per GPU.
    #[track_caller]
    fn check(pods: &[(&str, Option<u32>)], held: &[(&str, &str)], want: &[u32]) {
        let (request, gpus, resource) = (request(), gpus(2), ResourceName::gpu().shared());
        let plans: Vec<Option<Plan>> = pods.iter().map(|(uid, gpu)| gpu.map(|gpu| plan(uid, gpu))).collect();
        let pods: Vec<NodePod<'_>> =
            pods.iter().zip(&plans).map(|((uid, _), plan)| node_pod(uid, &request, plan.as_ref())).collect();
        let ids: Vec<[String; 1]> = held.iter().map(|(_, id)| [(*id).to_owned()]).collect();
        let held: Vec<Held<'_>> = held
            .iter()
            .zip(&ids)
            .map(|((uid, _), id)| Held { uid, namespace: "n", resource: &resource, device_ids: id })
            .collect();
        let got: Vec<u32> = reckon(&gpus, &held, &pods).gpus.iter().map(|g| g.occupancy.in_use(0)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn a_promise_counts_until_it_is_kept_and_then_once() {
        check(&[("a", Some(1))], &[], &[0, 1]);
        check(&[("a", Some(1))], &[("a", "GPU-1::2")], &[0, 1]);
    }

    #[test]
    fn two_plans_of_one_shape_may_be_swapped() {
        check(&[("a", Some(0)), ("b", Some(1))], &[("a", "GPU-1::0")], &[1, 1]);
    }

    /// Shares have no number in a plan, so those of pods without one were once taken for the promised ones: their GPU
    /// seemed to have room, and was promised to more pods than it has shares.
    #[test]
    fn what_pods_without_a_plan_have_is_none_of_what_was_promised() {
        let pods = [("p", None), ("q", None), ("a", Some(1)), ("b", Some(1))];
        // The core would put whoever has no plan on the fuller GPU, the first.
        let held =
            [("p", "GPU-1::0"), ("q", "GPU-1::1"), ("s", "GPU-0::0"), ("s", "GPU-0::1"), ("s", "GPU-0::2")];
        check(&pods, &held, &[3, 4]);
    }

    #[test]
    fn a_promise_is_void_where_the_kubelet_has_given_it_to_others() {
        let held = [("p", "GPU-1::0"), ("q", "GPU-1::1"), ("s", "GPU-1::2"), ("s", "GPU-1::3")];
        check(&[("p", None), ("q", None), ("a", Some(1))], &held, &[1, 4]);
    }

    #[test]
    fn what_the_kubelet_did_counts_whatever_was_planned() {
        check(&[("a", Some(0))], &[("a", "GPU-1::0")], &[0, 1]);
        check(&[], &[("stranger", "GPU-1::0"), ("", "GPU-0::3")], &[1, 1]);
    }

    #[test]
    fn a_pod_without_a_plan_counts_where_the_core_would_put_it() {
        check(&[("a", None), ("b", Some(1))], &[], &[0, 2]);
    }

    #[test]
    fn a_token_without_a_slice_counts_as_one_that_will_be_built() {
        let (gpus, resource) = ([a30_on_demand()], "nvidia.com/mig-2g.12gb".parse().unwrap());
        let whole = "nvidia.com/mig-4g.24gb".parse().unwrap();
        let copies = |ids: &[String]| {
            let held = [Held { uid: "a", namespace: "n", resource: &resource, device_ids: ids }];
            let state = &reckon(&gpus, &held, &[]).gpus[0];
            (state.copies(&resource), state.copies(&whole))
        };
        assert_eq!(copies(&[]), (2, 1));
        assert_eq!(copies(&["GPU-0::2g.12gb::1".into()]), (1, 0));
        assert_eq!(copies(&["GPU-9::2g.12gb::1".into(), "GPU-0::1g.6gb::1".into()]), (2, 1), "not of this");
    }

    #[test]
    fn a_token_without_a_slice_counts_where_its_plan_says() {
        let (gpus, resource) = ([a30_on_demand()], "nvidia.com/mig-1g.6gb".parse().unwrap());
        let spec: PodSpec = serde_json::from_value(serde_json::json!({"containers": [
            {"name": "c", "resources": {"limits": {"nvidia.com/mig-1g.6gb": "1"}}}]}))
        .unwrap();
        let request = Request::of_standard(&spec).unwrap();
        for start in 0..4 {
            let text = format!(
                r#"{{"v":1,"uid":"a","node":"n","c":{{"c":{{"nvidia.com/mig-1g.6gb":[{{"gpu":"GPU-0","profile":"1g.6gb","start":{start}}}]}}}}}}"#
            );
            let plan = Plan::parse(&text).unwrap();
            let held = [Held {
                uid: "a",
                namespace: "n",
                resource: &resource,
                device_ids: &["GPU-0::1g.6gb::0".into()],
            }];
            let pods = [node_pod("a", &request, Some(&plan))];
            let state = &reckon(&gpus, &held, &pods).gpus[0];
            let planned = located(&gpus, &resource, plan.devices("c", &resource))[0].offer;
            assert_eq!((state.copies(&resource), state.occupancy.in_use(planned)), (3, 1));
        }
    }

    #[test]
    fn a_reused_device_counts_once_and_nonsense_not_at_all() {
        check(
            &[("a", Some(0))],
            &[("a", "GPU-0::0"), ("a", "GPU-0::0"), ("b", "GPU-9"), ("b", "x")],
            &[1, 0],
        );
    }

    proptest! {
        /// Pods are planned one after another by the core; then the kubelet serves some of them, with any
        /// free device of the shape's plans. However it swaps, what is in use is what all pods ask for.
        #[test]
        fn swaps_neither_lose_nor_invent_devices(count in 1_u32..8, serve in prop::collection::vec(0_usize..8, 0..8)) {
            let (request, gpus, resource) = (request(), gpus(2), ResourceName::gpu().shared());
            let mix = Mix::prior(gpus.iter().map(|gpu| &**gpu));
            let mut states: Vec<GpuState> = gpus.iter().cloned().map(GpuState::idle).collect();
            let mut plans = Vec::new();
            for uid in 0..count {
                let placement = pack::place(&states, &request.demand(), &mix).unwrap();
                let containers = placement.to_plan(&states, &request);
                let chosen = placement.devices[&resource][0];
                states[chosen.gpu].occupancy.take(chosen.offer);
                plans.push(Plan { uid: uid.to_string(), node: "n".into(), containers });
            }
            // Whoever is served takes the planned GPU of another pod of the shape.
            let mut promised: Vec<String> =
                plans.iter().map(|plan| plan.devices("c", &resource)[0].gpu.to_string()).collect();
            let mut held = Vec::new();
            for pick in serve {
                let uid = held.len().to_string();
                if (held.len() as u32) < count {
                    let gpu = promised.swap_remove(pick % promised.len());
                    let replica = held.iter().filter(|(_, id): &&(String, [String; 1])| id[0].starts_with(&gpu)).count();
                    held.push((uid, [format!("{gpu}::{replica}")]));
                }
            }
            let pods: Vec<NodePod<'_>> =
                plans.iter().map(|plan| node_pod(&plan.uid, &request, Some(plan))).collect();
            let held: Vec<Held<'_>> =
                held.iter().map(|(uid, id)| Held { uid, namespace: "n", resource: &resource, device_ids: id }).collect();
            let got: Vec<u32> = reckon(&gpus, &held, &pods).gpus.iter().map(|g| g.occupancy.in_use(0)).collect();
            let want: Vec<u32> = states.iter().map(|g| g.occupancy.in_use(0)).collect();
            prop_assert_eq!(got, want);
        }
    }
}
