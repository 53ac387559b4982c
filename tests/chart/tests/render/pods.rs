//! What the pods may do, and that the programs know what they are told.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stowage_chart_tests::{files, helm};

use super::{find, render};

/// Everything that gives a program more to do.
const EVERYTHING: [&str; 13] = [
    r#"migStrategy="on-demand""#,
    r#"deviceListStrategy="cdi-cri""#,
    r#"nvidiaDriverRoot="/""#,
    r#"migStaticGPUs=["0"]"#,
    "elasticGPUs=true",
    r#"config.map={"a":"version: v1"}"#,
    r#"config.default="a""#,
    r#"gfd={"noTimestamp":true,"sleepInterval":"60s","useNodeFeatureAPI":true}"#,
    r#"cdi={"nvidiaHookPath":"/hook","featureFlags":"a"}"#,
    "scheduler.extender.nominate=true",
    "scheduler.extender.preemption=true",
    "scheduler.extender.defrag=true",
    "scheduler.extender.drainScaleDowns=true",
];

/// The extender for a kube-scheduler elsewhere.
const SERVICE: [&str; 1] = ["scheduler.extender.service.enabled=true"];

fn pod(values: &[&str], kind: &str, name: &str) -> Value {
    let objects = helm::objects(&render(values)).unwrap();
    find(&objects, kind, name)["spec"]["template"]["spec"].clone()
}

fn plugin(values: &[&str]) -> Value {
    pod(values, "DaemonSet", "stowage-device-plugin")
}

fn scheduler(values: &[&str]) -> Value {
    pod(values, "Deployment", "stowage-scheduler")
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|kind| pod[kind].as_array().into_iter().flatten())
}

/// What the level `restricted` of Pod Security forbids, rule by rule, as Kubernetes's documentation lists them.
fn broken_rules(pod: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let mut rule = |holds: bool, name: &str| {
        if !holds {
            broken.push(name.to_owned());
        }
    };
    let absent_or = |value: &Value, allowed: &[Value]| value.is_null() || allowed.contains(value);
    let of_pod = &pod["securityContext"];
    // The level `baseline`.
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        rule(absent_or(&pod[host], &[json!(false)]), host);
    }
    rule(of_pod["windowsOptions"].is_null() && of_pod["sysctls"].is_null(), "sysctls, Windows");
    rule(of_pod["appArmorProfile"].is_null() && of_pod["seLinuxOptions"].is_null(), "AppArmor, SELinux");
    // Which kinds of volumes there may be.
    let kinds = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let kind = volume.as_object().unwrap().keys().find(|key| *key != "name").unwrap();
        rule(kinds.contains(&kind.as_str()), "volume types");
    }
    rule(of_pod["runAsUser"] != json!(0), "runAsUser");
    for container in containers(pod) {
        let of_container = &container["securityContext"];
        let either = |key: &str| if of_container[key].is_null() { &of_pod[key] } else { &of_container[key] };
        rule(absent_or(&of_container["privileged"], &[json!(false)]), "privileged");
        rule(of_container["capabilities"]["drop"] == json!(["ALL"]), "capabilities are dropped");
        rule(
            absent_or(&of_container["capabilities"]["add"], &[json!([]), json!(["NET_BIND_SERVICE"])]),
            "capabilities",
        );
        rule(of_container["allowPrivilegeEscalation"] == json!(false), "allowPrivilegeEscalation");
        rule(absent_or(&of_container["procMount"], &[json!("Default")]), "procMount");
        rule(*either("runAsNonRoot") == json!(true), "runAsNonRoot");
        rule(*either("runAsUser") != json!(0), "runAsUser of a container");
        let seccomp = &either("seccompProfile")["type"];
        rule([json!("RuntimeDefault"), json!("Localhost")].contains(seccomp), "seccompProfile");
        for port in container["ports"].as_array().into_iter().flatten() {
            rule(absent_or(&port["hostPort"], &[json!(0)]), "hostPort");
        }
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            rule(container[probe]["httpGet"]["host"].is_null(), "a probe's host");
        }
    }
    broken
}

