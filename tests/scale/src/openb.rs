//! The openb trace through the real kube-scheduler: how much of the GPUs is in use when pods come until no more fit.
//!
//! The rules are those of the published comparison (Fragmentation Gradient Descent, ATC '23): nodes and pods of the
//! public trace, in a given order of arrival; nothing leaves, and a pod that fits nowhere is gone for good. The same
//! files go into the simulator, so what differs is what lies between: the API server, kube-scheduler and the
//! extender's eleven levels.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use stowage_cluster_tests::{Cluster, Election, Isolated};
use stowage_shared::contract::SHARE_MILLI_ANNOTATION;

use crate::hollow::Hollow;
use crate::inventory::{HollowNode, PRODUCT_LABEL, SHARE, WHOLE};
use crate::programs::{Built, Pair, Setup};
use crate::{cluster, fill, shapes, verdict};

/// Pods that wait at once: enough to keep the scheduler busy, few enough that it decides in their order.
const BATCH: usize = 200;
/// How long a batch may take.
const BATCH_LIMIT: Duration = Duration::from_secs(120);
/// At which shares of the capacity asked for, in per cent, the allocation is told.
const TOLD_AT: [u64; 5] = [80, 100, 110, 120, 130];

/// What to replay.
#[derive(Debug, Clone, Args)]
pub struct Openb {
    /// The trace's nodes: `sn,cpu_milli,memory_mib,gpu,model`.
    #[arg(long)]
    pub nodes: PathBuf,
    /// The trace's pods: `name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,…`.
    #[arg(long)]
    pub pods: PathBuf,
    /// The order of arrival: one row of the pods' file a line, from 0.
    #[arg(long)]
    pub order: PathBuf,
    /// What schedules.
    #[arg(long, value_enum, default_value = "stowage")]
    pub setup: Setup,
    /// Stops after so many arrivals; by default all.
    #[arg(long)]
    pub arrivals: Option<usize>,
    /// Writes what became of each arrival: `arrival,row,node`, the node empty where it was refused.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// A pod of the trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracePod {
    cpu_milli: u64,
    memory_mib: u64,
    gpus: u64,
    /// Of each of its GPUs.
    milli: u64,
    models: Vec<String>,
}

impl TracePod {
    /// What it asks for of all GPUs, in thousandths.
    pub fn demand(&self) -> u64 {
        self.gpus * self.milli
    }

    fn object(&self, name: &str) -> Value {
        let mut amounts = BTreeMap::from([
            ("cpu", format!("{}m", self.cpu_milli)),
            ("memory", format!("{}Mi", self.memory_mib)),
        ]);
        let mut annotations = json!({});
        match (self.gpus, self.milli) {
            (0, _) => {}
            (1, milli @ ..1000) => {
                amounts.insert(SHARE, "1".to_owned());
                annotations[SHARE_MILLI_ANNOTATION] = json!(milli.to_string());
            }
            (gpus, _) => {
                amounts.insert(WHOLE, gpus.to_string());
            }
        }
        let mut pod = shapes::pod(name, &json!(amounts));
        pod["metadata"]["labels"] = json!({shapes::LABEL: "openb"});
        pod["metadata"]["annotations"] = annotations;
        if !self.models.is_empty() {
            let term = json!({"matchExpressions": [
                {"key": PRODUCT_LABEL, "operator": "In", "values": self.models},
            ]});
            pod["spec"]["affinity"] = json!({"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
            }});
        }
        pod
    }
}

/// The rows of a CSV file without quotes, by the names of its columns.
fn rows(path: &Path) -> Result<Vec<BTreeMap<String, String>>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse_rows(&text).with_context(|| format!("in {}", path.display()))
}

fn parse_rows(text: &str) -> Result<Vec<BTreeMap<String, String>>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().context("the file is empty")?.split(',').collect();
    lines
        .enumerate()
        .map(|(n, line)| {
            let cells: Vec<&str> = line.split(',').collect();
            ensure!(cells.len() == header.len(), "row {n} has {} cells, not {}", cells.len(), header.len());
            Ok(header.iter().zip(cells).map(|(name, cell)| ((*name).to_owned(), cell.to_owned())).collect())
        })
        .collect()
}

