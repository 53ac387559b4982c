//! From a description to a node that cannot be wrong.

use std::collections::BTreeSet;
use std::fmt::Display;

use stowage_shared::mig::{Geometry, ProfileName};
use stowage_shared::models::{MODELS, Model};
use stowage_shared::units::MemoryMib;

use super::{Description, DescriptionError, GPUS_MAX, GpuDescription, MEMORY_MAX_MIB, NUMA_NODE_MAX};
use super::{MigInstanceDescription, MigMode};
use crate::derive;
use crate::hardware::{CudaVersion, GpuHardware, Hardware};
use crate::state::{LATENCY_MAX_MS, Node, Refusal, State, placement};

/// A node after boot: what it is, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// What never changes.
    pub hardware: Hardware,
    /// What NVML can change, as the description has it.
    pub state: State,
}

impl Description {
    /// Checks every value.
    ///
    /// # Errors
    /// [`DescriptionError::Value`] for the first that cannot be, with its key.
    pub fn check(&self) -> Result<Boot, DescriptionError> {
        if !is_version(&self.driver_version, 2..=3) {
            return Err(value(
                "driverVersion",
                format!("is {:?}: use one such as 570.86.15", self.driver_version),
            ));
        }
        let Some(cuda) = CudaVersion::parse(&self.cuda_version) else {
            return Err(value(
                "cudaVersion",
                format!("is {:?}: use one such as \"12.8\"", self.cuda_version),
            ));
        };
        let mut gpus = self.gpus()?;
        self.link(&mut gpus)?;
        let driver_version = self.driver_version.clone();
        let fabric = self.checked_fabric()?;
        let hardware = Hardware { driver_version, cuda, digest: self.digest(), gpus, fabric };
        let mut state = State::of(&hardware);
        if let Some((key, ms)) = self.latency.too_long() {
            return Err(value(format!("latency.{key}"), format!("is {ms}: the most is {LATENCY_MAX_MS}")));
        }
        state.latency = self.latency;
        let mut index = 0;
        for (entry, gpu) in self.gpus.iter().enumerate() {
            for _ in 0..gpu.count.unwrap_or(1) {
                boot_gpu(&mut Node { hardware: &hardware, state: &mut state }, index, entry, gpu)?;
                index += 1;
            }
        }
        Ok(Boot { hardware, state })
    }

    fn gpus(&self) -> Result<Vec<GpuHardware>, DescriptionError> {
        let mut gpus: Vec<GpuHardware> = Vec::new();
        let mut uuids = BTreeSet::new();
        for (entry, gpu) in self.gpus.iter().enumerate() {
            let key = |field: &str| format!("gpus[{entry}].{field}");
            let count = gpu.count.unwrap_or(1);
            let room = GPUS_MAX.saturating_sub(u32::try_from(gpus.len()).unwrap_or(GPUS_MAX));
            if count == 0 || count > room {
                let problem =
                    format!("is {count}: a node has at most {GPUS_MAX} GPUs, and each entry is at least one");
                return Err(value(key("count"), problem));
            }
            for _ in 0..count {
                let index = u32::try_from(gpus.len()).unwrap_or(GPUS_MAX);
                let gpu = self.gpu(gpu, index, &key)?;
                if !uuids.insert(gpu.uuid.clone()) {
                    return Err(value(key("uuid"), format!("is {:?}: another GPU has it already", gpu.uuid)));
                }
                gpus.push(gpu);
            }
        }
        Ok(gpus)
    }

    fn gpu(
        &self,
        gpu: &GpuDescription,
        index: u32,
        key: &dyn Fn(&str) -> String,
    ) -> Result<GpuHardware, DescriptionError> {
        let Some(model) = Model::by_key(&gpu.model) else {
            let known: Vec<&str> = MODELS.iter().map(|model| model.key).collect();
            return Err(value(key("model"), format!("is {:?}: known are {}", gpu.model, known.join(", "))));
        };
        let uuid = match &gpu.uuid {
            None => {
                derive::uuid("GPU-", &[&self.seed.to_string(), &self.name, &index.to_string(), model.key])
            }
            Some(uuid) if gpu.count.is_some_and(|count| count > 1) => {
                return Err(value(
                    key("uuid"),
                    format!("is {uuid:?} for several GPUs: give each an entry of its own"),
                ));
            }
            Some(uuid) if !is_gpu_uuid(uuid) => {
                let right = "use GPU- and five groups of 8, 4, 4, 4 and 12 hexadecimal digits";
                return Err(value(key("uuid"), format!("is {uuid:?}: {right}")));
            }
            Some(uuid) => uuid.clone(),
        };
        if let Some(node) = gpu.numa_node.filter(|&node| node > NUMA_NODE_MAX) {
            return Err(value(key("numaNode"), format!("is {node}: the highest is {NUMA_NODE_MAX}")));
        }
        let geometry = model.geometry();
        let memory = match gpu.memory_mib {
            None => model.memory,
            Some(mib) => checked_memory(MemoryMib(mib), model, geometry.as_ref())
                .map_err(|problem| value(key("memoryMib"), format!("is {mib}: {problem}")))?,
        };
        Ok(GpuHardware {
            index,
            model,
            uuid,
            memory,
            numa_node: gpu.numa_node,
            pcie_switch: gpu.pcie_switch,
            links: Vec::new(),
            geometry,
        })
    }

