//! The real extender over HTTP, its state fed by the API server stand-in, in turn with a server that knows nothing.
//!
//! One request is in flight, as kube-scheduler does it: filter with some of the nodes' names, then prioritize with
//! the names that filter left. Times include the client, which sends a body that is ready and reads the whole
//! answer.

mod cluster;
mod floor;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use stowage_shared::contract::GPU_NODE_HEARTBEAT;
use stowage_stand_ins::api_server::{ApiServer, Options, Store};
use tempfile::TempDir;
use tokio::net::TcpListener;

use self::floor::Floor;
use crate::http::Client;
use crate::program::{Running, built};
use crate::stats::{Runs, Times};

const NODES: usize = 5_000;
/// How many names a request has. kube-scheduler shows 500 of 5,000 nodes unless it is told otherwise.
const NAMES: [usize; 3] = [100, 500, NODES];
/// Pods that wait, and whose requests fit nowhere.
const PENDING: usize = 10_000;
/// Pods that ask for no GPU, in the larger cluster.
const ORDINARY: usize = 130_000;
/// Turns of each server.
const TURNS: usize = 10;
const WARM_UP: usize = 20;
const STARTS: usize = 5;
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How often each node's plugin publishes, on average.
const PUBLISH_EVERY: Duration = Duration::from_secs(GPU_NODE_HEARTBEAT.as_secs() - 50);

/// Measures a cluster of 5,000 nodes.
pub(crate) async fn measure() -> Result<()> {
    println!(
        "scheduler extender, {NODES} nodes of {} GPUs, {} pods placed, one request in flight",
        cluster::GPUS_PER_NODE,
        NODES * cluster::PODS_PER_NODE
    );
    let api = ApiServer::start(Options::default()).await?;
    cluster::fill(api.store(), NODES)?;
    let plugins = tokio::spawn(publish(api.store().clone()));
    // The stand-in writes each object's text when it is first asked for; that must not count as our time.
    drop(Extender::start(&api).await?);
    let mut starts = Starts::default();
    for _ in 0..STARTS {
        starts.push(&Extender::start(&api).await?);
    }
    starts.print();
    let extender = Extender::start(&api).await?;
    extender.process.print_memory("memory once ready")?;

    let floor = floor::start().await?;
    for names in NAMES {
        compare(&extender, &floor, names).await?;
    }
    nothing_fits(&extender).await?;
    requeue(&extender, api.store()).await?;
    extender.process.print_memory("memory after all that")?;
    drop(extender);

    println!("the same with {ORDINARY} pods more that ask for no GPU");
    cluster::add_ordinary_pods(api.store(), NODES, ORDINARY)?;
    drop(Extender::start(&api).await?);
    let extender = Extender::start(&api).await?;
    let mut starts = Starts::default();
    starts.push(&extender);
    starts.print();
    plugins.abort();
    extender.process.print_memory("memory once ready")
}

/// Writes one GpuNode after another again, as the plugins of 5,000 nodes do.
async fn publish(store: Store) {
    let mut ticks = tokio::time::interval(PUBLISH_EVERY / u32::try_from(NODES).unwrap_or(u32::MAX));
    for n in (0..NODES).cycle() {
        ticks.tick().await;
        // A GpuNode that is gone is not written again, and whoever misses it says so.
        let _ = cluster::heartbeat(&store, n);
    }
}

/// What starts took: of the clock, and of a processor, which says more where the machine is busy. The API server stand-in
/// needs one as well meanwhile.
#[derive(Default)]
struct Starts {
    ready_ms: Runs,
    ready_cpu_ms: Runs,
}

impl Starts {
    fn push(&mut self, extender: &Extender) {
        self.ready_ms.push(extender.ready_ms);
        self.ready_cpu_ms.push(extender.ready_cpu_ms);
    }

    fn print(&self) {
        for (what, runs) in
            [("start to ready", &self.ready_ms), ("  of which on a processor", &self.ready_cpu_ms)]
        {
            if let Some((least, median, greatest)) = runs.spread() {
                println!("  {what:<58} median {median:.0} ms   ({least:.0} to {greatest:.0})");
            }
        }
    }
}

/// Cycles of both servers in turn.
async fn compare(extender: &Extender, floor: &Floor, names: usize) -> Result<()> {
    let filter = arguments(cluster::SHARE, 1, &(0..names).map(cluster::node_name).collect::<Vec<_>>());
    let mut ours = Side::new(extender.verbs, Some(&extender.process), &filter).await?;
    let mut theirs = Side::new(floor.address, floor.process.as_ref(), &filter).await?;
    // Enough for a 99th percentile, and not minutes of a slow baseline.
    let cycles = (50_000 / names).clamp(50, 200);
    for side in [&mut ours, &mut theirs] {
        side.turn(&filter, WARM_UP).await?;
        side.forget();
    }
    for _ in 0..TURNS {
        ours.turn(&filter, cycles).await?;
        theirs.turn(&filter, cycles).await?;
    }
    ours.print(&format!("filter + prioritize, {names} names"));
    theirs.print(&format!("  {}", floor.name));
    Ok(())
}

