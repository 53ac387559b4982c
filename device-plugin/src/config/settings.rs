//! Every setting there is, in one table: its flag, its environment names, its key in NVIDIA's file, its default.
//!
//! The command line, `--help`, the look-ups and the refusals are all made from this table, so a setting cannot be
//! known in one place and forgotten in another. Names and defaults are those of NVIDIA's device plugin v0.20,
//! where it has the setting; what it has and we have not is in the table too, with the values that ask for
//! nothing: anything else is refused, never ignored.

use super::{health, labels, mps, per_node};

/// What becomes of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It is used.
    Used,
    /// It is NVIDIA's and not supported yet: only these values, which ask for nothing, are accepted.
    NotYet {
        /// The values that ask for nothing.
        neutral: &'static [&'static str],
        /// What it would be, and what to do instead.
        cure: &'static str,
    },
}

/// What a setting's values look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One text.
    Text,
    /// `true` or `false`; the flag alone, without a value, means `true`.
    Switch,
    /// Texts with commas between; the flag may be given several times.
    List,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name in messages, and its path in NVIDIA's file where it has one ([`Setting::in_file`]).
    pub key: &'static str,
    /// Whether NVIDIA's file may hold it.
    pub in_file: bool,
    /// The flag, without dashes; empty where there is none.
    pub flag: &'static str,
    /// NVIDIA's other name of the flag.
    pub alias: Option<&'static str>,
    /// Environment names; the first that is set and not empty counts.
    pub env: &'static [&'static str],
    /// What its values look like.
    pub kind: Kind,
    /// The default, as `--help` shows it.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// What becomes of it.
    pub support: Support,
}

const BASE: Setting = Setting {
    key: "",
    in_file: true,
    flag: "",
    alias: None,
    env: &[],
    kind: Kind::Text,
    default: "",
    help: "",
    support: Support::Used,
};

/// A setting of our own, or of NVIDIA's that no file may hold.
pub(super) const fn outside(
    flag: &'static str,
    env: &'static [&'static str],
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key: flag, in_file: false, flag, env, default, help, ..BASE }
}

/// A setting of NVIDIA's that is used.
pub(super) const fn nvidia(
    key: &'static str,
    flag: &'static str,
    env: &'static [&'static str],
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, flag, env, default, help, ..BASE }
}

/// A setting of NVIDIA's that is not supported yet.
const fn not_yet(
    key: &'static str,
    flag: &'static str,
    env: &'static [&'static str],
    neutral: &'static [&'static str],
    cure: &'static str,
) -> Setting {
    Setting { key, flag, env, support: Support::NotYet { neutral, cure }, ..BASE }
}

const ONESHOT: &str =
    "this program labels the node for as long as it runs: use sleepInterval: infinite to label it once";
const OUTPUT_FILE: &str = "labels go to the API server, so nothing needs such a file: leave it out";
const NEVER: &[&str] = &["false"];

