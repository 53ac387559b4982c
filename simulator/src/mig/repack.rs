//! Everybody rearranged at will: what no placement can exceed.

use std::cmp::Reverse;

use stowage_shared::mig::Profile;

use super::{Engine, slices};

/// GPUs whose pods may be anywhere at any time: only how many there are of each profile counts.
pub(super) struct Repack {
    profiles: Vec<Profile>,
    /// Profiles in the order in which they are packed.
    order: Vec<usize>,
    counts: Vec<usize>,
    gpus: usize,
}

impl Repack {
    pub fn new(profiles: &[Profile], gpus: usize) -> Self {
        let mut order: Vec<usize> = (0..profiles.len()).collect();
        // The large and the inflexible first; for the geometries there are, this packs whatever can be packed.
        order.sort_by_key(|&p| {
            let Profile { size, starts, .. } = &profiles[p];
            (Reverse(*size), starts.len(), Reverse(profiles[p].compute_slices))
        });
        Self { profiles: profiles.to_vec(), order, counts: vec![0; profiles.len()], gpus }
    }

    /// Whether all fit: each at the highest start that any GPU has left, which leaves the low ones, where the large
    /// profiles begin, for as long as possible.
    fn fits(&self) -> bool {
        // How many GPUs have such a mask; GPUs are alike, so that is all there is to know.
        let mut gpus: Vec<(u32, usize)> = vec![(0, self.gpus)];
        for &p in &self.order {
            let profile = &self.profiles[p];
            let mut left = self.counts[p];
            for &start in profile.starts.iter().rev() {
                let mask = slices(profile, start);
                let mut filled = Vec::new();
                for (gpu, count) in &mut gpus {
                    if *gpu & mask == 0 && *count > 0 && left > 0 {
                        let takes = left.min(*count);
                        left -= takes;
                        *count -= takes;
                        filled.push((*gpu | mask, takes));
                    }
                }
                for (gpu, count) in filled {
                    match gpus.iter_mut().find(|(known, _)| *known == gpu) {
                        Some((_, known)) => *known += count,
                        None => gpus.push((gpu, count)),
                    }
                }
            }
            if left > 0 {
                return false;
            }
        }
        true
    }
}

impl Engine for Repack {
    fn arrive(&mut self, _: u64, profile: usize) -> bool {
        self.counts[profile] += 1;
        let fits = self.fits();
        if !fits {
            self.counts[profile] -= 1;
        }
        fits
    }

    fn leave(&mut self, _: u64, profile: usize) {
        self.counts[profile] -= 1;
    }
}
