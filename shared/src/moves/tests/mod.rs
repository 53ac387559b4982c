mod properties;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::gpu::{Gpu, GpuKind, Offer, Part};
use crate::models::Model;
use crate::occupancy::GpuState;
use crate::pack::Mix;
use crate::units::MemoryMib;

fn name(text: &str) -> ResourceName {
    format!("nvidia.com/{text}").parse().unwrap()
}

fn demand(text: &str) -> Demand {
    text.split(' ')
        .map(|part| part.split_once('=').map(|(r, n)| (name(r), n.parse().unwrap())).unwrap())
        .collect()
}

/// `on-demand` slices of an A100, `whole`, or `elastic`: whole, in two shares or in slices.
fn gpu(index: usize, what: &str) -> GpuState {
    let a100 = Model::by_key("a100-40gb").and_then(Model::geometry).unwrap();
    let whole =
        Offer { resource: name("gpu"), part: Part::Whole, replicas: None, distinct: false, capped: false };
    let shares = Offer { resource: name("gpu.shared"), replicas: Some(2), ..whole.clone() };
    let slices = Offer::on_demand(a100.slices(), &[]);
    let offers: Vec<Offer> = match what {
        "whole" => vec![whole],
        "elastic" => [whole, shares].into_iter().chain(slices).collect(),
        _ => slices,
    };
    GpuState::idle(Arc::new(Gpu {
        uuid: format!("GPU-{index}").parse().unwrap(),
        index: u32::try_from(index).unwrap(),
        numa_node: None,
        near: Vec::new(),
        part_uuids: vec![String::new(); offers.len()],
        kind: Arc::new(GpuKind::new("M", MemoryMib(40_960), offers).unwrap()),
        foreign: Vec::new(),
        unhealthy: None,
        sick: BTreeMap::new(),
    }))
}

fn cluster(nodes: &[&[&str]]) -> Cluster {
    let node = |gpus: &&[&str]| gpus.iter().enumerate().map(|(i, what)| gpu(i, what)).collect();
    let nodes: Vec<Vec<GpuState>> = nodes.iter().map(node).collect();
    let mix = Mix::prior(nodes.iter().flatten().map(|state| &*state.gpu));
    Cluster::new(nodes, mix)
}

/// Puts a pod at a place such as `0/1:mig-1g.5gb@4` (node, GPU, resource, start), with its cost behind a blank, or `-`
/// where it must stay.
fn hold(cluster: &mut Cluster, text: &str) -> Holder {
    let (place, cost) = text.split_once(' ').unwrap();
    let (at, what) = place.split_once(':').unwrap();
    let (node, gpu) = at.split_once('/').unwrap();
    let (resource, start) = what.split_once('@').unwrap_or((what, "0"));
    let (node, gpu, resource) = (node.parse().unwrap(), gpu.parse::<usize>().unwrap(), name(resource));
    let is_there = |part: &Part| match part {
        Part::Whole => true,
        Part::Slice(slice) => slice.start.to_string() == start,
    };
    let state = &cluster.gpus(node)[gpu];
    let offer = state.gpu.kind.offers_of(&resource).find(|(_, of)| is_there(&of.part)).unwrap().0;
    let chosen = Chosen { gpu, offer };
    cluster.take(node, [chosen]);
    Holder {
        node,
        kind: u32::try_from(node).unwrap(),
        demand: Demand::from([(resource.clone(), 1)]),
        devices: BTreeMap::from([(resource, vec![chosen])]),
        move_cost: cost.parse().ok(),
    }
}

fn place_text(cluster: &Cluster, node: usize, devices: &BTreeMap<ResourceName, Vec<Chosen>>) -> String {
    let text = |chosen: &Chosen| match &cluster.gpus(node)[chosen.gpu].gpu.kind.offers()[chosen.offer].part {
        Part::Whole => format!("{node}/{}", chosen.gpu),
        Part::Slice(slice) => format!("{node}/{}:{}@{}", chosen.gpu, slice.profile, slice.start),
    };
    devices.values().flatten().map(text).collect::<Vec<_>>().join(" ")
}

const LIMITS: Limits = Limits { moves: 3, tries: 10_000 };

#[track_caller]
fn check(nodes: &[&[&str]], pods: &[&str], ask: &str, want: &str) {
    check_where(nodes, pods, ask, &|_, _| true, LIMITS, want);
}

#[track_caller]
fn check_where(
    nodes: &[&[&str]],
    pods: &[&str],
    ask: &str,
    may: &dyn Fn(Who, usize) -> bool,
    limits: Limits,
    want: &str,
) {
    let mut cluster = cluster(nodes);
    let holders: Vec<Holder> = pods.iter().map(|text| hold(&mut cluster, text)).collect();
    let got = match make_room(&mut cluster, &holders, &demand(ask), may, limits) {
        None => "no".to_owned(),
        Some(room) => {
            let step = |m: &Move| format!("{} to {}, ", m.holder, place_text(&cluster, m.node, &m.devices));
            let moves: String = room.moves.iter().map(step).collect();
            format!("{moves}then {}", place_text(&cluster, room.node, &room.devices))
        }
    };
    assert_eq!(got, want);
}

const MIG: &[&str] = &["on-demand"];

#[test]
fn what_fits_needs_no_move() {
    check(&[MIG], &["0/0:mig-1g.5gb@0 1"], "mig-3g.20gb=1", "then 0/0:3g.20gb@4");
}

