use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::gpu::{Gpu, GpuKind, Offer, Part};
use crate::models::Model;
use crate::occupancy::GpuState;
use crate::resource::ResourceName;
use crate::share::ShareSize;
use crate::units::MemoryMib;

fn name(text: &str) -> ResourceName {
    format!("nvidia.com/{text}").parse().unwrap()
}

/// `whole`, `share4`, `distinct4` (four shares, one for a pod), `capped4` (none larger than a quarter), `elastic4` (whole or four shares), `mig:3g.20gb@4,1g.5gb@0` or `on-demand`.
fn gpu(index: u32, what: &str) -> GpuState {
    let a100 = Model::by_key("a100-40gb").and_then(Model::geometry).unwrap();
    let offer = |resource: &str, part, replicas| Offer {
        resource: name(resource),
        part,
        replicas,
        distinct: false,
        capped: false,
    };
    let mig = |slice: crate::mig::MigSlice| Offer {
        resource: ResourceName::mig(&slice.profile),
        part: Part::Slice(slice),
        replicas: None,
        distinct: false,
        capped: false,
    };
    let offers: Vec<Offer> = match what {
        "whole" => vec![offer("gpu", Part::Whole, None)],
        "share4" => vec![offer("gpu.shared", Part::Whole, Some(4))],
        "distinct4" => vec![Offer { distinct: true, ..offer("gpu.shared", Part::Whole, Some(4)) }],
        "capped4" => vec![Offer { capped: true, ..offer("gpu.shared", Part::Whole, Some(4)) }],
        "elastic4" => vec![offer("gpu", Part::Whole, None), offer("gpu.shared", Part::Whole, Some(4))],
        "on-demand" => a100.slices().map(mig).collect(),
        other => {
            let wanted =
                other.strip_prefix("mig:").unwrap().split(',').map(|text| text.split_once('@').unwrap());
            let find = |(profile, start): (&str, &str)| {
                a100.slices().find(|s| s.profile.as_str() == profile && s.start.to_string() == start).unwrap()
            };
            wanted.map(find).map(mig).collect()
        }
    };
    let uuid = format!("GPU-{index}");
    let gpu = Gpu {
        part_uuids: offers.iter().map(|_| uuid.clone()).collect(),
        uuid: uuid.parse().unwrap(),
        index,
        numa_node: None,
        kind: Arc::new(GpuKind::new("M", MemoryMib(40_960), offers).unwrap()),
        near: Vec::new(),
        foreign: Vec::new(),
        unhealthy: None,
        sick: Default::default(),
    };
    GpuState::idle(Arc::new(gpu))
}

fn node(gpus: &[&str]) -> Vec<GpuState> {
    (0..).zip(gpus).map(|(i, what)| gpu(i, what)).collect()
}

/// `gpu.shared=2 share=3072` and the like: devices, and the size of a share in MiB.
fn demand(text: &str) -> Demand {
    if let Some((devices, mib)) = text.split_once(" share=") {
        let share = Some(ShareSize::Memory(MemoryMib(mib.parse().unwrap())));
        return Demand { share, ..demand(devices) };
    }
    text.split(' ')
        .map(|part| part.split_once('=').map(|(r, n)| (name(r), n.parse().unwrap())).unwrap())
        .collect()
}

fn ask(node: &mut [GpuState], text: &str) -> Result<(String, Cost), NoFit> {
    let mix = Mix::prior(node.iter().map(|g| &*g.gpu));
    let placement = place(node, &demand(text), &mix)?;
    let mut places = Vec::new();
    for chosen in placement.devices.values().flatten() {
        node[chosen.gpu].take(chosen.offer, demand(text).share);
        places.push(match &node[chosen.gpu].gpu.kind.offers()[chosen.offer].part {
            Part::Whole => format!("{}", chosen.gpu),
            Part::Slice(slice) => format!("{}:{}@{}", chosen.gpu, slice.profile, slice.start),
        });
    }
    Ok((places.join(" "), placement.cost))
}

