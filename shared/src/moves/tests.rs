use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

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

/// A pod at any place that is free: not where the core would put it.
#[derive(Debug, Clone)]
struct Anywhere {
    at: usize,
    movable: bool,
}

fn any_pods() -> impl Strategy<Value = Vec<Anywhere>> {
    let pod = (0_usize..10_000, prop::bool::weighted(0.8)).prop_map(|(at, movable)| Anywhere { at, movable });
    prop::collection::vec(pod, 0..24)
}

fn any_nodes() -> impl Strategy<Value = Vec<Vec<&'static str>>> {
    let gpu = prop::sample::select(vec!["on-demand", "on-demand", "elastic"]);
    prop::collection::vec(prop::collection::vec(gpu, 1..3), 1..4)
}

fn scatter(cluster: &mut Cluster, pods: &[Anywhere]) -> Vec<Holder> {
    let mut holders = Vec::new();
    for pod in pods {
        let mut free = Vec::new();
        for node in 0..cluster.len() {
            for (gpu, state) in cluster.gpus(node).iter().enumerate() {
                let offers = state.gpu.kind.offers().iter().enumerate();
                let open = offers.filter(|&(offer, _)| state.room(offer) > 0);
                free.extend(open.map(|(offer, of)| (node, Chosen { gpu, offer }, of.resource.clone())));
            }
        }
        if free.is_empty() {
            break;
        }
        let (node, chosen, resource) = free.swap_remove(pod.at % free.len());
        cluster.take(node, [chosen]);
        holders.push(Holder {
            node,
            kind: 0,
            demand: Demand::from([(resource.clone(), 1)]),
            devices: BTreeMap::from([(resource, vec![chosen])]),
            move_cost: pod.movable.then_some(1),
        });
    }
    holders
}

/// Carries moves out one by one as a kubelet would, and names the first step that is not legal. Dumber code than what
/// is judged: every part in use is compared with every other.
struct Judge<'a> {
    cluster: &'a Cluster,
    in_use: Vec<(usize, Chosen)>,
}

impl<'a> Judge<'a> {
    fn new(cluster: &'a Cluster, holders: &[Holder]) -> Self {
        let in_use = holders.iter().flat_map(|holder| holder.chosen().map(|chosen| (holder.node, chosen)));
        Self { cluster, in_use: in_use.collect() }
    }

    fn start(&mut self, node: usize, wanted: &Demand, devices: &BTreeMap<ResourceName, Vec<Chosen>>) {
        for (resource, &count) in &wanted.devices {
            assert_eq!(devices[resource].len(), count as usize);
        }
        for (resource, &chosen) in devices.iter().flat_map(|(r, all)| all.iter().map(move |c| (r, c))) {
            let offers = |gpu: usize| self.cluster.gpus(node)[gpu].gpu.kind.offers();
            let new = &offers(chosen.gpu)[chosen.offer];
            assert_eq!(&new.resource, resource);
            let beside = self.in_use.iter().filter(|(n, c)| *n == node && c.gpu == chosen.gpu);
            let mut same = 0;
            for (_, other) in beside {
                if other.offer == chosen.offer {
                    same += 1;
                } else {
                    let other = &offers(other.gpu)[other.offer];
                    assert!(!other.part.conflicts(&new.part), "{:?} beside {:?}", new.part, other.part);
                }
            }
            assert!(same < new.device_count(), "{:?} is full", new.part);
            self.in_use.push((node, chosen));
        }
    }

    fn carry_out(&mut self, holders: &[Holder], moves: &[Move]) {
        for step in moves {
            let holder = &holders[step.holder];
            assert!(holder.move_cost.is_some(), "it must stay");
            self.start(step.node, &holder.demand, &step.devices);
            for chosen in holder.chosen() {
                let at = self.in_use.iter().position(|&known| known == (holder.node, chosen));
                self.in_use.swap_remove(at.expect("it moves once, from where it was"));
            }
        }
    }
}

