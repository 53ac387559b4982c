//! Makes the slice that a token was booked for exist, with what is there already.
//!
//! An instance that nobody uses is kept: building one takes the driver up to seconds, and the next pod often wants the
//! same. It is taken down when another slice needs its place. Instances that are not ours are never touched; so what
//! is ours is written down before it is built, and what was not there when it was looked for is ours no more.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES as PLACE_TAKEN;
use serde::{Deserialize, Serialize};
use stowage_shared::gpu::GpuUuid;
use stowage_shared::mig::MigSlice;

use crate::nvml::{Built, Instance, NvmlGpus};

/// What can be done to one GPU.
pub trait Cut {
    /// Whether it is in MIG mode.
    ///
    /// # Errors
    /// NVML's own, as all of these.
    fn is_cut(&self) -> Result<bool, NvmlError>;
    /// Switches MIG mode.
    ///
    /// # Errors
    /// `InUse` while somebody uses the GPU.
    fn set_cut(&self, cut: bool) -> Result<(), NvmlError>;
    /// The GPU instances that exist.
    ///
    /// # Errors
    /// NVML's own.
    fn instances(&self) -> Result<Vec<Instance>, NvmlError>;
    /// Builds one, with a compute instance that fills it.
    ///
    /// # Errors
    /// `UnexpectedVariant(PLACE_TAKEN)`, which the wrapper has no name for, where the place is taken.
    fn build(&self, slice: &MigSlice) -> Result<Built, NvmlError>;
    /// Takes one down.
    ///
    /// # Errors
    /// `InUse` while a process runs on it.
    fn take_down(&self, gpu_instance_id: u32) -> Result<(), NvmlError>;
}

/// One GPU of the machine, by NVML's index.
pub struct OneGpu<'a>(pub &'a NvmlGpus, pub u32);

impl Cut for OneGpu<'_> {
    fn is_cut(&self) -> Result<bool, NvmlError> {
        self.0.is_cut(self.1)
    }

    fn set_cut(&self, cut: bool) -> Result<(), NvmlError> {
        self.0.set_cut(self.1, cut)
    }

    fn instances(&self) -> Result<Vec<Instance>, NvmlError> {
        self.0.instances(self.1)
    }

    fn build(&self, slice: &MigSlice) -> Result<Built, NvmlError> {
        self.0.build(self.1, slice)
    }

    fn take_down(&self, gpu_instance_id: u32) -> Result<(), NvmlError> {
        self.0.take_down(self.1, gpu_instance_id)
    }
}

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

/// Why a slice cannot be had now.
#[derive(Debug, thiserror::Error)]
pub enum ProvideError {
    /// Something of ours is in its place, and its last process has not ended yet.
    #[error("{} at {} is still in use by a process, and {} needs its place", .there.profile, .there.start, .wanted.profile)]
    Busy {
        /// What is there.
        there: MigSlice,
        /// What was wanted.
        wanted: MigSlice,
    },
    /// Somebody else took the place, or the GPU cannot hold it for a reason of its own.
    #[error("there is no place for {} at {}: somebody else has built MIG instances there", .0.profile, .0.start)]
    Taken(MigSlice),
    /// The GPU cannot be switched yet: the last process of the form that it had has not ended.
    #[error("the GPU's MIG mode cannot be switched while a process uses it")]
    InUse,
    /// The GPU is cut by somebody else.
    #[error("the GPU cannot be had whole: somebody else has built MIG instances on it")]
    NotWhole,
    /// Another error of the driver.
    #[error("the driver refuses: {0}")]
    Driver(#[from] NvmlError),
    /// What is about to happen could not be written down, so it was left.
    #[error("cannot write down which MIG instances are Stowage's")]
    Record(#[source] std::io::Error),
}

/// The instances of ours, and how changes of them are kept.
pub struct Ours<'a> {
    /// All of them, on whatever GPU.
    pub instances: &'a mut Vec<OurInstance>,
    /// Writes them down.
    pub keep: &'a mut dyn FnMut(&[OurInstance]) -> std::io::Result<()>,
}

impl Ours<'_> {
    fn keep(&mut self) -> Result<(), ProvideError> {
        (self.keep)(self.instances).map_err(ProvideError::Record)
    }

    /// Leaves out what is not there any more: the GPU was reset, or somebody else took it down.
    fn forget_missing(&mut self, gpu: &GpuUuid, there: &[Instance]) {
        self.instances.retain_mut(|ours| {
            &ours.gpu != gpu
                || there.iter().any(|instance| {
                    let same_id =
                        ours.built.as_ref().is_none_or(|built| built.gpu_instance_id == instance.id);
                    same_id && instance.slice == ours.slice
                })
        });
    }
}

