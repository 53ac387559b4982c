//! Processes: what they use, what they keep from changing, and what NVML tells of it.
#![allow(clippy::unwrap_used)]

mod common;

use std::ptr::null_mut;

use common::{ask, gpu, on_node};
use nvml_simulator::description::{Description, GpuDescription};
use nvml_simulator::state::{Process, Refusal, Sensors, Utilization};
use nvml_simulator::store::UpdateError;
use nvml_wrapper::enum_wrappers::device::{Clock, Sampling, TemperatureSensor};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlProcessInfo_v1_t, nvmlReturn_t};

const INSUFFICIENT_SIZE: nvmlReturn_t = 7;
const RESET_REQUIRED: nvmlReturn_t = 16;
const IN_USE: nvmlReturn_t = 19;

/// A GPU in MIG mode with a 3g (instance 1) and a 1g (instance 2), and one without.
fn two_a100() -> Description {
    Description::new(vec![
        GpuDescription::new("a100-40gb").with_mig(&["3g.20gb", "1g.5gb"]),
        GpuDescription::new("a100-40gb"),
    ])
}

fn process(pid: u32, memory_mib: u64) -> Process {
    Process { pid, memory_mib, instance: None }
}

fn on_instance(pid: u32, memory_mib: u64, gpu_instance: u32) -> Process {
    Process { pid, memory_mib, instance: Some((gpu_instance, 0)) }
}

#[test]
fn a_process_is_listed_on_its_gpu_and_its_slice_with_the_memory_it_uses() {
    let test = "a_process_is_listed_on_its_gpu_and_its_slice_with_the_memory_it_uses";
    on_node(test, &two_a100(), |node| {
        let nvml = node.wrapper();
        let mut outside = node.outside();
        outside.update(|node| node.start_process(0, on_instance(100, 1_000, 1))).unwrap();
        outside.update(|node| node.start_process(0, on_instance(200, 500, 2))).unwrap();
        outside.update(|node| node.start_process(1, process(300, 4_096))).unwrap();

        let mig_gpu = nvml.device_by_index(0).unwrap();
        let pids = |device: &nvml_wrapper::Device<'_>| -> Vec<(u32, Option<u32>, Option<u32>)> {
            let running = device.running_compute_processes().unwrap();
            running.iter().map(|p| (p.pid, p.gpu_instance_id, p.compute_instance_id)).collect()
        };
        assert_eq!(pids(&mig_gpu), [(100, Some(1), Some(0)), (200, Some(2), Some(0))]);
        let small = mig_gpu.mig_device_by_index(1).unwrap();
        assert_eq!(pids(&small), [(200, Some(2), Some(0))]);
        assert_eq!(small.memory_info().unwrap().used, 500 << 20);
        assert_eq!(mig_gpu.memory_info().unwrap().used, 1_500 << 20);

        let whole = nvml.device_by_index(1).unwrap();
        assert_eq!(pids(&whole), [(300, None, None)]);
        let memory = whole.memory_info().unwrap();
        assert_eq!((memory.used, memory.free), (4_096 << 20, (40_960 - 4_096) << 20));
        let running = whole.running_compute_processes().unwrap();
        assert!(matches!(running[0].used_gpu_memory, UsedGpuMemory::Used(bytes) if bytes == 4_096 << 20));

        outside.update(|node| node.end_process(1, 300)).unwrap();
        assert!(pids(&whole).is_empty());
        assert_eq!(whole.memory_info().unwrap().used, 0);
    });
}

