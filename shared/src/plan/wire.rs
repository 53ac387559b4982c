//! The annotation's JSON, with names as short as it must be, and nothing in it that is not known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{PLAN_VERSION, Plan, PlanError, PlannedContainers, PlannedDevice};
use crate::gpu::GpuUuidError;
use crate::mig::ProfileName;
use crate::resource::ResourceName;
use crate::units::MemoryMib;

/// What every version of the format says.
#[derive(Deserialize)]
pub(super) struct Version {
    pub(super) v: u32,
}

/// A plan of our version.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wire {
    v: u32,
    uid: String,
    node: String,
    c: BTreeMap<String, BTreeMap<ResourceName, Vec<WireDevice>>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireDevice {
    gpu: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    profile: Option<ProfileName>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    start: Option<u8>,
    #[serde(rename = "memoryMib", skip_serializing_if = "Option::is_none", default)]
    memory_mib: Option<MemoryMib>,
}

impl From<&Plan> for Wire {
    fn from(plan: &Plan) -> Self {
        let device = |device: &PlannedDevice| WireDevice {
            gpu: device.gpu.to_string(),
            profile: device.slice.as_ref().map(|(profile, _)| profile.clone()),
            start: device.slice.as_ref().map(|(_, start)| *start),
            memory_mib: device.memory,
        };
        let resources = |resources: &BTreeMap<ResourceName, Vec<PlannedDevice>>| {
            resources
                .iter()
                .map(|(name, devices)| (name.clone(), devices.iter().map(device).collect()))
                .collect()
        };
        let c = plan.containers.iter().map(|(name, map)| (name.clone(), resources(map))).collect();
        Self { v: PLAN_VERSION, uid: plan.uid.clone(), node: plan.node.clone(), c }
    }
}

impl TryFrom<Wire> for Plan {
    type Error = PlanError;

    fn try_from(wire: Wire) -> Result<Self, Self::Error> {
        let device = |device: WireDevice| {
            let gpu = device.gpu.parse().map_err(|e: GpuUuidError| PlanError::Format(e.to_string()))?;
            let slice = match (device.profile, device.start) {
                (Some(profile), Some(start)) => Some((profile, start)),
                (None, None) => None,
                _ => return Err(PlanError::Format("a slice wants both profile and start".into())),
            };
            Ok(PlannedDevice { gpu, slice, memory: device.memory_mib })
        };
        let mut containers = PlannedContainers::new();
        for (name, resources) in wire.c {
            let mut planned = BTreeMap::new();
            for (resource, devices) in resources {
                planned.insert(resource, devices.into_iter().map(device).collect::<Result<_, _>>()?);
            }
            containers.insert(name, planned);
        }
        Ok(Self { uid: wire.uid, node: wire.node, containers })
    }
}
