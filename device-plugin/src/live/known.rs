//! What is known of the GPUs, look after look. Pure.
//!
//! A look may find less than there is: a lost GPU does not tell its UUID, a MIG device was destroyed while a pod
//! that holds it restarts its container. The kubelet takes a device that is missing from a list for one that never
//! was, so what was offered stays on the list with a reason: a GPU for as long as the program runs, a MIG device or a
//! GPU whose MIG mode was switched while a pod holds it.

use std::collections::{BTreeMap, BTreeSet};

use stowage_shared::gpu::GpuUuid;

use crate::health::{Scope, Seen};
use crate::nvml::{GpuReading, Look, Nearness, Reading, Trouble};

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By UUID: indices change when the driver is loaded again.
    gpus: BTreeMap<GpuUuid, GpuReading>,
    driver_version: String,
    /// GPUs that never told who they are.
    strangers: Vec<(u32, String)>,
    /// Why parts that are still listed are not there, by UUID.
    gone: BTreeMap<String, String>,
    /// How near the GPUs are; of those that are away, what was read before.
    nearness: Nearness,
}

/// A part that a pod holds and that is not there any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gone<'a> {
    /// Its UUID.
    pub(super) part: &'a str,
    /// NVML's index of its GPU.
    pub(super) index: u32,
    /// What of the GPU it was.
    pub(super) scope: Scope,
    /// Why.
    pub(super) why: &'a str,
}

impl Known {
    /// Takes note of a look. `in_use` are the UUIDs of the parts that pods hold. Gives what was seen of each GPU.
    pub(super) fn take(&mut self, look: Look, in_use: &BTreeSet<String>) -> Vec<(GpuUuid, Seen)> {
        self.driver_version = look.driver_version;
        self.gone.clear();
        let mut seen = Vec::new();
        let mut silent: Vec<(u32, Trouble)> = Vec::new();
        for (index, gpu) in (0..).zip(look.gpus) {
            match gpu {
                Ok((reading, vitals)) => {
                    seen.push((reading.uuid.clone(), Seen::Well(vitals)));
                    let old = self.gpus.remove(&reading.uuid);
                    let reading = self.with_what_is_held(old, reading, in_use);
                    self.gpus.insert(reading.uuid.clone(), reading);
                }
                Err(trouble) => silent.push((index, trouble)),
            }
        }
        self.strangers.clear();
        let answered: BTreeSet<GpuUuid> = seen.iter().map(|(uuid, _)| uuid.clone()).collect();
        let mut missing: BTreeMap<u32, GpuUuid> = self
            .gpus
            .iter()
            .filter(|(uuid, _)| !answered.contains(uuid))
            .map(|(uuid, gpu)| (gpu.index, uuid.clone()))
            .collect();
        for (index, trouble) in silent {
            match missing.remove(&index) {
                Some(uuid) => seen.push((uuid, Seen::Ill(trouble))),
                None => self.strangers.push((index, trouble.why().to_owned())),
            }
        }
        let unlisted = || Seen::Ill(Trouble::Lost("NVML does not list it any more".to_owned()));
        seen.extend(missing.into_values().map(|uuid| (uuid, unlisted())));
        seen
    }

    /// A GPU's new reading, with what it has no longer and a pod still holds.
    fn with_what_is_held(
        &mut self,
        old: Option<GpuReading>,
        mut new: GpuReading,
        in_use: &BTreeSet<String>,
    ) -> GpuReading {
        let Some(old) = old else { return new };
        let is_cut = |gpu: &GpuReading| gpu.mig.as_ref().is_some_and(|mig| mig.enabled);
        let held = |gpu: &GpuReading| -> Vec<String> {
            let devices = gpu.mig.iter().filter(|mig| mig.enabled).flat_map(|mig| &mig.devices);
            let mut parts: Vec<String> = devices.map(|device| device.uuid.clone()).collect();
            if !is_cut(gpu) {
                parts.push(gpu.uuid.to_string());
            }
            parts.retain(|part| in_use.contains(part));
            parts
        };
        if is_cut(&old) != is_cut(&new) {
            let held = held(&old);
            if held.is_empty() {
                return new;
            }
            let why = || "its MIG mode was switched while a pod holds it".to_owned();
            self.gone.extend(held.into_iter().map(|part| (part, why())));
            return GpuReading { index: new.index, ..old };
        }
        let (Some(before), Some(now)) = (old.mig, new.mig.as_mut()) else { return new };
        let vanished = before.devices.into_iter().filter(|device| {
            in_use.contains(&device.uuid) && !now.devices.iter().any(|other| other.uuid == device.uuid)
        });
        let vanished: Vec<_> = vanished.collect();
        for device in vanished {
            let why = format!("its {} instance was destroyed while a pod holds it", device.slice.profile);
            self.gone.insert(device.uuid.clone(), why);
            now.devices.push(device);
        }
        new
    }

    /// All that is known, as if it had just been read.
    pub(super) fn reading(&self) -> Reading {
        let mut gpus: Vec<GpuReading> = self.gpus.values().cloned().collect();
        gpus.sort_by_key(|gpu| gpu.index);
        Reading {
            driver_version: self.driver_version.clone(),
            gpus,
            unreadable: self.strangers.clone(),
            nearness: self.nearness.clone(),
        }
    }

    /// Takes note of how near GPUs are.
    pub(super) fn connected(&mut self, nearness: Nearness) {
        self.nearness.update(nearness);
    }

    /// Why a part that is listed is not there.
    pub(super) fn why_gone(&self, part: &str) -> Option<&str> {
        self.gone.get(part).map(String::as_str)
    }