fn number(row: &BTreeMap<String, String>, column: &str) -> Result<u64> {
    let text = row.get(column).with_context(|| format!("there is no column {column}"))?;
    // Absent where a pod asks for no GPU.
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().with_context(|| format!("{column} is {text:?}"))
}

fn read_pods(path: &Path) -> Result<Vec<TracePod>> {
    rows(path)?.iter().map(trace_pod).collect()
}

fn trace_pod(row: &BTreeMap<String, String>) -> Result<TracePod> {
    let models = row.get("gpu_spec").map(String::as_str).unwrap_or_default();
    Ok(TracePod {
        cpu_milli: number(row, "cpu_milli")?,
        memory_mib: number(row, "memory_mib")?,
        gpus: number(row, "num_gpu")?,
        milli: number(row, "gpu_milli")?,
        models: models.split('|').filter(|model| !model.is_empty()).map(str::to_owned).collect(),
    })
}

fn read_nodes(path: &Path) -> Result<Vec<HollowNode>> {
    let rows = rows(path)?;
    let node = |(n, row): (usize, &BTreeMap<String, String>)| {
        let text = |column: &str| row.get(column).with_context(|| format!("there is no column {column}"));
        let gpus = u32::try_from(number(row, "gpu")?)?;
        let (cpu, memory) = (number(row, "cpu_milli")?, number(row, "memory_mib")?);
        HollowNode::elastic(n, text("sn")?, text("model")?, gpus, cpu, memory)
    };
    rows.iter().enumerate().map(node).collect()
}

fn read_order(path: &Path) -> Result<Vec<usize>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines().map(|line| line.trim().parse().with_context(|| format!("{line:?} is no row"))).collect()
}

/// The mean allocation, in per cent of `capacity`, over the arrivals at which so many per cent (rounded) of it have
/// been asked for. Arrivals are demand and whether it was placed.
fn allocation_at(capacity: u64, arrivals: impl IntoIterator<Item = (u64, bool)>) -> BTreeMap<u64, f64> {
    let (mut asked, mut used) = (0_u64, 0_u64);
    let mut sums: BTreeMap<u64, (f64, u32)> = BTreeMap::new();
    for (demand, placed) in arrivals {
        asked += demand;
        used += if placed { demand } else { 0 };
        let at = (100.0 * asked as f64 / capacity as f64).round() as u64;
        let (sum, count) = sums.entry(at).or_default();
        *sum += 100.0 * used as f64 / capacity as f64;
        *count += 1;
    }
    sums.into_iter().map(|(at, (sum, count))| (at, sum / f64::from(count))).collect()
}

/// Replays the trace on a cluster of its own, and prints.
///
/// # Errors
/// What did not start, or a batch of pods that nobody decides about.
pub async fn run(isolated: Isolated, built: Built, options: Openb) -> Result<()> {
    let nodes = read_nodes(&options.nodes)?;
    let pods = read_pods(&options.pods)?;
    let mut order = read_order(&options.order)?;
    order.truncate(options.arrivals.unwrap_or(usize::MAX));
    ensure!(order.iter().all(|&row| row < pods.len()), "the order names rows that the pods' file has not");
    let capacity = 1000 * nodes.iter().map(|node| node.gpus.len() as u64).sum::<u64>();
    let cluster = cluster::start(isolated).await?;
    println!("{} nodes, {} GPUs, {} arrivals", nodes.len(), capacity / 1000, order.len());
    let hollow = Hollow::start(&cluster.client(), fill::nodes(&cluster.client(), nodes, 0).await?);
    // Held until the end, which ends it.
    let _pair = Pair::start(&cluster, &built, options.setup, 0, Election::None).await?;

    let begun = Instant::now();
    let mut placed: Vec<Option<String>> = Vec::with_capacity(order.len());
    for (batch, rows) in order.chunks(BATCH).enumerate() {
        placed.extend(replay(&cluster, &hollow, batch * BATCH, rows, &pods).await?);
    }
    let took = begun.elapsed().as_secs_f64();
    let bound = placed.iter().flatten().count();
    println!("{}: {bound} bound, {} refused, in {took:.0} s", options.setup.title(), placed.len() - bound);
    let arrivals = order.iter().zip(&placed).map(|(&row, node)| (pods[row].demand(), node.is_some()));
    let told = allocation_at(capacity, arrivals);
    for at in TOLD_AT {
        if let Some(allocation) = told.get(&at) {
            println!("  at {at:>3} % of the capacity asked for: {allocation:.2} % allocated");
        }
    }
    let counts = hollow.state().counts;
    println!(
        "  on their nodes: {} as planned, {} otherwise, {} not admitted",
        counts.as_planned, counts.otherwise, counts.not_admitted
    );
    let findings = verdict::findings(&cluster.client()).await?;
    println!("  the audit finds {}", findings.len());
    findings.iter().take(10).for_each(|finding| println!("    {finding}"));
    if let Some(out) = &options.out {
        write_result(out, &order, &placed)?;
    }
    Ok(())
}

