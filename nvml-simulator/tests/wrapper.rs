//! What a Rust program sees through `nvml-wrapper`.
#![allow(clippy::unwrap_used)]

mod common;

use common::on_node;
use nvml_simulator::description::{Description, GPUS_MAX, GpuDescription, MigInstanceDescription};
use nvml_wrapper::enum_wrappers::device::{Brand, TopologyLevel};
use nvml_wrapper::enums::device::DeviceArchitecture;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::MemoryInfo;
use stowage_shared::models::{MODELS, Model};

const GIB: u64 = 1 << 30;

fn eight_a100() -> Description {
    Description::new(vec![
        GpuDescription::new("a100-40gb").times(4).on_numa_node(0),
        GpuDescription::new("a100-40gb").times(4).on_numa_node(1),
    ])
}

#[test]
fn a_node_is_seen_as_it_is_described() {
    on_node("a_node_is_seen_as_it_is_described", &eight_a100(), |node| {
        let nvml = node.wrapper();
        assert_eq!(nvml.sys_driver_version().unwrap(), "570.86.15");
        assert_eq!(nvml.sys_nvml_version().unwrap(), "12.570.86.15");
        assert_eq!(nvml.sys_cuda_driver_version().unwrap(), 12_080);
        assert_eq!(nvml.device_count().unwrap(), 8);

        let gpu = nvml.device_by_index(5).unwrap();
        assert_eq!(gpu.name().unwrap(), "NVIDIA A100-SXM4-40GB");
        assert_eq!(gpu.index().unwrap(), 5);
        assert_eq!(gpu.minor_number().unwrap(), 5);
        assert_eq!(gpu.numa_node_id().unwrap(), 1);
        assert_eq!(gpu.brand().unwrap(), Brand::Nvidia);
        assert_eq!(gpu.architecture().unwrap(), DeviceArchitecture::Ampere);
        let capability = gpu.cuda_compute_capability().unwrap();
        assert_eq!((capability.major, capability.minor), (8, 0));
        let memory =
            MemoryInfo { free: 40 * GIB, reserved: 0, total: 40 * GIB, used: 0, version: 0x0200_0028 };
        assert_eq!(gpu.memory_info().unwrap(), memory);
        assert_eq!(gpu.running_compute_processes_count().unwrap(), 0);
        assert!(gpu.running_compute_processes().unwrap().is_empty());

        let uuid = gpu.uuid().unwrap();
        assert_eq!(nvml.device_by_uuid(uuid.as_str()).unwrap().index().unwrap(), 5);
        let pci = gpu.pci_info().unwrap();
        assert_eq!(nvml.device_by_pci_bus_id(pci.bus_id.as_str()).unwrap().index().unwrap(), 5);
        assert_eq!(pci.bus_id, "00000000:13:00.0");
        assert_eq!(pci.pci_device_id & 0xffff, 0x10de);
    });
}

#[test]
fn no_two_gpus_share_a_uuid_an_address_or_a_minor_number() {
    on_node("no_two_gpus_share_a_uuid_an_address_or_a_minor_number", &eight_a100(), |node| {
        let nvml = node.wrapper();
        let gpus: Vec<_> = (0..8).map(|index| nvml.device_by_index(index).unwrap()).collect();
        for (i, one) in gpus.iter().enumerate() {
            for other in &gpus[i + 1..] {
                assert_ne!(one.uuid().unwrap(), other.uuid().unwrap());
                assert_ne!(one.pci_info().unwrap().bus_id, other.pci_info().unwrap().bus_id);
                assert_ne!(one.minor_number().unwrap(), other.minor_number().unwrap());
            }
        }
    });
}

#[test]
fn gpus_of_one_numa_node_share_a_host_bridge() {
    on_node("gpus_of_one_numa_node_share_a_host_bridge", &eight_a100(), |node| {
        let nvml = node.wrapper();
        let common = |one, other| {
            let other = nvml.device_by_index(other).unwrap();
            nvml.device_by_index(one).unwrap().topology_common_ancestor(other).unwrap()
        };
        assert_eq!(common(0, 0), TopologyLevel::Internal);
        assert_eq!(common(0, 3), TopologyLevel::HostBridge);
        assert_eq!(common(3, 4), TopologyLevel::System);
    });
}

#[test]
fn mig_devices_of_every_known_model_are_those_of_its_geometry() {
    // One GPU for each slice that could exist: 25 on each 7-slice model, 13 on an A30, 30 on an RTX PRO 6000.
    let test = "mig_devices_of_every_known_model_are_those_of_its_geometry";
    let mig = MODELS.iter().filter_map(|model| Some((model, model.geometry()?)));
    let gpus: Vec<_> = mig
        .flat_map(|(model, geometry)| {
            let slices: Vec<_> = geometry.slices().collect();
            slices.into_iter().map(move |slice| {
                let instance = MigInstanceDescription::new(slice.profile.as_str()).at(slice.start);
                GpuDescription {
                    mig_instances: vec![instance],
                    ..GpuDescription::new(model.key).with_mig(&[])
                }
            })
        })
        .collect();
    assert!(gpus.len() > 200);
    for (part, gpus) in gpus.chunks(GPUS_MAX as usize).enumerate() {
        let description = Description::new(gpus.to_vec()).named(&part.to_string());
        on_node(test, &description, each_gpu_has_its_one_instance);
        if common::is_child(test) {
            break; // Its node is the one part that its parent wrote.
        }
    }
}

