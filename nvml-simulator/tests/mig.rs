//! MIG through the C API: profiles, placements, and building and tearing down instances.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::ptr::null_mut;

use common::{array_text, ask, ask_text, gpu, on_node};
use nvml_simulator::description::{Description, GpuDescription, MigInstanceDescription};
use nvml_wrapper_sys::bindings::{
    NvmlLib, nvmlComputeInstance_t, nvmlComputeInstanceInfo_t, nvmlComputeInstanceProfileInfo_t,
    nvmlComputeInstanceProfileInfo_v3_t, nvmlDevice_t, nvmlGpuInstance_t, nvmlGpuInstanceInfo_t,
    nvmlGpuInstancePlacement_t, nvmlGpuInstanceProfileInfo_t, nvmlGpuInstanceProfileInfo_v2_t,
    nvmlGpuInstanceProfileInfo_v3_t, nvmlReturn_t,
};
use stowage_shared::models::{MODELS, Model};

const INVALID_ARGUMENT: nvmlReturn_t = 2;
const NOT_SUPPORTED: nvmlReturn_t = 3;
const NOT_FOUND: nvmlReturn_t = 6;
const INSUFFICIENT_SIZE: nvmlReturn_t = 7;
const RESET_REQUIRED: nvmlReturn_t = 16;
const IN_USE: nvmlReturn_t = 19;
const INSUFFICIENT_RESOURCES: nvmlReturn_t = 23;

fn profile(
    nvml: &NvmlLib,
    gpu: nvmlDevice_t,
    number: u32,
) -> Result<nvmlGpuInstanceProfileInfo_t, nvmlReturn_t> {
    let empty = unsafe { std::mem::zeroed() };
    ask(empty, |out| unsafe { nvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu, number, out) })
}

fn placements(nvml: &NvmlLib, gpu: nvmlDevice_t, id: u32) -> Vec<(u32, u32)> {
    let mut count = 0;
    unsafe {
        assert_eq!(nvml.nvmlDeviceGetGpuInstancePossiblePlacements_v2(gpu, id, null_mut(), &mut count), 0);
        let mut all = vec![nvmlGpuInstancePlacement_t { start: 99, size: 99 }; count as usize];
        assert_eq!(
            nvml.nvmlDeviceGetGpuInstancePossiblePlacements_v2(gpu, id, all.as_mut_ptr(), &mut count),
            0
        );
        all.iter().map(|placement| (placement.start, placement.size)).collect()
    }
}

fn remaining(nvml: &NvmlLib, gpu: nvmlDevice_t, id: u32) -> Result<u32, nvmlReturn_t> {
    ask(0, |out| unsafe { nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, id, out) })
}

fn create(
    nvml: &NvmlLib,
    gpu: nvmlDevice_t,
    id: u32,
    at: Option<(u32, u32)>,
) -> Result<nvmlGpuInstance_t, nvmlReturn_t> {
    ask(null_mut(), |out| unsafe {
        match at {
            None => nvml.nvmlDeviceCreateGpuInstance(gpu, id, out),
            Some((start, size)) => {
                let placement = nvmlGpuInstancePlacement_t { start, size };
                nvml.nvmlDeviceCreateGpuInstanceWithPlacement(gpu, id, &placement, out)
            }
        }
    })
}

fn create_compute(
    nvml: &NvmlLib,
    instance: nvmlGpuInstance_t,
    id: u32,
) -> Result<nvmlComputeInstance_t, nvmlReturn_t> {
    ask(null_mut(), |out| unsafe { nvml.nvmlGpuInstanceCreateComputeInstance(instance, id, out) })
}

fn info(nvml: &NvmlLib, instance: nvmlGpuInstance_t) -> Result<nvmlGpuInstanceInfo_t, nvmlReturn_t> {
    let empty = unsafe { std::mem::zeroed() };
    ask(empty, |out| unsafe { nvml.nvmlGpuInstanceGetInfo(instance, out) })
}

