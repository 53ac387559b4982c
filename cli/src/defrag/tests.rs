//! Proposals and their carrying out, on a cluster whose scheduler and controllers are played.

mod failures;

use anyhow::Context;
use serde_json::{Value, json};

use super::apply::Movable;
use super::*;
use crate::objects::{GpuNode, Objects};
use crate::schedulers::Schedulers;

const NOW: &str = "2026-11-24T10:15:00Z";

/// What becomes of an evicted pod.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// Another runs on the node with the most pods.
    Packed,
    /// Another runs where it was.
    Back,
    /// Another runs on the node with the fewest pods, of those where it was not.
    Spread,
    /// The same as the first, and the pod that waits is bound at once.
    Bound,
    /// The API server refuses.
    Refused,
    /// No other comes.
    Never,
}

/// Nodes of one GPU each, offered whole or in four shares; pods have a share each.
struct Fake {
    nodes: usize,
    /// A pod that waits.
    waiting: Option<Value>,
    /// How often the cluster can still be read.
    looks: usize,
    /// Name, UID, node, priority.
    pods: Vec<(String, String, usize, i32)>,
    fate: Fate,
    evicted: Vec<String>,
}

impl Fake {
    fn new(nodes: usize, pods: &[(usize, i32)], fate: Fate) -> Self {
        let pod = |(n, &(node, priority)): (usize, &(usize, i32))| {
            (format!("p{n}"), format!("u{n}"), node, priority)
        };
        Self {
            nodes,
            waiting: None,
            looks: usize::MAX,
            pods: pods.iter().enumerate().map(pod).collect(),
            fate,
            evicted: Vec::new(),
        }
    }

    fn world(&self) -> World {
        let node = |n| {
            serde_json::from_value(json!({
                "metadata": { "name": format!("n{n}"), "uid": format!("n{n}") },
                "status": { "conditions": [{ "type": "Ready", "status": "True" }],
                    "allocatable": { "pods": "110", "nvidia.com/gpu": "1", "nvidia.com/gpu.shared": "4" } },
            }))
            .unwrap()
        };
        let gpu_node = |n| {
            let here = self.pods.iter().filter(|(.., node, _)| *node == n);
            let allocations: Vec<_> = here
                .enumerate()
                .map(|(share, (name, uid, ..))| {
                    json!({ "namespace": "d", "pod": name, "uid": uid, "container": "c",
                        "resource": "nvidia.com/gpu.shared", "deviceIds": [format!("GPU-{n}::{share}")] })
                })
                .collect();
            let offers = json!([
                { "resource": "nvidia.com/gpu", "uuid": format!("GPU-{n}") },
                { "resource": "nvidia.com/gpu.shared", "uuid": format!("GPU-{n}"), "replicas": 4 }]);
            let status = json!({ "observedAt": NOW, "nodeUid": format!("n{n}"), "allocations": allocations,
                "gpus": [{ "uuid": format!("GPU-{n}"), "index": 0, "model": "M", "memoryMib": 40960, "offers": offers }] });
            GpuNode { name: format!("n{n}"), status: Ok(serde_json::from_value(status).unwrap()) }
        };
        let pod = |(name, uid, node, priority): &(String, String, usize, i32)| {
            serde_json::from_value(json!({
                "metadata": { "name": name, "namespace": "d", "uid": uid,
                    "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true }] },
                "spec": { "schedulerName": "stowage-scheduler", "nodeName": format!("n{node}"), "priority": priority,
                    "containers": [{ "name": "c", "resources": { "limits": { "nvidia.com/gpu.shared": "1" } } }] },
                "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
            }))
            .unwrap()
        };
        let waiting = self.waiting.clone().map(|pod| serde_json::from_value(pod).unwrap());
        let objects = Objects {
            now: NOW.parse().unwrap(),
            nodes: (0..self.nodes).map(node).collect(),
            gpu_nodes: (0..self.nodes).map(gpu_node).collect(),
            pods: self.pods.iter().map(pod).chain(waiting).collect(),
        };
        World::of(&objects, &Schedulers::default())
    }
}

impl Movable for Fake {
    async fn look(&mut self) -> Result<(World, Vec<PodDisruptionBudget>)> {
        self.looks = self.looks.checked_sub(1).context("the API server is gone")?;
        Ok((self.world(), Vec::new()))
    }

    async fn evict(&mut self, _: &str, name: &str, uid: &str) -> Result<()> {
        if self.fate == Fate::Refused {
            bail!("a PodDisruptionBudget forbids it now");
        }
        let at = self.pods.iter().position(|pod| pod.0 == name && pod.1 == uid).unwrap();
        let (_, _, from, priority) = self.pods.remove(at);
        self.evicted.push(name.to_owned());
        let crowd = |node: &usize| self.pods.iter().filter(|pod| pod.2 == *node).count();
        let fullest = (0..self.nodes).filter(|node| crowd(node) < 4).max_by_key(crowd).unwrap();
        let others = || (0..self.nodes).filter(|node| *node != from && crowd(node) < 4);
        let to = match self.fate {
            Fate::Back => from,
            Fate::Spread => others().min_by_key(crowd).unwrap(),
            _ => fullest,
        };
        if self.fate == Fate::Bound {
            self.waiting.as_mut().unwrap()["spec"]["nodeName"] = "n0".into();
        }
        if self.fate != Fate::Never {
            self.pods.push((format!("{name}x"), format!("{uid}x"), to, priority));
        }
        Ok(())
    }

