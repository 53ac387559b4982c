//! The command line says what the extender says: both are asked about the same clusters, made at random.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use stowage_scheduler_extender::clock::Now;
use stowage_scheduler_extender::state::event::{Change, Event};
use stowage_scheduler_extender::state::{Store, event};
use stowage_scheduler_extender::verbs::Verbs;
use stowage_shared::pod::{PodSpec, PodStatus};
use stowage_shared::resource::ResourceName;

use super::*;
use crate::objects::GpuNode;

const NOW: &str = "2026-11-24T10:15:00Z";

/// A node: what its GPUs are, how old its GpuNode is in seconds, whether it is ready, what it keeps for large pods.
#[derive(Debug, Clone)]
struct Recipe {
    gpus: Vec<usize>,
    age: i64,
    ready: bool,
    earlier: bool,
    keeps: &'static str,
}

/// A pod: what it asks for, how many, and the node that it is bound to; its namespace, and what it wants.
#[derive(Debug, Clone)]
struct Ask {
    resource: &'static str,
    count: u32,
    node: Option<usize>,
    namespace: &'static str,
    policy: (&'static str, &'static str),
    cpu: u32,
}

const NAMESPACES: [&str; 2] = ["d", "e"];
const POLICIES: [(&str, &str); 10] = [
    ("example.com/other", ""),
    ("example.com/other", ""),
    ("example.com/other", ""),
    ("stowage.dev/placement", "spread"),
    ("stowage.dev/placement", "anywhere"),
    ("stowage.dev/gpu-model", "N*"),
    ("stowage.dev/gpu-memory-min", "41Gi"),
    ("stowage.dev/distinct-gpus", "true"),
    ("stowage.dev/share-with", "namespace"),
    ("stowage.dev/share-with", "namespace"),
];

const RESOURCES: [&str; 3] = ["nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-3g.20gb"];

fn gpu(node: usize, index: usize, kind: usize) -> Value {
    let uuid = format!("GPU-{node}-{index}");
    let slice = |start: u8| {
        json!({ "resource": RESOURCES[2], "uuid": format!("MIG-{node}-{index}-{start}"),
                "slice": { "profile": "3g.20gb", "start": start, "size": 4 } })
    };
    let offers = match kind {
        0 => json!([{ "resource": RESOURCES[0], "uuid": uuid }]),
        1 => json!([{ "resource": RESOURCES[1], "uuid": uuid, "replicas": 3 }]),
        2 => json!([slice(0), slice(4)]),
        _ => {
            json!([{ "resource": RESOURCES[0], "uuid": uuid }, { "resource": RESOURCES[1], "uuid": uuid, "replicas": 3 }])
        }
    };
    let model = ["M", "M", "N", "N"][kind];
    json!({ "uuid": uuid, "index": index, "model": model, "memoryMib": 40960, "offers": offers })
}

fn objects(recipes: &[Recipe], asks: &[Ask]) -> Objects {
    let now: Timestamp = NOW.parse().unwrap();
    let node = |(n, recipe): (usize, &Recipe)| {
        serde_json::from_value(json!({
            "metadata": { "name": format!("node-{n}"), "uid": format!("n{n}"), "labels": { RESERVE_LABEL: recipe.keeps } },
            "status": {
                "conditions": [{ "type": "Ready", "status": if recipe.ready { "True" } else { "False" } }],
                "allocatable": if recipe.gpus.is_empty() { json!({ "pods": "110" }) } else {
                    json!({ "pods": "110", "cpu": "16", "memory": "64Gi", RESOURCES[0]: "64", RESOURCES[1]: "64", RESOURCES[2]: "64" }) } },
        }))
        .unwrap()
    };
    let gpu_node = |(n, recipe): (usize, &Recipe)| {
        let at = now - jiff::SignedDuration::from_secs(recipe.age);
        let gpus = recipe.gpus.iter().enumerate().map(|(i, kind)| gpu(n, i, *kind)).collect::<Vec<_>>();
        let uid = if recipe.earlier { "earlier".to_owned() } else { format!("n{n}") };
        let status = json!({ "observedAt": at.to_string(), "nodeUid": uid, "gpus": gpus });
        GpuNode {
            name: format!("node-{n}"),
            status: serde_json::from_value(status).map_err(|error: serde_json::Error| error.to_string()),
        }
    };
    let pod = |(p, ask): (usize, &Ask)| {
        let Ask { resource, count, node, namespace, policy: (key, value), cpu } = ask;
        let node = node.map(|n| format!("node-{}", n % recipes.len()));
        serde_json::from_value(json!({
            "metadata": { "name": format!("pod-{p}"), "namespace": namespace, "uid": format!("p{p}"),
                "annotations": { *key: value } },
            "spec": { "schedulerName": "stowage-scheduler", "nodeName": node,
                "containers": [{ "name": "c", "resources": { "limits": { "cpu": cpu.to_string(), *resource: count.to_string() } } }] },
            "status": { "phase": "Pending" },
        }))
        .unwrap()
    };
    Objects {
        now,
        nodes: recipes.iter().enumerate().map(node).collect(),
        gpu_nodes: recipes.iter().enumerate().filter(|(_, r)| !r.gpus.is_empty()).map(gpu_node).collect(),
        pods: asks.iter().enumerate().map(pod).collect(),
    }
}

