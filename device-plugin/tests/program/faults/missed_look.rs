//! A GPU that does not answer just when it is looked at, with a slice on it that was built since the look before.

use super::*;
use crate::on_demand::{instances, node_of};

const ALL: &str = "nvidia.com/mig-7g.40gb";

/// The second GPU is there for its XIDs: in this test the GPUs are looked at when one comes, and at no other time.
async fn node_with_a_new_slice() -> (Node, Plugin) {
    let node = node_of(vec![a100().with_mig(&[]), a100()]).await;
    let flags = ["--mig-strategy=on-demand", "--nvml-period=1h", "--nvml-call-limit=500ms"];
    let plugin = node.ready(&flags).await;
    node.until_allocatable(SLICE, 7).await;
    node.visible_in("p", SLICE, 1).await;
    assert_eq!(instances(&node).len(), 1);
    (node, plugin)
}

fn have_it_looked_at(node: &Node) {
    node.driver(|driver| driver.raise_xid(1, 13, None));
}

/// What was known of the GPU then was older than the slice, which so was taken for gone, and for somebody else's when the
/// GPU answered again.
async fn the_slice_is_still_ours(node: &Node, plugin: &Plugin) {
    until_healthy(node, 0).await;
    assert!(!plugin.log().contains("MIG instances of Stowage's are gone"), "{}", plugin.log());
    assert_eq!(node.gpu_node().await.gpus[0].foreign_instances, []);
    node.remove_pod("p");
    node.until_allocatable(ALL, 1).await;
    node.visible_in("q", ALL, 1).await;
    assert_eq!(instances(node).len(), 1, "it makes room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_is_lost_for_a_moment_keeps_its_slices() {
    let (node, plugin) = node_with_a_new_slice().await;
    node.driver(|driver| driver.set_lost(0, true));
    have_it_looked_at(&node);
    until_unhealthy(&node, 0, "it cannot be reached").await;
    node.driver(|driver| driver.set_lost(0, false));
    have_it_looked_at(&node);
    the_slice_is_still_ours(&node, &plugin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_hangs_for_a_moment_keeps_its_slices() {
    let (node, plugin) = node_with_a_new_slice().await;
    node.driver(|driver| driver.set_hanging(0, true));
    have_it_looked_at(&node);
    until_unhealthy(&node, 0, "an NVML call about GPU 0 has not returned within").await;
    // The call that hung returns, and whoever waited for that looks again.
    node.driver(|driver| driver.set_hanging(0, false));
    the_slice_is_still_ours(&node, &plugin).await;
}