#[test]
fn one_pod_moves_where_that_frees_a_whole_gpu() {
    let pods = ["0/0:mig-1g.5gb@0 1", "1/0:mig-3g.20gb@0 1", "1/0:mig-1g.5gb@4 1"];
    check(&[MIG, MIG], &pods, "mig-7g.40gb=1", "0 to 1/0:1g.5gb@5, then 0/0:7g.40gb@0");
}

#[test]
fn a_pod_may_move_within_its_gpu() {
    check(&[MIG], &["0/0:mig-1g.5gb@1 1"], "mig-4g.20gb=1", "0 to 0/0:1g.5gb@6, then 0/0:4g.20gb@0");
}

#[test]
fn the_cheaper_pod_moves_and_one_that_must_stay_never_does() {
    let pods = |one: &str, two: &str| [format!("0/0:mig-1g.5gb@0 {one}"), format!("1/0:mig-1g.5gb@0 {two}")];
    let check = |one: &str, two: &str, want: &str| {
        let pods = pods(one, two);
        check(&[MIG, MIG], &pods.each_ref().map(String::as_str), "mig-7g.40gb=1", want);
    };
    check("5", "1", "1 to 0/0:1g.5gb@1, then 1/0:7g.40gb@0");
    check("1", "5", "0 to 1/0:1g.5gb@1, then 0/0:7g.40gb@0");
    check("-", "5", "1 to 0/0:1g.5gb@1, then 1/0:7g.40gb@0");
    check("-", "-", "no");
}

#[test]
fn a_pod_that_finds_no_place_may_have_one_made_by_another_move() {
    // The 3g can only go where the 1g is, which can only go into the one slot that is left on the third GPU.
    let pods = [
        "0/0:mig-3g.20gb@0 1",
        "1/0:mig-3g.20gb@0 -",
        "1/0:mig-1g.5gb@4 1",
        "2/0:mig-3g.20gb@0 -",
        "2/0:mig-2g.10gb@4 -",
    ];
    let want = "2 to 2/0:1g.5gb@6, 0 to 1/0:3g.20gb@4, then 0/0:7g.40gb@0";
    check(&[MIG, MIG, MIG], &pods, "mig-7g.40gb=1", want);
}

#[test]
fn forbidden_nodes_and_limits_are_kept() {
    let pods = ["0/0:mig-1g.5gb@0 1", "1/0:mig-1g.5gb@0 1"];
    let check = |may: &dyn Fn(Who, usize) -> bool, limits, want: &str| {
        check_where(&[MIG, MIG], &pods, "mig-7g.40gb=1", may, limits, want);
    };
    check(&|who, node| who != Who::Waiting || node == 1, LIMITS, "1 to 0/0:1g.5gb@1, then 1/0:7g.40gb@0");
    check(&|who, node| who != Who::Holder(0) || node == 0, LIMITS, "1 to 0/0:1g.5gb@1, then 1/0:7g.40gb@0");
    check(&|who, _| who == Who::Waiting, LIMITS, "no");
    check(&|_, _| true, Limits { moves: 0, ..LIMITS }, "no");
    check(&|_, _| true, Limits { tries: 0, ..LIMITS }, "no");
}

#[test]
fn several_gpus_of_one_node_are_freed_together() {
    let node: &[&str] = &["elastic", "elastic"];
    let pods = ["0/0:gpu.shared 1", "1/0:gpu.shared -", "1/1:gpu -"];
    check(&[node, node], &pods, "gpu=2", "0 to 1/0, then 0/1 0/0");
    let pods = ["0/0:gpu 1", "1/0:gpu 1"];
    let whole: &[&str] = &["whole", "whole"];
    check(&[whole, whole], &pods, "gpu=2", "0 to 1/1, then 0/1 0/0");
}

#[test]
fn of_a_full_shared_gpu_one_pod_makes_room() {
    let node: &[&str] = &["elastic"];
    let pods = ["0/0:gpu.shared 3", "0/0:gpu.shared 2", "1/0:gpu.shared -"];
    let may = |who, node| who != Who::Waiting || node == 0;
    check_where(&[node, node], &pods, "gpu.shared=1", &may, LIMITS, "1 to 1/0, then 0/0");
}

#[test]
fn gathering_empties_the_gpu_that_gains_most_for_each_move() {
    let mut cluster = cluster(&[MIG, MIG, MIG]);
    let pods = ["0/0:mig-1g.5gb@0 1", "1/0:mig-1g.5gb@0 1", "1/0:mig-1g.5gb@6 1", "2/0:mig-4g.20gb@0 -"];
    let holders: Vec<Holder> = pods.iter().map(|text| hold(&mut cluster, text)).collect();
    let (before, value) = (cluster.gpus(0).to_vec(), cluster.value());
    let gains = gather(&mut cluster, &holders, &|_, _| true, Limits { moves: 1, tries: 1_000 });
    assert_eq!((cluster.gpus(0), cluster.value()), (&*before, value), "nothing is carried out");
    assert_eq!((gains.len(), gains[0].moves.len(), gains[0].moves[0].holder), (1, 1, 0));
    let must_stay: Vec<Holder> =
        holders.iter().map(|holder| Holder { move_cost: None, ..holder.clone() }).collect();
    assert_eq!(gather(&mut cluster, &must_stay, &|_, _| true, LIMITS), []);
}