    async fn pause(&mut self, _: Duration) {}
}

/// A pod that waits for a whole GPU.
fn whole() -> Value {
    json!({
        "metadata": { "name": "whole", "namespace": "d", "uid": "w", "annotations": {} },
        "spec": { "schedulerName": "stowage-scheduler",
            "containers": [{ "name": "c", "resources": { "limits": { "nvidia.com/gpu": "1" } } }] },
        "status": { "phase": "Pending" },
    })
}

fn moves(proposal: &Proposal) -> Vec<String> {
    let planned = proposal.steps.iter().flat_map(|step| &step.moves);
    planned.map(|p| format!("{} {}>{}", p.name, p.from, p.to)).collect()
}

#[test]
fn the_fewest_moves_that_empty_a_gpu_are_proposed() {
    let world = Fake::new(3, &[(0, 0), (0, 0), (1, 0)], Fate::Packed).world();
    let proposal = propose(&world, &[], None, &Options::default());
    assert_eq!(moves(&proposal), ["p2 n1>n0"]);
    let gained = proposal.steps[0].gained_milli;
    assert!(gained >= 1000, "a whole GPU, at least: {gained}");
    let full = Fake::new(2, &[(0, 0), (0, 0)], Fate::Packed).world();
    assert_eq!(moves(&propose(&full, &[], None, &Options::default())), [""; 0]);
}

#[test]
fn pods_of_lower_priority_give_way_first() {
    let world = Fake::new(2, &[(0, 100), (1, 0)], Fate::Packed).world();
    assert_eq!(moves(&propose(&world, &[], None, &Options::default())), ["p1 n1>n0"]);
    let world = Fake::new(2, &[(0, 0), (1, 100)], Fate::Packed).world();
    assert_eq!(moves(&propose(&world, &[], None, &Options::default())), ["p0 n0>n1"]);
}

#[test]
fn no_more_pods_move_than_allowed_and_those_who_stay_are_counted() {
    let world = Fake::new(4, &[(0, 0), (1, 0), (2, 0), (3, 2_000_000_000)], Fate::Packed).world();
    let options = Options { max_moves: 2, ..Options::default() };
    let proposal = propose(&world, &[], None, &options);
    assert_eq!(moves(&proposal).len(), 2);
    assert_eq!(proposal.stay, [("its priority is the system's".to_owned(), 1)].into());
}

async fn run(fake: &mut Fake) -> (Done, Vec<String>) {
    let mut told = Vec::new();
    let lets_in = fake.waiting.is_some().then(|| ("d".to_owned(), "whole".to_owned()));
    let options = Options { lets_in, ..Options::default() };
    let done = apply(fake, &options, &mut |line| told.push(line)).await.unwrap();
    (done, told)
}

#[tokio::test]
async fn moves_are_carried_out_one_at_a_time_until_no_further_one_would_help() {
    let mut fake = Fake::new(3, &[(0, 0), (0, 0), (1, 0), (2, 0)], Fate::Packed);
    let (done, told) = run(&mut fake).await;
    assert_eq!((fake.evicted.len(), &*done.ended), (2, "no further move would help"));
    assert!(done.gained_milli >= 2000 && told.len() == 4, "{done:?} {told:?}");
    assert!(fake.pods.iter().all(|pod| pod.2 == 0));
}

#[tokio::test]
async fn a_step_that_did_not_help_is_the_last() {
    let mut fake = Fake::new(3, &[(0, 0), (0, 0), (1, 0), (2, 0)], Fate::Back);
    let (done, _) = run(&mut fake).await;
    assert_eq!(fake.evicted.len(), 1);
    assert!(done.ended.starts_with("the last step did not help") && done.gained_milli == 0, "{done:?}");
}

#[tokio::test]
async fn a_waiting_pod_is_let_in_by_as_few_moves_as_do() {
    let start = || Fake {
        waiting: Some(whole()),
        ..Fake::new(3, &[(0, 0), (0, 0), (1, 0), (2, 0), (2, 0)], Fate::Packed)
    };
    let lets_in = Options { lets_in: Some(("d".into(), "whole".into())), ..Options::default() };
    let answer = dry_run(&start().world(), &[], &lets_in).unwrap();
    assert_eq!(answer.value["steps"][0]["letsIn"], "d/whole on n1");
    let mut fake = start();
    let (done, _) = run(&mut fake).await;
    assert_eq!(
        (&*done.ended, fake.evicted),
        ("d/whole fits now, and waits for its scheduler", vec!["p2".to_owned()])
    );
    let mut fake = Fake { fate: Fate::Back, ..start() };
    assert_eq!(run(&mut fake).await.0.ended, "the last step did not help: its room was taken");
    let error = dry_run(&Fake::new(1, &[(0, 0)], Fate::Packed).world(), &[], &lets_in).unwrap_err();
    assert!(error.to_string().contains("no pod \"whole\""));
}
