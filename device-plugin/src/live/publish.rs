//! What is offered, of what was seen: the configuration applied to it, and each part judged.

use std::collections::BTreeSet;

use ops::chain;
use stowage_shared::gpu::GpuUuid;

use super::{Live, tell};
use crate::cdi::passing_nodes;
use crate::inventory::{Inventory, Judge};
use crate::nvml::Reading;
use crate::plugin::Plugin;
use crate::run::answer_rules;

impl Live {
    /// Hands the book what is known now, if that differs from the last time.
    pub(super) fn publish(&mut self, plugin: &Plugin) {
        let reading = self.reading();
        if reading != self.made_of || self.misfit.is_some() {
            match Inventory::build(&reading, &self.rules) {
                Ok(base) => {
                    if let Some(mps) = &self.mps {
                        mps.want(&base);
                    }
                    (self.base, self.made_of, self.misfit) = (base, reading, None);
                }
                Err(error) => {
                    let why = chain(&error);
                    if self.misfit.as_ref() != Some(&why) {
                        tracing::error!(
                            error = why,
                            "The GPUs changed, and cannot be offered as configured."
                        );
                    }
                    self.misfit = Some(why);
                }
            }
            self.tell_fault(plugin);
            let remarks: BTreeSet<String> = self.base.remarks().iter().cloned().collect();
            remarks.difference(&self.remarks).for_each(|remark| tracing::warn!("{remark}."));
            self.remarks = remarks;
        }
        for gpu in &self.made_of.gpus {
            plugin.metrics.health.set_healthy(gpu.index, self.health.is_well(&gpu.uuid));
        }
        let inventory = self.base.clone().judged(self);
        let is_news = self.told.as_ref() != Some(&inventory);
        let nodes = passing_nodes(&self.config);
        if !is_news && self.untold.is_none() && self.nodes == nodes {
            return;
        }
        self.nodes = nodes;
        let answers = answer_rules(&self.config, &self.made_of, &inventory, self.slices.as_deref());
        let untold = answers.map(|answers| plugin.set_answers(answers)).err().map(|fault| fault.to_string());
        if self.untold != untold {
            tell::untold(&self.events, untold.as_deref());
            self.untold = untold;
            self.tell_fault(plugin);
        }
        if !is_news {
            return;
        }
        tell::offered(plugin, &inventory);
        self.told = Some(inventory.clone());
        plugin.set_inventory(inventory);
    }
}

impl Judge for Live {
    fn why_none(&self, gpu: &GpuUuid) -> Option<String> {
        if let Some(why) = self.health.why_none(gpu) {
            return Some(why.to_owned());
        }
        // What cannot be offered as configured is not what it was.
        let why = self.misfit.as_ref()?;
        let of = |reading: &Reading| reading.gpus.iter().find(|other| other.uuid == *gpu).cloned();
        (of(&self.made_of) != of(&self.reading())).then(|| why.clone())
    }

    fn why_not(&self, gpu: &GpuUuid, part: &str, instances: Option<(u32, u32)>) -> Option<String> {
        let why = self.known.why_gone(part).or_else(|| self.health.why_not(gpu, instances));
        why.map(str::to_owned).or_else(|| self.mps.as_ref()?.why_down(part))
    }

    fn built(&self) -> Vec<(GpuUuid, String, (u32, u32))> {
        self.slices.as_ref().map(|slices| slices.built()).unwrap_or_default()
    }

    fn why_unknown(&self) -> Option<String> {
        self.fault.as_ref().map(|fault| format!("NVML does not work: {fault}"))
    }
}
