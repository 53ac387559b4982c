//! Which profiles are asked for, and how long they stay.

use std::fmt;
use std::str::FromStr;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::Exp1;
use stowage_shared::mig::Profile;

use super::UnknownName;

/// How often each profile is asked for. The names are those of the MFI paper (arXiv 2511.18906); the probabilities are
/// ours, linear in the profile's place from small to large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MixName {
    /// Each as often: 1 1 1 1 1 1 for six profiles.
    Uniform,
    /// The smaller the more often: 6 5 4 3 2 1.
    SkewSmall,
    /// The larger the more often: 1 2 3 4 5 6.
    SkewBig,
    /// The ends twice as often as the middle: 4 3 2 2 3 4.
    Bimodal,
}

const MIXES: [(&str, MixName); 4] = [
    ("uniform", MixName::Uniform),
    ("skew-small", MixName::SkewSmall),
    ("skew-big", MixName::SkewBig),
    ("bimodal", MixName::Bimodal),
];

impl MixName {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Uniform, Self::SkewSmall, Self::SkewBig, Self::Bimodal];

    /// The weight of each of `count` profiles, from small to large.
    pub fn weights(self, count: usize) -> Vec<u32> {
        let weight = |place: usize| match self {
            Self::Uniform => 1,
            Self::SkewSmall => count - place,
            Self::SkewBig => place + 1,
            Self::Bimodal => {
                let from_end = place.min(count - 1 - place);
                let middle = (count - 1) / 2;
                (2 * middle - from_end).max(1)
            }
        };
        (0..count).map(|place| u32::try_from(weight(place)).unwrap_or(u32::MAX)).collect()
    }
}

impl fmt::Display for MixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = MIXES.iter().find(|(_, mix)| mix == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for MixName {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = MIXES.iter().find(|(name, _)| *name == text).map(|&(_, mix)| mix);
        known.ok_or_else(|| UnknownName::of(text, &MIXES))
    }
}

/// Requests, one after another, without end.
pub(super) struct Stream {
    random: ChaCha8Rng,
    weights: Vec<u32>,
    mean_lifetime: f64,
}

impl Stream {
    /// One request in each unit of time, living so long that `slices` are asked for at a time.
    pub fn new(profiles: &[Profile], mix: MixName, slices: f64, seed: u64) -> Self {
        let weights = mix.weights(profiles.len());
        let sum: u32 = weights.iter().sum();
        let weighed: u32 = weights.iter().zip(profiles).map(|(weight, p)| weight * u32::from(p.size)).sum();
        let mean_size = f64::from(weighed) / f64::from(sum);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        // The mixes of one seed are independent of each other.
        random.set_stream(mix as u64);
        Self { random, weights, mean_lifetime: slices / mean_size }
    }

    /// How long a pod lives on average, in units of time.
    pub fn mean_lifetime(&self) -> f64 {
        self.mean_lifetime
    }

    /// The next request: its profile and how long it will live.
    pub fn next(&mut self) -> (usize, f64) {
        let sum: u32 = self.weights.iter().sum();
        let mut at = self.random.random_range(0..sum);
        let profile = self.weights.iter().position(|&weight| {
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        });
        let lifetime: f64 = self.random.sample(Exp1);
        (profile.unwrap_or(0), lifetime * self.mean_lifetime)
    }
}
