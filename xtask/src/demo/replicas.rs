//! What Deployments and ReplicaSets do: create, scale down, roll out.
//!
//! One book for all three ways of playing a day, so that they differ in nothing but where pods land.
//! Victims of a scale-down are chosen as the ReplicaSet controller of Kubernetes 1.36 does
//! (`ActivePodsWithRanks`): waiting pods first, then those whose node has most of their siblings, then
//! the younger ones by the logarithm of their age, then by an arbitrary number, here from the seed.
//! A rollout is a `RollingUpdate` with its defaults (a quarter may be missing, a quarter too many), one
//! round a step: a model takes minutes to load.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::services::{Day, Piece};

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its name, unique in the day.
    pub name: String,
    /// Its service's place in [`Day::services`].
    pub service: usize,
    /// What it needs.
    pub piece: Piece,
    revision: u32,
    node: Option<String>,
    /// The step at which it was first seen to run.
    running_since: Option<usize>,
    tie: u64,
}

/// What is to be done at the beginning of a step.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Pods to delete.
    pub delete: Vec<Replica>,
    /// Pods to create, in this order.
    pub create: Vec<Replica>,
}

/// All pods of the day's services.
#[derive(Debug)]
pub struct Replicas<'a> {
    day: &'a Day,
    pods: BTreeMap<String, Replica>,
    created: Vec<u32>,
    random: ChaCha8Rng,
}

