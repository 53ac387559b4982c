//! What is refused, with the key, the value, the place and the cure.

use super::*;

#[test]
fn a_wrong_value_says_key_value_place_and_cure() {
    for (flags, env, file, want) in [
        (
            &["--mig-strategy=mixd"][..],
            &[][..],
            "",
            r#"flags.migStrategy is "mixd" (--mig-strategy): use none, single, mixed or on-demand"#,
        ),
        (
            &[],
            &["MIG_STRATEGY=x"],
            "",
            r#"flags.migStrategy is "x" (environment variable MIG_STRATEGY): use none, single, mixed or on-demand"#,
        ),
        (
            &[],
            &[],
            "flags: {migStrategy: 3}",
            r#"flags.migStrategy is "3" (FILE): use none, single, mixed or on-demand"#,
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
            &["DEVICE_LIST_STRATEGY=cdi"],
            "",
            r#"flags.plugin.deviceListStrategy is "cdi" (environment variable DEVICE_LIST_STRATEGY): use envvar, volume-mounts, cdi-annotations or cdi-cri, or several with commas between"#,
        ),
        (&["--device-list-strategy=envvar,what"], &[], "", "use envvar"),
        (&["--device-list-strategy="], &[], "", "name at least one"),
        (&["--shared-devices-allocation-policy=pack"], &[], "", "use distributed or packed"),
        (
            &["--cdi-feature-flags=x"],
            &[],
            "",
            "x is not known here: use some of enable-explicit-driver-libraries, ",
        ),
        (
            &[],
            &["CDI_DISABLE_HOOKS=chmod,x"],
            "",
            "x is no hook: use some of all, update-application-profile, ",
        ),
        (&["--cdi-root=cdi"], &[], "", "use an absolute path"),
        (
            &[],
            &[],
            "imex: {channelIDs: [0, 1]}",
            r#"imex.channelIDs is "0,1" (FILE): use 0, or leave it empty"#,
        ),
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
            r#"flags.migStrtegy is "mixed" (FILE): no such key: known here are migStrategy, migStaticGPUs, elasticGPUs, failOnInitError"#,
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
        (&[][..], &["DEVICE_DISCOVERY_STRATEGY=tegra"][..], "", "only NVML finds devices here"),
        (&[], &[], "flags: {gfd: {oneshot: true}}", "use sleepInterval: infinite"),
        (
            &[],
            &[],
            "sharing: {mps: {resources: [{name: nvidia.com/gpu, replicas: 2}]}}",
            "flags.mpsRoot is not set: sharing.mps wants the folder",
        ),
    ] {
        refused(flags, env, file, want);
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
