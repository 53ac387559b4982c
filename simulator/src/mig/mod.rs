//! MIG slices under steady load: how much of the GPUs is in use while pods of many sizes come and go?
//!
//! One request arrives in each unit of time, for one slice of one profile, and is refused if it does not fit; what is
//! placed lives exponentially long, on average as long as it takes that the requested slices are `load` times the
//! memory slices there are. After a warm-up the share of memory slices in use is taken after each arrival. All policies
//! see the same arrivals.
//!
//! Judge by slices in use: the share of requests that are accepted rises when the large ones are refused.

mod core;
mod masks;
mod repack;
#[cfg(test)]
mod tests;
mod workload;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use stowage_shared::mig::{Geometry, Profile};
use stowage_shared::models::Model;

pub use self::workload::MixName;
use self::workload::Stream;

/// Mean lifetimes before anything is measured: the GPUs start empty.
const WARM_UP: f64 = 10.0;
/// Mean lifetimes that are measured.
const MEASURED: f64 = 100.0;
/// The most GPUs of a run.
const GPUS_MAX: usize = 100_000;

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The packing core of Stowage.
    Stowage,
    /// The first GPU with room, at its lowest start.
    FirstFit,
    /// The fullest GPU with room, at its lowest start.
    BestFitLow,
    /// The fullest GPU with room, at its highest start.
    BestFitHigh,
    /// The least increment of fragmentation (MFI, arXiv 2511.18906): of the starts that a GPU's free slices would
    /// suffice for, how many are blocked, weighted by size.
    Mfi,
    /// Everybody is rearranged at will whenever that lets a request in: the bound for any placement.
    Repack,
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// How many GPUs.
    pub gpus: usize,
    /// GPUs of one node, which the packing core looks at together.
    pub gpus_per_node: usize,
    /// Which GPU.
    pub model: &'a Model,
    /// Which profiles are asked for how often.
    pub mix: MixName,
    /// Memory slices that are asked for at a time, as a share of those there are.
    pub load: f64,
    /// Who decides.
    pub policy: Policy,
    /// The most moves of running pods for 100 arrivals, made only where a request would be refused otherwise. What is
    /// not used may be used within the next 1,000 arrivals.
    pub moves: u32,
    /// Which arrivals.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The model's key.
    pub model: &'static str,
    /// How many GPUs.
    pub gpus: usize,
    /// GPUs of one node.
    pub gpus_per_node: usize,
    /// Which profiles.
    pub mix: String,
    /// The load.
    pub load: f64,
    /// Who decided.
    pub policy: String,
    /// The seed.
    pub seed: u64,
    /// Arrivals that were measured.
    pub arrivals: u64,
    /// The mean share of memory slices in use.
    pub slices_in_use: f64,
    /// The share of requests that were placed.
    pub acceptance: f64,
    /// Moves of running pods.
    pub moves: u64,
    /// The same for 100 arrivals.
    pub moves_per_100_arrivals: f64,
}

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The model has no MIG.
    #[error("{0} cannot be cut into MIG slices: choose a model that can, such as a100-40gb")]
    NoMig(&'static str),
    /// No GPUs, or too many.
    #[error("{0} GPUs: 1 to {GPUS_MAX} are possible")]
    Gpus(usize),
    /// Empty nodes, or larger ones than there are.
    #[error("{0} GPUs in a node: 1 to 64 are possible")]
    GpusPerNode(usize),
    /// Nothing to do, or out of hand.
    #[error("a load of {0}: more than 0 and at most 10 is possible, and 1.0 asks for every slice")]
    Load(f64),
    /// A policy that does not move.
    #[error("policy {0} moves nobody: leave --moves away, or use policy stowage")]
    Moves(Policy),
    /// Offers beyond what a GPU can have.
    #[error("the model's slices make no GPU")]
    Kind(#[from] stowage_shared::gpu::GpuKindError),
}

/// A policy at work on its GPUs. Pods are numbered by arrival, and profiles by their place in [`profiles`].
trait Engine {
    /// Places a pod, or says that it does not fit.
    fn arrive(&mut self, pod: u64, profile: usize) -> bool;
    /// A placed pod ends.
    fn leave(&mut self, pod: u64, profile: usize);
    /// What is measured begins: what was saved up before counts no more.
    fn begin(&mut self) {}
    /// How many running pods were moved since then.
    fn moves(&self) -> u64 {
        0
    }
}

/// Runs one policy on one stream of arrivals. `progress` hears the share that is done, now and then.
///
/// # Errors
/// [`SettingsError`].
pub fn run(settings: &Settings<'_>, progress: &mut dyn FnMut(f64)) -> Result<Summary, SettingsError> {
    let Settings { gpus, gpus_per_node, model, mix, load, policy, moves, seed } = *settings;
    let geometry = model.geometry().ok_or(SettingsError::NoMig(model.key))?;
    if !(1..=GPUS_MAX).contains(&gpus) {
        return Err(SettingsError::Gpus(gpus));
    }
    if !(1..=64).contains(&gpus_per_node) {
        return Err(SettingsError::GpusPerNode(gpus_per_node));
    }
    if !(load > 0.0 && load <= 10.0) {
        return Err(SettingsError::Load(load));
    }
    if moves > 0 && policy != Policy::Stowage {
        return Err(SettingsError::Moves(policy));
    }
    let profiles = profiles(&geometry);
    let capacity = gpus * usize::from(geometry.memory_slices);
    let mut engine: Box<dyn Engine> = match policy {
        Policy::Stowage => {
            Box::new(core::Core::new(model, &geometry, &profiles, gpus, gpus_per_node, moves)?)
        }
        Policy::Repack => Box::new(repack::Repack::new(&profiles, gpus)),
        other => Box::new(masks::Masks::new(other, geometry.memory_slices, &profiles, gpus)),
    };
    let mut stream = Stream::new(&profiles, mix, load * capacity as f64, seed);
    let warm_up = (WARM_UP * stream.mean_lifetime()).ceil() as u64;
    let measured = (MEASURED * stream.mean_lifetime()).ceil() as u64;

    let size = |profile: usize| u64::from(profiles[profile].size);
    let mut ends: BinaryHeap<Reverse<(u64, u64, usize)>> = BinaryHeap::new();
    let (mut in_use, mut area, mut accepted) = (0_u64, 0_u64, 0_u64);
    for pod in 0..warm_up + measured {
        // Times are positive, so their bits are in their order.
        while let Some(&Reverse((end, who, profile))) = ends.peek()
            && f64::from_bits(end) <= pod as f64
        {
            ends.pop();
            engine.leave(who, profile);
            in_use -= size(profile);
        }
        if pod == warm_up {
            engine.begin();
        }
        let (profile, lifetime) = stream.next();
        let placed = engine.arrive(pod, profile);
        if placed {
            in_use += size(profile);
            ends.push(Reverse(((pod as f64 + lifetime).to_bits(), pod, profile)));
        }
        if pod >= warm_up {
            area += in_use;
            accepted += u64::from(placed);
        }
        if pod % 1024 == 0 {
            progress(pod as f64 / (warm_up + measured) as f64);
        }
    }
    let moves = engine.moves();
    Ok(Summary {
        model: model.key,
        gpus,
        gpus_per_node,
        mix: mix.to_string(),
        load,
        policy: policy.to_string(),
        seed,
        arrivals: measured,
        slices_in_use: area as f64 / (measured * capacity as u64) as f64,
        acceptance: accepted as f64 / measured as f64,
        moves,
        moves_per_100_arrivals: moves as f64 * 100.0 / measured as f64,
    })
}

/// The profiles that are asked for, from small to large: those without attributes such as `+me`.
fn profiles(geometry: &Geometry) -> Vec<Profile> {
    let plain = |profile: &&Profile| !profile.name.as_str().contains(['+', '-']);
    let mut profiles: Vec<Profile> = geometry.profiles.iter().filter(plain).cloned().collect();
    profiles.sort_by_key(|profile| (profile.size, profile.compute_slices));
    profiles
}

/// The memory slices of a profile at a start, as bits.
fn slices(profile: &Profile, start: u8) -> u32 {
    let ones = 1_u64.checked_shl(u32::from(profile.size)).map_or(u64::MAX, |bit| bit - 1);
    u32::try_from(ones << start & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

const POLICIES: [(&str, Policy); 6] = [
    ("stowage", Policy::Stowage),
    ("first-fit", Policy::FirstFit),
    ("best-fit-low", Policy::BestFitLow),
    ("best-fit-high", Policy::BestFitHigh),
    ("mfi", Policy::Mfi),
    ("repack", Policy::Repack),
];

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = POLICIES.iter().find(|(_, policy)| policy == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// A name that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not known: use one of {1}")]
pub struct UnknownName(String, String);

impl UnknownName {
    fn of<T>(text: &str, known: &[(&str, T)]) -> Self {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        Self(text.chars().take(40).collect(), names.join(", "))
    }
}

impl FromStr for Policy {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Of the two, the better one is meant where nothing is said.
        let text = if text == "best-fit" { "best-fit-high" } else { text };
        let known = POLICIES.iter().find(|(name, _)| *name == text).map(|&(_, policy)| policy);
        known.ok_or_else(|| UnknownName::of(text, &POLICIES))
    }
}