impl<'a> Replicas<'a> {
    /// No pods yet.
    pub fn new(day: &'a Day, seed: u64) -> Self {
        let created = vec![0; day.services.len()];
        Self { day, pods: BTreeMap::new(), created, random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The pods there are.
    pub fn pods(&self) -> impl Iterator<Item = &Replica> {
        self.pods.values()
    }

    /// What the controllers do at this step; the book has it done already.
    pub fn advance(&mut self, step: usize) -> Changes {
        let mut changes = Changes::default();
        for service in 0..self.day.services.len() {
            self.advance_service(service, step, &mut changes);
        }
        // Services are independent; that the first in the list is always first in the queue would not be.
        for i in (1..changes.create.len()).rev() {
            let other = self.random.random_range(0..=i);
            changes.create.swap(i, other);
        }
        changes
    }

    /// Tells where the pods are, by name; who is not among them waits.
    pub fn observe(&mut self, nodes: &BTreeMap<String, String>, step: usize) {
        for pod in self.pods.values_mut() {
            pod.node = nodes.get(&pod.name).cloned();
            pod.running_since = pod.node.is_some().then_some(pod.running_since.unwrap_or(step));
        }
    }

    fn advance_service(&mut self, service: usize, step: usize, changes: &mut Changes) {
        let known = &self.day.services[service];
        let wanted = known.wanted[step] as usize;
        let revision = u32::from(step >= known.rollout);
        let (old, new): (Vec<Replica>, Vec<Replica>) = self
            .pods
            .values()
            .filter(|pod| pod.service == service)
            .cloned()
            .partition(|pod| pod.revision < revision);

        let rolling = !old.is_empty();
        let (surge, missing) = if rolling { (wanted.div_ceil(4), wanted / 4) } else { (0, 0) };
        let mut going = victims(&new, new.len().saturating_sub(wanted), step);
        // Old pods that wait serve nobody; of those that run, as many as may be missing go.
        let running = |pods: &[Replica]| pods.iter().filter(|pod| pod.node.is_some()).count();
        let (old_running, old_waiting): (Vec<_>, Vec<_>) =
            old.iter().cloned().partition(|pod| pod.node.is_some());
        let spare = (running(&old) + running(&new)).saturating_sub(wanted.saturating_sub(missing));
        going.extend(old_waiting);
        going.extend(victims(&old_running, spare.min(old_running.len()), step));

        let staying = old.len() + new.len() - going.len();
        let kept_new = new.len().min(wanted);
        let coming = (wanted - kept_new).min((wanted + surge).saturating_sub(staying));
        for pod in &going {
            self.pods.remove(&pod.name);
        }
        changes.delete.extend(going);
        for _ in 0..coming {
            let number = self.created[service];
            self.created[service] += 1;
            let pod = Replica {
                name: format!("{}-{number}", known.name),
                service,
                piece: known.piece,
                revision,
                node: None,
                running_since: None,
                tie: self.random.random(),
            };
            self.pods.insert(pod.name.clone(), pod.clone());
            changes.create.push(pod);
        }
    }
}

/// The pods that a ReplicaSet gives up first.
fn victims(pods: &[Replica], count: usize, step: usize) -> Vec<Replica> {
    let siblings =
        |pod: &Replica| pods.iter().filter(|other| pod.node.is_some() && other.node == pod.node).count();
    let mut ranked: Vec<&Replica> = pods.iter().collect();
    ranked.sort_by_key(|pod| {
        let age_steps = pod.running_since.map_or(0, |since| step.saturating_sub(since));
        (pod.node.is_some(), Reverse(siblings(pod)), age_steps.checked_ilog2(), pod.tie)
    });
    ranked.into_iter().take(count).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::super::services::Service;
    use super::*;

    fn day(wanted: &[u32], rollout: usize) -> Day {
        let service = Service { name: "s".into(), piece: Piece::Share, wanted: wanted.to_vec(), rollout };
        Day { services: vec![service], steps: wanted.len() }
    }

    /// Plays with every pod running on `node(name)`; answers with the number of pods after each step.
    fn play(day: &Day, node: impl Fn(&str) -> Option<&'static str>) -> Vec<(usize, usize)> {
        let mut replicas = Replicas::new(day, 1);
        let mut out = Vec::new();
        for step in 0..day.steps {
            replicas.advance(step);
            let nodes =
                replicas.pods().filter_map(|p| Some((p.name.clone(), node(&p.name)?.to_owned()))).collect();
            replicas.observe(&nodes, step);
            out.push((replicas.pods().count(), replicas.pods().filter(|p| p.revision == 1).count()));
        }
        out
    }

    #[test]
    fn there_are_as_many_pods_as_wanted_when_nothing_is_rolled_out() {
        assert_eq!(play(&day(&[3, 5, 2, 0, 4], 9), |_| Some("n")), [(3, 0), (5, 0), (2, 0), (0, 0), (4, 0)]);
    }

    #[test]
    fn a_rollout_goes_in_rounds_and_never_lets_more_than_a_quarter_be_missing() {
        let steps = play(&day(&[8; 8], 1), |_| Some("n"));
        assert_eq!(steps[0], (8, 0));
        assert_eq!(*steps.last().unwrap(), (8, 8));
        assert!(steps.iter().all(|(all, _)| (6..=10).contains(all)), "{steps:?}");
    }

    #[test]
    fn a_rollout_whose_new_pods_wait_keeps_the_old_ones() {
        let steps =
            play(&day(&[4; 6], 1), |name| ["s-0", "s-1", "s-2", "s-3"].contains(&name).then_some("n"));
        let (all, new) = *steps.last().unwrap();
        assert_eq!(all - new, 3, "three of four must stay: {steps:?}");
    }

    #[test]
    fn a_replica_set_gives_up_waiting_pods_then_crowded_ones_then_young_ones() {
        let pod = |name: &str, node: Option<&str>, since: usize, tie: u64| Replica {
            name: name.into(),
            service: 0,
            piece: Piece::Share,
            revision: 0,
            node: node.map(str::to_owned),
            running_since: node.map(|_| since),
            tie,
        };
        let pods = [
            pod("alone-old", Some("a"), 0, 0),
            pod("alone-young", Some("b"), 15, 9),
            pod("crowded-1", Some("c"), 0, 2),
            pod("crowded-2", Some("c"), 1, 1),
            pod("waiting", None, 0, 9),
        ];
        let names: Vec<String> = victims(&pods, 5, 16).into_iter().map(|pod| pod.name).collect();
        assert_eq!(names, ["waiting", "crowded-2", "crowded-1", "alone-young", "alone-old"]);
    }
}
