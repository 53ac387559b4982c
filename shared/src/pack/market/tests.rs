use proptest::prelude::*;

use super::*;
use crate::gpu::{Gpu, Offer};
use crate::mig::MigSlice;
use crate::models::Model;

fn name(text: &str) -> ResourceName {
    format!("nvidia.com/{text}").parse().unwrap()
}

fn kind(model: &str, memory: u64, offers: &[(&str, Option<u32>)]) -> Arc<GpuKind> {
    let offer = |&(resource, replicas): &(&str, Option<u32>)| Offer {
        resource: name(resource),
        part: Part::Whole,
        replicas,
        distinct: false,
        capped: false,
    };
    Arc::new(GpuKind::new(model, MemoryMib(memory), offers.iter().map(offer).collect()).unwrap())
}

/// Whole or in shares of any size.
fn elastic() -> Arc<GpuKind> {
    kind("A", 10_000, &[("gpu", None), ("gpu.shared", Some(10))])
}

fn cut() -> Arc<GpuKind> {
    let slices: Vec<MigSlice> =
        Model::by_key("a100-40gb").and_then(Model::geometry).unwrap().slices().collect();
    Arc::new(GpuKind::new("A", MemoryMib(10_000), Offer::on_demand(slices, &[])).unwrap())
}

fn gpu(index: u32, kind: &Arc<GpuKind>, shares: &[u32]) -> GpuState {
    let uuid = format!("GPU-{index}");
    let mut state = GpuState::idle(Arc::new(Gpu {
        part_uuids: kind.offers().iter().map(|_| uuid.clone()).collect(),
        uuid: uuid.parse().unwrap(),
        index,
        numa_node: None,
        kind: kind.clone(),
        near: Vec::new(),
        foreign: Vec::new(),
        unhealthy: None,
        sick: BTreeMap::new(),
    }));
    shares.iter().for_each(|&milli| state.take(1, Some(ShareSize::Milli(milli))));
    state
}

fn share(milli: u32) -> Demand {
    Demand { share: Some(ShareSize::Milli(milli)), ..Demand::from([(name("gpu.shared"), 1)]) }
}

const HOST: Host = Host { cpu_milli: 1000, memory_mib: 1000 };

fn shape(stands: &Stands, demand: &Demand) -> Option<(u16, u16)> {
    stands.shape(demand, HOST, |_, _| true).map(|shape| (shape.gpu_milli, shape.gpus))
}

#[test]
fn gpus_that_look_alike_are_of_one_stand_and_the_most_numerous_come_first() {
    let (rare, again) = (kind("B", 5000, &[("gpu", None)]), elastic());
    let kinds = [&rare, &elastic(), &again, &cut(), &cut(), &cut()];
    let stands = Stands::new(kinds);
    let gpus: Vec<GpuState> = (0..).zip(kinds).map(|(index, kind)| gpu(index, kind, &[])).collect();
    let lots = stands.lots(&gpus, HOST);
    let seen: Vec<(u8, &[usize], &[u16])> =
        lots.iter().map(|lot| (lot.node.model, &*lot.gpus, &*lot.node.idle)).collect();
    let want: [(u8, &[usize], &[u16]); 2] = [(2, &[0], &[1000]), (1, &[1, 2], &[1000, 1000])];
    assert_eq!(seen, want, "what is only cut is left out");
    assert!(lots.iter().all(|lot| lot.node.cpu_milli == 1000));
}

