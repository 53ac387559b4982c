//! Which GPUs go together, and on which NUMA node each device is.

use std::collections::BTreeMap;

use nvml_simulator::description::{Description, NvLinkDescription};

use crate::harness::*;

const FAST: &str = "--nvml-period=200ms";

/// Eight V100s of a DGX-1 were linked like that: two squares with their diagonals, and each GPU to its like.
fn dgx_1() -> Description {
    let double = [[0, 3], [0, 4], [1, 2], [1, 5], [2, 3], [4, 7], [5, 6], [6, 7]];
    let single = [[0, 1], [0, 2], [1, 3], [2, 6], [3, 7], [4, 5], [4, 6], [5, 7]];
    let links = double.map(|pair| NvLinkDescription::direct(&pair, 2)).into_iter();
    let links = links.chain(single.map(|pair| NvLinkDescription::direct(&pair, 1)));
    let gpus = (0..8).map(|index| a100().on_numa_node(index / 4)).collect();
    links.fold(Description::new(gpus), Description::linked)
}

/// Starts the plugin, and waits until it has told how its GPUs are connected.
async fn connected(node: &Node) -> Plugin {
    let plugin = node.ready(&[FAST]).await;
    eventually("the GpuNode tells how the GPUs are connected", || async {
        node.gpu_node().await.gpus.last().is_some_and(|gpu| !gpu.near.is_empty())
    })
    .await;
    plugin
}

/// The indices of the GPUs that a new pod of so many gets.
async fn given(node: &Node, pod: &str, count: u32) -> Vec<usize> {
    let gpus = node.gpus().await;
    let got = node.visible_in(pod, GPU, count).await;
    let mut got: Vec<usize> =
        got.iter().map(|gpu| gpus.iter().position(|known| known == gpu).unwrap()).collect();
    got.sort_unstable();
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_gpus_for_one_pod_are_linked_and_leave_linked_ones() {
    let node = Node::described(dgx_1()).await;
    let mut plugin = connected(&node).await;
    let near = node.gpu_node().await.gpus.remove(4).near;
    assert_eq!(near, [210, 10, 10, 10], "two links to its like, and the way between the sockets");
    assert_eq!(given(&node, "four", 4).await, [0, 1, 2, 3]);
    assert_eq!(given(&node, "two", 2).await, [4, 7]);
    node.remove_pod("four");
    // Of what is free, 6 has the fewest links to the others.
    assert_eq!(given(&node, "one", 1).await, [6]);
    plugin.until_counted(r#"stowage_device_plugin_preferred_allocations_total{source="core"} 3"#).await;
}

/// NVIDIA's plugin asks NVML at each call, and fails the pod when one GPU of the node does not answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_gpu_fails_nobody_and_the_others_are_still_chosen_by_their_links() {
    let node = Node::described(dgx_1()).await;
    let mut plugin = connected(&node).await;
    node.driver(|driver| driver.set_lost(3, true));
    node.until_allocatable(GPU, 7).await;
    assert_eq!(given(&node, "four", 4).await, [4, 5, 6, 7]);
    assert_eq!(given(&node, "two", 2).await, [1, 2]);
    node.driver(|driver| driver.set_lost(3, false));
    node.until_allocatable(GPU, 8).await;
    assert_eq!(given(&node, "again", 2).await, [0, 3]);
    plugin.until_ready().await;
}

/// It is not known which GPU it is, so none is called ill for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_cannot_be_read_in_time_harm_nobody() {
    let node = Node::described(dgx_1()).await;
    node.driver(|driver| driver.set_hanging(2, true));
    let mut plugin = node.start(|command| _ = command.args([FAST, "--nvml-call-limit=300ms"]));
    plugin.until_ready().await;
    node.until_allocatable(GPU, 7).await;
    assert_eq!(node.visible_in("p", GPU, 4).await.len(), 4);
    node.driver(|driver| driver.set_hanging(2, false));
    node.until_allocatable(GPU, 8).await;
    plugin.until_ready().await;
}

/// As the kubelet tells it of each device that a pod has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_gpus_slices_and_shares_are_on_the_numa_node_of_their_gpu() {
    let gpus = vec![a100(), a100(), a100().with_mig(&["1g.5gb"]), a100()];
    let node = Node::new(gpus).await;
    // The simulator has no sysfs. The GPUs' buses are 04, 07, 0a and 0d.
    for (bus, numa) in [("04", "0"), ("07", "1"), ("0a", "1"), ("0d", "-1")] {
        node.write(&format!("sys/bus/pci/devices/0000:{bus}:00.0/numa_node"), &format!("{numa}\n"));
    }
    let file = "flags: {migStrategy: mixed}\nsharing: {timeSlicing: {renameByDefault: true, resources: \
                [{name: gpu, replicas: 2, devices: [1]}]}}";
    let _plugin = node.ready_with_file(file).await;
    for (pod, resource) in [("first", GPU), ("second", GPU), ("share", SHARED), ("slice", SLICE)] {
        node.visible_in(pod, resource, 1).await;
    }
    let gpus = node.gpus().await;
    let mut numa: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for pod in node.kubelet.pod_resources().pod_resources {
        for devices in pod.containers.into_iter().flat_map(|container| container.devices) {
            let nodes = devices.topology.into_iter().flat_map(|topology| topology.nodes).map(|node| node.id);
            let id = devices.device_ids[0].split("::").next().unwrap();
            let of = gpus.iter().position(|gpu| gpu == id).map_or("slice".to_owned(), |gpu| gpu.to_string());
            numa.entry(of).or_default().extend(nodes);
        }
    }
    let want = [("0", vec![0]), ("1", vec![1]), ("3", vec![]), ("slice", vec![1])];
    assert_eq!(numa, want.map(|(gpu, nodes)| (gpu.to_owned(), nodes)).into());
}
