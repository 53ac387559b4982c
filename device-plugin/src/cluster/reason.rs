//! Every reason of an Event that the plugin writes, in this one place: `docs/events.md` is made from it.

/// Why an Event about the Node is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A GPU, or a part of one, takes no new pods.
    GpuUnhealthy,
    /// It takes pods again.
    GpuHealthy,
    /// NVML stopped working.
    NvmlFailed,
    /// NVML works again.
    NvmlWorks,
    /// CDI specs cannot be written.
    DevicesNotTold,
    /// They are written again.
    DevicesTold,
    /// A pod takes more of a GPU than its shares are.
    GpuShareExceeded,
    /// An MPS control daemon does not answer.
    MpsDaemonDown,
    /// It runs again.
    MpsDaemonUp,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::GpuUnhealthy,
        Self::GpuHealthy,
        Self::NvmlFailed,
        Self::NvmlWorks,
        Self::DevicesNotTold,
        Self::DevicesTold,
        Self::GpuShareExceeded,
        Self::MpsDaemonDown,
        Self::MpsDaemonUp,
    ];

    /// The Event's `reason`.
    pub fn word(self) -> &'static str {
        match self {
            Self::GpuUnhealthy => "GpuUnhealthy",
            Self::GpuHealthy => "GpuHealthy",
            Self::NvmlFailed => "NvmlFailed",
            Self::NvmlWorks => "NvmlWorks",
            Self::DevicesNotTold => "DevicesNotTold",
            Self::DevicesTold => "DevicesTold",
            Self::GpuShareExceeded => "GpuShareExceeded",
            Self::MpsDaemonDown => "MpsDaemonDown",
            Self::MpsDaemonUp => "MpsDaemonUp",
        }
    }

    /// Whether somebody should look at it: the Event's `type` is `Warning` then, else `Normal`.
    pub fn is_warning(self) -> bool {
        match self {
            Self::GpuUnhealthy
            | Self::NvmlFailed
            | Self::DevicesNotTold
            | Self::GpuShareExceeded
            | Self::MpsDaemonDown => true,
            Self::GpuHealthy | Self::NvmlWorks | Self::DevicesTold | Self::MpsDaemonUp => false,
        }
    }

    /// What has happened, for the documentation.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::GpuUnhealthy => {
                "a GPU, a MIG instance, or a device that a pod holds and that is gone: it takes no new pods; the note says why"
            }
            Self::GpuHealthy => "it takes new pods again",
            Self::NvmlFailed => "NVML does not work: nothing new is handed out on this node until it does",
            Self::NvmlWorks => "NVML works again",
            Self::DevicesNotTold => {
                "CDI specs cannot be written: devices that are new cannot be told to containers in full"
            }
            Self::DevicesTold => "they are written again",
            Self::GpuShareExceeded => {
                "a pod takes more of a GPU's memory than its shares are; once, until it ends"
            }
            Self::MpsDaemonDown => {
                "the MPS control daemon of a resource does not answer; it is started again"
            }
            Self::MpsDaemonUp => "it runs again",
        }
    }
}
