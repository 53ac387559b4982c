//! The split that serves the day best under the stock policy.
//!
//! Two sieves, over every split of layouts and node configurations (some 20 million). First, what a
//! split could serve if only device counts mattered: that adds up by resource, so the best layouts for
//! each number of MIG GPUs are found once, and combined with each way to configure the nodes. Then the
//! best few are played whole, with CPU, memory, rollouts and spreading, and the one that serves the most
//! wanted pod-time wins. The admin knows the whole day in advance: more than any admin does.

use std::collections::BTreeMap;

use anyhow::Result;

use super::figures::{Figures, Sample};
use super::play::{Way, play};
use super::services::{Day, Piece};
use super::split::{GPUS_PER_NODE, LAYOUTS, MIG_NODES, NODES, NodeSetup, REPLICAS, Split};
use super::stock::StockCluster;

/// How many splits are played whole.
const PLAYED: usize = 24;
/// How many layout mixes are kept for each number of MIG GPUs.
const MIXES_KEPT: usize = 2;

/// What the search found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The split.
    pub split: Split,
    /// What the pure simulation says it serves.
    pub figures: Figures,
    /// Splits that there are: each way to configure the nodes, with each mix of layouts.
    pub considered: u64,
    /// Splits that were played whole.
    pub played: usize,
}

/// Finds the split that serves the most wanted pod-time of this day.
pub async fn best_split(day: &Day, seed: u64) -> Result<Found> {
    let served = Served::of(day);
    let mut considered = 0;
    let mixes: Vec<(u64, Vec<Mix>)> = (0..=MIG_NODES * GPUS_PER_NODE)
        .map(|gpus| {
            let (mut count, mut mixes) = (0, Vec::new());
            each_mix(gpus, &mut |counts| {
                count += 1;
                mixes.push(Mix { served: served.by_layouts(counts), counts: *counts });
            });
            mixes.sort_by(|a, b| b.served.cmp(&a.served).then_with(|| a.counts.cmp(&b.counts)));
            mixes.truncate(MIXES_KEPT);
            (count, mixes)
        })
        .collect();

    // Equal counts of everything serve the same: the first split of each kind stands for all.
    let mut candidates: BTreeMap<(u64, [u32; 2], [u32; LAYOUTS.len()]), Split> = BTreeMap::new();
    for config in configurations() {
        let gpus: usize = config.iter().map(|(mig, _)| mig).sum();
        let (count, mixes) = &mixes[gpus];
        considered += count;
        for mix in mixes {
            let split = build(&config, &mix.counts);
            let (whole, shares) = (split.capacity(Piece::Gpu), split.capacity(Piece::Share));
            let total = mix.served + served.with(Piece::Gpu, whole) + served.with(Piece::Share, shares);
            candidates.entry((u64::MAX - total, [whole, shares], mix.counts)).or_insert(split);
        }
    }

    let mut best: Option<(Figures, Split)> = None;
    let mut played = 0;
    for split in candidates.into_values().take(PLAYED) {
        let samples: Vec<Sample> =
            play(day, Way::Stock, seed, &mut StockCluster::new(&split, Way::Stock, seed), |_, _| {}).await?;
        let figures = Figures::of(&samples);
        played += 1;
        if best.as_ref().is_none_or(|(known, _)| figures.served_percent > known.served_percent) {
            best = Some((figures, split));
        }
    }
    let (figures, split) = best.expect("there is always the split into whole GPUs");
    Ok(Found { split, figures, considered, played })
}

/// Layout counts and what they serve.
struct Mix {
    served: u64,
    counts: [u32; LAYOUTS.len()],
}

/// How much pod-time each number of devices serves, in pods times steps.
struct Served(BTreeMap<Piece, Vec<u64>>);

impl Served {
    fn of(day: &Day) -> Self {
        let table = |piece: Piece| {
            let wanted: Vec<u32> = (0..day.steps).map(|step| day.wanted(piece, step)).collect();
            let most = wanted.iter().copied().max().unwrap_or_default();
            let served = |devices: u32| wanted.iter().map(|&wanted| u64::from(wanted.min(devices))).sum();
            (piece, (0..=most).map(served).collect())
        };
        Self([Piece::Gpu, Piece::Mig1g, Piece::Mig2g, Piece::Mig3g, Piece::Share].map(table).into())
    }

    fn with(&self, piece: Piece, devices: u32) -> u64 {
        let table = self.0.get(&piece).map(Vec::as_slice).unwrap_or_default();
        table.get(devices as usize).or(table.last()).copied().unwrap_or_default()
    }

