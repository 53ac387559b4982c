//! NVLinks: what each leads to, and whether it is up.
//!
//! A link to a lost GPU is down. MIG mode leaves links up but unused, as peer-to-peer access is off in it.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlPciInfo_t};

use super::device::pci_info;
use super::pointer::Out;
use super::{Code, export};
use crate::derive;
use crate::hardware::LinkEnd;
use crate::session::Call;

export! {
    /// Whether a link is up.
    fn nvmlDeviceGetNvLinkState(
        device: nvmlDevice_t,
        link: c_uint,
        is_active: Out<nvml::nvmlEnableState_t>,
    ) |call| {
        let end = end(call, device, link)?;
        is_active.put(is_up(call, end).into())
    }

    /// The PCI address of a link's other end; `NOT_SUPPORTED` while it is down.
    fn nvmlDeviceGetNvLinkRemotePciInfo_v2, nvmlDeviceGetNvLinkRemotePciInfo(
        device: nvmlDevice_t,
        link: c_uint,
        pci: Out<nvmlPciInfo_t>,
    ) |call| {
        let end = end(call, device, link)?;
        if !is_up(call, end) {
            return Err(Code::NOT_SUPPORTED);
        }
        pci.put(pci_info(match end {
            LinkEnd::Gpu(index) => derive::pci_bus(index),
            LinkEnd::Switch(number) => derive::pci_bus_of_switch(number),
        }))
    }

    /// Whether a link's other end is a GPU or a switch.
    fn nvmlDeviceGetNvLinkRemoteDeviceType(
        device: nvmlDevice_t,
        link: c_uint,
        kind: Out<nvml::nvmlIntNvLinkDeviceType_t>,
    ) |call| {
        kind.put(match end(call, device, link)? {
            LinkEnd::Gpu(_) => nvml::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU,
            LinkEnd::Switch(_) => nvml::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH,
        })
    }
}

/// The far end of a link: `NOT_SUPPORTED` where the GPU has not so many, `INVALID_ARGUMENT` where none has.
fn end(call: &Call<'_>, device: nvmlDevice_t, link: c_uint) -> Result<LinkEnd, Code> {
    let gpu = call.gpu(device)?;
    if link >= nvml::NVML_NVLINK_MAX_LINKS {
        return Err(Code::INVALID_ARGUMENT);
    }
    let link = usize::try_from(link).map_err(|_| Code::INVALID_ARGUMENT)?;
    gpu.hardware.links.get(link).copied().ok_or(Code::NOT_SUPPORTED)
}

fn is_up(call: &Call<'_>, end: LinkEnd) -> bool {
    match end {
        LinkEnd::Gpu(index) => call.state.gpu(index).is_some_and(|gpu| !gpu.lost),
        LinkEnd::Switch(_) => true,
    }
}
