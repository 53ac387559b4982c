//! NVIDIA's strategies: under which names a node's GPUs and MIG devices are offered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use stowage_shared::contract::GPUS_PER_NODE_MAX;
use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::{Gpu, GpuKind, Offer, Part};
use stowage_shared::gpu_node::GeometryStatus;
use stowage_shared::mig::MigSlice;
use stowage_shared::resource::ResourceName;

use super::{Inventory, OfferError, OfferRules, PartDetail, ShareRules, geometry_status};
use crate::config::{MigStrategy, ResourceNames, SharedDevices, SharedResource, Sharing, SharingStrategy};
use crate::nvml::{GpuReading, MigDeviceReading, MigReading, Reading};

pub(super) fn build(reading: &Reading, rules: &OfferRules) -> Result<Inventory, OfferError> {
    if rules.mig_strategy == MigStrategy::Single {
        check_single(reading)?;
    }
    let mut inventory = Inventory::default();
    let mut kinds: Vec<Arc<GpuKind>> = Vec::new();
    let mut shares = Shares::new(rules.sharing.as_ref());
    let distinct = rules.sharing.as_ref().is_some_and(|sharing| sharing.distinct_gpus);
    let by_mps = rules.sharing.as_ref().is_some_and(|sharing| sharing.strategy == SharingStrategy::Mps);
    let capped = by_mps && rules.sharing.as_ref().is_some_and(|sharing| !sharing.sized_shares);
    for gpu in &reading.gpus {
        let (mut offers, mut part_uuids) = (Vec::new(), Vec::new());
        for part in parts(gpu, rules, &mut inventory.remarks) {
            let shared = shares.take(&part);
            if by_mps && shared.is_some() && part.part != Part::Whole {
                return Err(OfferError::MpsOnMig(part.uuid));
            }
            // An elastic GPU is there for whoever comes first: somebody who wants all of it, or those who share it.
            let whole = (rules.elastic && shared.is_some()).then_some(None);
            for shared in whole.into_iter().chain([shared]) {
                offers.push(part.offer(shared, distinct, capped));
                part_uuids.push(part.uuid.clone());
            }
            inventory.parts.insert(part.uuid, part.detail);
        }
        let foreign = foreign(gpu, rules);
        if let Some(mig) = on_demand(gpu, rules) {
            offers.extend(Offer::on_demand(mig.geometry.slices(), &foreign));
            part_uuids.resize(offers.len(), String::new());
            inventory.cut.insert(gpu.uuid.to_string(), whole(gpu));
        }
        inventory.gpus.push(Arc::new(Gpu {
            uuid: gpu.uuid.clone(),
            index: gpu.index,
            numa_node: gpu.numa_node,
            kind: kind(&mut kinds, gpu, offers)?,
            part_uuids,
            near: near(gpu, reading),
            foreign,
            unhealthy: None,
            sick: BTreeMap::new(),
        }));
    }
    inventory.geometries = geometries(reading);
    inventory.share_rules = ShareRules { policy: rules.allocation_policy, distinct_gpus: distinct };
    inventory.remarks.extend(
        reading
            .unreadable
            .iter()
            .map(|(index, why)| format!("GPU {index} cannot be read, and is not offered: {why}")),
    );
    inventory.remarks.extend(shares.remarks());
    Ok(inventory)
}

/// How near the GPUs of lower index are, by index.
fn near(gpu: &GpuReading, reading: &Reading) -> Vec<u16> {
    let lower = reading.gpus.iter().filter(|other| other.index < gpu.index);
    let mut near = Vec::new();
    for other in lower {
        let at = usize::try_from(other.index).unwrap_or(usize::MAX);
        if let Some(score) = reading.nearness.of(&gpu.uuid, &other.uuid)
            && at < GPUS_PER_NODE_MAX
        {
            near.resize(near.len().max(at + 1), 0);
            near[at] = score;
        }
    }
    near
}

/// A part of a GPU, and the name that it would have without sharing.
struct PartOf {
    name: ResourceName,
    part: Part,
    uuid: String,
    detail: PartDetail,
}

impl PartOf {
    fn offer(&self, shared: Option<&SharedResource>, distinct: bool, capped: bool) -> Offer {
        let rename = shared.and_then(|shared| shared.rename.clone());
        Offer {
            resource: rename.unwrap_or_else(|| self.name.clone()),
            part: self.part.clone(),
            replicas: shared.map(|shared| shared.replicas),
            distinct: shared.is_some() && distinct,
            capped: shared.is_some() && capped,
        }
    }
}

