//! What is counted of the GPUs' health.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Cause, Class, Scope};

type Labels<const N: usize> = [(&'static str, String); N];

/// XIDs with a number above this are counted together, so that the label's values are a closed set.
const XID_MAX: u64 = 255;

/// The counters. GPUs are told apart by NVML's index.
#[derive(Debug, Clone, Default)]
pub struct HealthMetrics {
    xids: Family<Labels<3>, Counter>,
    fell_ill: Family<Labels<3>, Counter>,
    healthy: Family<Labels<1>, Gauge>,
    nvml: Gauge,
}

impl HealthMetrics {
    /// Makes them readable under `stowage_device_plugin_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("stowage_device_plugin");
        let all = self.clone();
        registry.register(
            "xids",
            "XIDs that the driver raised, by GPU, number and class: information, application, contained, reset or fatal",
            all.xids,
        );
        registry.register(
            "gpu_failures",
            "How often a GPU, or a MIG instance of it, became unhealthy, by GPU, scope (gpu or instance) and cause: lost, hangs, recovery_action, row_remap_failed, row_remap_pending, xid, ecc, unreadable or gone",
            all.fell_ill,
        );
        registry.register(
            "gpu_healthy",
            "Whether a GPU and all of its MIG instances are healthy",
            all.healthy,
        );
        registry.register("nvml_up", "Whether NVML works", all.nvml);
    }

    /// An XID of the GPU of that index.
    pub fn xid(&self, index: Option<u32>, xid: u64, class: Class) {
        let number = if xid <= XID_MAX { xid.to_string() } else { "other".to_owned() };
        let labels = [("gpu", gpu(index)), ("xid", number), ("class", class.word().to_owned())];
        self.xids.get_or_create(&labels).inc();
    }

    /// A GPU or an instance of it became unhealthy.
    pub fn fell_ill(&self, index: Option<u32>, scope: Scope, cause: Cause) {
        let scope = if scope == Scope::Gpu { "gpu" } else { "instance" };
        let labels = [("gpu", gpu(index)), ("scope", scope.to_owned()), ("cause", cause.word().to_owned())];
        self.fell_ill.get_or_create(&labels).inc();
    }

    /// How a GPU is.
    pub fn set_healthy(&self, index: u32, healthy: bool) {
        self.healthy.get_or_create(&[("gpu", index.to_string())]).set(healthy.into());
    }

    /// Whether NVML works.
    pub fn set_nvml(&self, works: bool) {
        self.nvml.set(works.into());
    }
}

fn gpu(index: Option<u32>) -> String {
    index.map_or_else(|| "unknown".to_owned(), |index| index.to_string())
}