#[test]
fn the_schedulers_pod_passes_restricted() {
    for values in [&[][..], &EVERYTHING, &SERVICE] {
        assert_eq!(broken_rules(&scheduler(values)), Vec::<String>::new());
    }
    // The rules find something where there is something: the plugin has host paths and is root.
    assert_eq!(
        broken_rules(&plugin(&["devicePlugin.standby=false"])),
        ["volume types", "volume types", "runAsUser", "runAsNonRoot", "runAsUser of a container"]
    );
}

#[test]
fn no_container_is_privileged_and_each_is_probed_and_cannot_write_its_root() {
    for values in [&[][..], &EVERYTHING, &["mps.enabled=true"], &SERVICE] {
        for pod in [plugin(values), scheduler(values)] {
            for container in containers(&pod) {
                let may = &container["securityContext"];
                assert!(may["privileged"].is_null(), "{container}");
                assert_eq!(may["allowPrivilegeEscalation"], false);
                assert_eq!(may["readOnlyRootFilesystem"], true);
                assert_eq!(may["capabilities"]["drop"], json!(["ALL"]));
                assert!(container["livenessProbe"].is_object() && container["readinessProbe"].is_object());
                assert!(container["resources"]["requests"].is_object(), "{container}");
            }
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        }
    }
}

