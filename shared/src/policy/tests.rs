mod market;
mod reserve;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::gpu::{Gpu, GpuKind, Offer, Part};
use crate::occupancy::GpuState;
use crate::pack::{Demand, Mix};
use crate::resource::ResourceName;

fn read(annotations: &[(&str, &str)]) -> Result<Policy, PolicyError> {
    Policy::read(|key| annotations.iter().find(|(known, _)| *known == key).map(|(_, value)| *value))
}

fn policy(annotations: &[(&str, &str)]) -> Policy {
    read(annotations).unwrap()
}

/// A GPU of a model with that much memory, in four shares.
fn gpu(index: u32, model: &str, gib: u64) -> GpuState {
    offering(index, model, gib, vec![offer(ResourceName::gpu().shared(), Part::Whole, Some(4))])
}

fn offer(resource: ResourceName, part: Part, replicas: Option<u32>) -> Offer {
    Offer { resource, part, replicas, distinct: false, capped: false }
}

fn offering(index: u32, model: &str, gib: u64, offers: Vec<Offer>) -> GpuState {
    let uuid = format!("GPU-{index}");
    GpuState::idle(Arc::new(Gpu {
        part_uuids: vec![uuid.clone(); offers.len()],
        uuid: uuid.parse().unwrap(),
        index,
        numa_node: None,
        near: Vec::new(),
        kind: Arc::new(GpuKind::new(model, MemoryMib(gib * 1024), offers).unwrap()),
        foreign: Vec::new(),
        unhealthy: None,
        sick: BTreeMap::new(),
    }))
}

fn occupant(namespace: &str) -> Occupant<'_> {
    Occupant { namespace, share_with: ShareWith::Anyone }
}

