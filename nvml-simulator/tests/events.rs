//! Event sets: waiting, XIDs from another process, lost GPUs.
#![allow(clippy::unwrap_used)]

mod common;

use std::ptr::null_mut;
use std::time::{Duration, Instant};

use common::{ask, gpu, on_node};
use nvml_simulator::description::{Description, GpuDescription};
use nvml_wrapper_sys::bindings::{NvmlLib, nvmlEventData_t, nvmlEventSet_t, nvmlReturn_t};

const INVALID_ARGUMENT: nvmlReturn_t = 2;
const NOT_SUPPORTED: nvmlReturn_t = 3;
const TIMEOUT: nvmlReturn_t = 10;
const GPU_IS_LOST: nvmlReturn_t = 15;

const XID: u64 = 8;

fn node() -> Description {
    Description::new(vec![
        GpuDescription::new("a100-40gb").with_mig(&["3g.20gb"]),
        GpuDescription::new("a100-40gb"),
    ])
}

/// A set that listens to the XIDs of the first GPU.
fn listen(nvml: &NvmlLib) -> nvmlEventSet_t {
    let set = ask(null_mut(), |out| unsafe { nvml.nvmlEventSetCreate(out) }).unwrap();
    assert_eq!(unsafe { nvml.nvmlDeviceRegisterEvents(gpu(nvml, 0), XID, set) }, 0);
    set
}

fn wait(nvml: &NvmlLib, set: nvmlEventSet_t, milliseconds: u32) -> Result<nvmlEventData_t, nvmlReturn_t> {
    let empty = unsafe { std::mem::zeroed() };
    ask(empty, |out| unsafe { nvml.nvmlEventSetWait_v2(set, out, milliseconds) })
}

#[test]
fn a_wait_without_events_ends_after_its_time() {
    on_node("a_wait_without_events_ends_after_its_time", &node(), |node| {
        let nvml = node.c_api_ready();
        let set = listen(&nvml);
        let begin = Instant::now();
        assert_eq!(wait(&nvml, set, 60).unwrap_err(), TIMEOUT);
        assert!(begin.elapsed() >= Duration::from_millis(60));
        assert_eq!(wait(&nvml, set, 0).unwrap_err(), TIMEOUT);
    });
}

#[test]
fn an_xid_raised_elsewhere_ends_the_wait_once_for_each_set() {
    on_node("an_xid_raised_elsewhere_ends_the_wait_once_for_each_set", &node(), |node| {
        let nvml = node.c_api_ready();
        node.outside().update(|node| node.raise_xid(0, 13, None)).unwrap();
        let (set, other) = (listen(&nvml), listen(&nvml));
        let mut outside = node.outside();
        let raiser = std::thread::spawn(move || {
            outside.update(|node| node.raise_xid(1, 31, None)).unwrap();
            outside.update(|node| node.raise_xid(0, 94, Some((1, Some(0))))).unwrap();
            outside.update(|node| node.raise_xid(0, 79, None)).unwrap();
        });
        let first = wait(&nvml, set, 30_000).unwrap();
        assert_eq!((first.device, first.eventType, first.eventData), (gpu(&nvml, 0), XID, 94));
        assert_eq!((first.gpuInstanceId, first.computeInstanceId), (1, 0));
        let second = wait(&nvml, set, 30_000).unwrap();
        assert_eq!(
            (second.eventData, second.gpuInstanceId, second.computeInstanceId),
            (79, u32::MAX, u32::MAX)
        );
        raiser.join().unwrap();
        assert_eq!(wait(&nvml, set, 0).unwrap_err(), TIMEOUT, "each event is told once, other GPUs' never");
        assert_eq!(wait(&nvml, other, 0).unwrap().eventData, 94, "each set is told for itself");
    });
}

#[test]
fn a_lost_gpu_ends_the_wait_after_its_last_event() {
    on_node("a_lost_gpu_ends_the_wait_after_its_last_event", &node(), |node| {
        let nvml = node.c_api_ready();
        let set = listen(&nvml);
        node.outside().update(|node| node.set_lost(1, true)).unwrap();
        assert_eq!(wait(&nvml, set, 0).unwrap_err(), TIMEOUT, "nobody listens to the second GPU");
        node.outside().update(|node| node.raise_xid(0, 79, None)).unwrap();
        node.outside().update(|node| node.set_lost(0, true)).unwrap();
        assert_eq!(wait(&nvml, set, 30_000).unwrap().eventData, 79);
        assert_eq!(wait(&nvml, set, 30_000).unwrap_err(), GPU_IS_LOST);
    });
}

#[test]
fn event_sets_refuse_what_they_cannot_do() {
    on_node("event_sets_refuse_what_they_cannot_do", &node(), |node| {
        let nvml = node.c_api_ready();
        let device = gpu(&nvml, 0);
        let supported = ask(0, |out| unsafe { nvml.nvmlDeviceGetSupportedEventTypes(device, out) }).unwrap();
        assert_eq!(supported & XID, XID);
        let set = listen(&nvml);
        unsafe {
            assert_eq!(nvml.nvmlDeviceRegisterEvents(device, 1 << 40, set), NOT_SUPPORTED);
            assert_eq!(nvml.nvmlDeviceRegisterEvents(device, XID, null_mut()), INVALID_ARGUMENT);
            assert_eq!(nvml.nvmlEventSetWait_v2(set, null_mut(), 0), INVALID_ARGUMENT);
            assert_eq!(nvml.nvmlEventSetFree(set), 0);
            assert_eq!(nvml.nvmlEventSetFree(set), INVALID_ARGUMENT);
        }
        assert_eq!(wait(&nvml, set, 0).unwrap_err(), INVALID_ARGUMENT);
    });
}

#[test]
fn a_storm_of_xids_keeps_the_newest() {
    on_node("a_storm_of_xids_keeps_the_newest", &node(), |node| {
        let nvml = node.c_api_ready();
        let set = listen(&nvml);
        node.outside().update(|node| (0..1_000).try_for_each(|xid| node.raise_xid(0, xid, None))).unwrap();
        let told: Vec<u64> =
            std::iter::from_fn(|| wait(&nvml, set, 0).ok()).map(|event| event.eventData).collect();
        let kept = nvml_simulator::state::EVENTS_MAX as u64;
        assert_eq!(told, (1_000 - kept..1_000).collect::<Vec<u64>>());
    });
}
