//! Replays a trace with the columns of openb: pods arrive, are placed or refused, and none leaves, or each after a while.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use stowage_simulator::openb::{
    Line, MixKind, PolicyName, Replay, Run, Source, Steady, Ties, Trace, plot, replay,
};

use super::files;

/// Where the summary tells the allocation: so many percent of all GPUs asked for.
const POINTS: [u64; 4] = [100, 110, 120, 130];

/// A bar moves every so many arrivals.
const PROGRESS_STEP: usize = 64;

/// What to replay. (clap tells flattened structs by their name, so it is another than the command's.)
#[derive(Debug, clap::Args)]
pub struct TraceArgs {
    /// The nodes: a table with the columns sn,cpu_milli,memory_mib,gpu,model.
    #[arg(long, value_name = "NODES.csv")]
    nodes: PathBuf,
    /// The pods: a table with the columns cpu_milli,memory_mib,num_gpu,gpu_milli and, where pods are constrained, gpu_spec.
    #[arg(long, value_name = "PODS.csv")]
    pods: PathBuf,
    /// The arrivals: in each line a row of the pods, from 0. Without it the pods arrive once, as they stand.
    #[arg(long, value_name = "ORDER.txt")]
    order: Option<PathBuf>,
    /// Which of several nodes that are equally good: any, as kube-scheduler chooses, or the one with the lowest rank.
    #[arg(long, value_enum, default_value = "random")]
    ties: TieRule,
    /// For each node, sorted by name, its rank: for --ties name. Without it the order of the nodes' names.
    #[arg(long, value_name = "RANKS.txt")]
    ranks: Option<PathBuf>,
    /// How Stowage knows what is to come: from the whole trace (though not the order), or only from what came.
    #[arg(long, value_enum, default_value = "trace")]
    mix: Mix,
    /// Who places the pods.
    #[arg(long, value_enum, default_value = "stowage")]
    policy: Policy,
    /// Other policies to show beside it in the table and the plot.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "POLICY,...")]
    compare: Vec<Policy>,
    /// Pods leave again, after exponential stays, so that on average so many times all GPUs are asked for at once. The order is
    /// gone through twice; what the second half of all arrivals found is told.
    #[arg(long, value_name = "LOAD", value_parser = load, conflicts_with = "plot")]
    departures: Option<f64>,
    /// For everything that is random: one seed, one result.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Writes where each arrival went: arrival,row,node,gpus. The node is empty when it was refused.
    #[arg(long, value_name = "RESULT.csv")]
    out: Option<PathBuf>,
    /// Writes the allocation of GPUs in percent, when 100, 110, 120 and 130 % of them had been asked for.
    #[arg(long, value_name = "SUMMARY.json")]
    summary: Option<PathBuf>,
    /// Draws the allocation over what was asked for.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TieRule {
    Random,
    Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mix {
    Trace,
    Learned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// The packing core.
    Stowage,
    /// Fragmentation gradient descent (USENIX ATC '23), as published: scores from 0 to 100.
    Fgd,
    /// The node that is left with least.
    BestFit,
    /// Shared GPUs first, then used nodes.
    GpuPacking,
    /// Pods of one kind together.
    GpuClustering,
    /// The smallest dot product of idle and asked.
    DotProduct,
    /// Any node and any GPU.
    Random,
    /// kube-scheduler's default.
    LeastAllocated,
    /// kube-scheduler's bin packing.
    MostAllocated,
}

impl From<Policy> for PolicyName {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Stowage => Self::Stowage,
            Policy::Fgd => Self::Fgd,
            Policy::BestFit => Self::BestFit,
            Policy::GpuPacking => Self::GpuPacking,
            Policy::GpuClustering => Self::GpuClustering,
            Policy::DotProduct => Self::DotProduct,
            Policy::Random => Self::Random,
            Policy::LeastAllocated => Self::LeastAllocated,
            Policy::MostAllocated => Self::MostAllocated,
        }
    }
}

/// From far too little to far too much.
fn load(text: &str) -> Result<f64, String> {
    let load = text.parse().ok().filter(|load| (0.1..=10.0).contains(load));
    load.ok_or_else(|| "use a number from 0.1 to 10: 1 where as much is asked for as there is".to_owned())
}

