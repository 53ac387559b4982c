//! What changes behind the program's back: MIG devices that others create and destroy.

use std::collections::BTreeMap;

use crate::harness::*;

const BIG: &str = "nvidia.com/mig-3g.20gb";
/// NVML's ids of the profiles 1g.5gb and 3g.20gb.
pub const SMALL_ID: u32 = 19;
const BIG_ID: u32 = 9;
pub const MIXED: &[&str] = &["--mig-strategy=mixed", "--nvml-period=200ms"];

/// Creates a MIG device as `nvidia-smi mig -cgi -C` does; the id of its GPU instance.
pub fn create(node: &Node, gpu: u32, profile: u32, compute_slices: u8) -> u32 {
    node.driver(|driver| {
        let id = driver.create_gpu_instance(gpu, profile, None)?;
        driver.create_compute_instance(gpu, id, compute_slices, None)?;
        Ok(id)
    })
}

pub fn destroy(node: &Node, gpu: u32, id: u32) {
    node.driver(|driver| {
        driver.destroy_compute_instance(gpu, id, 0)?;
        driver.destroy_gpu_instance(gpu, id)
    });
}

pub fn counts(node: &Node, resource: &str) -> Option<(u64, u64)> {
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
    eventually("the GpuNode tells", || async { node.gpu_node().await.gpus[0].offers.len() == 2 }).await;
    assert!(node.visible_in("big", BIG, 1).await[0].starts_with("MIG-"));
    eventually("the GpuNode tells who holds it", || async { node.gpu_node().await.allocations.len() == 1 })
        .await;
    node.remove_pod("big");
    create(&node, 0, SMALL_ID, 1);
    node.until_allocatable(SLICE, 2).await;
    eventually("nobody holds it any more", || async { node.gpu_node().await.allocations.is_empty() }).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_nodes_that_come_later_are_told_to_containers() {
    let node = Node::new(vec![a100()]).await;
    // Only root can make device nodes: a link leads to one that is there.
    let make = |name: &str| {
        std::os::unix::fs::symlink("/dev/null", node.path(&format!("driver/dev/{name}"))).unwrap()
    };
    std::fs::create_dir_all(node.path("driver/dev")).unwrap();
    make("nvidiactl");
    let root = format!("--cdi-root={}", node.path("cdi").display());
    let flags = ["--nvml-period=200ms", "--device-list-strategy=cdi-cri", "--gdrcopy-enabled", &root];
    let plugin = node.ready(&flags).await;
    let spec = |class: &str| {
        let file = format!("cdi/k8s.device-plugin.nvidia.com-{class}.json");
        std::fs::read_to_string(node.path(&file)).unwrap_or_default()
    };
    assert!(spec("gpu").contains("/dev/nvidiactl") && !spec("gpu").contains("/dev/nvidia-uvm"));
    assert_eq!(spec("gdrcopy"), "");
    make("nvidia-uvm");
    make("gdrdrv");
    eventually("the specs have them", || async {
        spec("gpu").contains("/dev/nvidia-uvm") && spec("gdrcopy").contains("/dev/gdrdrv")
    })
    .await;
    let log = plugin.log();
    assert_eq!(log.matches("this node has no such devices").count(), 1, "said once:\n{log}");
}
