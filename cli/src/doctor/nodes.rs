//! What is wrong with nodes and what they publish.

use stowage_shared::audit::{self, NodeView, PodView, audit};
use stowage_shared::belief::Unknown;
use stowage_shared::contract::RESERVE_LABEL;
use stowage_shared::policy::NotAllowed;

use super::evidence::Evidence;
use super::{Finding, Severity, parts};
use crate::describe;
use crate::world::{NodeGpus, World};

/// The CRD, without which nothing works.
pub fn crd(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    if !evidence.has_crd {
        find(Finding {
            severity: Severity::Error,
            check: "crd",
            about: "gpunodes.stowage.dev".into(),
            text: "the API server does not know GpuNodes".into(),
            cure: "kubectl apply -f deploy/crds".into(),
        });
    }
}

/// GPU nodes that take no new pods, and why.
pub fn closed(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    for node in &evidence.world.nodes {
        let NodeGpus::Unknown(why) = node.gpus else { continue };
        let told = node.published.as_ref();
        let cure = match why {
            Unknown::NotReady => "kubectl describe node shows what its kubelet misses".to_owned(),
            Unknown::NotPublished | Unknown::Old => {
                "see the pod of stowage-device-plugin on that node, and its log; a node that is to keep NVIDIA's plugin \
                 needs none, and takes no GPU pods of Stowage"
                    .to_owned()
            }
            Unknown::Unreadable => {
                let wrong = told.and_then(|told| told.wrong.clone()).unwrap_or_default();
                format!("the GpuNode says what cannot be: {wrong}; delete it, the plugin writes it anew")
            }
            Unknown::OtherNode => "restart the plugin's pod on that node: it publishes for the node's new UID".to_owned(),
            Unknown::NotAllocatable => {
                "the kubelet counts no device of the plugin: see its log for \"device plugin\", and the plugin's /readyz"
                    .to_owned()
            }
        };
        find(Finding {
            severity: Severity::Warning,
            check: "node",
            about: node.name().into(),
            text: why.text().into(),
            cure,
        });
    }
}

/// Nodes whose label does not say how many GPUs they keep for large pods.
pub fn reserve(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    for node in evidence.world.nodes.iter().filter(|node| node.kept_whole_gpus().is_none()) {
        find(Finding {
            severity: Severity::Warning,
            check: "reserve",
            about: node.name().into(),
            text: NotAllowed::ReserveUnreadable.to_string(),
            cure: format!(
                "kubectl label node {} {RESERVE_LABEL}=NUMBER --overwrite: until then it takes no GPU pods",
                node.name()
            ),
        });
    }
}

/// GpuNodes whose node is gone.
pub fn orphans(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    for gpu_node in evidence.gpu_nodes.iter().filter(|g| evidence.world.node(&g.name).is_none()) {
        find(Finding {
            severity: Severity::Notice,
            check: "gpunode",
            about: gpu_node.name.clone(),
            text: "GpuNode of a node that is not there".into(),
            cure: format!("kubectl delete gpunode {}", gpu_node.name),
        });
    }
}

/// GPUs that are ill.
pub fn health(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    for node in &evidence.world.nodes {
        for gpu in node.published.iter().flat_map(|told| &told.gpus) {
            let whole = gpu.unhealthy.iter().map(|why| (format!("GPU {}", gpu.index), why));
            let parts = gpu.sick.iter().map(|(offer, why)| (describe::device(gpu, *offer), why));
            for (what, why) in whole.chain(parts) {
                find(Finding {
                    severity: Severity::Warning,
                    check: "health",
                    about: node.name().into(),
                    text: format!("{what} is unhealthy: {why}"),
                    cure: "drain what is on it and reset the GPU, or see docs/health.md for the reason"
                        .into(),
                });
            }
        }
    }
}

