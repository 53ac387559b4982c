//! Which MPS daemons a node needs, and what each is told. Pure.

use std::collections::BTreeMap;

use stowage_shared::gpu::Part;
use stowage_shared::resource::ResourceName;
use stowage_shared::units::MemoryMib;

use crate::inventory::Inventory;

/// A GPU that is shared by MPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedGpu {
    /// NVML's UUID.
    pub uuid: String,
    /// NVML's index, which names it to the daemon.
    pub index: u32,
    /// All of its memory.
    pub memory: MemoryMib,
    /// Into how many shares it is divided.
    pub replicas: u32,
    /// Whether each client is held to an equal part; else each container is told its own.
    pub capped: bool,
}

/// A daemon that should run: one for each resource, as NVIDIA's plugin has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The resource whose shares are its clients.
    pub resource: ResourceName,
    /// Its GPUs; at least one.
    pub gpus: Vec<SharedGpu>,
}

impl Wanted {
    /// The daemons for all shares that a node offers.
    pub fn all(inventory: &Inventory) -> Vec<Self> {
        let mut all: BTreeMap<ResourceName, Vec<SharedGpu>> = BTreeMap::new();
        for gpu in inventory.gpus() {
            for offer in gpu.kind.offers() {
                let (Part::Whole, Some(replicas)) = (&offer.part, offer.replicas) else { continue };
                all.entry(offer.resource.clone()).or_default().push(SharedGpu {
                    uuid: gpu.uuid.to_string(),
                    index: gpu.index,
                    memory: gpu.kind.memory(),
                    replicas,
                    capped: offer.capped,
                });
            }
        }
        all.into_iter().map(|(resource, gpus)| Self { resource, gpus }).collect()
    }

    /// What the daemon is told, so that each client gets its part: memory by GPU, and threads.
    pub fn commands(&self) -> Vec<String> {
        let limit = |gpu: &SharedGpu| {
            let share = gpu.memory.0 / u64::from(gpu.replicas.max(1));
            format!("set_default_device_pinned_mem_limit {} {share}M", gpu.index)
        };
        let known = self.gpus.iter().filter(|gpu| gpu.capped && gpu.memory.0 > 0);
        known.map(limit).chain([self.thread_percentage()]).collect()
    }

    /// The daemon has one percentage for all of its GPUs: that of their average, as NVIDIA's plugin reckons.
    fn thread_percentage(&self) -> String {
        if self.gpus.iter().any(|gpu| !gpu.capped) {
            return "set_default_active_thread_percentage 100".to_owned();
        }
        let gpus = u32::try_from(self.gpus.len()).unwrap_or(u32::MAX).max(1);
        let replicas: u32 = self.gpus.iter().map(|gpu| gpu.replicas).sum();
        format!("set_default_active_thread_percentage {}", 100 / (replicas / gpus).max(1))
    }

    /// The UUIDs of its GPUs, a line each.
    pub fn uuids(&self) -> String {
        self.gpus.iter().map(|gpu| format!("{}\n", gpu.uuid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MigStrategy;
    use crate::fixture::inventory;

    #[track_caller]
    fn check(gpus: &[&str], sharing: &str, want: &[(&str, &[&str])]) {
        let inventory = inventory(gpus, MigStrategy::None, sharing).unwrap();
        let got: Vec<(String, Vec<String>)> = Wanted::all(&inventory)
            .iter()
            .map(|wanted| (wanted.resource.to_string(), wanted.commands()))
            .collect();
        let want: Vec<(String, Vec<String>)> = want
            .iter()
            .map(|(resource, commands)| {
                ((*resource).to_owned(), commands.iter().map(|text| (*text).to_owned()).collect())
            })
            .collect();
        assert_eq!(got, want);
    }

    #[test]
    fn each_client_gets_its_part_of_memory_and_threads() {
        let commands = [
            "set_default_device_pinned_mem_limit 0 13653M",
            "set_default_device_pinned_mem_limit 1 13653M",
            "set_default_active_thread_percentage 33",
        ];
        check(&["whole", "whole"], "rename mps gpu=3", &[("nvidia.com/gpu.shared", &commands)]);
    }

    #[test]
    fn where_shares_differ_the_daemon_limits_nobody() {
        let commands = ["set_default_active_thread_percentage 100"];
        check(&["whole"], "rename mps sized gpu=3", &[("nvidia.com/gpu.shared", &commands)]);
    }

    #[test]
    fn what_is_not_shared_needs_no_daemon() {
        check(&["whole"], "", &[]);
    }
}
