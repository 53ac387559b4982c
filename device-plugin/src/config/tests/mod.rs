mod refused;
mod sharing;

use std::fs;
use std::time::Duration;

use super::*;

/// Loads a configuration from flags, environment (`NAME=value`) and a file's text.
fn config(flags: &[&str], env: &[&str], file: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    fs::write(&path, file).unwrap();
    let mut line = vec!["stowage-device-plugin", "--node-name", "n1"];
    line.extend(flags);
    let path = path.display().to_string();
    if !file.is_empty() {
        line.extend(["--config-file", &path]);
    }
    let matches = arguments().try_get_matches_from(line).map_err(|error| error.to_string())?;
    let env = |name: &str| {
        env.iter()
            .filter_map(|pair| pair.split_once('='))
            .find(|(known, _)| *known == name)
            .map(|(_, v)| v.to_owned())
    };
    load(&matches, env).map_err(|error| format!("{error}").replace(&path, "FILE"))
}

#[track_caller]
fn refused(flags: &[&str], env: &[&str], file: &str, want: &str) {
    let error = config(flags, env, file).expect_err("a refusal");
    assert!(error.contains(want), "wanted: {want}\n   got: {error}");
}

#[test]
fn nothing_given_means_nvidias_defaults() {
    let config = config(&[], &[], "").unwrap();
    assert_eq!(config.mig_strategy, MigStrategy::None);
    assert_eq!(config.device_id_strategy, DeviceIdStrategy::Uuid);
    assert!(config.fail_on_init_error && !config.pass_device_specs && config.kubernetes);
    assert_eq!(config.container_driver_root.to_str(), Some("/driver-root"));
    assert_eq!(config.dev_root.to_str(), Some("/"));
    assert_eq!(config.kubelet_socket.to_str(), Some("/var/lib/kubelet/device-plugins/kubelet.sock"));
    assert_eq!(config.http_address.to_string(), "0.0.0.0:9410");
    assert_eq!(config.sharing, None);
    assert_eq!(config.allocation_policy, AllocationPolicy::Distributed);
    assert_eq!(config.cdi.folder.to_str(), Some("/var/run/cdi"));
    assert_eq!(config.cdi.hook.to_str(), Some("/usr/bin/nvidia-ctk"));
}

#[test]
fn flags_come_before_the_environment_and_that_before_the_file() {
    let file = "version: v1\nflags: {migStrategy: single, plugin: {deviceIDStrategy: index}}\n";
    let strategy = |flags: &[&str], env: &[&str]| config(flags, env, file).unwrap().mig_strategy;
    assert_eq!(strategy(&["--mig-strategy", "none"], &["MIG_STRATEGY=mixed"]), MigStrategy::None);
    assert_eq!(strategy(&[], &["MIG_STRATEGY=mixed"]), MigStrategy::Mixed);
    assert_eq!(strategy(&[], &["MIG_STRATEGY="]), MigStrategy::Single);
    assert_eq!(config(&[], &[], file).unwrap().device_id_strategy, DeviceIdStrategy::Index);
}

#[test]
fn aliases_and_second_environment_names_are_nvidias() {
    let root = |flags: &[&str], env: &[&str]| config(flags, env, "").unwrap().container_driver_root;
    assert_eq!(root(&["--container-driver-root", "/a"], &[]).to_str(), Some("/a"));
    assert_eq!(root(&[], &["CONTAINER_DRIVER_ROOT=/b"]).to_str(), Some("/b"));
    assert_eq!(root(&[], &["CONTAINER_DRIVER_ROOT=/b", "DRIVER_ROOT_CTR_PATH=/c"]).to_str(), Some("/c"));
    let dev = config(&["--nvidia-driver-root=/run/nvidia/driver"], &[], "").unwrap().dev_root;
    assert_eq!(dev.to_str(), Some("/run/nvidia/driver"), "the device root follows the driver root");
}

#[test]
fn switches_are_go_booleans_and_stand_for_true_by_themselves() {
    let specs = |flags: &[&str], env: &[&str]| config(flags, env, "").unwrap().pass_device_specs;
    assert!(specs(&["--pass-device-specs"], &[]));
    assert!(specs(&["--pass-device-specs=T"], &[]) && specs(&[], &["PASS_DEVICE_SPECS=1"]));
    assert!(!specs(&["--pass-device-specs=false"], &["PASS_DEVICE_SPECS=true"]));
}

/// The defaults that NVIDIA's plugin prints of its own configuration at start.
#[test]
fn a_file_that_spells_nvidias_defaults_out_is_accepted() {
    let file = r#"{"version": "v1",
        "flags": {"migStrategy": "none", "failOnInitError": true, "mpsRoot": "/run/nvidia/mps", "nvidiaDriverRoot": "/",
            "nvidiaDevRoot": "/", "gdrcopyEnabled": false, "gdsEnabled": false, "mofedEnabled": false,
            "useNodeFeatureAPI": null, "deviceDiscoveryStrategy": "auto",
            "plugin": {"passDeviceSpecs": false, "deviceListStrategy": ["envvar"], "deviceIDStrategy": "uuid",
                "cdiAnnotationPrefix": "cdi.k8s.io/", "nvidiaCTKPath": "/usr/bin/nvidia-ctk",
                "containerDriverRoot": "/driver-root"}},
        "resources": {"gpus": [{"pattern": "*", "name": "nvidia.com/gpu"}]},
        "sharing": {"timeSlicing": {}}, "imex": {}}"#;
    let config = config(&[], &["DP_DISABLE_HEALTHCHECKS=all"], file).unwrap();
    assert_eq!(config.sharing, Some(Sharing::default()));
}

