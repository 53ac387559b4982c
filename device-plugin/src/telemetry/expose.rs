//! The samples as metrics, under the names and labels of NVIDIA's `dcgm-exporter`.
//!
//! Everything is joined when somebody asks: a pod's labels are there for as long as it holds a device, and gone
//! with it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::{Gpu, Part, locate};
use stowage_shared::gpu_node::AllocationStatus;

use super::Telemetry;
use crate::book::Book;
use crate::nvml::{GpuUsage, MemoryUsage, SliceUsage};
use crate::plugin::Plugin;

/// What makes the metrics whenever somebody asks for them.
pub(super) struct Exposed {
    telemetry: Arc<Telemetry>,
    plugin: Arc<Plugin>,
    node: String,
    /// Whether what dcgm-exporter tells is told here as well; who holds what always is.
    dcgm: bool,
}

impl fmt::Debug for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposed").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Exposed {
    pub(super) fn new(telemetry: Arc<Telemetry>, plugin: Arc<Plugin>, node: String, dcgm: bool) -> Self {
        Self { telemetry, plugin, node, dcgm }
    }
}

/// Labels as `dcgm-exporter` writes them.
type Labels = Vec<(&'static str, String)>;

/// One metric: its name, what it says, and the values that it has now.
struct Metric {
    name: &'static str,
    help: &'static str,
    values: Vec<(Labels, f64)>,
}

impl Collector for Exposed {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let metrics = metrics(&self.plugin.book.borrow(), &self.telemetry.fresh(), &self.node);
        let is_told = |name: &str| self.dcgm || !name.starts_with("DCGM_");
        for metric in metrics.iter().filter(|metric| is_told(metric.name) && !metric.values.is_empty()) {
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, MetricType::Gauge)?;
            for (labels, value) in &metric.values {
                family.encode_family(labels)?.encode_gauge(value)?;
            }
        }
        Ok(())
    }
}

/// A whole GPU, or one slice of it, and who holds how many of its devices.
struct Place<'a> {
    gpu: &'a Gpu,
    /// The profile and first memory slice; `None` for the whole GPU.
    slice: Option<(&'a str, u8)>,
    holders: BTreeMap<Holder<'a>, usize>,
}

/// A container of a living pod, and the resource that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Holder<'a> {
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    resource: &'a str,
}

fn metrics(book: &Book, samples: &BTreeMap<String, GpuUsage>, node: &str) -> [Metric; 5] {
    let metric = |name, help| Metric { name, help, values: Vec::new() };
    let [mut busy, mut copies, mut used, mut free, mut allocated] = [
        metric("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %)"),
        metric("DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %)"),
        metric("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB)"),
        metric("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB)"),
        metric(
            "stowage_device_plugin_allocated_devices",
            "Devices of this GPU or slice that a container holds: 1, or the number of its shares",
        ),
    ];
    let allocations = book.allocations();
    for place in places(book, &allocations) {
        for (holder, devices) in &place.holders {
            let mut labels = labels(&place, None, Some(holder), node);
            labels.push(("resource_name", holder.resource.to_owned()));
            allocated.values.push((labels, *devices as f64));
        }
        let Some(usage) = samples.get(place.gpu.uuid.as_str()) else { continue };
        let Some((memory, slice)) = memory(&place, usage) else { continue };
        let mut holders: Vec<Option<&Holder<'_>>> = place.holders.keys().map(Some).collect();
        if holders.is_empty() {
            holders.push(None);
        }
        for holder in holders {
            let labels = labels(&place, slice, holder, node);
            // A GPU that shares the machine's memory tells none.
            if memory.used.0 + memory.free.0 > 0 {
                used.values.push((labels.clone(), memory.used.0 as f64));
                free.values.push((labels.clone(), memory.free.0 as f64));
            }
            if let (None, Some(percent)) = (slice, usage.memory_copy_percent) {
                copies.values.push((labels.clone(), f64::from(percent)));
            }
            if let (None, Some(percent)) = (slice, usage.gpu_percent) {
                busy.values.push((labels, f64::from(percent)));
            }
        }
    }
    [busy, copies, used, free, allocated]
}

