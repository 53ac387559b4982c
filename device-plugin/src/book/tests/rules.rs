//! One rule a test.

use stowage_shared::plan::PlanError;

use super::*;

fn expects(world: &World, size: usize) -> bool {
    let resource = resource("gpu.shared");
    world.book.expects(&Ask { resource: &resource, available: &[], must_include: &[], size })
}

#[test]
fn a_pod_gets_what_its_plan_says() {
    let mut world = World::new(false);
    let pod = world.bind("gpu=1", true).unwrap();
    let plan = Plan::parse(world.pods[pod].plan.as_ref().unwrap()).unwrap();
    world.tell(pod);
    world.admit(pod, 0);
    assert_eq!(world.devices(pod), plan.devices("c0", &resource("gpu"))[0].gpu.to_string());
    assert_eq!(world.findings(), []);
}

#[test]
fn a_pod_without_a_plan_does_not_take_what_another_was_promised() {
    let mut world = World::new(true);
    let [promised, stranger] = [true, false].map(|planned| world.bind("gpu.shared=3", planned).unwrap());
    world.tell(stranger);
    world.tell(promised);
    world.admit(stranger, 0);
    world.admit(promised, 0);
    assert_eq!(world.findings(), []);
    assert_ne!(world.devices(stranger), world.devices(promised));
}

#[test]
fn plans_of_one_shape_may_be_swapped_and_the_rest_still_fits() {
    let mut world = World::new(false);
    let pods = ["gpu=1"; 2].map(|containers| world.bind(containers, true).unwrap());
    pods.iter().for_each(|&pod| world.tell(pod));
    // The kubelet comes with the second pod first. It gets the first one's GPU, as nobody can know …
    world.admit(pods[1], 0);
    world.list();
    // … and the first pod gets the one that is left of the two plans.
    world.admit(pods[0], 0);
    assert_eq!(world.findings(), []);
}

#[test]
fn what_an_init_container_had_is_reused_and_fits_the_plan() {
    let mut world = World::new(false);
    let containers = "init mig-1g.5gb=2, mig-1g.5gb=1, sidecar mig-1g.5gb=1";
    for _ in 0..2 {
        let pod = world.bind(containers, true).unwrap();
        world.tell(pod);
        world.admit(pod, 1);
    }
    assert_eq!(world.findings(), []);
}

#[test]
fn the_next_pod_of_a_name_is_not_taken_for_the_last_one() {
    let mut world = World::new(true);
    let pod = world.bind("gpu.shared=1", true).unwrap();
    world.tell(pod);
    let resource = resource("gpu.shared");
    let holds = |id: &str| Holding {
        namespace: "default".into(),
        pod: "p0".into(),
        container: "c0".into(),
        resource: resource.clone(),
        device_ids: vec![id.into()],
    };
    let at = |seconds| Duration::from_secs(seconds);
    let tell = |world: &mut World, id: &str, asked_at| {
        world.book.apply(Event::PodResources { held: vec![holds(id)], asked_at });
        world.book.allocations()[0].uid.clone()
    };
    assert_eq!(tell(&mut world, "GPU-0::0", at(1)), "uid-p0");
    // A StatefulSet's pod goes, the next one comes with its name, and the kubelet still tells of the first.
    world.book.apply(Event::PodGone { uid: "uid-p0".into() });
    let mut next = world.pods[pod].seen();
    next.uid = "uid-next".into();
    next.plan = next.plan.map(|plan| plan.replace("uid-p0", "uid-next"));
    world.book.apply(Event::Pod(next));
    assert!(expects(&world, 1), "it has nothing yet");
    assert_eq!(tell(&mut world, "GPU-0::0", at(2)), "uid-p0");
    assert!(expects(&world, 1));
    // It gets the very same device.
    let ids = vec!["GPU-0::0".into()];
    world.book.apply(Event::Allocated { resource: resource.clone(), ids, at: at(3) });
    assert!(!expects(&world, 1));
    assert_eq!(tell(&mut world, "GPU-0::0", at(4)), "uid-next");
    assert!(!expects(&world, 1));
}

