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

    /// Does something to the GPU and its instances of ours.
    fn with<T>(&mut self, act: impl FnOnce(&Gpu, &mut Ours<'_>) -> T) -> T {
        let kept = &mut self.kept;
        let mut keep = |ours: &[OurInstance]| {
            *kept = ours.to_vec();
            Ok(())
        };
        act(&self.gpu, &mut Ours { instances: &mut self.ours, keep: &mut keep })
    }

    fn make_whole(&mut self, booked: &[MigSlice]) -> Result<(), ProvideError> {
        self.with(|gpu, ours| make_whole(gpu, &uuid(), booked, ours))
    }

    fn provide(&mut self, wanted: &MigSlice, booked: &[MigSlice]) -> Result<Built, ProvideError> {
        let (gpu_uuid, token) = (uuid(), self.token.clone());
        let wanted = Wanted { gpu: &gpu_uuid, slice: wanted, token: token.as_deref() };
        self.with(|gpu, ours| provide(gpu, wanted, booked, ours))
    }
}

fn uuid() -> GpuUuid {
    "GPU-a".parse().unwrap()
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
    let tokens: Vec<_> = setting.kept.iter().map(|ours| (ours.slice.start, ours.token.as_deref())).collect();
    assert_eq!(tokens, [(0, Some("two")), (1, None)]);
}

#[test]
fn a_gpu_is_cut_and_made_whole_again_unless_somebody_else_has_cut_it() {
    let mut setting = Setting::new();
    *setting.gpu.whole.borrow_mut() = true;
    setting.provide(&slice("1g.5gb", 0), &[]).unwrap();
    assert!(setting.gpu.is_cut().unwrap());
    setting.make_whole(&[]).unwrap();
    assert_eq!((setting.gpu.is_cut().unwrap(), setting.kept.len()), (false, 0));
    setting.provide(&slice("1g.5gb", 0), &[]).unwrap();
    setting.gpu.build(&slice("3g.20gb", 4)).unwrap();
    assert!(matches!(setting.make_whole(&[]), Err(ProvideError::NotWhole)));
    assert_eq!(setting.gpu.instances.borrow().len(), 2);
}

/// A process that is started again leaves its slice idle for a moment, which once was enough to lose it.
#[test]
fn a_gpu_is_not_made_whole_while_somebody_has_a_slice_of_it() {
    let mut setting = Setting::new();
    let one = slice("1g.5gb", 2);
    let built = setting.provide(&one, &[]).unwrap();
    let error = setting.make_whole(std::slice::from_ref(&one)).unwrap_err();
    assert_eq!(error.to_string(), "the GPU cannot be had whole yet: a pod has 1g.5gb at 2 of it");
    assert_eq!((setting.gpu.instances.borrow()[0].id, setting.kept.len()), (built.gpu_instance_id, 1));
    setting.make_whole(&[]).unwrap();
    assert!(!setting.gpu.is_cut().unwrap());
    setting.make_whole(&[one]).expect("it is whole already");
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
    assert_eq!(error.to_string(), "1g.5gb at 6 is still in use by a process, and 7g.40gb needs its place");
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
