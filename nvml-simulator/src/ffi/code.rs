//! NVML's return codes.

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::state::Refusal;

/// A return code of NVML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) nvmlReturn_t);

impl Code {
    pub(crate) const SUCCESS: Self = Self(nvml::nvmlReturn_enum_NVML_SUCCESS);
    pub(crate) const UNINITIALIZED: Self = Self(nvml::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED);
    pub(crate) const INVALID_ARGUMENT: Self = Self(nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    pub(crate) const NOT_SUPPORTED: Self = Self(nvml::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
    pub(crate) const NOT_FOUND: Self = Self(nvml::nvmlReturn_enum_NVML_ERROR_NOT_FOUND);
    pub(crate) const INSUFFICIENT_SIZE: Self = Self(nvml::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    pub(crate) const DRIVER_NOT_LOADED: Self = Self(nvml::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED);
    pub(crate) const TIMEOUT: Self = Self(nvml::nvmlReturn_enum_NVML_ERROR_TIMEOUT);
    pub(crate) const GPU_IS_LOST: Self = Self(nvml::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST);
    pub(crate) const RESET_REQUIRED: Self = Self(nvml::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED);
    pub(crate) const OPERATING_SYSTEM: Self = Self(nvml::nvmlReturn_enum_NVML_ERROR_OPERATING_SYSTEM);
    pub(crate) const IN_USE: Self = Self(nvml::nvmlReturn_enum_NVML_ERROR_IN_USE);
    pub(crate) const MEMORY: Self = Self(nvml::nvmlReturn_enum_NVML_ERROR_MEMORY);
    pub(crate) const INSUFFICIENT_RESOURCES: Self =
        Self(nvml::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES);
    pub(crate) const ARGUMENT_VERSION_MISMATCH: Self =
        Self(nvml::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    pub(crate) const UNKNOWN: Self = Self(nvml::nvmlReturn_enum_NVML_ERROR_UNKNOWN);

    /// NVML's own words for a code.
    pub(crate) const fn text(self) -> &'static std::ffi::CStr {
        match self.0 {
            0 => c"Success",
            1 => c"Uninitialized",
            2 => c"Invalid Argument",
            3 => c"Not Supported",
            4 => c"Insufficient Permissions",
            5 => c"Already Initialized",
            6 => c"Not Found",
            7 => c"Insufficient Size",
            8 => c"Insufficient External Power",
            9 => c"Driver Not Loaded",
            10 => c"Timeout",
            11 => c"Interrupt Request Issue",
            12 => c"NVML Shared Library Not Found",
            13 => c"Function Not Found",
            14 => c"Corrupted infoROM",
            15 => c"GPU is lost",
            16 => c"GPU requires reset",
            17 => c"GPU access blocked by the operating system",
            18 => c"Driver/library version mismatch",
            19 => c"In use by another client",
            20 => c"Insufficient Memory",
            21 => c"No data",
            22 => c"vGPU ECC not supported",
            23 => c"Insufficient Resources",
            24 => c"Frequency not supported",
            25 => c"Argument version mismatch",
            26 => c"Deprecated",
            27 => c"Not ready",
            28 => c"GPU not found",
            29 => c"Invalid state",
            30 => c"Reset type not supported",
            _ => c"Unknown Error",
        }
    }
}

impl From<Refusal> for Code {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Lost(_) => Self::GPU_IS_LOST,
            Refusal::NoMig(_) => Self::NOT_SUPPORTED,
            Refusal::NoRoom => Self::INSUFFICIENT_RESOURCES,
            Refusal::InUse => Self::IN_USE,
            // A handle, an id or a placement that does not exist (any more).
            Refusal::NoGpu(_)
            | Refusal::NoGpuInstance { .. }
            | Refusal::NoComputeInstance { .. }
            | Refusal::Profile(_)
            | Refusal::Start { .. }
            // No call starts a process or sets a number.
            | Refusal::ProcessPlace(_)
            | Refusal::NoProcess { .. }
            | Refusal::Memory { .. }
            | Refusal::Range { .. } => Self::INVALID_ARGUMENT,
        }
    }
}
