//! Which parts of an inventory must not be handed out, and why.

use std::sync::Arc;

use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::{Gpu, GpuUuid};

use super::Inventory;

/// Who knows how GPUs and their parts are.
pub trait Judge {
    /// Why nothing of a GPU must be handed out.
    fn why_none(&self, gpu: &GpuUuid) -> Option<String>;
    /// Why a part, of that UUID and with those GPU and compute instances, must not be handed out.
    fn why_not(&self, gpu: &GpuUuid, part: &str, instances: Option<(u32, u32)>) -> Option<String>;
    /// The tokens that have a slice now, with its GPU and its GPU and compute instance.
    fn built(&self) -> Vec<(GpuUuid, String, (u32, u32))> {
        Vec::new()
    }
    /// Why nothing is known of any GPU; what is in use is left as it is then.
    fn why_unknown(&self) -> Option<String>;
}

impl Inventory {
    /// The same devices, as healthy as `judge` says.
    pub fn judged(mut self, judge: &impl Judge) -> Self {
        self.unknown = judge.why_unknown();
        self.sick.clear();
        self.sick.extend(judge.built().into_iter().filter_map(|(gpu, token, instances)| {
            let why = judge.why_not(&gpu, &token, Some(instances))?;
            Some((token, why))
        }));
        for gpu in &mut self.gpus {
            let instances = |part: &str| self.parts.get(part).and_then(|detail| detail.instances);
            let parts = gpu.part_uuids.iter().filter(|part| !part.is_empty());
            self.sick.extend(
                parts.filter_map(|part| {
                    Some((part.clone(), judge.why_not(&gpu.uuid, part, instances(part))?))
                }),
            );
            let unhealthy = judge
                .why_unknown()
                .or_else(|| judge.why_none(&gpu.uuid))
                .or_else(|| self.sick.get(gpu.uuid.as_str()).cloned());
            // Of a GPU that is ill as a whole, that is all there is to say.
            let parts = gpu.part_uuids.iter().enumerate().filter(|_| unhealthy.is_none());
            let sick =
                parts.filter_map(|(offer, part)| Some((offer, self.sick.get(part)?.clone()))).collect();
            if gpu.unhealthy != unhealthy || gpu.sick != sick {
                *gpu = Arc::new(Gpu { unhealthy, sick, ..(**gpu).clone() });
            }
        }
        self
    }

    /// Whether an offer of a GPU may be handed out.
    pub fn is_well(&self, gpu: &Gpu, offer: usize) -> bool {
        gpu.why_not(offer).is_none()
    }

    /// Why a part of that UUID must not be handed out, be its GPU as it may.
    pub fn why_sick(&self, part: &str) -> Option<&str> {
        self.sick.get(part).map(String::as_str)
    }

    /// The same by the id of a device.
    pub fn why_sick_device(&self, id: &str) -> Option<&str> {
        let id: DeviceId = id.parse().ok()?;
        self.why_sick(id.part())
    }

    /// Why it is not known how the GPUs are. What a pod holds is not called unhealthy for that: its containers could
    /// not be restarted, for a reason that may lie in this program's own rights.
    pub fn why_unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }
}
