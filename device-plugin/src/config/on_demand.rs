//! What MIG on demand and elastic GPUs do not go together with.

use stowage_shared::resource::ResourceName;

use super::check::Given;
use super::{Config, ConfigError, DeviceIdStrategy, MigStrategy};

/// Refuses what cannot be carried out.
///
/// # Errors
/// [`ConfigError::Value`].
pub(super) fn check(given: &Given, config: &Config) -> Result<(), ConfigError> {
    let shared = || config.sharing.iter().flat_map(|sharing| &sharing.resources);
    if config.elastic_gpus
        && let Some(shared) = shared().find(|shared| shared.rename.is_none())
    {
        let cure = "an elastic GPU is offered whole as well, so its shares need a name of their own: set \
                    renameByDefault or rename";
        return Err(wrong("sharing.timeSlicing.resources", shared.name.as_str(), "elasticGPUs", cure));
    }
    if config.mig_strategy != MigStrategy::OnDemand {
        if config.mig_static.is_empty() {
            return Ok(());
        }
        return Err(given.wrong(
            "flags.migStaticGPUs",
            "it only means something with migStrategy on-demand: leave it out",
        ));
    }
    if config.device_id_strategy == DeviceIdStrategy::Index {
        let cure = "use uuid with migStrategy on-demand: a slice has no index before it is built";
        return Err(given.wrong("flags.plugin.deviceIDStrategy", cure));
    }
    let strategy = "migStrategy on-demand";
    if let Some(named) = config.names.mig.first() {
        let cure =
            "slices that are built on demand have their usual names: leave it out, or use migStrategy mixed";
        return Err(wrong("resources.mig", &named.pattern, strategy, cure));
    }
    let is_slice = |name: &&ResourceName| name.as_str().starts_with("nvidia.com/mig-");
    if let Some(slice) = shared().map(|shared| &shared.name).find(is_slice) {
        let cure =
            "slices that are built on demand are not shared: ask for smaller ones, or use migStrategy mixed";
        return Err(wrong("sharing.timeSlicing.resources", slice.as_str(), strategy, cure));
    }
    Ok(())
}

fn wrong(key: &str, value: &str, with: &str, cure: &str) -> ConfigError {
    ConfigError::Value {
        key: key.to_owned(),
        value: format!("{value:?}"),
        place: format!("with {with}"),
        cure: cure.to_owned(),
    }
}
