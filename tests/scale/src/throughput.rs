//! Pods a second, from the first create to the last bind, for each setup in turn on one cluster.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use stowage_cluster_tests::{Cluster, Election, Isolated};

use crate::cluster;
use crate::figures::{self, Usage};
use crate::fill;
use crate::hollow::Hollow;
use crate::inventory::HollowNode;
use crate::programs::{Built, Pair, Setup};
use crate::shapes;

/// How long deleted pods may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(Debug, Clone, Args)]
pub struct Throughput {
    /// Nodes of eight GPUs.
    #[arg(long, default_value_t = 5000)]
    pub nodes: usize,
    /// Pods that are placed before.
    #[arg(long, default_value_t = 20_000)]
    pub placed: usize,
    /// New pods of mixed shapes, for each setup and round.
    #[arg(long, default_value_t = 3000)]
    pub pods: usize,
    /// How often each setup is measured, in turns.
    #[arg(long, default_value_t = 1)]
    pub rounds: usize,
    /// The setups; by default all of them.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub setups: Vec<Setup>,
    /// The longest time for one measurement, in seconds; what is not bound by then is not counted.
    #[arg(long, default_value_t = 240)]
    pub limit_seconds: u64,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Of which setup.
    pub setup: Setup,
    /// Pods that were bound.
    pub bound: usize,
    /// Of how many.
    pub pods: usize,
    /// From the first create to the last bind.
    pub took: Duration,
    /// The mean of kube-scheduler's algorithm, in milliseconds.
    pub algorithm_ms: f64,
    /// Calls of filter and prioritize, and those of filter that waited for nominations; a nominated pod needs no
    /// prioritize.
    pub calls: (f64, f64, f64),
    /// Pods that were bound to the node for which they were seen nominated.
    pub on_nominated: usize,
    /// Writes at the API server by what and how, everybody's.
    pub writes: BTreeMap<String, u64>,
    /// What each process took in processor time during the run, and has in memory after it.
    pub usage: BTreeMap<&'static str, Usage>,
    /// What the hollow kubelets found: as planned, otherwise, not admitted.
    pub admitted: (usize, usize, usize),
}

