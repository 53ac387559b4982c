//! What changes behind the program's back: MIG devices that others create and destroy, a driver that goes away.

use std::collections::BTreeMap;

use crate::harness::*;

const BIG: &str = "nvidia.com/mig-3g.20gb";
/// NVML's ids of the profiles 1g.5gb and 3g.20gb.
const SMALL_ID: u32 = 19;
const BIG_ID: u32 = 9;
const MIXED: &[&str] = &["--mig-strategy=mixed", "--nvml-period=200ms"];

/// Creates a MIG device as `nvidia-smi mig -cgi -C` does; the id of its GPU instance.
fn create(node: &Node, gpu: u32, profile: u32, compute_slices: u8) -> u32 {
    node.driver(|driver| {
        let id = driver.create_gpu_instance(gpu, profile, None)?;
        driver.create_compute_instance(gpu, id, compute_slices, None)?;
        Ok(id)
    })
}

fn destroy(node: &Node, gpu: u32, id: u32) {
    node.driver(|driver| {
        driver.destroy_compute_instance(gpu, id, 0)?;
        driver.destroy_gpu_instance(gpu, id)
    });
}

fn counts(node: &Node, resource: &str) -> Option<(u64, u64)> {
    node.kubelet.allocatable().get(resource).map(|counts| (counts.capacity, counts.allocatable))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mig_devices_that_others_make_are_registered_and_those_that_they_destroy_retired() {
    let node = Node::new(vec![a100().with_mig(&["1g.5gb"])]).await;
    let mut plugin = node.ready(MIXED).await;
    assert_eq!(node.allocatable(), BTreeMap::from([(SLICE.to_owned(), 1)]));
    let id = create(&node, 0, BIG_ID, 3);
    node.until_allocatable(BIG, 1).await;
    plugin.until_ready().await;
    eventually("the GpuNode tells", || async { node.gpu_node().unwrap().gpus[0].offers.len() == 2 }).await;
    assert!(node.visible_in("big", BIG, 1).await[0].starts_with("MIG-"));
    eventually("the GpuNode tells who holds it", || async {
        node.gpu_node().unwrap().allocations.len() == 1
    })
    .await;
    node.remove_pod("big");
    create(&node, 0, SMALL_ID, 1);
    node.until_allocatable(SLICE, 2).await;
    eventually("nobody holds it any more", || async { node.gpu_node().unwrap().allocations.is_empty() })
        .await;
    let sockets = node.sockets().len();
    destroy(&node, 0, id);
    node.until_allocatable(BIG, 0).await;
    eventually("the empty resource is given up", || async { node.sockets().len() == sockets - 1 }).await;
    assert_eq!(counts(&node, BIG).map_or(0, |(capacity, _)| capacity), 0, "it was listed as empty first");
    plugin.until_said("No longer offered").await;
    plugin.until_ready().await;
    // And again: a retired resource comes back as a new one does.
    create(&node, 0, BIG_ID, 3);
    node.until_allocatable(BIG, 1).await;
    plugin.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mig_device_that_a_pod_holds_stays_listed_as_unhealthy_when_it_is_destroyed() {
    let node = Node::new(vec![a100().with_mig(&["1g.5gb", "1g.5gb"])]).await;
    let mut plugin = node.ready(MIXED).await;
    let held = node.visible_in("p", SLICE, 1).await.remove(0);
    eventually("the GpuNode tells who holds it", || async {
        node.gpu_node().unwrap().allocations.len() == 1
    })
    .await;
    let offers = node.gpu_node().unwrap().gpus.remove(0).offers;
    let index = offers.iter().position(|offer| offer.uuid == held).unwrap();
    let ids = node.driver(|driver| {
        let state = driver.state.gpus[0].clone();
        Ok(state.gpu_instances.iter().map(|instance| instance.id).collect::<Vec<_>>())
    });
    destroy(&node, 0, ids[index]);
    node.until_allocatable(SLICE, 1).await;
    assert_eq!(counts(&node, SLICE), Some((2, 1)), "what a pod holds does not vanish");
    node.remove_pod("p");
    eventually("it goes with its pod", || async { counts(&node, SLICE) == Some((1, 1)) }).await;
    plugin.until_ready().await;
}

/// So it is after a `systemctl daemon-reload`, and while a driver is loaded again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nvml_fails_nothing_new_is_handed_out_and_what_is_held_stays_healthy() {
    let node = Node::new(vec![a100().times(3)]).await;
    let mut plugin = node.ready(&["--nvml-period=200ms"]).await;
    node.visible_in("p", GPU, 1).await;
    eventually("the GpuNode tells who holds it", || async {
        node.gpu_node().unwrap().allocations.len() == 1
    })
    .await;
    let state = node.path("node.state.json");
    std::fs::rename(&state, node.path("away")).unwrap();
    // A new state is made where none is; a folder in its place is none.
    std::fs::create_dir(&state).unwrap();
    plugin.until_not_ready("NVML does not work: ").await;
    node.until_allocatable(GPU, 1).await;
    assert_eq!(counts(&node, GPU), Some((3, 1)));
    eventually("the GpuNode tells", || async {
        let gpus = node.gpu_node().unwrap().gpus;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gpus_that_no_longer_fit_the_strategy_get_no_new_work_until_they_do() {
    let node = Node::new(vec![a100().with_mig(&["3g.20gb"]).times(2)]).await;
    let mut plugin = node.ready(&["--mig-strategy=single", "--nvml-period=200ms"]).await;
    node.until_allocatable(GPU, 2).await;
    let id = create(&node, 0, SMALL_ID, 1);
    plugin.until_not_ready("migStrategy is single").await;
    node.until_allocatable(GPU, 1).await;
    plugin.until_said("The GPUs changed, and cannot be offered as configured.").await;
    destroy(&node, 0, id);
    node.until_allocatable(GPU, 2).await;
    plugin.until_ready().await;
}
