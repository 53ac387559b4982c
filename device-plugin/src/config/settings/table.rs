//! The settings, in the order of `--help`.

use super::{Kind, Setting, not_yet, nvidia, outside};
use crate::config::{health, labels, mps, per_node};

const ONESHOT: &str =
    "this program labels the node for as long as it runs: use sleepInterval: infinite to label it once";
const OUTPUT_FILE: &str = "labels go to the API server, so nothing needs such a file: leave it out";
const NEVER: &[&str] = &["false"];

/// All settings. `log-format` and `log-level` come from `stowage-ops`.
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