pub fn run(args: &TraceArgs, out: &mut impl Write) -> Result<()> {
    let (nodes, pods) = (files::read(&args.nodes)?, files::read(&args.pods)?);
    let trace = Trace::read(source(&args.nodes, &nodes), source(&args.pods, &pods))?;
    let order = match &args.order {
        Some(path) => trace.read_order(source(path, &files::read(path)?))?,
        None => (0..trace.pods.len()).collect(),
    };
    let order = if args.departures.is_some() { order.repeat(2) } else { order };
    let ties = match (args.ties, &args.ranks) {
        (TieRule::Random, _) => Ties::random(args.seed),
        (TieRule::Name, Some(path)) => Ties::Name(trace.read_ranks(source(path, &files::read(path)?))?),
        (TieRule::Name, None) => Ties::Name(trace.ranks_by_name()),
    };
    let policies: Vec<Policy> = std::iter::once(args.policy).chain(args.compare.iter().copied()).collect();
    let bar = progress_bar(policies.len() * order.len());
    let runs: Vec<(Policy, Run)> = policies
        .iter()
        .map(|&policy| {
            let what = Replay {
                ties: ties.clone(),
                seed: args.seed,
                departures: args.departures,
                mix: if args.mix == Mix::Trace { MixKind::Trace } else { MixKind::Learned },
                ..Replay::new(&trace, &order, policy.into())
            };
            let step = |arrival: usize| {
                if arrival.is_multiple_of(PROGRESS_STEP) {
                    bar.inc(PROGRESS_STEP as u64);
                }
            };
            (policy, replay(what, step))
        })
        .collect();
    bar.finish_and_clear();

    if let (Some(path), Some((_, run))) = (&args.out, runs.first()) {
        files::write(path, &run.to_csv(&trace))?;
    }
    if let (Some(path), Some((policy, run))) = (&args.summary, runs.first()) {
        files::write(path, &format!("{:#}\n", summary(args, *policy, run)))?;
    }
    if let Some(path) = &args.plot {
        let line = |(policy, run): &(Policy, Run)| Line { name: name(policy), points: run.curve() };
        files::write(path, &plot(&runs.iter().map(line).collect::<Vec<_>>()))?;
    }
    match args.departures {
        Some(load) => steady_table(&trace, load, &runs, out),
        None => table(&trace, &runs, out),
    }
}

/// Moves on a terminal, and is not there otherwise.
fn progress_bar(length: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} arrivals, {eta} left");
    // The template is fixed and right; without it the bar would only look plainer.
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

fn source<'a>(path: &'a Path, text: &'a str) -> Source<'a> {
    // A name that is no Unicode is told by its last part that is.
    let file = path.to_str().or_else(|| path.extension()?.to_str()).unwrap_or("the file");
    Source { file, text }
}

fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn summary(args: &TraceArgs, policy: Policy, run: &Run) -> Value {
    let alloc_at: Map<String, Value> =
        POINTS.iter().map(|&point| (point.to_string(), json!(run.alloc_at(point)))).collect();
    let steady = args.departures.map(|load| {
        let Steady { asked, allocated, refused } = run.steady();
        json!({ "load": load, "asked": asked, "allocated": allocated, "refused": refused })
    });
    let mut summary = json!({
        "policy": name(&policy),
        "ties": name(&args.ties),
        "mix": name(&args.mix),
        "seed": args.seed,
        "gpus": run.capacity_milli / 1000,
        "arrivals": run.arrivals.len(),
        "refused": run.refused(),
        "alloc_at": alloc_at,
    });
    // Where pods leave, there are no such points; else there is no steady use.
    if let (Some(summary), Some(steady)) = (summary.as_object_mut(), steady) {
        summary.remove("alloc_at");
        summary.insert("steady".to_owned(), steady);
    }
    summary
}

fn steady_table(trace: &Trace, load: f64, runs: &[(Policy, Run)], out: &mut impl Write) -> Result<()> {
    let arrivals = runs.first().map_or(0, |(_, run)| run.arrivals.len());
    writeln!(
        out,
        "{} nodes, {} GPUs, {arrivals} arrivals, load {load}; in the second half, in % of all GPUs and of the pods:",
        trace.nodes.len(),
        trace.capacity_milli() / 1000
    )?;
    writeln!(out, "{:16}{:>10}{:>12}{:>10}", "policy", "asked for", "allocated", "refused")?;
    for (policy, run) in runs {
        let Steady { asked, allocated, refused } = run.steady();
        writeln!(out, "{:16}{asked:>10.2}{allocated:>12.2}{refused:>10.2}", name(policy))?;
    }
    Ok(())
}

fn table(trace: &Trace, runs: &[(Policy, Run)], out: &mut impl Write) -> Result<()> {
    let arrivals = runs.first().map_or(0, |(_, run)| run.arrivals.len());
    writeln!(
        out,
        "{} nodes, {} GPUs, {arrivals} arrivals; GPUs allocated when so much was asked for:",
        trace.nodes.len(),
        trace.capacity_milli() / 1000
    )?;
    let points = POINTS.map(|point| format!("{:>8}", format!("{point} %"))).concat();
    writeln!(out, "{:16}{points}{:>10}", "policy", "refused")?;
    for (policy, run) in runs {
        let cell = |point| run.alloc_at(point).map_or(Cow::from("-"), |alloc| format!("{alloc:.2}").into());
        let cells = POINTS.map(|point| format!("{:>8}", cell(point))).concat();
        writeln!(out, "{:16}{cells}{:>10}", name(policy), run.refused())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_a_number_within_reason() {
        assert_eq!((load("1"), load("0.5")), (Ok(1.0), Ok(0.5)));
        for wrong in ["0", "11", "NaN", "-1", "x", ""] {
            assert!(load(wrong).unwrap_err().starts_with("use a number from 0.1 to 10"), "{wrong}");
        }
    }
}