/// What is wanted of a GPU.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The GPU.
    pub gpu: &'a GpuUuid,
    /// The slice.
    pub slice: &'a MigSlice,
    /// For which token, if for one already.
    pub token: Option<&'a str>,
}

/// Makes a slice exist on a GPU. `booked` are the slices that tokens in use stand for: they are not touched.
///
/// # Errors
/// [`ProvideError`]. What was taken down for it stays down; the next try goes on from there.
pub fn provide(
    cut: &impl Cut,
    wanted: Wanted<'_>,
    booked: &[MigSlice],
    ours: &mut Ours<'_>,
) -> Result<Built, ProvideError> {
    let Wanted { gpu, slice, token } = wanted;
    if !cut.is_cut()? {
        cut.set_cut(true).map_err(in_use)?;
    }
    let there = cut.instances()?;
    ours.forget_missing(gpu, &there);
    if let Some(token) = token {
        // What it stood for before, it stands for no more.
        let stale = |other: &&mut OurInstance| other.token.as_deref() == Some(token) && other.slice != *slice;
        ours.instances.iter_mut().filter(stale).for_each(|other| other.token = None);
    }
    let finished = |ours: &OurInstance| &ours.gpu == gpu && &ours.slice == slice && ours.built.is_some();
    if let Some(at) = ours.instances.iter().position(finished) {
        if token.is_some() {
            ours.instances[at].token = token.map(str::to_owned);
            ours.keep()?;
        }
        if let Some(built) = ours.instances[at].built.clone() {
            return Ok(built);
        }
    }
    let is_ours =
        |instance: &&Instance| ours.instances.iter().any(|of| &of.gpu == gpu && of.slice == instance.slice);
    let ours_before: Vec<u32> = there.iter().filter(is_ours).map(|instance| instance.id).collect();
    make_room(cut, wanted, booked, (&there, ours))?;
    // Before it is written down as ours: after a kill, an instance in the place of a record without ids is ours.
    if there.iter().any(|instance| instance.slice.conflicts(slice) && !ours_before.contains(&instance.id)) {
        return Err(ProvideError::Taken(slice.clone()));
    }
    let (gpu, slice, token) = (gpu.clone(), slice.clone(), token.map(str::to_owned));
    ours.instances.push(OurInstance { gpu, slice: slice.clone(), token, built: None });
    ours.keep()?;
    let result = cut.build(&slice);
    let last = ours.instances.len() - 1;
    match result {
        Ok(built) => {
            ours.instances[last].built = Some(built.clone());
            // It was written down that we would: without the ids it is taken down and built again after a restart.
            let _ = ours.keep();
            Ok(built)
        }
        Err(error) => {
            ours.instances.remove(last);
            let _ = ours.keep();
            Err(match error {
                NvmlError::UnexpectedVariant(PLACE_TAKEN) => ProvideError::Taken(slice),
                error => ProvideError::Driver(error),
            })
        }
    }
}

/// Makes a GPU whole again: takes down what is ours, and switches MIG mode off.
///
/// # Errors
/// [`ProvideError`]; some instances may be gone by then.
pub fn make_whole(cut: &impl Cut, gpu: &GpuUuid, ours: &mut Ours<'_>) -> Result<(), ProvideError> {
    if !cut.is_cut()? {
        return Ok(());
    }
    let there = cut.instances()?;
    ours.forget_missing(gpu, &there);
    let is_ours =
        |slice: &MigSlice, ours: &[OurInstance]| ours.iter().any(|of| &of.gpu == gpu && &of.slice == slice);
    if there.iter().any(|instance| !is_ours(&instance.slice, ours.instances)) {
        return Err(ProvideError::NotWhole);
    }
    for instance in &there {
        cut.take_down(instance.id).map_err(in_use)?;
        ours.instances.retain(|of| &of.gpu != gpu || of.slice != instance.slice);
        ours.keep()?;
    }
    cut.set_cut(false).map_err(in_use)
}

fn in_use(error: NvmlError) -> ProvideError {
    if matches!(error, NvmlError::InUse) { ProvideError::InUse } else { error.into() }
}