fn each_gpu_has_its_one_instance(node: &common::Node) {
    let nvml = node.wrapper();
    let described = Description::read(&node.description).unwrap().gpus;
    assert_eq!(nvml.device_count().unwrap() as usize, described.len());
    for (index, gpu) in (0..).zip(described) {
        let model = Model::by_key(&gpu.model).unwrap();
        let geometry = model.geometry().unwrap();
        let name = &gpu.mig_instances[0].profile;
        let profile = geometry.profile(&name.parse().unwrap()).unwrap();
        let device = nvml.device_by_index(index).unwrap();
        assert_eq!(device.mig_device_count().unwrap(), u32::from(geometry.compute_slices));

        let mig = device.mig_device_by_index(0).unwrap();
        assert!(mig.mig_is_mig_device_handle().unwrap() && !device.mig_is_mig_device_handle().unwrap());
        assert_eq!(mig.name().unwrap(), format!("{} MIG {name}", model.product));
        assert_eq!(mig.memory_info().unwrap().total, profile.memory.to_bytes());
        assert_eq!(mig.mig_parent_device().unwrap().uuid().unwrap(), device.uuid().unwrap());
        let attributes = mig.attributes().unwrap();
        assert_eq!(attributes.memory_size_mb, profile.memory.0);
        assert_eq!(attributes.gpu_instance_slice_count, u32::from(profile.compute_slices));
        assert_eq!(attributes.compute_instance_slice_count, u32::from(profile.compute_slices));
        assert_eq!(attributes.multiprocessor_count, u32::from(profile.multiprocessors));
        let uuid = mig.uuid().unwrap();
        assert!(uuid.starts_with("MIG-") && uuid.len() == 40, "{uuid}");
        assert_eq!(nvml.device_by_uuid(uuid.as_str()).unwrap().name().unwrap(), mig.name().unwrap());
        if geometry.compute_slices > 1 {
            assert!(matches!(device.mig_device_by_index(1), Err(NvmlError::NotFound)));
        }
        let past = u32::from(geometry.compute_slices);
        assert!(matches!(device.mig_device_by_index(past), Err(NvmlError::InvalidArg)));
    }
}

#[test]
fn a_lost_gpu_is_counted_but_cannot_be_asked() {
    let gpus = vec![GpuDescription::new("t4"), GpuDescription::new("t4").lost(), GpuDescription::new("l4")];
    on_node("a_lost_gpu_is_counted_but_cannot_be_asked", &Description::new(gpus), |node| {
        let nvml = node.wrapper();
        assert_eq!(nvml.device_count().unwrap(), 3);
        assert!(matches!(nvml.device_by_index(1), Err(NvmlError::GpuLost)));
        let lost = node.outside().hardware().gpus[1].uuid.clone();
        assert!(matches!(nvml.device_by_uuid(lost), Err(NvmlError::GpuLost)));
        assert_eq!(nvml.device_by_index(0).unwrap().brand().unwrap(), Brand::Tesla);
        assert_eq!(nvml.device_by_index(2).unwrap().name().unwrap(), "NVIDIA L4");
    });
}

#[test]
fn a_gpu_lost_later_fails_on_the_handle_one_has_and_can_come_back() {
    let test = "a_gpu_lost_later_fails_on_the_handle_one_has_and_can_come_back";
    on_node(test, &Description::new(vec![GpuDescription::new("a100-40gb").with_mig(&["7g.40gb"])]), |node| {
        let nvml = node.wrapper();
        let gpu = nvml.device_by_index(0).unwrap();
        let mig = gpu.mig_device_by_index(0).unwrap();
        node.outside().update(|node| node.set_lost(0, true)).unwrap();
        assert!(matches!(gpu.uuid(), Err(NvmlError::GpuLost)));
        assert!(matches!(mig.uuid(), Err(NvmlError::GpuLost)));
        node.outside().update(|node| node.set_lost(0, false)).unwrap();
        assert!(gpu.uuid().is_ok() && mig.uuid().is_ok());
    });
}

#[test]
fn gpus_without_mig_say_so() {
    on_node("gpus_without_mig_say_so", &Description::new(vec![GpuDescription::new("t4")]), |node| {
        let nvml = node.wrapper();
        let gpu = nvml.device_by_index(0).unwrap();
        assert!(matches!(gpu.mig_mode(), Err(NvmlError::NotSupported)));
        assert!(matches!(gpu.mig_device_by_index(0), Err(NvmlError::NotSupported)));
        assert_eq!(gpu.mig_device_count().unwrap(), 0);
        assert!(matches!(gpu.numa_node_id(), Err(NvmlError::NotSupported)));
    });
}