/// MIG of a GPU whose slices are built on demand.
fn on_demand<'a>(gpu: &'a GpuReading, rules: &OfferRules) -> Option<&'a MigReading> {
    let is_static = rules.mig_static.iter().any(|id| *id == gpu.index.to_string() || id == gpu.uuid.as_str());
    let mig = gpu.mig.as_ref().filter(|_| rules.mig_strategy == MigStrategy::OnDemand && !is_static)?;
    (mig.enabled || is_elastic(gpu, rules)).then_some(mig)
}

/// Whether a GPU may be whole or cut, as its first user wants it.
fn is_elastic(gpu: &GpuReading, rules: &OfferRules) -> bool {
    let switchable = |mig: &MigReading| mig.switchable && !mig.geometry.profiles.is_empty();
    rules.elastic && gpu.mig.as_ref().is_some_and(switchable)
}

/// The MIG instances in the way of those that are built on demand.
fn foreign(gpu: &GpuReading, rules: &OfferRules) -> Vec<MigSlice> {
    let instances = on_demand(gpu, rules).into_iter().flat_map(|mig| &mig.instances);
    instances.map(|instance| instance.slice.clone()).collect()
}

fn parts(gpu: &GpuReading, rules: &OfferRules, remarks: &mut Vec<String>) -> Vec<PartOf> {
    let cut = gpu.mig.as_ref().filter(|mig| mig.enabled && rules.mig_strategy != MigStrategy::None);
    let stays_cut = |mig: &&MigReading| !(is_elastic(gpu, rules) && mig.instances.is_empty());
    let cut = cut.filter(|mig| on_demand(gpu, rules).is_none() || stays_cut(mig));
    let Some(mig) = cut else {
        return vec![PartOf {
            name: ResourceNames::of(&rules.names.gpus, &gpu.model).cloned().unwrap_or_else(ResourceName::gpu),
            part: Part::Whole,
            uuid: gpu.uuid.to_string(),
            detail: whole(gpu),
        }];
    };
    if on_demand(gpu, rules).is_some() {
        return Vec::new();
    }
    if mig.devices.is_empty() {
        remarks.push(format!(
            "GPU {} is in MIG mode without MIG devices, and offers nothing: create some and restart this program, or \
             switch MIG mode off",
            gpu.index
        ));
    }
    let mut parts = Vec::new();
    for device in &mig.devices {
        if !device.fills_gpu_instance {
            remarks.push(format!(
                "{} is not offered: its compute instance takes only part of a {} instance",
                device.uuid, device.slice.profile
            ));
        } else if device.uuid.parse::<DeviceId>().is_err() {
            remarks.push(format!(
                "{:?} is not offered: a driver of version 470 or newer names MIG devices MIG-<uuid>",
                device.uuid
            ));
        } else {
            parts.push(slice(gpu, device, rules));
        }
    }
    parts
}

/// What `Allocate` must know of a whole GPU.
fn whole(gpu: &GpuReading) -> PartDetail {
    PartDetail {
        index: gpu.index.to_string(),
        minor: gpu.minor,
        instances: None,
        bus_id: gpu.bus_id.clone(),
        has_graphics: true,
    }
}

fn slice(gpu: &GpuReading, device: &MigDeviceReading, rules: &OfferRules) -> PartOf {
    let usual = || match rules.mig_strategy {
        MigStrategy::Single => ResourceName::gpu(),
        MigStrategy::None | MigStrategy::Mixed | MigStrategy::OnDemand => {
            ResourceName::mig(&device.slice.profile)
        }
    };
    let named = ResourceNames::of(&rules.names.mig, device.slice.profile.as_str());
    PartOf {
        name: named.cloned().unwrap_or_else(usual),
        part: Part::Slice(device.slice.clone()),
        uuid: device.uuid.clone(),
        detail: PartDetail {
            index: format!("{}:{}", gpu.index, device.index),
            minor: gpu.minor,
            instances: Some((device.gpu_instance_id, device.compute_instance_id)),
            bus_id: gpu.bus_id.clone(),
            has_graphics: device.slice.profile.as_str().contains("+gfx"),
        },
    }
}

