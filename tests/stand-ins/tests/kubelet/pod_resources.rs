//! What pod-resources tells, and when devices become free.

use kubelet_api::pod_resources::{
    AllocatableResourcesRequest, ContainerDevices, GetPodResourcesRequest, ListPodResourcesRequest, NumaNode,
    PodResources, TopologyInfo,
};
use stowage_stand_ins::kubelet::ContainerKind;
use tonic::Code;

use crate::fake_plugin::Answers;
use crate::node::{GPU, Node, devices, gpu_near, gpus, pod, pod_of, sick_gpu};

fn entry(id: &str, node: Option<i64>) -> ContainerDevices {
    ContainerDevices {
        resource_name: GPU.to_owned(),
        device_ids: vec![id.to_owned()],
        topology: node.map(|id| TopologyInfo { nodes: vec![NumaNode { id }] }),
    }
}

fn names(pods: &[PodResources]) -> Vec<&str> {
    pods.iter().map(|pod| pod.name.as_str()).collect()
}

#[tokio::test]
async fn list_tells_of_sidecars_and_apps_and_leaves_ended_init_containers_out() {
    let node = Node::new().await;
    let _plugin = node.plugin(4, Answers::default()).await;
    let kinds = [
        ("main", ContainerKind::App, 1),
        ("load", ContainerKind::Init, 1),
        ("proxy", ContainerKind::Sidecar, 1),
    ];
    let admitted = node.admit(&pod_of("p", &kinds)).await.unwrap();
    let [_, proxy, main] = &devices(&admitted)[..] else { panic!("three containers") };
    let list = node.pod_resources().await.list(ListPodResourcesRequest {}).await.unwrap().into_inner();
    assert_eq!(names(&list.pod_resources), ["p"]);
    let told: Vec<_> = list.pod_resources[0]
        .containers
        .iter()
        .map(|container| (container.name.as_str(), container.devices.clone()))
        .collect();
    assert_eq!(told, [("proxy", vec![entry(proxy[0], None)]), ("main", vec![entry(main[0], None)])]);
    assert_eq!(list, node.kubelet.pod_resources());
}

#[tokio::test]
async fn pod_without_devices_is_listed_with_none() {
    let node = Node::new().await;
    node.admit(&pod("cpu-only", 0)).await.unwrap();
    let list = node.kubelet.pod_resources();
    assert_eq!(names(&list.pod_resources), ["cpu-only"]);
    assert_eq!(list.pod_resources[0].containers[0].devices, []);
}

#[tokio::test]
async fn ended_pod_is_listed_no_more_and_its_devices_go_to_the_next_pod() {
    let node = Node::new().await;
    let _plugin = node.plugin(2, Answers::default()).await;
    node.admit(&pod("ends", 1)).await.unwrap();
    node.admit(&pod("goes", 1)).await.unwrap();
    node.admit(&pod("waits", 2)).await.unwrap_err();
    assert!(node.kubelet.end_pod("default", "ends"));
    assert!(node.kubelet.remove_pod("default", "goes"));
    assert!(!node.kubelet.remove_pod("other", "ends"), "another namespace");
    assert_eq!(names(&node.kubelet.pod_resources().pod_resources), [""; 0]);
    node.admit(&pod("next", 2)).await.unwrap();
}

/// The stand-in once told of ended pods too: the script that the real kubelet runs as well found it out.
#[tokio::test]
async fn get_knows_a_pod_while_it_is_active() {
    let node = Node::new().await;
    let _plugin = node.plugin(1, Answers::default()).await;
    node.admit(&pod("p", 1)).await.unwrap();
    let mut client = node.pod_resources().await;
    let request = GetPodResourcesRequest { pod_name: "p".to_owned(), pod_namespace: "default".to_owned() };
    let told = client.get(request.clone()).await.unwrap().into_inner().pod_resources.unwrap();
    assert_eq!(told.containers[0].devices, [entry("gpu-0", None)]);

    node.kubelet.end_pod("default", "p");
    let unknown = client.get(request.clone()).await.unwrap_err();
    assert_eq!((unknown.code(), unknown.message()), (Code::Unknown, "pod p in namespace default not found"));
    node.kubelet.remove_pod("default", "p");
    assert_eq!(client.get(request).await.unwrap_err().code(), Code::Unknown);
}

#[tokio::test]
async fn allocatable_resources_are_the_healthy_devices_with_one_entry_a_numa_node() {
    let node = Node::new().await;
    let plugin = node.plugin(1, Answers::default()).await;
    let near = vec![gpu_near(1, &[0]), gpu_near(2, &[0, 1]), gpu_near(3, &[]), sick_gpu(4)];
    plugin.devices.send_replace(Some([gpus(0..1), near].concat()));
    node.told(GPU, 5, 4).await;
    node.admit(&pod("p", 4)).await.unwrap();
    let mut client = node.pod_resources().await;
    let told = client.get_allocatable_resources(AllocatableResourcesRequest {}).await.unwrap().into_inner();
    let near_ones = [entry("gpu-1", Some(0)), entry("gpu-2", Some(0)), entry("gpu-2", Some(1))];
    assert_eq!(told.devices, [vec![entry("gpu-0", None)], near_ones.to_vec()].concat());

    let list = client.list(ListPodResourcesRequest {}).await.unwrap().into_inner();
    let mut held = near_ones.to_vec();
    held.insert(0, entry("gpu-0", None));
    held.push(entry("gpu-3", None));
    assert_eq!(list.pod_resources[0].containers[0].devices, held);
}

#[tokio::test]
async fn more_calls_than_the_kubelet_allows_are_refused() {
    let node = Node::new().await;
    let mut client = node.pod_resources().await;
    // At most 100 a second pass, so one of the first 10,000 is refused on any machine.
    for _ in 0..10_000 {
        if let Err(refused) = client.list(ListPodResourcesRequest {}).await {
            assert_eq!(refused.code(), Code::ResourceExhausted);
            assert_eq!(refused.message(), "rejected by rate limit");
            return;
        }
    }
    panic!("10,000 calls in a row were answered");
}
