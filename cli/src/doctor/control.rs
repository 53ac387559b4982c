//! What is wrong with the scheduler, its configuration and the admission policies.

use jiff::SignedDuration;

use super::evidence::Evidence;
use super::{Finding, Severity, parts};
use crate::describe;
use crate::world::PodFacts;

/// The lease of the kube-scheduler beside the extender (`deploy/scheduler`).
const LEASE: &str = "stowage-kube-scheduler";
/// The lease of the extender that is asked, where a Service leads to it (`deploy/options/lease.yaml`).
const LEADERS_LEASE: &str = "stowage-scheduler-extender";
/// A lease is renewed every few seconds; one this old is nobody's.
const LEASE_OLD: SignedDuration = SignedDuration::from_secs(60);
/// The admission policies of `deploy/manifests`.
const POLICIES: [&str; 4] =
    ["stowage-pods", "stowage-gpunode", "stowage-node-labels", "stowage-node-features"];

/// Whether there is a scheduler that serves our pods.
pub fn scheduler(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    let waiting: Vec<String> = evidence
        .world
        .pods
        .iter()
        .filter(|pod| pod.is_ours && pod.node().is_empty())
        .map(PodFacts::key)
        .collect();
    let running =
        evidence.world.pods.iter().any(|pod| parts::is_our_extender(pod) && pod.phase() == "Running");
    // Then the kube-scheduler that asks is somebody else's, and which it is cannot be told.
    let behind_a_service = evidence.world.pods.iter().any(|pod| {
        parts::is_our_extender(pod) && parts::env(pod, "LEADER_ELECT").any(|(_, value)| value == "true")
    });
    let name = if behind_a_service { LEADERS_LEASE } else { LEASE };
    let lease = evidence.leases.iter().flatten().filter(|lease| lease.metadata.name.as_deref() == Some(name));
    let renewed = lease.filter_map(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)).max();
    let alive = renewed.is_some_and(|at| evidence.world.now.duration_since(at) < LEASE_OLD);
    if alive || evidence.leases.is_err() && running {
        return;
    }
    let text = match (renewed, running) {
        (Some(at), _) if behind_a_service => {
            format!(
                "the lease {name} was renewed {} ago: no extender answers now",
                describe::age(at, evidence.world.now)
            )
        }
        (None, _) if behind_a_service => format!("no extender holds the lease {name}, so none answers"),
        (Some(at), _) => {
            format!(
                "the lease {LEASE} was renewed {} ago: no kube-scheduler asks Stowage now",
                describe::age(at, evidence.world.now)
            )
        }
        (None, true) => format!("the extender runs, and no kube-scheduler holds the lease {LEASE}"),
        (None, false) => {
            "no scheduler of that name was seen, neither a lease nor a pod of the extender".to_owned()
        }
    };
    let (severity, about, text) = if waiting.is_empty() {
        (Severity::Notice, evidence.world.schedulers.name().to_owned(), text)
    } else {
        let about = describe::count(waiting.len(), "pending pod");
        (Severity::Error, about, format!("{text}; waiting: {}", describe::some(&waiting)))
    };
    let cure = if behind_a_service {
        "the log of the extender's pods, and whether deploy/options/lease.yaml is applied"
    } else {
        "start stowage-scheduler-extender beside a kube-scheduler with deploy/scheduler/kube-scheduler-config.yaml"
    };
    find(Finding { severity, check: "scheduler", about, text, cure: cure.into() });
}

/// Whether tenants are kept from writing plans.
pub fn admission(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    let (Ok(policies), Ok(bindings)) = (&evidence.policies, &evidence.bindings) else { return };
    for name in POLICIES {
        let there = policies.iter().any(|policy| policy.metadata.name.as_deref() == Some(name));
        let denies = bindings.iter().filter_map(|binding| binding.spec.as_ref()).any(|spec| {
            spec.policy_name.as_deref() == Some(name)
                && spec.validation_actions.iter().flatten().any(|action| action == "Deny")
        });
        let text = match (there, denies) {
            (true, true) => continue,
            (false, _) => format!("the admission policy {name} is missing"),
            (true, false) => format!("the admission policy {name} is not in force: no binding of it denies"),
        };
        find(Finding {
            severity: Severity::Warning,
            check: "admission",
            about: name.into(),
            text: format!("{text}; whoever may edit a pod or use a plugin's token may write what it keeps"),
            cure: "kubectl apply -f deploy/manifests/admission-policies.yaml".into(),
        });
    }
}

/// What a kube-scheduler's configuration must not say.
pub fn configuration(evidence: &Evidence, find: &mut dyn FnMut(Finding)) {
    for map in evidence.config_maps.iter().flatten() {
        let texts = map.data.iter().flatten().filter(|(_, text)| text.contains("KubeSchedulerConfiguration"));
        for (key, text) in texts {
            let about = format!(
                "{}/{} {key}",
                map.metadata.namespace.as_deref().unwrap_or_default(),
                map.metadata.name.as_deref().unwrap_or_default()
            );
            let read: Result<serde_json::Value, _> = serde_saphyr::from_str(text);
            let Ok(configuration) = read else {
                find(Finding {
                    severity: Severity::Warning,
                    check: "configuration",
                    about,
                    text: "it cannot be read as YAML".into(),
                    cure: "compare it with deploy/scheduler/kube-scheduler-config.yaml".into(),
                });
                continue;
            };
            for (text, cure) in mistakes(&configuration) {
                let (text, cure) = (text.to_owned(), cure.to_owned());
                find(Finding {
                    severity: Severity::Warning,
                    check: "configuration",
                    about: about.clone(),
                    text,
                    cure,
                });
            }
        }
    }
}

