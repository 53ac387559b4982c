//! Tokens: a kubelet that hands them out, and slices that must be there for each of them.

use proptest::prelude::*;
use stowage_shared::audit::Severity;
use stowage_shared::gpu::{GpuKind, Offer};
use stowage_shared::gpu_node::AllocationStatus;
use stowage_shared::models::Model;
use stowage_shared::pack::{self, Demand, Mix};
use stowage_shared::request::Request;

use super::*;

/// GPUs of one model that are cut on demand.
fn gpus(model: &str, count: u32) -> Arc<Inventory> {
    let model = Model::by_key(model).unwrap();
    let offers = Offer::on_demand(model.geometry().unwrap().slices(), &[]);
    let kind = Arc::new(GpuKind::new(model.product, model.memory, offers).unwrap());
    let gpu = |index| Gpu {
        uuid: format!("GPU-{index}").parse().unwrap(),
        index,
        numa_node: None,
        part_uuids: vec![String::new(); kind.offers().len()],
        kind: kind.clone(),
        near: Vec::new(),
        foreign: Vec::new(),
        unhealthy: None,
        sick: BTreeMap::new(),
    };
    Arc::new(Inventory::of_gpus((0..count).map(gpu).collect()))
}

/// A node that builds slices on demand, a kubelet that counts tokens, and our book.
pub(super) struct Node {
    pub(super) book: Book,
    inventory: Arc<Inventory>,
    pub(super) pods: Vec<Tenant>,
    now: Duration,
    next: u32,
}

/// A pod of one container that asks for slices of one profile.
pub(super) struct Tenant {
    name: String,
    resource: ResourceName,
    request: Request,
    plan: Option<Plan>,
    tokens: Vec<String>,
}

impl Tenant {
    fn uid(&self) -> String {
        format!("uid-{}", self.name)
    }

    /// As the API server tells it once it runs.
    fn seen(&self) -> PodSeen {
        let key = ("default".into(), self.name.clone(), self.uid());
        let plan = self.plan.as_ref().map(|plan| plan.to_annotation().unwrap());
        let spec = spec(&format!("{}={}", self.resource.short(), self.tokens.len()));
        let seen = PodSeen::of(key, 0, plan, &spec, &PodStatus::default());
        PodSeen { running: true, ..seen }
    }
}

impl Node {
    pub(super) fn new(model: &str, count: u32) -> Self {
        let inventory = gpus(model, count);
        let book = Book::new(NODE, inventory.clone());
        Self { book, inventory, pods: Vec::new(), now: Duration::ZERO, next: 0 }
    }

    /// The free tokens of a resource that the kubelet may hand out.
    fn free(&self, resource: &ResourceName) -> Vec<String> {
        let held: BTreeSet<&String> = self.pods.iter().flat_map(|pod| &pod.tokens).collect();
        let listed = self.book.listed(resource).into_iter();
        let healthy = listed.filter(|device| device.healthy).map(|device| device.id);
        healthy.filter(|id| !held.contains(id)).collect()
    }

    /// Runs a pod: planned or not, told to the book or not, with what the book prefers or what the kubelet picks.
    pub(super) fn run(&mut self, profile: &str, count: u32, planned: bool, pick: usize) -> bool {
        self.next += 1;
        self.now += Duration::from_secs(1);
        let name = format!("p{}", self.next);
        let resource = resource(&format!("mig-{profile}"));
        let spec = spec(&format!("mig-{profile}={count}"));
        let request = Request::of_standard(&spec).unwrap();
        let states = self.book.states();
        let mix = Mix::prior(self.inventory.gpus().iter().map(|gpu| &**gpu));
        let placement = pack::place(&states, &Demand::from([(resource.clone(), count)]), &mix);
        let plan = placement.ok().filter(|_| planned).map(|placement| Plan {
            uid: format!("uid-{name}"),
            node: NODE.into(),
            containers: placement.to_plan(&states, &request),
        });
        let available = self.free(&resource);
        if available.len() < count as usize {
            return false;
        }
        let annotation = plan.as_ref().map(|plan| plan.to_annotation().unwrap());
        let key = ("default".into(), name.clone(), format!("uid-{name}"));
        self.book.apply(Event::Pod(PodSeen::of(key, 0, annotation, &spec, &PodStatus::default())));
        let ask = Ask { resource: &resource, available: &available, must_include: &[], size: count as usize };
        let mut tokens = self.book.choose(&ask).ids;
        // As the kubelet does where nothing is preferred.
        let mut rest: Vec<String> = available.iter().filter(|id| !tokens.contains(id)).cloned().collect();
        while tokens.len() < count as usize {
            tokens.push(rest.swap_remove(pick % rest.len()));
        }
        self.book.apply(Event::Allocated { resource: resource.clone(), ids: tokens.clone(), at: self.now });
        self.pods.push(Tenant { name, resource, request, plan, tokens });
        true
    }

