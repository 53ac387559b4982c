//! The device manager's books against dumber code: what a pod gets, counted the way Kubernetes
//! counts a pod's request, and who holds what, looked up device by device.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use kubelet_api::device_plugin::{ContainerAllocateResponse, Device, HEALTHY, UNHEALTHY};
use proptest::prelude::*;
use tokio::time::Instant;

use super::books::{Books, Names, ResourceCounts};
use super::choosing::{Ask, Choice};
use super::{AllocationError, ContainerKind};

const GPU: &str = "nvidia.com/gpu";
const POD: &str = "pod";

/// A container: where it stands, and how many devices it asks for.
type Wish = (ContainerKind, usize);

fn device(index: usize, health: &str) -> Device {
    Device { id: format!("gpu-{index}"), health: health.to_owned(), topology: None }
}

fn books_with(seed: u64, devices: usize) -> Books {
    let mut books = Books::new(seed);
    books.connect(GPU);
    books.list(GPU, (0..devices).map(|index| device(index, HEALTHY)).collect());
    books
}

/// One pod's way through the books, as admission takes it, without a plugin.
fn admit(books: &mut Books, uid: &str, wishes: &[Wish], preferred: &Names) -> Result<(), AllocationError> {
    for (index, (kind, required)) in wishes.iter().enumerate() {
        let container = &format!("c{index}");
        let ask = Ask { pod_uid: uid, container, resource: GPU, required: *required };
        let reusable = books.reusable(uid, GPU);
        let devices = match books.choose(&ask, &reusable)? {
            Choice::Nothing => continue,
            Choice::Made(devices) => devices,
            Choice::Open(open) => books.fill_up(open, &ask, preferred)?,
        };
        books.hold(uid, container, GPU, devices, ContainerAllocateResponse::default());
        match kind {
            ContainerKind::Init => books.leave_to_next(uid, container),
            ContainerKind::Sidecar | ContainerKind::App => books.keep_from_next(uid, container),
        }
    }
    Ok(())
}

/// What Kubernetes says that a pod requests: the most that is in use at one time.
fn requested(wishes: &[Wish]) -> usize {
    let (mut sidecars, mut peak, mut apps) = (0, 0, 0);
    for (kind, count) in wishes {
        match kind {
            ContainerKind::Init => peak = peak.max(sidecars + count),
            ContainerKind::Sidecar => sidecars += count,
            ContainerKind::App => apps += count,
        }
    }
    peak.max(sidecars + apps)
}

/// The devices of every container of a pod, by container number.
fn held(books: &Books, uid: &str, wishes: &[Wish]) -> Vec<Names> {
    let ids = |index| books.held_ids(uid, &format!("c{index}"), GPU).unwrap_or_default();
    (0..wishes.len()).map(ids).collect()
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let init = prop_oneof![Just(ContainerKind::Init), Just(ContainerKind::Sidecar)];
    let inits = prop::collection::vec((init, 0..4_usize), 0..4);
    let apps = prop::collection::vec((Just(ContainerKind::App), 0..4_usize), 1..4);
    (inits, apps).prop_map(|(inits, apps)| [inits, apps].concat())
}

proptest! {
    #[test]
    fn pod_is_admitted_exactly_when_its_request_fits_and_shares_no_device(
        seed in any::<u64>(),
        devices in 1..12_usize,
        pods in prop::collection::vec((wishes(), any::<bool>()), 1..12),
        preferred in prop::collection::btree_set(0..14_usize, 0..6),
    ) {
        let mut books = books_with(seed, devices);
        let preferred: Names = preferred.iter().map(|index| format!("gpu-{index}")).collect();
        let mut active: BTreeMap<String, Vec<Wish>> = BTreeMap::new();
        for (number, (wishes, stays)) in pods.iter().enumerate() {
            let uid = format!("uid-{number}");
            let used: usize = active.values().map(|wishes| requested(wishes)).sum();
            active.insert(uid.clone(), wishes.clone());
            books.free_all_but(&active.keys().map(String::as_str).collect());
            let outcome = admit(&mut books, &uid, wishes, &preferred);
            prop_assert_eq!(outcome.is_ok(), used + requested(wishes) <= devices, "{:?}", outcome);

            // Device by device: of one pod at most, and twice in it only after an init container.
            let mut holder: BTreeMap<String, &str> = BTreeMap::new();
            for (uid, wishes) in &active {
                let mut kept = Names::new();
                for ((kind, count), ids) in wishes.iter().zip(held(&books, uid, wishes)) {
                    if outcome.is_ok() {
                        prop_assert_eq!(*count, ids.len());
                    }
                    for id in ids {
                        prop_assert_eq!(*holder.entry(id.clone()).or_insert(uid), uid.as_str(), "{} held twice", id);
                        prop_assert!(!kept.contains(&id), "{} taken from a container that keeps it", id);
                        if *kind != ContainerKind::Init {
                            kept.insert(id);
                        }
                    }
                }
            }
            if outcome.is_err() || !stays {
                active.remove(&uid);
            }
        }
    }

    #[test]
    fn preferred_free_devices_are_always_among_the_chosen(
        seed in any::<u64>(),
        preferred in prop::collection::btree_set(0..8_usize, 0..8),
        required in 1..8_usize,
    ) {
        let mut books = books_with(seed, 8);
        let preferred: Names = preferred.iter().map(|index| format!("gpu-{index}")).collect();
        let wishes = [(ContainerKind::App, required)];
        admit(&mut books, POD, &wishes, &preferred).unwrap();
        let chosen = &held(&books, POD, &wishes)[0];
        prop_assert_eq!(chosen.intersection(&preferred).count(), required.min(preferred.len()));
    }
}

