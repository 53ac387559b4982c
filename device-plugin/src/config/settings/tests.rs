use std::collections::BTreeSet;

use super::*;

#[test]
fn no_key_flag_or_environment_name_is_there_twice() {
    let mut seen = BTreeSet::new();
    for setting in SETTINGS {
        let flags = [setting.flag, setting.alias.unwrap_or_default()].map(|flag| format!("--{flag}"));
        let names =
            flags.into_iter().filter(|flag| flag != "--").chain(setting.env.iter().map(|e| (*e).to_owned()));
        for name in names.chain([format!("key {}", setting.key)]) {
            assert!(seen.insert(name.clone()), "{name} twice");
        }
    }
}

/// The flags of NVIDIA's device plugin v0.20, from its `--help`, with their environment names.
#[test]
fn every_flag_of_nvidias_plugin_is_known() {
    for (flag, env) in [
        ("mig-strategy", "MIG_STRATEGY"),
        ("fail-on-init-error", "FAIL_ON_INIT_ERROR"),
        ("driver-root", "NVIDIA_DRIVER_ROOT"),
        ("nvidia-driver-root", "NVIDIA_DRIVER_ROOT"),
        ("dev-root", "NVIDIA_DEV_ROOT"),
        ("nvidia-dev-root", "NVIDIA_DEV_ROOT"),
        ("pass-device-specs", "PASS_DEVICE_SPECS"),
        ("device-list-strategy", "DEVICE_LIST_STRATEGY"),
        ("device-id-strategy", "DEVICE_ID_STRATEGY"),
        ("gdrcopy-enabled", "GDRCOPY_ENABLED"),
        ("gds-enabled", "GDS_ENABLED"),
        ("mofed-enabled", "MOFED_ENABLED"),
        ("cdi-annotation-prefix", "CDI_ANNOTATION_PREFIX"),
        ("nvidia-cdi-hook-path", "NVIDIA_CDI_HOOK_PATH"),
        ("nvidia-ctk-path", "NVIDIA_CTK_PATH"),
        ("driver-root-ctr-path", "DRIVER_ROOT_CTR_PATH"),
        ("container-driver-root", "CONTAINER_DRIVER_ROOT"),
        ("mps-root", "MPS_ROOT"),
        ("shared-devices-allocation-policy", "SHARED_DEVICES_ALLOCATION_POLICY"),
        ("device-discovery-strategy", "DEVICE_DISCOVERY_STRATEGY"),
        ("imex-channel-ids", "IMEX_CHANNEL_IDS"),
        ("imex-required", "IMEX_REQUIRED"),
        ("kubelet-socket", "KUBELET_SOCKET"),
        ("config-file", "CONFIG_FILE"),
        ("cdi-feature-flags", "CDI_FEATURE_FLAGS"),
        ("cdi-disable-hooks", "CDI_DISABLE_HOOKS"),
    ] {
        let known =
            SETTINGS.iter().any(|s| (s.flag == flag || s.alias == Some(flag)) && s.env.contains(&env));
        assert!(known, "{flag} {env}");
    }
}