    fn by_layouts(&self, counts: &[u32; LAYOUTS.len()]) -> u64 {
        [Piece::Mig1g, Piece::Mig2g, Piece::Mig3g]
            .iter()
            .map(|&piece| {
                let devices =
                    LAYOUTS.iter().zip(counts).map(|(layout, count)| layout.count(piece) * count).sum();
                self.with(piece, devices)
            })
            .sum()
    }
}

/// Every way to give `gpus` GPUs a layout each, as counts.
fn each_mix(gpus: usize, tell: &mut impl FnMut(&[u32; LAYOUTS.len()])) {
    fn go(
        layout: usize,
        left: u32,
        counts: &mut [u32; LAYOUTS.len()],
        tell: &mut impl FnMut(&[u32; LAYOUTS.len()]),
    ) {
        if layout + 1 == LAYOUTS.len() {
            counts[layout] = left;
            return tell(counts);
        }
        for count in 0..=left {
            counts[layout] = count;
            go(layout + 1, left - count, counts, tell);
        }
    }
    go(0, u32::try_from(gpus).unwrap_or_default(), &mut [0; LAYOUTS.len()], tell);
}

/// Every way to configure the nodes: how many GPUs are in MIG mode, and whether the rest is shared. A node
/// wholly in MIG mode has no rest to share.
fn configurations() -> Vec<[(usize, bool); NODES.len()]> {
    let mut all = vec![[(0, false); NODES.len()]];
    for node in 0..NODES.len() {
        let most = if node < MIG_NODES { GPUS_PER_NODE } else { 0 };
        let options: Vec<(usize, bool)> = (0..=most)
            .flat_map(|mig| [(mig, false), (mig, true)])
            .filter(|&(mig, shared)| !(shared && mig == GPUS_PER_NODE))
            .collect();
        all = all
            .into_iter()
            .flat_map(|config| {
                options.iter().map(move |&option| {
                    let mut next = config;
                    next[node] = option;
                    next
                })
            })
            .collect();
    }
    all
}

/// Deals the layouts out to the nodes, one after another.
fn build(config: &[(usize, bool); NODES.len()], counts: &[u32; LAYOUTS.len()]) -> Split {
    let mut layouts =
        counts.iter().enumerate().flat_map(|(i, &count)| std::iter::repeat_n(i, count as usize));
    Split(config.map(|(mig, shared)| NodeSetup {
        mig: layouts.by_ref().take(mig).collect(),
        shared,
        elastic: false,
    }))
}

const _: () = assert!(REPLICAS > 1, "a share is less than a GPU");

#[cfg(test)]
mod tests {
    use super::*;

    async fn served(day: &Day, split: &Split) -> f64 {
        let mut cluster = StockCluster::new(split, Way::Stock, 1);
        Figures::of(&play(day, Way::Stock, 1, &mut cluster, |_, _| {}).await.unwrap()).served_percent
    }

    #[tokio::test]
    async fn no_hand_made_split_serves_more_than_the_one_that_was_found() {
        let day = Day::generate(1, 24);
        let found = best_split(&day, 1).await.unwrap();
        assert_eq!(served(&day, &found.split).await, found.figures.served_percent);
        let shared = |mig: Vec<usize>| NodeSetup { mig, shared: true, elastic: false };
        let whole = |mig: Vec<usize>| NodeSetup { mig, ..NodeSetup::WHOLE };
        for by_hand in [
            Split::WHOLE,
            Split([whole(vec![2; 8]), whole(vec![2; 4]), shared(vec![]), whole(vec![])]),
            Split([whole(vec![7; 8]), shared(vec![2; 4]), shared(vec![]), whole(vec![])]),
            Split([whole(vec![3; 8]), shared(vec![0; 2]), whole(vec![]), shared(vec![])]),
        ] {
            let by_hand = served(&day, &by_hand).await;
            assert!(by_hand <= found.figures.served_percent, "{by_hand} > {}", found.figures.served_percent);
        }
    }

    #[tokio::test]
    async fn one_whole_gpu_per_pod_serves_far_less_than_any_sensible_split() {
        let day = Day::generate(1, 24);
        let mut cluster = StockCluster::new(&Split::WHOLE, Way::Whole, 1);
        let whole = Figures::of(&play(&day, Way::Whole, 1, &mut cluster, |_, _| {}).await.unwrap());
        let found = best_split(&day, 1).await.unwrap();
        assert!(whole.served_percent + 10.0 < found.figures.served_percent);
    }
}