/// Places shares for a pod in namespace `mine`; in use is so much of each GPU. The answer is the GPUs, or why not.
#[track_caller]
fn check(gpus: &[GpuState], occupants: &[Vec<Occupant<'_>>], policy: &Policy, shares: u32, want: &str) {
    let mix = Mix::prior(gpus.iter().map(|gpu| &*gpu.gpu));
    let demand = Demand::from([(ResourceName::gpu().shared(), shares)]);
    let got = match place(Node { gpus, occupants }, &demand, &mix, policy, "mine") {
        Err(why) => why.to_string(),
        Ok(placement) => {
            let gpus = placement.devices.values().flatten().map(|chosen| chosen.gpu.to_string());
            gpus.collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(got, want);
}

fn in_use(mut gpu: GpuState, shares: u32) -> GpuState {
    (0..shares).for_each(|_| gpu.occupancy.take(0));
    gpu
}

#[test]
fn annotations_are_read_and_told_back() {
    assert!(policy(&[]).is_default());
    assert!(
        policy(&[("stowage.dev/placement", "binpack"), ("stowage.dev/share-with", "anyone")]).is_default()
    );
    let all = [
        ("stowage.dev/placement", " spread "),
        ("stowage.dev/gpu-model", "*A100* | NVIDIA H100 PCIe"),
        ("stowage.dev/gpu-memory-min", "40Gi"),
        ("stowage.dev/distinct-gpus", "true"),
        ("stowage.dev/share-with", "namespace"),
    ];
    let read = policy(&all);
    assert_eq!(read.gpu_memory_min, MemoryMib(40_960));
    assert_eq!(
        read.to_string(),
        "stowage.dev/placement: spread, stowage.dev/gpu-model: *A100*|NVIDIA H100 PCIe, \
         stowage.dev/gpu-memory-min: 40960Mi, stowage.dev/distinct-gpus: true, stowage.dev/share-with: namespace"
    );
}

#[test]
fn what_cannot_be_read_says_what_would_be_right() {
    let long = "x".repeat(2000);
    for (key, value, want) in [
        ("stowage.dev/placement", "pack", "\"pack\": use binpack or spread"),
        ("stowage.dev/distinct-gpus", "yes", "use \"true\" or \"false\""),
        ("stowage.dev/share-with", "", "use namespace or anyone"),
        ("stowage.dev/gpu-model", "A100|", "use 1 to 16 product names"),
        ("stowage.dev/gpu-model", &"a|".repeat(20), "use 1 to 16 product names"),
        ("stowage.dev/gpu-memory-min", "40", "such as 40Gi"),
        ("stowage.dev/gpu-memory-min", "much", "such as 40Gi"),
        ("stowage.dev/share-with", &long, "more than 1024 bytes"),
    ] {
        let error = read(&[(key, value)]).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(want), "{error}");
    }
}

#[test]
fn a_model_pattern_is_the_whole_name_whatever_its_case() {
    let any = |pattern: &str, model: &str| {
        policy(&[("stowage.dev/gpu-model", pattern)]).gpu_models[0].matches(model)
    };
    assert!(any("*a100*", "NVIDIA A100-SXM4-40GB") && any("*", "x") && any("nvidia l4", "NVIDIA L4"));
    assert!(!any("NVIDIA L4", "NVIDIA L40S") && !any("*H100", "NVIDIA H100 PCIe") && !any("a*a", "a"));
}

#[test]
fn only_gpus_of_the_model_and_size_are_taken() {
    let gpus = [gpu(0, "NVIDIA L4", 24), gpu(1, "NVIDIA A100-SXM4-80GB", 80)];
    let model = |text| policy(&[("stowage.dev/gpu-model", text)]);
    check(&gpus, &[], &model("*A100*"), 1, "1");
    check(&gpus, &[], &model("*A100*|*L4"), 1, "0");
    check(&gpus, &[], &model("*H100*"), 1, "no GPU of a model that stowage.dev/gpu-model allows");
    check(&gpus, &[], &policy(&[("stowage.dev/gpu-memory-min", "40Gi")]), 1, "1");
    let big = policy(&[("stowage.dev/gpu-memory-min", "90Gi")]);
    check(&gpus, &[], &big, 1, "no GPU with the memory that stowage.dev/gpu-memory-min asks for");
    // What does not fit anyway says so in the packing core's words.
    check(&gpus, &[], &big, 9, "fewer nvidia.com/gpu.shared on this node than the pod asks for");
}

#[test]
fn a_gpu_is_shared_with_other_namespaces_only_where_both_sides_want_it() {
    let gpus = [in_use(gpu(0, "M", 24), 1), in_use(gpu(1, "M", 24), 1)];
    let alone = policy(&[("stowage.dev/share-with", "namespace")]);
    let both = [vec![occupant("theirs")], vec![occupant("mine")]];
    check(&gpus, &both, &alone, 1, "1");
    check(&gpus, &both, &Policy::default(), 1, "0");
    let theirs = [vec![occupant("theirs")], vec![occupant("mine"), occupant("theirs")]];
    let none = "no free placement on a GPU without other namespaces (stowage.dev/share-with)";
    check(&gpus, &theirs, &alone, 1, none);
    let keeper = |namespace| Occupant { namespace, share_with: ShareWith::Namespace };
    check(&gpus, &[vec![keeper("theirs")], vec![occupant("theirs")]], &Policy::default(), 1, "1");
    let kept = "no free placement on a GPU whose pods share with other namespaces (stowage.dev/share-with)";
    check(&gpus, &[vec![keeper("theirs")], vec![keeper("theirs")]], &Policy::default(), 1, kept);
    check(&gpus, &[vec![keeper("mine")], vec![keeper("theirs")]], &Policy::default(), 1, "0");
}

#[test]
fn distinct_gpus_are_distinct() {
    let gpus = [gpu(0, "M", 24), gpu(1, "M", 24)];
    let distinct = policy(&[("stowage.dev/distinct-gpus", "true")]);
    check(&gpus, &[], &distinct, 2, "0 1");
    let few = "no free placement on as many different GPUs as stowage.dev/distinct-gpus wants";
    check(&gpus, &[], &distinct, 3, few);
    check(&[in_use(gpu(0, "M", 24), 4), gpu(1, "M", 24)], &[], &distinct, 2, few);
    check(&[in_use(gpu(0, "M", 24), 4), gpu(1, "M", 24)], &[], &Policy::default(), 2, "1 1");
}

#[test]
fn a_pod_that_spreads_gets_the_emptiest_gpu() {
    let gpus = [in_use(gpu(0, "M", 24), 2), in_use(gpu(1, "M", 24), 1), in_use(gpu(2, "M", 24), 3)];
    let spread = policy(&[("stowage.dev/placement", "spread")]);
    check(&gpus, &[], &Policy::default(), 1, "2");
    check(&gpus, &[], &spread, 1, "1");
    check(&gpus, &[], &spread, 3, "1 1 1");
    let distinct = policy(&[("stowage.dev/placement", "spread"), ("stowage.dev/distinct-gpus", "true")]);
    check(&gpus, &[], &distinct, 2, "1 0");
    let (empty, full) = (&gpus[1..2], &gpus[2..3]);
    assert!(spread.rank(empty, Default::default()) < spread.rank(full, Default::default()));
    let default = Policy::default();
    assert_eq!(default.rank(empty, Default::default()), default.rank(full, Default::default()));
}

proptest! {
    /// Dumber code judges: what is placed is on allowed GPUs, within their room, and distinct where that is wanted;
    /// and what is not placed has too little room on the allowed GPUs.
    #[test]
    fn a_policy_is_kept_and_nothing_possible_is_refused(
        used in prop::collection::vec((0_u32..=4, 0_usize..3, any::<bool>()), 1..6),
        shares in 1_u32..6,
        flags in any::<[bool; 3]>(),
    ) {
        let gpus: Vec<GpuState> = (0..).zip(&used).map(|(i, (shares, _, _))| in_use(gpu(i, "M", 24), *shares)).collect();
        let names = ["mine", "theirs", "others"];
        let occupants: Vec<Vec<Occupant<'_>>> = used.iter().map(|(shares, name, keeps)| {
            let share_with = if *keeps { ShareWith::Namespace } else { ShareWith::Anyone };
            if *shares > 0 { vec![Occupant { namespace: names[*name], share_with }] } else { Vec::new() }
        }).collect();
        let [spread, distinct, alone] = flags;
        let policy = Policy {
            placement: if spread { Packing::Spread } else { Packing::Binpack },
            distinct_gpus: distinct,
            share_with: if alone { ShareWith::Namespace } else { ShareWith::Anyone },
            ..Policy::default()
        };
        let may = |g: usize| used[g].0 == 0 || used[g].1 == 0 || !alone && !used[g].2;
        let room = |g: usize| if may(g) { (4 - used[g].0).min(if distinct { 1 } else { 4 }) } else { 0 };
        let possible = (0..gpus.len()).map(room).sum::<u32>() >= shares;
        let mix = Mix::prior(gpus.iter().map(|gpu| &*gpu.gpu));
        let demand = Demand::from([(ResourceName::gpu().shared(), shares)]);
        match place(Node { gpus: &gpus, occupants: &occupants }, &demand, &mix, &policy, "mine") {
            Err(_) => prop_assert!(!possible),
            Ok(placement) => {
                let mut per_gpu = BTreeMap::<usize, u32>::new();
                placement.devices.values().flatten().for_each(|chosen| *per_gpu.entry(chosen.gpu).or_default() += 1);
                prop_assert_eq!(per_gpu.values().sum::<u32>(), shares);
                prop_assert!(per_gpu.iter().all(|(&g, &n)| n <= room(g)));
            }
        }
    }
}