#[test]
fn capabilities_are_added_for_mig_volume_mounts_and_mps_only() {
    let added =
        |values: &[&str]| plugin(values)["containers"][0]["securityContext"]["capabilities"]["add"].clone();
    assert_eq!(added(&[]), Value::Null);
    assert_eq!(
        added(&[r#"migStrategy="none""#, r#"config.map={"a":"flags: {migStrategy: mixed}"}"#]),
        Value::Null
    );
    for values in [
        &[r#"migStrategy="single""#][..],
        &[r#"migStrategy="on-demand""#],
        &[r#"config.map={"a":"version: v1","b":"flags: {migStrategy: on-demand}"}"#],
        // A toolkit that gives GPUs by volume mounts is usually told to ignore NVIDIA_VISIBLE_DEVICES in other containers, and the
        // plugin got none (NVIDIA/k8s-device-plugin#856).
        &[r#"deviceListStrategy="volume-mounts""#],
        &[r#"deviceListStrategy=["envvar","volume-mounts"]"#],
        &[r#"config.map={"a":"version: v1","b":"flags: {plugin: {deviceListStrategy: volume-mounts}}"}"#],
        &[r#"config.map={"a":"flags: {plugin: {deviceListStrategy: [envvar, volume-mounts]}}"}"#],
        &[r#"migStrategy="mixed""#, r#"deviceListStrategy="volume-mounts""#],
    ] {
        assert_eq!(added(values), json!(["SYS_ADMIN"]), "{values:?}");
    }
    // A value goes before the files.
    let of_files = r#"config.map={"a":"flags: {plugin: {deviceListStrategy: volume-mounts}}"}"#;
    assert_eq!(added(&[r#"deviceListStrategy="envvar""#, of_files]), Value::Null);
    let mps = ["mps.enabled=true", r#"deviceListStrategy="volume-mounts""#];
    assert_eq!(added(&mps[..1]), json!(["SYS_ADMIN", "SETUID", "SETGID"]));
    assert_eq!(added(&mps), json!(["SYS_ADMIN", "SETUID", "SETGID"]));
}

/// As `docs/helm.md` says it.
#[test]
fn what_the_chart_cannot_know_of_ones_own_files_is_given_by_hand() {
    let by_hand = plugin(&[
        r#"config.name="mine""#,
        r#"securityContext={"capabilities":{"add":["SYS_ADMIN"]}}"#,
        r#"devicePlugin.env={"NVIDIA_MIG_MONITOR_DEVICES":"all","NVIDIA_MIG_CONFIG_DEVICES":"all"}"#,
    ]);
    let env = by_hand["containers"][0]["env"].as_array().unwrap();
    for name in ["NVIDIA_MIG_MONITOR_DEVICES", "NVIDIA_MIG_CONFIG_DEVICES"] {
        let set: Vec<&Value> = env.iter().filter(|variable| variable["name"] == name).collect();
        assert_eq!(set, [&json!({"name": name, "value": "all"})]);
    }
    let may = &by_hand["containers"][0]["securityContext"];
    assert_eq!(may["capabilities"], json!({"add": ["SYS_ADMIN"], "drop": ["ALL"]}));
    assert_eq!(may["readOnlyRootFilesystem"], true);
}

/// MPS's daemons run in the plugin's container, so each pod that a rollout replaces would end programs of others.
#[test]
fn under_mps_no_upgrade_replaces_a_plugin_by_itself() {
    let strategy = |values: &[&str]| {
        let objects = helm::objects(&render(values)).unwrap();
        find(&objects, "DaemonSet", "stowage-device-plugin")["spec"]["updateStrategy"].clone()
    };
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    assert_eq!(strategy(&[]), rolling);
    assert_eq!(strategy(&[r#"updateStrategy.type="RollingUpdate""#]), rolling);
    for values in [
        &["mps.enabled=true"][..],
        &["mps.enabled=true", "devicePlugin.enableHostNetwork=true"],
        &["mps.enabled=true", r#"updateStrategy.type="OnDelete""#],
    ] {
        assert_eq!(strategy(values), json!({"type": "OnDelete"}), "{values:?}");
    }
}

#[test]
fn the_plugin_sees_no_more_of_the_host_than_it_needs() {
    let paths = |values: &[&str]| -> BTreeSet<String> {
        let plugin = plugin(values);
        let volumes = plugin["volumes"].as_array().unwrap().iter();
        volumes.filter_map(|volume| volume["hostPath"]["path"].as_str().map(str::to_owned)).collect()
    };
    let always = ["/var/lib/kubelet/device-plugins", "/var/lib/kubelet/pod-resources"];
    let with =
        |more: &[&str]| always.iter().chain(more).map(|path| (*path).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(paths(&[]), with(&[]));
    assert_eq!(
        paths(&[r#"nvidiaDriverRoot="/""#, r#"deviceListStrategy="cdi-cri""#]),
        with(&["/", "/var/run/cdi"])
    );
    assert_eq!(paths(&["mps.enabled=true"]), with(&["/run/nvidia/mps", "/run/nvidia/mps/shm"]));
    // What is mounted is a volume, and the other way round.
    for pod in
        [plugin(&EVERYTHING), plugin(&["mps.enabled=true"]), scheduler(&EVERYTHING), scheduler(&SERVICE)]
    {
        let names = |list: &Value| -> BTreeSet<String> {
            list.as_array()
                .into_iter()
                .flatten()
                .map(|one| one["name"].as_str().unwrap().to_owned())
                .collect()
        };
        let mounts = containers(&pod).flat_map(|container| names(&container["volumeMounts"]));
        assert_eq!(mounts.collect::<BTreeSet<_>>(), names(&pod["volumes"]));
    }
}

/// `docs/options.md` is made from the programs' own tables, and tested to be fresh.
#[test]
fn the_programs_know_every_variable_that_they_are_given() {
    let page = files::read("docs/options.md");
    let (plugins, extenders) = page.split_once("## The scheduler extender").unwrap();
    let for_nvidias_runtime = |name: &str| {
        [
            "NVIDIA_VISIBLE_DEVICES",
            "NVIDIA_DRIVER_CAPABILITIES",
            "NVIDIA_MIG_MONITOR_DEVICES",
            "NVIDIA_MIG_CONFIG_DEVICES",
        ]
        .contains(&name)
    };
    for (pod, known) in [
        (plugin(&EVERYTHING), plugins),
        (
            plugin(&[
                "mps.enabled=true",
                "compatWithCPUManager=true",
                "failOnInitError=true",
                "gdrcopyEnabled=true",
            ]),
            plugins,
        ),
        (
            plugin(&[
                "gdsEnabled=true",
                "mofedEnabled=true",
                r#"nvidiaDevRoot="/""#,
                r#"deviceIDStrategy="uuid""#,
            ]),
            plugins,
        ),
        (
            plugin(&[r#"deviceDiscoveryStrategy="nvml""#, r#"sharedDevicesAllocationPolicy="packed""#]),
            plugins,
        ),
        (scheduler(&EVERYTHING), extenders),
        (scheduler(&SERVICE), extenders),
    ] {
        for variable in pod["containers"][0]["env"].as_array().unwrap() {
            let name = variable["name"].as_str().unwrap();
            assert!(known.contains(&format!("`{name}`")) || for_nvidias_runtime(name), "nobody knows {name}");
        }
    }
}

#[test]
fn kube_scheduler_and_the_extender_meet_where_the_configuration_says() {
    let objects = helm::objects(&render(&[])).unwrap();
    let configuration =
        &find(&objects, "ConfigMap", "stowage-kube-scheduler")["data"]["kube-scheduler-config.yaml"];
    let source = files::read("deploy/scheduler/kube-scheduler-config.yaml");
    assert_eq!(configuration.as_str().unwrap().trim_end(), source.trim_end());
    let elsewhere = helm::objects(&render(&[r#"namespaces.scheduler.name="other""#])).unwrap();
    let text = &find(&elsewhere, "ConfigMap", "stowage-kube-scheduler")["data"]["kube-scheduler-config.yaml"];
    assert!(text.as_str().unwrap().contains("resourceNamespace: other\n"));
}

#[test]
fn behind_a_service_the_extender_is_alone_speaks_tls_and_has_no_rights_of_a_kube_scheduler() {
    let text = render(&SERVICE);
    let objects = helm::objects(&text).unwrap();
    let pod = scheduler(&SERVICE);
    let containers: Vec<_> = containers(&pod).collect();
    assert_eq!(containers.len(), 1);
    let env = containers[0]["env"].as_array().unwrap();
    let set = |name: &str| {
        let found = env.iter().find(|variable| variable["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not set"))["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(set("VERB_ADDRESS"), "0.0.0.0:9412");
    assert_eq!(set("ALLOWED_CLIENT_NAMES"), "system:kube-scheduler");
    assert_eq!(set("SCHEDULER_NAMES"), "default-scheduler,stowage-scheduler");
    let mount = containers[0]["volumeMounts"][0]["mountPath"].as_str().unwrap();
    for (name, key) in
        [("TLS_CERT_FILE", "tls.crt"), ("TLS_PRIVATE_KEY_FILE", "tls.key"), ("CLIENT_CA_FILE", "ca.crt")]
    {
        assert_eq!(set(name), format!("{mount}/{key}"));
    }
    // It leads to the pods that there are, on the port that they have, and one that is drained is not missed for ever.
    let service = find(&objects, "Service", "stowage-scheduler-extender");
    let deployment = find(&objects, "Deployment", "stowage-scheduler");
    assert_eq!(service["spec"]["selector"], deployment["spec"]["selector"]["matchLabels"]);
    assert_eq!(service["spec"]["ports"][0]["targetPort"], containers[0]["ports"][1]["name"]);
    assert!(!text.contains("kind: PodDisruptionBudget"), "one ready pod of two would never be let go");
    assert!(text.contains("port: 9412"), "the network policy lets kube-scheduler in");
    assert!(!text.contains("system:kube-scheduler\n") && !text.contains("stowage-kube-scheduler"), "{text}");
    find(&objects, "Role", "stowage-scheduler-extender-lease");
    // And in the usual topology nothing of all that.
    let usual = render(&[]);
    assert!(!usual.contains("port: 9412") && !usual.contains("LEADER_ELECT") && !usual.contains("TLS_"));
}

#[test]
fn the_map_is_on_the_loopback_unless_it_is_asked_for_elsewhere() {
    let address = |values: &[&str]| -> Option<String> {
        let pod = scheduler(values);
        let extender = containers(&pod).find(|container| container["name"] == "extender").unwrap().clone();
        let env = extender["env"].as_array().unwrap();
        let set = env.iter().find(|variable| variable["name"] == "MAP_ADDRESS")?;
        Some(set["value"].as_str().unwrap().to_owned())
    };
    assert_eq!(address(&[]).as_deref(), Some("127.0.0.1:9413"));
    assert_eq!(address(&[r#"scheduler.extender.map="none""#]), None, "the program's own default is off");
    let network = [r#"scheduler.extender.map="network""#];
    assert_eq!(address(&network).as_deref(), Some("0.0.0.0:9413"));
    let all = render(&network);
    assert!(all.contains("kind: Service\n") && all.contains("port: 9413"), "a Service and a rule for it");
    assert!(!render(&[]).contains("port: 9413"));
}