    /// Every part that is listed and not there: what it is of which GPU, and why.
    pub(super) fn gone(&self) -> impl Iterator<Item = Gone<'_>> {
        self.gone.iter().filter_map(|(part, why)| {
            let of = |gpu: &GpuReading| {
                if gpu.uuid.as_str() == part {
                    return Some(Scope::Gpu);
                }
                let mut devices = gpu.mig.iter().flat_map(|mig| &mig.devices);
                let device = devices.find(|device| &device.uuid == part)?;
                Some(Scope::ComputeInstance(device.gpu_instance_id, device.compute_instance_id))
            };
            let (index, scope) = self.gpus.values().find_map(|gpu| Some((gpu.index, of(gpu)?)))?;
            Some(Gone { part, index, scope, why })
        })
    }

    /// NVML's index of a GPU.
    pub(super) fn index(&self, gpu: &GpuUuid) -> Option<u32> {
        self.gpus.get(gpu).map(|gpu| gpu.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::gpu;
    use crate::nvml::Vitals;

    fn look(gpus: Vec<Result<GpuReading, Trouble>>) -> Look {
        let gpus = gpus.into_iter().map(|gpu| gpu.map(|gpu| (gpu, Vitals::default()))).collect();
        Look { driver_version: "1".into(), gpus }
    }

    fn held(parts: &[&str]) -> BTreeSet<String> {
        parts.iter().map(|part| (*part).to_owned()).collect()
    }

    fn seen(known: &mut Known, gpus: Vec<Result<GpuReading, Trouble>>, in_use: &[&str]) -> Vec<String> {
        let seen = known.take(look(gpus), &held(in_use));
        let word = |seen: &Seen| match seen {
            Seen::Well(_) => "well".to_owned(),
            Seen::Ill(trouble) => trouble.why().to_owned(),
            Seen::Xid { .. } => "xid".to_owned(),
        };
        seen.iter().map(|(gpu, seen)| format!("{gpu} {}", word(seen))).collect()
    }

    fn lost() -> Result<GpuReading, Trouble> {
        Err(Trouble::Lost("lost".into()))
    }

    fn devices(known: &Known, gpu: usize) -> Vec<String> {
        let reading = known.reading();
        let mig = reading.gpus[gpu].mig.as_ref().unwrap();
        mig.devices.iter().map(|device| device.uuid.clone()).collect()
    }

    #[test]
    fn a_gpu_that_does_not_answer_is_known_by_its_index_and_stays() {
        let mut known = Known::default();
        seen(&mut known, vec![Ok(gpu(0, "whole")), Ok(gpu(1, "whole"))], &[]);
        assert_eq!(seen(&mut known, vec![Ok(gpu(0, "whole")), lost()], &[]), ["GPU-0 well", "GPU-1 lost"]);
        assert_eq!(known.reading().gpus, [gpu(0, "whole"), gpu(1, "whole")]);
    }

    #[test]
    fn a_gpu_that_nvml_lists_no_more_is_lost_whatever_took_its_index() {
        let mut known = Known::default();
        seen(&mut known, vec![Ok(gpu(0, "whole")), Ok(gpu(1, "whole"))], &[]);
        let moved = GpuReading { index: 0, ..gpu(1, "whole") };
        assert_eq!(
            seen(&mut known, vec![Ok(moved)], &[]),
            ["GPU-1 well", "GPU-0 NVML does not list it any more"]
        );
        assert_eq!(known.reading().gpus.len(), 2);
    }

    #[test]
    fn a_gpu_that_never_told_who_it_is_is_named_by_its_index() {
        let mut known = Known::default();
        assert_eq!(seen(&mut known, vec![Ok(gpu(0, "whole")), lost()], &[]), ["GPU-0 well"]);
        assert_eq!(known.reading().unreadable, [(1, "lost".to_owned())]);
        assert_eq!(seen(&mut known, vec![Ok(gpu(0, "whole")), Ok(gpu(1, "whole"))], &[]).len(), 2);
        assert_eq!(known.reading().unreadable, []);
    }

    #[test]
    fn a_mig_device_goes_when_it_is_destroyed_unless_a_pod_holds_it() {
        let mut known = Known::default();
        seen(&mut known, vec![Ok(gpu(0, "1g.5gb@0 1g.5gb@1"))], &[]);
        seen(&mut known, vec![Ok(gpu(0, "empty"))], &["MIG-0-1"]);
        assert_eq!(devices(&known, 0), ["MIG-0-1"]);
        assert!(known.why_gone("MIG-0-1").unwrap().contains("1g.5gb instance was destroyed"));
        seen(&mut known, vec![Ok(gpu(0, "empty"))], &["MIG-0-1"]);
        assert_eq!(devices(&known, 0), ["MIG-0-1"], "look after look");
        seen(&mut known, vec![Ok(gpu(0, "empty"))], &[]);
        assert_eq!(devices(&known, 0), [""; 0], "until the pod is gone");
    }

    #[test]
    fn a_whole_gpu_that_a_pod_holds_stays_one_when_its_mig_mode_is_switched() {
        let mut known = Known::default();
        seen(&mut known, vec![Ok(gpu(0, "whole"))], &[]);
        seen(&mut known, vec![Ok(gpu(0, "1g.5gb@0"))], &["GPU-0"]);
        assert_eq!(known.reading().gpus, [gpu(0, "whole")]);
        assert!(known.why_gone("GPU-0").unwrap().contains("MIG mode was switched"));
        seen(&mut known, vec![Ok(gpu(0, "1g.5gb@0"))], &[]);
        assert_eq!(known.reading().gpus, [gpu(0, "1g.5gb@0")]);
        assert_eq!(known.why_gone("GPU-0"), None);
    }
}