/// All of them. `log-format` and `log-level` come from `stowage-ops`.
pub const SETTINGS: &[Setting] = &[
    outside("node-name", &["NODE_NAME"], "", "The name of this node, as the API server knows it"),
    outside("config-file", &["CONFIG_FILE"], "", "NVIDIA's configuration file (version: v1), YAML or JSON"),
    nvidia(
        "flags.migStrategy",
        "mig-strategy",
        &["MIG_STRATEGY"],
        "none",
        "How MIG devices are offered: none, single, mixed, or on-demand (built when a pod has got them)",
    ),
    Setting {
        kind: Kind::List,
        ..nvidia(
            "flags.migStaticGPUs",
            "mig-static-gpus",
            &["MIG_STATIC_GPUS"],
            "",
            "GPUs, by UUID or index, whose MIG devices are left as they are in spite of on-demand",
        )
    },
    Setting {
        kind: Kind::Switch,
        ..nvidia(
            "flags.elasticGPUs",
            "elastic-gpus",
            &["ELASTIC_GPUS"],
            "false",
            "Whether GPUs are offered whole, as shares and as slices at once, until somebody uses one form",
        )
    },
    Setting {
        kind: Kind::Switch,
        ..nvidia(
            "flags.failOnInitError",
            "fail-on-init-error",
            &["FAIL_ON_INIT_ERROR"],
            "true",
            "Whether a node without a working NVML ends the program; else it waits, not ready",
        )
    },
    Setting {
        alias: Some("nvidia-driver-root"),
        ..nvidia(
            "flags.nvidiaDriverRoot",
            "driver-root",
            &["NVIDIA_DRIVER_ROOT"],
            "/",
            "Where the host has the NVIDIA driver",
        )
    },
    Setting {
        alias: Some("nvidia-dev-root"),
        ..nvidia(
            "flags.nvidiaDevRoot",
            "dev-root",
            &["NVIDIA_DEV_ROOT"],
            "the driver root",
            "Where the host has /dev/nvidia*: the folder that holds dev",
        )
    },
    Setting {
        alias: Some("container-driver-root"),
        ..nvidia(
            "flags.plugin.containerDriverRoot",
            "driver-root-ctr-path",
            &["DRIVER_ROOT_CTR_PATH", "CONTAINER_DRIVER_ROOT"],
            "/driver-root",
            "Where this program sees the driver root: libnvidia-ml.so.1 is looked for below it first",
        )
    },
    Setting {
        kind: Kind::Switch,
        ..nvidia(
            "flags.plugin.passDeviceSpecs",
            "pass-device-specs",
            &["PASS_DEVICE_SPECS"],
            "false",
            "Whether Allocate names the device nodes too; wanted with the static CPU manager",
        )
    },
    Setting {
        kind: Kind::List,
        ..nvidia(
            "flags.plugin.deviceListStrategy",
            "device-list-strategy",
            &["DEVICE_LIST_STRATEGY"],
            "envvar",
            "How containers are told their devices: one or more of envvar, volume-mounts, cdi-annotations and cdi-cri",
        )
    },
    nvidia(
        "flags.plugin.deviceIDStrategy",
        "device-id-strategy",
        &["DEVICE_ID_STRATEGY"],
        "uuid",
        "What names a device to containers: uuid or index",
    ),
    outside(
        "kubelet-socket",
        &["KUBELET_SOCKET"],
        "/var/lib/kubelet/device-plugins/kubelet.sock",
        "Where the kubelet takes registrations; our sockets lie in the same folder",
    ),
    outside(
        "pod-resources-socket",
        &["POD_RESOURCES_SOCKET"],
        "/var/lib/kubelet/pod-resources/kubelet.sock",
        "Where the kubelet tells which pod holds which devices",
    ),
    outside(
        "http-address",
        &["HTTP_ADDRESS"],
        "0.0.0.0:9410",
        "Where /livez, /readyz and /metrics are served",
    ),
    Setting {
        kind: Kind::Switch,
        ..outside(
            "standby",
            &["STANDBY"],
            "false",
            "Whether to wait while another plugin has the HTTP address, and to take over when that ends: the second container of a pod",
        )
    },
    outside(
        "sysfs-root",
        &["SYSFS_ROOT"],
        "/sys",
        "Where this program sees the host's sysfs, which tells the GPUs' NUMA nodes",
    ),
    outside(
        "procfs-root",
        &["PROCFS_ROOT"],
        "/proc",
        "Where this program sees the host's procfs: driver/nvidia-caps tells the device nodes of MIG devices",
    ),
    Setting {
        kind: Kind::Switch,
        ..outside(
            "kubernetes",
            &["USE_KUBERNETES"],
            "true",
            "Whether to talk to the API server; without it there are no plans and no GpuNode",
        )
    },
    nvidia(
        "flags.plugin.sharedDevicesAllocationPolicy",
        "shared-devices-allocation-policy",
        &["SHARED_DEVICES_ALLOCATION_POLICY"],
        "distributed",
        "Which GPU's shares go first to pods without a plan: distributed or packed",
    ),
    Setting {
        kind: Kind::Switch,
        ..nvidia(
            "flags.gdrcopyEnabled",
            "gdrcopy-enabled",
            &["GDRCOPY_ENABLED"],
            "false",
            "Whether containers with GPUs get GDRCopy",
        )
    },
    Setting {
        kind: Kind::Switch,
        ..nvidia(
            "flags.gdsEnabled",
            "gds-enabled",
            &["GDS_ENABLED"],
            "false",
            "Whether containers with GPUs get GPUDirect Storage",
        )
    },
    Setting {
        kind: Kind::Switch,
        ..nvidia(
            "flags.mofedEnabled",
            "mofed-enabled",
            &["MOFED_ENABLED"],
            "false",
            "Whether containers with GPUs get the devices of Mellanox's OFED",
        )
    },
    Setting {
        kind: Kind::List,
        ..nvidia(
            "imex.channelIDs",
            "imex-channel-ids",
            &["IMEX_CHANNEL_IDS"],
            "",
            "IMEX channels that containers with GPUs get: none, or 0",
        )
    },
    Setting {
        kind: Kind::Switch,
        ..nvidia(
            "imex.required",
            "imex-required",
            &["IMEX_REQUIRED"],
            "false",
            "Whether a node without these IMEX channels ends the program; else they are left out there",
        )
    },
    nvidia(
        "flags.plugin.cdiAnnotationPrefix",
        "cdi-annotation-prefix",
        &["CDI_ANNOTATION_PREFIX"],
        "cdi.k8s.io/",
        "What the keys of CDI annotations begin with",
    ),
    not_yet(
        "flags.deviceDiscoveryStrategy",
        "device-discovery-strategy",
        &["DEVICE_DISCOVERY_STRATEGY"],
        &["auto", "nvml"],
        "only NVML finds devices here: use auto or nvml, or leave it out",
    ),
    health::DISABLE,
    health::ENABLE,
    health::CLASSES,
    health::QUIET,
    health::PERIOD,
    health::CALL_LIMIT,
    Setting {
        kind: Kind::Switch,
        ..outside(
            "dcgm-metrics",
            &["DCGM_METRICS"],
            "true",
            "Whether the GPUs' metrics are told under dcgm-exporter's names; switch it off where that runs too",
        )
    },
    per_node::FOLDER,
    per_node::LABEL,
    per_node::DEFAULT,
    per_node::FALLBACKS,
    labels::LABEL_NODE,
    labels::USE_NODE_FEATURE_API,
    labels::NO_TIMESTAMP,
    labels::SLEEP_INTERVAL,
    labels::MACHINE_TYPE_FILE,
    not_yet("flags.gfd.oneshot", "", &["GFD_ONESHOT"], NEVER, ONESHOT),
    not_yet(
        "flags.gfd.outputFile",
        "",
        &["GFD_OUTPUT_FILE"],
        &["/etc/kubernetes/node-feature-discovery/features.d/gfd"],
        OUTPUT_FILE,
    ),
    mps::HOST_ROOT,
    mps::ROOT,
    Setting {
        alias: Some("nvidia-ctk-path"),
        ..nvidia(
            "flags.plugin.nvidiaCTKPath",
            "nvidia-cdi-hook-path",
            &["NVIDIA_CDI_HOOK_PATH", "NVIDIA_CTK_PATH"],
            "/usr/bin/nvidia-ctk",
            "Where the host has nvidia-ctk or nvidia-cdi-hook, whose hooks CDI specs use; the default only if it is there",
        )
    },
    Setting {
        kind: Kind::List,
        ..outside(
            "cdi-feature-flags",
            &["CDI_FEATURE_FLAGS"],
            "",
            "What is done otherwise in CDI specs; NVIDIA's words",
        )
    },
    Setting {
        kind: Kind::List,
        ..outside(
            "cdi-disable-hooks",
            &["CDI_DISABLE_HOOKS"],
            "",
            "Hooks that CDI specs leave out; all for all of them",
        )
    },
    outside("cdi-root", &["CDI_ROOT"], "/var/run/cdi", "Where the container runtime reads CDI specs"),
];