/// What the kubelet takes in a Go map's order, the seed decides here.
#[test]
fn seed_decides_which_devices_a_pod_without_a_preference_gets() {
    let choice = |seed| {
        let mut books = books_with(seed, 8);
        let wishes = [(ContainerKind::App, 4)];
        admit(&mut books, POD, &wishes, &Names::new()).unwrap();
        held(&books, POD, &wishes)
    };
    assert_eq!(choice(1), choice(1));
    assert!((2..20).any(|seed| choice(seed) != choice(1)), "eighteen seeds chose the same four of eight");
}

#[test]
fn container_that_is_admitted_again_keeps_its_devices_while_they_are_healthy() {
    let mut books = books_with(1, 2);
    let wishes = [(ContainerKind::App, 1)];
    admit(&mut books, POD, &wishes, &Names::new()).unwrap();
    let before = held(&books, POD, &wishes);
    admit(&mut books, POD, &wishes, &Names::new()).unwrap();
    assert_eq!(held(&books, POD, &wishes), before);

    let changed = admit(&mut books, POD, &[(ContainerKind::App, 2)], &Names::new()).unwrap_err();
    assert_eq!(
        changed.to_string(),
        r#"pod "pod" container "c0" changed request for resource "nvidia.com/gpu" from 1 to 2"#
    );

    let sick = before[0].first().unwrap();
    let health = |id: &String| if id == sick { UNHEALTHY } else { HEALTHY };
    books.list(GPU, (0..2).map(|index| device(index, health(&format!("gpu-{index}")))).collect());
    let refused = admit(&mut books, POD, &wishes, &Names::new()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "previously allocated devices are no longer healthy; cannot allocate unhealthy devices nvidia.com/gpu"
    );
}

#[test]
fn resource_without_its_plugin_leaves_the_node_after_the_grace_period_and_stays_told_as_zero() {
    let grace = std::time::Duration::from_secs(300);
    let start = Instant::now();
    let mut books = books_with(1, 3);
    let gone = start + grace;
    let count = |books: &mut Books, now| books.counts(now, grace).get(GPU).copied();
    assert_eq!(count(&mut books, start), Some(ResourceCounts { capacity: 3, allocatable: 3 }));
    books.disconnect(GPU, gone);
    assert_eq!(count(&mut books, gone + grace), Some(ResourceCounts { capacity: 3, allocatable: 0 }));
    let after = gone + grace + std::time::Duration::from_millis(1);
    assert_eq!(count(&mut books, after), Some(ResourceCounts::default()));
    assert!(!books.is_device_plugin_resource(GPU));
    assert_eq!(count(&mut books, after), Some(ResourceCounts::default()), "told as 0 for ever");
}

#[test]
fn restart_forgets_the_devices_and_remembers_who_holds_them() {
    let start = Instant::now();
    let mut books = books_with(1, 2);
    let wishes = [(ContainerKind::App, 1)];
    admit(&mut books, POD, &wishes, &Names::new()).unwrap();
    let before = held(&books, POD, &wishes);
    books.restart(start);
    let counts = books.counts(start, std::time::Duration::from_secs(300));
    assert_eq!(counts[GPU], ResourceCounts::default());
    let refused = admit(&mut books, "other", &wishes, &Names::new()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu"
    );

    books.connect(GPU);
    books.list(GPU, vec![device(0, HEALTHY), device(1, HEALTHY)]);
    assert_eq!(held(&books, POD, &wishes), before);
    admit(&mut books, "other", &wishes, &Names::new()).unwrap();
    assert!(held(&books, "other", &wishes)[0].is_disjoint(&before[0]));
}
