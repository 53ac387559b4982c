//! Which devices NVIDIA's plugin v0.20 prefers, for the stock way.
//!
//! Shares: its default policy `distributed` takes, one after another, a replica of the GPU of which the
//! fewest replicas are handed out; of equals, the one least picked in this call. MIG devices go through
//! the same code, where each is a GPU of one replica, so all are equal. Equals stay in the order in which
//! the kubelet lists them, which is that of a Go map: random. Whole GPUs are chosen by their links, which
//! the simulated nodes do not have.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stowage_stand_ins::kubelet::{ChoiceRequest, DeviceChoice};

use super::super::split::REPLICAS;

/// NVIDIA's order, with the randomness of a Go map from a seed.
pub fn nvidia_order(seed: u64) -> DeviceChoice {
    let random = Mutex::new(ChaCha8Rng::seed_from_u64(seed));
    DeviceChoice::own(move |request| {
        // A panic while choosing would leave nothing half done.
        let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
        choose(request, &mut *random)
    })
}

fn choose(request: &ChoiceRequest<'_>, random: &mut impl Rng) -> Vec<String> {
    let mut chosen: Vec<String> = request.must_include.iter().cloned().collect();
    let mut left: Vec<&String> = request.available.difference(request.must_include).collect();
    left.shuffle(random);
    let mut picked: BTreeMap<&str, usize> = BTreeMap::new();
    while chosen.len() < request.size {
        let mut free: BTreeMap<&str, usize> = BTreeMap::new();
        left.iter().for_each(|id| *free.entry(part(id)).or_default() += 1);
        let handed_out = |id: &str| match id.contains("::") {
            true => {
                REPLICAS as usize - free.get(part(id)).copied().unwrap_or_default().min(REPLICAS as usize)
            }
            false => 0,
        };
        let rank = |id: &str| (handed_out(id), picked.get(part(id)).copied().unwrap_or_default());
        let Some(best) = (0..left.len()).min_by_key(|&i| rank(left[i])) else { break };
        let best = left.remove(best);
        *picked.entry(part(best)).or_default() += 1;
        chosen.push(best.clone());
    }
    chosen
}

fn part(id: &str) -> &str {
    id.split_once("::").map_or(id, |(part, _)| part)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn ask(available: &[&str], size: usize, seed: u64) -> Vec<String> {
        let available: BTreeSet<String> = available.iter().map(|id| (*id).to_owned()).collect();
        let must_include = BTreeSet::new();
        let request = ChoiceRequest {
            node_name: "n",
            resource_name: "nvidia.com/gpu.shared",
            available: &available,
            must_include: &must_include,
            size,
        };
        choose(&request, &mut ChaCha8Rng::seed_from_u64(seed))
    }

    #[test]
    fn shares_go_to_the_gpu_of_which_least_is_handed_out() {
        for seed in 0..20 {
            let one = ask(&["A::1", "A::2", "A::3", "B::0", "B::1", "B::2", "B::3"], 1, seed);
            assert!(one[0].starts_with("B::"), "{one:?}");
            let two = ask(&["A::0", "A::1", "A::2", "A::3", "B::0", "B::1", "B::2", "B::3"], 2, seed);
            assert_ne!(part(&two[0]), part(&two[1]));
        }
    }

    #[test]
    fn equal_mig_devices_are_taken_at_random() {
        let seen: BTreeSet<String> =
            (0..50).flat_map(|seed| ask(&["MIG-a", "MIG-b", "MIG-c"], 1, seed)).collect();
        assert_eq!(seen.len(), 3);
    }
}
