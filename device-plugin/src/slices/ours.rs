//! Which MIG instances are ours, and whether they are still there.

use serde::{Deserialize, Serialize};
use stowage_shared::gpu::GpuUuid;
use stowage_shared::mig::MigSlice;

use super::Slices;
use super::provide::ProvideError;
use super::store::Store;
use crate::nvml::{Built, Instance, Look, Reading};

/// An instance of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OurInstance {
    /// On which GPU.
    pub gpu: GpuUuid,
    /// Which slice of it.
    pub slice: MigSlice,
    /// The token that it was built or kept for last; `None` where it was built before somebody had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What came of it; `None` where the process ended before the driver had answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<Built>,
}

impl OurInstance {
    /// Whether this is that instance of its GPU. What was never finished has no id, and is known by its place alone.
    fn is(&self, instance: &Instance) -> bool {
        let same_id = self.built.as_ref().is_none_or(|built| built.gpu_instance_id == instance.id);
        same_id && self.slice == instance.slice
    }
}

/// The instances of ours, and how changes of them are kept.
pub struct Ours<'a> {
    /// All of them, on whatever GPU.
    pub instances: &'a mut Vec<OurInstance>,
    /// Writes them down.
    pub keep: &'a mut dyn FnMut(&[OurInstance]) -> std::io::Result<()>,
}

impl Ours<'_> {
    pub(super) fn keep(&mut self) -> Result<(), ProvideError> {
        (self.keep)(self.instances).map_err(ProvideError::Record)
    }

    /// Leaves out what is not there any more: the GPU was reset, or somebody else took it down.
    pub(super) fn forget_missing(&mut self, gpu: &GpuUuid, there: &[Instance]) {
        self.instances.retain(|ours| &ours.gpu != gpu || there.iter().any(|instance| ours.is(instance)));
    }
}

impl Store {
    /// Does something to one GPU and its instances of ours; each change of them is written down.
    pub(super) fn with<T>(&self, gpu: &GpuUuid, act: impl FnOnce(&mut Ours<'_>) -> T) -> T {
        let mut instances = self.of(gpu);
        let mut keep = |ours: &[OurInstance]| self.set(gpu, ours);
        act(&mut Ours { instances: &mut instances, keep: &mut keep })
    }
}

impl Slices {
    /// The instances of ours.
    pub fn ours(&self) -> Vec<OurInstance> {
        self.store.all()
    }

    /// Forgets those of `before`, taken before the look, that it did not find: a reset of the GPU took them, or somebody
    /// else. What others build in their place is not ours. Of a GPU that did not answer this time nothing is forgotten:
    /// what is known of it is older than `before`.
    pub fn forget_missing(&self, before: &[OurInstance], look: &Look) {
        for (gpu, _) in look.gpus.iter().flatten() {
            let Some(mig) = gpu.mig.as_ref().filter(|mig| mig.enabled) else { continue };
            let is_gone = |ours: &OurInstance| {
                let there = mig.instances.iter().any(|instance| ours.is(instance));
                ours.gpu == gpu.uuid && !there && before.contains(ours)
            };
            match self.store.forget(is_gone) {
                Ok(0) => {}
                Ok(lost) => {
                    tracing::warn!(
                        gpu = gpu.index,
                        lost,
                        "MIG instances of Stowage's are gone: a reset, or somebody took them down."
                    );
                }
                Err(error) => {
                    tracing::error!(%error, "Which MIG instances are Stowage's cannot be written down.");
                }
            }
        }
    }

    /// Leaves only instances of others in a reading; `before` are those that were ours when the look began.
    pub fn disown(&self, before: &[OurInstance], reading: &mut Reading) {
        let now = self.store.all();
        for gpu in &mut reading.gpus {
            let Some(mig) = &mut gpu.mig else { continue };
            mig.instances.retain(|instance| {
                !before.iter().chain(&now).any(|ours| ours.gpu == gpu.uuid && ours.is(instance))
            });
        }
    }

    /// Instances of ours that stand for a token: the token, and GPU and compute instance.
    pub fn built(&self) -> Vec<(GpuUuid, String, (u32, u32))> {
        let built = |ours: OurInstance| {
            let built = ours.built?;
            Some((ours.gpu, ours.token?, (built.gpu_instance_id, built.compute_instance_id)))
        };
        self.store.all().into_iter().filter_map(built).collect()
    }
}
