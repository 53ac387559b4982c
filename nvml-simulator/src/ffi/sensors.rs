//! Temperature, power and clocks: what a GPU's sensors read.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::nvmlDevice_t;

use super::pointer::Out;
use super::{Code, export};
use crate::session::Call;
use crate::state::Sensors;

export! {
    /// The temperature in degrees Celsius; a GPU has one sensor.
    fn nvmlDeviceGetTemperature(
        device: nvmlDevice_t,
        sensor: nvml::nvmlTemperatureSensors_t,
        temperature: Out<c_uint>,
    ) |call| {
        let sensors = sensors(call, device)?;
        if sensor != nvml::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU {
            return Err(Code::INVALID_ARGUMENT);
        }
        temperature.put(sensors.temperature_celsius)
    }

    /// The power that it draws, in milliwatts.
    fn nvmlDeviceGetPowerUsage(device: nvmlDevice_t, power: Out<c_uint>) |call| {
        power.put(sensors(call, device)?.power_milliwatts)
    }

    /// A clock in MHz: graphics, multiprocessors and video run alike.
    fn nvmlDeviceGetClockInfo(device: nvmlDevice_t, clock: nvml::nvmlClockType_t, mhz: Out<c_uint>) |call| {
        let sensors = sensors(call, device)?;
        mhz.put(match clock {
            nvml::nvmlClockType_enum_NVML_CLOCK_GRAPHICS
            | nvml::nvmlClockType_enum_NVML_CLOCK_SM
            | nvml::nvmlClockType_enum_NVML_CLOCK_VIDEO => sensors.sm_clock_mhz,
            nvml::nvmlClockType_enum_NVML_CLOCK_MEM => sensors.memory_clock_mhz,
            _ => return Err(Code::INVALID_ARGUMENT),
        })
    }
}

/// A MIG device has no sensors of its own.
fn sensors(call: &Call<'_>, device: nvmlDevice_t) -> Result<Sensors, Code> {
    Ok(call.gpu_or(device, Code::NOT_SUPPORTED)?.state.sensors_now())
}
