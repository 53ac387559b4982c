//! Handles: the opaque pointers that NVML gives out.
//!
//! A handle is a number from a counter, shaped like an aligned address. It is never dereferenced, only
//! looked up, so a wild pointer is an `INVALID_ARGUMENT` and not a crash. The same thing has the same
//! handle for as long as it exists, and no handle ever means another thing: a destroyed instance's handle
//! stays invalid, also when its id is used again.

use std::collections::BTreeMap;

use crate::state::State;

/// What a handle stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// A GPU, by index.
    Gpu(u32),
    /// A GPU instance, by the GPU's index and its serial.
    GpuInstance(u32, u64),
    /// A compute instance, likewise.
    ComputeInstance(u32, u64),
    /// The same compute instance, seen as a device.
    MigDevice(u32, u64),
    /// An event set, by number.
    EventSet(u64),
}

/// Both directions of the book.
#[derive(Debug)]
pub(crate) struct Handles {
    issued: usize,
    by_target: BTreeMap<Target, usize>,
    by_address: BTreeMap<usize, Target>,
}

// Above the zero page, below every mapping: a program that does dereference one gets its SIGSEGV at once.
const FIRST: usize = 0x1000;
const STEP: usize = 16;

impl Handles {
    pub(crate) const fn new() -> Self {
        Self { issued: 0, by_target: BTreeMap::new(), by_address: BTreeMap::new() }
    }

    /// The handle of a target, made at its first use.
    pub(crate) fn of<T>(&mut self, target: Target) -> *mut T {
        let address = match self.by_target.get(&target) {
            Some(&address) => address,
            None => {
                let address = FIRST + STEP * self.issued;
                self.issued += 1;
                self.by_target.insert(target, address);
                self.by_address.insert(address, target);
                address
            }
        };
        std::ptr::without_provenance_mut(address)
    }

    /// What a handle stands for; `None` for null, a wild pointer, or a thing that is gone.
    pub(crate) fn target<T>(&self, handle: *mut T) -> Option<Target> {
        self.by_address.get(&handle.addr()).copied()
    }

    pub(crate) fn forget(&mut self, target: Target) {
        if let Some(address) = self.by_target.remove(&target) {
            self.by_address.remove(&address);
        }
    }

    /// Forgets what no longer exists, so that the book stays as small as the node.
    pub(crate) fn keep_only(&mut self, state: &State) {
        let gpu_instance = |gpu: u32, serial: u64| {
            state
                .gpu(gpu)
                .is_some_and(|gpu| gpu.gpu_instances.iter().any(|instance| instance.serial == serial))
        };
        let compute_instance = |gpu: u32, serial: u64| {
            state.gpu(gpu).is_some_and(|gpu| gpu.mig_devices().any(|(_, compute)| compute.serial == serial))
        };
        let exists = |target: &Target| match *target {
            Target::Gpu(gpu) => state.gpu(gpu).is_some(),
            Target::GpuInstance(gpu, serial) => gpu_instance(gpu, serial),
            Target::ComputeInstance(gpu, serial) | Target::MigDevice(gpu, serial) => {
                compute_instance(gpu, serial)
            }
            Target::EventSet(_) => true,
        };
        self.by_target.retain(|target, _| exists(target));
        self.by_address.retain(|_, target| exists(target));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_stable_and_never_means_another_thing() {
        let mut handles = Handles::new();
        let gpu: *mut u8 = handles.of(Target::Gpu(0));
        let instance: *mut u8 = handles.of(Target::GpuInstance(0, 1));
        assert_eq!(handles.of::<u8>(Target::Gpu(0)), gpu);
        assert_ne!(gpu, instance);
        handles.forget(Target::GpuInstance(0, 1));
        assert_eq!(handles.target(instance), None);
        let next: *mut u8 = handles.of(Target::GpuInstance(0, 2));
        assert_ne!(next, instance);
        assert_eq!(handles.target(gpu), Some(Target::Gpu(0)));
        assert_eq!(handles.target::<u8>(std::ptr::null_mut()), None);
    }
}
