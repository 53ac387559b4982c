//! Packing is real: small pods share few GPUs, an empty node stays empty, and the stock scheduler does otherwise.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::json;
use stowage_cluster_tests::{Cluster, Scenario, scenarios};

use super::stowage::pods::{self, By};
use super::stowage::random::Random;
use super::stowage::{LIMIT, look};
use super::{Stage, is_long};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![pods_are_packed_where_the_stock_scheduler_spreads_them]
}

/// What is asked for, and the share of a node's CPU that each pod wants: for kube-scheduler's spreading, a pod
/// that asks for more of a GPU weighs more than all smaller ones together.
const WANTED: [(&str, u32, &str); 3] =
    [("gpu.shared", 8, "1m"), ("mig-1g.5gb", 4, "20m"), ("gpu", 3, "200m")];

async fn pods_are_packed_where_the_stock_scheduler_spreads_them(stage: &mut Stage) -> Result<()> {
    let cluster = stage.fresh().await?.0;
    let seeds = if is_long() { 20 } else { 5 };
    for seed in 1..=seeds {
        let packed = play(cluster, By::Stowage, seed).await?;
        let stock = play(cluster, By::Stock, seed).await?;
        eprintln!("seed {seed}\n  Stowage {packed:?}\n  stock   {stock:?}");
        // Two L4s hold eight quarters, two A100s hold two 1g slices each.
        ensure!(packed.shared_gpus == 2, "seed {seed}: eight shares are on {} GPUs", packed.shared_gpus);
        ensure!(packed.mig_gpus == 2, "seed {seed}: four 1g slices are on {} GPUs", packed.mig_gpus);
        ensure!(packed.nodes.len() == 2, "seed {seed}: no node with GPUs stays empty: {:?}", packed.nodes);
        ensure!(packed.four_whole_fit, "seed {seed}: no node has four whole GPUs left");
        ensure!(!stock.four_whole_fit, "seed {seed}: the stock scheduler packs too, so this shows nothing");
    }
    Ok(())
}

/// What a workload uses.
#[derive(Debug)]
struct Used {
    shared_gpus: usize,
    mig_gpus: usize,
    nodes: BTreeSet<String>,
    /// Whether a pod that asks for four whole GPUs, all that any node has, was placed after the others.
    four_whole_fit: bool,
}

/// Creates pods in an order of the seed's, one after another, and looks where they are.
async fn play(cluster: &Cluster, by: By, seed: u64) -> Result<Used> {
    let mut wanted: Vec<_> =
        WANTED.iter().flat_map(|&(resource, count, cpu)| (0..count).map(move |_| (resource, cpu))).collect();
    Random::of(seed).shuffle(&mut wanted);
    for (i, (resource, cpu)) in wanted.iter().enumerate() {
        let mut spec = pods::spec(by, resource, 1);
        spec["containers"][0]["resources"]["requests"] = json!({"cpu": cpu, "memory": "8Mi"});
        pods::create(cluster, &format!("pack-{i}"), spec).await?;
        pods::all_running(cluster, i + 1, LIMIT).await?;
    }
    look::audit_is_clean(cluster).await?;
    let in_use = look::gpus_in_use(cluster).await?;
    let mut used = Used { shared_gpus: 0, mig_gpus: 0, nodes: BTreeSet::new(), four_whole_fit: false };
    for view in look::views(cluster).await? {
        for gpu in view.gpus.iter().filter(|gpu| in_use.contains(&(view.node.clone(), gpu.uuid.to_string())))
        {
            used.nodes.insert(view.node.clone());
            let offers = gpu.kind.offers();
            used.shared_gpus += usize::from(offers.iter().any(|offer| offer.replicas.is_some()));
            used.mig_gpus += usize::from(offers.len() > 1);
        }
    }
    pods::create(cluster, "big", pods::spec(by, "gpu", 4)).await?;
    used.four_whole_fit = pods::is_scheduled(cluster, "big", LIMIT).await?;
    pods::delete_all(cluster, LIMIT).await?;
    look::audit_is_clean(cluster).await?;
    Ok(used)
}
