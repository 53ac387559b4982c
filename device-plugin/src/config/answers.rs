//! What is configured of the answers to `Allocate`, and of the CDI specs behind them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::ConfigError;
use super::check::Given;
use crate::cdi::hooks;

/// How containers are told their devices; NVIDIA's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceListStrategy {
    /// The environment variable `NVIDIA_VISIBLE_DEVICES`, for NVIDIA's container runtime.
    EnvVar,
    /// Mounts of `/dev/null` whose names are the devices': the same runtime, for clusters where pods must not choose by variable.
    VolumeMounts,
    /// CDI devices in an annotation, for runtimes before CRI had a field for them.
    CdiAnnotations,
    /// CDI devices in CRI's own field.
    CdiCri,
}

impl DeviceListStrategy {
    /// Whether it needs CDI specs.
    pub fn is_cdi(self) -> bool {
        matches!(self, Self::CdiAnnotations | Self::CdiCri)
    }
}

/// What containers with GPUs get besides; in NVIDIA's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extra {
    /// GDRCopy: the CPU reads and writes GPU memory directly.
    GdrCopy,
    /// GPUDirect Storage.
    Gds,
    /// Mellanox's OFED drivers.
    Mofed,
}

impl Extra {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::GdrCopy, Self::Gds, Self::Mofed];

    /// The environment variable that NVIDIA's container runtime reads.
    pub fn env(self) -> &'static str {
        match self {
            Self::GdrCopy => "NVIDIA_GDRCOPY",
            Self::Gds => "NVIDIA_GDS",
            Self::Mofed => "NVIDIA_MOFED",
        }
    }

    /// The class of its CDI device.
    pub fn cdi_class(self) -> &'static str {
        match self {
            Self::GdrCopy => "gdrcopy",
            Self::Gds => "gds",
            Self::Mofed => "mofed",
        }
    }
}

/// Which IMEX channels containers with GPUs get.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imex {
    /// Their numbers; NVIDIA allows none, or 0 alone.
    pub channels: Vec<u32>,
    /// Whether a node without them is an error.
    pub required: bool,
}

/// How CDI specs are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiConfig {
    /// Where the container runtime reads them.
    pub folder: PathBuf,
    /// NVIDIA's program with hooks, on the host.
    pub hook: PathBuf,
    /// Whether somebody said so: then it is taken for there, as this program may not see that part of the host.
    pub hook_is_given: bool,
    /// The hooks that are not wanted, by name.
    pub disabled_hooks: BTreeSet<String>,
    /// What is done otherwise than usual.
    pub features: BTreeSet<CdiFeature>,
}

/// What can be done otherwise in CDI specs; NVIDIA's feature flags that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CdiFeature {
    /// Libraries without the driver's version are mounted too.
    ExplicitLibraries,
    /// Containers do not join the groups of device nodes.
    NoAdditionalGids,
    /// Sockets of the driver's services are not mounted.
    NoIpc,
}

/// NVIDIA's feature flags, and what they mean here. Two ask for nothing that we do at all.
const FEATURES: [(&str, Option<CdiFeature>); 5] = [
    ("enable-explicit-driver-libraries", Some(CdiFeature::ExplicitLibraries)),
    ("no-additional-gids-for-device-nodes", Some(CdiFeature::NoAdditionalGids)),
    ("disable-ipc-discoverer", Some(CdiFeature::NoIpc)),
    ("disable-nvsandboxutils", None),
    ("disable-multiple-csv-devices", None),
];

/// `flags.plugin.deviceListStrategy`: one or several.
pub(super) fn device_list_strategies(given: &Given) -> Result<BTreeSet<DeviceListStrategy>, ConfigError> {
    const KEY: &str = "flags.plugin.deviceListStrategy";
    if given.text(KEY).is_none() {
        return Ok([DeviceListStrategy::EnvVar].into());
    }
    let strategy = |text: &str| match text {
        "envvar" => Ok(DeviceListStrategy::EnvVar),
        "volume-mounts" => Ok(DeviceListStrategy::VolumeMounts),
        "cdi-annotations" => Ok(DeviceListStrategy::CdiAnnotations),
        "cdi-cri" => Ok(DeviceListStrategy::CdiCri),
        _ => Err(given.wrong(
            KEY,
            "use envvar, volume-mounts, cdi-annotations or cdi-cri, or several with commas between",
        )),
    };
    let strategies: BTreeSet<_> = given.list(KEY).into_iter().map(strategy).collect::<Result<_, _>>()?;
    if strategies.is_empty() {
        return Err(given.wrong(KEY, "name at least one: envvar is the default"));
    }
    Ok(strategies)
}

/// The switches of what containers get besides.
pub(super) fn extras(given: &Given) -> Result<BTreeSet<Extra>, ConfigError> {
    let mut extras = BTreeSet::new();
    for extra in Extra::ALL {
        let key = match extra {
            Extra::GdrCopy => "flags.gdrcopyEnabled",
            Extra::Gds => "flags.gdsEnabled",
            Extra::Mofed => "flags.mofedEnabled",
        };
        if given.boolean(key)?.unwrap_or(false) {
            extras.insert(extra);
        }
    }
    Ok(extras)
}

/// `imex`.
pub(super) fn imex(given: &Given) -> Result<Imex, ConfigError> {
    const KEY: &str = "imex.channelIDs";
    let channels = match given.list(KEY)[..] {
        [] | ["[]"] => Vec::new(),
        ["0"] => vec![0],
        _ => return Err(given.wrong(KEY, "use 0, or leave it empty: NVIDIA's runtime knows no others")),
    };
    Ok(Imex { channels, required: given.boolean("imex.required")?.unwrap_or(false) })
}

/// Everything of CDI.
pub(super) fn cdi(given: &Given) -> Result<CdiConfig, ConfigError> {
    const FLAGS: &str = "cdi-feature-flags";
    const HOOKS: &str = "cdi-disable-hooks";
    const HOOK: &str = "flags.plugin.nvidiaCTKPath";
    let mut features = BTreeSet::new();
    for flag in given.list(FLAGS) {
        let known = FEATURES.iter().find(|(name, _)| *name == flag);
        let Some((_, feature)) = known else {
            let names: Vec<&str> = FEATURES.iter().map(|(name, _)| *name).collect();
            return Err(
                given.wrong(FLAGS, format!("{flag} is not known here: use some of {}", names.join(", ")))
            );
        };
        features.extend(*feature);
    }
    let disabled_hooks: BTreeSet<String> = given.list(HOOKS).into_iter().map(str::to_owned).collect();
    if let Some(hook) = disabled_hooks.iter().find(|hook| !hooks::NAMES.contains(&hook.as_str())) {
        return Err(given.wrong(HOOKS, format!("{hook} is no hook: use some of {}", hooks::NAMES.join(", "))));
    }
    Ok(CdiConfig {
        folder: given.path("cdi-root", "/var/run/cdi")?,
        hook: given.path(HOOK, DEFAULT_HOOK)?,
        // Charts spell the default out.
        hook_is_given: given.text(HOOK).is_some_and(|hook| hook != DEFAULT_HOOK),
        disabled_hooks,
        features,
    })
}

/// NVIDIA's default.
const DEFAULT_HOOK: &str = "/usr/bin/nvidia-ctk";