    pub(super) fn end(&mut self, pod: usize) {
        let gone = self.pods.remove(pod);
        self.book.apply(Event::PodGone { uid: gone.uid() });
    }

    pub(super) fn tell_holders(&mut self) {
        self.tell_some_holders(self.pods.len());
    }

    /// The kubelet starts anew: it shows no pod at first, and then those that it has come to.
    pub(super) fn kubelet_starts(&mut self, shown: usize) {
        self.tell_some_holders(0);
        self.tell_some_holders(shown);
    }

    fn tell_some_holders(&mut self, most: usize) {
        self.now += Duration::from_secs(1);
        let held = self.pods.iter().take(most).map(|pod| Holding {
            namespace: "default".into(),
            pod: pod.name.clone(),
            container: "c0".into(),
            resource: pod.resource.clone(),
            device_ids: pod.tokens.clone(),
        });
        let held = held.collect();
        self.book.apply(Event::PodResources { held, asked_at: self.now });
    }

    /// The process is killed and started again; the bookings were written down.
    pub(super) fn restart(&mut self) {
        let bookings =
            self.book.bookings().map(|(token, booking)| (token.to_owned(), booking.clone())).collect();
        self.restart_with(bookings);
    }

    /// The same where this was written down.
    fn restart_with(&mut self, bookings: BTreeMap<String, Booking>) {
        self.book = Book::new(NODE, self.inventory.clone());
        self.book.apply(Event::Restored(bookings));
        let tell: Vec<PodSeen> = self.pods.iter().map(Tenant::seen).collect();
        self.book.apply(Event::Pods(tell));
        self.tell_holders();
    }

    /// No two slices overlap, each token in use has one and is healthy, and what is offered could be built.
    pub(super) fn check(&self) {
        let held: BTreeSet<&String> = self.pods.iter().flat_map(|pod| &pod.tokens).collect();
        for token in &held {
            assert!(self.book.booking(token).is_some(), "{token} has no slice");
        }
        let resources: BTreeSet<&ResourceName> =
            self.inventory.gpus()[0].kind.offers().iter().map(|offer| &offer.resource).collect();
        for resource in resources {
            for device in self.book.listed(resource).iter().filter(|device| held.contains(&device.id)) {
                assert!(device.healthy, "{} is in use and unhealthy", device.id);
            }
        }
        let allocations = self.pods.iter().map(|pod| AllocationStatus {
            namespace: "default".into(),
            pod: pod.name.clone(),
            uid: pod.uid(),
            container: "c0".into(),
            resource: pod.resource.clone(),
            device_ids: pod.tokens.clone(),
        });
        let pods = self.pods.iter().map(|pod| PodView {
            namespace: "default".into(),
            name: pod.name.clone(),
            uid: pod.uid(),
            request: pod.request.clone(),
            plan: pod.plan.clone(),
            running: true,
        });
        let gpus = self.book.gpus().iter().map(|gpu| (**gpu).clone()).collect();
        let view =
            NodeView { node: NODE.into(), gpus, allocations: allocations.collect(), pods: pods.collect() };
        let findings = audit(&view);
        assert!(findings.iter().all(|finding| finding.severity == Severity::Notice), "{findings:?}");
    }
}

fn slice_of(node: &Node, pod: usize) -> (String, u8) {
    let booking = node.book.booking(&node.pods[pod].tokens[0]).unwrap();
    (booking.slice.profile.to_string(), booking.slice.start)
}

#[test]
fn a_plans_slice_is_booked_and_not_just_any_of_its_profile() {
    let mut node = Node::new("a100-40gb", 1);
    assert!(node.run("1g.5gb", 1, true, 0));
    let planned = node.pods[0].plan.as_ref().unwrap().devices("c0", &node.pods[0].resource)[0].clone();
    let (profile, start) = planned.slice.unwrap();
    assert_eq!(slice_of(&node, 0), (profile.to_string(), start));
}

#[test]
fn a_3g_pod_and_four_1g_pods_fill_an_a100_and_the_fifth_waits_for_the_3g_pods_end() {
    let mut node = Node::new("a100-40gb", 1);
    assert!(node.run("3g.20gb", 1, false, 0));
    for _ in 0..4 {
        assert!(node.run("1g.5gb", 1, false, 0));
        node.check();
    }
    assert!(!node.run("1g.5gb", 1, false, 0));
    node.tell_holders();
    node.end(0);
    node.tell_holders();
    assert!(node.run("1g.5gb", 1, false, 0));
    node.check();
}

/// Seen on a real cluster: after a kubelet's restart all bookings were given up, and nobody's slice was known any more.
#[test]
fn what_a_kubelet_that_has_just_started_does_not_show_is_not_free() {
    let mut node = Node::new("a100-40gb", 1);
    assert!(node.run("3g.20gb", 1, false, 0) && node.run("3g.20gb", 1, false, 0));
    node.tell_holders();
    node.kubelet_starts(1);
    node.check();
    assert!(!node.run("1g.5gb", 1, false, 0), "both halves are in use");
    // A pod that ends meanwhile is not missed.
    node.end(1);
    assert!(node.run("1g.5gb", 1, false, 0));
    node.tell_holders();
    node.check();
    // Neither is it where the plugin has just started too.
    node.restart();
    node.kubelet_starts(0);
    node.check();
}

