//! The node's labels. The golden files are what NVIDIA's gpu-feature-discovery v0.20.0 wrote for the same described
//! nodes and configurations, with `--no-timestamp`, on the same simulated driver.

use std::collections::BTreeMap;
use std::sync::Arc;

use nvml_simulator::description::{Description, GpuDescription};
use serde_json::{Value, json};
use stowage_stand_ins::api_server::resources::{Gvr, NODES, ResourceType};
use stowage_stand_ins::api_server::{ApiError, Fault, Part};

use crate::harness::*;

const NODE_FEATURES: Gvr = Gvr::new("nfd.k8s-sigs.io", "v1alpha1", "nodefeatures");
/// What the golden files' machine calls itself.
const MACHINE: &str = "DGX  A100 \"9\" (x)\n";
const SHARING: &str = "version: v1\nsharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 4}, \
                       {name: nvidia.com/mig-1g.5gb, replicas: 2}]}}\n";

fn labels(of: &Value) -> BTreeMap<String, String> {
    let labels = of.as_object().into_iter().flatten();
    labels
        .filter(|(key, _)| key.starts_with("nvidia.com/"))
        .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}

fn on_node(node: &Node) -> BTreeMap<String, String> {
    labels(&node.api.store().get(&NODES, "", NODE).unwrap()["metadata"]["labels"])
}

