use std::fs;

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
    assert_eq!(config.time_slicing, None);
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
    assert_eq!(config.time_slicing, Some(TimeSlicing::default()));
}

#[test]
fn time_slicing_is_read() {
    let file = "
version: v1
sharing:
  timeSlicing:
    renameByDefault: true
    failRequestsGreaterThanOne: true
    resources:
      - {name: nvidia.com/gpu, replicas: 4}
      - {name: mig-1g.5gb, replicas: 2, devices: all, rename: nvidia.com/mig-1g.5gb.shared}
";
    let sharing = config(&[], &[], file).unwrap().time_slicing.unwrap();
    assert!(sharing.rename_by_default && sharing.fail_requests_greater_than_one);
    let replicas: Vec<_> = sharing.replicas.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!(replicas, [("nvidia.com/gpu", 4), ("nvidia.com/mig-1g.5gb", 2)]);
}

#[test]
fn a_wrong_value_says_key_value_place_and_cure() {
    for (flags, env, file, want) in [
        (
            &["--mig-strategy=mixd"][..],
            &[][..],
            "",
            r#"flags.migStrategy is "mixd" (--mig-strategy): use none, single or mixed"#,
        ),
        (
            &[],
            &["MIG_STRATEGY=x"],
            "",
            r#"flags.migStrategy is "x" (environment variable MIG_STRATEGY): use none, single or mixed"#,
        ),
        (
            &[],
            &[],
            "flags: {migStrategy: 3}",
            r#"flags.migStrategy is "3" (FILE): use none, single or mixed"#,
        ),
        (
            &[],
            &[],
            "flags: {failOnInitError: maybe}",
            r#"flags.failOnInitError is "maybe" (FILE): use true or false"#,
        ),
        (&[], &[], "flags: {plugin: {deviceIDStrategy: name}}", "use uuid or index"),
        (
            &[],
            &["DEVICE_LIST_STRATEGY=cdi-cri"],
            "",
            r#"flags.plugin.deviceListStrategy is "cdi-cri" (environment variable DEVICE_LIST_STRATEGY): it is not supported yet: use envvar"#,
        ),
        (&["--device-list-strategy=envvar,what"], &[], "", "use envvar"),
        (
            &["--kubelet-socket", "kubelet.sock"],
            &[],
            "",
            r#"kubelet-socket is "kubelet.sock" (--kubelet-socket): use an absolute path"#,
        ),
        (&["--kubelet-socket", ""], &[], "", "use an absolute path"),
        (
            &["--http-address", "9410"],
            &[],
            "",
            r#"http-address is "9410" (--http-address): use an address and a port, such as 0.0.0.0:9410"#,
        ),
        (&["--node-name=No de"], &[], "", "the argument '--node-name <VALUE>' cannot be used multiple times"),
        (&[], &[], "flags: [1]", "flags is [1] (FILE): a map of keys is wanted here"),
        (&[], &[], "version: v2", r#"version is "v2" (FILE): this program reads v1"#),
        (&[], &[], "- 1", "it is [1], not a map of keys"),
        (&[], &[], "flags: {a", "cannot be read as YAML or JSON"),
    ] {
        refused(flags, env, file, want);
    }
}

#[test]
fn an_unknown_key_is_refused_with_those_that_are_known() {
    for (file, want) in [
        (
            "flag: {}",
            "flag is {} (FILE): no such key: known here are version, flags, resources, sharing, imex",
        ),
        (
            "flags: {migStrtegy: mixed}",
            r#"flags.migStrtegy is "mixed" (FILE): no such key: known here are migStrategy, failOnInitError"#,
        ),
        (
            "flags: {plugin: {passDeviceSpec: true}}",
            "flags.plugin.passDeviceSpec is true (FILE): no such key: known here are containerDriverRoot, passDeviceSpecs",
        ),
        (
            "sharing: {timeSlicing: {renamebydefault: true}}",
            "sharing.timeSlicing.renamebydefault is true (FILE): no such key",
        ),
        (
            "sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replica: 4}]}}",
            "sharing.timeSlicing.resources[0].replica is 4 (FILE): no such key",
        ),
    ] {
        refused(&[], &[], file, want);
    }
    refused(&["--mig-stratgy=none"], &[], "", "unexpected argument '--mig-stratgy'");
}

#[test]
fn what_nvidia_has_and_we_have_not_is_refused_wherever_it_stands() {
    for (flags, env, file, want) in [
        (
            &["--gds-enabled"][..],
            &[][..],
            "",
            r#"flags.gdsEnabled is "true" (--gds-enabled): GPUDirect Storage is not supported yet"#,
        ),
        (&[], &["MOFED_ENABLED=true"], "", "flags.mofedEnabled"),
        (
            &[],
            &[],
            "flags: {gdrcopyEnabled: true}",
            r#"flags.gdrcopyEnabled is "true" (FILE): GDRCopy is not supported yet"#,
        ),
        (&[], &["DEVICE_DISCOVERY_STRATEGY=tegra"], "", "only NVML finds devices here"),
        (&[], &["DP_ENABLE_HEALTHCHECKS=94"], "", "health checks by XID are not supported yet"),
        (
            &[],
            &[],
            "imex: {channelIDs: [0], required: true}",
            r#"imex.channelIDs is "0" (FILE): IMEX channels are not supported yet"#,
        ),
        (&[], &[], "flags: {gfd: {oneshot: true}}", "it is for GPU feature discovery"),
        (
            &[],
            &[],
            "flags: {plugin: {sharedDevicesAllocationPolicy: distributed}}",
            "Stowage always packs shares: use packed",
        ),
        (
            &[],
            &[],
            "sharing: {mps: {resources: [{name: nvidia.com/gpu, replicas: 2}]}}",
            "MPS is not supported yet: use sharing.timeSlicing",
        ),
        (&[], &[], "resources: {gpus: [{pattern: '*A100*', name: a100}]}", "resources.gpus[0] is"),
    ] {
        refused(flags, env, file, want);
    }
}

#[test]
fn impossible_sharing_is_refused() {
    let file = |entry: &str| format!("sharing: {{timeSlicing: {{resources: [{entry}]}}}}");
    for (entry, want) in [
        ("{name: nvidia.com/gpu, replicas: 1}", "replicas is 1 (FILE): use a whole number from 2 to 1024"),
        ("{name: nvidia.com/gpu}", "replicas is null"),
        ("{name: nvidia.com/gpu, replicas: -1}", "replicas is -1"),
        (
            "{name: amd.com/gpu, replicas: 2}",
            r#"name is "amd.com/gpu" (FILE): use nvidia.com/gpu or nvidia.com/mig-<profile>"#,
        ),
        ("{replicas: 2}", "name is null"),
        (
            "{name: nvidia.com/gpu, replicas: 2, rename: nvidia.com/quick}",
            "other names are not supported yet",
        ),
        (
            "{name: nvidia.com/gpu, replicas: 2, devices: [0]}",
            "devices is [0] (FILE): sharing some of the devices",
        ),
        ("{name: nvidia.com/gpu, replicas: 2}, {name: gpu, replicas: 3}", "name each once"),
    ] {
        refused(&[], &[], &file(entry), want);
    }
}

#[test]
fn the_nodes_name_is_wanted_where_the_api_server_is() {
    let load = |line: &[&str]| {
        let matches = arguments().try_get_matches_from([&["x"], line].concat()).unwrap();
        load(&matches, |_| None).map(|config| config.node_name).map_err(|error| error.to_string())
    };
    assert_eq!(load(&["--kubernetes=false"]), Ok("unnamed".into()));
    assert!(load(&[]).unwrap_err().contains("use --node-name, or set NODE_NAME"));
    assert!(load(&["--node-name", "No de"]).unwrap_err().contains("use the Node's name"));
}

#[test]
fn a_file_that_is_missing_or_far_too_long_is_named() {
    let load = |path: &str| {
        let line = ["x", "--node-name=n", "--config-file", path];
        load(&arguments().try_get_matches_from(line).unwrap(), |_| None).unwrap_err().to_string()
    };
    assert!(
        load("/does/not/exist")
            .contains("cannot read the configuration file /does/not/exist: correct --config-file")
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.yaml");
    fs::write(&path, vec![b' '; 1 + CONFIG_FILE_MAX_BYTES as usize]).unwrap();
    assert!(load(path.to_str().unwrap()).contains("is it the right file?"));
}
