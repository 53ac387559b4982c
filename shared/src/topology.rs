//! Which GPUs go together: several for one pod by how near they are to each other, and so that what is left goes
//! together too.
//!
//! The scores and the rule are those of NVIDIA's plugin (`go-gpuallocator`, best effort): 100 for each NVLink between
//! two GPUs, and 10 to 60 for their way over PCIe. It divides all GPUs that are free into sets of the size that is
//! asked for, so that the sets' scores together are greatest, and hands out the best of these sets. So the last pair
//! is not torn apart for a third GPU. Where that leaves several sets, the one is taken that leaves the rest nearest
//! to each other, then the one with the lowest GPUs: NVIDIA's takes whichever it meets first.
//!
//! The device plugin reads the scores from NVML and publishes them in its GpuNode; it and the extender choose with
//! this module, so that a plan names the set that the plugin would choose.

use std::cmp::Reverse;

use crate::gpu::{Gpu, Part};
use crate::occupancy::GpuState;
use crate::pack::{Chosen, Placement};

/// The most free GPUs that are divided in every way there is: beyond that the ways are too many to look at while the
/// kubelet waits, and sets are grown from each of them instead.
pub const DIVIDED_MAX: usize = 12;

/// How near two GPUs of a node are; 0 where nothing is known.
pub fn nearness(one: &Gpu, other: &Gpu) -> u16 {
    let (low, high) = if one.index < other.index { (one, other) } else { (other, one) };
    let near = usize::try_from(low.index).ok().and_then(|low| high.near.get(low));
    near.copied().filter(|_| low.index != high.index).unwrap_or(0)
}

/// Exchanges the whole GPUs of a placement for free ones that are like them and nearer to each other.
///
/// `gpus` is what the placement was made of, and `given` are GPUs of them that its pod has already, such as those of
/// its init containers. A placement costs as much after it as before: only GPUs of the same kind that nobody uses are
/// exchanged.
pub fn draw_together(placement: &mut Placement, gpus: &[GpuState], given: &[usize]) {
    if gpus.iter().all(|gpu| gpu.gpu.near.is_empty()) {
        return;
    }
    let all: Vec<Chosen> = placement.devices.values().flatten().copied().collect();
    for devices in placement.devices.values_mut() {
        let Some(&Chosen { gpu: first, offer }) = devices.first() else { continue };
        let kind = &gpus[first].gpu.kind;
        let of = &kind.offers()[offer];
        // GPUs of one kind have their offers at the same places.
        let alike = |g: usize| gpus[g].gpu.kind == *kind && gpus[g].occupancy.is_idle();
        let is_whole = of.part == Part::Whole && of.replicas.is_none();
        if !is_whole || !devices.iter().all(|chosen| chosen.offer == offer && alike(chosen.gpu)) {
            continue;
        }
        let taken = |g: usize| all.iter().any(|chosen| chosen.gpu == g && !devices.contains(chosen));
        let free = (0..gpus.len()).filter(|&g| alike(g) && gpus[g].room(offer) > 0 && !taken(g));
        let given: Vec<usize> = given.iter().copied().filter(|&g| g < gpus.len()).collect();
        let required = given.len();
        let known: Vec<usize> = given.iter().copied().chain(free.filter(|g| !given.contains(g))).collect();
        let near = Near::between(&known.iter().map(|&g| &*gpus[g].gpu).collect::<Vec<_>>());
        let set = near.best_set(required, required + devices.len());
        if let Some(set) = set {
            *devices = set[required..].iter().map(|&at| Chosen { gpu: known[at], offer }).collect();
        }
    }
}

/// How near some GPUs are to each other.
#[derive(Debug, Clone)]
pub struct Near {
    count: usize,
    /// `count` rows of `count` scores.
    scores: Vec<u16>,
}

impl Near {
    /// The scores between these GPUs.
    pub fn between(gpus: &[&Gpu]) -> Self {
        let scores = gpus.iter().flat_map(|one| gpus.iter().map(|other| nearness(one, other))).collect();
        Self { count: gpus.len(), scores }
    }

    fn score(&self, one: usize, other: usize) -> u32 {
        u32::from(self.scores[one * self.count + other])
    }

    /// The sum of all pairs in a set.
    fn of_set(&self, set: u64) -> u32 {
        bits(set).map(|one| self.to_set(one, set & ((1 << one) - 1))).sum()
    }

    /// What one GPU has to a set.
    fn to_set(&self, one: usize, set: u64) -> u32 {
        bits(set).map(|other| self.score(one, other)).sum()
    }

