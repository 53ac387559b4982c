//! What breaks on demand: calls that hang, creations that fail or take long, memory errors.
#![allow(clippy::unwrap_used)]

mod common;

use std::ptr::null_mut;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{ask, gpu, on_node};
use nvml_simulator::description::{Description, GpuDescription};
use nvml_simulator::state::{Created, CreationFault, Latency, RecoveryAction, RemappedRows};
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::{
    NvmlLib, nvmlDevice_t, nvmlEventData_t, nvmlFieldValue_t, nvmlGpuInstance_t, nvmlReturn_t,
};

const UNINITIALIZED: nvmlReturn_t = 1;
const NOT_SUPPORTED: nvmlReturn_t = 3;
const NO_PERMISSION: nvmlReturn_t = 4;
const TIMEOUT: nvmlReturn_t = 10;
const INSUFFICIENT_RESOURCES: nvmlReturn_t = 23;

/// Longer than any wait that ends.
const DEADLINE: Duration = Duration::from_secs(30);
/// Long enough to tell a call that hangs from one that answers: none of them takes a millisecond.
const A_WHILE: Duration = Duration::from_millis(100);

fn two_a100() -> Description {
    Description::new(vec![
        GpuDescription::new("a100-40gb").with_mig(&["3g.20gb"]),
        GpuDescription::new("a100-40gb").with_mig(&[]),
    ])
}

fn create(nvml: &NvmlLib, gpu: nvmlDevice_t, profile_id: u32) -> Result<nvmlGpuInstance_t, nvmlReturn_t> {
    ask(null_mut(), |out| unsafe { nvml.nvmlDeviceCreateGpuInstance(gpu, profile_id, out) })
}

fn index(nvml: &NvmlLib, device: nvmlDevice_t) -> Result<u32, nvmlReturn_t> {
    ask(9, |out| unsafe { nvml.nvmlDeviceGetIndex(device, out) })
}

#[test]
fn calls_on_a_hanging_gpu_wait_for_its_release_and_others_go_on() {
    on_node("calls_on_a_hanging_gpu_wait_for_its_release_and_others_go_on", &two_a100(), |node| {
        let nvml = node.c_api_ready();
        let (hangs, works) = (gpu(&nvml, 0), gpu(&nvml, 1));
        let slice = ask(null_mut(), |out| unsafe { nvml.nvmlDeviceGetMigDeviceHandleByIndex(hangs, 0, out) })
            .unwrap();
        let set = ask(null_mut(), |out| unsafe { nvml.nvmlEventSetCreate(out) }).unwrap();
        assert_eq!(unsafe { nvml.nvmlDeviceRegisterEvents(hangs, 8, set) }, 0);
        let mut outside = node.outside();
        outside.update(|node| node.set_hanging(0, true)).unwrap();

        let (tell, told) = mpsc::channel();
        let answers = [hangs.addr(), slice.addr()];
        std::thread::scope(|scope| {
            for address in answers {
                let (tell, nvml) = (tell.clone(), &nvml);
                scope.spawn(move || tell.send(index(nvml, std::ptr::without_provenance_mut(address))));
            }
            assert_eq!(told.recv_timeout(A_WHILE), Err(mpsc::RecvTimeoutError::Timeout));
            assert_eq!(index(&nvml, works), Ok(1), "another GPU's calls go on meanwhile");
            let event: Result<nvmlEventData_t, _> =
                ask(unsafe { std::mem::zeroed() }, |out| unsafe { nvml.nvmlEventSetWait_v2(set, out, 0) });
            assert_eq!(event.unwrap_err(), TIMEOUT, "so does waiting for events");
            outside.update(|node| node.set_hanging(0, false)).unwrap();
            assert_eq!(told.recv_timeout(DEADLINE), Ok(Ok(0)));
            assert_eq!(told.recv_timeout(DEADLINE), Ok(Ok(0)));
        });
    });
}

