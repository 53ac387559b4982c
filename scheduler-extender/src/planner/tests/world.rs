//! A world where everything happens at random: whatever does, no node is promised more than it has.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stowage_shared::audit::audit;

use super::*;
use crate::book::amounts::Amounts;
use crate::state::{Choice, NodeGpus, arrange};
use crate::synthetic::{SHARE, SLICE, WHOLE};

const NODES: usize = 3;
const STEPS: usize = 100_000;
const PODS_MAX: usize = 24;

/// Numbers that look random and are the same each time (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

struct World {
    cluster: Cluster,
    random: Random,
    /// The pods that the API server has.
    pods: BTreeMap<String, Value>,
    made: usize,
    nominations: usize,
}

impl World {
    fn create(&mut self) {
        if self.pods.len() >= PODS_MAX {
            return self.delete();
        }
        self.made += 1;
        let uid = format!("p{:06}", self.made);
        let (resource, count) =
            (self.random.of(&[WHOLE, SLICE, SLICE, SHARE]), self.random.of(&[1, 1, 1, 2, 3]));
        let mut pod = asks(&uid, resource, count, &json!({ "priority": self.random.of(&[0, 0, 0, 5, -5]) }));
        let cpu = self.random.of(&["1", "2", "5"]);
        pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] = cpu.into();
        if self.random.below(6) == 0 {
            let name = synthetic::gpu_node_name(self.random.below(NODES));
            pod["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": name });
        }
        self.cluster.tell(&pod);
        self.pods.insert(uid, pod);
    }

    fn pick(&mut self, bound: Option<bool>) -> Option<String> {
        let is = |pod: &Value| bound.is_none_or(|bound| pod["spec"]["nodeName"].is_string() == bound);
        let uids: Vec<&String> = self.pods.iter().filter(|(_, pod)| is(pod)).map(|(uid, _)| uid).collect();
        if uids.is_empty() { None } else { Some(uids[self.random.below(uids.len())].clone()) }
    }

    fn delete(&mut self) {
        if let Some(uid) = self.pick(None) {
            self.pods.remove(&uid);
            self.cluster.gone(&uid);
        }
    }

    /// A round of the planner; some writes are carried out and told, some are told later, some fail.
    fn nominate(&mut self) {
        let limit = self.random.of(&[1, 3, 64]);
        let (round, again) = (self.cluster.plan(limit), self.cluster.plan(limit));
        assert_eq!(round, again, "the same answer for the same snapshot");
        let mut nodes: Vec<(String, i32)> = Vec::new();
        for it in round.nominations {
            self.nominations += 1;
            self.cluster.state.nominate(&it.uid, &it.node);
            let priority = self.pods[&it.uid]["spec"]["priority"].as_i64().unwrap();
            nodes.push((it.node.to_string(), i32::try_from(priority).unwrap()));
        }
        nodes.iter().for_each(|(node, priority)| self.holds(node, *priority));
        let ours: Vec<String> =
            self.pods.keys().filter(|uid| self.cluster.state.nominated(uid).is_some()).cloned().collect();
        for uid in ours {
            match self.random.below(4) {
                0 => self.cluster.state.unnominate(&uid),
                1 => {}
                _ => {
                    let node = self.cluster.state.nominated(&uid).unwrap();
                    let pod = self.pods.get_mut(&uid).unwrap();
                    pod["status"]["nominatedNodeName"] = (*node).into();
                    self.cluster.tell(&pod.clone());
                }
            }
        }
    }

    /// kube-scheduler binds a pod: where it is nominated, or to any node where filter lets it.
    fn bind(&mut self) {
        let Some(uid) = self.pick(Some(false)) else { return };
        let pod = self.pods[&uid].clone();
        let nominated = pod["status"]["nominatedNodeName"].as_str().map(str::to_owned);
        let other = synthetic::gpu_node_name(self.random.below(NODES));
        let node = nominated.filter(|_| self.random.below(3) > 0).unwrap_or(other);
        let object: crate::book::read::PodObject = serde_json::from_value(pod.clone()).unwrap();
        let narrow = object.narrow();
        let Some(known) = self.cluster.book.pod(&uid).cloned() else { return };
        let Some(site) = self.cluster.book.node(&node) else { return };
        let used = self.cluster.book.used(&node).cloned().unwrap_or_default();
        if !known.rules.admit(&site.site) || !known.wants.fits(&site.allocatable, &used) {
            return;
        }
        let now = self.cluster.now;
        let Ok(Choice::Planned(id, plan)) = self.cluster.state.choose(&narrow, &node, now) else { return };
        if self.random.below(8) == 0 {
            return self.cluster.state.failed(&uid, id);
        }
        self.cluster.state.bound(&uid, id);
        let pod = self.pods.get_mut(&uid).unwrap();
        pod["spec"]["nodeName"] = (*node).into();
        pod["status"] = json!({ "phase": "Pending" });
        pod["metadata"]["annotations"] = json!({ "stowage.dev/plan": plan });
        self.cluster.tell(&pod.clone());
    }

    /// A node is cordoned, tainted, smaller, gone, or as it was.
    fn change_node(&mut self) {
        let name = synthetic::gpu_node_name(self.random.below(NODES));
        let change = match self.random.below(6) {
            0 => Change::Applied(node(site(&name, 16, &json!({ "unschedulable": true })))),
            1 => Change::Applied(node(site(
                &name,
                16,
                &json!({ "taints": [{ "key": "k", "effect": "NoSchedule" }] }),
            ))),
            2 => Change::Applied(node(site(&name, 6, &json!({})))),
            3 => Change::Deleted(name),
            _ => Change::Applied(node(site(&name, 16, &json!({})))),
        };
        self.cluster.book.apply_node(change);
    }

    /// kube-scheduler takes a nomination back.
    fn take_back(&mut self) {
        let Some(uid) = self.pick(Some(false)) else { return };
        let pod = self.pods.get_mut(&uid).unwrap();
        pod["status"] = json!({ "phase": "Pending" });
        self.cluster.tell(&pod.clone());
    }

    /// Whether what is bound and kept on a node is no more than it has: all that is at least as important as a pod that
    /// was just nominated there.
    fn holds(&mut self, name: &str, priority: i32) {
        let state = &mut self.cluster.state;
        let view = state.look_at(name).unwrap();
        let NodeGpus::Known(known) = &view.gpus else { panic!("{view:?}") };
        let kept: Vec<_> = view
            .nominated
            .iter()
            .flat_map(|kept| kept.nominees())
            .filter(|it| it.priority >= priority)
            .collect();
        assert!(arrange(&known.now, kept.iter().copied(), &state.expected()), "{name} holds no {kept:?}");
        self.cluster.book.refresh();
        let book = &self.cluster.book;
        let mut used = book.used(name).cloned().unwrap_or_default();
        kept.iter().for_each(|it| used.add(&book.pod(&it.uid).unwrap().wants));
        assert!(used.fits(&book.node(name).unwrap().allocatable, &Amounts::default()), "{name}: {used:?}");
    }

    fn audit(&self) {
        for view in self.cluster.state.audit_views() {
            assert_eq!(audit(&view), []);
        }
    }
}

#[test]
fn a_hundred_thousand_random_steps_promise_nothing_twice() {
    let mut world = World {
        cluster: Cluster::of(NODES),
        random: Random(0x5eed_5eed_5eed_5eed),
        pods: BTreeMap::new(),
        made: 0,
        nominations: 0,
    };
    for _ in 0..STEPS {
        match world.random.below(20) {
            0..6 => world.create(),
            6..11 => world.nominate(),
            11..16 => world.bind(),
            16..18 => world.delete(),
            18 => world.change_node(),
            _ => world.take_back(),
        }
        world.audit();
    }
    assert!(world.nominations > STEPS / 20, "only {} nominations", world.nominations);
}
