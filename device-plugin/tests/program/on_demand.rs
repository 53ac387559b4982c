//! MIG slices that are built when a pod has got them.

use std::fmt::Write;
use std::path::PathBuf;

use kubelet_api::device_plugin::device_plugin_client::DevicePluginClient;
use kubelet_api::device_plugin::{AllocateRequest, ContainerAllocateRequest};
use stowage_shared::plan::Plan;
use stowage_stand_ins::api_server::Part;
use stowage_stand_ins::api_server::resources::PODS;

use crate::harness::*;

const SEVENTH: &str = "nvidia.com/mig-1g.5gb";
const HALF: &str = "nvidia.com/mig-3g.20gb";
const MOST: &str = "nvidia.com/mig-4g.20gb";
const ALL: &str = "nvidia.com/mig-7g.40gb";
/// NVML's id of the profile 1g.5gb.
const SEVENTH_ID: u32 = 19;
const ON_DEMAND: &[&str] = &["--mig-strategy=on-demand", "--nvml-period=200ms"];
const WITH_CDI: &[&str] =
    &["--mig-strategy=on-demand", "--nvml-period=200ms", "--device-list-strategy=cdi-cri"];

/// One A100 in MIG mode, with nothing on it.
pub async fn node() -> Node {
    node_of(vec![a100().with_mig(&[])]).await
}

/// A node of these GPUs, whose MIG instances have device nodes.
pub async fn node_of(gpus: Vec<nvml_simulator::description::GpuDescription>) -> Node {
    let node = Node::new(gpus).await;
    let mut minors = String::from("config 1\nmonitor 2\n");
    for id in 0..15 {
        writeln!(minors, "gpu0/gi{id}/access {}\ngpu0/gi{id}/ci0/access {}", 10 * id, 10 * id + 1).unwrap();
    }
    node.write("proc/driver/nvidia-caps/mig-minors", &minors);
    node.write("proc/sys/kernel/random/boot_id", "one\n");
    node
}

/// The GPU instances that exist: profile and id.
pub fn instances(node: &Node) -> Vec<(u32, u32)> {
    let state = nvml_simulator::store::Store::open(&node.path("node.yaml")).unwrap().state().unwrap();
    state.gpus[0].gpu_instances.iter().map(|instance| (instance.profile_id, instance.id)).collect()
}

async fn start(node: &Node, pod: &str) -> Vec<String> {
    let told = node.kubelet.start_container("default", pod, "main").await.unwrap();
    told.cdi_devices.into_iter().map(|device| device.name).collect()
}

/// The device nodes of a CDI device, as its spec says; `None` where there is no such device.
fn device_nodes(node: &Node, device: &str) -> Option<Vec<String>> {
    let spec = std::fs::read(node.path("cdi/k8s.device-plugin.nvidia.com-gpu.json")).ok()?;
    let spec: serde_json::Value = serde_json::from_slice(&spec).unwrap();
    let (kind, name) = device.split_once('=').unwrap();
    assert_eq!(spec["kind"], kind);
    let devices = spec["devices"].as_array().unwrap();
    let device = devices.iter().find(|device| device["name"] == name)?;
    let nodes = device["containerEdits"]["deviceNodes"].as_array().unwrap();
    Some(nodes.iter().map(|node| node["path"].as_str().unwrap().to_owned()).collect())
}

fn cdi(node: &Node) -> Vec<String> {
    let mut flags: Vec<String> = WITH_CDI.iter().map(|flag| (*flag).to_owned()).collect();
    flags.push(format!("--cdi-root={}", node.path("cdi").display()));
    flags
}

