//! GPUs that fall off the bus.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_is_lost_stays_listed_and_the_others_are_handed_out() {
    let node = Node::new(vec![a100().times(3)]).await;
    let mut plugin = node.ready(&[FAST]).await;
    let gpus = node.gpus().await;
    node.driver(|driver| driver.set_lost(1, true));
    node.until_allocatable(GPU, 2).await;
    assert_eq!(node.kubelet.allocatable()[GPU].capacity, 3);
    until_unhealthy(&node, 1, "it cannot be reached").await;
    node.until_event("GpuUnhealthy", "is unhealthy: it cannot be reached").await;
    plugin.until_said("error=\"it cannot be reached").await;
    plugin
        .until_counted(r#"stowage_device_plugin_gpu_failures_total{gpu="1",scope="gpu",cause="lost"} 1"#)
        .await;
    let mut got = node.visible_in("p", GPU, 2).await;
    got.sort();
    let mut others = [gpus[0].clone(), gpus[2].clone()];
    others.sort();
    assert_eq!(got, others);
    node.driver(|driver| driver.set_lost(1, false));
    node.until_allocatable(GPU, 3).await;
    until_healthy(&node, 1).await;
    node.until_event("GpuHealthy", "is healthy again").await;
    plugin.until_ready().await;
}

/// While it is lost it does not even tell its UUID, so at the start there is nothing to list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_was_lost_at_the_start_is_offered_when_it_is_back() {
    let node = Node::new(vec![a100(), a100().lost()]).await;
    let mut plugin = node.ready(&[FAST]).await;
    node.until_allocatable(GPU, 1).await;
    plugin.until_said("GPU 1 cannot be read, and is not offered: ").await;
    node.driver(|driver| driver.set_lost(1, false));
    node.until_allocatable(GPU, 2).await;
    eventually("the GpuNode tells", || async { node.gpu_node().await.gpus.len() == 2 }).await;
    // Its XIDs are heard as well.
    node.driver(|driver| driver.raise_xid(1, 48, None));
    node.until_allocatable(GPU, 1).await;
}
