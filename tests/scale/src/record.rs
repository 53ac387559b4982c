//! What became of each new pod, as the watch tells it. Pure.

use std::collections::HashMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// The fields of a pod that are looked at.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Where it is bound to.
    pub node_name: Option<String>,
}

/// The same of its status.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// `Pending`, `Running`, …
    pub phase: String,
    /// The node it was nominated for.
    pub nominated_node_name: Option<String>,
    /// Whether the scheduler has found a node, among others.
    pub conditions: Vec<Condition>,
}

/// A condition of a pod.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
}

/// What became of one pod.
#[derive(Debug, Clone, Default)]
pub struct Fate {
    /// The pod's UID.
    pub uid: String,
    /// Its node.
    pub node: Option<String>,
    /// The node that it was last seen nominated for.
    pub nominated: Option<String>,
    /// Whether the scheduler said that it fits nowhere, and it still waits.
    pub refused: bool,
    /// Whether it is Running.
    pub running: bool,
}

/// What became of all pods since [`Record::clear`].
#[derive(Debug, Default)]
pub struct Record {
    /// By name.
    pub fates: HashMap<String, Fate>,
    /// How many have a node.
    pub bound: usize,
    /// When the last of them was seen to have one.
    pub last_bound: Option<Instant>,
    /// How often a pod that had a node was seen on another: never, unless Kubernetes itself is broken.
    pub bound_twice: usize,
    /// Pods that were bound to the node that they had been seen nominated for.
    pub on_nominated: usize,
}

/// What the hollow kubelet is to do about a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// It has just got a node: admit it.
    Admit,
}

impl Record {
    /// Forgets all pods.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// A pod was seen.
    pub fn see(&mut self, name: &str, uid: &str, spec: &Spec, status: &Status, now: Instant) -> Next {
        let fate = self.fates.entry(name.to_owned()).or_default();
        if fate.uid != uid {
            // Deleted and made again while nobody looked.
            *fate = Fate { uid: uid.to_owned(), ..Fate::default() };
        }
        fate.running = status.phase == "Running";
        if let Some(nominated) = status.nominated_node_name.as_ref().filter(|node| !node.is_empty()) {
            fate.nominated = Some(nominated.clone());
        }
        let Some(node) = spec.node_name.as_ref().filter(|node| !node.is_empty()) else {
            let said = status.conditions.iter().find(|condition| condition.kind == "PodScheduled");
            fate.refused = said.is_some_and(|condition| condition.status == "False");
            return Next::Nothing;
        };
        fate.refused = false;
        match &fate.node {
            Some(before) if before == node => Next::Nothing,
            Some(_) => {
                self.bound_twice += 1;
                Next::Nothing
            }
            None => {
                fate.node = Some(node.clone());
                self.on_nominated += usize::from(fate.nominated.as_ref() == Some(node));
                self.bound += 1;
                self.last_bound = Some(now);
                Next::Admit
            }
        }
    }

    /// How many were refused, and wait.
    pub fn refused(&self) -> usize {
        self.fates.values().filter(|fate| fate.refused).count()
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.fates.values().filter(|fate| fate.running).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(node: &str) -> Spec {
        Spec { node_name: Some(node.to_owned()).filter(|node| !node.is_empty()) }
    }

    fn nominated(node: &str) -> Status {
        Status { nominated_node_name: Some(node.to_owned()), ..Status::default() }
    }

    #[test]
    fn a_pod_is_admitted_once() {
        let (mut record, now) = (Record::default(), Instant::now());
        let mut see = |spec: Spec| record.see("a", "1", &spec, &Status::default(), now);
        assert_eq!([see(on("")), see(on("n")), see(on("n"))], [Next::Nothing, Next::Admit, Next::Nothing]);
        assert_eq!((record.bound, record.bound_twice), (1, 0));
    }

    #[test]
    fn a_pod_on_another_node_than_before_was_bound_twice() {
        let (mut record, now) = (Record::default(), Instant::now());
        for node in ["n", "m"] {
            record.see("a", "1", &on(node), &Status::default(), now);
        }
        assert_eq!((record.bound, record.bound_twice), (1, 1));
        assert_eq!(record.see("a", "2", &on("m"), &Status::default(), now), Next::Admit, "it is another pod");
    }

    #[test]
    fn a_nomination_counts_where_the_pod_then_lands_on_it() {
        let (mut record, now) = (Record::default(), Instant::now());
        for (name, lands) in [("a", "n"), ("b", "m")] {
            record.see(name, name, &on(""), &nominated("n"), now);
            record.see(name, name, &on(lands), &Status::default(), now);
        }
        assert_eq!((record.bound, record.on_nominated), (2, 1));
    }

    #[test]
    fn a_pod_that_fits_nowhere_is_refused_until_it_has_a_node() {
        let (mut record, now) = (Record::default(), Instant::now());
        let condition = Condition { kind: "PodScheduled".into(), status: "False".into() };
        let status = Status { conditions: vec![condition], ..Status::default() };
        record.see("a", "1", &on(""), &status, now);
        assert_eq!(record.refused(), 1);
        record.see("a", "1", &on("n"), &Status::default(), now);
        assert_eq!(record.refused(), 0);
    }
}