#[test]
fn a_token_that_comes_too_late_waits_until_there_is_room() {
    let mut node = Node::new("a30", 1);
    let four = resource("mig-4g.24gb");
    let stale = node.free(&four);
    assert!(node.run("1g.6gb", 1, false, 0));
    // The kubelet has not seen yet that the whole GPU cannot be had any more.
    node.book.apply(Event::Allocated { resource: four.clone(), ids: stale.clone(), at: node.now });
    assert_eq!(node.book.booking(&stale[0]), None);
    assert!(node.book.listed(&four)[0].healthy, "it is in use");
    node.end(0);
    node.now += GRANT_GRACE;
    let held = Holding {
        namespace: "default".into(),
        pod: "late".into(),
        container: "c0".into(),
        resource: four.clone(),
        device_ids: stale.clone(),
    };
    node.book.apply(Event::PodResources { held: vec![held], asked_at: node.now });
    node.book.apply(Event::Starts { resource: four, ids: stale.clone() });
    assert!(node.book.booking(&stale[0]).is_some());
}

/// The kubelet had stored it, and nothing was written down of it.
#[test]
fn a_token_whose_booking_is_lost_is_booked_where_its_plan_says_before_anybody_else_comes() {
    let mut node = Node::new("a100-40gb", 1);
    for _ in 0..3 {
        assert!(node.run("1g.5gb", 1, true, 0));
    }
    // What is left has a place that the packing core would not choose first.
    node.end(0);
    node.tell_holders();
    let before: Vec<_> = (0..2).map(|pod| slice_of(&node, pod)).collect();
    node.restart_with(BTreeMap::new());
    assert_eq!((0..2).map(|pod| slice_of(&node, pod)).collect::<Vec<_>>(), before);
    node.check();
}

/// Seen on a real cluster: as long as one pod or another was on its way out, the rooms of those that were gone stayed shut.
#[test]
fn what_an_earlier_process_gave_away_is_free_with_its_pod_whoever_else_is_ending() {
    let mut node = Node::new("a100-40gb", 1);
    assert!(node.run("3g.20gb", 1, false, 0) && node.run("3g.20gb", 1, false, 0));
    let bookings = node.book.bookings().map(|(token, booking)| (token.to_owned(), booking.clone())).collect();
    // While the plugin is away one is gone, and the other's containers have ended.
    node.pods.remove(0);
    let mut ending = node.pods.remove(0).seen();
    ending.ending = true;
    node.restart_with(bookings);
    node.book.apply(Event::Pods(vec![ending]));
    node.tell_holders();
    assert!(node.run("7g.40gb", 1, false, 0));
}

#[test]
fn what_was_refused_leaves_no_booking() {
    let mut node = Node::new("a30", 1);
    let one = resource("mig-1g.6gb");
    let ids = vec![node.free(&one)[0].clone()];
    node.book.apply(Event::Allocated { resource: one.clone(), ids: ids.clone(), at: node.now });
    assert!(node.book.booking(&ids[0]).is_some());
    node.book.apply(Event::Refused { resource: one, ids: ids.clone() });
    assert_eq!(node.book.booking(&ids[0]), None);
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Run { profile: usize, count: u32, planned: bool, pick: usize },
    End(usize),
    Holders,
    Restart,
    KubeletStarts(usize),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..16, 1_u32..3, any::<bool>(), any::<prop::sample::Index>())
            .prop_map(|(profile, count, planned, pick)| Step::Run { profile, count, planned, pick: pick.index(64) }),
        4 => (0_usize..32).prop_map(Step::End),
        2 => Just(Step::Holders),
        1 => Just(Step::Restart),
        1 => (0_usize..16).prop_map(Step::KubeletStarts),
    ]
}

proptest! {
    #[test]
    fn every_token_in_use_has_a_slice_of_its_own_whatever_happens(
        model in prop::sample::select(vec!["a100-40gb", "a30", "rtx-pro-6000"]),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut node = Node::new(model, 2);
        let profiles: Vec<String> = Model::by_key(model).unwrap().geometry().unwrap().profiles.into_iter()
            .map(|profile| profile.name.to_string().replace('+', "."))
            .collect();
        for step in steps {
            match step {
                Step::Run { profile, count, planned, pick } => {
                    node.run(&profiles[profile % profiles.len()], count, planned, pick);
                }
                Step::End(pod) if !node.pods.is_empty() => node.end(pod % node.pods.len()),
                Step::End(_) => {}
                Step::Holders => node.tell_holders(),
                Step::Restart => node.restart(),
                Step::KubeletStarts(shown) => node.kubelet_starts(shown),
            }
            node.check();
        }
    }
}
