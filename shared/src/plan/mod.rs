//! The plan: which devices a pod was promised, in one annotation.
//!
//! The extender writes it on the Binding, so that it reaches the pod together with its node; the plugin on
//! that node reads it. In between anybody who may edit the pod can have changed it, so a reader trusts
//! nothing: the text is bounded before it is parsed, must name this pod's UID and this node, must fit the
//! pod's own request, and never overrides what is in use. A plan that fails any of this is no plan.
//!
//! ```json
//! {"v":1,"uid":"<pod UID>","node":"gpu-node-1",
//!  "c":{"main":{"nvidia.com/mig-1g.5gb":[{"gpu":"GPU-…","profile":"1g.5gb","start":3}]}}}
//! ```

#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;

use self::wire::{Version, Wire};
use crate::contract::PLAN_MAX_BYTES;
use crate::gpu::{Gpu, GpuUuid, Part};
use crate::mig::ProfileName;
use crate::request::{Request, Role};
use crate::resource::ResourceName;
use crate::share::ShareSize;
use crate::units::MemoryMib;

/// The version of the format that we write, and the only one we read.
pub const PLAN_VERSION: u32 = 1;

/// One device of a plan. Which replica of a shared part is left open: they are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlannedDevice {
    /// On which GPU.
    pub gpu: GpuUuid,
    /// Which slice of it: profile and first memory slice; `None` for the whole GPU or a share of it.
    pub slice: Option<(ProfileName, u8)>,
    /// How much of the GPU's memory the share may take, where the pod said how much it needs.
    pub memory: Option<MemoryMib>,
}

/// The devices chosen for a pod, by container and resource.
pub type PlannedContainers = BTreeMap<String, BTreeMap<ResourceName, Vec<PlannedDevice>>>;

/// A plan that was made for one pod on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The pod's UID.
    pub uid: String,
    /// The node's name.
    pub node: String,
    /// The devices.
    pub containers: PlannedContainers,
}

/// Why an annotation is not used as a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Longer than [`PLAN_MAX_BYTES`].
    #[error("the plan has {0} bytes: at most {PLAN_MAX_BYTES} are read")]
    TooLong(usize),
    /// Not the format.
    #[error("the plan cannot be read: {0}")]
    Format(String),
    /// From a newer or unknown writer.
    #[error("the plan has version {0}: this program reads version {PLAN_VERSION}")]
    Version(u32),
    /// Copied from another pod.
    #[error("the plan was made for the pod with UID {0:?}")]
    OtherPod(String),
    /// Made for another node.
    #[error("the plan was made for node {0:?}")]
    OtherNode(String),
    /// It promises something else than the pod asks for.
    #[error("the plan does not match the request: {0}")]
    OtherRequest(String),
}

impl Plan {
    /// The annotation's text.
    ///
    /// # Errors
    /// [`PlanError::TooLong`]: a pod that asks for so much cannot carry a plan.
    pub fn to_annotation(&self) -> Result<String, PlanError> {
        let text = serde_json::to_string(&Wire::from(self)).map_err(|e| PlanError::Format(e.to_string()))?;
        if text.len() > PLAN_MAX_BYTES { Err(PlanError::TooLong(text.len())) } else { Ok(text) }
    }

    /// Reads the annotation of the pod with this UID on this node, and checks it against its request.
    ///
    /// # Errors
    /// [`PlanError`], for anything that makes it no plan for this pod.
    pub fn read(text: &str, uid: &str, node: &str, request: &Request) -> Result<Self, PlanError> {
        let plan = Self::parse(text)?;
        if plan.uid != uid {
            return Err(PlanError::OtherPod(excerpt(&plan.uid)));
        }
        if plan.node != node {
            return Err(PlanError::OtherNode(excerpt(&plan.node)));
        }
        plan.check(request)?;
        Ok(plan)
    }

