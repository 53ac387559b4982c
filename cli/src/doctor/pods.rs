//! What is wrong with pods.

use stowage_shared::contract::{
    DISTINCT_GPUS_ANNOTATION, GPU_MEMORY_MIN_ANNOTATION, GPU_MODEL_ANNOTATION, PLACEMENT_ANNOTATION,
    SHARE_WITH_ANNOTATION,
};

use super::evidence::Evidence;
use super::{Finding, Severity, parts};
use crate::describe;
use crate::world::PodFacts;

/// Annotations that only Stowage's scheduler heeds.
const POLICIES: [&str; 5] = [
    PLACEMENT_ANNOTATION,
    GPU_MODEL_ANNOTATION,
    GPU_MEMORY_MIN_ANNOTATION,
    DISTINCT_GPUS_ANNOTATION,
    SHARE_WITH_ANNOTATION,
];

/// Pods that take GPUs past the kubelet.
pub fn past_the_kubelet(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    for pod in evidence.world.pods.iter().filter(|pod| !is_system(pod)) {
        for (container, value) in parts::env(pod, "NVIDIA_VISIBLE_DEVICES") {
            if !["", "none", "void"].contains(&value) {
                find(Finding {
                    severity: Severity::Warning,
                    check: "visible-devices",
                    about: pod.key(),
                    text: format!(
                        "container {container} sets NVIDIA_VISIBLE_DEVICES={value}: NVIDIA's runtime may show it GPUs that it was not given, whatever the plugin's strategy is"
                    ),
                    // Only the toolkit can ignore the variable, and then it ignores the plugin's own and what the envvar strategy says, too.
                    cure: "take it out of the pod; against all such pods, set accept-nvidia-visible-devices-envvar-when-unprivileged = false in NVIDIA's container toolkit: then only volume-mounts and CDI strategies give GPUs, and the plugin needs SYS_ADMIN (docs/helm.md)".into(),
                });
            }
        }
        if pod.asks_for_gpus() {
            for container in parts::privileged(pod) {
                find(Finding {
                    severity: Severity::Warning,
                    check: "privileged",
                    about: pod.key(),
                    text: format!("container {container} is privileged: it sees every GPU of its node"),
                    cure: "run it without privileged: a GPU pod does not need it".into(),
                });
            }
        }
    }
}

/// Programs that manage GPUs need to see all of them.
fn is_system(pod: &PodFacts) -> bool {
    parts::is_ours(pod)
        || parts::is_nvidias_plugin(pod)
        || ["kube-system", "gpu-operator"].contains(&pod.namespace())
}

/// What pods ask for that cannot be read.
pub fn unreadable(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    for pod in &evidence.world.pods {
        let mut tell = |text: String, cure: &str| {
            find(Finding {
                severity: Severity::Warning,
                check: "request",
                about: pod.key(),
                text,
                cure: cure.into(),
            });
        };
        if let Err(error) = &pod.request {
            tell(error.to_string(), "correct the pod's resources");
        }
        if let Err(error) = &pod.policy {
            tell(error.to_string(), "correct the annotation: until then the pod is placed nowhere");
        }
        if let Some(Err(error)) = &pod.plan {
            tell(
                format!("its plan is ignored: {error}"),
                "delete the pod, so that it is planned anew; see that the admission policies are in force",
            );
        }
    }
}

/// Pods whose wishes nobody hears.
pub fn not_ours(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    let name = evidence.world.schedulers.name();
    let others = || evidence.world.pods.iter().filter(|pod| pod.asks_for_gpus() && !pod.is_ours);
    for pod in others() {
        if let Some(key) = POLICIES.iter().find(|key| pod.annotation(key).is_some()) {
            find(Finding {
                severity: Severity::Warning,
                check: "scheduler",
                about: pod.key(),
                text: format!("it carries {key}, and scheduler {:?} does not heed it", pod.scheduler()),
                cure: format!("set schedulerName: {name}"),
            });
        }
    }
    let names: Vec<String> = others().map(PodFacts::key).collect();
    if !names.is_empty() && evidence.world.pods.iter().any(|pod| pod.is_ours) {
        find(Finding {
            severity: Severity::Notice,
            check: "scheduler",
            about: describe::count(names.len(), "GPU pod"),
            text: format!(
                "another scheduler places them, without looking inside GPUs: {}",
                describe::some(&names)
            ),
            cure: format!("set schedulerName: {name}, where Stowage is to place them"),
        });
    }
}

/// Pods that the kubelet refused for want of devices.
pub fn refused(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    for pod in evidence.failed.iter().flatten() {
        let status = pod.status.as_ref();
        if status.and_then(|status| status.reason.as_deref()) != Some("UnexpectedAdmissionError") {
            continue;
        }
        let meta = &pod.metadata;
        let name = |part: &Option<String>| part.clone().unwrap_or_default();
        find(Finding {
            severity: Severity::Warning,
            check: "refused",
            about: format!("{}/{}", name(&meta.namespace), name(&meta.name)),
            text: format!(
                "its kubelet refused it: {}",
                status.and_then(|status| status.message.clone()).unwrap_or_default()
            ),
            cure: "delete it; where it comes again, see the log of the device plugin on that node".into(),
        });
    }
}
