//! A small world with an API server whose watch lags, answers that get lost, and pods that come and go: whatever
//! happens, no device is promised twice.

use std::collections::VecDeque;

use proptest::prelude::*;
use stowage_shared::audit::{Kind, PodView, audit};
use stowage_shared::contract::{ASSUMPTION_TTL, PLAN_ANNOTATION};
use stowage_shared::pod::PodStatus;

use super::*;

const NODES: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    /// Somebody makes a pod that wants so many of a resource.
    Create(&'static str, u64),
    /// kube-scheduler wants some waiting pod bound to some node.
    Bind(usize, usize, Fate),
    /// The watch tells so many more events.
    Watch(usize),
    /// Somebody deletes a pod.
    Delete(usize),
    /// A pod ends.
    End(usize),
    /// The watch breaks, and everything is listed anew.
    List,
    /// Time passes. The watch does not lag so long.
    Wait(i64),
    /// The extender is killed and started again.
    Restart,
}

/// What becomes of a Binding.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It is carried out and answered.
    Done,
    /// It is carried out; the answer is lost, and nobody can find out.
    Lost,
    /// It is refused.
    Refused,
    /// It never arrives, and nobody can find out.
    Vanished,
}

fn step() -> impl Strategy<Value = Step> {
    let resource = prop::sample::select(vec![synthetic::WHOLE, synthetic::SLICE, synthetic::SHARE]);
    let fate = prop::sample::select(vec![Fate::Done, Fate::Done, Fate::Lost, Fate::Refused, Fate::Vanished]);
    prop_oneof![
        6 => (resource, 1_u64..4).prop_map(|(resource, count)| Step::Create(resource, count)),
        8 => (any::<usize>(), 0..NODES, fate).prop_map(|(pod, node, fate)| Step::Bind(pod, node, fate)),
        4 => (1_usize..6).prop_map(Step::Watch),
        2 => any::<usize>().prop_map(Step::Delete),
        1 => any::<usize>().prop_map(Step::End),
        1 => Just(Step::List),
        2 => (1_i64..200).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

struct World {
    state: State,
    now: Now,
    /// What the API server has.
    pods: Vec<Pod>,
    made: usize,
    /// What the watch has not told yet.
    untold: VecDeque<Event>,
}

impl World {
    fn new() -> Self {
        let now = start();
        Self {
            state: synthetic::state(NODES, 0, now),
            now,
            pods: Vec::new(),
            made: 0,
            untold: VecDeque::new(),
        }
    }

    fn write(&mut self, at: usize, change: impl FnOnce(&mut Pod)) {
        change(&mut self.pods[at]);
        self.untold.push_back(pod_applied(&self.pods[at]));
    }

    fn tell(&mut self, events: usize) {
        for _ in 0..events {
            let Some(event) = self.untold.pop_front() else { return };
            self.state.apply(event, self.now);
        }
    }

    fn list(&mut self) {
        self.untold.clear();
        let pods = self.pods.iter().filter(|pod| !pod.terminal).cloned();
        let events = std::iter::once(Change::ListBegins)
            .chain(pods.map(Change::Listed))
            .chain(std::iter::once(Change::ListEnds));
        events.for_each(|change| self.state.apply(Event::Pod(change), self.now));
    }

    fn bind(&mut self, pick: usize, node: usize, fate: Fate) {
        let waiting: Vec<usize> = (0..self.pods.len())
            .filter(|&at| self.pods[at].node.is_empty() && !self.pods[at].terminal)
            .collect();
        if waiting.is_empty() {
            return;
        }
        let at = waiting[pick % waiting.len()];
        let (pod, node) = (self.pods[at].clone(), synthetic::gpu_node_name(node));
        let Ok(Choice::Planned(id, plan)) = self.state.choose(&pod, &node, self.now) else { return };
        match fate {
            Fate::Done | Fate::Lost => {
                self.write(at, |pod| *pod = bound(pod, &node, &plan));
                if matches!(fate, Fate::Done) {
                    self.state.bound(&pod.uid, id);
                }
            }
            Fate::Refused => self.state.failed(&pod.uid, id),
            Fate::Vanished => {}
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Create(resource, count) => {
                self.made += 1;
                let (name, uid) = (format!("p{}", self.made), format!("u{}", self.made));
                self.pods.push(synthetic::pod(&name, &uid, resource, count));
                self.write(self.pods.len() - 1, |_| ());
            }
            Step::Bind(pod, node, fate) => self.bind(pod, node, fate),
            Step::Watch(events) => self.tell(events),
            Step::Delete(pick) if !self.pods.is_empty() => {
                let pod = self.pods.remove(pick % self.pods.len());
                self.untold.push_back(Event::Pod(Change::Deleted(pod.uid)));
            }
            Step::End(pick) if !self.pods.is_empty() => {
                let at = pick % self.pods.len();
                if !self.pods[at].node.is_empty() {
                    self.write(at, |pod| pod.terminal = true);
                }
            }
            Step::Delete(_) | Step::End(_) => {}
            Step::List => self.list(),
            Step::Wait(seconds) => {
                self.tell(usize::MAX);
                self.now = later(self.now, seconds);
                for node in (0..NODES).map(synthetic::gpu_node_name) {
                    let status = Ok(synthetic::status(&node, Vec::new(), self.now));
                    self.state
                        .apply(Event::GpuNode(Change::Applied(GpuNode { name: node, status })), self.now);
                }
                self.state.expire(self.now);
            }
            Step::Restart => {
                // What was under way has ended one way or the other before the next process has listed.
                self.state = synthetic::state(NODES, 0, self.now);
                self.list();
            }
        }
    }

    /// What the API server has, as the audit wants to see it.
    fn promised_twice(&self) -> Vec<String> {
        let findings = (0..NODES).map(synthetic::gpu_node_name).flat_map(|node| {
            let status = synthetic::status(&node, Vec::new(), self.now);
            let pods = self.pods.iter().filter(|pod| !pod.terminal).filter_map(|pod| {
                let spec = stowage_shared::pod::PodSpec { node_name: pod.node.clone(), ..pod.spec.clone() };
                let id = (pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str());
                PodView::of(
                    id,
                    |key| pod.plan.as_deref().filter(|_| key == PLAN_ANNOTATION),
                    &spec,
                    &PodStatus::default(),
                    &node,
                )
            });
            let (gpus, pods) = (status.inventory().unwrap(), pods.collect());
            audit(&audit::NodeView { node, gpus, allocations: Vec::new(), pods })
        });
        findings
            .filter(|f| matches!(f.kind, Kind::DoublePlan | Kind::PlanWithoutDevice))
            .map(|f| f.text)
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_device_is_promised_twice(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            prop_assert_eq!(world.promised_twice(), Vec::<String>::new(), "after {:?}", step);
        }
    }

    #[test]
    fn a_restart_rebuilds_the_same_snapshot(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        // Everything is told, and whatever was in doubt is decided.
        world.step(&Step::Wait(ASSUMPTION_TTL.as_secs() as i64));
        world.step(&Step::List);
        prop_assert_eq!(world.state.assumptions(), (0, 0), "nothing is held for ever");
        let before = look(&world.state.snapshot().unwrap());
        world.step(&Step::Restart);
        prop_assert_eq!(look(&world.state.snapshot().unwrap()), before);
    }
}