fn compute_info(
    nvml: &NvmlLib,
    instance: nvmlComputeInstance_t,
) -> Result<nvmlComputeInstanceInfo_t, nvmlReturn_t> {
    let empty = unsafe { std::mem::zeroed() };
    ask(empty, |out| unsafe { nvml.nvmlComputeInstanceGetInfo_v2(instance, out) })
}

fn start(nvml: &NvmlLib, instance: nvmlGpuInstance_t) -> u32 {
    info(nvml, instance).unwrap().placement.start
}

/// One GPU of each model, those with MIG in MIG mode.
fn one_of_each() -> Description {
    let gpu = |model: &Model| match model.geometry() {
        Some(_) => GpuDescription::new(model.key).with_mig(&[]),
        None => GpuDescription::new(model.key),
    };
    Description::new(MODELS.iter().map(gpu).collect())
}

fn an_empty_a100() -> Description {
    Description::new(vec![GpuDescription::new("a100-40gb").with_mig(&[])])
}

#[test]
fn profiles_and_placements_of_every_known_model_are_its_geometry() {
    on_node("profiles_and_placements_of_every_known_model_are_its_geometry", &one_of_each(), |node| {
        let nvml = node.c_api_ready();
        for (index, model) in (0..).zip(MODELS) {
            let gpu = gpu(&nvml, index);
            assert_eq!(profile(&nvml, gpu, 18).unwrap_err(), INVALID_ARGUMENT, "the enumeration ends");
            let found: BTreeMap<u32, nvmlGpuInstanceProfileInfo_t> = (0..18)
                .filter_map(|number| match profile(&nvml, gpu, number) {
                    Ok(info) => Some((info.id, info)),
                    Err(code) => {
                        assert_eq!(code, NOT_SUPPORTED);
                        None
                    }
                })
                .collect();
            let profiles = model.geometry().map(|geometry| geometry.profiles).unwrap_or_default();
            assert_eq!(found.len(), profiles.len(), "{}", model.key);
            for profile in profiles {
                let info = found[&profile.id];
                assert_eq!(info.sliceCount, u32::from(profile.compute_slices));
                assert_eq!(info.instanceCount, u32::from(profile.max_instances));
                assert_eq!(info.multiprocessorCount, u32::from(profile.multiprocessors));
                assert_eq!(info.memorySizeMB, profile.memory.0);
                let want: Vec<(u32, u32)> =
                    profile.starts.iter().map(|&start| (start.into(), profile.size.into())).collect();
                assert_eq!(placements(&nvml, gpu, profile.id), want, "{} {}", model.key, profile.name);
                assert_eq!(remaining(&nvml, gpu, profile.id), Ok(profile.max_instances.into()));
            }
        }
    });
}

#[test]
fn named_profile_info_comes_in_two_versions_and_no_other() {
    on_node("named_profile_info_comes_in_two_versions_and_no_other", &one_of_each(), |node| {
        let nvml = node.c_api_ready();
        let gpu = gpu(&nvml, 0);
        unsafe {
            let mut v2: nvmlGpuInstanceProfileInfo_v2_t = std::mem::zeroed();
            v2.version = size_of_val(&v2) as u32 | 2 << 24;
            assert_eq!(nvml.nvmlDeviceGetGpuInstanceProfileInfoV(gpu, 9, &mut v2), 0);
            assert_eq!((v2.id, array_text(&v2.name)), (15, "MIG 1g.10gb".to_owned()));
            let mut v3: nvmlGpuInstanceProfileInfo_v3_t = std::mem::zeroed();
            v3.version = size_of_val(&v3) as u32 | 3 << 24;
            assert_eq!(nvml.nvmlDeviceGetGpuInstanceProfileInfoV(gpu, 7, (&raw mut v3).cast()), 0);
            assert_eq!((v3.id, array_text(&v3.name)), (20, "MIG 1g.5gb+me".to_owned()));
            for wrong in [0, 2, size_of_val(&v3) as u32 | 4 << 24] {
                v3.version = wrong;
                let code = nvml.nvmlDeviceGetGpuInstanceProfileInfoV(gpu, 7, (&raw mut v3).cast());
                assert_eq!(code, INVALID_ARGUMENT, "{wrong:#x}");
            }
        }
    });
}

