//! Replays every trace of a folder with every policy, and prints the table of allocations.
//!
//! See `simulator/README.md` for where the traces come from and how the folder is made.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use stowage_shared::pack::fleet::Weights;
use stowage_simulator::openb::{MixKind, PolicyName, Replay, Source, Ties, Trace, replay};

const USAGE: &str = "usage: openb_table FOLDER [TRACES [SEEDS [COLUMNS]]]
  FOLDER   openb_node_list_gpu_node.csv, openb_pod_list_TRACE.csv, TRACE_SEED.txt and TRACE_SEED.ranks
  TRACES   comma-separated, or `all` (the 17 that results were published for)
  SEEDS    FIRST-LAST, 42-51 if left out
  COLUMNS  comma-separated POLICY, POLICY:TIES, stowage:TIES:MIX or
           stowage:TIES:MIX:FRAGMENT/STRANDED/CUT/PRICE (weights; 1/1/100/1 is the default); `all` if left out";

const TRACES: [&str; 17] = [
    "default",
    "cpu050",
    "cpu100",
    "cpu200",
    "cpu250",
    "gpushare40",
    "gpushare60",
    "gpushare80",
    "gpushare100",
    "gpuspec10",
    "gpuspec20",
    "gpuspec25",
    "gpuspec33",
    "multigpu20",
    "multigpu30",
    "multigpu40",
    "multigpu50",
];

const COLUMNS: &str = "stowage:random:trace,stowage:random:learned,fgd:name,fgd:random,best-fit:name,\
    gpu-packing:name,gpu-clustering:name,dot-product:name,random,least-allocated:random,most-allocated:random";

const POINTS: [u64; 4] = [100, 110, 120, 130];

/// One column of the table.
#[derive(Clone)]
struct Column {
    name: String,
    policy: PolicyName,
    by_name: bool,
    mix: MixKind,
    weights: Weights,
}

impl Column {
    fn parse(text: &str) -> Result<Self, Box<dyn Error>> {
        let mut parts = text.split(':');
        let policy = match parts.next().unwrap_or_default() {
            "stowage" => PolicyName::Stowage,
            "fgd" => PolicyName::Fgd,
            "best-fit" => PolicyName::BestFit,
            "gpu-packing" => PolicyName::GpuPacking,
            "gpu-clustering" => PolicyName::GpuClustering,
            "dot-product" => PolicyName::DotProduct,
            "random" => PolicyName::Random,
            "least-allocated" => PolicyName::LeastAllocated,
            "most-allocated" => PolicyName::MostAllocated,
            other => return Err(format!("no policy {other}\n{USAGE}").into()),
        };
        let by_name = parts.next() == Some("name");
        let mix = if parts.next() == Some("learned") { MixKind::Learned } else { MixKind::Trace };
        let weights = match parts.next() {
            None => Weights::default(),
            Some(text) => {
                let numbers: Vec<i64> = text.split('/').map(str::parse).collect::<Result<_, _>>()?;
                let &[fragment, stranded, cut, price] = numbers.as_slice() else { return Err(USAGE.into()) };
                Weights { fragment, stranded, cut, price }
            }
        };
        Ok(Self { name: text.to_owned(), policy, by_name, mix, weights })
    }
}

fn read(path: &Path) -> Result<String, Box<dyn Error>> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn source<'a>(path: &'a Path, text: &'a str) -> Source<'a> {
    Source { file: path.to_str().unwrap_or_default(), text }
}

/// The allocations of one run, in percent.
fn one(
    folder: &Path,
    trace: &Trace,
    name: &str,
    seed: u64,
    column: &Column,
) -> Result<[f64; 4], Box<dyn Error>> {
    let path = folder.join(format!("{name}_{seed}.txt"));
    let order = trace.read_order(source(&path, &read(&path)?))?;
    let ties = if column.by_name {
        let path = folder.join(format!("{name}_{seed}.ranks"));
        Ties::Name(trace.read_ranks(source(&path, &read(&path)?))?)
    } else {
        Ties::random(seed)
    };
    let (mix, weights) = (column.mix, column.weights);
    let what = Replay { ties, mix, weights, seed, ..Replay::new(trace, &order, column.policy) };
    let run = replay(what, |_| ());
    Ok(POINTS.map(|point| run.alloc_at(point).unwrap_or(f64::NAN)))
}

fn table(args: &[String]) -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(args.first().ok_or(USAGE)?);
    let names: Vec<String> = match args.get(1).map(String::as_str) {
        None | Some("all") => TRACES.iter().map(ToString::to_string).collect(),
        Some(some) => some.split(',').map(str::to_owned).collect(),
    };
    let (first, last) = args.get(2).map_or("42-51", String::as_str).split_once('-').ok_or(USAGE)?;
    let seeds = first.parse()?..=last.parse::<u64>()?;
    let columns = args.get(3).map_or("all", String::as_str);
    let columns = if columns == "all" { COLUMNS } else { columns };
    let columns: Vec<Column> = columns.split(',').map(Column::parse).collect::<Result<_, _>>()?;

    let nodes_path = folder.join("openb_node_list_gpu_node.csv");
    let nodes = read(&nodes_path)?;
    println!("{:12} {:24} {}", "trace", "policy", POINTS.map(|point| format!("{point:>6}%")).join(" "));
    for name in &names {
        let pods_path = folder.join(format!("openb_pod_list_{name}.csv"));
        let trace = Trace::read(source(&nodes_path, &nodes), source(&pods_path, &read(&pods_path)?))?;
        let jobs: Vec<(usize, u64)> =
            (0..columns.len()).flat_map(|column| seeds.clone().map(move |seed| (column, seed))).collect();
        let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some(&(column, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = one(&folder, &trace, name, seed, &columns[column])
                            .map_err(|error| error.to_string());
                        results.lock().expect("no thread panics").insert((column, seed), result);
                    }
                });
            }
        });
        let results = results.into_inner()?;
        for (place, column) in columns.iter().enumerate() {
            let mut mean = [0.0; 4];
            for seed in seeds.clone() {
                let run = results
                    .get(&(place, seed))
                    .ok_or("a run is missing")?
                    .as_ref()
                    .map_err(String::as_str)?;
                mean.iter_mut().zip(run).for_each(|(mean, run)| *mean += run / seeds.clone().count() as f64);
            }
            println!("{name:12} {:24} {}", column.name, mean.map(|mean| format!("{mean:7.3}")).join(" "));
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match table(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("openb_table: {error}");
            ExitCode::FAILURE
        }
    }
}
