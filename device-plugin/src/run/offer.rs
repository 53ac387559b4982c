//! What is offered at the start, and how containers are told of it.

use std::path::Path;
use std::sync::Arc;

use ops::Fault;

use crate::answer::AnswerRules;
use crate::book::{Book, Event};
use crate::cdi::{CdiError, Specs};
use crate::config::Config;
use crate::inventory::Inventory;
use crate::live::Live;
use crate::nvml::Reading;
use crate::plugin::Plugin;
use crate::slices::Slices;

/// The plugin, with what the first look has found.
pub(super) async fn plugin(config: &Config, live: &mut Live) -> Result<Plugin, Fault> {
    let inventory = live.first_inventory().await.map_err(Fault::config)?;
    let reading = live.reading();
    if live.works() && reading.gpus.is_empty() && reading.unreadable.is_empty() {
        tracing::warn!(
            "NVML finds no GPU on this node, so nothing is offered: does nvidia-smi on the node list one? If the node \
             has none, keep this program off it."
        );
    }
    for remark in inventory.remarks() {
        tracing::warn!("{remark}.");
    }
    let answers = answer_rules(config, &reading, &inventory, live.slices().as_deref())?;
    let missing = config.extras.difference(&answers.cdi_extras).filter(|_| config.uses_cdi());
    for extra in missing {
        tracing::warn!(
            class = extra.cdi_class(),
            "It is asked for, and this node has no such devices: CDI does without."
        );
    }
    let mut book = Book::new(config.node_name.clone(), Arc::new(inventory));
    if let Some(slices) = live.slices() {
        book.apply(Event::Restored(slices.restored()));
    }
    for resource in book.inventory().resources() {
        tracing::info!(resource_name = %resource, devices = book.listed(&resource).len(), "Offered.");
    }
    Ok(Plugin::new(book, answers, config))
}

/// How containers are told their devices, with the CDI specs that this rests on written. Made anew with each inventory.
pub(crate) fn answer_rules(
    config: &Config,
    reading: &Reading,
    inventory: &Inventory,
    slices: Option<&Slices>,
) -> Result<AnswerRules, Fault> {
    let mut rules = AnswerRules::look_up(config, inventory, Path::new("/")).map_err(Fault::config)?;
    if let Some(specs) = Specs::of(config, &reading.driver_version) {
        let written = match slices {
            Some(slices) => slices.write_specs(specs, inventory, &rules.imex_channels),
            None => specs.write(inventory, &[], &rules.imex_channels),
        };
        rules.cdi_extras = written.map_err(|error| match error {
            CdiError::Full { .. } | CdiError::Write { .. } => Fault::unavailable(error),
            CdiError::NotWritable { .. } | CdiError::MigMinors(_) => Fault::config(error),
        })?;
    }
    Ok(rules)
}