#[test]
fn device_list_strategies_are_one_or_several() {
    use DeviceListStrategy::{CdiAnnotations, CdiCri, EnvVar, VolumeMounts};
    let strategies = |flags: &[&str], env: &[&str], file: &str| {
        config(flags, env, file).unwrap().device_list_strategies.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(strategies(&[], &[], ""), [EnvVar]);
    assert_eq!(strategies(&[], &["DEVICE_LIST_STRATEGY=envvar, cdi-cri"], ""), [EnvVar, CdiCri]);
    let twice = ["--device-list-strategy=volume-mounts", "--device-list-strategy=cdi-annotations"];
    assert_eq!(strategies(&twice, &[], ""), [VolumeMounts, CdiAnnotations]);
    assert_eq!(strategies(&[], &[], "flags: {plugin: {deviceListStrategy: volume-mounts}}"), [VolumeMounts]);
    assert_eq!(
        strategies(&[], &[], "flags: {plugin: {deviceListStrategy: [cdi-cri, envvar]}}"),
        [EnvVar, CdiCri]
    );
}

#[test]
fn extras_and_imex_channels_are_read_from_wherever_they_stand() {
    let both = config(&["--gds-enabled"], &["MOFED_ENABLED=true"], "imex: {channelIDs: [0], required: true}")
        .unwrap();
    assert_eq!(both.extras, [Extra::Gds, Extra::Mofed].into());
    assert_eq!(both.imex, Imex { channels: vec![0], required: true });
    let none =
        config(&["--imex-channel-ids="], &[], "imex: {channelIDs: [0]}\nflags: {gdrcopyEnabled: true}")
            .unwrap();
    assert_eq!((none.imex.channels, none.extras), (vec![], [Extra::GdrCopy].into()));
}

#[test]
fn resources_are_named_as_the_file_says() {
    let file = "
resources:
  gpus: [{pattern: '*A100*', name: a100}]
  mig: [{pattern: '1g.*', name: nvidia.com/small}]
sharing: {timeSlicing: {resources: [{name: a100, replicas: 2}]}}
";
    let config = config(&[], &[], file).unwrap();
    let named =
        |patterns: &[NamePattern], text: &str| ResourceNames::of(patterns, text).map(ToString::to_string);
    let names = &config.names;
    assert_eq!(named(&names.gpus, "NVIDIA A100-SXM4-40GB").as_deref(), Some("nvidia.com/a100"));
    assert_eq!(named(&names.gpus, "NVIDIA L4"), None);
    assert_eq!(named(&names.mig, "1g.5gb+me").as_deref(), Some("nvidia.com/small"));
    for (file, want) in [
        (
            "resources: {gpus: [{pattern: '*'}]}",
            "resources.gpus[0].name is null (FILE): a text is wanted here",
        ),
        (
            "resources: {gpus: [{pattern: '*', name: amd.com/gpu}]}",
            "resources.gpus[0].name is \"amd.com/gpu\"",
        ),
        ("resources: {mig: [x]}", "resources.mig[0] is \"x\" (FILE): a map of keys is wanted here"),
        ("resources: {mig: [{pattern: x, name: y, z: 1}]}", "resources.mig[0].z is 1 (FILE): no such key"),
    ] {
        refused(&[], &[], file, want);
    }
}

#[test]
fn health_is_configured_by_nvidias_names_and_ours() {
    let health = |flags: &[&str], env: &[&str]| config(flags, env, "").unwrap().health;
    let usual = health(&[], &[]);
    assert_eq!((usual.period, usual.call_limit), (Duration::from_secs(5), Duration::from_secs(10)));
    assert!(usual.rules.counts(79) && !usual.rules.counts(13) && usual.rules.memory_counts());
    let told = health(
        &[
            "--nvml-period=1m",
            "--nvml-call-limit=500ms",
            "--xid-classes=79=information",
            "--xid-classes=31=fatal",
        ],
        &["DP_ENABLE_HEALTHCHECKS=13", "HEALTH_QUIET_TIME=2s"],
    );
    assert_eq!((told.period, told.call_limit), (Duration::from_secs(60), Duration::from_millis(500)));
    assert_eq!(told.rules.quiet, Duration::from_secs(2));
    assert_eq!([79, 13, 31].map(|xid| told.rules.counts(xid)), [false, true, true]);
    refused(
        &[],
        &["DP_DISABLE_HEALTHCHECKS=xid"],
        "",
        "\"xid\" is neither all, xids nor the number of an XID",
    );
    refused(&["--xid-classes=79"], &[], "", "\"79\" is no class of an XID: write 74=contained");
    refused(&["--nvml-period=1ms"], &[], "", "use a time from 100ms to 1h, such as 10s");
}