/// Asks one after another on one node, and compares where each request went.
#[track_caller]
fn check(gpus: &[&str], asks: &[(&str, &str)]) {
    let mut node = node(gpus);
    for (text, want) in asks {
        let got = ask(&mut node, text).map_or_else(|no| no.to_string(), |(places, _)| places);
        assert_eq!(&got, want, "{text}");
    }
}

#[test]
fn shares_fill_one_gpu_before_the_next() {
    let shares = |n| vec![("gpu.shared=1", n); 4];
    check(&["share4", "share4"], &[shares("0"), shares("1")].concat());
    check(
        &["share4"],
        &[("gpu.shared=4", "0 0 0 0"), ("gpu.shared=1", "no free placement for nvidia.com/gpu.shared")],
    );
}

#[test]
fn the_smallest_sufficient_slice_of_the_fullest_gpu_is_taken() {
    check(
        &["mig:1g.5gb@0,1g.5gb@1,3g.20gb@4", "mig:1g.5gb@0"],
        &[
            ("mig-3g.20gb=1", "0:3g.20gb@4"),
            ("mig-1g.5gb=1", "0:1g.5gb@1"),
            ("mig-1g.5gb=1", "0:1g.5gb@0"),
            ("mig-1g.5gb=1", "1:1g.5gb@0"),
        ],
    );
}

#[test]
fn a_shared_gpu_takes_the_next_share_and_leaves_whole_gpus_whole() {
    check(
        &["elastic4", "elastic4"],
        &[
            ("gpu=1", "0"),
            ("gpu.shared=1", "1"),
            ("gpu.shared=2", "1 1"),
            ("gpu=1", "no free placement for nvidia.com/gpu"),
        ],
    );
}

#[test]
fn slices_made_on_demand_keep_room_for_large_ones() {
    check(
        &["on-demand"],
        &[("mig-1g.5gb=1", "0:1g.5gb@6"), ("mig-3g.20gb=1", "0:3g.20gb@0"), ("mig-2g.10gb=1", "0:2g.10gb@4")],
    );
}

/// Takes slices such as `3g.20gb@4` of one GPU.
fn take(state: &mut GpuState, slices: &[&str]) {
    for text in slices {
        let is_it =
            |part: &Part| matches!(part, Part::Slice(s) if format!("{}@{}", s.profile, s.start) == *text);
        let offer = state.gpu.kind.offers().iter().position(|offer| is_it(&offer.part)).unwrap();
        state.occupancy.take(offer);
    }
}

#[test]
fn of_equal_places_the_one_beside_which_more_comes_back_is_kept() {
    // Both have two slices left beside two in use. When the 2g leaves, half of the GPU is free; when one of the 1g
    // leaves, it is not.
    let mut node = node(&["on-demand", "on-demand"]);
    take(&mut node[0], &["3g.20gb@4", "2g.10gb@0"]);
    take(&mut node[1], &["3g.20gb@4", "1g.5gb@0", "1g.5gb@1"]);
    assert_eq!(ask(&mut node, "mig-2g.10gb=1").unwrap().0, "1:2g.10gb@2");
}

#[test]
fn media_engines_are_expected_only_where_there_is_no_slice_without_them() {
    let expects = |gpu: &GpuState| {
        Mix::prior([&*gpu.gpu]).shapes().any(|(resource, _)| resource == &name("mig-1g.5gb.me"))
    };
    assert!(!expects(&gpu(0, "on-demand")) && expects(&gpu(0, "mig:1g.5gb+me@0")));
}

#[test]
fn a_request_of_several_sizes_is_arranged_so_that_all_fit() {
    let mut node = node(&["on-demand"]);
    let (places, _) = ask(&mut node, "mig-1g.5gb=3 mig-3g.20gb=1 mig-2g.10gb=0").unwrap();
    assert_eq!(places.split(' ').count(), 4, "{places}");
    assert!(ask(&mut node, "mig-4g.20gb=1").is_err());
}

