//! A driver that is loaded again, and one whose device nodes a `systemctl daemon-reload` took away: every call fails.

use super::*;
use crate::live::counts;

/// So it is after a `systemctl daemon-reload`, and while a driver is loaded again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nvml_fails_nothing_new_is_handed_out_and_what_is_held_stays_healthy() {
    let node = Node::new(vec![a100().times(3)]).await;
    let mut plugin = node.ready(&["--nvml-period=200ms"]).await;
    node.visible_in("p", GPU, 1).await;
    eventually("the GpuNode tells who holds it", || async { node.gpu_node().await.allocations.len() == 1 })
        .await;
    let state = node.path("node.state.json");
    std::fs::rename(&state, node.path("away")).unwrap();
    // A new state is made where none is; a folder in its place is none.
    std::fs::create_dir(&state).unwrap();
    plugin.until_not_ready("NVML does not work: ").await;
    node.until_allocatable(GPU, 1).await;
    assert_eq!(counts(&node, GPU), Some((3, 1)));
    eventually("the GpuNode tells", || async {
        let gpus = node.gpu_node().await.gpus;
        gpus.iter()
            .all(|gpu| gpu.unhealthy.as_ref().is_some_and(|why| why.starts_with("NVML does not work: ")))
    })
    .await;
    assert_eq!(plugin.get("/livez").await.0, 200);
    node.until_event("NvmlFailed", "NVML does not work: ").await;
    std::fs::remove_dir(&state).unwrap();
    std::fs::rename(node.path("away"), &state).unwrap();
    node.until_allocatable(GPU, 3).await;
    plugin.until_ready().await;
    node.until_event("NvmlWorks", "NVML works again").await;
    assert_eq!(plugin.log().matches("NVML does not work: nothing new is handed out").count(), 1);
    assert_eq!(node.visible_in("q", GPU, 2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_comes_late_is_found() {
    let node = Node::new(vec![a100().times(2)]).await;
    std::fs::rename(node.path("node.yaml"), node.path("later.yaml")).unwrap();
    let mut plugin = node.start(|command| _ = command.env("FAIL_ON_INIT_ERROR", "false"));
    plugin.until_not_ready("NVML does not work: ").await;
    assert!(node.sockets().is_empty());
    std::fs::rename(node.path("later.yaml"), node.path("node.yaml")).unwrap();
    node.until_allocatable(GPU, 2).await;
    plugin.until_ready().await;
    assert_eq!(node.visible_in("p", GPU, 1).await.len(), 1);
}