/// What strategy `single` wants: no GPU in MIG mode, or all of them cut into one kind of slice.
fn check_single(reading: &Reading) -> Result<(), OfferError> {
    let is_cut = |gpu: &&GpuReading| gpu.mig.as_ref().is_some_and(|mig| mig.enabled);
    let (with, without): (Vec<&GpuReading>, Vec<&GpuReading>) = reading.gpus.iter().partition(is_cut);
    if let (Some(with), Some(without)) = (with.first(), without.first()) {
        return Err(OfferError::Modes { with: with.index, without: without.index });
    }
    let mut first: Option<&MigDeviceReading> = None;
    for gpu in with {
        let devices = gpu.mig.as_ref().map_or(&[][..], |mig| &mig.devices);
        if devices.is_empty() {
            return Err(OfferError::NoDevices(gpu.index));
        }
        for device in devices {
            if !device.fills_gpu_instance {
                return Err(OfferError::PartOfInstance(device.uuid.clone()));
            }
            let (one, two) = (&first.get_or_insert(device).slice.profile, &device.slice.profile);
            if one != two {
                return Err(OfferError::Profiles(one.clone(), two.clone()));
            }
        }
    }
    Ok(())
}

/// GPUs that are alike share their kind.
fn kind(
    known: &mut Vec<Arc<GpuKind>>,
    gpu: &GpuReading,
    offers: Vec<Offer>,
) -> Result<Arc<GpuKind>, OfferError> {
    let kind = GpuKind::new(gpu.model.clone(), gpu.memory, offers)
        .map_err(|source| OfferError::Kind { index: gpu.index, source })?;
    if let Some(same) = known.iter().find(|other| ***other == kind) {
        return Ok(same.clone());
    }
    let kind = Arc::new(kind);
    known.push(kind.clone());
    Ok(kind)
}

fn geometries(reading: &Reading) -> Vec<GeometryStatus> {
    let mut geometries: HashMap<&str, GeometryStatus> = HashMap::new();
    for gpu in &reading.gpus {
        if let Some(status) = geometry_status(gpu) {
            geometries.entry(&gpu.model).or_insert(status);
        }
    }
    let mut geometries: Vec<GeometryStatus> = geometries.into_values().collect();
    geometries.sort_by(|a, b| a.model.cmp(&b.model));
    geometries
}

/// Which devices are shared: each belongs to the first entry that names it.
struct Shares<'a> {
    /// The entries, with how many devices each has got.
    entries: Vec<(&'a SharedResource, u32)>,
    /// Every device that was there: its resource, its UUID and its index.
    seen: Vec<(ResourceName, [String; 2])>,
}

impl<'a> Shares<'a> {
    fn new(sharing: Option<&'a Sharing>) -> Self {
        let entries = sharing.iter().flat_map(|sharing| &sharing.resources);
        Self { entries: entries.map(|entry| (entry, 0)).collect(), seen: Vec::new() }
    }

    fn take(&mut self, part: &PartOf) -> Option<&'a SharedResource> {
        let names = [part.uuid.clone(), part.detail.index.clone()];
        let wants = |(entry, got): &(&SharedResource, u32)| {
            entry.name == part.name
                && match &entry.devices {
                    SharedDevices::All => true,
                    SharedDevices::Count(count) => got < count,
                    SharedDevices::List(list) => names.iter().any(|name| list.contains(name)),
                }
        };
        let taker = self.entries.iter_mut().find(|entry| wants(entry));
        self.seen.push((part.name.clone(), names));
        let (entry, got) = taker?;
        *got += 1;
        Some(entry)
    }

    /// Sharing that nothing here matches: fine where one file serves many nodes, but worth a line in the log.
    fn remarks(&self) -> impl Iterator<Item = String> {
        self.entries.iter().flat_map(|(SharedResource { name, devices, .. }, got)| {
            let seen = || self.seen.iter().filter(|(of, _)| of == name).map(|(_, names)| names);
            match devices {
                SharedDevices::List(list) => list
                    .iter()
                    .filter(|device| !seen().flatten().any(|known| known == *device))
                    .map(|device| {
                        format!("device {device} of {name} is to be shared, and this node has none such")
                    })
                    .collect(),
                _ if seen().next().is_none() => {
                    vec![format!("{name} is to be shared, and this node has none of it")]
                }
                SharedDevices::Count(count) if got < count => {
                    vec![format!("{count} devices of {name} are to be shared, and this node has {got}")]
                }
                SharedDevices::All | SharedDevices::Count(_) => Vec::new(),
            }
        })
    }
}
