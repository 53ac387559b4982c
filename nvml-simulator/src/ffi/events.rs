//! Event sets.
//!
//! Another process may raise an event, so waiting is waiting for the state file to change. No lock is held
//! meanwhile.

use std::ffi::{c_uint, c_ulonglong};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlReturn_t};

use super::pointer::Out;
use super::{Code, export};
use crate::handles::Target;
use crate::session::{Call, EventSet, call, changes};
use crate::state::Event;

/// The events a GPU can report: what NVIDIA's plugin asks for.
const SUPPORTED: c_ulonglong = (nvml::nvmlEventTypeXidCriticalError
    | nvml::nvmlEventTypeDoubleBitEccError
    | nvml::nvmlEventTypeSingleBitEccError) as c_ulonglong;

/// The most event sets of one process at once.
const EVENT_SETS_MAX: usize = 1024;
/// How NVML says "not an instance".
const NO_INSTANCE: c_uint = 0xffff_ffff;

export! {
    /// A new, empty event set.
    fn nvmlEventSetCreate(set: Out<nvmlEventSet_t>) |call| {
        if set.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        let mut sets = call.event_sets();
        if sets.by_number.len() >= EVENT_SETS_MAX {
            return Err(Code::MEMORY);
        }
        sets.created += 1;
        let number = sets.created;
        sets.by_number.insert(number, EventSet { next: call.state.event_count, ..EventSet::default() });
        set.put(call.handles().of(Target::EventSet(number)))
    }

    /// Which events the GPU can report.
    fn nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, event_types: Out<c_ulonglong>) |call| {
        call.gpu_or(device, Code::NOT_SUPPORTED)?;
        event_types.put(SUPPORTED)
    }

    /// Adds a GPU's events to a set, from now on; `NOT_SUPPORTED`, and nothing added, if one is unknown.
    fn nvmlDeviceRegisterEvents(device: nvmlDevice_t, event_types: c_ulonglong, set: nvmlEventSet_t) |call| {
        let gpu = call.gpu_or(device, Code::NOT_SUPPORTED)?;
        let number = number(call, set)?;
        if event_types & !SUPPORTED != 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        let mut sets = call.event_sets();
        let set = sets.by_number.get_mut(&number).ok_or(Code::INVALID_ARGUMENT)?;
        if set.registered.is_empty() {
            set.next = call.state.event_count;
        }
        *set.registered.entry(gpu.hardware.index).or_default() |= event_types;
        Ok(())
    }

    /// Frees an event set.
    fn nvmlEventSetFree(set: nvmlEventSet_t) |call| {
        let number = number(call, set)?;
        call.event_sets().by_number.remove(&number);
        call.handles().forget(Target::EventSet(number));
        Ok(())
    }
}

/// Waits for an event of the set: answers with it, with `TIMEOUT` after so many milliseconds, or with
/// `GPU_IS_LOST` once a registered GPU is lost and all its events are told.
// SAFETY: NVML's own name; see `export!`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: Out<nvmlEventData_t>,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    wait(set, &data, timeout_ms)
}

/// The older name of `nvmlEventSetWait_v2`.
// SAFETY: NVML's own name; see `export!`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetWait(
    set: nvmlEventSet_t,
    data: Out<nvmlEventData_t>,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    wait(set, &data, timeout_ms)
}

fn wait(set: nvmlEventSet_t, data: &Out<nvmlEventData_t>, timeout_ms: c_uint) -> nvmlReturn_t {
    let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
    let mut watched = None;
    loop {
        let code = call(|call| look(call, set, data));
        let left = deadline.saturating_duration_since(Instant::now());
        if code != Code::TIMEOUT.0 || left.is_zero() {
            return code;
        }
        match &watched {
            None => watched = Some(changes()),
            Some(changes) => changes.wait(left),
        }
    }
}

/// The set's next event; `TIMEOUT` if there is none now.
fn look(call: &Call<'_>, set: nvmlEventSet_t, data: &Out<nvmlEventData_t>) -> Result<(), Code> {
    if data.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    let number = number(call, set)?;
    let mut sets = call.event_sets();
    let set = sets.by_number.get_mut(&number).ok_or(Code::INVALID_ARGUMENT)?;
    let wanted = |event: &Event| set.registered.get(&event.gpu).is_some_and(|kinds| kinds & event.kind != 0);
    if let Some((number, event)) = call.state.events_since(set.next).find(|(_, event)| wanted(event)) {
        set.next = number + 1;
        return data.put(nvmlEventData_t {
            device: call.handles().of(Target::Gpu(event.gpu)),
            eventType: event.kind,
            eventData: event.data,
            gpuInstanceId: event.gpu_instance.unwrap_or(NO_INSTANCE),
            computeInstanceId: event.compute_instance.unwrap_or(NO_INSTANCE),
        });
    }
    set.next = call.state.event_count;
    let lost = set.registered.keys().any(|&gpu| call.state.gpu(gpu).is_some_and(|gpu| gpu.lost));
    Err(if lost { Code::GPU_IS_LOST } else { Code::TIMEOUT })
}

fn number(call: &Call<'_>, set: nvmlEventSet_t) -> Result<u64, Code> {
    match call.handles().target(set) {
        Some(Target::EventSet(number)) => Ok(number),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}
