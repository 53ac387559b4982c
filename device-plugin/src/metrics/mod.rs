//! What the plugin counts. Labels come from closed sets: resource names of this node, and the words of `words.rs`.

mod words;

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use stowage_shared::resource::ResourceName;

use crate::book::{Served, Source};
use crate::health::HealthMetrics;
use crate::inventory::ListedDevice;
use crate::mps::MpsMetrics;

pub use words::{GpuNodeWrite, LabelWrite};
use words::{LISTS, LOOKUPS, served, source};

type Labels<const N: usize> = [(&'static str, String); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;

/// The counters.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// What is counted of the GPUs' health.
    pub health: HealthMetrics,
    /// What is counted of MPS.
    pub mps: MpsMetrics,
    allocations: Counters<1>,
    allocation_errors: Counter,
    preferred: Counters<1>,
    plan_wait: Histogram,
    plans_ignored: Counter,
    plan_lookups: Counters<1>,
    registrations: Counters<2>,
    streams: Family<Labels<1>, Gauge>,
    devices: Family<Labels<2>, Gauge>,
    pod_resources: Counters<1>,
    gpu_node_writes: Counters<1>,
    label_writes: Counters<1>,
}

impl Default for Metrics {
    fn default() -> Self {
        // From what a watch that is in time costs, to what the kubelet is made to wait at most.
        let plan_wait = Histogram::new([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 1.0]);
        let metrics = Self {
            health: HealthMetrics::default(),
            mps: MpsMetrics::default(),
            allocations: Family::default(),
            allocation_errors: Counter::default(),
            preferred: Family::default(),
            plan_wait,
            plans_ignored: Counter::default(),
            plan_lookups: Family::default(),
            registrations: Family::default(),
            streams: Family::default(),
            devices: Family::default(),
            pod_resources: Family::default(),
            gpu_node_writes: Family::default(),
            label_writes: Family::default(),
        };
        metrics.begin_at_zero();
        metrics
    }
}

impl Metrics {
    /// Lets every counter whose labels are known be there from the start: one that comes into being with its first event
    /// hides that from `rate` and `increase`, and a ratio of such counters is nothing instead of zero.
    fn begin_at_zero(&self) {
        let begin = |family: &Counters<1>, label: &'static str, words: &[&str]| {
            for word in words {
                family.get_or_create(&[(label, (*word).to_owned())]).inc_by(0);
            }
        };
        begin(&self.allocations, "result", &Served::ALL.map(served));
        begin(&self.preferred, "source", &Source::ALL.map(source));
        begin(&self.plan_lookups, "result", &LOOKUPS);
        begin(&self.pod_resources, "result", &LISTS);
        begin(&self.gpu_node_writes, "result", &GpuNodeWrite::ALL.map(GpuNodeWrite::word));
        begin(&self.label_writes, "result", &LabelWrite::ALL.map(LabelWrite::word));
    }

    /// Makes them readable under `stowage_device_plugin_…`.
    pub fn register(&self, registry: &mut Registry) {
        self.health.register(registry);
        self.mps.register(registry);
        let registry = registry.sub_registry_with_prefix("stowage_device_plugin");
        let all = self.clone();
        registry.register(
            "allocations",
            "Allocate calls answered, by how they relate to the plans: planned, off_plan (the pod has a plan and got other devices) or unplanned",
            all.allocations,
        );
        registry.register(
            "allocation_errors",
            "Allocate calls refused: devices that were never offered, or more shares than the configuration allows",
            all.allocation_errors,
        );
        registry.register(
            "preferred_allocations",
            "GetPreferredAllocation calls, by who chose: plan, policy (the configured one for shares), core (the packing core) or nobody (the kubelet takes what it likes)",
            all.preferred,
        );
        registry.register_with_unit(
            "plan_wait",
            "How long GetPreferredAllocation waited for a plan that had not arrived",
            Unit::Seconds,
            all.plan_wait,
        );
        registry.register(
            "plans_ignored",
            "Plans that are none: malformed, or not for this pod, node or request",
            all.plans_ignored,
        );
        registry.register(
            "plan_lookups",
            "Look-ups of a plan at the API server, by result: found, none or failed",
            all.plan_lookups,
        );
        registry.register(
            "registrations",
            "Registrations with the kubelet, by resource and result: ok, no_stream (it never listed the devices), refused or unreachable",
            all.registrations,
        );
        registry.register(
            "kubelet_streams",
            "Device lists that the kubelet follows, by resource; 1 is right",
            all.streams,
        );
        registry.register("devices", "Devices offered, by resource and health", all.devices);
        registry.register(
            "pod_resources_lists",
            "Questions to pod-resources, by result: ok or failed",
            all.pod_resources,
        );
        registry.register(
            "gpunode_writes",
            "Writes of this node's GpuNode, by result: written, missing_crd, forbidden, invalid or failed",
            all.gpu_node_writes,
        );
        registry.register(
            "label_writes",
            "Writes of this node's labels, by result: written, unreadable, forbidden or failed",
            all.label_writes,
        );
    }

    /// An answered `Allocate`.
    pub fn allocated(&self, as_planned: Served) {
        self.allocations.get_or_create(&[("result", served(as_planned).into())]).inc();
    }

    /// A refused `Allocate`.
    pub fn allocation_refused(&self) {
        self.allocation_errors.inc();
    }

    /// An answered `GetPreferredAllocation`; `waited` where it waited for a plan.
    pub fn preferred(&self, chosen_by: Source, waited: Option<Duration>) {
        self.preferred.get_or_create(&[("source", source(chosen_by).into())]).inc();
        if let Some(waited) = waited {
            self.plan_wait.observe(waited.as_secs_f64());
        }
    }

    /// A plan that is none.
    pub fn plan_ignored(&self) {
        self.plans_ignored.inc();
    }

    /// A look-up of a plan; `Err` where the API server did not answer, else whether a pod was found.
    pub fn looked_up<E>(&self, found: &Result<bool, E>) {
        let [yes, no, failed] = LOOKUPS;
        let word = match found {
            Ok(true) => yes,
            Ok(false) => no,
            Err(_) => failed,
        };
        self.plan_lookups.get_or_create(&[("result", word.into())]).inc();
    }

    /// A registration that ended so.
    pub fn registered(&self, resource: &ResourceName, result: &'static str) {
        self.registrations
            .get_or_create(&[("resource_name", resource.to_string()), ("result", result.into())])
            .inc();
    }

    /// How many device lists of a resource the kubelet follows.
    pub fn set_streams(&self, resource: &ResourceName, open: usize) {
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        self.streams.get_or_create(&[("resource_name", resource.to_string())]).set(open);
    }

    /// The devices of a resource.
    pub fn count_devices(&self, resource: &ResourceName, devices: &[ListedDevice]) {
        for (health, word) in [(true, "healthy"), (false, "unhealthy")] {
            let count = devices.iter().filter(|device| device.healthy == health).count();
            let labels = [("resource_name", resource.to_string()), ("health", word.into())];
            self.devices.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A question to pod-resources.
    pub fn asked_pod_resources(&self, ok: bool) {
        let word = LISTS[usize::from(!ok)];
        self.pod_resources.get_or_create(&[("result", word.into())]).inc();
    }

    /// A write of the GpuNode.
    pub fn gpu_node_written(&self, result: GpuNodeWrite) {
        self.gpu_node_writes.get_or_create(&[("result", result.word().into())]).inc();
    }

    /// A try to label the node.
    pub fn labels_written(&self, result: LabelWrite) {
        self.label_writes.get_or_create(&[("result", result.word().into())]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_our_prefix_a_help_line_and_a_value() {
        let metrics = Metrics::default();
        let gpu = ResourceName::gpu();
        metrics.allocated(Served::Planned);
        metrics.allocation_refused();
        metrics.preferred(Source::Core, Some(Duration::from_millis(2)));
        metrics.plan_ignored();
        metrics.looked_up::<()>(&Ok(true));
        metrics.registered(&gpu, "ok");
        metrics.set_streams(&gpu, 1);
        metrics.count_devices(&gpu, &[]);
        metrics.asked_pod_resources(true);
        metrics.gpu_node_written(GpuNodeWrite::Written);
        metrics.labels_written(LabelWrite::Written);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let helps = text.lines().filter(|line| line.starts_with("# HELP stowage_device_plugin_")).count();
        let types = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
        assert_eq!((helps, types), (13, 13), "{text}");
        for line in [
            r#"stowage_device_plugin_allocations_total{result="planned"} 1"#,
            // What has not happened yet is told as well.
            r#"stowage_device_plugin_allocations_total{result="off_plan"} 0"#,
            r#"stowage_device_plugin_preferred_allocations_total{source="nobody"} 0"#,
            r#"stowage_device_plugin_plan_lookups_total{result="failed"} 0"#,
            r#"stowage_device_plugin_pod_resources_lists_total{result="failed"} 0"#,
            r#"stowage_device_plugin_gpunode_writes_total{result="forbidden"} 0"#,
            r#"stowage_device_plugin_label_writes_total{result="unreadable"} 0"#,
            r#"stowage_device_plugin_plan_wait_seconds_bucket{le="0.003"} 1"#,
            r#"stowage_device_plugin_registrations_total{resource_name="nvidia.com/gpu",result="ok"} 1"#,
            r#"stowage_device_plugin_kubelet_streams{resource_name="nvidia.com/gpu"} 1"#,
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
