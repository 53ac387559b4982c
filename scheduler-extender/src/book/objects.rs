//! Pods, nodes and PodDisruptionBudgets, as far as it matters where a pod may go and what it stands for.

use std::sync::Arc;

use stowage_shared::contract::{DELETION_COST_ANNOTATION, OUR_DELETION_COST_ANNOTATION};
use stowage_shared::moves::stays::Ties;
use stowage_shared::pod::{OwnAnnotations, PodSpec};

use super::amounts::{self, Amounts, Names};
use super::read::{BudgetObject, NodeObject, PodObject, PodTerm, Spec, is_nominated_by_us};
use super::rules::{Expression, Labels, LeftAlone, Rules, Selector, Site};
use crate::schedulers;

/// A pod, beyond its GPUs.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The version that was seen: a precondition of what is written about it.
    pub resource_version: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// The node it is bound to; empty while it waits.
    pub node: String,
    /// Whether it asks for our scheduler.
    pub ours: bool,
    /// Whether its deletion was asked for.
    pub deleting: bool,
    /// If so, when its grace is over, in seconds since 1970.
    pub gone_by: Option<i64>,
    /// Whether it will never run again.
    pub terminal: bool,
    /// Whether its containers run.
    pub running: bool,
    /// Whether its condition `Ready` is true.
    pub ready: bool,
    /// Its priority.
    pub priority: i32,
    /// Whether it may push others aside.
    pub preempts: bool,
    /// Whether a gate keeps it from being scheduled.
    pub gated: bool,
    /// The node that it is nominated to; empty where there is none.
    pub nominated: String,
    /// Whether our account has nominated it there, as far as the API server tells.
    pub nominated_by_us: bool,
    /// The node that it was nominated to last while it waits, as the book knows: it sees what ends before somebody looks.
    pub was_nominated: String,
    /// Whether kube-scheduler has tried it and found no node.
    pub unschedulable: bool,
    /// Its labels.
    pub labels: Labels,
    /// The controller that made it: its kind and UID.
    pub owner: Option<(String, String)>,
    /// What it asks for in all.
    pub wants: Amounts,
    /// Its containers that ask for extended resources, while it waits for us.
    pub asks: PodSpec,
    /// What else its annotations say to us.
    pub annotations: OwnAnnotations,
    /// What it says about its node, if it is ours.
    pub rules: Arc<Rules>,
    /// What it says about being moved.
    pub ties: Ties,
    /// Why it is left to kube-scheduler alone, if it is.
    pub left_alone: Option<LeftAlone>,
    /// Whom it keeps away from its node or zone once it runs.
    pub repels: Vec<Repels>,
    /// Its deletion cost, as it stands there.
    pub deletion_cost: Option<String>,
    /// The deletion cost that we wrote last.
    pub our_deletion_cost: Option<String>,
}

/// Pods that another keeps away by required anti-affinity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repels {
    /// In these namespaces; empty for all, where only labels of namespaces say which.
    pub namespaces: Vec<String>,
    /// With these labels.
    pub selector: Selector,
}

impl Repels {
    /// Whether a pod may be meant. Where it cannot be told, it is.
    pub fn may_mean(&self, namespace: &str, labels: &Labels) -> bool {
        (self.namespaces.is_empty() || self.namespaces.iter().any(|known| known == namespace))
            && self.selector.matches(labels)
    }
}

/// A node, beyond its GPUs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// What it is.
    pub site: Site,
    /// What it has of every resource.
    pub allocatable: Amounts,
}

/// A PodDisruptionBudget.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budget {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whom it protects; nobody where it has no selector.
    pub selector: Option<Selector>,
    /// How many of them may be evicted now.
    pub allowed: u32,
}

impl Pod {
    /// Reads a pod.
    pub fn of(object: PodObject, names: &mut Names) -> Self {
        let ours = object.spec.as_ref().is_some_and(|spec| schedulers::is_ours(&spec.scheduler_name));
        let waits = object.spec.as_ref().is_some_and(|spec| spec.node_name.is_empty());
        let asks = if ours && waits { object.narrow().spec } else { PodSpec::default() };
        let (metadata, spec) = (object.metadata, object.spec.unwrap_or_default());
        let status = object.status.unwrap_or_default();
        let nominated_by_us = is_nominated_by_us(&metadata);
        let condition = |kind: &str| status.conditions.iter().find(|it| it.kind == kind);
        let namespace = metadata.namespace.unwrap_or_default();
        let wants =
            amounts::of_pod(&spec.init_containers, &spec.containers, &spec.resources, &spec.overhead, names);
        let mut annotations: OwnAnnotations = metadata.annotations.unwrap_or_default().into_iter().collect();
        let owner = metadata.owner_references.and_then(|owners| owners.into_iter().next());
        let local_storage = spec.volumes.iter().any(|volume| volume.local);
        Self {
            uid: metadata.uid.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            created: metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
            ours,
            asks,
            deleting: metadata.deletion_timestamp.is_some(),
            gone_by: metadata.deletion_timestamp.map(|time| time.0.as_second()),
            terminal: matches!(&*status.phase, "Succeeded" | "Failed"),
            running: status.phase == "Running",
            ready: condition("Ready").is_some_and(|it| it.status == "True"),
            priority: spec.priority,
            preempts: spec.preemption_policy != "Never",
            gated: !spec.scheduling_gates.is_empty(),
            unschedulable: condition("PodScheduled")
                .is_some_and(|it| it.status == "False" && it.reason == "Unschedulable"),
            nominated_by_us,
            nominated: status.nominated_node_name,
            was_nominated: String::new(),
            labels: metadata.labels.unwrap_or_default(),
            owner: owner.map(|owner| (owner.kind, owner.uid)),
            wants,
            left_alone: left_alone(&spec),
            repels: repels(&spec, &namespace),
            rules: if ours { rules(&spec) } else { Arc::default() },
            ties: Ties::read(|key| annotations.get(key), local_storage),
            deletion_cost: annotations.take(DELETION_COST_ANNOTATION),
            our_deletion_cost: annotations.take(OUR_DELETION_COST_ANNOTATION),
            // Placement alone reads them, and only while it waits.
            annotations: if ours && waits { annotations } else { OwnAnnotations::default() },
            node: spec.node_name,
            namespace,
        }
    }