#[test]
fn a_short_array_of_placements_is_told_how_long_it_should_be() {
    on_node("a_short_array_of_placements_is_told_how_long_it_should_be", &an_empty_a100(), |node| {
        let nvml = node.c_api_ready();
        let gpu = gpu(&nvml, 0);
        let mut all = [nvmlGpuInstancePlacement_t { start: 99, size: 99 }; 7];
        let mut count = 6;
        let mut ask = |id, count: &mut u32| unsafe {
            nvml.nvmlDeviceGetGpuInstancePossiblePlacements_v2(gpu, id, all.as_mut_ptr(), count)
        };
        assert_eq!((ask(19, &mut count), count), (INSUFFICIENT_SIZE, 7));
        assert_eq!((ask(19, &mut count), count), (0, 7));
        assert_eq!(ask(99, &mut count), NOT_SUPPORTED);
        assert_eq!(all[6].start, 6);
    });
}

#[test]
fn an_instance_is_built_used_and_torn_down_as_nvml_does_it() {
    on_node("an_instance_is_built_used_and_torn_down_as_nvml_does_it", &an_empty_a100(), |node| {
        let nvml = node.c_api_ready();
        let gpu = gpu(&nvml, 0);
        let instance = create(&nvml, gpu, 9, Some((4, 4))).unwrap();
        let built = info(&nvml, instance).unwrap();
        assert_eq!((built.device, built.profileId, start(&nvml, instance)), (gpu, 9, 4));
        let mig_at = |index| {
            ask(null_mut(), |out| unsafe { nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index, out) })
        };
        assert_eq!(mig_at(0), Err(NOT_FOUND), "without a compute instance there is no device");

        let compute = create_compute(&nvml, instance, 2).unwrap();
        let found = compute_info(&nvml, compute).unwrap();
        assert_eq!(mig_at(0), Ok(found.device));
        assert_eq!(found.gpuInstance, instance);
        let name =
            ask_text(|out, length| unsafe { nvml.nvmlDeviceGetName(found.device, out, length) }).unwrap();
        assert_eq!(name, "NVIDIA A100-SXM4-40GB MIG 3g.20gb");
        assert_eq!(ask(0, |out| unsafe { nvml.nvmlDeviceGetGpuInstanceId(found.device, out) }), Ok(built.id));
        assert_eq!(ask(9, |out| unsafe { nvml.nvmlDeviceGetComputeInstanceId(found.device, out) }), Ok(0));
        assert_eq!(ask(0, |out| unsafe { nvml.nvmlDeviceGetGpuInstanceId(gpu, out) }), Err(NOT_SUPPORTED));

        unsafe {
            assert_eq!(nvml.nvmlGpuInstanceDestroy(instance), IN_USE);
            assert_eq!(nvml.nvmlComputeInstanceDestroy(compute), 0);
            assert_eq!(nvml.nvmlComputeInstanceDestroy(compute), INVALID_ARGUMENT);
            assert_eq!(nvml.nvmlGpuInstanceDestroy(instance), 0);
            assert_eq!(nvml.nvmlGpuInstanceDestroy(instance), INVALID_ARGUMENT);
        }
        assert_eq!(info(&nvml, instance).unwrap_err(), INVALID_ARGUMENT);
        assert_eq!(
            ask(0, |out| unsafe { nvml.nvmlDeviceGetIndex(found.device, out) }),
            Err(INVALID_ARGUMENT)
        );
    });
}

