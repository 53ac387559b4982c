//! What users and programs rely on: names, ports, exit codes and bounds, each in this one place.
//!
//! The table in `README.md` ("Names, ports, bounds") lists the same values; a test holds the two together.

use std::time::Duration;

/// The annotation that carries a [`Plan`](crate::plan::Plan), on the Binding and then on the pod.
pub const PLAN_ANNOTATION: &str = "stowage.dev/plan";
/// The annotation with which a pod says how much memory each of its shares needs ([`ShareSize`](crate::share::ShareSize)).
pub const SHARE_MEMORY_ANNOTATION: &str = "stowage.dev/gpu-memory";
/// The same in thousandths of a GPU.
pub const SHARE_MILLI_ANNOTATION: &str = "stowage.dev/gpu-milli";
/// The annotation by which Kubernetes tells a ReplicaSet which of its pods goes first: the one with the least.
pub const DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
/// What Stowage wrote there last: another value is somebody else's, and stays.
pub const OUR_DELETION_COST_ANNOTATION: &str = "stowage.dev/pod-deletion-cost";
/// Whether a pod goes where most is in use (`binpack`) or least (`spread`).
pub const PLACEMENT_ANNOTATION: &str = "stowage.dev/placement";
/// The GPU models that a pod may run on, as patterns.
pub const GPU_MODEL_ANNOTATION: &str = "stowage.dev/gpu-model";
/// The least memory of the card that a pod's devices are of.
pub const GPU_MEMORY_MIN_ANNOTATION: &str = "stowage.dev/gpu-memory-min";
/// Whether each device of a pod is of another GPU.
pub const DISTINCT_GPUS_ANNOTATION: &str = "stowage.dev/distinct-gpus";
/// With whom a pod may be on one GPU.
pub const SHARE_WITH_ANNOTATION: &str = "stowage.dev/share-with";
/// The node label that says how many whole GPUs the node keeps for large pods.
pub const RESERVE_LABEL: &str = "stowage.dev/reserve-whole-gpus";
/// Whether a pod may be moved for the sake of others.
pub const DISRUPTABLE_ANNOTATION: &str = "stowage.dev/disruptable";
/// cluster-autoscaler's annotation: whether a pod may be evicted.
pub const SAFE_TO_EVICT_ANNOTATION: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// The kubelet's mark on a static pod.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// The API group of our own types.
pub const API_GROUP: &str = "stowage.dev";
/// The version of our own types.
pub const API_VERSION: &str = "v1alpha1";
/// The scheduler name of pods that Stowage places.
pub const SCHEDULER_NAME: &str = "stowage-scheduler";

/// Liveness, readiness and metrics of the device plugin.
pub const PLUGIN_HTTP_PORT: u16 = 9410;
/// Liveness, readiness and metrics of the scheduler extender.
pub const EXTENDER_HTTP_PORT: u16 = 9411;
/// The verbs that kube-scheduler calls; on 127.0.0.1 unless told otherwise.
pub const EXTENDER_VERB_PORT: u16 = 9412;

/// The live map, where the chart has it; on 127.0.0.1 unless told otherwise.
pub const EXTENDER_MAP_PORT: u16 = 9413;

/// What our programs end with. The numbers are those of `sysexits.h`, where it has one that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Asked to end (SIGTERM, SIGINT), and ended cleanly.
    Success = 0,
    /// Unusable flags (`EX_USAGE`): clap prints what is wrong.
    Usage = 2,
    /// It ran, or tried to, and something it needs went away (`EX_UNAVAILABLE`): restart it.
    Unavailable = 69,
    /// A defect of ours, such as a task that panicked (`EX_SOFTWARE`): restart it and tell us.
    Software = 70,
    /// A right is missing (`EX_NOPERM`): grant it, then restart.
    NoPermission = 77,
    /// A configuration that will fail again (`EX_CONFIG`): fix it.
    Config = 78,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// The longest plan we write or read, in bytes. A Binding accepts far more, and an annotation of over
/// 256 KiB makes every later update of its pod fail.
pub const PLAN_MAX_BYTES: usize = 4 * 1024;
/// The longest policy annotation that is read, in bytes.
pub const POLICY_MAX_BYTES: usize = 1024;
/// The most patterns of GPU models that a pod may name.
pub const GPU_MODEL_PATTERNS_MAX: usize = 16;
/// The longest device id the kubelet's documentation allows, in bytes.
pub const DEVICE_ID_MAX_BYTES: usize = 63;
/// The largest body the extender reads, in bytes: a pod of 1.5 MiB and 5,000 node names fit.
pub const EXTENDER_BODY_MAX_BYTES: usize = 8 * 1024 * 1024;
/// The largest body the map reads, in bytes: the manifest of a pod that somebody tries out.
pub const MAP_BODY_MAX_BYTES: usize = 1024 * 1024;
/// How many may watch the map at once.
pub const MAP_READERS_MAX: usize = 32;
/// The most waiting pods that the map lists; all are counted.
pub const MAP_WAITING_MAX: usize = 1_000;
/// The most GPUs of one node that we look at; more is a broken GpuNode.
pub const GPUS_PER_NODE_MAX: usize = 64;
/// The most offers of one GPU: they are the bits of a `u64`.
pub const OFFERS_PER_GPU_MAX: usize = 64;
/// The most replicas of one shared GPU or MIG slice.
pub const REPLICAS_MAX: u32 = 1024;
/// The most replicas of one GPU under MPS: so many clients has an MPS server since Turing.
pub const MPS_CLIENTS_MAX: u32 = 48;
/// The most containers of a pod that asks for GPUs.
pub const CONTAINERS_MAX: usize = 256;
/// The most devices that one pod may ask for.
pub const DEVICES_PER_POD_MAX: u32 = 1024;

/// How long `GetPreferredAllocation` waits for a plan that has not arrived yet.
pub const PLAN_WAIT: Duration = Duration::from_millis(300);
/// How long the one look-up of a plan at the API server may take after that wait.
pub const PLAN_LOOKUP: Duration = Duration::from_millis(700);
/// How long a program may take from SIGTERM to its end.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// A GpuNode is written at least this often, so that its age tells whether its plugin can still be heard: as often as a kubelet
/// writes a Node that has not changed (`nodeStatusReportFrequency`). A write costs the API server some 7 ms of processor time:
/// every 100 s from each of 5,000 nodes would be a third of a core. That a plugin is gone is told sooner, by its kubelet's counts.
pub const GPU_NODE_HEARTBEAT: Duration = Duration::from_secs(300);
/// Allocations that are as planned are told in the GpuNode within this: who planned them knows them already. Everything else is
/// told at once.
pub const GPU_NODE_CONFIRM: Duration = Duration::from_secs(1);
/// A GpuNode older than this is stale: its node gets no new pods of ours.
pub const GPU_NODE_STALE: Duration = Duration::from_secs(600);
/// How long a bound pod may stay unconfirmed by its GpuNode before its assumption is dropped.
pub const ASSUMPTION_TTL: Duration = Duration::from_secs(120);
/// How long one Binding may take at the API server; below kube-scheduler's `httpTimeout` of 30 s.
pub const BIND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it is remembered what a bearer token may see of the map.
pub const MAP_ACCESS_TTL: Duration = Duration::from_secs(60);
