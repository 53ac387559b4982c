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

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
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
            let gpu =
                device.gpu.parse().map_err(|e: crate::gpu::GpuUuidError| PlanError::Format(e.to_string()))?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pod::PodSpec;

    const TEXT: &str = r#"{"v":1,"uid":"u","node":"n","c":{"main":{"nvidia.com/mig-1g.5gb":[{"gpu":"GPU-a","profile":"1g.5gb","start":3}]}}}"#;

    fn request(text: &str) -> Request {
        let spec: PodSpec = serde_json::from_str(text).unwrap();
        Request::of_standard(&spec).unwrap()
    }

    fn one_slice() -> Request {
        request(r#"{"containers":[{"name":"main","resources":{"limits":{"nvidia.com/mig-1g.5gb":"1"}}}]}"#)
    }

    #[test]
    fn the_documented_text_is_read_and_written_byte_by_byte() {
        let plan = Plan::read(TEXT, "u", "n", &one_slice()).unwrap();
        assert_eq!(plan.to_annotation().unwrap(), TEXT);
    }

    #[test]
    fn a_plan_for_somebody_else_is_no_plan() {
        let read =
            |uid: &str, node: &str, request: &Request| Plan::read(TEXT, uid, node, request).unwrap_err();
        assert_eq!(read("v", "n", &one_slice()), PlanError::OtherPod("u".into()));
        assert_eq!(read("u", "m", &one_slice()), PlanError::OtherNode("n".into()));
        assert!(matches!(read("u", "n", &Request::default()), PlanError::OtherRequest(_)));
        let more =
            request(r#"{"containers":[{"name":"main","resources":{"limits":{"nvidia.com/mig-1g.5gb":2}}}]}"#);
        assert!(matches!(read("u", "n", &more), PlanError::OtherRequest(_)));
    }

    #[test]
    fn what_is_not_the_format_says_why() {
        for (text, want) in [
            (String::new(), "cannot be read"),
            ("x".repeat(PLAN_MAX_BYTES + 1), "at most 4096"),
            (TEXT.replace(r#""v":1"#, r#""v":2"#), "version 2"),
            (TEXT.replace(r#","start":3"#, ""), "both profile and start"),
            (TEXT.replace("GPU-a", "../../etc"), "not a GPU UUID"),
            (TEXT.replace("1g.5gb\",\"start", "1g\",\"start"), "not a MIG profile"),
            (TEXT.replace(r#""uid""#, r#""extra":1,"uid""#), "unknown field"),
            ("[".repeat(4000), "cannot be read"),
        ] {
            let error = Plan::parse(&text).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    fn any_plan() -> impl Strategy<Value = Plan> {
        let slice =
            prop::option::of((prop::sample::select(vec!["1g.5gb", "3g.20gb", "1g.5gb+me"]), 0_u8..12));
        let memory = prop::option::of((1_u64..1 << 40).prop_map(MemoryMib));
        let device = ("GPU-[0-9a-f]{1,36}", slice, memory).prop_map(|(gpu, slice, memory)| PlannedDevice {
            gpu: gpu.parse().unwrap(),
            slice: slice.map(|(profile, start)| (profile.parse().unwrap(), start)),
            memory,
        });
        let resource =
            prop::sample::select(vec!["nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.5gb"]);
        let devices = prop::collection::vec(device, 0..4);
        let resources = prop::collection::btree_map(resource.prop_map(|r| r.parse().unwrap()), devices, 0..3);
        let containers = prop::collection::btree_map("[a-z]{1,8}", resources, 0..3);
        ("[0-9a-f-]{1,36}", "[a-z0-9.-]{1,20}", containers).prop_map(|(uid, node, containers)| Plan {
            uid,
            node,
            containers,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(plan in any_plan()) {
            prop_assert_eq!(Plan::parse(&plan.to_annotation().unwrap()).unwrap(), plan);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,300}", at in 0_usize..100) {
            let _ = Plan::parse(&text);
            let mut cut = TEXT.to_owned();
            cut.truncate(at.min(TEXT.len()));
            let _ = Plan::parse(&(cut + &text));
        }
    }
}
