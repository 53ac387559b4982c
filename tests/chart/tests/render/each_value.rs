//! Every value changes something, and the right thing: the table names each of them.

use std::collections::{BTreeMap, BTreeSet};

use stowage_chart_tests::values;

use super::render;

/// A value, what it is changed to, what must be set besides for it to mean something, and a text that is rendered then and
/// was not before; behind a `!`, one that was and is not any more.
type Row = (&'static str, &'static str, &'static [&'static str], &'static str);

const CDI: &str = "nvidiaDriverRoot=\"/\"";
const NO_SURGE: &[&str] =
    &["updateStrategy.rollingUpdate.maxSurge=0", "updateStrategy.rollingUpdate.maxUnavailable=1"];
const SERVICE: &[&str] = &["scheduler.extender.service.enabled=true"];
const CERT_MANAGER: &[&str] = &[
    "scheduler.extender.service.enabled=true",
    "scheduler.extender.service.certManager.enabled=true",
    r#"scheduler.extender.service.certManager.issuerRef={"name":"any"}"#,
];
const MAP: &str = "config.map={\"a\":\"version: v1\",\"b\":\"version: v1\"}";

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("config.name", r#""mine""#, &[], "configMap:\n            name: mine"),
    ("config.map", r#"{"shared":"version: v1"}"#, &[], "shared: 'version: v1'"),
    ("config.default", r#""b""#, &[MAP], "- name: DEFAULT_CONFIG\n              value: \"b\""),
    ("config.fallbackStrategies", r#"["empty"]"#, &[MAP], "- name: FALLBACK_STRATEGIES\n              value: \"empty\""),
    ("compatWithCPUManager", "true", &[], "- name: PASS_DEVICE_SPECS\n              value: \"true\""),
    ("migStrategy", r#""mixed""#, &[], "- name: MIG_STRATEGY\n              value: \"mixed\""),
    ("migStaticGPUs", r#"["0","1"]"#, &[r#"migStrategy="on-demand""#], "- name: MIG_STATIC_GPUS\n              value: \"0,1\""),
    ("elasticGPUs", "true", &[], "- name: ELASTIC_GPUS\n              value: \"true\""),
    ("failOnInitError", "false", &[], "- name: FAIL_ON_INIT_ERROR\n              value: \"false\""),
    ("deviceListStrategy", r#"["envvar","cdi-cri"]"#, &[CDI], "- name: DEVICE_LIST_STRATEGY\n              value: \"envvar,cdi-cri\""),
    ("deviceIDStrategy", r#""index""#, &[], "- name: DEVICE_ID_STRATEGY\n              value: \"index\""),
    ("nvidiaDriverRoot", r#""/run/nvidia/driver""#, &[], "hostPath: {path: /run/nvidia/driver, type: Directory}"),
    ("nvidiaDevRoot", r#""/""#, &[], "- name: NVIDIA_DEV_ROOT\n              value: \"/\""),
    ("gdrcopyEnabled", "true", &[], "- name: GDRCOPY_ENABLED\n              value: \"true\""),
    ("gdsEnabled", "true", &[], "- name: GDS_ENABLED\n              value: \"true\""),
    ("mofedEnabled", "true", &[], "- name: MOFED_ENABLED\n              value: \"true\""),
    ("deviceDiscoveryStrategy", r#""nvml""#, &[], "- name: DEVICE_DISCOVERY_STRATEGY\n              value: \"nvml\""),
    ("sharedDevicesAllocationPolicy", r#""packed""#, &[], "- name: SHARED_DEVICES_ALLOCATION_POLICY\n              value: \"packed\""),
    ("cdi.nvidiaHookPath", r#""/opt/hook""#, &[], "- name: NVIDIA_CDI_HOOK_PATH\n              value: \"/opt/hook\""),
    ("cdi.featureFlags", r#""a-flag""#, &[], "- name: CDI_FEATURE_FLAGS\n              value: \"a-flag\""),
    ("mps.enabled", "true", &[], "hostPath: {path: /run/nvidia/mps/shm, type: DirectoryOrCreate}"),
    ("mps.root", r#""/mps-here""#, &["mps.enabled=true"], "- name: MPS_ROOT\n              value: \"/mps-here\""),
    ("mps.enableHostPID", "false", &["mps.enabled=true"], "!hostPID: true"),
    ("gfd.enabled", "false", &[], "- name: LABEL_NODE\n              value: \"false\""),
    ("gfd.noTimestamp", "true", &[], "- name: GFD_NO_TIMESTAMP\n              value: \"true\""),
    ("gfd.sleepInterval", r#""infinite""#, &[], "- name: GFD_SLEEP_INTERVAL\n              value: \"infinite\""),
    ("gfd.useNodeFeatureAPI", "true", &[], "resources: [\"nodefeatures\"]\n    verbs: [\"create\", \"patch\"]"),
    ("image.repository", r#""here/plugin""#, &[], "image: here/plugin:"),
    ("image.pullPolicy", r#""Never""#, &[], "imagePullPolicy: Never"),
    ("image.tag", r#""sha256:1234""#, &[], "stowage-device-plugin@sha256:1234"),
    ("imagePullSecrets", r#"[{"name":"key"}]"#, &[], "imagePullSecrets:\n        - name: key"),
    ("updateStrategy.type", r#""OnDelete""#, &[], "type: OnDelete"),
    ("updateStrategy.rollingUpdate.maxSurge", r#""5%""#, &[], "maxSurge: 5%"),
    ("updateStrategy.rollingUpdate.maxUnavailable", r#""5%""#, NO_SURGE, "maxUnavailable: 5%"),
    ("podAnnotations", r#"{"an":"annotation"}"#, &[], "an: annotation"),
    ("podSecurityContext", r#"{"runAsUser":0,"seLinuxOptions":{"type":"spc_t"}}"#, &[], "type: spc_t"),
    ("securityContext", r#"{"capabilities":{"add":["SYS_ADMIN"]}}"#, &[], "- SYS_ADMIN"),
    ("resources", r#"{"limits":{"memory":"77Mi"}}"#, &[], "memory: 77Mi"),
    ("nodeSelector", r#"{"gpus":"yes"}"#, &[], "nodeSelector:\n        gpus: \"yes\""),
    ("affinity", r#"{"nodeAffinity":null}"#, &[], "!pci-10de.present"),
    ("tolerations", r#"[{"key":"mine","operator":"Exists"}]"#, &[], "key: mine"),
    ("priorityClassName", r#""important""#, &[], "priorityClassName: important"),
    ("runtimeClassName", r#""nvidia""#, &[], "runtimeClassName: nvidia"),
    ("devicePlugin.enabled", "false", &[], "!kind: DaemonSet"),
    ("devicePlugin.kubeletRoot", r#""/var/lib/k0s/kubelet""#, &[], "hostPath: {path: /var/lib/k0s/kubelet/device-plugins, type: Directory}"),
    ("devicePlugin.hostPID", "true", &[], "hostPID: true"),
    ("devicePlugin.standby", "false", &[], "!- name: standby"),
    ("devicePlugin.enableHostNetwork", "true", NO_SURGE, "hostNetwork: true"),
    ("devicePlugin.dcgmMetrics", "false", &[], "- name: DCGM_METRICS\n              value: \"false\""),
    ("devicePlugin.logLevel", r#""debug""#, &[], "- name: LOG_LEVEL\n              value: \"debug\""),
    ("devicePlugin.logFormat", r#""text""#, &[], "- name: LOG_FORMAT\n              value: \"text\""),
    ("devicePlugin.env", r#"{"XID_CLASSES":"74=reset"}"#, &[], "- name: XID_CLASSES\n              value: \"74=reset\""),
    ("scheduler.enabled", "false", &[], "!kind: Deployment"),
    ("scheduler.replicas", "3", &[], "replicas: 3"),
    ("scheduler.podAnnotations", r#"{"an":"annotation"}"#, &[], "an: annotation"),
    ("scheduler.nodeSelector", r#"{"control":"yes"}"#, &[], "nodeSelector:\n        control: \"yes\""),
    ("scheduler.affinity", r#"{"podAntiAffinity":null}"#, &[], "!podAntiAffinity"),
    ("scheduler.tolerations", r#"[{"key":"mine","operator":"Exists"}]"#, &[], "key: mine"),
    ("scheduler.priorityClassName", r#""important""#, &[], "priorityClassName: important"),
    ("scheduler.extender.image.repository", r#""here/extender""#, &[], "image: here/extender:"),
    ("scheduler.extender.image.pullPolicy", r#""Never""#, &[], "imagePullPolicy: Never"),
    ("scheduler.extender.image.tag", r#""v9""#, &[], "stowage-scheduler-extender:v9"),
    ("scheduler.extender.nominate", "true", &[], "name: stowage-scheduler-extender-nominate"),
    ("scheduler.extender.nominationsMax", "1000000", &["scheduler.extender.nominate=true"], "- name: NOMINATIONS_MAX\n              value: \"1000000\""),
    ("scheduler.extender.preemption", "true", &[], "name: stowage-scheduler-extender-preemption"),
    ("scheduler.extender.evictionsPerHour", "5", &["scheduler.extender.preemption=true"], "- name: EVICTIONS_PER_HOUR\n              value: \"5\""),
    ("scheduler.extender.defrag", "true", &[], "name: stowage-scheduler-extender-defrag"),
    ("scheduler.extender.defragMovesPerHour", "3", &["scheduler.extender.defrag=true"], "- name: DEFRAG_MOVES_PER_HOUR\n              value: \"3\""),
    ("scheduler.extender.defragMovesPer100Placements", "2", &["scheduler.extender.defrag=true"], "- name: DEFRAG_MOVES_PER_100_PLACEMENTS\n              value: \"2\""),
    ("scheduler.extender.drainScaleDowns", "true", &[], "name: stowage-scheduler-extender-drain-scale-downs"),
    ("scheduler.extender.deletionCostsPerMinute", "5", &["scheduler.extender.drainScaleDowns=true"], "- name: DELETION_COSTS_PER_MINUTE\n              value: \"5\""),
    ("scheduler.extender.map", r#""network""#, &[], "name: stowage-scheduler-extender-map"),
    ("scheduler.extender.service.enabled", "true", &[], "- name: LEADER_ELECT\n              value: \"true\""),
    ("scheduler.extender.service.clusterIP", r#""10.96.0.94""#, SERVICE, "clusterIP: 10.96.0.94"),
    ("scheduler.extender.service.schedulerNames", r#"["mine","other"]"#, SERVICE, "- name: SCHEDULER_NAMES\n              value: \"mine,other\""),
    ("scheduler.extender.service.allowedClientNames", r#"["mine"]"#, SERVICE, "- name: ALLOWED_CLIENT_NAMES\n              value: \"mine\""),
    ("scheduler.extender.service.secretName", r#""mine""#, SERVICE, "secretName: mine"),
    ("scheduler.extender.service.certManager.enabled", "true", &[SERVICE[0], CERT_MANAGER[2]], "kind: Certificate"),
    ("scheduler.extender.service.certManager.issuerRef", r#"{"name":"my-ca","kind":"ClusterIssuer"}"#, CERT_MANAGER, "kind: ClusterIssuer\n    name: my-ca"),
    ("scheduler.extender.logLevel", r#""debug""#, &[], "- name: LOG_LEVEL\n              value: \"debug\""),
    ("scheduler.extender.logFormat", r#""text""#, &[], "- name: LOG_FORMAT\n              value: text"),
    ("scheduler.extender.resources", r#"{"limits":{"memory":"77Mi"}}"#, &[], "memory: 77Mi"),
    ("scheduler.kubeScheduler.image.repository", r#""here/kube-scheduler""#, &[], "image: here/kube-scheduler:v1.36.1"),
    ("scheduler.kubeScheduler.image.pullPolicy", r#""Never""#, &[], "imagePullPolicy: Never"),
    ("scheduler.kubeScheduler.image.tag", r#""v1.33.5""#, &[], "kube-scheduler:v1.33.5"),
    ("scheduler.kubeScheduler.verbosity", "4", &[], "--v=4"),
    ("scheduler.kubeScheduler.resources", r#"{"limits":{"memory":"77Mi"}}"#, &[], "memory: 77Mi"),
    ("namespaces.scheduler.name", r#""other""#, &[], "system:serviceaccount:other:stowage-scheduler-extender"),
    ("namespaces.scheduler.create", "false", &[], "!pod-security.kubernetes.io/enforce: restricted"),
    ("namespaces.devicePlugin.name", r#""other""#, &[], "system:serviceaccount:other:stowage-device-plugin"),
    ("namespaces.devicePlugin.create", "false", &[], "!pod-security.kubernetes.io/enforce: privileged"),
    ("crds.install", "false", &[], "!kind: CustomResourceDefinition"),
    ("crds.keep", "false", &[], "!helm.sh/resource-policy: keep"),
    ("admissionPolicies.enabled", "false", &[], "!kind: ValidatingAdmissionPolicy"),
    ("schedulerNamePolicy.enabled", "true", &[], "kind: MutatingAdmissionPolicy"),
    ("schedulerNamePolicy.namespaceSelector", r#"{"matchLabels":{"models":"yes"}}"#, &["schedulerNamePolicy.enabled=true"], "models: \"yes\""),
    ("podDisruptionBudget.enabled", "false", &[], "!kind: PodDisruptionBudget"),
    ("networkPolicy.enabled", "false", &[], "!kind: NetworkPolicy"),
    ("networkPolicy.metricsFrom", r#"[{"namespaceSelector":{"matchLabels":{"is":"monitoring"}}}]"#, &[], "is: monitoring"),
    ("networkPolicy.mapFrom", r#"[{"namespaceSelector":{"matchLabels":{"is":"proxy"}}}]"#, &[r#"scheduler.extender.map="network""#], "is: proxy"),
    ("networkPolicy.verbsFrom", r#"[{"ipBlock":{"cidr":"10.0.0.0/30"}}]"#, SERVICE, "cidr: 10.0.0.0/30"),
    ("networkPolicy.egress", r#"[{"ports":[{"port":6443}]}]"#, &[], "policyTypes: [Ingress, Egress]"),
    ("podMonitor.enabled", "true", &[], "kind: PodMonitor"),
    ("podMonitor.interval", r#""7s""#, &["podMonitor.enabled=true"], "interval: 7s"),
    ("podMonitor.additionalLabels", r#"{"release":"prometheus"}"#, &["podMonitor.enabled=true"], "release: prometheus"),
    ("podMonitor.relabelings", r#"[{"targetLabel":"zone"}]"#, &["podMonitor.enabled=true"], "targetLabel: zone"),
    ("serviceMonitor.enabled", "true", &[], "kind: ServiceMonitor"),
    ("serviceMonitor.interval", r#""7s""#, &["serviceMonitor.enabled=true"], "interval: 7s"),
    ("serviceMonitor.additionalLabels", r#"{"release":"prometheus"}"#, &["serviceMonitor.enabled=true"], "release: prometheus"),
    ("serviceMonitor.relabelings", r#"[{"targetLabel":"zone"}]"#, &["serviceMonitor.enabled=true"], "targetLabel: zone"),
];

/// Values that change what is made of files that a chart may have: `observability.rs` has them.
pub const OF_FILES: [&str; 5] = [
    "prometheusRule.enabled",
    "prometheusRule.additionalLabels",
    "dashboards.enabled",
    "dashboards.labels",
    "dashboards.annotations",
];

#[test]
fn the_table_names_every_value() {
    let documented: BTreeSet<String> = values::all().into_iter().map(|setting| setting.path).collect();
    let tested = TABLE.iter().map(|row| row.0).chain(OF_FILES);
    let tested: BTreeSet<String> = tested.map(str::to_owned).collect();
    let untested: Vec<_> = documented.difference(&tested).collect();
    let gone: Vec<_> = tested.difference(&documented).collect();
    assert!(
        untested.is_empty() && gone.is_empty(),
        "without a row: {untested:?}; not in values.yaml: {gone:?}"
    );
}

#[test]
fn every_value_changes_what_it_is_about() {
    let mut wrong = Vec::new();
    let mut rendered = BTreeMap::new();
    for (path, to, besides, text) in TABLE {
        let before = rendered.entry(besides).or_insert_with(|| render(besides)).clone();
        let changed = format!("{path}={to}");
        let after = render(&besides.iter().copied().chain([changed.as_str()]).collect::<Vec<_>>());
        let (without, with, text) = match text.strip_prefix('!') {
            Some(text) => (after, before, text),
            None => (before, after, *text),
        };
        if !with.contains(text) || without.contains(text) {
            wrong.push(format!("{changed} with {besides:?}: {text}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