#[test]
fn the_oldest_list_of_processes_has_its_own_shorter_form() {
    on_node("the_oldest_list_of_processes_has_its_own_shorter_form", &two_a100(), |node| {
        let nvml = node.c_api_ready();
        let whole = gpu(&nvml, 1);
        let mut outside = node.outside();
        for pid in [7, 8] {
            outside.update(|node| node.start_process(1, process(pid, 16))).unwrap();
        }
        // The bindings leave this name out; C programs look it up.
        type List = unsafe extern "C" fn(nvmlDevice_t, *mut u32, *mut nvmlProcessInfo_v1_t) -> nvmlReturn_t;
        let ask = unsafe { nvml.__library.get::<List>(b"nvmlDeviceGetComputeRunningProcesses") }.unwrap();
        let mut count = 0;
        let mut list = [nvmlProcessInfo_v1_t { pid: 0, usedGpuMemory: 0 }; 3];
        unsafe {
            let code = ask(whole, &mut count, null_mut());
            assert_eq!((code, count), (INSUFFICIENT_SIZE, 2));
            count = 3;
            assert_eq!(ask(whole, &mut count, list.as_mut_ptr()), 0);
        }
        assert_eq!(count, 2);
        assert_eq!(list.map(|info| (info.pid, info.usedGpuMemory >> 20)), [(7, 16), (8, 16), (0, 0)]);
    });
}

#[test]
fn a_process_needs_its_place_and_its_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.yaml");
    two_a100().write(&path).unwrap();
    let mut store = nvml_simulator::store::Store::open(&path).unwrap();
    let mut refused = |gpu, process| match store.update(|node| node.start_process(gpu, process)) {
        Err(UpdateError::Refused(refusal)) => Some(refusal),
        other => {
            other.unwrap();
            None
        }
    };
    assert_eq!(refused(0, process(1, 1)), Some(Refusal::ProcessPlace(0)));
    assert_eq!(refused(1, on_instance(1, 1, 1)), Some(Refusal::ProcessPlace(1)));
    assert_eq!(refused(0, on_instance(1, 1, 9)), Some(Refusal::NoGpuInstance { gpu: 0, id: 9 }));
    assert_eq!(refused(0, on_instance(1, 4_865, 2)), Some(Refusal::Memory { free_mib: 4_864 }));
    assert_eq!(refused(0, on_instance(1, 4_864, 2)), None);
    assert_eq!(refused(0, on_instance(2, 1, 2)), Some(Refusal::Memory { free_mib: 0 }));
    assert_eq!(refused(0, on_instance(1, 64, 2)), None, "the same process has given memory back");
    assert_eq!(refused(0, on_instance(2, 4_800, 2)), None);
    let end = store.update(|node| node.end_process(0, 3)).unwrap_err().to_string();
    assert_eq!(end, "no process 3 runs on GPU 0");
}

#[test]
fn a_slice_in_use_is_not_destroyed_until_its_process_ends() {
    on_node("a_slice_in_use_is_not_destroyed_until_its_process_ends", &two_a100(), |node| {
        let nvml = node.c_api_ready();
        let device = gpu(&nvml, 0);
        node.outside().update(|node| node.start_process(0, on_instance(1, 64, 1))).unwrap();
        let instance =
            ask(null_mut(), |out| unsafe { nvml.nvmlDeviceGetGpuInstanceById(device, 1, out) }).unwrap();
        let compute =
            ask(null_mut(), |out| unsafe { nvml.nvmlGpuInstanceGetComputeInstanceById(instance, 0, out) })
                .unwrap();
        unsafe {
            assert_eq!(nvml.nvmlComputeInstanceDestroy(compute), IN_USE, "a process runs on it");
            assert_eq!(nvml.nvmlGpuInstanceDestroy(instance), IN_USE, "a compute instance exists");
            node.outside().update(|node| node.end_process(0, 1)).unwrap();
            assert_eq!(nvml.nvmlGpuInstanceDestroy(instance), IN_USE, "a compute instance exists");
            assert_eq!(nvml.nvmlComputeInstanceDestroy(compute), 0);
            assert_eq!(nvml.nvmlGpuInstanceDestroy(instance), 0);
        }
    });
}