/// The extender's filter and its best node for a pod, over the same objects.
fn extender(objects: &Objects, pod: &PodFacts) -> (BTreeMap<String, String>, Option<String>) {
    let now = Now { monotonic: Instant::now() + Duration::from_secs(3_600), wall: objects.now };
    let store = Arc::new(Store::default());
    let told = store.change(|state| {
        state.apply(Event::Node(Change::ListBegins), now);
        for node in &objects.nodes {
            let status = node.status.clone().unwrap_or_default();
            let count =
                |(name, quantity): (String, k8s_openapi::apimachinery::pkg::api::resource::Quantity)| {
                    Some((name.parse::<ResourceName>().ok()?, quantity.0.parse().ok()?))
                };
            let amounts = Amounts::of(status.allocatable.as_ref());
            let seen = event::Node {
                host: amounts.host(),
                name: node.metadata.name.clone().unwrap(),
                uid: node.metadata.uid.clone().unwrap(),
                ready: status.conditions.unwrap()[0].status == "True",
                allocatable: status.allocatable.unwrap().into_iter().filter_map(count).collect(),
                reserve: reserve(node),
            };
            state.apply(Event::Node(Change::Listed(seen)), now);
        }
        state.apply(Event::Node(Change::ListEnds), now);
        state.apply(Event::GpuNode(Change::ListBegins), now);
        for GpuNode { name, status } in &objects.gpu_nodes {
            let seen = event::GpuNode { name: name.clone(), status: status.clone() };
            state.apply(Event::GpuNode(Change::Listed(seen)), now);
        }
        state.apply(Event::GpuNode(Change::ListEnds), now);
        state.apply(Event::Pod(Change::ListBegins), now);
        for pod in &objects.pods {
            let id = event::PodId {
                uid: pod.metadata.uid.clone().unwrap(),
                namespace: pod.metadata.namespace.clone().unwrap(),
                name: pod.metadata.name.clone().unwrap(),
            };
            let spec: PodSpec = serde_json::from_value(serde_json::to_value(&pod.spec).unwrap()).unwrap();
            let annotations = pod.metadata.annotations.clone().unwrap().into_iter().collect();
            let seen = event::Pod::of(
                id,
                false,
                annotations,
                spec,
                &PodStatus { phase: "Pending".into(), ..PodStatus::default() },
            );
            state.apply(Event::Pod(Change::Listed(seen)), now);
        }
        state.apply(Event::Pod(Change::ListEnds), now);
    });
    told.unwrap();
    let verbs = Verbs::new(store);
    let ask = |names: &[String]| json!({ "Pod": pod.object, "NodeNames": names }).to_string().into_bytes();
    let names: Vec<String> = objects.nodes.iter().map(|node| node.metadata.name.clone().unwrap()).collect();
    let answer: Value = serde_json::from_slice(&verbs.filter(&ask(&names), now.monotonic).body).unwrap();
    let reasons = |key: &str| -> BTreeMap<String, String> {
        serde_json::from_value(answer[key].clone()).unwrap_or_default()
    };
    let mut all = reasons("FailedNodes");
    all.append(&mut reasons("FailedAndUnresolvableNodes"));
    let fitting: Vec<String> = serde_json::from_value(answer["NodeNames"].clone()).unwrap_or_default();
    let scores: Value =
        serde_json::from_slice(&verbs.prioritize(&ask(&fitting), now.monotonic).body).unwrap();
    let best = scores.as_array().unwrap().iter().find(|score| score["Score"] == 10);
    (all, best.map(|score| score["Host"].as_str().unwrap().to_owned()))
}

prop_compose! {
    fn ask()(
        resource in prop::sample::select(RESOURCES.to_vec()),
        count in 1_u32..4,
        namespace in prop::sample::select(NAMESPACES.to_vec()),
        policy in prop::sample::select(POLICIES.to_vec()),
        cpu in 0_u32..8,
    ) -> Ask {
        Ask { resource, count, node: None, namespace, policy, cpu }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn what_is_said_of_each_node_is_what_the_extender_says(
        recipes in prop::collection::vec(
            (prop::collection::vec(0_usize..4, 0..4), prop::sample::select(vec![10_i64, 10, 10, 599, 601]), prop::bool::weighted(0.9), prop::bool::weighted(0.1), prop::sample::select(vec!["0", "0", "0", "1", "2", "x"]))
                .prop_map(|(gpus, age, ready, earlier, keeps)| Recipe { gpus, age, ready, earlier, keeps }), 1..6),
        asks in prop::collection::vec(
            (ask(), prop::option::of(0_usize..6)).prop_map(|(ask, node)| Ask { node, ..ask }), 0..10),
        waiting in ask(),
    ) {
        let mut asks = asks;
        let namespace = waiting.namespace;
        asks.push(waiting);
        let objects = objects(&recipes, &asks);
        let world = World::of(&objects, &Schedulers::default());
        let pod = world.pod(namespace, &format!("pod-{}", asks.len() - 1)).unwrap();
        // kube-scheduler's own counts, which the extender never sees, are left out of the comparison.
        let mut unlimited = world.clone();
        for node in &mut unlimited.nodes {
            node.facts.free = Amounts::of(Some(&RESOURCES.iter().chain(["pods", "cpu"].iter()).map(|name| {
                ((*name).to_owned(), k8s_openapi::apimachinery::pkg::api::resource::Quantity("1000".into()))
            }).collect()));
        }
        let verdicts = unlimited.judge(pod);
        let (said, best) = extender(&objects, pod);
        let ours: BTreeMap<String, String> = unlimited.nodes.iter().zip(&verdicts).filter_map(|(node, verdict)| match verdict {
            Verdict::Not(not) => Some((node.name().to_owned(), not.text.clone())),
            Verdict::Fits(_) => None,
        }).collect();
        prop_assert_eq!(ours, said);
        prop_assert_eq!(World::best(&verdicts).map(|at| unlimited.nodes[at].name().to_owned()), best);
    }
}