    /// Tells descriptions apart by what they mean: a new comment keeps the state, a new GPU does not.
    fn digest(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("{:032x}", derive::digest(&[&text]))
    }
}

fn boot_gpu(
    node: &mut Node<'_>,
    index: u32,
    entry: usize,
    gpu: &GpuDescription,
) -> Result<(), DescriptionError> {
    let key = |field: &str| format!("gpus[{entry}].{field}");
    if gpu.mig_mode == MigMode::Enabled {
        node.set_mig_mode(index, true)
            .and_then(|_| node.reset_gpu(index))
            .map_err(|_| value(key("migMode"), format!("is enabled: model {} has no MIG", gpu.model)))?;
    } else if !gpu.mig_instances.is_empty() {
        return Err(value(key("migInstances"), "need migMode: enabled".to_owned()));
    }
    for (number, instance) in gpu.mig_instances.iter().enumerate() {
        boot_instance(node, index, instance)
            .map_err(|(field, problem)| value(key(&format!("migInstances[{number}].{field}")), problem))?;
    }
    // Last: nothing can be built on a lost GPU.
    node.set_lost(index, gpu.lost).map_err(|refusal| value(key("lost"), refusal.to_string()))
}

/// The field that is wrong, and what is wrong with it.
type Wrong = (&'static str, String);

fn boot_instance(node: &mut Node<'_>, gpu: u32, instance: &MigInstanceDescription) -> Result<(), Wrong> {
    let geometry = node.hardware.gpu(gpu).and_then(|gpu| gpu.geometry.as_ref());
    let geometry = geometry.ok_or_else(|| ("profile", "needs a GPU with MIG".to_owned()))?;
    let name: Option<ProfileName> = instance.profile.parse().ok();
    let Some(profile) = name.and_then(|name| geometry.profile(&name)).cloned() else {
        let known = join(geometry.profiles.iter().map(|profile| &profile.name));
        return Err(("profile", format!("is {:?}: this GPU has {known}", instance.profile)));
    };
    let id = node.create_gpu_instance(gpu, profile.id, instance.start).map_err(|refusal| {
        match (instance.start, refusal) {
            (Some(start), Refusal::Start { .. }) => {
                ("start", format!("is {start}: {} may start at {}", profile.name, join(&profile.starts)))
            }
            (Some(start), refusal) => ("start", format!("is {start}: {refusal}")),
            (None, refusal) => ("profile", format!("is {}: {refusal}", profile.name)),
        }
    })?;
    let full = [profile.compute_slices];
    for &slices in instance.compute_instances.as_deref().unwrap_or(&full) {
        node.create_compute_instance(gpu, id, slices, None).map_err(|refusal| {
            let possible = join(placement::compute_sizes(profile.compute_slices));
            let problem =
                format!("has {slices}: {refusal}; {} can have {possible} compute slices", profile.name);
            ("computeInstances", problem)
        })?;
    }
    Ok(())
}

fn checked_memory(
    memory: MemoryMib,
    model: &Model,
    geometry: Option<&Geometry>,
) -> Result<MemoryMib, String> {
    // MIG cuts memory, so there is some.
    if (memory.0 == 0 && geometry.is_some()) || memory.0 > MEMORY_MAX_MIB {
        return Err(format!("1 to {MEMORY_MAX_MIB} are possible"));
    }
    for profile in geometry.iter().flat_map(|geometry| &geometry.profiles) {
        let text = profile.name.as_str();
        let attribute = text.find(['+', '-']).and_then(|at| text.get(at..)).unwrap_or_default();
        let name = ProfileName::of(u32::from(profile.compute_slices), profile.memory, memory, attribute);
        if name != profile.name {
            let near = model.memory.0;
            return Err(format!(
                "profile {} would be called {name}: stay near the model's {near}",
                profile.name
            ));
        }
    }
    Ok(memory)
}

fn is_version(text: &str, parts: std::ops::RangeInclusive<usize>) -> bool {
    let number = |part: &str| (1..=5).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.contains(&text.split('.').count()) && text.split('.').all(number)
}

fn is_gpu_uuid(text: &str) -> bool {
    let Some(uuid) = text.strip_prefix("GPU-") else { return false };
    uuid.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && uuid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn join<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn value(key: impl Into<String>, problem: String) -> DescriptionError {
    DescriptionError::Value { key: key.into(), problem }
}