#[test]
fn a_request_has_the_size_of_what_it_asks_for() {
    let stands = Stands::new([&elastic(), &elastic(), &kind("B", 5000, &[("gpu.shared", Some(4))]), &cut()]);
    let whole = |count| Demand::from([(name("gpu"), count)]);
    assert_eq!(shape(&stands, &whole(3)), Some((1000, 3)));
    assert_eq!(shape(&stands, &share(460)), Some((460, 1)));
    let equal = |count| Demand::from([(name("gpu.shared"), count)]);
    assert_eq!(shape(&stands, &equal(1)), Some((100, 1)), "a tenth on most GPUs");
    assert_eq!(shape(&stands, &equal(3)), Some((300, 1)), "together where they can");
    assert_eq!(shape(&stands, &equal(15)), Some((1000, 2)));
    let memory = Demand { share: Some(ShareSize::Memory(MemoryMib(2500))), ..equal(1) };
    assert_eq!(shape(&stands, &memory), Some((250, 1)));
    let too_large = Demand { share: Some(ShareSize::Memory(MemoryMib(12_000))), ..equal(1) };
    assert_eq!(shape(&stands, &too_large), None);
    assert_eq!(shape(&stands, &Demand::from([(name("mig-1g.5gb"), 1)])), Some((125, 1)), "one of eight");
    assert_eq!(shape(&stands, &Demand::from([(name("mig-3g.20gb"), 3)])), Some((1000, 2)));
    assert_eq!(shape(&stands, &Demand::from([(name("gpu"), 1), (name("gpu.shared"), 1)])), None);
    let only_b = |model: &str, memory| model == "B" && memory == MemoryMib(5000);
    let on_b = stands.shape(&memory, HOST, only_b).unwrap();
    assert_eq!((on_b.gpu_milli, on_b.models), (500, Models::only([2])));
}

/// Whole, in shares of any size, or cut.
fn anything() -> Arc<GpuKind> {
    let offers = [elastic().offers().to_vec(), cut().offers().to_vec()].concat();
    Arc::new(GpuKind::new("B", MemoryMib(10_000), offers).unwrap())
}

/// What these cost where nothing is in use, on a GPU that cannot be cut and on one that can: in a cluster with as many
/// of either, where for one pod of these shares and one with a whole GPU so many ask for a slice.
fn costs_beside_slices(slices: u64, demand: &Demand) -> [i64; 2] {
    let (plain, anything) = (elastic(), anything());
    let stands = Arc::new(Stands::new([vec![&plain; 50], vec![&anything; 50]].concat()));
    let of = |demand: &Demand| stands.shape(demand, HOST, |_, _| true).unwrap();
    let slice = of(&Demand::from([(name("mig-3g.20gb"), 1)]));
    assert!(slice.slice, "{slice:?}");
    let whole = of(&Demand::from([(name("gpu"), 1)]));
    let market = Market::new(stands.clone(), [(of(&share(250)), 100), (whole, 100), (slice, 100 * slices)]);
    [plain, anything].map(|kind| {
        let lots = stands.lots(&[gpu(0, &kind, &[])], Host { cpu_milli: 96_000, memory_mib: 96_000 });
        market.cost(lots.iter().map(|lot| &lot.node), &of(demand))
    })
}

#[test]
fn who_could_go_elsewhere_pays_for_a_gpu_that_others_need_in_slices() {
    for demand in [share(250), Demand::from([(name("gpu"), 1)])] {
        let more = |slices| {
            let [plain, anything] = costs_beside_slices(slices, &demand);
            anything - plain
        };
        let costs = [more(0), more(1), more(4)];
        assert!(costs.is_sorted() && costs[0] < costs[1] && costs[1] < costs[2], "{demand:?}: {costs:?}");
    }
}

/// A cluster of elastic GPUs whose pods are of these shares, equally often.
fn market(shares: &[u32]) -> Market {
    let stands = Arc::new(Stands::new(&vec![elastic(); 100]));
    let seen = shares.iter().filter_map(|&milli| stands.shape(&share(milli), HOST, |_, _| true));
    let seen: Vec<(Shape, u64)> = seen.map(|shape| (shape, 1000)).collect();
    Market::new(stands, seen)
}