    /// The best `size` of these GPUs, the first `required` of them among them and in front; `None` where there are
    /// not as many.
    pub fn best_set(&self, required: usize, size: usize) -> Option<Vec<usize>> {
        if required > size || size > self.count || self.count > 64 {
            return None;
        }
        let must = all(required);
        let rest = all(self.count) & !must;
        let set = if self.count <= DIVIDED_MAX {
            self.divided(must, rest, size)
        } else {
            self.grown(must, rest, size)
        };
        Some(bits(must).chain(bits(set & !must)).collect())
    }

    /// Looks at every set, and at every way to divide what it leaves.
    fn divided(&self, must: u64, rest: u64, size: usize) -> u64 {
        let mut best: Option<((u32, u32, u32), u64)> = None;
        let mut division = Division { near: self, size, known: vec![None; 1 << self.count] };
        subsets(rest, size - must.count_ones() as usize, &mut |chosen| {
            let (set, left) = (must | chosen, rest & !chosen);
            let score = self.of_set(set);
            let worth = (score + division.best(left), score, self.of_set(left));
            if best.is_none_or(|(most, _)| worth > most) {
                best = Some((worth, set));
            }
        });
        best.map_or(must, |(_, set)| set)
    }

    /// Begins with each GPU in turn, adds the nearest one until there are enough, and takes the best of these sets.
    fn grown(&self, must: u64, rest: u64, size: usize) -> u64 {
        let seeds: Vec<u64> = if must == 0 { bits(rest).map(|one| 1 << one).collect() } else { vec![must] };
        let sets = seeds.into_iter().map(|mut set| {
            while (set.count_ones() as usize) < size {
                // Of those that are as near, the one that the others would miss least.
                let left = rest & !set;
                let key = |&one: &usize| (self.to_set(one, set), Reverse(self.to_set(one, left)));
                let Some(next) = bits(left).rev().max_by_key(key) else { break };
                set |= 1 << next;
            }
            set
        });
        let sets: Vec<u64> = sets.collect();
        let worth = |set: &u64| (self.of_set(*set), self.of_set(rest & !set));
        sets.into_iter().rev().max_by_key(worth).unwrap_or(must)
    }
}

/// The best score of dividing sets of GPUs into sets of one size, with a smaller one where they do not divide evenly.
struct Division<'a> {
    near: &'a Near,
    size: usize,
    known: Vec<Option<u32>>,
}

impl Division<'_> {
    fn best(&mut self, gpus: u64) -> u32 {
        let count = gpus.count_ones() as usize;
        if count <= self.size {
            return self.near.of_set(gpus);
        }
        let at = usize::try_from(gpus).unwrap_or(usize::MAX);
        if let Some(known) = self.known[at] {
            return known;
        }
        // The lowest GPU is in some set: a full one, or the smaller one if that is still to come.
        let lowest = gpus & gpus.wrapping_neg();
        let mut best = 0;
        for size in [self.size, count % self.size] {
            if size > 0 {
                subsets(gpus & !lowest, size - 1, &mut |others| {
                    let set = lowest | others;
                    best = best.max(self.near.of_set(set) + self.best(gpus & !set));
                });
            }
        }
        self.known[at] = Some(best);
        best
    }
}

/// The lowest `count` bits.
fn all(count: usize) -> u64 {
    u64::MAX.checked_shr(64 - u32::try_from(count).unwrap_or(64)).unwrap_or(0)
}

/// The places of a mask's bits, the lowest first.
fn bits(mut mask: u64) -> impl DoubleEndedIterator<Item = usize> + Clone {
    let mut places = [0_u8; 64];
    let count = mask.count_ones() as usize;
    for place in places.iter_mut().take(count) {
        *place = u8::try_from(mask.trailing_zeros()).unwrap_or(0);
        mask &= mask - 1;
    }
    (0..count).map(move |at| usize::from(places[at]))
}

/// Every subset of so many bits, those of the lowest bits first.
fn subsets(of: u64, count: usize, each: &mut impl FnMut(u64)) {
    fn from(of: u64, count: usize, chosen: u64, each: &mut impl FnMut(u64)) {
        if count == 0 {
            return each(chosen);
        }
        let mut left = of;
        while left.count_ones() as usize >= count {
            let lowest = left & left.wrapping_neg();
            left &= !lowest;
            from(left, count - 1, chosen | lowest, each);
        }
    }
    from(of, count, 0, each);
}

#[cfg(test)]
mod tests;