pub async fn ready_with_cdi(node: &Node) -> Plugin {
    let flags = cdi(node);
    node.ready(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_cdi_slices_are_built_as_they_are_handed_out() {
    let node = node().await;
    let _plugin = node.ready(ON_DEMAND).await;
    let counted = [SEVENTH, HALF, MOST, ALL].map(|resource| node.allocatable()[resource]);
    assert_eq!(counted, [7, 2, 1, 1]);
    let big = node.visible_in("big", HALF, 1).await;
    assert!(big[0].starts_with("MIG-"), "{big:?}");
    assert_eq!(instances(&node).len(), 1);
    node.until_allocatable(SEVENTH, 4).await;
    node.until_allocatable(ALL, 0).await;
    assert_eq!(node.allocatable()[HALF], 2, "the one in use, and the one that could be");
    for number in 0..4 {
        node.until_allocatable(SEVENTH, 4).await;
        node.visible_in(&format!("small-{number}"), SEVENTH, 1).await;
    }
    assert_eq!(instances(&node).len(), 5);
    let fifth = node.run_pod("fifth", SEVENTH, 1, |_| None).await.unwrap_err();
    assert_eq!(fifth.pod_reason(), Some("UnexpectedAdmissionError"), "the kubelet counts four, all in use");
    node.remove_pod("fifth");
    node.remove_pod("big");
    node.until_allocatable(SEVENTH, 7).await;
    assert_eq!(instances(&node).len(), 5, "what nobody uses stays until something is in its way");
    node.visible_in("fifth", SEVENTH, 1).await;
    eventually("the big one is gone", || async {
        !instances(&node).iter().any(|(profile, _)| *profile == 9)
    })
    .await;
    assert_eq!(instances(&node).len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_cdi_a_slice_is_built_when_its_container_starts_and_again_when_it_is_lost() {
    let node = node().await;
    let _plugin = ready_with_cdi(&node).await;
    let pod = node.run_pod("p", SEVENTH, 1, |_| None).await.unwrap();
    assert_eq!(pod.response.cdi_devices.len(), 1);
    assert_eq!(instances(&node), [], "admission waits for no driver");
    let devices = start(&node, "p").await;
    let [(_, id)] = instances(&node)[..] else { panic!("one instance") };
    let nodes = device_nodes(&node, &devices[0]).unwrap();
    let caps = |id: u32| {
        [
            format!("/dev/nvidia-caps/nvidia-cap{}", 10 * id),
            format!("/dev/nvidia-caps/nvidia-cap{}", 10 * id + 1),
        ]
    };
    assert_eq!(nodes, [&["/dev/nvidia0".to_owned()][..], &caps(id)].concat());
    assert_eq!(start(&node, "p").await, devices);
    assert_eq!(instances(&node).len(), 1, "it is there already");
    node.driver(|driver| {
        driver.destroy_compute_instance(0, id, 0)?;
        driver.destroy_gpu_instance(0, id)
    });
    start(&node, "p").await;
    assert_eq!(instances(&node).len(), 1, "a reset took it, and the container's next start brings it back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_its_slices_again_and_touches_none_that_is_used() {
    let node = node().await;
    let plugin = ready_with_cdi(&node).await;
    for pod in ["a", "b"] {
        node.run_pod(pod, HALF, 1, |_| None).await.unwrap();
        start(&node, pod).await;
    }
    let before = instances(&node);
    node.remove_pod("b");
    node.until_allocatable(SEVENTH, 4).await;
    plugin.kill().await;
    let _plugin = ready_with_cdi(&node).await;
    node.until_allocatable(HALF, 2).await;
    start(&node, "a").await;
    assert_eq!(instances(&node), before);
    // The other half is free, and is cut anew.
    for number in 0..4 {
        node.until_allocatable(SEVENTH, 4).await;
        node.run_pod(&number.to_string(), SEVENTH, 1, |_| None).await.unwrap();
        start(&node, &number.to_string()).await;
    }
    assert_eq!(instances(&node).len(), 5);
    assert!(instances(&node).contains(&before[0]), "the first one is still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_handed_out_and_not_built_yet_outlives_the_program() {
    let node = node().await;
    let plugin = ready_with_cdi(&node).await;
    let gpu = node.gpus().await.remove(0);
    // In a place that the packing core would not choose.
    node.run_pod("small", SEVENTH, 1, |uid| Some(plan(uid, &gpu, 3))).await.unwrap();
    node.run_pod("big", HALF, 1, |_| None).await.unwrap();
    plugin.kill().await;
    node.api
        .store()
        .modify(&PODS, "default", "small", Part::Main, |pod| {
            pod["metadata"]["annotations"] = serde_json::Value::Null;
        })
        .unwrap();
    let _plugin = ready_with_cdi(&node).await;
    start(&node, "small").await;
    start(&node, "big").await;
    let starts = node.gpu_node().await.gpus.remove(0).offers;
    let starts: Vec<u8> = starts.iter().map(|offer| offer.slice.as_ref().unwrap().start).collect();
    assert_eq!((starts, instances(&node).len()), (vec![3, 4], 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_built_is_left_alone_and_its_place_is_not_offered() {
    let node = node().await;
    let _plugin = node.ready(ON_DEMAND).await;
    let id = node.driver(|driver| driver.create_gpu_instance(0, 9, Some(0)));
    node.until_allocatable(SEVENTH, 3).await;
    node.until_allocatable(ALL, 0).await;
    eventually("the GpuNode tells", || async { node.gpu_node().await.gpus[0].foreign_instances.len() == 1 })
        .await;
    for number in 0..3 {
        node.visible_in(&format!("small-{number}"), SEVENTH, 1).await;
    }
    assert_eq!(instances(&node).len(), 4);
    node.driver(|driver| driver.destroy_gpu_instance(0, id));
    node.until_allocatable(SEVENTH, 7).await;
    assert!(instances(&node).iter().all(|(profile, _)| *profile == SEVENTH_ID), "{:?}", instances(&node));
}

/// A plan for a seventh of a GPU at this place.
fn plan(uid: &str, gpu: &str, start: u8) -> Plan {
    let text = format!(
        r#"{{"v":1,"uid":"{uid}","node":"{NODE}","c":{{"main":{{"{SEVENTH}":[{{"gpu":"{gpu}","profile":"1g.5gb","start":{start}}}]}}}}}}"#
    );
    Plan::parse(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_slice_is_built_where_the_plan_says() {
    let node = node().await;
    let _plugin = node.ready(ON_DEMAND).await;
    let gpu = node.gpus().await.remove(0);
    node.run_pod("p", SEVENTH, 1, |uid| Some(plan(uid, &gpu, 3))).await.unwrap();
    eventually("the GpuNode tells where it is", || async {
        let status = node.gpu_node().await;
        let slices: Vec<u8> =
            status.gpus[0].offers.iter().map(|offer| offer.slice.as_ref().unwrap().start).collect();
        slices == [3] && status.allocations.len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_is_to_stay_as_it_is_stays() {
    let node = node_of(vec![a100().with_mig(&["3g.20gb"]), a100().with_mig(&[])]).await;
    let flags = [ON_DEMAND, &["--mig-static-gpus=0"]].concat();
    let _plugin = node.ready(&flags).await;
    let counted = [SEVENTH, HALF].map(|resource| node.allocatable()[resource]);
    assert_eq!(counted, [7, 3], "the one that is there, and what the other GPU can hold");
}

/// GPUs that are whole, shares or slices, as their first user wants them.
const ELASTIC: &str = "
version: v1
flags: {migStrategy: on-demand, elasticGPUs: true}
sharing: {timeSlicing: {renameByDefault: true, resources: [{name: nvidia.com/gpu, replicas: 4}]}}
";

fn is_cut(node: &Node) -> bool {
    let state = nvml_simulator::store::Store::open(&node.path("node.yaml")).unwrap().state().unwrap();
    state.gpus[0].mig_enabled
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_elastic_gpu_is_what_its_first_user_makes_it() {
    const TENTH: &str = "nvidia.com/mig-1g.10gb";
    let node = node_of(vec![nvml_simulator::description::GpuDescription::new("h100-80gb")]).await;
    let _plugin = node.ready_with_file(ELASTIC).await;
    let counted = || [GPU, SHARED, TENTH].map(|resource| node.allocatable()[resource]);
    assert_eq!(counted(), [1, 4, 7]);
    assert!(node.visible_in("slice", TENTH, 1).await[0].starts_with("MIG-"));
    assert!(is_cut(&node));
    node.until_allocatable(GPU, 0).await;
    node.until_allocatable(SHARED, 0).await;
    node.remove_pod("slice");
    node.until_allocatable(GPU, 1).await;
    assert!(is_cut(&node), "nobody wants it otherwise yet");
    assert_eq!(node.visible_in("whole", GPU, 1).await, node.gpus().await);
    assert!(!is_cut(&node));
    node.until_allocatable(TENTH, 0).await;
    node.until_allocatable(SHARED, 0).await;
    node.remove_pod("whole");
    node.until_allocatable(SHARED, 4).await;
    node.visible_in("share", SHARED, 1).await;
    node.until_allocatable(GPU, 0).await;
    // Each resource is told on a stream of its own.
    node.until_allocatable(TENTH, 0).await;
    assert_eq!(counted(), [0, 4, 0]);
}

/// A kubelet that does not know yet that the GPU is cut: what it asks and gets then.
async fn asked_for_a_whole_gpu(node: &Node) -> Result<(), tonic::Status> {
    let is_it = |socket: &PathBuf| socket.file_name().unwrap().to_string_lossy().starts_with("stowage-gpu-");
    let socket = node.sockets().into_iter().find(is_it).unwrap();
    let channel = kubelet_api::endpoint(&socket).unwrap().connect().await.unwrap();
    let container_requests = vec![ContainerAllocateRequest { devices_ids: node.gpus().await }];
    let request = AllocateRequest { container_requests };
    DevicePluginClient::new(channel).allocate(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slice_that_a_pod_has_is_not_taken_down_for_one_that_wants_the_gpu_whole() {
    const TENTH: &str = "nvidia.com/mig-1g.10gb";
    let node = node_of(vec![nvml_simulator::description::GpuDescription::new("h100-80gb")]).await;
    let _plugin = node.ready_with_file(ELASTIC).await;
    node.until_allocatable(TENTH, 7).await;
    node.visible_in("slice", TENTH, 1).await;
    let before = instances(&node);
    assert_eq!(before.len(), 1);
    // No process runs in the slice just now.
    let refused = asked_for_a_whole_gpu(&node).await.unwrap_err();
    let text = "the GPU cannot be had whole yet: a pod has 1g.10gb at ";
    assert!(refused.message().contains(text), "{refused}");
    assert_eq!(instances(&node), before);
    node.remove_pod("slice");
    node.until_allocatable(GPU, 1).await;
    asked_for_a_whole_gpu(&node).await.unwrap();
    assert!(!is_cut(&node));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_gpu_is_elastic_as_far_as_it_needs_no_reset() {
    let node = node_of(vec![a100()]).await;
    let _plugin = node.ready_with_file(ELASTIC).await;
    assert_eq!([GPU, SHARED].map(|resource| node.allocatable()[resource]), [1, 4]);
    assert_eq!(node.allocatable().len(), 2, "no slices");
    node.visible_in("share", SHARED, 1).await;
    node.until_allocatable(GPU, 0).await;
}
