use proptest::prelude::*;

use super::*;
use crate::pod::{Quantity, Resources};

fn container(name: &str, count: u64, policy: &str) -> Container {
    let limits = BTreeMap::from([("nvidia.com/gpu".to_owned(), Quantity::Number(count))]);
    let resources = Resources { limits, ..Resources::default() };
    Container { name: name.into(), restart_policy: policy.into(), resources }
}

fn spec(init: &[(u64, &str)], apps: &[u64]) -> PodSpec {
    PodSpec {
        init_containers: (0..)
            .zip(init)
            .map(|(i, (n, policy))| container(&format!("i{i}"), *n, policy))
            .collect(),
        containers: (0..).zip(apps).map(|(i, n)| container(&format!("c{i}"), *n, "")).collect(),
        ..PodSpec::default()
    }
}

#[track_caller]
fn check(init: &[(u64, &str)], apps: &[u64], want: u32) {
    let request = Request::of_standard(&spec(init, apps)).unwrap();
    assert_eq!(request.total().get(&ResourceName::gpu()).copied().unwrap_or(0), want);
}

#[test]
fn containers_add_up_and_init_containers_are_reused() {
    check(&[], &[1, 2], 3);
    check(&[(2, "")], &[1], 2);
    check(&[(2, ""), (3, "")], &[1, 1], 3);
    check(&[(1, "")], &[1, 2], 3);
}

#[test]
fn sidecars_keep_their_devices() {
    check(&[(1, "Always")], &[1], 2);
    check(&[(2, ""), (1, "Always"), (2, "")], &[1], 3);
    check(&[(1, "Always"), (2, "")], &[1], 3);
}

#[test]
fn fractions_and_absurd_amounts_are_refused() {
    let mut pod = spec(&[], &[1]);
    pod.containers[0].resources.limits.insert("nvidia.com/gpu".into(), Quantity::Text("500m".into()));
    assert!(matches!(Request::of_standard(&pod), Err(RequestError::Quantity { .. })));
    assert_eq!(Request::of_standard(&spec(&[], &[1025])), Err(RequestError::TooManyDevices));
    assert_eq!(Request::of_standard(&spec(&[], &[u64::MAX])), Err(RequestError::TooManyDevices));
}

#[test]
fn zero_devices_are_no_request() {
    assert!(Request::of_standard(&spec(&[], &[0])).unwrap().is_empty());
}

proptest! {
    /// Kubernetes: the most of (containers and sidecars together) and (each init container beside the
    /// sidecars started before it).
    #[test]
    fn the_total_is_what_kubernetes_counts(
        init in prop::collection::vec((0_u64..4, prop::bool::ANY), 0..5),
        apps in prop::collection::vec(0_u64..4, 1..4),
    ) {
        let init: Vec<(u64, &str)> = init.iter().map(|&(n, side)| (n, if side { "Always" } else { "" })).collect();
        let (mut sidecars, mut most) = (0, 0);
        for &(n, policy) in &init {
            if policy == "Always" { sidecars += n } else { most = most.max(sidecars + n) }
            most = most.max(sidecars);
        }
        let want = most.max(sidecars + apps.iter().sum::<u64>());
        let request = Request::of_standard(&spec(&init, &apps)).unwrap();
        let total = request.total().get(&ResourceName::gpu()).copied().unwrap_or(0);
        prop_assert_eq!(u64::from(total), want);
    }

    #[test]
    fn every_container_gets_its_count_and_running_ones_share_nothing(
        init in prop::collection::vec((0_u64..4, prop::bool::ANY), 0..5),
        apps in prop::collection::vec(0_u64..4, 1..4),
    ) {
        let init: Vec<(u64, &str)> = init.iter().map(|&(n, side)| (n, if side { "Always" } else { "" })).collect();
        let request = Request::of_standard(&spec(&init, &apps)).unwrap();
        let sets = request.total().into_iter().map(|(r, n)| (r, (0..n).collect())).collect();
        let mut running = std::collections::BTreeSet::new();
        for (container, resource, devices) in request.distribute(&sets) {
            prop_assert_eq!(devices.len(), container.devices[&resource] as usize);
            for device in devices {
                prop_assert!(!running.contains(&device));
                if container.role != Role::Init {
                    running.insert(device);
                }
            }
        }
    }
}
