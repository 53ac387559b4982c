//! Nodes for tests, in a few words.

use stowage_shared::mig::{Geometry, MigSlice};
use stowage_shared::models::Model;
use stowage_shared::resource::ResourceName;
use stowage_shared::units::MemoryMib;

use crate::config::{
    AllocationPolicy, MigStrategy, ResourceNames, SharedDevices, SharedResource, Sharing, SharingStrategy,
};
use crate::inventory::{Inventory, OfferError, OfferRules};
use crate::nvml::{GpuReading, MigDeviceReading, MigReading, Reading};

fn geometry() -> Geometry {
    Model::by_key("a100-40gb").and_then(Model::geometry).unwrap()
}

/// One A100 of 40 GB: `whole`, `empty` (MIG mode without instances), or `1g.5gb@0 3g.20gb@4`; `1c.3g.20gb@4` leaves part of its
/// GPU instance.
pub(crate) fn gpu(index: u32, what: &str) -> GpuReading {
    let device = |(number, text): (u32, &str)| {
        let (profile, start) = text.split_once('@').unwrap();
        let (fills, profile) = profile.strip_prefix("1c.").map_or((true, profile), |p| (false, p));
        let known = geometry().profile(&profile.parse().unwrap()).unwrap().clone();
        MigDeviceReading {
            uuid: format!("MIG-{index}-{number}"),
            index: number,
            slice: MigSlice {
                profile: known.name,
                start: start.parse().unwrap(),
                size: known.size,
                media_engines: known.media_engines,
            },
            fills_gpu_instance: fills,
            gpu_instance_id: 7 + number,
            compute_instance_id: 0,
        }
    };
    let devices = if matches!(what, "whole" | "empty") { "" } else { what };
    GpuReading {
        uuid: format!("GPU-{index}").parse().unwrap(),
        index,
        minor: index,
        model: "NVIDIA A100-SXM4-40GB".into(),
        memory: MemoryMib(40_960),
        bus_id: format!("00000000:{:02X}:00.0", 4 + 3 * index),
        numa_node: Some(index / 4),
        mig: Some(MigReading {
            enabled: what != "whole",
            geometry: geometry(),
            devices: (0..).zip(devices.split_whitespace()).map(device).collect(),
            instances: Vec::new(),
            switchable: false,
        }),
    }
}

/// `rename gpu=4` and the like: which resources are shared, and whether they are renamed; `spread` over the GPUs,
/// `distinct` GPUs for one container; by `mps`, with shares that are `sized`.
pub(crate) fn rules(mig_strategy: MigStrategy, sharing: &str) -> OfferRules {
    let rename = sharing.starts_with("rename");
    let resources: Vec<SharedResource> = sharing
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, n)| {
            let name: ResourceName = format!("nvidia.com/{name}").parse().unwrap();
            let rename = rename.then(|| name.shared());
            SharedResource { name, rename, devices: SharedDevices::All, replicas: n.parse().unwrap() }
        })
        .collect();
    let shared = (!resources.is_empty()).then(|| Sharing {
        resources,
        distinct_gpus: sharing.contains("distinct"),
        strategy: if sharing.contains("mps") { SharingStrategy::Mps } else { SharingStrategy::TimeSlicing },
        sized_shares: sharing.contains("sized"),
        ..Sharing::default()
    });
    let allocation_policy =
        if sharing.contains("spread") { AllocationPolicy::Distributed } else { AllocationPolicy::Packed };
    let names = ResourceNames::default();
    let elastic = sharing.contains("elastic");
    OfferRules { mig_strategy, mig_static: Vec::new(), elastic, names, sharing: shared, allocation_policy }
}

/// A node of such GPUs.
pub(crate) fn inventory(
    gpus: &[&str],
    strategy: MigStrategy,
    sharing: &str,
) -> Result<Inventory, OfferError> {
    let gpus = (0..).zip(gpus).map(|(index, what)| gpu(index, what)).collect();
    Inventory::build(&Reading { gpus, ..Reading::default() }, &rules(strategy, sharing))
}