/// One of the two servers, and what it took so far.
struct Side<'a> {
    client: Client,
    process: Option<&'a Running>,
    prioritize: Bytes,
    times: Times,
    cpu: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Filtered {
    node_names: Vec<String>,
}

impl<'a> Side<'a> {
    async fn new(address: SocketAddr, process: Option<&'a Running>, filter: &Bytes) -> Result<Self> {
        let mut client = Client::connect(address).await?;
        let answer = client.ask("POST", "/filter", filter.clone()).await?;
        let left: Filtered = serde_json::from_slice(&answer).context("filter's answer")?;
        ensure!(!left.node_names.is_empty(), "{}", String::from_utf8_lossy(&answer[..answer.len().min(400)]));
        let prioritize = arguments(cluster::SHARE, 1, &left.node_names);
        Ok(Self { client, process, prioritize, times: Times::default(), cpu: Duration::ZERO })
    }

    async fn turn(&mut self, filter: &Bytes, cycles: usize) -> Result<()> {
        let cpu = self.process.map(Running::cpu_time).transpose()?;
        for _ in 0..cycles {
            let start = Instant::now();
            self.client.ask("POST", "/filter", filter.clone()).await?;
            self.client.ask("POST", "/prioritize", self.prioritize.clone()).await?;
            self.times.push(start.elapsed());
        }
        if let (Some(process), Some(before)) = (self.process, cpu) {
            self.cpu += process.cpu_time()?.saturating_sub(before);
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.times = Times::default();
        self.cpu = Duration::ZERO;
    }

    fn print(self, what: &str) {
        let cycles = self.times.len();
        self.times.print(what);
        if self.process.is_some() && cycles > 0 {
            let cpu = self.cpu.as_secs_f64() * 1e3 / cycles as f64;
            println!("  {:<58} CPU {cpu:>8.3} ms a cycle", "");
        }
    }
}

/// A pod that fits none of all nodes.
async fn nothing_fits(extender: &Extender) -> Result<()> {
    let body = arguments(cluster::WHOLE, 3, &(0..NODES).map(cluster::node_name).collect::<Vec<_>>());
    let mut client = Client::connect(extender.verbs).await?;
    let mut times = Times::default();
    for round in 0..WARM_UP + 500 {
        let start = Instant::now();
        let answer = client.ask("POST", "/filter", body.clone()).await?;
        ensure!(answer.starts_with(br#"{"Nodes":null,"NodeNames":[],"#), "something fits");
        if round >= WARM_UP {
            times.push(start.elapsed());
        }
    }
    times.print(&format!("filter, nothing fits, {NODES} names"));
    Ok(())
}

/// Every waiting pod is tried again, as kube-scheduler does on any event of the cluster, with such events coming.
async fn requeue(extender: &Extender, store: &Store) -> Result<()> {
    cluster::add_pending_pods(store, PENDING)?;
    let body = arguments(cluster::WHOLE, 3, &(0..500).map(cluster::node_name).collect::<Vec<_>>());
    let mut client = Client::connect(extender.verbs).await?;
    let (mut first, mut last) = (Times::default(), Times::default());
    let mut memory = Vec::new();
    for round in 0..2 {
        for pod in 0..PENDING {
            if pod % 100 == 0 {
                cluster::heartbeat(store, (round * PENDING + pod) / 100 % NODES)?;
            }
            let start = Instant::now();
            client.ask("POST", "/filter", body.clone()).await?;
            let times = if round == 0 { &mut first } else { &mut last };
            times.push(start.elapsed());
        }
        memory.push(extender.process.memory_mib()?.0);
    }
    first.print(&format!("filter, 500 names, {PENDING} waiting pods tried in turn"));
    last.print("  the same once more");
    println!("  {:<58} {:.1} MiB, then {:.1} MiB", "  memory after each", memory[0], memory[1]);
    Ok(())
}

/// A running extender that is ready.
struct Extender {
    process: Running,
    verbs: SocketAddr,
    ready_ms: f64,
    ready_cpu_ms: f64,
    _folder: TempDir,
}

impl Extender {
    async fn start(api: &ApiServer) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, api.kubeconfig(None))?;
        let (verbs, health) = (free_address().await?, free_address().await?);
        let started = Instant::now();
        let process = Running::start(
            Command::new(built("stowage-scheduler-extender")?)
                .args(["--verb-address", &verbs.to_string(), "--http-address", &health.to_string()])
                .env("KUBECONFIG", &kubeconfig),
        )?;
        wait_ready(health).await?;
        let ready_ms = started.elapsed().as_secs_f64() * 1e3;
        let ready_cpu_ms = process.cpu_time()?.as_secs_f64() * 1e3;
        Ok(Self { process, verbs, ready_ms, ready_cpu_ms, _folder: folder })
    }
}

/// The request that kube-scheduler would send for one pod.
fn arguments(resource: &str, count: usize, names: &[String]) -> Bytes {
    json!({"Pod": cluster::gpu_pod("asks", None, resource, count), "Nodes": null, "NodeNames": names})
        .to_string()
        .into()
}

async fn wait_ready(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let answer = match Client::connect(address).await {
            Ok(mut client) => client.ask("GET", "/readyz", Bytes::new()).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context("the extender is not ready");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?)
}
