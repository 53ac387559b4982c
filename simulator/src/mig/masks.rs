//! Policies that look at one GPU's memory slices alone.

use std::collections::HashMap;

use stowage_shared::mig::Profile;

use super::{Engine, Policy, slices};

/// How bad a place is: by the policy, then by the start. Less is better, and the first GPU wins among equals.
type Score = (i64, i64);

/// GPUs as masks of memory slices.
pub(super) struct Masks {
    policy: Policy,
    memory_slices: u8,
    profiles: Vec<Profile>,
    gpus: Vec<u32>,
    /// The best start of each profile on a GPU with such a mask.
    known: Vec<HashMap<u32, Option<(Score, u32)>>>,
    placed: HashMap<u64, (usize, u32)>,
}

impl Masks {
    pub fn new(policy: Policy, memory_slices: u8, profiles: &[Profile], gpus: usize) -> Self {
        Self {
            policy,
            memory_slices,
            profiles: profiles.to_vec(),
            gpus: vec![0; gpus],
            known: vec![HashMap::new(); profiles.len()],
            placed: HashMap::new(),
        }
    }

    fn best_start(&mut self, gpu: u32, profile: usize) -> Option<(Score, u32)> {
        if let Some(&known) = self.known[profile].get(&gpu) {
            return known;
        }
        let of = &self.profiles[profile];
        let free = i64::from(u32::from(self.memory_slices) - gpu.count_ones());
        let score = |start: u8, mask: u32| -> Score {
            let start = i64::from(start);
            match self.policy {
                Policy::BestFitLow => (free, start),
                Policy::BestFitHigh => (free, -start),
                Policy::Mfi => (self.fragmentation(gpu | mask) - self.fragmentation(gpu), start),
                _ => (0, start),
            }
        };
        let starts = of.starts.iter().map(|&start| (start, slices(of, start)));
        let best =
            starts.filter(|(_, mask)| gpu & mask == 0).map(|(start, mask)| (score(start, mask), mask)).min();
        self.known[profile].insert(gpu, best);
        best
    }

    /// The MFI paper's score of a GPU: the sizes of all placements that something blocks, of the profiles that its
    /// free slices would suffice for.
    fn fragmentation(&self, gpu: u32) -> i64 {
        let free = u32::from(self.memory_slices) - gpu.count_ones();
        let large_enough = self.profiles.iter().filter(|profile| u32::from(profile.size) <= free);
        let blocked = |profile: &Profile| {
            profile.starts.iter().filter(|&&start| gpu & slices(profile, start) != 0).count() as i64
        };
        large_enough.map(|profile| blocked(profile) * i64::from(profile.size)).sum()
    }
}

impl Engine for Masks {
    fn arrive(&mut self, pod: u64, profile: usize) -> bool {
        let mut best: Option<(Score, usize, u32)> = None;
        for gpu in 0..self.gpus.len() {
            let Some((score, mask)) = self.best_start(self.gpus[gpu], profile) else { continue };
            if best.is_none_or(|(known, ..)| score < known) {
                best = Some((score, gpu, mask));
            }
            if self.policy == Policy::FirstFit {
                break;
            }
        }
        let Some((_, gpu, mask)) = best else { return false };
        self.gpus[gpu] |= mask;
        self.placed.insert(pod, (gpu, mask));
        true
    }

    fn leave(&mut self, pod: u64, _: usize) {
        if let Some((gpu, mask)) = self.placed.remove(&pod) {
            self.gpus[gpu] &= !mask;
        }
    }
}