#[test]
fn an_allocation_says_how_it_relates_to_the_plans() {
    let mut world = World::new(true);
    let pod = world.bind("gpu.shared=1", true).unwrap();
    world.tell(pod);
    let shared = resource("gpu.shared");
    let mut allocate = |id: &str| {
        let event = Event::Allocated { resource: shared.clone(), ids: vec![id.into()], at: Duration::ZERO };
        world.book.apply(event)
    };
    assert_eq!(allocate("GPU-2::1"), [Notice::Allocated(Served::OffPlan)]);
    assert_eq!(allocate("GPU-0::1"), [Notice::Allocated(Served::Unplanned)], "its call was served");
}

#[test]
fn a_plan_that_is_none_is_ignored_with_a_reason_and_only_once() {
    let mut world = World::new(true);
    let pod = world.bind("gpu.shared=1", true).unwrap();
    let mut seen = world.pods[pod].seen();
    seen.plan = seen.plan.map(|text| text.replace("uid-p0", "uid-of-another"));
    assert!(PLAN_ANNOTATION.starts_with("stowage.dev/"));
    let notices = world.book.apply(Event::Pod(seen.clone()));
    let [Notice::PlanIgnored { pod, error: PlanError::OtherPod(other), .. }] = notices.as_slice() else {
        panic!("{notices:?}")
    };
    assert_eq!((pod.as_str(), other.as_str()), ("p0", "uid-of-another"));
    assert_eq!(world.book.apply(Event::Pod(seen)), []);
    assert!(expects(&world, 1), "the pod itself is known");
}

#[test]
fn a_plan_for_a_gpu_that_is_not_here_leaves_the_choice_to_the_core() {
    let mut world = World::new(true);
    let pod = world.bind("gpu.shared=1", true).unwrap();
    let mut seen = world.pods[pod].seen();
    seen.plan = seen.plan.map(|text| text.replace("GPU-0", "GPU-9"));
    world.book.apply(Event::Pod(seen));
    let available = vec!["GPU-1::0".to_owned(), "GPU-1::1".to_owned()];
    let choice = world.choose(&resource("gpu.shared"), &available, &[], 1);
    assert_eq!((choice.source, choice.ids), (Source::Core, vec!["GPU-1::0".into()]));
}

#[test]
fn a_plan_whose_device_is_not_available_leaves_the_choice_to_the_core() {
    let mut world = World::new(true);
    let pod = world.bind("gpu.shared=1", true).unwrap();
    world.tell(pod);
    let available = vec!["GPU-2::0".to_owned()];
    assert_eq!(world.choose(&resource("gpu.shared"), &available, &[], 1).source, Source::Core);
}

#[test]
fn nonsense_is_answered_with_nothing() {
    let world = World::new(true);
    let shared = resource("gpu.shared");
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    for (available, must, size) in [
        (ids(&[]), ids(&[]), 1),
        (ids(&["GPU-0::0"]), ids(&[]), 2),
        (ids(&["x", "GPU-77::0", "GPU-0"]), ids(&[]), 1),
        (ids(&["GPU-0::0"]), ids(&[]), usize::MAX),
    ] {
        let choice =
            world.book.choose(&Ask { resource: &shared, available: &available, must_include: &must, size });
        assert_eq!(choice, Choice { ids: vec![], source: Source::Nobody }, "{available:?}");
    }
    let one = ids(&["GPU-0::0"]);
    let ask = Ask { resource: &shared, available: &one, must_include: &one, size: 1 };
    assert_eq!(world.book.choose(&ask).ids, one, "what must be included is enough");
    assert_eq!(world.book.choose(&Ask { size: 0, ..ask }).ids, Vec::<String>::new());
}

#[test]
fn nothing_is_freed_until_pod_resources_says_so() {
    let mut world = World::new(true);
    let pod = world.bind("gpu.shared=1", true).unwrap();
    world.tell(pod);
    world.admit(pod, 0);
    assert!(world.book.awaits_holders() && !world.book.knows_holders());
    // An answer to an older question does not know of the allocation.
    world.book.apply(Event::PodResources { held: vec![], asked_at: Duration::ZERO });
    assert!(world.book.awaits_holders());
    world.list();
    assert!(!world.book.awaits_holders());
    assert_eq!(world.book.allocations().len(), 1);
    world.book.apply(Event::PodGone { uid: "uid-p0".into() });
    assert_eq!(world.book.allocations().len(), 1, "the pod is gone, and the kubelet still holds its device");
    assert_eq!(world.book.allocations()[0].uid, "uid-p0");
}