#[test]
fn an_occupied_placement_is_out_of_resources_and_an_impossible_one_invalid() {
    let test = "an_occupied_placement_is_out_of_resources_and_an_impossible_one_invalid";
    on_node(test, &an_empty_a100(), |node| {
        let nvml = node.c_api_ready();
        let gpu = gpu(&nvml, 0);
        create(&nvml, gpu, 20, Some((6, 1))).unwrap();
        assert_eq!(create(&nvml, gpu, 20, None).unwrap_err(), INSUFFICIENT_RESOURCES, "one +me a GPU");
        assert_eq!(remaining(&nvml, gpu, 20), Ok(0));
        assert_eq!(remaining(&nvml, gpu, 19), Ok(6));
        assert_eq!(create(&nvml, gpu, 9, Some((4, 4))).unwrap_err(), INSUFFICIENT_RESOURCES);
        assert_eq!(create(&nvml, gpu, 0, None).unwrap_err(), INSUFFICIENT_RESOURCES);
        assert_eq!(create(&nvml, gpu, 9, Some((2, 4))).unwrap_err(), INVALID_ARGUMENT);
        assert_eq!(create(&nvml, gpu, 9, Some((0, 3))).unwrap_err(), INVALID_ARGUMENT);
        assert_eq!(create(&nvml, gpu, 77, None).unwrap_err(), INVALID_ARGUMENT);
        assert!(create(&nvml, gpu, 9, Some((0, 4))).is_ok());
    });
}

#[test]
fn seven_small_instances_take_the_starts_that_nvidias_guide_shows() {
    on_node("seven_small_instances_take_the_starts_that_nvidias_guide_shows", &an_empty_a100(), |node| {
        let nvml = node.c_api_ready();
        let gpu = gpu(&nvml, 0);
        let all: Vec<_> = (0..7).map(|_| create(&nvml, gpu, 19, None).unwrap()).collect();
        let starts: Vec<u32> = all.iter().map(|&instance| start(&nvml, instance)).collect();
        assert_eq!(starts, [6, 4, 5, 0, 1, 2, 3]);
        assert_eq!(create(&nvml, gpu, 19, None).unwrap_err(), INSUFFICIENT_RESOURCES);
        let mut listed = [null_mut(); 7];
        assert_eq!(
            ask(0, |out| unsafe { nvml.nvmlDeviceGetGpuInstances(gpu, 19, listed.as_mut_ptr(), out) }),
            Ok(7)
        );
        assert_eq!(listed.to_vec(), all);
        let by_id = |id| ask(null_mut(), |out| unsafe { nvml.nvmlDeviceGetGpuInstanceById(gpu, id, out) });
        assert_eq!(by_id(info(&nvml, all[3]).unwrap().id), Ok(all[3]));
        assert_eq!(by_id(77), Err(NOT_FOUND));
    });
}

#[test]
fn an_old_handle_never_means_a_new_instance_of_the_same_id() {
    on_node("an_old_handle_never_means_a_new_instance_of_the_same_id", &an_empty_a100(), |node| {
        let nvml = node.c_api_ready();
        let gpu = gpu(&nvml, 0);
        let old = create(&nvml, gpu, 19, Some((0, 1))).unwrap();
        let id = info(&nvml, old).unwrap().id;
        assert_eq!(unsafe { nvml.nvmlGpuInstanceDestroy(old) }, 0);
        let new = create(&nvml, gpu, 19, Some((0, 1))).unwrap();
        assert_eq!(info(&nvml, new).unwrap().id, id);
        assert_ne!(new, old);
        assert_eq!(info(&nvml, old).unwrap_err(), INVALID_ARGUMENT);
    });
}

#[test]
fn a_gpu_instance_can_be_shared_by_compute_instances() {
    let mut instance = MigInstanceDescription::new("3g.20gb").at(4);
    instance.compute_instances = Some(vec![2, 1]);
    let mut gpu_description = GpuDescription::new("a100-40gb").with_mig(&[]);
    gpu_description.mig_instances.push(instance);
    let description = Description::new(vec![gpu_description]);
    on_node("a_gpu_instance_can_be_shared_by_compute_instances", &description, |node| {
        let nvml = node.c_api_ready();
        let gpu = gpu(&nvml, 0);
        let name = |index| {
            let mig =
                ask(null_mut(), |out| unsafe { nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index, out) })
                    .unwrap();
            assert_eq!(ask(9, |out| unsafe { nvml.nvmlDeviceGetIndex(mig, out) }), Ok(index));
            ask_text(|out, length| unsafe { nvml.nvmlDeviceGetName(mig, out, length) }).unwrap()
        };
        assert_eq!(name(0), "NVIDIA A100-SXM4-40GB MIG 2c.3g.20gb");
        assert_eq!(name(1), "NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb");
    });
}

