//! Whatever a cluster looks like: moves are legal, gain what they say, and are found.

use proptest::prelude::*;

use super::*;

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
