//! Finding devices, and what they are.

use std::ffi::{c_int, c_uint};

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlPciInfo_t};

use super::pointer::{Out, TextIn, TextOut, char_array};
use super::{Code, Device, Gpu, export};
use crate::derive;

/// NVIDIA's PCI vendor id, in the lower half as NVML writes it. The models' device ids are not simulated.
const PCI_VENDOR: c_uint = 0x10de;

export! {
    /// How many GPUs there are, lost ones included.
    fn nvmlDeviceGetCount_v2, nvmlDeviceGetCount(count: Out<c_uint>) |call| {
        count.put(c_uint::try_from(call.hardware.gpus.len()).unwrap_or(c_uint::MAX))
    }

    /// The GPU of that index; `GPU_IS_LOST` if it is.
    fn nvmlDeviceGetHandleByIndex_v2, nvmlDeviceGetHandleByIndex(index: c_uint, device: Out<nvmlDevice_t>) |call| {
        let gpu = call.gpu_at(index)?;
        device.put(call.handle_of_gpu(gpu))
    }

    /// The GPU or MIG device of that UUID.
    fn nvmlDeviceGetHandleByUUID(uuid: TextIn, device: Out<nvmlDevice_t>) |call| {
        let uuid = uuid.get()?;
        if let Some(index) = call.hardware.index_of(uuid) {
            return device.put(call.handle_of_gpu(call.gpu_at(index)?));
        }
        let gpus = call.hardware.gpus.iter().zip(&call.state.gpus);
        let mut migs = gpus.flat_map(|(hardware, state)| Gpu { hardware, state }.mig_devices());
        let mig = migs.find(|mig| mig.uuid() == uuid).ok_or(Code::NOT_FOUND)?;
        call.gpu_at(mig.gpu().hardware.index)?;
        device.put(call.handle_of_mig(mig))
    }

    /// The GPU at that PCI address; domain and function may be left out.
    fn nvmlDeviceGetHandleByPciBusId_v2, nvmlDeviceGetHandleByPciBusId(bus_id: TextIn, device: Out<nvmlDevice_t>) |call| {
        let bus = pci_bus(bus_id.get()?).ok_or(Code::INVALID_ARGUMENT)?;
        let found = call.hardware.gpus.iter().find(|gpu| Some(derive::pci_bus(gpu.index)) == bus);
        let gpu = call.gpu_at(found.ok_or(Code::NOT_FOUND)?.index)?;
        device.put(call.handle_of_gpu(gpu))
    }

    /// The product name; a MIG device's ends with `MIG` and its profile.
    fn nvmlDeviceGetName(device: nvmlDevice_t, name: TextOut, length: c_uint) |call| {
        match call.device(device)? {
            Device::Gpu(gpu) => name.put(gpu.hardware.model.product, length),
            Device::Mig(mig) => {
                name.put(&format!("{} MIG {}", mig.gpu().hardware.model.product, mig.profile_name()), length)
            }
        }
    }

    /// `GPU-…` or `MIG-…`.
    fn nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: TextOut, length: c_uint) |call| {
        match call.device(device)? {
            Device::Gpu(gpu) => uuid.put(&gpu.hardware.uuid, length),
            Device::Mig(mig) => uuid.put(&mig.uuid(), length),
        }
    }

    /// The index that gives the same handle again: of the GPU, or of the MIG device on its GPU.
    fn nvmlDeviceGetIndex(device: nvmlDevice_t, index: Out<c_uint>) |call| {
        match call.device(device)? {
            Device::Gpu(gpu) => index.put(gpu.hardware.index),
            Device::Mig(mig) => index.put(mig.index()),
        }
    }

    /// The number in `/dev/nvidia<minor>`; a MIG device has none of its own.
    fn nvmlDeviceGetMinorNumber(device: nvmlDevice_t, minor: Out<c_uint>) |call| {
        minor.put(call.gpu_or(device, Code::NOT_SUPPORTED)?.hardware.index)
    }

    /// The PCI address; a MIG device has its GPU's.
    fn nvmlDeviceGetPciInfo_v3, nvmlDeviceGetPciInfo_v2, nvmlDeviceGetPciInfo(device: nvmlDevice_t, pci: Out<nvmlPciInfo_t>) |call| {
        pci.put(pci_info(derive::pci_bus(call.device(device)?.gpu().hardware.index)))
    }

    /// The CUDA compute capability, e.g. 8 and 0.
    fn nvmlDeviceGetCudaComputeCapability(device: nvmlDevice_t, major: Out<c_int>, minor: Out<c_int>) |call| {
        let capability = call.device(device)?.gpu().hardware.model.compute_capability;
        major.put(capability.0.into())?;
        minor.put(capability.1.into())
    }

    /// The brand, read off the product name.
    fn nvmlDeviceGetBrand(device: nvmlDevice_t, brand: Out<nvml::nvmlBrandType_t>) |call| {
        let product = call.gpu_or(device, Code::NOT_SUPPORTED)?.hardware.model.product;
        brand.put(match product {
            _ if product.starts_with("Tesla") => nvml::nvmlBrandType_enum_NVML_BRAND_TESLA,
            _ if product.contains("RTX") => nvml::nvmlBrandType_enum_NVML_BRAND_NVIDIA_RTX,
            _ => nvml::nvmlBrandType_enum_NVML_BRAND_NVIDIA,
        })
    }

    /// The architecture, e.g. 7 for Ampere.
    fn nvmlDeviceGetArchitecture(device: nvmlDevice_t, architecture: Out<nvml::nvmlDeviceArchitecture_t>) |call| {
        let name = call.gpu_or(device, Code::NOT_SUPPORTED)?.hardware.model.architecture;
        architecture.put(match name {
            "volta" => nvml::NVML_DEVICE_ARCH_VOLTA,
            "turing" => nvml::NVML_DEVICE_ARCH_TURING,
            "ampere" => nvml::NVML_DEVICE_ARCH_AMPERE,
            "ada-lovelace" => nvml::NVML_DEVICE_ARCH_ADA,
            "hopper" => nvml::NVML_DEVICE_ARCH_HOPPER,
            "blackwell" => nvml::NVML_DEVICE_ARCH_BLACKWELL,
            _ => nvml::NVML_DEVICE_ARCH_UNKNOWN,
        })
    }
}