/// Two plugins that register the same names: the kubelet forgets the devices of the first.
pub fn two_plugins(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    let on = |which: fn(&crate::world::PodFacts) -> bool| {
        evidence.world.pods.iter().filter(move |pod| which(pod) && !pod.node().is_empty())
    };
    for theirs in on(parts::is_nvidias_plugin) {
        let published = evidence.world.node(theirs.node()).is_some_and(|node| node.published.is_some());
        if published || on(parts::is_our_plugin).any(|ours| ours.node() == theirs.node()) {
            find(Finding {
                severity: Severity::Error,
                check: "two-plugins",
                about: theirs.node().into(),
                text: format!("NVIDIA's device plugin ({}) runs beside Stowage's", theirs.key()),
                cure: "let one of them go by a nodeSelector; with gpu-operator: devicePlugin.enabled=false"
                    .into(),
            });
        }
    }
}

/// Plugins of another version than the others.
pub fn versions(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    let versions: std::collections::BTreeSet<&str> = evidence
        .gpu_nodes
        .iter()
        .filter_map(|node| node.status.as_ref().ok())
        .map(|status| status.plugin_version.as_str())
        .filter(|version| !version.is_empty())
        .collect();
    if versions.len() > 1 {
        find(Finding {
            severity: Severity::Notice,
            check: "versions",
            about: "device plugins".into(),
            text: format!("several versions run: {}", versions.into_iter().collect::<Vec<_>>().join(", ")),
            cure: "finish the rollout of the DaemonSet".into(),
        });
    }
}

/// What was planned, handed out and exists, compared.
pub fn audited(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    for finding in audit_world(&evidence.world) {
        let severity = match finding.severity {
            audit::Severity::Notice => Severity::Notice,
            audit::Severity::Warning => Severity::Warning,
            audit::Severity::Error => Severity::Error,
        };
        find(Finding {
            severity,
            check: "audit",
            about: finding.node,
            text: finding.text,
            cure: cure(finding.kind).into(),
        });
    }
}

/// The audit of every GPU node.
pub fn audit_world(world: &World) -> Vec<audit::Finding> {
    let view = |node: &crate::world::NodeState| {
        let told = node.published.as_ref()?;
        let pods = world.pods.iter().filter(|pod| pod.node() == node.name() && pod.asks_for_gpus());
        let pods = pods.filter_map(|pod| {
            Some(PodView {
                namespace: pod.namespace().into(),
                name: pod.name().into(),
                uid: pod.uid().into(),
                request: pod.request.clone().ok()?,
                plan: pod.plan.clone().and_then(Result::ok),
                running: pod.phase() == "Running",
            })
        });
        Some(NodeView {
            node: node.name().into(),
            gpus: told.gpus.iter().map(|gpu| (**gpu).clone()).collect(),
            allocations: told.allocations.clone(),
            pods: pods.collect(),
        })
    };
    world.nodes.iter().filter_map(view).flat_map(|view| audit(&view)).collect()
}

fn cure(kind: audit::Kind) -> &'static str {
    match kind {
        audit::Kind::DoubleUse | audit::Kind::Overlap => {
            "delete one of the two pods, and tell us: this must not happen"
        }
        audit::Kind::UnknownDevice => "delete the pod: its device is gone, another will be given",
        audit::Kind::Leftover => {
            "none needed: once the pod has ended, the GPU is given out as configured now"
        }
        audit::Kind::Leak => "it passes when the kubelet has seen the pod go; if not, restart the kubelet",
        audit::Kind::Missing => "it passes when the plugin has published; if not, see the plugin's log",
        audit::Kind::Drift => "none needed: what the kubelet gave counts",
        audit::Kind::PlanWithoutDevice => "delete the pod, so that it is planned anew",
        audit::Kind::DoublePlan => "none needed if it passes: the plugin gives the second pod other devices",
        audit::Kind::Overcommit => {
            "delete one of the pods: another scheduler placed it by count; let stowage-scheduler place pods whose shares \
             have a size"
        }
        audit::Kind::Unhealthy => "delete the pod, so that it moves to a healthy device",
    }
}
