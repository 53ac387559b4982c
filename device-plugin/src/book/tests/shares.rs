//! Shares that no plan chose: NVIDIA's policies, and shares of different GPUs.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use stowage_shared::contract::{PLAN_ANNOTATION, SHARE_MEMORY_ANNOTATION};
use stowage_shared::plan::PlannedDevice;
use stowage_shared::units::MemoryMib;

use super::*;
use crate::fixture::inventory;

/// Chooses `size` shares on a node of `gpus` GPUs of four shares each, all but `taken` of which are free.
fn choose(gpus: usize, rules: &str, taken: &[&str], must: &[&str], size: usize) -> String {
    let inventory = inventory(&vec!["whole"; gpus], MigStrategy::None, &format!("{rules} gpu=4")).unwrap();
    let book = Book::new(NODE, Arc::new(inventory));
    let texts = |list: &[&str]| list.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let available: Vec<String> = (0..gpus)
        .flat_map(|gpu| (0..4).map(move |n| format!("GPU-{gpu}::{n}")))
        .filter(|id| !taken.contains(&id.as_str()))
        .collect();
    let resource = ResourceName::gpu();
    let ask = Ask { resource: &resource, available: &available, must_include: &texts(must), size };
    book.choose(&ask).ids.join(" ")
}

#[test]
fn distributed_takes_the_gpu_with_the_fewest_shares_in_use() {
    assert_eq!(choose(3, "spread", &[], &[], 1), "GPU-0::0");
    assert_eq!(choose(3, "spread", &["GPU-0::0"], &[], 1), "GPU-1::0");
    assert_eq!(choose(3, "spread", &["GPU-0::0", "GPU-1::3"], &[], 2), "GPU-2::0 GPU-0::1");
    assert_eq!(choose(2, "spread", &[], &[], 3), "GPU-0::0 GPU-1::0 GPU-0::1");
}

#[test]
fn packed_fills_a_gpu_that_is_in_use() {
    assert_eq!(choose(3, "pack", &["GPU-1::0"], &[], 2), "GPU-1::1 GPU-1::2");
}

#[test]
fn shares_of_different_gpus_are_given_where_they_are_wanted() {
    assert_eq!(choose(3, "pack distinct", &["GPU-1::0"], &[], 2), "GPU-1::1 GPU-0::0");
    assert_eq!(choose(3, "spread distinct", &["GPU-0::0"], &[], 3), "GPU-1::0 GPU-2::0 GPU-0::1");
    assert_eq!(choose(3, "spread distinct", &[], &["GPU-0::2"], 2), "GPU-0::2 GPU-1::0");
    assert_eq!(choose(2, "spread distinct", &[], &[], 3), "", "there are not as many GPUs");
}

#[test]
fn a_plan_ranks_above_the_policy_unless_it_would_share_a_gpu_that_must_not_be() {
    for (rules, gpus, want) in [
        ("spread", ["GPU-0", "GPU-0"], "GPU-0::0 GPU-0::1"),
        ("spread distinct", ["GPU-0", "GPU-0"], "GPU-1::0 GPU-2::0"),
        ("spread distinct", ["GPU-2", "GPU-1"], "GPU-2::0 GPU-1::0"),
    ] {
        let inventory = inventory(&["whole"; 3], MigStrategy::None, &format!("{rules} gpu=4")).unwrap();
        let mut book = Book::new(NODE, Arc::new(inventory));
        let spec = spec("gpu=2");
        let devices = gpus.map(|gpu| PlannedDevice { gpu: gpu.parse().unwrap(), slice: None, memory: None });
        let container = [(ResourceName::gpu(), devices.to_vec())].into();
        let plan =
            Plan { uid: "uid-p".into(), node: NODE.into(), containers: [("c0".into(), container)].into() };
        let key = ("default".into(), "p".into(), "uid-p".into());
        let plan = Some(plan.to_annotation().unwrap());
        book.apply(Event::Pod(PodSeen::of(key, 0, plan, &spec, &PodStatus::default())));
        let available: Vec<String> =
            (0..3).flat_map(|gpu| (0..4).map(move |n| format!("GPU-{gpu}::{n}"))).collect();
        let resource = ResourceName::gpu();
        let ask = Ask { resource: &resource, available: &available, must_include: &[], size: 2 };
        let mut ids = book.choose(&ask).ids;
        // What two devices of one container are called first means nothing.
        let mut want: Vec<&str> = want.split(' ').collect();
        ids.sort();
        want.sort_unstable();
        assert_eq!(ids, want, "{rules} {gpus:?}");
    }
}