    /// Keeps nothing that only matters to whoever moves pods, where nobody does: texts of tens of thousands of pods.
    pub(super) fn forget_where_it_may_go(&mut self) {
        if !self.node.is_empty() {
            self.rules = Arc::default();
        }
    }
}

/// Why a pod is left to kube-scheduler alone, if it is.
fn left_alone(spec: &Spec) -> Option<LeftAlone> {
    let affinity = &spec.affinity;
    let of_pods = [&affinity.pod_affinity, &affinity.pod_anti_affinity];
    let ports = spec.containers.iter().chain(&spec.init_containers).flat_map(|container| &container.ports);
    let reasons = [
        (!affinity.node_affinity.preferred.is_empty(), LeftAlone::PreferredNodes),
        (
            of_pods.iter().any(|it| !it.required.is_empty() || !it.preferred.is_empty()),
            LeftAlone::PodAffinity,
        ),
        (!spec.topology_spread_constraints.is_empty(), LeftAlone::TopologySpread),
        (spec.volumes.iter().any(|volume| volume.of_nodes), LeftAlone::Volumes),
        (ports.into_iter().any(|port| port.host_port != 0), LeftAlone::HostPorts),
        (!spec.resource_claims.is_empty(), LeftAlone::ResourceClaims),
        (spec.workload_ref.is_some() || spec.scheduling_group.is_some(), LeftAlone::Group),
    ];
    reasons.into_iter().find(|(is, _)| *is).map(|(_, why)| why)
}

fn rules(spec: &Spec) -> Arc<Rules> {
    Arc::new(Rules {
        selector: spec.node_selector.clone(),
        affinity: spec.affinity.node_affinity.required.node_selector_terms.clone(),
        tolerations: spec.tolerations.clone(),
    })
}

fn repels(spec: &Spec, namespace: &str) -> Vec<Repels> {
    let terms = spec.affinity.pod_anti_affinity.required.iter().cloned();
    terms.map(|term| repelled_by(term, namespace)).collect()
}

fn repelled_by(term: PodTerm, namespace: &str) -> Repels {
    let namespaces = match (term.namespace_selector, term.namespaces) {
        // Which namespaces have which labels is not known here: it may be any.
        (Some(_), _) => Vec::new(),
        (None, named) if named.is_empty() => vec![namespace.to_owned()],
        (None, named) => named,
    };
    // Without a selector nobody is meant, as with one that asks for a label to be there and not to be there.
    let nobody = || {
        let of =
            |operator: &str| Expression { key: "x".into(), operator: operator.into(), values: Vec::new() };
        Selector { match_expressions: vec![of("Exists"), of("DoesNotExist")], ..Selector::default() }
    };
    Repels { namespaces, selector: term.label_selector.unwrap_or_else(nobody) }
}

impl Node {
    /// Reads a node.
    pub fn of(object: NodeObject, names: &mut Names) -> Self {
        let (spec, status) = (object.spec.unwrap_or_default(), object.status.unwrap_or_default());
        Self {
            site: Site {
                name: object.metadata.name.unwrap_or_default(),
                labels: object.metadata.labels.unwrap_or_default(),
                taints: spec.taints,
                unschedulable: spec.unschedulable,
            },
            allocatable: Amounts::of(&status.allocatable, names),
        }
    }
}

impl Budget {
    /// Reads a PodDisruptionBudget.
    pub fn of(object: BudgetObject) -> Self {
        Self {
            namespace: object.metadata.namespace.unwrap_or_default(),
            name: object.metadata.name.unwrap_or_default(),
            selector: object.spec.and_then(|spec| spec.selector),
            allowed: object.status.map_or(0, |status| u32::try_from(status.disruptions_allowed).unwrap_or(0)),
        }
    }

    /// Whether it protects a pod.
    pub fn protects(&self, pod: &Pod) -> bool {
        self.namespace == pod.namespace && self.selector.as_ref().is_some_and(|it| it.matches(&pod.labels))
    }
}
