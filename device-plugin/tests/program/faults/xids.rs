//! XIDs, by what NVIDIA says of them: an application's own, contained in an instance, and fatal.

use super::*;

const TWO_SHARES: &str =
    "sharing: {timeSlicing: {renameByDefault: true, resources: [{name: nvidia.com/gpu, replicas: 2}]}}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xid_79_takes_every_share_of_its_gpu_until_it_was_away_and_is_back() {
    let node = Node::new(vec![a100().times(2)]).await;
    let file = node.write("config.yaml", TWO_SHARES);
    let mut plugin = node.ready(&[FAST, "--config-file", &file]).await;
    node.until_allocatable(SHARED, 4).await;
    node.driver(|driver| driver.raise_xid(1, 79, None));
    node.until_allocatable(SHARED, 2).await;
    until_unhealthy(&node, 1, "XID 79: the GPU has fallen off the bus; its node needs a reboot").await;
    node.until_event("GpuUnhealthy", "is unhealthy: XID 79: the GPU has fallen off the bus").await;
    plugin.until_counted(r#"stowage_device_plugin_xids_total{gpu="1",xid="79",class="fatal"} 1"#).await;
    plugin
        .until_counted(r#"stowage_device_plugin_gpu_failures_total{gpu="1",scope="gpu",cause="xid"} 1"#)
        .await;
    plugin.until_counted(r#"stowage_device_plugin_gpu_healthy{gpu="1"} 0"#).await;
    plugin.until_ready().await;
    node.driver(|driver| driver.set_lost(1, true));
    until_unhealthy(&node, 1, "it cannot be reached").await;
    node.driver(|driver| driver.reset_gpu(1));
    node.until_allocatable(SHARED, 4).await;
    until_healthy(&node, 1).await;
    node.until_event("GpuHealthy", "is healthy again").await;
    plugin.until_counted(r#"stowage_device_plugin_gpu_healthy{gpu="1"} 1"#).await;
    // It is listened to anew.
    node.driver(|driver| driver.raise_xid(1, 95, None));
    node.until_allocatable(SHARED, 2).await;
    let log = plugin.log();
    assert_eq!(log.matches("error=\"XID 79").count(), 1, "said once:\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xid_94_of_an_instance_leaves_its_neighbours_alone_and_passes() {
    let node = Node::new(vec![a100().with_mig(&["1g.5gb"; 3])]).await;
    let mut plugin = node.ready(&["--mig-strategy=mixed", "--health-quiet-time=1s", FAST]).await;
    node.until_allocatable(SLICE, 3).await;
    let id = node.driver(|driver| Ok(driver.state.gpus[0].gpu_instances[1].id));
    node.driver(|driver| driver.raise_xid(0, 94, Some((id, Some(0)))));
    node.until_allocatable(SLICE, 2).await;
    plugin
        .until_counted(r#"stowage_device_plugin_gpu_failures_total{gpu="0",scope="instance",cause="xid"} 1"#)
        .await;
    assert_eq!(unhealthy(&node, 0).await, None, "the GPU as a whole goes on");
    let sick = async || -> Vec<Option<String>> {
        node.gpu_node().await.gpus.remove(0).offers.into_iter().map(|offer| offer.unhealthy).collect()
    };
    eventually("the GpuNode tells which slice it is", || async {
        let sick = sick().await;
        sick[1].as_ref().is_some_and(|why| why.starts_with("XID 94: "))
            && sick[0].is_none()
            && sick[2].is_none()
    })
    .await;
    plugin.until_said("error=\"XID 94: ").await;
    node.until_event("GpuUnhealthy", &format!("GPU instance {id}, compute instance 0 is unhealthy: XID 94"))
        .await;
    node.until_allocatable(SLICE, 3).await;
    node.until_event("GpuHealthy", &format!("GPU instance {id}, compute instance 0 is healthy again")).await;
    eventually("the GpuNode says that it is healthy", || async { sick().await.iter().all(Option::is_none) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xid_13_is_counted_and_the_gpu_stays() {
    let node = Node::new(vec![a100().times(2)]).await;
    let mut plugin = node.ready(&[FAST]).await;
    node.driver(|driver| driver.raise_xid(0, 13, None));
    plugin.until_counted(r#"stowage_device_plugin_xids_total{gpu="0",xid="13",class="application"} 1"#).await;
    plugin.until_said("The driver raised an XID.").await;
    // What comes after it was told after it.
    node.driver(|driver| driver.raise_xid(1, 48, None));
    node.until_allocatable(GPU, 1).await;
    assert_eq!(unhealthy(&node, 0).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nvidias_environment_says_which_xids_count() {
    let node = Node::new(vec![a100().times(2)]).await;
    let mut plugin = node.start(|command| {
        command.args([FAST, "--health-quiet-time=1s"]);
        command.env("DP_DISABLE_HEALTHCHECKS", "79").env("DP_ENABLE_HEALTHCHECKS", "13");
    });
    plugin.until_ready().await;
    node.driver(|driver| driver.raise_xid(0, 79, None));
    node.driver(|driver| driver.raise_xid(1, 13, None));
    plugin
        .until_counted(r#"stowage_device_plugin_gpu_failures_total{gpu="1",scope="gpu",cause="xid"} 1"#)
        .await;
    plugin.until_counted(r#"stowage_device_plugin_gpu_healthy{gpu="0"} 1"#).await;
    node.until_allocatable(GPU, 2).await;
}