fn golden(name: &str) -> BTreeMap<String, String> {
    let path = format!("{}/tests/golden/labels/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let pairs = text.lines().map(|line| line.split_once('=').unwrap());
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Starts the plugin on a node of these GPUs and waits for the golden file's labels.
#[track_caller]
fn check(name: &str, gpus: &str, strategy: &str, file: &str) -> impl Future<Output = ()> {
    let gpus: Vec<GpuDescription> = serde_saphyr::from_str(gpus).unwrap();
    let (name, strategy, file) = (name.to_owned(), strategy.to_owned(), file.to_owned());
    async move {
        let node = Node::new(gpus.clone()).await;
        let (driver, cuda) = if name == "l4" { ("550.107.02", "12.5") } else { ("570.86.15", "12.8") };
        let description = Description {
            driver_version: driver.into(),
            cuda_version: cuda.into(),
            ..Description::new(gpus).named(NODE)
        };
        description.write(&node.path("node.yaml")).unwrap();
        let machine = node.write("machine", MACHINE);
        let file = node.write("config.yaml", &file);
        let plugin = node.start(|command| {
            command.args([
                "--config-file",
                &file,
                "--machine-type-file",
                &machine,
                "--mig-strategy",
                &strategy,
            ]);
            command.arg("--no-timestamp");
        });
        let want = golden(&name);
        eventually("the node is labelled", || async { !on_node(&node).is_empty() }).await;
        assert_eq!(on_node(&node), want, "{name}\n{}", plugin.log());
    }
}

const CUT: &str = "[{model: a100-40gb, migMode: enabled, migInstances: [{profile: 1g.5gb}, {profile: 1g.5gb}, \
                   {profile: 3g.20gb}]}, {model: a100-40gb}]";
const ALIKE: &str =
    "[{model: a100-40gb, count: 2, migMode: enabled, migInstances: [{profile: 1g.5gb}, {profile: 1g.5gb}]}]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_those_that_gpu_feature_discovery_writes() {
    let renamed = SHARING.replace("{timeSlicing: {", "{timeSlicing: {renameByDefault: true, ");
    let whole = "[{model: a100-40gb, count: 2}]";
    for (name, gpus, strategy, file) in [
        ("l4", "[{model: l4, count: 8}]", "none", "version: v1"),
        ("mig-none", CUT, "none", "version: v1"),
        ("mixed", CUT, "mixed", "version: v1"),
        ("mixed-shared", CUT, "mixed", SHARING),
        ("single", ALIKE, "single", "version: v1"),
        ("single-shared", ALIKE, "single", &renamed),
        ("shared", whole, "none", SHARING),
        ("renamed", whole, "none", &renamed),
        ("none", "[]", "none", "version: v1"),
    ] {
        check(name, gpus, strategy, file).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_label_that_is_true_no_more_goes_and_nobody_elses_is_touched() {
    let node = Node::new(serde_saphyr::from_str(CUT).unwrap()).await;
    let own = json!({ "zone": "a", "nvidia.com/gpu.deploy.dcgm": "true" });
    let label = |object: &mut Value| object["metadata"]["labels"] = own;
    node.api.store().modify(&NODES, "", NODE, Part::Main, label).unwrap();
    let plugin = node.ready(&["--mig-strategy=mixed"]).await;
    eventually("it labels slices", || async { on_node(&node).contains_key("nvidia.com/mig.strategy") }).await;
    assert_eq!(on_node(&node)["nvidia.com/mig-1g.5gb.count"], "2");
    assert!(on_node(&node).contains_key("nvidia.com/gfd.timestamp"));
    plugin.terminate().await;
    let _plugin = node.ready(&["--mig-strategy=none"]).await;
    eventually("slices are no more", || async { !on_node(&node).contains_key("nvidia.com/mig.strategy") })
        .await;
    assert!(on_node(&node).keys().all(|key| !key.starts_with("nvidia.com/mig-")), "{:?}", on_node(&node));
    let all = &node.api.store().get(&NODES, "", NODE).unwrap()["metadata"]["labels"].clone();
    assert_eq!((&all["zone"], &all["nvidia.com/gpu.deploy.dcgm"]), (&json!("a"), &json!("true")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_node_feature_api_labels_go_into_the_nodes_node_feature() {
    let node = Node::new(vec![a100()]).await;
    let group =
        ResourceType::custom("nfd.k8s-sigs.io", "v1alpha1", "nodefeatures", "NodeFeature").namespaced();
    node.api.store().install(group);
    let mut plugin = node.ready_with_file("flags: {useNodeFeatureAPI: true}").await;
    plugin.until_said("Node labelled.").await;
    let feature = node.api.store().get(&NODE_FEATURES, "default", "nvidia-features-for-n1").unwrap();
    assert_eq!(feature["metadata"]["labels"]["nfd.node.kubernetes.io/node-name"], NODE);
    assert_eq!(feature["metadata"]["ownerReferences"][0]["kind"], "Node");
    assert_eq!(feature["spec"]["features"], json!({"flags": {}, "attributes": {}, "instances": {}}));
    assert_eq!(feature["spec"]["labels"]["nvidia.com/gpu.product"], "NVIDIA-A100-SXM4-40GB");
    assert!(on_node(&node).is_empty(), "the Node is node-feature-discovery's to label");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_node_feature_discovery_it_says_what_to_do() {
    let node = Node::new(vec![a100()]).await;
    let mut plugin = node.ready(&["--use-node-feature-api"]).await;
    let log = plugin.until_said("The node cannot be labelled").await;
    assert!(log.contains("install node-feature-discovery, or leave useNodeFeatureAPI out"), "{log}");
    plugin.until_counted(r#"stowage_device_plugin_label_writes_total{result="failed"} 1"#).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_to_label_pods_are_served_and_it_says_once_what_to_apply() {
    let node = Node::new(vec![a100()]).await;
    node.api.set_fault(Some(Arc::new(|asked| {
        let patches_node = asked.verb == "patch" && asked.resource == "nodes";
        patches_node.then(|| Fault::Refuse(ApiError::new(403, "Forbidden", "cannot patch nodes")))
    })));
    let mut plugin = node.ready(&[]).await;
    let log = plugin.until_said("The node cannot be labelled").await;
    assert!(log.contains("cannot patch nodes (HTTP 403)"), "{log}");
    assert!(log.contains("apply deploy/manifests/device-plugin-rbac.yaml"), "{log}");
    assert_eq!(node.visible_in("p", GPU, 1).await.len(), 1);
    plugin.until_counted(r#"stowage_device_plugin_label_writes_total{result="forbidden"} 2"#).await;
    assert_eq!(plugin.log().matches("The node cannot be labelled").count(), 1);
    node.api.set_fault(None);
    plugin.until_said("Node labelled.").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switched_off_it_labels_nothing() {
    let node = Node::new(vec![a100()]).await;
    let _plugin = node.ready(&["--label-node=false"]).await;
    node.visible_in("p", GPU, 1).await;
    eventually("the pod is known", || async { node.gpu_node().await.allocations.len() == 1 }).await;
    assert!(node.api.audit().iter().all(|record| {
        let asked = &record.attributes;
        !(asked.resource == "nodes" && asked.verb == "patch")
    }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switched_off_it_takes_away_the_labels_that_it_had_written_and_no_others() {
    let node = Node::new(vec![a100()]).await;
    let own = json!({ "zone": "a", "nvidia.com/gpu.deploy.dcgm": "true" });
    let label = |object: &mut Value| object["metadata"]["labels"] = own;
    node.api.store().modify(&NODES, "", NODE, Part::Main, label).unwrap();
    let mut plugin = node.ready(&[]).await;
    plugin.until_said("Node labelled.").await;
    assert!(on_node(&node).contains_key("nvidia.com/gpu.product"));
    plugin.terminate().await;
    let mut plugin = node.ready(&["--label-node=false"]).await;
    plugin.until_said("The Node's labels that were ours are gone.").await;
    let left = node.api.store().get(&NODES, "", NODE).unwrap()["metadata"]["labels"].clone();
    assert_eq!(left, json!({ "zone": "a", "nvidia.com/gpu.deploy.dcgm": "true" }));
}

/// Others that use NVML at the same time are not held up either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_gpu_hangs_the_labels_stay_and_its_neighbours_are_handed_out() {
    let node = Node::new(vec![a100().times(2)]).await;
    let mut plugin =
        node.ready(&["--sleep-interval=1s", "--nvml-period=200ms", "--nvml-call-limit=300ms"]).await;
    plugin.until_said("Node labelled.").await;
    let before = on_node(&node);
    node.driver(|driver| driver.set_hanging(1, true));
    let log = plugin.until_said("The node cannot be labelled.").await;
    assert!(log.contains("an NVML call about the node's labels has not returned"), "{log}");
    node.until_allocatable(GPU, 1).await;
    assert_eq!(node.visible_in("p", GPU, 1).await.len(), 1);
    assert_eq!(on_node(&node), before);
    node.driver(|driver| driver.set_hanging(1, false));
    node.until_allocatable(GPU, 2).await;
}