proptest! {
    /// Every sequence is legal step by step, ends with the request fitting, and is forgotten by the cluster.
    #[test]
    fn moves_are_legal_one_by_one_and_let_the_request_in(
        nodes in any_nodes(), pods in any_pods(), ask in prop::sample::select(vec![
            "gpu=1", "gpu=2", "gpu.shared=2", "mig-7g.40gb=1", "mig-4g.20gb=1", "mig-3g.20gb=1", "mig-2g.10gb=1",
            "mig-1g.10gb=2", "mig-3g.20gb=1 mig-1g.5gb=2",
        ]),
    ) {
        let nodes: Vec<&[&str]> = nodes.iter().map(Vec::as_slice).collect();
        let mut cluster = cluster(&nodes);
        let holders = scatter(&mut cluster, &pods);
        let before: Vec<Vec<GpuState>> = (0..cluster.len()).map(|node| cluster.gpus(node).to_vec()).collect();
        let wanted = demand(ask);
        let fits = cluster.best(&wanted, |_| true).is_some();
        let room = make_room(&mut cluster, &holders, &wanted, &|_, _| true, LIMITS);
        for (node, gpus) in before.iter().enumerate() {
            prop_assert_eq!(cluster.gpus(node), gpus);
        }
        if let Some(room) = &room {
            prop_assert!(room.moves.len() <= LIMITS.moves);
            prop_assert_eq!(room.move_cost, room.moves.len() as u64);
            let mut judge = Judge::new(&cluster, &holders);
            judge.carry_out(&holders, &room.moves);
            judge.start(room.node, &wanted, &room.devices);
        }
        if fits && wanted.devices.values().sum::<u32>() == 1 {
            prop_assert!(room.is_some_and(|room| room.moves.is_empty()), "it fits as it is");
        }
    }

    /// Where no single move is found, trying every pod at every free place finds none either.
    #[test]
    fn one_move_is_found_wherever_there_is_one(
        nodes in any_nodes(), pods in any_pods(),
        ask in prop::sample::select(vec!["gpu=1", "mig-7g.40gb=1", "mig-4g.20gb=1", "mig-3g.20gb=1", "mig-2g.10gb=1"]),
    ) {
        let nodes: Vec<&[&str]> = nodes.iter().map(Vec::as_slice).collect();
        let mut cluster = cluster(&nodes);
        let holders = scatter(&mut cluster, &pods);
        let wanted = demand(ask);
        let limits = Limits { moves: 1, ..LIMITS };
        if make_room(&mut cluster, &holders, &wanted, &|_, _| true, limits).is_some() {
            return Ok(());
        }
        for holder in holders.iter().filter(|holder| holder.move_cost.is_some()) {
            let resource = holder.demand.devices.keys().next().unwrap();
            for node in 0..cluster.len() {
                for gpu in 0..cluster.gpus(node).len() {
                    let kind = cluster.gpus(node)[gpu].gpu.kind.clone();
                    for (offer, _) in kind.offers_of(resource) {
                        if cluster.gpus(node)[gpu].room(offer) == 0 {
                            continue;
                        }
                        cluster.take(node, [Chosen { gpu, offer }]);
                        cluster.give_back(holder.node, holder.chosen());
                        let fits = cluster.best(&wanted, |_| true).is_some();
                        cluster.take(holder.node, holder.chosen());
                        cluster.give_back(node, [Chosen { gpu, offer }]);
                        prop_assert!(!fits, "{:?} to {}/{} {}", holder, node, gpu, offer);
                    }
                }
            }
        }
    }

    /// Gathering is legal step by step and gains what it says.
    #[test]
    fn gathering_gains_what_it_says(nodes in any_nodes(), pods in any_pods()) {
        let nodes: Vec<&[&str]> = nodes.iter().map(Vec::as_slice).collect();
        let mut cluster = cluster(&nodes);
        let holders = scatter(&mut cluster, &pods);
        let gains = gather(&mut cluster, &holders, &|_, _| true, LIMITS);
        let mut judge = Judge::new(&cluster, &holders);
        gains.iter().for_each(|gain| judge.carry_out(&holders, &gain.moves));
        prop_assert!(gains.iter().map(|gain| gain.moves.len()).sum::<usize>() <= LIMITS.moves);
        for gain in gains {
            let before = cluster.value();
            for step in &gain.moves {
                cluster.take(step.node, step.devices.values().flatten().copied());
                cluster.give_back(holders[step.holder].node, holders[step.holder].chosen());
            }
            prop_assert!(gain.gained > 0);
            prop_assert_eq!(cluster.value(), before + gain.gained);
        }
    }

    /// Nodes that are alike share a class and their answers; the core by itself says the same of each.
    #[test]
    fn remembered_answers_are_the_cores_own(nodes in any_nodes(), pods in any_pods()) {
        let nodes: Vec<&[&str]> = nodes.iter().map(Vec::as_slice).collect();
        let mut cluster = cluster(&nodes);
        let mix = Mix::prior((0..cluster.len()).flat_map(|n| cluster.gpus(n).iter().map(|s| &*s.gpu)).collect::<Vec<_>>());
        scatter(&mut cluster, &pods);
        for ask in ["mig-1g.5gb=1", "gpu=1", "mig-3g.20gb=1", "gpu.shared=1"] {
            let wanted = demand(ask);
            for node in 0..cluster.len() {
                let by_core = crate::pack::place(cluster.gpus(node), &wanted, &mix).ok();
                let remembered = cluster.fit(node, &wanted);
                prop_assert_eq!(remembered.as_deref(), by_core.as_ref());
            }
        }
    }
}
