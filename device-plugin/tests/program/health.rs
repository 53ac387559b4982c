//! GPUs that fail and recover: what the kubelet, the GpuNode, the Node's Events and the metrics say of it.

use nvml_simulator::state::{RecoveryAction, RemappedRows};

use crate::harness::*;

const FAST: &str = "--nvml-period=200ms";
const TWO_SHARES: &str =
    "sharing: {timeSlicing: {renameByDefault: true, resources: [{name: nvidia.com/gpu, replicas: 2}]}}";

fn unhealthy(node: &Node, gpu: usize) -> Option<String> {
    node.gpu_node().unwrap().gpus[gpu].unhealthy.clone()
}

async fn until_unhealthy(node: &Node, gpu: usize, why: &str) {
    eventually(why, || async { unhealthy(node, gpu).is_some_and(|text| text.contains(why)) }).await;
}

async fn until_healthy(node: &Node, gpu: usize) {
    eventually("the GpuNode says that it is healthy", || async { unhealthy(node, gpu).is_none() }).await;
}

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
    assert_eq!(unhealthy(&node, 0), None, "the GPU as a whole goes on");
    node.until_event("GpuUnhealthy", &format!("GPU instance {id}, compute instance 0 is unhealthy: XID 94"))
        .await;
    node.until_allocatable(SLICE, 3).await;
    node.until_event("GpuHealthy", &format!("GPU instance {id}, compute instance 0 is healthy again")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xid_13_is_counted_and_the_gpu_stays() {
    let node = Node::new(vec![a100().times(2)]).await;
    let mut plugin = node.ready(&[FAST]).await;
    node.driver(|driver| driver.raise_xid(0, 13, None));
    plugin.until_counted(r#"stowage_device_plugin_xids_total{gpu="0",xid="13",class="application"} 1"#).await;
    // What comes after it was told after it.
    node.driver(|driver| driver.raise_xid(1, 48, None));
    node.until_allocatable(GPU, 1).await;
    assert_eq!(unhealthy(&node, 0), None);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_is_lost_stays_listed_and_the_others_are_handed_out() {
    let node = Node::new(vec![a100().times(3)]).await;
    let mut plugin = node.ready(&[FAST]).await;
    let gpus = node.gpus();
    node.driver(|driver| driver.set_lost(1, true));
    node.until_allocatable(GPU, 2).await;
    assert_eq!(node.kubelet.allocatable()[GPU].capacity, 3);
    until_unhealthy(&node, 1, "it cannot be reached").await;
    let mut got = node.visible_in("p", GPU, 2).await;
    got.sort();
    let mut others = [gpus[0].clone(), gpus[2].clone()];
    others.sort();
    assert_eq!(got, others);
    node.driver(|driver| driver.set_lost(1, false));
    node.until_allocatable(GPU, 3).await;
    plugin.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_hangs_is_named_and_everything_else_goes_on() {
    let node = Node::new(vec![a100().times(3)]).await;
    let mut plugin = node.ready(&[FAST, "--nvml-call-limit=500ms"]).await;
    node.driver(|driver| driver.set_hanging(1, true));
    node.until_allocatable(GPU, 2).await;
    until_unhealthy(&node, 1, "an NVML call about GPU 1 has not returned within").await;
    node.until_event("GpuUnhealthy", "an NVML call about GPU 1 has not returned").await;
    assert_eq!(node.visible_in("p", GPU, 1).await.len(), 1);
    // Other GPUs are still looked at.
    node.driver(|driver| driver.set_lost(0, true));
    until_unhealthy(&node, 0, "it cannot be reached").await;
    node.driver(|driver| driver.set_lost(0, false));
    node.driver(|driver| driver.set_hanging(1, false));
    node.until_allocatable(GPU, 3).await;
    until_healthy(&node, 1).await;
    plugin.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_fails_takes_its_gpu_until_it_is_reset() {
    let node = Node::new(vec![a100().times(2)]).await;
    let _plugin = node.ready(&[FAST, "--health-quiet-time=1s"]).await;
    let rows = RemappedRows { uncorrectable: 1, pending: true, ..RemappedRows::default() };
    node.driver(|driver| driver.set_remapped_rows(0, rows));
    until_unhealthy(&node, 0, "a damaged memory row waits to be replaced: it needs a reset").await;
    node.until_allocatable(GPU, 1).await;
    node.driver(|driver| driver.reset_gpu(0));
    until_healthy(&node, 0).await;
    node.driver(|driver| driver.add_ecc_errors(1, 0, 1));
    until_unhealthy(&node, 1, "memory errors that ECC could not mend").await;
    until_healthy(&node, 1).await;
    node.until_allocatable(GPU, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_driver_wants_done_is_said_and_over_when_it_is_done() {
    let node = Node::new(vec![a100().times(2)]).await;
    let _plugin = node.ready(&[FAST]).await;
    node.driver(|driver| driver.set_recovery_action(1, RecoveryAction::GpuReset));
    node.driver(|driver| driver.raise_xid(1, 119, None));
    node.until_allocatable(GPU, 1).await;
    until_unhealthy(&node, 1, "the driver says that it must be reset").await;
    node.driver(|driver| driver.set_recovery_action(1, RecoveryAction::None));
    node.until_allocatable(GPU, 2).await;
    until_healthy(&node, 1).await;
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
    eventually("the GpuNode tells", || async { node.gpu_node().unwrap().gpus.len() == 2 }).await;
    // Its XIDs are heard as well.
    node.driver(|driver| driver.raise_xid(1, 48, None));
    node.until_allocatable(GPU, 1).await;
}