    /// Reads the annotation without asking whose it is.
    ///
    /// # Errors
    /// [`PlanError`] for a text that is too long, of another version or not the format.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        if text.len() > PLAN_MAX_BYTES {
            return Err(PlanError::TooLong(text.len()));
        }
        let format = |e: serde_json::Error| PlanError::Format(excerpt(&e.to_string()));
        let Version { v } = serde_json::from_str(text).map_err(format)?;
        if v != PLAN_VERSION {
            return Err(PlanError::Version(v));
        }
        serde_json::from_str::<Wire>(text).map_err(format)?.try_into()
    }

    /// Whether it promises exactly what the pod asks for.
    fn check(&self, request: &Request) -> Result<(), PlanError> {
        let wrong = |text: String| Err(PlanError::OtherRequest(text));
        for container in request.containers() {
            for (resource, &count) in &container.devices {
                let planned = self.devices(&container.name, resource);
                if planned.len() != count as usize {
                    let name = &container.name;
                    return wrong(format!(
                        "container {name} asks for {count} of {resource}, planned are {}",
                        planned.len()
                    ));
                }
            }
        }
        let asked = |name: &str, resource: &ResourceName| {
            request.containers().iter().any(|c| c.name == name && c.devices.contains_key(resource))
        };
        for (name, resources) in &self.containers {
            if let Some(resource) = resources.keys().find(|resource| !asked(name, resource)) {
                return wrong(format!("container {} does not ask for {resource}", excerpt(name)));
            }
        }
        Ok(())
    }

    /// The size of each share that a pod holds or waits for. Where there is a plan, what it says counts: the annotation
    /// that it was made for can be changed by the pod's author at any time.
    pub fn share_of(plan: Option<&Self>, request: &Request) -> Option<ShareSize> {
        let Some(plan) = plan else { return request.share() };
        let devices = plan.containers.values().flat_map(BTreeMap::values).flatten();
        devices.filter_map(|device| device.memory).max().map(ShareSize::Memory)
    }

    /// The devices planned for one container and resource.
    pub fn devices(&self, container: &str, resource: &ResourceName) -> &[PlannedDevice] {
        self.containers
            .get(container)
            .and_then(|resources| resources.get(resource))
            .map_or(&[], Vec::as_slice)
    }

    /// The pod's devices of each resource; those that init containers hand on count once.
    pub fn sets(&self, request: &Request) -> BTreeMap<ResourceName, Vec<PlannedDevice>> {
        let mut sets: BTreeMap<ResourceName, Vec<PlannedDevice>> = BTreeMap::new();
        let mut handed_on: BTreeMap<&ResourceName, Vec<&PlannedDevice>> = BTreeMap::new();
        for container in request.containers() {
            for resource in container.devices.keys() {
                let pool = handed_on.entry(resource).or_default();
                let planned = self.devices(&container.name, resource);
                for device in planned {
                    match pool.iter().position(|&other| other == device) {
                        Some(at) => drop(pool.swap_remove(at)),
                        None => sets.entry(resource.clone()).or_default().push(device.clone()),
                    }
                }
                if container.role == Role::Init {
                    pool.extend(planned);
                }
            }
        }
        sets
    }
}

impl PlannedDevice {
    /// The device as a plan names it: a part of a GPU, with the size of a share if it is one.
    pub fn of(gpu: &Gpu, offer: usize, share: Option<ShareSize>) -> Self {
        let slice = match gpu.kind.offers().get(offer).map(|offer| &offer.part) {
            Some(Part::Slice(slice)) => Some((slice.profile.clone(), slice.start)),
            Some(Part::Whole) | None => None,
        };
        let is_share = gpu.kind.equal_share(offer).is_some();
        let memory = share.filter(|_| is_share).map(|share| share.of(gpu.kind.memory()));
        Self { gpu: gpu.uuid.clone(), slice, memory }
    }

    /// Finds it among a node's GPUs: the places of the GPU and of its offer.
    pub fn locate<'a>(
        &self,
        gpus: impl IntoIterator<Item = &'a Gpu>,
        resource: &ResourceName,
    ) -> Option<(usize, usize)> {
        let (g, gpu) = gpus.into_iter().enumerate().find(|(_, gpu)| gpu.uuid == self.gpu)?;
        let same = |part: &Part| match (part, &self.slice) {
            (Part::Whole, None) => true,
            (Part::Slice(slice), Some((profile, start))) => {
                &slice.profile == profile && slice.start == *start
            }
            _ => false,
        };
        gpu.kind.offers_of(resource).find(|(_, offer)| same(&offer.part)).map(|(offer, _)| (g, offer))
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(200).collect()
}