/// Every whole GPU that is not cut, and every slice, whether somebody holds it or not.
fn places<'a>(book: &'a Book, allocations: &'a [AllocationStatus]) -> Vec<Place<'a>> {
    let gpus = book.gpus();
    let mut places: BTreeMap<(usize, Option<u8>), Place<'a>> = BTreeMap::new();
    for (index, gpu) in gpus.iter().enumerate() {
        for (offer, part) in gpu.kind.offers().iter().zip(&gpu.part_uuids) {
            if !part.is_empty() {
                let slice = slice_of(&offer.part);
                let place = || Place { gpu, slice, holders: BTreeMap::new() };
                places.entry((index, slice.map(|(_, start)| start))).or_insert_with(place);
            }
        }
    }
    for held in allocations {
        let holder = Holder {
            namespace: &held.namespace,
            pod: &held.pod,
            container: &held.container,
            resource: held.resource.as_str(),
        };
        for id in held.device_ids.iter().filter_map(|id| id.parse::<DeviceId>().ok()) {
            let located = locate(gpus.iter().map(|gpu| &**gpu), &held.resource, &id);
            let Some((index, offer)) = located else { continue };
            let slice = gpus[index].kind.offers().get(offer).and_then(|offer| slice_of(&offer.part));
            if let Some(place) = places.get_mut(&(index, slice.map(|(_, start)| start))) {
                *place.holders.entry(holder).or_default() += 1;
            }
        }
    }
    places.into_values().collect()
}

fn slice_of(part: &Part) -> Option<(&str, u8)> {
    match part {
        Part::Whole => None,
        Part::Slice(slice) => Some((slice.profile.as_str(), slice.start)),
    }
}

/// The memory of a place, and the slice's own numbers where it is one; `None` for a slice that is not built.
fn memory<'a>(place: &Place<'_>, usage: &'a GpuUsage) -> Option<(MemoryUsage, Option<&'a SliceUsage>)> {
    let Some((_, start)) = place.slice else { return Some((usage.memory, None)) };
    let slice = usage.slices.iter().find(|slice| slice.start == u32::from(start))?;
    Some((slice.memory, Some(slice)))
}

