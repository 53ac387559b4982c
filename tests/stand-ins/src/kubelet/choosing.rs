//! Which devices a container gets: `devicesToAllocate` of the device manager, in two steps.
//!
//! The kubelet asks the plugin in the middle of the choice, without its lock. So the choice is split
//! there: [`Books::choose`] takes it as far as it goes alone, [`Books::fill_up`] ends it.
//!
//! NUMA hints are left out: this is the kubelet's default Topology Manager policy, `none`, under
//! which every free device is as good as any other.

use super::books::{Books, Names};
use super::error::AllocationError;

/// Who asks, for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) pod_uid: &'a str,
    pub(super) container: &'a str,
    pub(super) resource: &'a str,
    /// How many devices the container shall have.
    pub(super) required: usize,
}

/// How far the choice came without the plugin.
#[derive(Debug)]
pub(super) enum Choice {
    /// The container has what it needs, and `Allocate` was called for it long ago.
    Nothing,
    /// These devices, all left by init containers.
    Made(Names),
    /// Somebody may say which of the free devices.
    Open(OpenChoice),
}

/// A choice that waits for a preference.
#[derive(Debug)]
pub(super) struct OpenChoice {
    /// Chosen already: left by init containers.
    pub(super) taken: Names,
    /// Healthy, and held by nobody.
    free: Names,
    missing: usize,
}

impl OpenChoice {
    /// What the plugin may choose from: the free devices and those taken already.
    pub(super) fn available(&self) -> Names {
        self.free.union(&self.taken).cloned().collect()
    }
}

impl Books {
    /// Begins a choice; `reusable` is what the pod's init containers leave of the resource.
    pub(super) fn choose(&mut self, ask: &Ask<'_>, reusable: &Names) -> Result<Choice, AllocationError> {
        let Ask { pod_uid, container, resource, required } = *ask;
        let held = self.held_ids(pod_uid, container, resource);
        if let Some(held) = held.as_ref().filter(|held| held.len() != required) {
            return Err(AllocationError::RequestChanged {
                pod_uid: pod_uid.to_owned(),
                container: container.to_owned(),
                resource_name: resource.to_owned(),
                held: held.len(),
                requested: required,
            });
        }
        let Some(healthy) = self.healthy.get(resource).cloned() else {
            return Err(AllocationError::Unregistered(resource.to_owned()));
        };
        if healthy.is_empty() {
            return Err(AllocationError::NoneHealthy(resource.to_owned()));
        }
        if held.as_ref().is_some_and(|held| !held.is_subset(&healthy)) {
            return Err(AllocationError::NoLongerHealthy(resource.to_owned()));
        }
        if held.is_some() || required == 0 {
            return Ok(Choice::Nothing);
        }

        let mut choice = OpenChoice { taken: Names::new(), free: Names::new(), missing: required };
        // Not checked for health, by the kubelet neither: the init container has used them.
        self.take(&mut choice, resource, reusable);
        if choice.missing == 0 {
            return Ok(Choice::Made(choice.taken));
        }
        let in_use = self.allocated.get(resource).cloned().unwrap_or_default();
        choice.free = healthy.difference(&in_use).cloned().collect();
        if choice.free.len() < choice.missing {
            return Err(AllocationError::Unavailable {
                resource_name: resource.to_owned(),
                requested: choice.missing,
                available: choice.free.len(),
            });
        }
        Ok(Choice::Open(choice))
    }

    /// Ends a choice: of the `preferred` devices those that are free, then any free ones.
    pub(super) fn fill_up(
        &mut self,
        mut choice: OpenChoice,
        ask: &Ask<'_>,
        preferred: &Names,
    ) -> Result<Names, AllocationError> {
        let free = std::mem::take(&mut choice.free);
        let wanted = preferred.intersection(&free).cloned().collect();
        self.take(&mut choice, ask.resource, &wanted);
        self.take(&mut choice, ask.resource, &free);
        if choice.missing == 0 {
            Ok(choice.taken)
        } else {
            Err(AllocationError::Short { requested: ask.required, got: ask.required - choice.missing })
        }
    }

    /// Takes from `devices`, in any order, until nothing is missing.
    fn take(&mut self, choice: &mut OpenChoice, resource: &str, devices: &Names) {
        let fresh = self.in_any_order(devices.difference(&choice.taken).cloned());
        // The entry is made even where nothing is taken: from then on the resource counts as one that
        // plugins serve, also after its plugin has gone.
        let allocated = self.allocated.entry(resource.to_owned()).or_default();
        for id in fresh.into_iter().take(choice.missing) {
            allocated.insert(id.clone());
            choice.taken.insert(id);
            choice.missing -= 1;
        }
    }
}
