//! NVIDIA's strategies: under which names a node's GPUs and MIG devices are offered.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::{Gpu, GpuKind, Offer, Part};
use stowage_shared::gpu_node::GeometryStatus;
use stowage_shared::resource::ResourceName;

use super::{Inventory, OfferError, OfferRules, PartDetail, geometry_status};
use crate::config::{MigStrategy, TimeSlicing};
use crate::nvml::{GpuReading, MigDeviceReading, Reading};

pub(super) fn build(reading: &Reading, rules: &OfferRules) -> Result<Inventory, OfferError> {
    if rules.mig_strategy == MigStrategy::Single {
        check_single(reading)?;
    }
    let mut inventory = Inventory::default();
    let mut kinds: Vec<Arc<GpuKind>> = Vec::new();
    for gpu in &reading.gpus {
        let parts = parts(gpu, rules.mig_strategy, &mut inventory.remarks);
        let offers: Vec<Offer> = parts.iter().map(|part| part.offer(rules.time_slicing.as_ref())).collect();
        for (part, offer) in parts.iter().zip(&offers) {
            inventory.parts.insert(part.uuid.clone(), part.detail.clone());
            if offer.replicas.is_some() {
                inventory.shared.insert(offer.resource.clone());
            }
        }
        inventory.gpus.push(Arc::new(Gpu {
            uuid: gpu.uuid.clone(),
            index: gpu.index,
            numa_node: gpu.numa_node,
            kind: kind(&mut kinds, gpu, offers)?,
            part_uuids: parts.into_iter().map(|part| part.uuid).collect(),
            foreign: Vec::new(),
            unhealthy: None,
        }));
    }
    inventory.geometries = geometries(reading);
    inventory.remarks.extend(
        reading
            .unreadable
            .iter()
            .map(|(index, why)| format!("GPU {index} cannot be read, and is not offered: {why}")),
    );
    inventory.remarks.extend(unused_sharing(&inventory, rules.time_slicing.as_ref()));
    Ok(inventory)
}

/// A part of a GPU, and the name that it would have without sharing.
struct PartOf {
    name: ResourceName,
    part: Part,
    uuid: String,
    detail: PartDetail,
}

impl PartOf {
    fn offer(&self, sharing: Option<&TimeSlicing>) -> Offer {
        let replicas = sharing.and_then(|sharing| sharing.replicas.get(&self.name).copied());
        let renamed = replicas.is_some() && sharing.is_some_and(|sharing| sharing.rename_by_default);
        let resource = if renamed { self.name.shared() } else { self.name.clone() };
        Offer { resource, part: self.part.clone(), replicas }
    }
}

fn parts(gpu: &GpuReading, strategy: MigStrategy, remarks: &mut Vec<String>) -> Vec<PartOf> {
    let cut = gpu.mig.as_ref().filter(|mig| mig.enabled && strategy != MigStrategy::None);
    let Some(mig) = cut else {
        let detail = PartDetail { index: gpu.index.to_string(), minor: gpu.minor, instances: None };
        return vec![PartOf {
            name: ResourceName::gpu(),
            part: Part::Whole,
            uuid: gpu.uuid.to_string(),
            detail,
        }];
    };
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
            parts.push(slice(gpu, device, strategy));
        }
    }
    parts
}

fn slice(gpu: &GpuReading, device: &MigDeviceReading, strategy: MigStrategy) -> PartOf {
    PartOf {
        name: match strategy {
            MigStrategy::Single => ResourceName::gpu(),
            MigStrategy::None | MigStrategy::Mixed => ResourceName::mig(&device.slice.profile),
        },
        part: Part::Slice(device.slice.clone()),
        uuid: device.uuid.clone(),
        detail: PartDetail {
            index: format!("{}:{}", gpu.index, device.index),
            minor: gpu.minor,
            instances: Some((device.gpu_instance_id, device.compute_instance_id)),
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

/// Sharing that nothing here matches: fine where one file serves many nodes, but worth a line in the log.
fn unused_sharing(inventory: &Inventory, sharing: Option<&TimeSlicing>) -> Vec<String> {
    let offered: BTreeSet<&ResourceName> =
        inventory.gpus.iter().flat_map(|gpu| gpu.kind.offers()).map(|offer| &offer.resource).collect();
    let names = sharing.iter().flat_map(|sharing| sharing.replicas.keys());
    let unused = names.filter(|&name| !offered.contains(name) && !offered.contains(&name.shared()));
    unused.map(|name| format!("{name} is to be shared, and this node has none of it")).collect()
}