/// What NVML tells of the device on that PCI bus.
pub(super) fn pci_info(bus: c_uint) -> nvmlPciInfo_t {
    nvmlPciInfo_t {
        busIdLegacy: char_array(&format!("0000:{bus:02X}:00.0")),
        domain: 0,
        bus,
        device: 0,
        pciDeviceId: PCI_VENDOR,
        pciSubSystemId: 0,
        busId: char_array(&format!("00000000:{bus:02X}:00.0")),
    }
}

/// The bus of an address in one of NVML's three forms; `Some(None)` for an address that is none of ours,
/// `None` for no address at all.
fn pci_bus(text: &str) -> Option<Option<u32>> {
    let hex = |part: &str| u32::from_str_radix(part, 16).ok().filter(|_| part.len() <= 8);
    let parts: Vec<&str> = text.split(':').collect();
    let (domain, bus, rest) = match parts.as_slice() {
        [domain, bus, rest] => (*domain, *bus, *rest),
        [bus, rest] if rest.contains('.') => ("0", *bus, *rest),
        _ => return None,
    };
    let (device, function) = rest.split_once('.').unwrap_or((rest, "0"));
    let (domain, bus, device, function) = (hex(domain)?, hex(bus)?, hex(device)?, hex(function)?);
    Some((domain == 0 && device == 0 && function == 0).then_some(bus))
}

#[cfg(test)]
mod tests {
    use super::pci_bus;

    #[test]
    fn pci_addresses_are_read_in_nvmls_three_forms() {
        for good in ["00000000:07:00.0", "0000:07:00.0", "0:7:0", "07:00.0", "0:7:0.0"] {
            assert_eq!(pci_bus(good), Some(Some(7)), "{good}");
        }
        for elsewhere in ["0001:07:00.0", "0000:07:01.0", "07:00.1"] {
            assert_eq!(pci_bus(elsewhere), Some(None), "{elsewhere}");
        }
        for bad in ["", "7", "07:00", "x:y:z", "0:0:0:0", "GPU-1", "000000000:07:00.0"] {
            assert_eq!(pci_bus(bad), None, "{bad}");
        }
    }
}