#[test]
fn what_does_not_fit_says_why() {
    let mut idle = node(&["whole", "mig:1g.5gb@0"]);
    let mut why = |text: &str| ask(&mut idle, text).unwrap_err();
    assert_eq!(why("mig-3g.20gb=1"), NoFit::NotOffered(name("mig-3g.20gb")));
    assert_eq!(why("gpu=2"), NoFit::TooFew(name("gpu")));
    let mut broken = node(&["whole"]);
    broken[0].gpu = Arc::new(Gpu { unhealthy: Some("xid 79".into()), ..(*broken[0].gpu).clone() });
    assert_eq!(ask(&mut broken, "gpu=1").unwrap_err(), NoFit::Unhealthy(name("gpu")));
    assert!(why("gpu=2").is_permanent() && !NoFit::Full(name("gpu")).is_permanent());
}

#[test]
fn shares_of_one_pod_are_of_distinct_gpus_where_that_is_wanted() {
    check(
        &["distinct4", "distinct4"],
        &[
            ("gpu.shared=2", "0 1"),
            ("gpu.shared=1", "0"),
            ("gpu.shared=1", "0"),
            ("gpu.shared=3", "fewer nvidia.com/gpu.shared on this node than the pod asks for"),
            ("gpu.shared=1", "0"),
            ("gpu.shared=2", "no free placement for nvidia.com/gpu.shared"),
            ("gpu.shared=1", "1"),
        ],
    );
}

#[test]
fn a_slice_that_failed_is_left_alone() {
    let mut node = node(&["mig:1g.5gb@0,1g.5gb@1"]);
    let sick = [(1, "XID 94".to_owned())].into();
    node[0].gpu = Arc::new(Gpu { sick, ..(*node[0].gpu).clone() });
    assert_eq!(ask(&mut node, "mig-1g.5gb=2").unwrap_err(), NoFit::Unhealthy(name("mig-1g.5gb")));
    assert_eq!(ask(&mut node, "mig-1g.5gb=1").unwrap().0, "0:1g.5gb@0");
    assert_eq!(ask(&mut node, "mig-1g.5gb=1").unwrap_err(), NoFit::Unhealthy(name("mig-1g.5gb")));
}

#[test]
fn a_node_in_use_is_cheaper_than_an_idle_one_and_a_tight_one_cheaper_still() {
    let cost = |used: usize| {
        let mut node = node(&["whole"; 8]);
        for _ in 0..used {
            ask(&mut node, "gpu=1").unwrap();
        }
        ask(&mut node, "gpu=1").unwrap().1
    };
    let costs = [cost(7), cost(5), cost(1), cost(0)];
    assert!(costs.is_sorted() && costs[0] < costs[1] && costs[2] < costs[3], "{costs:?}");
    assert!(cost(0).wakes_node && !cost(1).wakes_node);
}

#[test]
fn four_gpus_together_stay_together() {
    // Three free GPUs lose less by giving one than four free ones, which could still take a pod of four.
    let cost = |used: usize| {
        let mut node = node(&["whole"; 8]);
        (0..used).for_each(|_| drop(ask(&mut node, "gpu=1").unwrap()));
        ask(&mut node, "gpu=1").unwrap().1
    };
    assert!(cost(5).lost < cost(4).lost);
}

fn any_node() -> impl Strategy<Value = Vec<GpuState>> {
    let kinds = ["whole", "share4", "distinct4", "elastic4", "mig:3g.20gb@4,2g.10gb@0,1g.5gb@2", "on-demand"];
    prop::collection::vec(prop::sample::select(kinds.to_vec()), 1..5).prop_map(|gpus| node(&gpus))
}