fn labels(place: &Place<'_>, slice: Option<&SliceUsage>, holder: Option<&Holder<'_>>, node: &str) -> Labels {
    let gpu = place.gpu;
    let mut labels = vec![
        ("gpu", gpu.index.to_string()),
        ("UUID", gpu.uuid.to_string()),
        ("device", format!("nvidia{}", gpu.index)),
        ("modelName", gpu.kind.model().to_owned()),
        ("Hostname", node.to_owned()),
    ];
    if let Some((profile, _)) = place.slice {
        labels.push(("GPU_I_PROFILE", profile.to_owned()));
    }
    if let Some(slice) = slice {
        labels.push(("GPU_I_ID", slice.gpu_instance_id.to_string()));
    }
    // Without a holder the three are empty, as dcgm-exporter has them.
    let told = |of: fn(&Holder<'_>) -> String| holder.map(of).unwrap_or_default();
    labels.push(("namespace", told(|holder| holder.namespace.to_owned())));
    labels.push(("pod", told(|holder| holder.pod.to_owned())));
    labels.push(("container", told(|holder| holder.container.to_owned())));
    labels
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stowage_shared::units::MemoryMib;

    use super::*;
    use crate::book::{Event, Holding};
    use crate::config::MigStrategy;
    use crate::fixture::inventory;

    fn memory_usage(used: u64) -> MemoryUsage {
        MemoryUsage { used: MemoryMib(used), free: MemoryMib(1000 - used) }
    }

    fn usage(uuid: &str, gpu_percent: Option<u32>, starts: &[(u32, u64)]) -> GpuUsage {
        let slice = |&(start, used): &(u32, u64)| SliceUsage {
            gpu_instance_id: 7 + start,
            start,
            memory: memory_usage(used),
        };
        GpuUsage {
            uuid: uuid.into(),
            gpu_percent,
            memory_copy_percent: gpu_percent.map(|percent| percent / 2),
            memory: memory_usage(100),
            processes: Vec::new(),
            slices: starts.iter().map(slice).collect(),
        }
    }

    fn holding(pod: &str, name: &str, ids: &[&str]) -> Holding {
        Holding {
            namespace: "default".into(),
            pod: pod.into(),
            container: "main".into(),
            resource: format!("nvidia.com/{name}").parse().unwrap(),
            device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    /// What a node tells, one line a value, with few of the labels.
    fn told(gpus: &[&str], sharing: &str, held: Vec<Holding>, samples: &[GpuUsage]) -> Vec<String> {
        let mut book = Book::new("n1", Arc::new(inventory(gpus, MigStrategy::Mixed, sharing).unwrap()));
        book.apply(Event::PodResources { held, asked_at: Duration::ZERO });
        let samples = samples.iter().map(|usage| (usage.uuid.clone(), usage.clone())).collect();
        let mut lines = Vec::new();
        for metric in metrics(&book, &samples, "n1") {
            for (labels, value) in metric.values {
                let short = |key: &&str| matches!(*key, "gpu" | "pod" | "GPU_I_PROFILE" | "GPU_I_ID");
                let labels = labels.iter().filter(|(key, _)| short(key));
                let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
                let name = metric.name.trim_start_matches("DCGM_FI_DEV_");
                lines.push(format!("{name} {} {value}", labels.join(" ")));
            }
        }
        lines
    }

    #[test]
    fn a_whole_gpu_tells_its_numbers_with_its_pod_and_without_one() {
        let held = vec![holding("a", "gpu", &["GPU-1"])];
        let lines = told(
            &["whole", "whole"],
            "",
            held,
            &[usage("GPU-0", Some(0), &[]), usage("GPU-1", Some(80), &[])],
        );
        assert_eq!(
            lines,
            [
                "GPU_UTIL gpu=0 pod= 0",
                "GPU_UTIL gpu=1 pod=a 80",
                "MEM_COPY_UTIL gpu=0 pod= 0",
                "MEM_COPY_UTIL gpu=1 pod=a 40",
                "FB_USED gpu=0 pod= 100",
                "FB_USED gpu=1 pod=a 100",
                "FB_FREE gpu=0 pod= 900",
                "FB_FREE gpu=1 pod=a 900",
                "stowage_device_plugin_allocated_devices gpu=1 pod=a 1",
            ]
        );
    }

    #[test]
    fn slices_tell_their_own_memory_and_no_utilization() {
        let held = vec![holding("a", "mig-3g.20gb", &["MIG-0-1"])];
        let lines = told(&["1g.5gb@0 3g.20gb@4"], "", held, &[usage("GPU-0", None, &[(0, 5), (4, 900)])]);
        assert_eq!(
            lines,
            [
                "FB_USED gpu=0 GPU_I_PROFILE=1g.5gb GPU_I_ID=7 pod= 5",
                "FB_USED gpu=0 GPU_I_PROFILE=3g.20gb GPU_I_ID=11 pod=a 900",
                "FB_FREE gpu=0 GPU_I_PROFILE=1g.5gb GPU_I_ID=7 pod= 995",
                "FB_FREE gpu=0 GPU_I_PROFILE=3g.20gb GPU_I_ID=11 pod=a 100",
                "stowage_device_plugin_allocated_devices gpu=0 GPU_I_PROFILE=3g.20gb pod=a 1",
            ]
        );
    }

    #[test]
    fn all_pods_of_a_shared_gpu_show_its_numbers_and_how_many_shares_they_hold() {
        let held = vec![holding("a", "gpu", &["GPU-0::0", "GPU-0::2"]), holding("b", "gpu", &["GPU-0::1"])];
        let lines = told(&["whole"], "gpu=4", held, &[usage("GPU-0", Some(50), &[])]);
        let kept =
            |name: &str| lines.iter().filter(|line| line.starts_with(name)).cloned().collect::<Vec<_>>();
        assert_eq!(kept("GPU_UTIL"), ["GPU_UTIL gpu=0 pod=a 50", "GPU_UTIL gpu=0 pod=b 50"]);
        let allocated = "stowage_device_plugin_allocated_devices";
        assert_eq!(
            kept(allocated),
            [format!("{allocated} gpu=0 pod=a 2"), format!("{allocated} gpu=0 pod=b 1")]
        );
    }

    #[test]
    fn a_gpu_without_a_sample_tells_nothing_but_who_holds_it() {
        let held = vec![holding("a", "gpu", &["GPU-0"]), holding("ghost", "gpu", &["GPU-gone"])];
        let lines = told(&["whole"], "", held, &[]);
        assert_eq!(lines, ["stowage_device_plugin_allocated_devices gpu=0 pod=a 1"]);
    }
}
