//! A long random walk over everything at once: pods that come and go, a plugin that is killed, and GPUs that refuse,
//! are reset, fall off the bus, or are cut by somebody else. The book says which slice a token stands for, `provide`
//! builds it, the simulator keeps MIG's rules, and the audit looks at it after each step.

use std::cell::{Cell, RefCell};

use nvml_simulator::description::{Boot, Description, GpuDescription};
use nvml_simulator::hardware::{GpuHardware, Hardware};
use nvml_simulator::state::{Node as Machine, Refusal, State};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES as PLACE_TAKEN;
use proptest::prelude::*;
use stowage_shared::gpu::GpuUuid;
use stowage_shared::mig::MigSlice;
use stowage_shared::models::Model;

use super::slices::{Node, Step, step};
use crate::book::Booking;
use crate::nvml::{Built, Instance};
use crate::slices::{Cut, OurInstance, Ours, ProvideError, Wanted, provide};

const GPUS: u32 = 2;
/// Steps of one walk.
const STEPS: usize = 250;
/// Walks: 100,000 steps in all.
const WALKS: u32 = 400;

/// The simulator's GPUs.
struct Gpus {
    hardware: Hardware,
    state: RefCell<State>,
    /// Whether the driver refuses the next creation.
    refuses: Cell<bool>,
}

impl Gpus {
    fn new(model: &str) -> Self {
        let gpu = GpuDescription::new(model).with_mig(&[]).times(GPUS);
        let Boot { hardware, state } = Description::new(vec![gpu]).check().unwrap();
        Self { hardware, state: RefCell::new(state), refuses: Cell::default() }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Machine<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        change(&mut Machine { hardware: &self.hardware, state: &mut self.state.borrow_mut() })
    }

    fn hardware(&self, gpu: u32) -> &GpuHardware {
        self.hardware.gpu(gpu).unwrap()
    }

    fn is_lost(&self, gpu: u32) -> bool {
        self.state.borrow().gpu(gpu).unwrap().lost
    }

    /// What exists on a GPU, lost or not.
    fn there(&self, gpu: u32) -> Vec<Instance> {
        let state = self.state.borrow();
        let instances = state.gpu(gpu).unwrap().gpu_instances.iter();
        instances.map(|one| Instance { id: one.id, slice: one.slice(self.hardware(gpu)).unwrap() }).collect()
    }

    /// Builds a slice, or only its GPU instance, as a process that is killed in the middle does.
    fn build(&self, gpu: u32, slice: &MigSlice, whole: bool) -> Result<Built, Refusal> {
        let profile = self.hardware(gpu).geometry.as_ref().unwrap().profiles.iter();
        let profile = profile.clone().find(|profile| profile.name == slice.profile).unwrap();
        let id = self.change(|node| node.create_gpu_instance(gpu, profile.id, Some(slice.start)))?;
        if whole {
            self.change(|node| node.create_compute_instance(gpu, id, profile.compute_slices, None))?;
        }
        Ok(Built { uuid: format!("MIG-{gpu}-{id}"), gpu_instance_id: id, compute_instance_id: 0 })
    }

    fn take_down(&self, gpu: u32, id: u32) -> Result<(), Refusal> {
        let computes =
            self.state.borrow().gpu(gpu).unwrap().gpu_instance(id).map(|one| one.compute_instances.len());
        if computes.is_some_and(|computes| computes > 0) {
            self.change(|node| node.destroy_compute_instance(gpu, id, 0))?;
        }
        self.change(|node| node.destroy_gpu_instance(gpu, id))
    }
}

/// One of them, as the plugin cuts it.
struct OneGpu<'a>(&'a Gpus, u32);

impl OneGpu<'_> {
    fn reach(&self) -> Result<(), NvmlError> {
        if self.0.is_lost(self.1) { Err(NvmlError::GpuLost) } else { Ok(()) }
    }
}

fn as_nvml(refusal: Refusal) -> NvmlError {
    match refusal {
        Refusal::NoRoom => NvmlError::UnexpectedVariant(PLACE_TAKEN),
        Refusal::InUse => NvmlError::InUse,
        Refusal::Lost(_) => NvmlError::GpuLost,
        other => panic!("{other}"),
    }
}