impl Setting {
    /// The setting of that key.
    pub fn by_key(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// The flag as clap knows it; `None` where the setting has no flag.
    pub(super) fn arg(&self) -> Option<clap::Arg> {
        if self.flag.is_empty() {
            return None;
        }
        let mut help = self.help.to_owned();
        help.push_str(&format!(" [env: {}]", self.env.join(", ")));
        if !self.default.is_empty() {
            help.push_str(&format!(" [default: {}]", self.default));
        }
        let value = if self.kind == Kind::Switch { "BOOL" } else { "VALUE" };
        let arg = clap::Arg::new(self.flag)
            .long(self.flag)
            .visible_aliases(self.alias)
            .value_name(value)
            .help(help)
            .hide(self.support != Support::Used);
        Some(match self.kind {
            Kind::Text => arg,
            Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            Kind::List => arg.action(clap::ArgAction::Append),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_key_flag_or_environment_name_is_there_twice() {
        let mut seen = BTreeSet::new();
        for setting in SETTINGS {
            let flags = [setting.flag, setting.alias.unwrap_or_default()].map(|flag| format!("--{flag}"));
            let names = flags
                .into_iter()
                .filter(|flag| flag != "--")
                .chain(setting.env.iter().map(|e| (*e).to_owned()));
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
}