/// Creates some pods in order, waits until each is bound or refused, and takes the refused away.
async fn replay(
    cluster: &Cluster,
    hollow: &Hollow,
    first: usize,
    rows: &[usize],
    pods: &[TracePod],
) -> Result<Vec<Option<String>>> {
    let client = cluster.client();
    let names: Vec<String> = (first..first + rows.len()).map(|n| format!("arrival-{n:05}")).collect();
    let objects = names.iter().zip(rows).map(|(name, &row)| pods[row].object(name));
    fill::pods_in_order(&client, objects).await?;
    let what = format!("a decision about arrivals {first} to {}", first + rows.len() - 1);
    let nodes: Vec<Option<String>> = hollow
        .wait(BATCH_LIMIT, &what, |state| {
            let fate = |name: &String| {
                let fate = state.record.fates.get(name).context("a pod has not been seen yet")?;
                ensure!(fate.node.is_some() || fate.refused, "{name} waits");
                Ok(fate.node.clone())
            };
            names.iter().map(fate).collect()
        })
        .await?;
    let refused = names.iter().zip(&nodes).filter(|(_, node)| node.is_none()).map(|(name, _)| name.clone());
    fill::delete(&client, refused).await?;
    Ok(nodes)
}

fn write_result(path: &Path, order: &[usize], placed: &[Option<String>]) -> Result<()> {
    let mut text = "arrival,row,node\n".to_owned();
    for (arrival, (row, node)) in order.iter().zip(placed).enumerate() {
        text.push_str(&format!("{arrival},{row},{}\n", node.as_deref().unwrap_or_default()));
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PODS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos\n\
        a,12000,16384,1,1000,,LS\n\
        b,6000,12288,1,460,V100M16|V100M32,LS\n\
        c,1000,2048,0,0,,BE\n";

    fn pods() -> Vec<TracePod> {
        parse_rows(PODS).unwrap().iter().map(|row| trace_pod(row).unwrap()).collect()
    }

    #[test]
    fn a_part_of_a_gpu_is_asked_for_as_a_share_of_that_size() {
        let object = pods()[1].object("b");
        assert_eq!(object["metadata"]["annotations"][SHARE_MILLI_ANNOTATION], "460");
        assert_eq!(object["spec"]["containers"][0]["resources"]["limits"][SHARE], "1");
        assert!(object["spec"]["affinity"].to_string().contains("V100M32"));
    }

    #[test]
    fn whole_gpus_and_none_are_asked_for_by_count() {
        let limits = |n: usize| pods()[n].object("x")["spec"]["containers"][0]["resources"]["limits"].clone();
        assert_eq!(limits(0), json!({"cpu": "12000m", "memory": "16384Mi", WHOLE: "1"}));
        assert_eq!(limits(2), json!({"cpu": "1000m", "memory": "2048Mi"}));
    }

    #[test]
    fn the_allocation_is_the_mean_over_arrivals_at_the_same_rounded_per_cent() {
        let arrivals = [(500, true), (500, true), (2, false), (98, false)];
        let told = allocation_at(1000, arrivals);
        assert_eq!(told, BTreeMap::from([(50, 50.0), (100, 100.0), (110, 100.0)]));
    }

    #[test]
    fn a_row_that_is_too_short_is_named() {
        let error = parse_rows("a,b\n1,2\n3\n").unwrap_err();
        assert_eq!(error.to_string(), "row 1 has 1 cells, not 2");
    }
}