impl Cut for OneGpu<'_> {
    fn is_cut(&self) -> Result<bool, NvmlError> {
        self.reach().map(|()| true)
    }

    fn set_cut(&self, _: bool) -> Result<(), NvmlError> {
        unreachable!("every GPU here is in MIG mode")
    }

    fn instances(&self) -> Result<Vec<Instance>, NvmlError> {
        self.reach()?;
        Ok(self.0.there(self.1))
    }

    fn build(&self, slice: &MigSlice) -> Result<Built, NvmlError> {
        if self.0.refuses.replace(false) {
            return Err(NvmlError::Unknown);
        }
        self.0.build(self.1, slice, true).map_err(as_nvml)
    }

    fn take_down(&self, gpu_instance_id: u32) -> Result<(), NvmlError> {
        self.0.take_down(self.1, gpu_instance_id).map_err(as_nvml)
    }
}

/// The node, the plugin's book, and what it wrote down.
struct World {
    node: Node,
    profiles: Vec<String>,
    gpus: Gpus,
    ours: Vec<OurInstance>,
    kept: Vec<OurInstance>,
    /// What somebody else built.
    foreign: Vec<(u32, Instance)>,
}

#[derive(Debug, Clone)]
enum Move {
    Book(Step),
    /// Containers start, for the first time or again.
    Build,
    /// The plugin is killed before it builds (0), in the middle of it (1), or before it hears of it (2).
    Kill(u8),
    Refuse,
    Reset(u32),
    Lose(u32),
    Find(u32),
    /// Somebody else takes an instance down, or builds one.
    Destroy(u32, usize),
    Intrude(u32, usize),
}

fn a_move() -> impl Strategy<Value = Move> {
    let gpu = 0..GPUS;
    prop_oneof![
        12 => step().prop_map(Move::Book),
        6 => Just(Move::Build),
        1 => (0..3_u8).prop_map(Move::Kill),
        1 => Just(Move::Refuse),
        1 => gpu.clone().prop_map(Move::Reset),
        1 => gpu.clone().prop_map(Move::Lose),
        2 => gpu.clone().prop_map(Move::Find),
        1 => (gpu.clone(), 0..8_usize).prop_map(|(gpu, which)| Move::Destroy(gpu, which)),
        1 => (gpu, 0..64_usize).prop_map(|(gpu, which)| Move::Intrude(gpu, which)),
    ]
}

/// The index in a GPU's UUID, as [`Node`] gives them.
fn index_of(gpu: &GpuUuid) -> u32 {
    gpu.as_str().trim_start_matches("GPU-").parse().unwrap()
}

impl World {
    fn new(model: &str) -> Self {
        let profiles = Model::by_key(model).unwrap().geometry().unwrap().profiles.into_iter();
        Self {
            node: Node::new(model, GPUS),
            profiles: profiles.map(|profile| profile.name.to_string().replace('+', ".")).collect(),
            gpus: Gpus::new(model),
            ours: Vec::new(),
            kept: Vec::new(),
            foreign: Vec::new(),
        }
    }

    fn make(&mut self, a_move: Move) {
        match a_move {
            Move::Book(step) => self.book(step),
            Move::Build => self.build(),
            Move::Kill(at) => self.kill(at),
            Move::Refuse => self.gpus.refuses.set(true),
            Move::Reset(gpu) => {
                self.gpus.change(|node| node.reset_gpu(gpu)).unwrap();
                self.foreign.retain(|(on, _)| *on != gpu);
            }
            Move::Lose(gpu) => self.gpus.change(|node| node.set_lost(gpu, true)).unwrap(),
            Move::Find(gpu) => self.gpus.change(|node| node.set_lost(gpu, false)).unwrap(),
            Move::Destroy(gpu, which) => self.destroy(gpu, which),
            Move::Intrude(gpu, which) => self.intrude(gpu, which),
        }
    }

    fn book(&mut self, step: Step) {
        match step {
            Step::Run { profile, count, planned, pick } => {
                let profile = self.profiles[profile % self.profiles.len()].clone();
                self.node.run(&profile, count, planned, pick);
            }
            Step::End(pod) if !self.node.pods.is_empty() => self.node.end(pod % self.node.pods.len()),
            Step::End(_) => {}
            Step::Holders => self.node.tell_holders(),
            Step::KubeletStarts(shown) => self.node.kubelet_starts(shown),
            Step::Restart => {
                self.ours.clone_from(&self.kept);
                self.node.restart();
            }
        }
    }

    fn bookings(&self) -> Vec<(String, Booking)> {
        self.node.book.bookings().map(|(token, booking)| (token.to_owned(), booking.clone())).collect()
    }

