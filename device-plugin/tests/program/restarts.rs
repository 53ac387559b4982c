//! Ends of the process, wanted and unwanted.

use std::time::{Duration, Instant};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_the_same_pods_hold_the_same_devices() {
    let node = Node::new(vec![a100().times(3)]).await;
    let plugin = node.ready(&[]).await;
    let gpus = node.gpus().await;
    node.run_pod("a", GPU, 1, |uid| plan(uid, NODE, GPU, &[&gpus[1]])).await.unwrap();
    // How near GPUs are is read after the start.
    let is_told = || async {
        let status = node.gpu_node().await;
        status.allocations.len() == 1 && !status.gpus[2].near.is_empty()
    };
    eventually("the GpuNode tells who holds what, and how near GPUs are", is_told).await;
    let before = node.gpu_node().await;
    let left_behind = node.sockets();
    plugin.kill().await;
    node.until_allocatable(GPU, 0).await;
    let written = node.api.audit().len();
    let _plugin = node.ready(&[]).await;
    node.until_allocatable(GPU, 3).await;
    eventually("it writes its GpuNode again", || async {
        node.api.audit()[written..].iter().any(|record| record.attributes.verb == "patch")
    })
    .await;
    eventually("the GpuNode tells what it told before", || async {
        but_for_the_time(&node.gpu_node().await) == but_for_the_time(&before)
    })
    .await;
    assert!(left_behind.iter().all(|socket| !socket.exists()), "the dead sockets are swept up");
    let mut rest = node.visible_in("b", GPU, 2).await;
    rest.sort();
    let mut free = [gpus[0].clone(), gpus[2].clone()];
    free.sort();
    assert_eq!(rest, free, "what a pod holds is given to nobody else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_to_end_it_is_gone_within_a_second_with_its_sockets() {
    let node = Node::new(vec![a100(), a100().with_mig(&["1g.5gb"])]).await;
    let plugin = node.ready(&["--mig-strategy=mixed"]).await;
    assert_eq!(node.sockets().len(), 2);
    let start = Instant::now();
    let (code, log) = plugin.terminate().await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("Ended as asked."), "{log}");
    assert!(node.sockets().is_empty(), "{:?}", node.sockets());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_plugin_stands_by_ready_and_takes_over_when_the_first_ends() {
    let node = Node::new(vec![a100().times(3)]).await;
    let first = node.ready(&[]).await;
    node.until_allocatable(GPU, 3).await;
    let sockets = node.sockets();
    let mut second = node.start(|_| ());
    second.until_said("Another plugin serves this node").await;
    second.until_ready().await;
    assert_eq!(node.sockets(), sockets, "only one registers");
    // What the first one gives away meanwhile, the second one knows.
    let held = node.visible_in("a", GPU, 1).await;
    let (code, log) = first.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    second.until_said("Registered").await;
    second.until_ready().await;
    node.until_allocatable(GPU, 3).await;
    let rest = node.visible_in("b", GPU, 2).await;
    assert!(!rest.contains(&held[0]), "{rest:?} {held:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_stands_by_takes_over_from_one_that_was_killed() {
    let node = Node::new(vec![a100()]).await;
    let first = node.ready(&[]).await;
    let mut second = node.start(|_| ());
    second.until_said("Another plugin serves this node").await;
    first.kill().await;
    second.until_said("Registered").await;
    node.until_allocatable(GPU, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_stands_by_ends_when_asked() {
    let node = Node::new(vec![a100()]).await;
    let mut first = node.ready(&[]).await;
    let mut second = node.start(|_| ());
    second.until_said("Another plugin serves this node").await;
    let (code, log) = second.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    first.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_container_of_a_pod_takes_over_address_and_all_and_the_first_stands_by_then() {
    let node = Node::new(vec![a100().times(2)]).await;
    let mut first = node.ready(&[]).await;
    let log = first.until_said("http_address=").await;
    let address = log.split_once("http_address=").unwrap().1.split_whitespace().next().unwrap().to_owned();
    let with_address =
        || node.start(|command| _ = command.env("HTTP_ADDRESS", &address).env("STANDBY", "true"));
    let mut second = with_address();
    second.until_said("Another plugin has the address").await;
    let held = node.visible_in("a", GPU, 1).await;
    first.kill().await;
    second.until_said("Registered").await;
    second.until_ready().await;
    let mut first = with_address();
    first.until_said("Another plugin has the address").await;
    node.until_allocatable(GPU, 2).await;
    assert_ne!(node.visible_in("b", GPU, 1).await, held);
    let (code, log) = first.terminate().await;
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_cannot_read_its_gpus_never_stands_by() {
    let node = Node::new(vec![a100()]).await;
    let _first = node.ready(&[]).await;
    let second = node.start(|command| _ = command.env("DRIVER_ROOT_CTR_PATH", "/does/not/exist"));
    let (code, log) = second.ended().await;
    assert_eq!(code, Some(69), "{log}");
    assert!(!log.contains("standing by"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_under_a_name_of_its_own_keeps_its_elastic_gpu_over_a_restart() {
    const QUARTER: &str = "nvidia.com/quarter";
    let node = Node::new(vec![a100()]).await;
    let file = "
flags: {elasticGPUs: true}
sharing: {timeSlicing: {resources: [{name: gpu, replicas: 4, rename: quarter}]}}
";
    let mut first = node.ready_with_file(file).await;
    first.until_counted(&devices("healthy", 1)).await;
    node.visible_in("share", QUARTER, 1).await;
    node.until_allocatable(GPU, 0).await;
    first.until_counted(&devices("healthy", 0)).await;
    eventually("the GpuNode tells who holds it", || async { node.gpu_node().await.allocations.len() == 1 })
        .await;
    first.kill().await;
    node.until_allocatable(QUARTER, 0).await;
    let mut second = node.ready_with_file(file).await;
    node.until_allocatable(QUARTER, 4).await;
    second.until_counted(&devices("unhealthy", 1)).await;
    node.until_allocatable(GPU, 0).await;
    node.run_pod("whole", GPU, 1, |_| None).await.unwrap_err();
}

fn devices(health: &str, count: u32) -> String {
    format!(r#"stowage_device_plugin_devices{{resource_name="{GPU}",health="{health}"}} {count}"#)
}
