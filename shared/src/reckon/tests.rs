use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::gpu::{GpuKind, Offer, Part};
use crate::occupancy::GpuState;
use crate::pack::{self, Mix};
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
fn what_is_held_in_a_form_that_is_not_offered_any_more_still_counts() {
    // The fifth share of a GPU that is shared by four now.
    check(&[], &[("a", "GPU-1::4")], &[0, 1]);
    // And a GPU that somebody had whole: no share of it is anybody's.
    let (gpus, whole, ids) = (gpus(2), ResourceName::gpu(), ["GPU-1".to_owned()]);
    let held = [Held { uid: "a", namespace: "n", resource: &whole, device_ids: &ids }];
    let mut seats = Vec::new();
    let states = reckon_seats(&gpus, &held, &[], &mut |seat| seats.push((seat.gpu, seat.offer))).gpus;
    assert_eq!(seats, [(1, 0)]);
    assert_eq!(states.iter().map(|state| state.room(0) > 0).collect::<Vec<_>>(), [true, false]);
    assert!(states[0].occupancy.is_idle() && !states[1].occupancy.is_idle());
    assert_eq!(crate::tally::Tally::of(&states[1..]).in_use, 1000);
}

#[test]
fn a_reused_device_counts_once_and_nonsense_not_at_all() {
    check(&[("a", Some(0))], &[("a", "GPU-0::0"), ("a", "GPU-0::0"), ("b", "GPU-9"), ("b", "x")], &[1, 0]);
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