/// A pod that asks for one share, of a size if it says so, with the GPU that its plan names.
fn sharer(name: &str, memory: Option<&str>, plan: Option<(&str, Option<u64>)>) -> PodSeen {
    let uid = format!("uid-{name}");
    let plan = plan.map(|(gpu, mib)| {
        let device = PlannedDevice { gpu: gpu.parse().unwrap(), slice: None, memory: mib.map(MemoryMib) };
        let container = [(ResourceName::gpu(), vec![device])].into();
        let containers = [("c0".into(), container)].into();
        Plan { uid: uid.clone(), node: NODE.into(), containers }.to_annotation().unwrap()
    });
    let annotations = [(PLAN_ANNOTATION, plan), (SHARE_MEMORY_ANNOTATION, memory.map(str::to_owned))];
    let annotations = annotations.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let key = ("default".into(), name.into(), uid);
    PodSeen::on(ResourceName::is_standard_gpu, key, 0, annotations, &spec("gpu=1"), &PodStatus::default())
}

/// Gives each pod what it prefers, one after another; tells where it is, and its limits in MiB.
fn serve(rules: &str, pods: impl IntoIterator<Item = PodSeen>) -> Vec<(String, Vec<u64>)> {
    let inventory = inventory(&["whole"; 2], MigStrategy::None, &format!("{rules} gpu=4")).unwrap();
    let mut book = Book::new(NODE, Arc::new(inventory));
    let resource = ResourceName::gpu();
    let mut available: Vec<String> =
        (0..2).flat_map(|gpu| (0..4).map(move |n| format!("GPU-{gpu}::{n}"))).collect();
    let mut served = Vec::new();
    for pod in pods {
        book.apply(Event::Pod(pod));
        let ids =
            book.choose(&Ask { resource: &resource, available: &available, must_include: &[], size: 1 }).ids;
        let [id] = &ids[..] else { panic!("{ids:?}") };
        available.retain(|other| other != id);
        let gpu = id.split("::").next().unwrap().to_owned();
        book.apply(Event::Allocated { resource: resource.clone(), ids: ids.clone(), at: Duration::ZERO });
        let limits = book.share_limits(&resource, &ids).into_iter().map(|limit| limit.memory.0).collect();
        served.push((gpu, limits));
    }
    served
}

#[test]
fn shares_go_where_their_memory_fits() {
    let pods = [
        sharer("a", Some("30Gi"), None),
        sharer("b", Some("11Gi"), None),
        sharer("c", Some("9Gi"), None),
        sharer("d", None, None),
    ];
    let gpus: Vec<String> = serve("spread", pods).into_iter().map(|(gpu, _)| gpu).collect();
    // Of 40 GiB each: the third leaves room for two more equal parts where it is, and would leave none on the first.
    assert_eq!(gpus, ["GPU-0", "GPU-1", "GPU-1", "GPU-0"]);
}

#[test]
fn under_mps_a_share_is_held_to_what_its_pod_says() {
    let pods = || [sharer("a", Some("3Gi"), None), sharer("b", None, None)];
    let limits = |rules: &str| -> Vec<Vec<u64>> {
        serve(rules, pods()).into_iter().map(|(_, limits)| limits).collect()
    };
    assert_eq!(limits("mps"), [vec![3072], vec![]], "the daemon holds the other to an equal part");
    assert_eq!(limits("mps sized"), [[3072], [10_240]], "the daemon holds nobody");
}

#[test]
fn a_plans_size_counts_whatever_the_pod_says_afterwards() {
    let pod = sharer("a", Some("1Gi"), Some(("GPU-1", Some(20_480))));
    assert_eq!(serve("mps sized", [pod]), [("GPU-1".to_owned(), vec![20_480])]);
}

proptest! {
    /// What `distributed` means, checked step by step on what was chosen: each share is of a GPU that had as few in
    /// use as any other with one free.
    #[test]
    fn every_share_is_of_a_gpu_with_the_fewest_in_use(
        taken in prop::collection::btree_set((0usize..4, 0usize..4), 0..15),
        size in 1usize..4,
    ) {
        let taken: Vec<String> = taken.into_iter().map(|(gpu, n)| format!("GPU-{gpu}::{n}")).collect();
        let texts: Vec<&str> = taken.iter().map(String::as_str).collect();
        let chosen = choose(4, "spread", &texts, &[], size);
        let mut used: BTreeMap<String, usize> = (0..4).map(|gpu| (format!("GPU-{gpu}"), 0)).collect();
        for id in &taken {
            *used.get_mut(id.split("::").next().unwrap()).unwrap() += 1;
        }
        let free: usize = used.values().map(|used| 4 - used).sum();
        prop_assert_eq!(chosen.split_whitespace().count(), if free < size { 0 } else { size });
        for id in chosen.split_whitespace() {
            prop_assert!(!texts.contains(&id));
            let least = *used.values().filter(|used| **used < 4).min().unwrap();
            let used = used.get_mut(id.split("::").next().unwrap()).unwrap();
            prop_assert_eq!(*used, least);
            *used += 1;
        }
    }
}
