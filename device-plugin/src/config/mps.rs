//! MPS: the folders that it needs, and what it does not go together with.

use std::path::PathBuf;

use super::check::Given;
use super::settings::{Setting, nvidia, outside};
use super::{Config, ConfigError, MigStrategy, SharingStrategy};

/// Where the host has MPS's folders.
pub(super) const HOST_ROOT: Setting = nvidia(
    "flags.mpsRoot",
    "mps-root",
    &["MPS_ROOT"],
    "",
    "Where the host keeps what MPS's daemons and pods share, such as /run/nvidia/mps; must be set for sharing.mps",
);

/// Where this program sees them.
pub(super) const ROOT: Setting = outside(
    "mps-ctr-path",
    &["MPS_CTR_PATH"],
    "/mps",
    "Where this program sees mps-root: the pipes and logs of MPS's daemons are made below it",
);

/// Where MPS's daemons and pods meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MpsConfig {
    /// The folder on the host, which is mounted into pods.
    pub host_root: PathBuf,
    /// The same folder as this program sees it.
    pub root: PathBuf,
}

pub(super) fn read(given: &Given) -> Result<Option<MpsConfig>, ConfigError> {
    if given.text(HOST_ROOT.key).is_none_or(str::is_empty) {
        return Ok(None);
    }
    let (host_root, root) = (given.path(HOST_ROOT.key, "")?, given.path(ROOT.key, ROOT.default)?);
    Ok(Some(MpsConfig { host_root, root }))
}

/// Refuses what cannot be carried out.
///
/// # Errors
/// [`ConfigError`].
pub(super) fn check(given: &Given, config: &Config) -> Result<(), ConfigError> {
    if config.sharing.as_ref().is_none_or(|sharing| sharing.strategy != SharingStrategy::Mps) {
        return Ok(());
    }
    if config.mps.is_none() {
        let cure = "sharing.mps wants the folder where its daemons and pods meet: set --mps-root (MPS_ROOT), \
                    such as /run/nvidia/mps";
        return Err(ConfigError::Missing { key: HOST_ROOT.key, cure });
    }
    // NVIDIA's plugin refuses mixed as well: one MPS daemon serves whole GPUs.
    if matches!(config.mig_strategy, MigStrategy::Mixed | MigStrategy::OnDemand) {
        let cure = "MPS shares whole GPUs: use none or single with sharing.mps, or sharing.timeSlicing";
        return Err(given.wrong("flags.migStrategy", cure));
    }
    if config.elastic_gpus {
        let cure = "under MPS only its daemon may use a GPU, so it cannot be offered whole as well: leave it \
                    out, or use sharing.timeSlicing";
        return Err(given.wrong("flags.elasticGPUs", cure));
    }
    Ok(())
}
