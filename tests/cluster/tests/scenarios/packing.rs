//! Packing is real: small pods share few GPUs, an empty node stays empty, and the stock scheduler does otherwise.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use stowage_cluster_tests::{Cluster, Scenario, scenarios};

use super::stowage::pods::{self, By};
use super::stowage::{LIMIT, look};
use super::{Stage, is_long};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![pods_are_packed_where_the_stock_scheduler_spreads_them]
}

/// GPUs in use, by node.
type Use = BTreeMap<String, usize>;

async fn pods_are_packed_where_the_stock_scheduler_spreads_them(stage: &mut Stage) -> Result<()> {
    let cluster = stage.fresh().await?.0;
    let seeds = if is_long() { 20 } else { 5 };
    let mut spread = 0;
    for seed in 1..=seeds {
        let packed = play(cluster, By::Stowage, seed).await?;
        // Eight shares fit two L4s; three whole GPUs fit one node, so the other node of whole GPUs stays empty.
        ensure!(packed.shared_gpus == 2, "seed {seed}: eight shares are on {} GPUs", packed.shared_gpus);
        ensure!(
            packed.whole_nodes.len() == 1,
            "seed {seed}: whole GPUs are taken on {:?}",
            packed.whole_nodes
        );
        ensure!(packed.mig_gpus <= 2, "seed {seed}: three 1g slices are on {} GPUs", packed.mig_gpus);
        let stock = play(cluster, By::Stock, seed).await?;
        eprintln!("seed {seed}: Stowage {packed:?}, stock {stock:?}");
        spread +=
            usize::from(stock.whole_nodes.len() > packed.whole_nodes.len() || stock.gpus() > packed.gpus());
    }
    ensure!(spread == seeds as usize, "the stock scheduler spread only {spread} times of {seeds}");
    Ok(())
}

/// What a workload uses.
#[derive(Debug)]
struct Used {
    shared_gpus: usize,
    mig_gpus: usize,
    whole_nodes: BTreeSet<String>,
    by_node: Use,
}

impl Used {
    fn gpus(&self) -> usize {
        self.by_node.values().sum()
    }
}

/// Creates eight shares, three whole GPUs and three slices in an order of the seed's, one after another, and
/// looks where they are.
async fn play(cluster: &Cluster, by: By, seed: u64) -> Result<Used> {
    let mut wanted: Vec<&str> = [vec!["gpu.shared"; 8], vec!["gpu"; 3], vec!["mig-1g.5gb"; 3]].concat();
    shuffle(&mut wanted, seed);
    for (i, resource) in wanted.iter().enumerate() {
        let mut spec = pods::spec(by, resource, 1);
        // Only nodes with GPUs offer them, so each pod weighs alike for the stock scheduler's spreading too.
        spec["containers"][0]["resources"]["requests"] = serde_json::json!({"cpu": "10m", "memory": "8Mi"});
        pods::create(cluster, &format!("pack-{i}"), spec).await?;
        pods::all_running(cluster, i + 1, LIMIT).await?;
    }
    look::audit_is_clean(cluster).await?;
    let in_use = look::gpus_in_use(cluster).await?;
    let mut used = Used { shared_gpus: 0, mig_gpus: 0, whole_nodes: BTreeSet::new(), by_node: Use::new() };
    for view in look::views(cluster).await? {
        for gpu in &view.gpus {
            if !in_use.contains(&(view.node.clone(), gpu.uuid.to_string())) {
                continue;
            }
            *used.by_node.entry(view.node.clone()).or_default() += 1;
            let offers = gpu.kind.offers();
            if offers.iter().any(|offer| offer.replicas.is_some()) {
                used.shared_gpus += 1;
            } else if offers.len() > 1 {
                used.mig_gpus += 1;
            } else {
                used.whole_nodes.insert(view.node.clone());
            }
        }
    }
    pods::delete_all(cluster, LIMIT).await?;
    look::audit_is_clean(cluster).await?;
    Ok(used)
}

/// Fisher-Yates with a small generator (SplitMix64): the order depends on the seed alone.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for i in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        items.swap(i, ((z ^ (z >> 31)) % (i as u64 + 1)) as usize);
    }
}