#[test]
fn a_refused_pods_allocation_is_forgotten_after_the_grace_time() {
    let mut world = World::new(true);
    let pod = world.bind("gpu.shared=1", true).unwrap();
    world.tell(pod);
    world.admit(pod, 0);
    world.held.clear();
    world.now += GRANT_GRACE / 2;
    world.list();
    assert!(world.book.awaits_holders());
    world.now += GRANT_GRACE;
    world.list();
    assert!(!world.book.awaits_holders());
}

#[test]
fn a_new_list_forgets_pods_that_are_gone_and_orders_the_others_by_age() {
    let mut world = World::new(false);
    let pods = ["gpu=1"; 2].map(|containers| world.bind(containers, true).unwrap());
    world.tell(pods[0]);
    let mut seen: Vec<PodSeen> = pods.iter().map(|&pod| world.pods[pod].seen()).collect();
    seen[0].created = 2;
    seen[1].created = 1;
    let young =
        PodSeen { created: 3, uid: "uid-young".into(), name: "young".into(), plan: None, ..seen[0].clone() };
    world.book.apply(Event::Pods(vec![young, seen[1].clone()]));
    let askers = world.book.askers(&resource("gpu"));
    assert_eq!(askers.iter().map(|asker| asker.uid).collect::<Vec<_>>(), ["uid-p1", "uid-young"]);
}

#[test]
fn running_and_ended_pods_are_not_expected_to_ask() {
    let mut world = World::new(true);
    let pod = world.bind("gpu.shared=1", true).unwrap();
    let seen = world.pods[pod].seen();
    world.book.apply(Event::Pod(seen.clone()));
    assert!(expects(&world, 1) && !expects(&world, 2));
    world.book.apply(Event::Pod(PodSeen { running: true, ..seen.clone() }));
    assert!(!expects(&world, 1));
    world.book.apply(Event::Pod(PodSeen { terminal: true, ..seen.clone() }));
    assert!(world.book.pods.is_empty());
    world.book.apply(Event::FoundPod(seen.clone()));
    world.book.apply(Event::FoundPod(PodSeen { running: true, ..seen }));
    assert!(expects(&world, 1), "what a look-up finds later than the watch is no news");
}

/// A node of shared GPUs with a pod that holds these.
fn with_shares(devices: &str) -> (World, usize) {
    let mut world = World::new(true);
    let pod = world.bind(devices, true).unwrap();
    world.tell(pod);
    world.admit(pod, 0);
    world.list();
    (world, pod)
}

/// How many devices of a resource the kubelet may hand out.
fn healthy(world: &World, name: &str) -> usize {
    world.book.listed(&resource(name)).iter().filter(|device| device.healthy).count()
}

#[test]
fn a_gpu_that_somebody_shares_from_before_a_change_is_given_to_nobody_as_a_whole() {
    let (mut world, old) = with_shares("gpu.shared=1");
    let shared = world.devices(old);
    let whole = inventory(&["whole"; 3], MigStrategy::None, "").unwrap();
    world.book.apply(Event::Inventory(Arc::new(whole)));
    assert_eq!(healthy(&world, "gpu"), 2);
    assert_eq!(world.findings(), [Kind::Leftover]);
    // The kubelet still believes an old list: both that are free come before the one that is not.
    let all: Vec<String> = (0..3).map(|n| format!("GPU-{n}")).collect();
    let two = world.choose(&resource("gpu"), &all, &[], 2).ids;
    assert!(two.len() == 2 && two.iter().all(|gpu| !shared.starts_with(gpu)), "{two:?} beside {shared}");
    world.end(old);
    world.list();
    assert_eq!(healthy(&world, "gpu"), 3);
}

#[test]
fn shares_from_before_a_change_count_beside_those_from_after_it() {
    let (mut world, old) = with_shares("gpu.shared=3");
    // The same GPUs, whose shares have the GPUs' own name now.
    let renamed = inventory(&["whole"; 3], MigStrategy::None, "gpu=3").unwrap();
    world.book.apply(Event::Inventory(Arc::new(renamed)));
    assert_eq!(healthy(&world, "gpu"), 9, "what is shared stays shared");
    let all = world.book.listed(&resource("gpu")).into_iter().map(|device| device.id).collect::<Vec<_>>();
    let chosen = world.choose(&resource("gpu"), &all, &[], 1);
    assert!(!world.devices(old).contains(&chosen.ids[0][..5]), "{chosen:?} where three are in use already");
}
