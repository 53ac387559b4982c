//! filter + prioritize of the real extender over HTTP, its snapshot fed by the API server stand-in.
//!
//! Each node has eight GPUs in four shares each; four of them carry a share. The baseline parses the same
//! request and echoes all names, as an extender that knows nothing would.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use stowage_stand_ins::api_server::resources::{GPU_NODES, NODES, PODS};
use stowage_stand_ins::api_server::{ApiServer, Gvr, Object, Options, Part, Store};
use tokio::net::TcpListener;

use crate::http::Client;
use crate::program::{Running, built};
use crate::stats::Times;

const ROUNDS: usize = 300;
const WARM_UP: usize = 20;
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Measures one cluster size.
pub(crate) async fn measure(nodes: usize) -> Result<()> {
    println!("scheduler extender, {nodes} nodes of 8 GPUs, {} pods placed", nodes * 4);
    let server = ApiServer::start(Options::default()).await?;
    fill(server.store(), nodes)?;
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, server.kubeconfig(None))?;
    let (verbs, health) = (free_address().await?, free_address().await?);
    let started = Instant::now();
    let program = Running::start(
        Command::new(built("stowage-scheduler-extender")?)
            .args(["--verb-address", &verbs.to_string(), "--http-address", &health.to_string()])
            .env("KUBECONFIG", &kubeconfig),
    )?;
    wait_ready(health).await?;
    println!("  {:<58} {:.0} ms", "start to ready", started.elapsed().as_secs_f64() * 1e3);

    let args = arguments(nodes);
    let ours = cycle(verbs, &args, "/filter", "/prioritize").await?;
    let floor = cycle(echo().await?, &args, "/filter", "/prioritize").await?;
    ours.print("filter + prioritize, one request in flight");
    floor.print("the same of a server that echoes (baseline)");
    program.print_memory("memory")
}

async fn cycle(address: SocketAddr, args: &Bytes, filter: &str, prioritize: &str) -> Result<Times> {
    let mut client = Client::connect(address).await?;
    let mut times = Times::default();
    for round in 0..WARM_UP + ROUNDS {
        let start = Instant::now();
        let filtered = client.ask("POST", filter, args.clone()).await?;
        let scored = client.ask("POST", prioritize, args.clone()).await?;
        if round >= WARM_UP {
            times.push(start.elapsed());
        }
        ensure!(filtered.len() > 100 && scored.len() > 100, "{}", String::from_utf8_lossy(&filtered));
    }
    Ok(times)
}

/// The request kube-scheduler would send for one pod that asks for a share.
fn arguments(nodes: usize) -> Bytes {
    let names: Vec<String> = (0..nodes).map(node_name).collect();
    json!({"Pod": pod("asks", None), "Nodes": null, "NodeNames": names}).to_string().into()
}

fn node_name(number: usize) -> String {
    format!("gpu-node-{number:05}")
}

fn pod(name: &str, node: Option<&str>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-of-{name}")},
        "spec": {
            "schedulerName": "stowage-scheduler",
            "nodeName": node,
            "containers": [{
                "name": "main",
                "image": "model-server:1",
                "resources": {"limits": {"nvidia.com/gpu.shared": "1", "cpu": "1", "memory": "2Gi"}},
            }],
        },
        "status": {"phase": if node.is_some() { "Running" } else { "Pending" }},
    })
}

fn fill(store: &Store, nodes: usize) -> Result<()> {
    let now = jiff::Timestamp::now().to_string();
    for number in 0..nodes {
        let name = node_name(number);
        let uuid = |gpu: usize| format!("GPU-{number:08x}-0000-0000-0000-{gpu:012x}");
        let gpus: Vec<Value> = (0..8)
            .map(|gpu| {
                let offers = json!([{"resource": "nvidia.com/gpu.shared", "uuid": uuid(gpu), "replicas": 4}]);
                json!({"uuid": uuid(gpu), "index": gpu, "model": "NVIDIA L4", "memoryMib": 23034, "offers": offers})
            })
            .collect();
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name},
            "status": {
                "allocatable": {"nvidia.com/gpu.shared": "32", "cpu": "64", "memory": "512Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        let node = create(store, &NODES, "", node)?;
        let mut allocations = Vec::new();
        for slot in 0..4 {
            let pod_name = format!("placed-{number}-{slot}");
            let created = create(store, &PODS, "default", pod(&pod_name, Some(&name)))?;
            allocations.push(json!({
                "namespace": "default",
                "pod": pod_name,
                "uid": created.uid(),
                "container": "main",
                "resource": "nvidia.com/gpu.shared",
                "deviceIds": [format!("{}::0", uuid(slot))],
            }));
        }
        let status =
            json!({"observedAt": now, "nodeUid": node.uid(), "gpus": gpus, "allocations": allocations});
        let gpu_node = json!({
            "apiVersion": "stowage.dev/v1alpha1",
            "kind": "GpuNode",
            "metadata": {"name": name},
            "spec": {},
            "status": status,
        });
        create(store, &GPU_NODES, "", gpu_node)?;
    }
    Ok(())
}

/// Creates an object and then writes its status, as its owner would.
fn create(store: &Store, resource: &Gvr, namespace: &str, object: Value) -> Result<Arc<Object>> {
    let status = object["status"].clone();
    let created = store.create(resource, namespace, object)?;
    let change = |object: &mut Value| object["status"] = status;
    Ok(store.modify(resource, namespace, created.name(), Part::Status, change)?)
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

#[derive(Deserialize)]
struct Names<'a> {
    #[serde(rename = "NodeNames", borrow)]
    names: Vec<&'a str>,
}

/// A server that parses the names and gives all of them back.
async fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::server::conn::http1::Builder::new();
            tokio::spawn(service.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    Ok(address)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let scores = request.uri().path() == "/prioritize";
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let names = serde_json::from_slice::<Names<'_>>(&body).map(|args| args.names).unwrap_or_default();
    let answer = if scores {
        let score = |name: &&str| json!({"Host": name, "Score": 0});
        names.iter().map(score).collect::<Value>()
    } else {
        json!({"Nodes": null, "NodeNames": names, "FailedNodes": {}, "FailedAndUnresolvableNodes": {}, "Error": ""})
    };
    Ok(Response::new(Full::new(answer.to_string().into())))
}