#[test]
fn a_hanging_call_ends_with_the_last_shutdown() {
    on_node("a_hanging_call_ends_with_the_last_shutdown", &two_a100(), |node| {
        let nvml = node.c_api_ready();
        let address = gpu(&nvml, 0).addr();
        node.outside().update(|node| node.set_hanging(0, true)).unwrap();
        std::thread::scope(|scope| {
            let hanging = scope.spawn(|| index(&nvml, std::ptr::without_provenance_mut(address)));
            assert_eq!(unsafe { nvml.nvmlShutdown() }, 0);
            assert_eq!(hanging.join().unwrap(), Err(UNINITIALIZED));
        });
    });
}

#[test]
fn creations_fail_as_often_as_was_asked_for() {
    on_node("creations_fail_as_often_as_was_asked_for", &two_a100(), |node| {
        let nvml = node.c_api_ready();
        let device = gpu(&nvml, 1);
        let fail = |of, times, code| {
            node.outside().update(|node| node.fail_creations(1, CreationFault { of, times, code })).unwrap();
        };
        fail(Created::GpuInstance, 2, INSUFFICIENT_RESOURCES);
        assert_eq!(create(&nvml, device, 19), Err(INSUFFICIENT_RESOURCES));
        assert_eq!(create(&nvml, device, 19), Err(INSUFFICIENT_RESOURCES));
        let instance = create(&nvml, device, 19).unwrap();
        let compute =
            || ask(null_mut(), |out| unsafe { nvml.nvmlGpuInstanceCreateComputeInstance(instance, 0, out) });
        fail(Created::ComputeInstance, u32::MAX, NO_PERMISSION);
        for _ in 0..5 {
            assert_eq!(compute(), Err(NO_PERMISSION));
        }
        assert!(create(&nvml, device, 19).is_ok(), "only compute instances fail");
        fail(Created::ComputeInstance, 0, 0);
        assert!(compute().is_ok());
    });
}

#[test]
fn a_change_takes_effect_when_its_time_is_over_and_a_refusal_comes_at_once() {
    let test = "a_change_takes_effect_when_its_time_is_over_and_a_refusal_comes_at_once";
    let latency = Latency { create_gpu_instance_ms: 300, ..Latency::default() };
    on_node(test, &two_a100().with_latency(latency), |node| {
        let nvml = node.c_api_ready();
        let address = gpu(&nvml, 1).addr();
        let device = || std::ptr::without_provenance_mut(address);
        let remaining =
            || ask(9, |out| unsafe { nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(device(), 19, out) });
        let begin = Instant::now();
        std::thread::scope(|scope| {
            let creating = scope.spawn(|| create(&nvml, device(), 0).map(|_| begin.elapsed()));
            assert_eq!(remaining(), Ok(7), "other calls go on, and see nothing yet");
            assert!(creating.join().unwrap().unwrap() >= Duration::from_millis(300));
        });
        assert_eq!(remaining(), Ok(0));
        let begin = Instant::now();
        assert_eq!(create(&nvml, device(), 19), Err(INSUFFICIENT_RESOURCES));
        assert!(begin.elapsed() < Duration::from_millis(300));

        node.outside().update(|node| node.set_latency(Latency::default())).unwrap();
        let begin = Instant::now();
        create(&nvml, gpu(&nvml, 0), 19).unwrap();
        assert!(begin.elapsed() < Duration::from_millis(300), "the time changes while programs run");
        let refused = node.outside().update(|node| node.set_latency(Latency::of_each_ms(60_001)));
        assert_eq!(refused.unwrap_err().to_string(), "createGpuInstanceMs is 60001: the most is 60000");
    });
}

