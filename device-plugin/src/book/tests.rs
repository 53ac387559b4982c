use std::collections::BTreeSet;

use proptest::prelude::*;
use stowage_shared::audit::{Kind, NodeView, PodView, audit};
use stowage_shared::contract::PLAN_ANNOTATION;
use stowage_shared::reckon::{Held, NodePod, reckon};

use super::*;
use crate::config::MigStrategy;
use crate::fixture::inventory;

const NODE: &str = "n1";

fn resource(name: &str) -> ResourceName {
    format!("nvidia.com/{name}").parse().unwrap()
}

/// Containers such as `gpu=1`, `init gpu.shared=2` or `sidecar mig-1g.5gb=1`, with commas between.
fn spec(containers: &str) -> PodSpec {
    let (mut init, mut apps) = (Vec::new(), Vec::new());
    for (number, text) in containers.split(", ").enumerate() {
        let (role, devices) = text.rsplit_once(' ').unwrap_or(("", text));
        let (name, count) = devices.split_once('=').unwrap();
        let policy = if role == "sidecar" { "Always" } else { "" };
        let container = serde_json::json!({"name": format!("c{number}"), "restartPolicy": policy,
            "resources": {"limits": {format!("nvidia.com/{name}"): count}}});
        if role.is_empty() {
            apps.push(container)
        } else {
            init.push(container)
        };
    }
    serde_json::from_value(serde_json::json!({"initContainers": init, "containers": apps, "nodeName": NODE}))
        .unwrap()
}

/// A node with a kubelet that keeps the device manager's books, an extender that plans, and our book.
struct World {
    book: Book,
    pods: Vec<WorldPod>,
    held: Vec<Holding>,
    now: Duration,
    next: u32,
}

#[derive(Clone)]
struct WorldPod {
    name: String,
    spec: PodSpec,
    plan: Option<String>,
    admitted: bool,
    /// Devices that the kubelet keeps for it, init containers' among them.
    kept: BTreeSet<(ResourceName, String)>,
}

impl WorldPod {
    fn uid(&self) -> String {
        format!("uid-{}", self.name)
    }

    fn seen(&self) -> PodSeen {
        let key = ("default".into(), self.name.clone(), self.uid());
        PodSeen::of(key, 0, self.plan.clone(), &self.spec, &PodStatus::default())
    }
}

impl World {
    /// Two whole GPUs, two GPUs of slices; or, `shared`, three GPUs of three shares.
    fn new(shared: bool) -> Self {
        let inventory = if shared {
            inventory(&["whole"; 3], MigStrategy::None, "rename gpu=3")
        } else {
            let cut = "1g.5gb@0 1g.5gb@1 2g.10gb@2 3g.20gb@4";
            inventory(&["whole", "whole", cut, cut], MigStrategy::Mixed, "")
        };
        let book = Book::new(NODE, Arc::new(inventory.unwrap()));
        Self { book, pods: Vec::new(), held: Vec::new(), now: Duration::ZERO, next: 0 }
    }

    /// Binds a pod, with a plan if `planned` and if it fits. `None`: it does not fit.
    fn bind(&mut self, containers: &str, planned: bool) -> Option<usize> {
        let spec = spec(containers);
        let request = Request::of_standard(&spec).unwrap();
        let gpus = self.book.inventory().gpus().to_vec();
        let known: Vec<(String, Request, Option<Plan>)> = self
            .pods
            .iter()
            .map(|pod| {
                let request = Request::of_standard(&pod.spec).unwrap();
                let plan = pod.plan.as_ref().map(|text| Plan::parse(text).unwrap());
                (pod.uid(), request, plan)
            })
            .collect();
        let pods: Vec<NodePod<'_>> =
            known.iter().map(|(uid, request, plan)| NodePod { uid, request, plan: plan.as_ref() }).collect();
        let uids: Vec<String> = self.held.iter().map(|held| format!("uid-{}", held.pod)).collect();
        let held: Vec<Held<'_>> = self
            .held
            .iter()
            .zip(&uids)
            .map(|(held, uid)| Held { uid, resource: &held.resource, device_ids: &held.device_ids })
            .collect();
        let states = reckon(&gpus, &held, &pods);
        let mix = stowage_shared::pack::Mix::prior(gpus.iter().map(|gpu| &**gpu));
        let placement = stowage_shared::pack::place(&states, &request.total(), &mix).ok()?;
        let name = format!("p{}", self.next);
        self.next += 1;
        let plan = planned.then(|| {
            let containers = placement.to_plan(&states, &request);
            Plan { uid: format!("uid-{name}"), node: NODE.into(), containers }.to_annotation().unwrap()
        });
        self.pods.push(WorldPod { name, spec, plan, admitted: false, kept: BTreeSet::new() });
        Some(self.pods.len() - 1)
    }

