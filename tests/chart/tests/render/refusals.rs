//! What the chart refuses: combinations that cannot work, and values that its schema does not know.

use stowage_chart_tests::{files, helm};

use super::{render, set};

/// Renders with these values, which must be refused, and gives what helm says.
#[track_caller]
fn refused(values: &[&str], more: &[&str]) -> String {
    match helm::template(&files::chart(), set(values).chain(more.iter().copied())) {
        Ok(_) => panic!("{values:?} is not refused"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn combinations_that_cannot_work_are_refused_with_a_sentence() {
    let cdi = r#"config.map={"a":"flags: {plugin: {deviceListStrategy: [envvar, cdi-cri]}}"}"#;
    let mps = r#"config.map={"a":"sharing: {mps: {resources: []}, timeSlicing: {}}"}"#;
    let service = "scheduler.extender.service.enabled=true";
    let on_demand = r#"migStrategy="on-demand""#;
    let cases: &[(&[&str], &str)] = &[
        (&["devicePlugin.enabled=false", "scheduler.enabled=false"], "nothing is left to install"),
        (&[r#"namespaces.devicePlugin.name="stowage-system""#], "the plugin needs host paths"),
        (&[r#"config.name="mine""#, r#"config.map={"a":"version: v1"}"#], "use one ConfigMap or the other"),
        (
            &[r#"config.default="a""#],
            "config.default is a: there is no configuration of that name in config.map",
        ),
        (&[r#"config.map={"a":"flags: {"}"#], "config.map.a is not YAML"),
        (&[r#"deviceListStrategy="envvar,cdi-annotations""#], "set nvidiaDriverRoot to /"),
        (&[cdi], "set nvidiaDriverRoot to /"),
        (&[r#"migStaticGPUs=["0"]"#], "with migStrategy on-demand only"),
        (&[on_demand, r#"deviceIDStrategy="index""#], "use uuid"),
        (
            &[r#"config.map={"a":"flags: {migStrategy: on-demand}"}"#, r#"deviceIDStrategy="index""#],
            "use uuid",
        ),
        (&[mps], "config.map.a shares GPUs by MPS: set mps.enabled"),
        (&["mps.enabled=true", on_demand], "mps.enabled does not go with migStrategy on-demand"),
        (&["mps.enabled=true", "elasticGPUs=true"], "mps.enabled does not go with elasticGPUs"),
        (
            &["mps.enabled=true", r#"updateStrategy.type="RollingUpdate""#],
            "set updateStrategy.type to OnDelete, and after an upgrade drain node by node",
        ),
        (&["updateStrategy.rollingUpdate.maxUnavailable=1"], "one of maxSurge and maxUnavailable must be 0"),
        (&["updateStrategy.rollingUpdate.maxSurge=\"0%\""], "one of maxSurge and maxUnavailable must be 0"),
        (&["devicePlugin.enableHostNetwork=true"], "two plugins cannot have one port of the host"),
        (&["podMonitor.enabled=true", "serviceMonitor.enabled=true"], "every pod would be scraped twice"),
        (&[service, "scheduler.enabled=false"], "there would be no extender behind the Service"),
        (
            &[service, "scheduler.extender.service.schedulerNames=[]"],
            "name the profiles of your kube-scheduler",
        ),
        (
            &[service, r#"scheduler.extender.service.secretName="""#],
            "never served to the network without TLS",
        ),
        (&["scheduler.extender.service.certManager.enabled=true"], "service.enabled only: leave it out"),
        (&[service, "scheduler.extender.service.certManager.enabled=true"], "wants to know who signs"),
        (&["schedulerNamePolicy.enabled=true", "scheduler.enabled=false"], "a scheduler that is not there"),
        (&[r#"devicePlugin.env={"LOG_LEVEL":"debug"}"#], "devicePlugin.env.LOG_LEVEL is the chart's to set"),
        (
            &[r#"devicePlugin.env={"HTTP_ADDRESS":"[::]:1"}"#],
            "devicePlugin.env.HTTP_ADDRESS is the chart's to set",
        ),
    ];
    for (values, sentence) in cases {
        let said = refused(values, &[]);
        assert!(said.contains(sentence), "{values:?}: {said}");
    }
    let said = refused(&["schedulerNamePolicy.enabled=true"], &["--kube-version", "1.33.4"]);
    assert!(said.contains("needs Kubernetes 1.34 or newer"), "{said}");
}

/// What files of a ConfigMap that is there already say is not known: nothing is refused for it.
#[test]
fn a_configmap_of_ones_own_is_left_to_the_plugin_to_judge() {
    let text = render(&[r#"config.name="mine""#, r#"config.default="a""#]);
    assert!(text.contains("path: /var/run/cdi") && text.contains("resources: [\"nodefeatures\"]"), "{text}");
}

#[test]
fn kubernetes_versions_that_are_not_tested_are_refused() {
    for version in ["1.32.9", "1.38.0"] {
        let said = refused(&[], &["--kube-version", version]);
        assert!(said.contains("incompatible with Kubernetes"), "{said}");
    }
    // A managed API server's version has a tail that no image has.
    let managed = helm::template(&files::chart(), ["--kube-version", "v1.33.5-gke.1080000"]).unwrap();
    assert!(managed.contains("image: registry.k8s.io/kube-scheduler:v1.33.5\n"));
}

#[test]
fn the_schema_refuses_what_it_does_not_know_and_wrong_types() {
    for value in [
        "migStratgy=\"none\"",
        "devicePlugin.hostPid=true",
        "updateStrategy.rollingUpdate.maxsurge=1",
        "migStrategy=\"mixd\"",
        "migStrategy=3",
        "failOnInitError=\"true\"",
        "deviceListStrategy=\"envvar;cdi-cri\"",
        "deviceListStrategy=[\"cdi\"]",
        "config.map=[]",
        "config.map={\"a\":{\"version\":\"v1\"}}",
        "config.fallbackStrategies=[\"none\"]",
        "scheduler.replicas=0",
        "scheduler.replicas=\"two\"",
        "tolerations=[\"nvidia.com/gpu\"]",
        "podAnnotations={\"a\":1}",
        "image.pullPolicy=\"Sometimes\"",
    ] {
        let said = refused(&[value], &[]);
        assert!(said.contains("values don't meet the specifications of the schema"), "{value}: {said}");
    }
}

/// What people have said to NVIDIA's chart goes on to mean the same.
#[test]
fn values_for_nvidias_chart_are_taken() {
    let values = "\
config: {map: {default: \"version: v1\", shared: \"version: v1\"}, default: shared, fallbackStrategies: [named, single]}
compatWithCPUManager: true
migStrategy: mixed
failOnInitError: false
deviceListStrategy: envvar,cdi-annotations
deviceIDStrategy: uuid
nvidiaDriverRoot: /run/nvidia/driver
gdrcopyEnabled: false
image: {pullPolicy: Always}
updateStrategy: {type: RollingUpdate}
runtimeClassName: nvidia
gfd: {enabled: true, sleepInterval: 30s}
mps: {root: /run/nvidia/mps}
cdi: {nvidiaHookPath: /usr/bin/nvidia-cdi-hook}
tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), values).unwrap();
    let rendered = helm::template(&files::chart(), ["--values", file.path().to_str().unwrap()]).unwrap();
    for text in [
        "value: \"envvar,cdi-annotations\"",
        "runtimeClassName: nvidia",
        "value: \"mixed\"",
        "value: \"shared\"",
    ] {
        assert!(rendered.contains(text), "{text}");
    }
}
