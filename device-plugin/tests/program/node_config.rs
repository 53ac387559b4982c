//! A configuration for each node, chosen by the Node's label, while the program runs.

use serde_json::Value;
use stowage_stand_ins::api_server::Part;
use stowage_stand_ins::api_server::resources::NODES;

use crate::harness::*;

const REFUSED: &str = "stowage_device_plugin_config_refused";

/// Four shares of each GPU.
fn shares(count: u32) -> String {
    format!("sharing: {{timeSlicing: {{resources: [{{name: nvidia.com/gpu, replicas: {count}}}]}}}}")
}

fn label(node: &Node, value: &str) {
    let set =
        |object: &mut Value| object["metadata"]["labels"]["nvidia.com/device-plugin.config"] = value.into();
    node.api.store().modify(&NODES, "", NODE, Part::Main, set).unwrap();
}

/// Two GPUs, and the configurations `default` and `four`.
async fn node() -> Node {
    let node = Node::new(vec![a100().times(2)]).await;
    node.write("configs/default", "version: v1");
    node.write("configs/four", &shares(4));
    node
}

fn start(node: &Node) -> Plugin {
    node.start(|command| _ = command.env("CONFIG_FILE_SRCDIR", node.path("configs")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_label_chooses_and_another_label_is_followed() {
    let node = node().await;
    label(&node, "four");
    let mut plugin = start(&node);
    node.until_allocatable(GPU, 8).await;
    node.visible_in("p", GPU, 1).await;
    label(&node, "default");
    // The pod keeps its share, so that nobody can have that GPU whole.
    node.until_allocatable(GPU, 1).await;
    plugin.until_said("configs/default").await;
    eventually("the pod keeps its GPU", || async { node.gpu_node().await.allocations.len() == 1 }).await;
    label(&node, "four");
    node.until_allocatable(GPU, 8).await;
    label(&node, "default");
    node.until_allocatable(GPU, 1).await;
    node.remove_pod("p");
    node.until_allocatable(GPU, 2).await;
    assert_eq!(plugin.terminate().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_followed() {
    let node = node().await;
    label(&node, "four");
    let _plugin = start(&node);
    node.until_allocatable(GPU, 8).await;
    node.write("configs/four", &shares(3));
    node.until_allocatable(GPU, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_used_leaves_the_last_good_one_and_says_so() {
    let node = node().await;
    node.write("configs/typo", "flags: {migStrtegy: none}");
    node.write("configs/word", "flags: {plugin: {passDeviceSpecs: maybe}}");
    let mut plugin = start(&node);
    node.until_allocatable(GPU, 2).await;
    for (name, want) in [
        ("typo", r#"flags.migStrtegy is "none""#),
        (
            "nowhere",
            r#"names the configuration "nowhere": there is none of that name, only default, four, typo, word"#,
        ),
        ("word", "use true or false"),
    ] {
        label(&node, name);
        let log = plugin.until_said(want).await;
        assert!(log.contains("The configuration is not used"), "{log}");
        plugin.until_counted(&format!("{REFUSED} 1")).await;
        assert_eq!(plugin.get("/readyz").await.0, 200, "{name}");
    }
    assert_eq!(node.allocatable()[GPU], 2);
    label(&node, "default");
    plugin.until_counted(&format!("{REFUSED} 0")).await;
    assert_eq!(plugin.log().matches("This is the node's configuration").count(), 1, "it went on serving");
}

/// Whether slices of one profile are there is seen only once the GPUs are read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_this_node_cannot_have_gives_way_to_the_last_good_one() {
    let node = Node::new(vec![a100(), a100().with_mig(&["1g.5gb"])]).await;
    node.write("configs/default", "flags: {migStrategy: mixed}");
    node.write("configs/single", "flags: {migStrategy: single}");
    let mut plugin = start(&node);
    node.until_allocatable(SLICE, 1).await;
    label(&node, "single");
    plugin.until_said("migStrategy is single, which wants").await;
    plugin.until_said("The configuration is not used").await;
    node.until_allocatable(SLICE, 1).await;
    label(&node, "default");
    eventually("it is settled", || async { node.allocatable().get(GPU) == Some(&1) }).await;
    assert_eq!(plugin.terminate().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_first_configuration_that_cannot_be_used_it_does_not_start() {
    let node = node().await;
    label(&node, "nowhere");
    let (code, log) = start(&node).ended().await;
    assert_eq!(code, Some(78), "{log}");
    assert!(
        log.contains(r#"the label nvidia.com/device-plugin.config names the configuration "nowhere""#),
        "{log}"
    );
}