    fn tell(&mut self, pod: usize) {
        let seen = self.pods[pod].seen();
        self.book.apply(Event::Pod(seen));
    }

    /// Admits a pod as the device manager does: container by container, the reusable devices first, then the
    /// preferred ones that are free, then any. `pick` stands for the order of a Go map.
    fn admit(&mut self, pod: usize, pick: usize) {
        let request = Request::of_standard(&self.pods[pod].spec).unwrap();
        let mut reusable: BTreeSet<(ResourceName, String)> = BTreeSet::new();
        for container in request.containers() {
            for (resource, &count) in &container.devices {
                let count = count as usize;
                let mut got: BTreeSet<String> = reusable
                    .iter()
                    .filter(|(r, _)| r == resource)
                    .map(|(_, id)| id.clone())
                    .take(count)
                    .collect();
                if got.len() < count {
                    let all = self.book.inventory().devices();
                    let used = |id: &String| {
                        self.pods.iter().any(|pod| pod.kept.contains(&(resource.clone(), id.clone())))
                    };
                    let mut free: Vec<String> = all
                        .get(resource)
                        .into_iter()
                        .flatten()
                        .map(|d| d.id.clone())
                        .filter(|id| !used(id))
                        .collect();
                    if free.len() < count - got.len() {
                        // `UnexpectedAdmissionError`: the pod has failed, and what it got is free again.
                        return self.end(pod);
                    }
                    let must: Vec<String> = got.iter().cloned().collect();
                    let available: Vec<String> = free.iter().chain(&must).cloned().collect();
                    let choice = self.choose(resource, &available, &must, count);
                    let preferred: Vec<String> =
                        choice.ids.into_iter().filter(|id| free.contains(id)).collect();
                    let turn = pick % free.len().max(1);
                    free.rotate_left(turn);
                    for id in preferred.into_iter().chain(free) {
                        if got.len() < count {
                            got.insert(id);
                        }
                    }
                }
                for id in &got {
                    let device = (resource.clone(), id.clone());
                    self.pods[pod].kept.insert(device.clone());
                    let is_init = container.role == stowage_shared::request::Role::Init;
                    if is_init {
                        reusable.insert(device)
                    } else {
                        reusable.remove(&device)
                    };
                }
                let ids: Vec<String> = got.into_iter().collect();
                self.now += Duration::from_millis(1);
                self.book.apply(Event::Allocated {
                    resource: resource.clone(),
                    ids: ids.clone(),
                    at: self.now,
                });
                if container.role != stowage_shared::request::Role::Init {
                    let pod = self.pods[pod].name.clone();
                    let (namespace, container) = ("default".into(), container.name.clone());
                    self.held.push(Holding {
                        namespace,
                        pod,
                        container,
                        resource: resource.clone(),
                        device_ids: ids,
                    });
                }
            }
        }
        self.pods[pod].admitted = true;
    }

    /// Asks the book, and holds it to its contract.
    fn choose(&self, resource: &ResourceName, available: &[String], must: &[String], size: usize) -> Choice {
        let choice = self.book.choose(&Ask { resource, available, must_include: must, size });
        let unique: BTreeSet<&String> = choice.ids.iter().collect();
        assert_eq!(unique.len(), choice.ids.len(), "no device twice");
        assert!(choice.ids.iter().all(|id| available.contains(id)), "only what is available");
        if !choice.ids.is_empty() {
            assert_eq!(choice.ids.len(), size, "as many as asked for");
            assert!(must.iter().all(|id| choice.ids.contains(id)), "with what must be included");
        }
        choice
    }

    fn list(&mut self) {
        self.now += Duration::from_millis(1);
        let held = self.held.clone();
        self.book.apply(Event::PodResources { held, asked_at: self.now });
    }

    fn end(&mut self, pod: usize) {
        let pod = self.pods.remove(pod);
        self.held.retain(|held| held.pod != pod.name);
        self.book.apply(Event::PodGone { uid: pod.uid() });
    }

    /// What the independent judge says, by kind.
    fn findings(&mut self) -> Vec<Kind> {
        self.list();
        let view = NodeView {
            node: NODE.into(),
            gpus: self.book.inventory().gpus().iter().map(|gpu| (**gpu).clone()).collect(),
            allocations: self.book.allocations(),
            pods: self
                .pods
                .iter()
                .filter_map(|pod| {
                    let uid = pod.uid();
                    PodView::of(
                        ("default", &pod.name, &uid),
                        pod.plan.as_deref(),
                        &pod.spec,
                        &PodStatus::default(),
                        NODE,
                    )
                })
                .collect(),
        };
        audit(&view).into_iter().map(|finding| finding.kind).collect()
    }

    /// The devices of a pod, e.g. `GPU-1::0`.
    fn devices(&self, pod: usize) -> String {
        self.pods[pod].kept.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>().join(" ")
    }
}

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
    assert_eq!(world.book.allocations()[0].uid, "");
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

