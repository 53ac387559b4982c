//! Whether pods keep to their shares.
//!
//! By time, nothing holds a pod to the memory that it said it needs (`stowage.dev/gpu-memory`): others on its GPU pay.
//! So what each pod's processes take is compared with its shares, told as metrics, and as an Event of the Node when a
//! pod begins to take more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use stowage_shared::units::MemoryMib;

use super::owners::pod_of;
use crate::book::ShareHolder;
use crate::cluster::{NodeEvents, Reason};
use crate::nvml::{GpuUsage, ProcessUsage};

/// What the pods that share GPUs take of them.
#[derive(Debug, Default)]
pub struct Shares {
    /// The last look.
    now: Mutex<Vec<ShareUse>>,
}

/// What a pod takes of a GPU that it shares.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ShareUse {
    holder: ShareHolder,
    /// `None` where no process of the pod is seen.
    used: Option<MemoryMib>,
}

impl ShareUse {
    fn exceeds(&self) -> bool {
        self.used.is_some_and(|used| used > self.holder.memory)
    }
}

impl Shares {
    /// Compares what is used with what pods hold; tells those that begin to take more.
    pub(super) fn look(
        &self,
        holders: Vec<ShareHolder>,
        usage: &[GpuUsage],
        procfs: &Path,
        events: &NodeEvents,
    ) {
        let shared: BTreeSet<String> = holders.iter().map(|holder| holder.gpu.clone()).collect();
        let processes = usage.iter().filter(|gpu| shared.contains(&gpu.uuid)).flat_map(|gpu| {
            let of =
                |process: &ProcessUsage| Some((&*gpu.uuid, pod_of(procfs, process.pid)?, process.memory));
            gpu.processes.iter().filter_map(of)
        });
        let uses = uses(holders, processes);
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        for exceeds in begun(&now, &uses) {
            let ShareHolder { namespace, pod, index, memory, .. } = &exceeds.holder;
            let used = exceeds.used.unwrap_or_default();
            tracing::warn!(
                pod.namespace = namespace,
                pod.name = pod,
                gpu.index = index,
                memory_mib = memory.0,
                used_mib = used.0,
                "A pod takes more of a GPU's memory than its shares are."
            );
            events.tell(
                Reason::GpuShareExceeded,
                format!("pod {namespace}/{pod} takes {used} of GPU {index}, and its shares are {memory}"),
            );
        }
        *now = uses;
    }
}

/// Adds up what each pod's processes take.
fn uses<'a>(
    holders: Vec<ShareHolder>,
    processes: impl Iterator<Item = (&'a str, String, MemoryMib)>,
) -> Vec<ShareUse> {
    let mut sums: BTreeMap<(&str, String), u64> = BTreeMap::new();
    for (gpu, uid, memory) in processes {
        let sum = sums.entry((gpu, uid)).or_default();
        *sum = sum.saturating_add(memory.0);
    }
    let of = |holder: ShareHolder| {
        let used = sums.get(&(&*holder.gpu, holder.uid.clone())).copied().map(MemoryMib);
        ShareUse { used, holder }
    };
    holders.into_iter().map(of).collect()
}

/// Those that take more than is theirs and did not before.
fn begun<'a>(before: &[ShareUse], now: &'a [ShareUse]) -> Vec<&'a ShareUse> {
    let key = |share: &ShareUse| (share.holder.uid.clone(), share.holder.gpu.clone());
    let before: BTreeSet<_> = before.iter().filter(|share| share.exceeds()).map(key).collect();
    now.iter().filter(|share| share.exceeds() && !before.contains(&key(share))).collect()
}

impl Collector for SharesMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let shares = self.0.now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let metrics: [(&str, &str, Bytes); 2] = [
            (
                "stowage_device_plugin_share_memory_bytes",
                "How much memory of this GPU the pod's shares are",
                |share| Some(share.holder.memory.to_bytes()),
            ),
            (
                "stowage_device_plugin_share_memory_used_bytes",
                "How much memory of this GPU the pod's processes take, where they can be seen",
                |share| share.used.map(MemoryMib::to_bytes),
            ),
        ];
        for (name, help, value) in metrics {
            let values: Vec<(&ShareHolder, u64)> =
                shares.iter().filter_map(|share| Some((&share.holder, value(share)?))).collect();
            if values.is_empty() {
                continue;
            }
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (holder, bytes) in values {
                let labels = [
                    ("gpu", holder.index.to_string()),
                    ("UUID", holder.gpu.clone()),
                    ("namespace", holder.namespace.clone()),
                    ("pod", holder.pod.clone()),
                ];
                family.encode_family(&labels)?.encode_gauge(&(bytes as f64))?;
            }
        }
        Ok(())
    }
}

/// What a metric tells of a share.
type Bytes = fn(&ShareUse) -> Option<u64>;

/// Makes the metrics whenever somebody asks for them.
#[derive(Debug)]
pub(super) struct SharesMetrics(pub(super) std::sync::Arc<Shares>);

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(uid: &str, gpu: &str, mib: u64) -> ShareHolder {
        ShareHolder {
            uid: uid.into(),
            namespace: "d".into(),
            pod: format!("p-{uid}"),
            gpu: gpu.into(),
            index: 0,
            memory: MemoryMib(mib),
        }
    }

    fn look(holders: Vec<ShareHolder>, processes: &[(&str, &str, u64)]) -> Vec<ShareUse> {
        uses(holders, processes.iter().map(|&(gpu, uid, mib)| (gpu, uid.to_owned(), MemoryMib(mib))))
    }

    #[test]
    fn a_pods_processes_add_up_and_strangers_do_not_count() {
        let holders = vec![holder("a", "G0", 1000), holder("a", "G1", 1000), holder("b", "G0", 1000)];
        let processes = [("G0", "a", 600), ("G0", "a", 500), ("G0", "x", 9000), ("G1", "a", 1000)];
        let used: Vec<_> =
            look(holders, &processes).iter().map(|share| share.used.map(|used| used.0)).collect();
        assert_eq!(used, [Some(1100), Some(1000), None]);
    }

    #[test]
    fn it_is_told_once_until_it_ends() {
        let at = |mib| look(vec![holder("a", "G0", 1000)], &[("G0", "a", mib)]);
        let count = |before: &[ShareUse], now: &[ShareUse]| begun(before, now).len();
        assert_eq!(count(&[], &at(1000)), 0, "all of it is no more than all");
        assert_eq!(count(&at(1000), &at(1001)), 1);
        assert_eq!(count(&at(1001), &at(2000)), 0);
        assert_eq!(count(&at(900), &at(2000)), 1);
    }
}
