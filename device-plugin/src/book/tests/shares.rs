//! Shares that no plan chose: NVIDIA's policies, and shares of different GPUs.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use stowage_shared::plan::PlannedDevice;

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
        let devices = gpus.map(|gpu| PlannedDevice { gpu: gpu.parse().unwrap(), slice: None });
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
