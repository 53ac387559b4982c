//! What is counted of MPS.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use stowage_shared::resource::ResourceName;

type Labels = [(&'static str, String); 1];

/// The counters, by resource.
#[derive(Debug, Clone, Default)]
pub struct MpsMetrics {
    up: Family<Labels, Gauge>,
    starts: Family<Labels, Counter>,
}

impl MpsMetrics {
    /// Makes them readable under `stowage_device_plugin_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("stowage_device_plugin");
        let all = self.clone();
        registry.register("mps_daemon_up", "Whether the MPS control daemon of a resource answers", all.up);
        registry.register("mps_daemon_starts", "MPS control daemons started, by resource", all.starts);
    }

    /// Whether the daemon of a resource runs.
    pub fn set_up(&self, resource: &ResourceName, up: bool) {
        self.up.get_or_create(&labels(resource)).set(up.into());
        // One that was taken over was not started: it is told, or its first start would be hidden from `increase`.
        self.starts.get_or_create(&labels(resource)).inc_by(0);
    }

    /// There is no such daemon any more.
    pub fn forget(&self, resource: &ResourceName) {
        self.up.remove(&labels(resource));
    }

    /// A daemon was started.
    pub fn started(&self, resource: &ResourceName) {
        self.starts.get_or_create(&labels(resource)).inc();
    }
}

fn labels(resource: &ResourceName) -> Labels {
    [("resource_name", resource.to_string())]
}