#[test]
fn ecc_errors_are_counted_told_and_partly_forgotten_at_a_reset() {
    on_node("ecc_errors_are_counted_told_and_partly_forgotten_at_a_reset", &two_a100(), |node| {
        let nvml = node.wrapper();
        let gpu = nvml.device_by_index(1).unwrap();
        let count = |kind, counter| gpu.total_ecc_errors(kind, counter).unwrap();
        let mut outside = node.outside();
        outside.update(|node| node.add_ecc_errors(1, 5, 0)).unwrap();
        outside.update(|node| node.add_ecc_errors(1, 0, 2)).unwrap();
        assert_eq!(count(MemoryError::Corrected, EccCounter::Volatile), 5);
        assert_eq!(count(MemoryError::Uncorrected, EccCounter::Volatile), 2);
        assert_eq!(outside.state().unwrap().event_count(), 2);
        outside.update(|node| node.reset_gpu(1)).unwrap();
        assert_eq!(count(MemoryError::Uncorrected, EccCounter::Volatile), 0);
        assert_eq!(count(MemoryError::Uncorrected, EccCounter::Aggregate), 2);
        assert!(gpu.is_ecc_enabled().unwrap().currently_enabled);
    });
}

#[test]
fn a_pending_row_is_remapped_by_a_reset() {
    let gpus = vec![GpuDescription::new("h200"), GpuDescription::new("t4")];
    on_node("a_pending_row_is_remapped_by_a_reset", &Description::new(gpus), |node| {
        let nvml = node.c_api_ready();
        let rows = |index| {
            let device = gpu(&nvml, index);
            let (mut correctable, mut uncorrectable, mut pending, mut failed) = (9, 9, 9, 9);
            let code = unsafe {
                nvml.nvmlDeviceGetRemappedRows(
                    device,
                    &mut correctable,
                    &mut uncorrectable,
                    &mut pending,
                    &mut failed,
                )
            };
            if code == 0 { Ok((correctable, uncorrectable, pending, failed)) } else { Err(code) }
        };
        assert_eq!(rows(0), Ok((0, 0, 0, 0)));
        assert_eq!(rows(1), Err(NOT_SUPPORTED));
        let found = RemappedRows { correctable: 1, uncorrectable: 2, pending: true, failed: false };
        let mut outside = node.outside();
        outside.update(|node| node.set_remapped_rows(0, found)).unwrap();
        assert_eq!(rows(0), Ok((1, 2, 1, 0)));
        outside.update(|node| node.reset_gpu(0)).unwrap();
        assert_eq!(rows(0), Ok((1, 3, 0, 0)));

        let pending = |index| {
            ask(9, |out| unsafe { nvml.nvmlDeviceGetRetiredPagesPendingStatus(gpu(&nvml, index), out) })
        };
        assert_eq!((pending(0), pending(1)), (Err(NOT_SUPPORTED), Ok(0)));
    });
}

#[test]
fn the_driver_recommends_what_it_was_told_to() {
    on_node("the_driver_recommends_what_it_was_told_to", &two_a100(), |node| {
        let nvml = node.c_api_ready();
        let device = gpu(&nvml, 0);
        node.outside().update(|node| node.set_recovery_action(0, RecoveryAction::DrainAndReset)).unwrap();
        let mut values: [nvmlFieldValue_t; 2] = unsafe { std::mem::zeroed() };
        values[0].fieldId = 1;
        values[1].fieldId = 230;
        assert_eq!(unsafe { nvml.nvmlDeviceGetFieldValues(device, 2, values.as_mut_ptr()) }, 0);
        assert_eq!((values[0].nvmlReturn, values[1].nvmlReturn), (NOT_SUPPORTED, 0));
        assert_eq!(unsafe { values[1].value.uiVal }, 4);
    });
}

#[test]
fn a_gpu_lost_while_its_calls_hang_is_lost_when_they_go_on() {
    on_node("a_gpu_lost_while_its_calls_hang_is_lost_when_they_go_on", &two_a100(), |node| {
        let nvml = node.wrapper();
        let gpu = nvml.device_by_index(0).unwrap();
        let mut outside = node.outside();
        outside.update(|node| node.set_hanging(0, true)).unwrap();
        std::thread::scope(|scope| {
            let hanging = scope.spawn(|| gpu.uuid());
            outside.update(|node| node.set_lost(0, true).and_then(|()| node.set_hanging(0, false))).unwrap();
            assert!(matches!(hanging.join().unwrap(), Err(NvmlError::GpuLost)));
        });
    });
}