#[test]
fn mig_mode_does_not_switch_under_a_running_process() {
    let gpus = vec![GpuDescription::new("a100-40gb"), GpuDescription::new("h200")];
    on_node("mig_mode_does_not_switch_under_a_running_process", &Description::new(gpus), |node| {
        let nvml = node.c_api_ready();
        let set = |index, mode| {
            ask(99, |out| unsafe { nvml.nvmlDeviceSetMigMode(gpu(&nvml, index), mode, out) }).unwrap()
        };
        let get = |index| {
            let mut pending = 9;
            let device = gpu(&nvml, index);
            ask(9, |out| unsafe { nvml.nvmlDeviceGetMigMode(device, out, &mut pending) })
                .map(|now| (now, pending))
                .unwrap()
        };
        let mut outside = node.outside();
        for index in [0, 1] {
            outside.update(|node| node.start_process(index, process(5, 16))).unwrap();
            assert_eq!(set(index, 1), IN_USE);
        }
        assert_eq!(get(0), (0, 1), "before Hopper it is pending all the same");
        assert_eq!(get(1), (0, 0));
        let reset = outside.update(|node| node.reset_gpu(0));
        assert!(matches!(reset, Err(UpdateError::Refused(Refusal::InUse))));
        for index in [0, 1] {
            outside.update(|node| node.end_process(index, 5)).unwrap();
        }
        assert_eq!((set(0, 1), set(1, 1)), (RESET_REQUIRED, 0));
        outside.update(|node| node.reset_gpu(0)).unwrap();
        assert_eq!((get(0), get(1)), ((1, 1), (1, 1)));
    });
}

#[test]
fn utilization_is_told_of_gpus_and_never_in_mig_mode() {
    on_node("utilization_is_told_of_gpus_and_never_in_mig_mode", &two_a100(), |node| {
        let nvml = node.wrapper();
        let (mig_gpu, whole) = (nvml.device_by_index(0).unwrap(), nvml.device_by_index(1).unwrap());
        let busy = Utilization { gpu_percent: 87, memory_percent: 40 };
        let mut outside = node.outside();
        for gpu in [0, 1] {
            outside.update(|node| node.set_utilization(gpu, busy)).unwrap();
        }
        let told = whole.utilization_rates().unwrap();
        assert_eq!((told.gpu, told.memory), (87, 40));
        let samples = whole.samples(Sampling::GpuUtilization, None).unwrap();
        assert!(matches!(samples[..], [ref one] if matches!(one.value, SampleValue::U32(87))));
        let slice = mig_gpu.mig_device_by_index(0).unwrap();
        for device in [&mig_gpu, &slice] {
            assert!(matches!(device.utilization_rates(), Err(NvmlError::NotSupported)));
            let samples = device.samples(Sampling::GpuUtilization, None);
            assert!(matches!(samples, Err(NvmlError::NotSupported)));
        }
        let most = Utilization { gpu_percent: 101, memory_percent: 0 };
        let refused = outside.update(|node| node.set_utilization(1, most)).unwrap_err();
        assert_eq!(refused.to_string(), "utilization in per cent is 101: the most is 100");
    });
}

#[test]
fn sensors_follow_the_utilization_until_they_are_set() {
    on_node("sensors_follow_the_utilization_until_they_are_set", &two_a100(), |node| {
        let nvml = node.wrapper();
        let gpu = nvml.device_by_index(1).unwrap();
        let read = || {
            (
                gpu.temperature(TemperatureSensor::Gpu).unwrap(),
                gpu.power_usage().unwrap(),
                gpu.clock_info(Clock::SM).unwrap(),
                gpu.clock_info(Clock::Memory).unwrap(),
            )
        };
        let idle = read();
        let busy = Utilization { gpu_percent: 100, memory_percent: 50 };
        let mut outside = node.outside();
        outside.update(|node| node.set_utilization(1, busy)).unwrap();
        let full = read();
        assert!(full.0 > idle.0 && full.1 > idle.1 && full.2 > idle.2, "{idle:?} {full:?}");
        let sensors = Sensors {
            temperature_celsius: 91,
            power_milliwatts: 402_000,
            sm_clock_mhz: 900,
            memory_clock_mhz: 1_593,
        };
        outside.update(|node| node.set_sensors(1, Some(sensors))).unwrap();
        assert_eq!(read(), (91, 402_000, 900, 1_593));
        let slice = nvml.device_by_index(0).unwrap().mig_device_by_index(0).unwrap();
        assert!(matches!(slice.power_usage(), Err(NvmlError::NotSupported)));
        assert!(matches!(slice.temperature(TemperatureSensor::Gpu), Err(NvmlError::NotSupported)));
    });
}
