//! NVML calls that do not return.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_hangs_is_named_and_everything_else_goes_on() {
    let node = Node::new(vec![a100().times(3)]).await;
    let mut plugin = node.ready(&[FAST, "--nvml-call-limit=500ms"]).await;
    node.driver(|driver| driver.set_hanging(1, true));
    node.until_allocatable(GPU, 2).await;
    until_unhealthy(&node, 1, "an NVML call about GPU 1 has not returned within").await;
    node.until_event("GpuUnhealthy", "an NVML call about GPU 1 has not returned").await;
    plugin.until_said("error=\"an NVML call about GPU 1 has not returned").await;
    plugin
        .until_counted(r#"stowage_device_plugin_gpu_failures_total{gpu="1",scope="gpu",cause="hangs"} 1"#)
        .await;
    assert_eq!(node.visible_in("p", GPU, 1).await.len(), 1);
    // Other GPUs are still looked at.
    node.driver(|driver| driver.set_lost(0, true));
    until_unhealthy(&node, 0, "it cannot be reached").await;
    node.driver(|driver| driver.set_lost(0, false));
    node.driver(|driver| driver.set_hanging(1, false));
    node.until_allocatable(GPU, 3).await;
    until_healthy(&node, 1).await;
    node.until_event("GpuHealthy", "GPU 1").await;
    plugin.until_ready().await;
}