impl Figures {
    /// Pods a second.
    pub fn rate(&self) -> f64 {
        self.bound as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Prints them.
    pub fn print(&self) {
        let per_pod = |count: f64| count / self.bound.max(1) as f64;
        println!("{}", self.setup.title());
        println!(
            "  {:>7.1} pods/s   {} of {} pods bound in {:.1} s   algorithm {:.2} ms mean",
            self.rate(),
            self.bound,
            self.pods,
            self.took.as_secs_f64(),
            self.algorithm_ms,
        );
        let (filter, prioritize, waits) = self.calls;
        if filter > 0.0 {
            println!(
                "  {filter} filter and {prioritize} prioritize calls: {:.1} % of the pods were tried on one nominated \
                 node alone; {waits} waited for nominations; {} landed on the node they were nominated for",
                100.0 * (1.0 - per_pod(prioritize)).max(0.0),
                self.on_nominated,
            );
            let (as_planned, otherwise, not_admitted) = self.admitted;
            println!(
                "  on their nodes: {as_planned} as planned, {otherwise} otherwise, {not_admitted} not admitted"
            );
        }
        let writes: Vec<_> =
            self.writes.iter().map(|(what, &n)| format!("{what} {:.2}", per_pod(n as f64))).collect();
        println!("  writes a pod, everybody's: {}", writes.join(", "));
        for (name, usage) in &self.usage {
            println!(
                "  {name:<24} {:>7.1} MiB RSS  {:>6.2} ms of processor time a pod",
                usage.rss_mib,
                per_pod(usage.cpu.as_secs_f64() * 1e3),
            );
        }
    }
}

/// Measures on a cluster of its own, and prints.
///
/// # Errors
/// What did not start; a setup that binds nothing.
pub async fn run(isolated: Isolated, built: Built, options: Throughput) -> Result<()> {
    let cluster = cluster::start(isolated).await?;
    let started = Instant::now();
    let hollow = populate(&cluster, options.nodes, options.placed).await?;
    println!(
        "{} nodes of 8 GPUs, {} pods placed (made in {:.0} s); {} processors for everything\n",
        options.nodes,
        options.nodes * (options.placed / options.nodes.max(1)),
        started.elapsed().as_secs_f64(),
        std::thread::available_parallelism()?,
    );
    let mut setups = options.setups.clone();
    if setups.is_empty() {
        setups = vec![Setup::Stock, Setup::DoNothing, Setup::Stowage, Setup::Nominate];
    }
    let mut all: Vec<Figures> = Vec::new();
    for round in 0..options.rounds {
        for &setup in &setups {
            let figures = measure(&cluster, &hollow, &built, setup, round, &options).await?;
            figures.print();
            all.push(figures);
            clean(&cluster, &hollow).await?;
        }
    }
    summarize(&setups, &all);
    Ok(())
}

/// Makes the nodes, and the pods that were there before.
///
/// # Errors
/// The first object that is refused.
pub async fn populate(cluster: &Cluster, nodes: usize, placed: usize) -> Result<Hollow> {
    let fleet: Vec<HollowNode> = (0..nodes).map(HollowNode::mixed).collect::<Result<_>>()?;
    let registered = fill::nodes(&cluster.client(), fleet, placed / nodes.max(1)).await?;
    Ok(Hollow::start(&cluster.client(), registered))
}

/// Measures one setup, and leaves its pods where they are.
///
/// # Errors
/// What did not start; nothing bound in time.
pub async fn measure(
    cluster: &Cluster,
    hollow: &Hollow,
    built: &Built,
    setup: Setup,
    round: usize,
    options: &Throughput,
) -> Result<Figures> {
    let pair = Pair::start(cluster, built, setup, 0, Election::None).await?;
    let prefix = format!("{setup:?}-{round}").to_lowercase();
    {
        let mut state = hollow.state();
        state.record.clear();
        state.counts = Default::default();
    }
    let watched = processes(cluster, &pair);
    let usage = |watched: &[(&'static str, u32)]| -> BTreeMap<&'static str, Usage> {
        watched.iter().filter_map(|&(name, pid)| Some((name, figures::usage(pid).ok()?))).collect()
    };
    let (writes, used) = (figures::writes(&cluster::metrics(cluster).await?), usage(&watched));

    let begun = Instant::now();
    let pods: Vec<_> = (0..options.pods).map(|n| shapes::mixed_pod(&prefix, n)).collect();
    let limit = Duration::from_secs(options.limit_seconds);
    let client = cluster.client();
    let all_bound = async {
        let created = fill::pods(&client, pods);
        let bound = hollow.wait(limit, "all pods to be bound", |state| {
            ensure!(state.record.bound >= options.pods, "{} are", state.record.bound);
            Ok(())
        });
        let (created, bound) = tokio::join!(created, bound);
        created.map(|()| bound)
    };
    // Not all bound in time: then what is bound counts.
    if let Err(late) = all_bound.await? {
        println!("  ({}: {late:#})", setup.title());
    }
    let (bound, last, on_nominated, counts) = {
        let state = hollow.state();
        let record = &state.record;
        ensure!(record.bound_twice == 0, "{} pods were bound twice", record.bound_twice);
        (record.bound, record.last_bound, record.on_nominated, state.counts)
    };
    let last = last.with_context(|| format!("{}: no pod was bound", setup.title()))?;

    let after = usage(&watched);
    let since = |(&name, after): (&&'static str, &Usage)| {
        let before = used.get(name).copied().unwrap_or_default();
        (name, Usage { rss_mib: after.rss_mib, cpu: after.cpu.saturating_sub(before.cpu) })
    };
    let figures = Figures {
        setup,
        bound,
        pods: options.pods,
        took: last.duration_since(begun),
        algorithm_ms: mean_ms(&pair).await?,
        calls: calls(&pair).await?,
        on_nominated,
        writes: figures::written_between(&writes, &figures::writes(&cluster::metrics(cluster).await?)),
        usage: after.iter().map(since).collect(),
        admitted: (counts.as_planned, counts.otherwise, counts.not_admitted),
    };
    Ok(figures)
}

/// Deletes the new pods and waits until the hollow nodes know.
///
/// # Errors
/// When they are not gone in time.
pub async fn clean(cluster: &Cluster, hollow: &Hollow) -> Result<()> {
    let names: Vec<String> = hollow.state().record.fates.keys().cloned().collect();
    fill::delete(&cluster.client(), names).await?;
    hollow
        .wait(GONE_LIMIT, "the pods to be gone", |state| {
            ensure!(state.record.fates.is_empty(), "{} are left", state.record.fates.len());
            Ok(())
        })
        .await
}

fn processes(cluster: &Cluster, pair: &Pair) -> Vec<(&'static str, u32)> {
    let named = |name: &'static str, wanted: &str| {
        let found = cluster.control_plane().iter().find(|process| process.name() == wanted)?;
        Some((name, found.pid()))
    };
    let own = [named("kube-apiserver", "kube-apiserver"), named("etcd", "etcd")];
    let mut all: Vec<_> = own.into_iter().flatten().collect();
    all.push(("kube-scheduler", pair.scheduler.process.pid()));
    all.extend(pair.extender.as_ref().map(|extender| ("extender", extender.pid())));
    all.push(("pods and hollow nodes", std::process::id()));
    all
}

async fn mean_ms(pair: &Pair) -> Result<f64> {
    let metrics = pair.scheduler_metrics().await?;
    let name = "scheduler_scheduling_algorithm_duration_seconds";
    let count = metrics.sum(&format!("{name}_count"), &[]);
    Ok(1e3 * metrics.sum(&format!("{name}_sum"), &[]) / count.max(1.0))
}

async fn calls(pair: &Pair) -> Result<(f64, f64, f64)> {
    let metrics = pair.extender_metrics().await?;
    let of = |verb| metrics.sum("stowage_scheduler_extender_requests_total", &[verb]);
    let waits = metrics.sum("stowage_scheduler_extender_filter_waits_total", &[]);
    Ok((of("verb=\"filter\""), of("verb=\"prioritize\""), waits))
}

/// Prints the median rate of each setup, beside that of the first.
fn summarize(setups: &[Setup], all: &[Figures]) {
    println!("\n{:<46} {:>12} {:>12}", "median of the rounds", "pods/s", "of the first");
    let mut first = None;
    for &setup in setups {
        let rates = all.iter().filter(|figures| figures.setup == setup).map(Figures::rate).collect();
        let Some(rate) = median(rates) else { continue };
        let share = 100.0 * rate / *first.get_or_insert(rate);
        println!("{:<46} {rate:>12.1} {share:>10.0} %", setup.title());
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    let lower = if values.len().is_multiple_of(2) { *values.get(middle.checked_sub(1)?)? } else { upper };
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }
}