/// Takes down what is ours and idle where `wanted` is to be, and what an earlier process left half-built there.
fn make_room(
    cut: &impl Cut,
    Wanted { gpu, slice: wanted, .. }: Wanted<'_>,
    booked: &[MigSlice],
    (there, ours): (&[Instance], &mut Ours<'_>),
) -> Result<(), ProvideError> {
    let in_the_way = |ours: &OurInstance| {
        &ours.gpu == gpu
            && ours.slice.conflicts(wanted)
            && (!booked.contains(&ours.slice) || (ours.built.is_none() && &ours.slice == wanted))
    };
    while let Some(at) = ours.instances.iter().position(in_the_way) {
        let victim = &ours.instances[at];
        let id = there.iter().find(|instance| instance.slice == victim.slice).map(|instance| instance.id);
        match id.map_or(Ok(()), |id| cut.take_down(id)) {
            Ok(()) => drop(ours.instances.remove(at)),
            Err(NvmlError::InUse) => {
                return Err(ProvideError::Busy { there: victim.slice.clone(), wanted: wanted.clone() });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;
    use stowage_shared::models::Model;

    use super::*;

    /// A GPU that keeps MIG's rules, by the dumbest means.
    #[derive(Default)]
    struct Gpu {
        instances: RefCell<Vec<Instance>>,
        busy: RefCell<Vec<u32>>,
        next: RefCell<u32>,
        refuses: RefCell<bool>,
        whole: RefCell<bool>,
    }

    impl Cut for Gpu {
        fn is_cut(&self) -> Result<bool, NvmlError> {
            Ok(!*self.whole.borrow())
        }

        fn set_cut(&self, cut: bool) -> Result<(), NvmlError> {
            if !self.busy.borrow().is_empty() || !self.instances.borrow().is_empty() {
                return Err(NvmlError::InUse);
            }
            *self.whole.borrow_mut() = !cut;
            Ok(())
        }

        fn instances(&self) -> Result<Vec<Instance>, NvmlError> {
            Ok(self.instances.borrow().clone())
        }

        fn build(&self, slice: &MigSlice) -> Result<Built, NvmlError> {
            if *self.refuses.borrow() {
                return Err(NvmlError::Unknown);
            }
            if self.instances.borrow().iter().any(|other| other.slice.conflicts(slice)) {
                return Err(NvmlError::UnexpectedVariant(PLACE_TAKEN));
            }
            *self.next.borrow_mut() += 1;
            let id = *self.next.borrow();
            self.instances.borrow_mut().push(Instance { id, slice: slice.clone() });
            Ok(Built { uuid: format!("MIG-{id}"), gpu_instance_id: id, compute_instance_id: 0 })
        }

        fn take_down(&self, id: u32) -> Result<(), NvmlError> {
            if self.busy.borrow().contains(&id) {
                return Err(NvmlError::InUse);
            }
            self.instances.borrow_mut().retain(|instance| instance.id != id);
            Ok(())
        }
    }

    fn slices() -> Vec<MigSlice> {
        Model::by_key("a100-40gb").and_then(Model::geometry).unwrap().slices().collect()
    }

    fn slice(profile: &str, start: u8) -> MigSlice {
        slices().into_iter().find(|s| s.profile.as_str() == profile && s.start == start).unwrap()
    }

    struct Setting {
        gpu: Gpu,
        ours: Vec<OurInstance>,
        kept: Vec<OurInstance>,
        token: Option<String>,
    }

    impl Setting {
        fn new() -> Self {
            Self { gpu: Gpu::default(), ours: Vec::new(), kept: Vec::new(), token: None }
        }

        fn make_whole(&mut self) -> Result<(), ProvideError> {
            let kept = &mut self.kept;
            let mut keep = |ours: &[OurInstance]| {
                *kept = ours.to_vec();
                Ok(())
            };
            let mut ours = Ours { instances: &mut self.ours, keep: &mut keep };
            make_whole(&self.gpu, &"GPU-a".parse().unwrap(), &mut ours)
        }

        fn provide(&mut self, wanted: &MigSlice, booked: &[MigSlice]) -> Result<Built, ProvideError> {
            let kept = &mut self.kept;
            let mut keep = |ours: &[OurInstance]| {
                *kept = ours.to_vec();
                Ok(())
            };
            let gpu = "GPU-a".parse().unwrap();
            let wanted = Wanted { gpu: &gpu, slice: wanted, token: self.token.as_deref() };
            provide(&self.gpu, wanted, booked, &mut Ours { instances: &mut self.ours, keep: &mut keep })
        }
    }

    #[test]
    fn an_idle_instance_is_used_again_and_makes_room_when_it_must() {
        let mut setting = Setting::new();
        let (one, seven) = (slice("1g.5gb", 0), slice("7g.40gb", 0));
        let first = setting.provide(&one, &[]).unwrap();
        assert_eq!(setting.provide(&one, &[]).unwrap(), first);
        setting.provide(&seven, &[]).unwrap();
        assert_eq!(setting.gpu.instances.borrow().len(), 1);
        assert_eq!(setting.kept, setting.ours);
    }

    #[test]
    fn a_token_stands_for_the_last_slice_that_it_got() {
        let mut setting = Setting::new();
        setting.token = Some("one".into());
        setting.provide(&slice("1g.5gb", 0), &[]).unwrap();
        setting.token = Some("two".into());
        setting.provide(&slice("1g.5gb", 1), &[]).unwrap();
        setting.provide(&slice("1g.5gb", 0), &[]).unwrap();
        let tokens: Vec<_> =
            setting.kept.iter().map(|ours| (ours.slice.start, ours.token.as_deref())).collect();
        assert_eq!(tokens, [(0, Some("two")), (1, None)]);
    }

    #[test]
    fn a_gpu_is_cut_and_made_whole_again_unless_somebody_else_has_cut_it() {
        let mut setting = Setting::new();
        *setting.gpu.whole.borrow_mut() = true;
        setting.provide(&slice("1g.5gb", 0), &[]).unwrap();
        assert!(setting.gpu.is_cut().unwrap());
        setting.make_whole().unwrap();
        assert_eq!((setting.gpu.is_cut().unwrap(), setting.kept.len()), (false, 0));
        setting.provide(&slice("1g.5gb", 0), &[]).unwrap();
        setting.gpu.build(&slice("3g.20gb", 4)).unwrap();
        assert!(matches!(setting.make_whole(), Err(ProvideError::NotWhole)));
        assert_eq!(setting.gpu.instances.borrow().len(), 2);
    }

    #[test]
    fn what_others_built_is_not_touched() {
        let mut setting = Setting::new();
        setting.gpu.build(&slice("3g.20gb", 0)).unwrap();
        let error = setting.provide(&slice("7g.40gb", 0), &[]).unwrap_err();
        assert!(matches!(error, ProvideError::Taken(_)), "{error}");
        assert_eq!(setting.gpu.instances.borrow().len(), 1);
        assert_eq!(setting.ours, []);
    }

    #[test]
    fn a_process_that_has_not_ended_is_named_and_tried_again() {
        let mut setting = Setting::new();
        let built = setting.provide(&slice("1g.5gb", 6), &[]).unwrap();
        setting.gpu.busy.borrow_mut().push(built.gpu_instance_id);
        let error = setting.provide(&slice("7g.40gb", 0), &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "1g.5gb at 6 is still in use by a process, and 7g.40gb needs its place"
        );
        setting.gpu.busy.borrow_mut().clear();
        setting.provide(&slice("7g.40gb", 0), &[]).unwrap();
    }

    #[test]
    fn an_instance_that_was_taken_from_us_is_built_again() {
        let mut setting = Setting::new();
        let one = slice("1g.5gb", 0);
        let first = setting.provide(&one, &[]).unwrap();
        setting.gpu.instances.borrow_mut().clear();
        assert_ne!(setting.provide(&one, std::slice::from_ref(&one)).unwrap(), first);
    }

    #[test]
    fn what_an_earlier_process_left_half_built_is_built_anew() {
        let mut setting = Setting::new();
        let one = slice("1g.5gb", 0);
        setting.provide(&one, &[]).unwrap();
        // Killed after the driver had built it and before that was written down.
        setting.ours[0].built = None;
        setting.provide(&one, std::slice::from_ref(&one)).unwrap();
        assert_eq!((setting.gpu.instances.borrow().len(), setting.ours.len()), (1, 1));
    }

    #[test]
    fn a_refusal_leaves_nothing_written_down() {
        let mut setting = Setting::new();
        *setting.gpu.refuses.borrow_mut() = true;
        let error = setting.provide(&slice("1g.5gb", 0), &[]).unwrap_err();
        assert!(matches!(error, ProvideError::Driver(NvmlError::Unknown)), "{error}");
        assert_eq!((setting.ours, setting.kept), (Vec::new(), Vec::new()));
    }

    proptest! {
        /// Bookings come and go, one never overlapping another. Every booked slice can be had, stays while it is
        /// booked, and what is there is always ours and written down.
        #[test]
        fn every_booking_gets_its_slice(steps in prop::collection::vec((0_usize..25, any::<bool>()), 1..60)) {
            let (mut setting, all) = (Setting::new(), slices());
            let mut booked: Vec<(MigSlice, Built)> = Vec::new();
            for (pick, ends) in steps {
                if ends && !booked.is_empty() {
                    booked.swap_remove(pick % booked.len());
                    continue;
                }
                let free: Vec<&MigSlice> = all.iter().filter(|s| booked.iter().all(|(b, _)| !b.conflicts(s))).collect();
                if free.is_empty() {
                    continue;
                }
                let wanted = free[pick % free.len()].clone();
                let mut slices: Vec<MigSlice> = booked.iter().map(|(slice, _)| slice.clone()).collect();
                slices.push(wanted.clone());
                let built = setting.provide(&wanted, &slices).unwrap();
                booked.push((wanted, built));
                for (slice, built) in &booked {
                    let there = setting.gpu.instances.borrow();
                    prop_assert!(there.iter().any(|i| i.id == built.gpu_instance_id && &i.slice == slice));
                }
                prop_assert_eq!(setting.gpu.instances.borrow().len(), setting.ours.len());
                prop_assert_eq!(&setting.kept, &setting.ours);
            }
        }
    }
}