#[test]
fn compute_profiles_are_those_that_fit_into_the_gpu_instance() {
    on_node("compute_profiles_are_those_that_fit_into_the_gpu_instance", &an_empty_a100(), |node| {
        let nvml = node.c_api_ready();
        let instance = create(&nvml, gpu(&nvml, 0), 9, None).unwrap();
        let profile = |number| {
            let empty: nvmlComputeInstanceProfileInfo_t = unsafe { std::mem::zeroed() };
            ask(empty, |out| unsafe {
                nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, number, 0, out)
            })
            .map(|info| (info.id, info.sliceCount, info.instanceCount, info.multiprocessorCount))
        };
        assert_eq!(profile(0), Ok((0, 1, 3, 14)));
        assert_eq!(profile(1), Ok((1, 2, 1, 28)));
        assert_eq!(profile(2), Ok((2, 3, 1, 42)));
        assert_eq!(profile(3), Err(NOT_SUPPORTED));
        assert_eq!(profile(9), Err(INVALID_ARGUMENT));
        let mut v3: nvmlComputeInstanceProfileInfo_v3_t = unsafe { std::mem::zeroed() };
        v3.version = size_of_val(&v3) as u32 | 3 << 24;
        let v3_pointer = (&raw mut v3).cast();
        assert_eq!(
            unsafe { nvml.nvmlGpuInstanceGetComputeInstanceProfileInfoV(instance, 0, 0, v3_pointer) },
            0
        );
        assert_eq!(array_text(&v3.name), "MIG 1c.3g.20gb");
    });
}

#[test]
fn mig_mode_waits_for_a_reset_before_hopper_and_not_since() {
    let gpus =
        vec![GpuDescription::new("a100-40gb"), GpuDescription::new("h100-80gb"), GpuDescription::new("t4")];
    on_node("mig_mode_waits_for_a_reset_before_hopper_and_not_since", &Description::new(gpus), |node| {
        let nvml = node.c_api_ready();
        let set = |gpu, mode| ask(99, |out| unsafe { nvml.nvmlDeviceSetMigMode(gpu, mode, out) });
        let get = |gpu| {
            let mut pending = 9;
            ask(9, |out| unsafe { nvml.nvmlDeviceGetMigMode(gpu, out, &mut pending) })
                .map(|now| (now, pending))
        };
        let (a100, h100, t4) = (gpu(&nvml, 0), gpu(&nvml, 1), gpu(&nvml, 2));
        assert_eq!(set(a100, 1), Ok(RESET_REQUIRED));
        assert_eq!(get(a100), Ok((0, 1)));
        assert_eq!(create(&nvml, a100, 19, None).unwrap_err(), NOT_SUPPORTED, "MIG is not on yet");
        node.outside().update(|node| node.reset_gpu(0)).unwrap();
        assert_eq!(get(a100), Ok((1, 1)));

        assert_eq!(set(h100, 1), Ok(0));
        assert_eq!(get(h100), Ok((1, 1)));
        create(&nvml, h100, 19, None).unwrap();
        assert_eq!(set(h100, 0), Ok(IN_USE));
        assert_eq!(get(h100), Ok((1, 1)));
        assert_eq!(set(h100, 2), Err(INVALID_ARGUMENT));
        assert_eq!(set(t4, 1), Err(NOT_SUPPORTED));
        assert_eq!(get(t4), Err(NOT_SUPPORTED));
    });
}