/// Mistakes with the extender in a configuration, each with its cure.
fn mistakes(configuration: &serde_json::Value) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    let ours = configuration["extenders"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|extender| extender["bindVerb"] == "bind" && extender["filterVerb"] == "filter");
    for extender in ours {
        let prefix = extender["urlPrefix"].as_str().unwrap_or_default();
        let over_tls = prefix.starts_with("https://");
        if over_tls {
            let tls = &extender["tlsConfig"];
            let given =
                |keys: [&str; 2]| keys.iter().any(|key| tls[key].as_str().is_some_and(|it| !it.is_empty()));
            if !given(["caFile", "caData"]) || tls["insecure"] == true {
                found.push((
                    "tlsConfig without an authority: kube-scheduler believes any server that answers there",
                    "set tlsConfig.caFile, and insecure: false",
                ));
            }
            if !given(["certFile", "certData"]) || !given(["keyFile", "keyData"]) {
                found.push((
                    "tlsConfig without a client certificate: the extender refuses kube-scheduler",
                    "set tlsConfig.certFile and tlsConfig.keyFile",
                ));
            }
        } else if !["http://127.0.0.1:", "http://localhost:", "http://[::1]:"]
            .iter()
            .any(|local| prefix.starts_with(local))
        {
            found.push((
                "urlPrefix: the extender is asked over the network without TLS, so that whoever reaches it binds pods",
                "docs/install.md, \"The cluster's own scheduler\"",
            ));
        }
        let managed = extender["managedResources"].as_array().map_or(&[][..], Vec::as_slice);
        if managed.iter().any(|resource| resource["ignoredByScheduler"] == true) {
            found.push((
                "ignoredByScheduler: kube-scheduler no longer counts the GPUs, and shows the extender full nodes",
                "set ignoredByScheduler: false, or leave managedResources out",
            ));
        } else if !managed.is_empty() && !over_tls {
            // A cluster's own scheduler asks over TLS, and about pods with GPUs alone: all others must not wait for us.
            found.push((
                "managedResources: pods that ask for no GPU are not shown to the extender, and fill GPU nodes",
                "leave managedResources out",
            ));
        }
        if extender["nodeCacheCapable"] != true {
            found.push((
                "nodeCacheCapable is not true: whole nodes are sent, and refused",
                "set nodeCacheCapable: true",
            ));
        }
        if extender["ignorable"] == true {
            found.push((
                "ignorable: while the extender does not answer, pods are bound without a plan",
                "set ignorable: false",
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_configuration_has_no_mistakes_and_a_changed_one_has() {
        let text = include_str!("../../../deploy/scheduler/kube-scheduler-config.yaml");
        let ours: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(mistakes(&ours), []);
        for (key, value, want) in [
            (
                "managedResources",
                serde_json::json!([{ "name": "nvidia.com/gpu", "ignoredByScheduler": true }]),
                "ignoredByScheduler",
            ),
            ("managedResources", serde_json::json!([{ "name": "nvidia.com/gpu" }]), "managedResources"),
            ("nodeCacheCapable", false.into(), "nodeCacheCapable"),
            ("ignorable", true.into(), "ignorable"),
        ] {
            let mut changed = ours.clone();
            changed["extenders"][0][key] = value;
            let found = mistakes(&changed);
            assert!(found.len() == 1 && found[0].0.starts_with(want), "{found:?}");
        }
    }

    #[test]
    fn over_the_network_each_side_must_show_who_it_is() {
        let text = include_str!("../../../deploy/scheduler/shared-kube-scheduler-config.yaml");
        let shared: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(mistakes(&shared), []);
        for (key, value, want) in [
            ("caFile", serde_json::Value::Null, "tlsConfig without an authority"),
            ("insecure", true.into(), "tlsConfig without an authority"),
            ("certFile", "".into(), "tlsConfig without a client certificate"),
            ("keyFile", serde_json::Value::Null, "tlsConfig without a client certificate"),
        ] {
            let mut changed = shared.clone();
            changed["extenders"][0]["tlsConfig"][key] = value;
            let found = mistakes(&changed);
            assert!(found.len() == 1 && found[0].0.starts_with(want), "{key}: {found:?}");
        }
        let mut plain = shared;
        plain["extenders"][0]["urlPrefix"] = "http://10.96.0.94:9412".into();
        assert!(mistakes(&plain)[0].0.starts_with("urlPrefix: the extender is asked over the network"));
    }

    #[test]
    fn the_policies_and_the_lease_are_those_of_the_manifests() {
        let policies = include_str!("../../../deploy/manifests/admission-policies.yaml");
        let config = include_str!("../../../deploy/scheduler/kube-scheduler-config.yaml");
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(policies).unwrap();
        let named = documents.iter().filter(|d| d["kind"] == "ValidatingAdmissionPolicy");
        let names: Vec<&str> = named.filter_map(|d| d["metadata"]["name"].as_str()).collect();
        assert_eq!(names, POLICIES);
        assert!(config.contains(&format!("resourceName: {LEASE}\n")));
        let lease = include_str!("../../../deploy/options/lease.yaml");
        assert!(lease.contains(&format!("resourceNames: [\"{LEADERS_LEASE}\"]\n")));
    }
}