#[test]
fn who_is_there_bars_gpus_only_where_somebody_minds() {
    let mut company = Company::default();
    company.join(1, "theirs", ShareWith::Anyone);
    company.join(0, "mine", ShareWith::Anyone);
    company.join(1, "theirs", ShareWith::Anyone);
    let (anyone, alone) = (Policy::default(), policy(&[("stowage.dev/share-with", "namespace")]));
    let barred = |company: &Company, policy: &Policy| company.barred(policy, "mine").collect::<Vec<_>>();
    assert_eq!((barred(&company, &anyone), barred(&company, &alone)), (vec![], vec![1]));
    assert!(!company.keeps());
    company.join(1, "theirs", ShareWith::Namespace);
    company.join(0, "mine", ShareWith::Namespace);
    assert_eq!((barred(&company, &anyone), barred(&company, &alone)), (vec![1], vec![1, 1]));
    assert!(company.keeps());
    let names = |gpu: usize| -> Vec<&str> { company.occupants(2)[gpu].iter().map(|o| o.namespace).collect() };
    assert_eq!((names(0), names(1)), (vec!["mine", "mine"], vec!["theirs", "theirs"]));
}

#[test]
fn what_is_taken_by_a_pod_of_its_own_keeps_others_off() {
    let mut node = Occupied { gpus: vec![gpu(0, "M", 24), gpu(1, "M", 24)], ..Occupied::default() };
    let mix = Mix::prior(node.gpus.iter().map(|gpu| &*gpu.gpu));
    let share = || Demand::from([(ResourceName::gpu().shared(), 1)]);
    let alone = Want {
        demand: share(),
        policy: policy(&[("stowage.dev/share-with", "namespace")]),
        ..Want::default()
    };
    let mut take = |want: &Want, namespace| {
        let placement = node.take(want, namespace, &mix)?;
        placement.devices.into_values().flatten().map(|chosen| chosen.gpu).next()
    };
    assert_eq!(
        [take(&alone, "a"), take(&share().into(), "b"), take(&share().into(), "a")],
        [Some(0), Some(1), Some(0)]
    );
    assert_eq!([take(&alone, "a"), take(&alone, "b"), take(&alone, "c")], [Some(0), Some(1), None]);
}