    /// Every token gets its slice; one that cannot has a reason.
    fn build(&mut self) {
        let bookings = self.bookings();
        for (token, Booking { gpu, slice }) in &bookings {
            let index = index_of(gpu);
            let booked = bookings.iter().filter(|(_, other)| other.gpu == *gpu);
            let booked: Vec<MigSlice> = booked.map(|(_, other)| other.slice.clone()).collect();
            let wanted = Wanted { gpu, slice, token: Some(token) };
            let Self { ours, kept, gpus, .. } = self;
            let mut keep = |all: &[OurInstance]| {
                *kept = all.to_vec();
                Ok(())
            };
            let refused = gpus.refuses.get();
            match provide(
                &OneGpu(gpus, index),
                wanted,
                &booked,
                &mut Ours { instances: ours, keep: &mut keep },
            ) {
                Ok(built) => {
                    let is_it = |one: &Instance| one.id == built.gpu_instance_id && one.slice == *slice;
                    assert!(gpus.there(index).iter().any(is_it), "{token} was told of {built:?}");
                }
                Err(ProvideError::Driver(NvmlError::GpuLost)) => assert!(gpus.is_lost(index)),
                Err(ProvideError::Driver(NvmlError::Unknown)) => assert!(refused),
                Err(ProvideError::Taken(_)) => {
                    let in_the_way = |(on, one): &(u32, Instance)| *on == index && one.slice.conflicts(slice);
                    assert!(self.foreign.iter().any(in_the_way), "nobody is in the way of {token}");
                }
                Err(error) => panic!("{token}: {error}"),
            }
        }
    }

    fn kill(&mut self, at: u8) {
        let is_built = |booking: &Booking| {
            self.kept.iter().any(|ours| ours.gpu == booking.gpu && ours.slice.conflicts(&booking.slice))
        };
        if let Some((token, Booking { gpu, slice })) =
            self.bookings().into_iter().find(|(_, one)| !is_built(one))
        {
            // Refused where the place is taken or the GPU lost: then that is what the last call came to.
            let on = index_of(&gpu);
            let is_free = !self.gpus.there(on).iter().any(|one| one.slice.conflicts(&slice));
            let begun = is_free && (at == 0 || self.gpus.build(on, &slice, at == 2).is_ok());
            if begun {
                self.kept.push(OurInstance { gpu, slice, token: Some(token), built: None });
            }
        }
        self.book(Step::Restart);
    }

    fn destroy(&mut self, gpu: u32, which: usize) {
        let there = self.gpus.there(gpu);
        let Some(one) = there.get(which % there.len().max(1)) else { return };
        if self.gpus.take_down(gpu, one.id).is_ok() {
            self.foreign.retain(|(on, other)| (*on, other) != (gpu, one));
        }
    }

    fn intrude(&mut self, gpu: u32, which: usize) {
        let slices: Vec<MigSlice> = self.gpus.hardware(gpu).geometry.as_ref().unwrap().slices().collect();
        let slice = &slices[which % slices.len()];
        // What is just what we built, or were about to build, cannot be told from ours by anybody.
        let like_ours = |ours: &OurInstance| index_of(&ours.gpu) == gpu && ours.slice == *slice;
        if self.kept.iter().any(like_ours) {
            return;
        }
        if let Ok(built) = self.gpus.build(gpu, slice, true) {
            self.foreign.push((gpu, Instance { id: built.gpu_instance_id, slice: slice.clone() }));
        }
    }

    /// What the book says is sound, what others built is there still, and what is there beyond it is ours by our own
    /// record.
    fn check(&self) {
        self.node.check();
        for gpu in 0..GPUS {
            let there = self.gpus.there(gpu);
            let foreign = self.foreign.iter().filter(|(on, _)| *on == gpu).map(|(_, one)| one);
            for one in foreign.clone() {
                assert!(there.contains(one), "{one:?} of somebody else is gone");
            }
            for one in there.iter().filter(|one| !foreign.clone().any(|other| other == *one)) {
                let is_it = |ours: &&OurInstance| index_of(&ours.gpu) == gpu && ours.slice == one.slice;
                assert!(self.kept.iter().any(|ours| is_it(&ours)), "{one:?} on GPU {gpu} is nobody's");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(WALKS))]

    #[test]
    fn nothing_overlaps_leaks_or_is_taken_from_others_in_100_000_steps(
        model in prop::sample::select(vec!["a100-40gb", "h100-80gb", "a30", "rtx-pro-6000"]),
        moves in prop::collection::vec(a_move(), STEPS),
    ) {
        let mut world = World::new(model);
        for a_move in moves {
            world.make(a_move);
            world.check();
        }
        // In the end everybody goes, and everything works again: the next pods get what they ask for.
        (0..GPUS).for_each(|gpu| world.make(Move::Reset(gpu)));
        world.gpus.refuses.set(false);
        world.build();
        while !world.node.pods.is_empty() {
            world.node.end(0);
        }
        world.node.tell_holders();
        prop_assert_eq!(world.bookings(), []);
        world.check();
    }
}