const SHAPES: [&str; 8] = [
    "gpu=1",
    "gpu=2",
    "mig-1g.5gb=1",
    "mig-1g.5gb=2",
    "mig-3g.20gb=1",
    "mig-1g.5gb=1, mig-2g.10gb=1",
    "init mig-1g.5gb=1, mig-1g.5gb=1",
    "init mig-1g.5gb=2, sidecar mig-1g.5gb=1, mig-1g.5gb=1",
];
const SHARES: [&str; 4] =
    ["gpu.shared=1", "gpu.shared=2", "gpu.shared=1, gpu.shared=1", "init gpu.shared=2, gpu.shared=1"];

#[derive(Debug, Clone)]
enum Step {
    Bind { shape: usize, planned: bool },
    Admit { which: usize, pick: usize },
    Tell { which: usize },
    End { which: usize },
    List,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..8_usize, prop::bool::weighted(0.8)).prop_map(|(shape, planned)| Step::Bind { shape, planned }),
        4 => (0..8_usize, 0..8_usize).prop_map(|(which, pick)| Step::Admit { which, pick }),
        2 => (0..8_usize).prop_map(|which| Step::Tell { which }),
        2 => (0..8_usize).prop_map(|which| Step::End { which }),
        1 => Just(Step::List),
    ];
    prop::collection::vec(step, 1..60)
}

fn shape(shared: bool, number: usize) -> &'static str {
    if shared { SHARES[number % SHARES.len()] } else { SHAPES[number % SHAPES.len()] }
}

/// The pods that wait, and of them the one that is meant.
fn waiting(world: &World, which: usize) -> Option<usize> {
    let waiting: Vec<usize> = (0..world.pods.len()).filter(|&pod| !world.pods[pod].admitted).collect();
    (!waiting.is_empty()).then(|| waiting[which % waiting.len()])
}

proptest! {
    /// The kubelet admits in the order of binding, and the book knows each pod in time: what runs is what was
    /// planned, whatever the mix of shapes, and no device is used twice.
    #[test]
    fn what_was_planned_is_what_runs(shared in any::<bool>(), steps in steps()) {
        let mut world = World::new(shared);
        for step in steps {
            match step {
                Step::Bind { shape: number, .. } => {
                    if let Some(pod) = world.bind(shape(shared, number), true) {
                        world.tell(pod);
                    }
                }
                Step::Admit { pick, .. } => {
                    if let Some(pod) = waiting(&world, 0) {
                        world.admit(pod, pick);
                    }
                }
                Step::End { which } if !world.pods.is_empty() => world.end(which % world.pods.len()),
                Step::Tell { .. } | Step::End { .. } => {}
                Step::List => world.list(),
            }
        }
        prop_assert_eq!(world.findings(), []);
    }

    /// The same when the kubelet takes pods in any order, for pods of one container: plans swap within a shape,
    /// and taken together they are kept.
    #[test]
    fn the_order_in_which_the_kubelet_comes_does_not_matter(shared in any::<bool>(), steps in steps()) {
        let mut world = World::new(shared);
        for step in steps {
            match step {
                Step::Bind { shape: number, .. } => {
                    if let Some(pod) = world.bind(shape(shared, number % if shared { 2 } else { 5 }), true) {
                        world.tell(pod);
                    }
                }
                Step::Admit { which, pick } => {
                    if let Some(pod) = waiting(&world, which) {
                        world.admit(pod, pick);
                    }
                }
                Step::List => world.list(),
                Step::Tell { .. } | Step::End { .. } => {}
            }
        }
        prop_assert_eq!(world.findings(), []);
    }

    /// Whatever comes late, out of order or without a plan: each answer keeps its contract (checked in
    /// [`World::choose`]), and no device is used twice.
    #[test]
    fn in_any_confusion_no_device_is_used_twice(shared in any::<bool>(), steps in steps()) {
        let mut world = World::new(shared);
        for step in steps {
            match step {
                Step::Bind { shape: number, planned } => drop(world.bind(shape(shared, number), planned)),
                Step::Admit { which, pick } => {
                    if let Some(pod) = waiting(&world, which) {
                        world.admit(pod, pick);
                    }
                }
                Step::Tell { which } if !world.pods.is_empty() => world.tell(which % world.pods.len()),
                Step::End { which } if !world.pods.is_empty() => world.end(which % world.pods.len()),
                Step::Tell { .. } | Step::End { .. } => {}
                Step::List => world.list(),
            }
        }
        let bad: Vec<Kind> = world.findings().into_iter()
            .filter(|kind| matches!(kind, Kind::DoubleUse | Kind::Overlap | Kind::UnknownDevice)).collect();
        prop_assert_eq!(bad, []);
    }
}