fn best_of(market: &Market, gpus: &[GpuState], milli: u32) -> Option<Vec<usize>> {
    let shape = market.stands().shape(&share(milli), HOST, |_, _| true)?;
    market.best_gpus(&market.stands().lots(gpus, Host { cpu_milli: 96_000, memory_mib: 96_000 }), &shape)
}

#[test]
fn a_share_goes_where_what_it_leaves_is_of_use_to_the_pods_that_are_seen() {
    let kind = elastic();
    // 700 and 1000 are idle. A share of 300 is tightest on the first, but leaves it too small for one of 700.
    let gpus = [gpu(0, &kind, &[300]), gpu(1, &kind, &[])];
    assert_eq!(best_of(&market(&[300, 700]), &gpus, 300), Some(vec![1]));
    assert_eq!(best_of(&market(&[300, 400]), &gpus, 300), Some(vec![0]), "with one of 400 it fills it");
    assert_eq!(best_of(&market(&[300]), &gpus, 1000), None, "any GPU will do for a whole one");
    assert_eq!(best_of(&market(&[300]), &gpus[..1], 701), None, "it does not fit");
}

#[test]
fn a_pod_that_takes_all_cpu_costs_what_it_leaves_without() {
    let market = market(&[500]);
    let hungry = Host { cpu_milli: 2000, ..HOST };
    let shape = market.stands().shape(&share(500), hungry, |_, _| true).unwrap();
    let cost = |cpu_milli| {
        let lots = market.stands().lots(&[gpu(0, &elastic(), &[])], Host { cpu_milli, memory_mib: 9000 });
        market.cost(lots.iter().map(|lot| &lot.node), &shape)
    };
    assert!(cost(3000) < cost(2000), "nobody could use the other half");
    assert_eq!(cost(1999), i64::MAX);
}

#[test]
fn a_pod_without_gpus_costs_least_where_nobody_could_use_its_cpu() {
    let (market, kind) = (market(&[500]), elastic());
    let cost = |shares: &[u32]| {
        let host = Host { cpu_milli: 1000, memory_mib: 4000 };
        let lots = market.stands().lots(&[gpu(0, &kind, shares)], host);
        market.cost(lots.iter().map(|lot| &lot.node), &Stands::shape_without_gpus(HOST))
    };
    assert!(cost(&[500, 500]) < cost(&[500]));
}

#[test]
fn so_many_sizes_are_rounded_that_the_market_is_made_in_time() {
    let many = market(&(1..=900).collect::<Vec<_>>());
    let sizes: BTreeSet<u16> = many.expected.shapes().map(|(shape, _)| shape.gpu_milli).collect();
    assert!(sizes.len() <= SIZES_MAX + 2, "{}", sizes.len());
}

proptest! {
    #[test]
    fn the_best_gpus_have_room_and_are_the_same_in_any_order(
        used in prop::collection::vec(prop::collection::vec(50_u32..500, 0..3), 1..6),
        milli in 1_u32..1000,
    ) {
        let (market, kind) = (market(&[200, 350, 460, 800]), elastic());
        let fitting = |shares: &[u32]| if shares.iter().sum::<u32>() > 1000 { Vec::new() } else { shares.to_vec() };
        let gpus: Vec<GpuState> = (0..).zip(&used).map(|(index, shares)| gpu(index, &kind, &fitting(shares))).collect();
        let best = best_of(&market, &gpus, milli);
        let room = |gpu: &GpuState| gpu.room_for(1, Some(ShareSize::Milli(milli))) > 0;
        prop_assert_eq!(best.is_none(), !gpus.iter().any(room));
        prop_assert!(best.iter().flatten().all(|&gpu| room(&gpus[gpu])));
        let turned: Vec<GpuState> = gpus.iter().rev().cloned().collect();
        let mut again = best_of(&market, &turned, milli).unwrap_or_default();
        again.iter_mut().for_each(|gpu| *gpu = gpus.len() - 1 - *gpu);
        again.sort_unstable();
        prop_assert_eq!(best.unwrap_or_default(), again);
    }
}