fn any_asks() -> impl Strategy<Value = Vec<(&'static str, u32)>> {
    let names =
        ["gpu", "gpu.shared", "mig-1g.5gb", "mig-2g.10gb", "mig-3g.20gb", "mig-1g.5gb.me", "mig-7g.40gb"];
    prop::collection::vec((prop::sample::select(names.to_vec()), 1_u32..4), 1..20)
}

#[test]
fn shares_of_different_sizes_fill_a_gpus_memory() {
    // 40,960 MiB each; a share that says nothing has 10,240.
    let mut node = node(&["share4", "share4"]);
    let mut put = |text: &str| ask(&mut node, text).map(|(place, _)| place);
    assert_eq!(put("gpu.shared=1 share=30000").as_deref(), Ok("0"));
    assert_eq!(put("gpu.shared=1 share=10000").as_deref(), Ok("0"), "the one that it fills");
    assert_eq!(put("gpu.shared=1").as_deref(), Ok("1"), "960 MiB are left of the first");
    assert_eq!(put("gpu.shared=1 share=30000").as_deref(), Ok("1"));
    assert_eq!(put("gpu.shared=1 share=900").as_deref(), Ok("0"));
    assert_eq!(put("gpu.shared=1"), Err(NoFit::Full(name("gpu.shared"))), "shares are left, and no memory");
    assert_eq!(put("gpu.shared=1 share=60").as_deref(), Ok("0"), "the fourth share");
    assert_eq!(put("gpu.shared=1 share=1").as_deref(), Ok("1"));
    assert_eq!(put("gpu.shared=9 share=1"), Err(NoFit::TooFew(name("gpu.shared"))));
    let too_large = Err(NoFit::TooLarge(name("gpu.shared")));
    assert_eq!(put("gpu.shared=1 share=40961"), too_large);
}

#[test]
fn no_share_is_larger_than_an_equal_part_where_that_cannot_be() {
    let mut node = node(&["capped4"]);
    let mut put = |text: &str| ask(&mut node, text).map(|(place, _)| place);
    assert_eq!(put("gpu.shared=1 share=10241"), Err(NoFit::TooLarge(name("gpu.shared"))));
    assert_eq!(put("gpu.shared=4 share=10240").as_deref(), Ok("0 0 0 0"));
}

proptest! {
    /// Dumber code judges: no offer beyond its devices, and no two offers in use whose parts exclude each other.
    #[test]
    fn nothing_is_ever_overcommitted(mut node in any_node(), asks in any_asks()) {
        for (resource, count) in asks {
            let _ = ask(&mut node, &format!("{resource}={count}"));
            for gpu in &node {
                let offers = gpu.gpu.kind.offers();
                for (i, one) in offers.iter().enumerate() {
                    prop_assert!(gpu.occupancy.in_use(i) <= one.device_count());
                    for (j, two) in offers.iter().enumerate().skip(i + 1) {
                        let both = gpu.occupancy.in_use(i) > 0 && gpu.occupancy.in_use(j) > 0;
                        prop_assert!(!(both && one.part.conflicts(&two.part)));
                    }
                }
            }
        }
    }

    /// One device fits exactly where some offer has room.
    #[test]
    fn a_single_device_is_refused_only_where_there_is_none(mut node in any_node(), asks in any_asks()) {
        for (resource, _) in asks {
            let free = node.iter().any(|g| g.gpu.kind.offers_of(&name(resource)).any(|(i, _)| g.room(i) > 0));
            prop_assert_eq!(ask(&mut node, &format!("{resource}=1")).is_ok(), free);
        }
    }

    /// The same GPUs in another order cost the same.
    #[test]
    fn the_order_of_gpus_does_not_matter(mut node in any_node(), asks in any_asks()) {
        let mut turned: Vec<GpuState> = node.iter().rev().cloned().collect();
        for (resource, count) in asks {
            let text = format!("{resource}={count}");
            let costs = (ask(&mut node, &text).map(|a| a.1), ask(&mut turned, &text).map(|a| a.1));
            prop_assert_eq!(costs.0, costs.1);
        }
    }
}
