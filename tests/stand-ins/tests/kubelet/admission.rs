//! Which devices a pod gets, what the plugin is asked, and in what words a pod fails.

use std::collections::BTreeMap;

use kubelet_api::device_plugin::{ContainerPreferredAllocationRequest, DevicePluginOptions};
use stowage_stand_ins::kubelet::{AdmissionError, ContainerKind, DeviceChoice};

use crate::fake_plugin::{Answers, Asked, FakePlugin};
use crate::node::{GPU, Node, becomes, devices, gpus, pod, pod_of, prefers, sick_gpu};

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn question(available: &[&str], must_include: &[&str], allocation_size: i32) -> Asked {
    Asked::Preferred(ContainerPreferredAllocationRequest {
        available_device_ids: ids(available),
        must_include_device_ids: ids(must_include),
        allocation_size,
    })
}

#[tokio::test]
async fn preferred_devices_are_allocated_and_the_plugins_answer_reaches_the_container() {
    let node = Node::new().await;
    let plugin = node.plugin(4, prefers(&["gpu-1", "gpu-3"])).await;
    plugin.take_asked();
    let admitted = node.admit(&pod("p", 2)).await.unwrap();
    assert_eq!(
        plugin.take_asked(),
        [question(&["gpu-0", "gpu-1", "gpu-2", "gpu-3"], &[], 2), Asked::Allocate(ids(&["gpu-1", "gpu-3"]))]
    );
    assert_eq!(devices(&admitted), [["gpu-1", "gpu-3"]]);
    assert_eq!(admitted.containers[0].response.envs["VISIBLE"], "gpu-1,gpu-3");
}

#[tokio::test]
async fn what_the_plugin_prefers_but_is_taken_is_dropped_and_the_rest_filled_up() {
    let node = Node::new().await;
    let _plugin = node.plugin(3, prefers(&["gpu-1"])).await;
    node.admit(&pod("first", 1)).await.unwrap();
    let second = node.admit(&pod("second", 2)).await.unwrap();
    assert_eq!(devices(&second), [["gpu-0", "gpu-2"]]);
}

#[tokio::test]
async fn plugin_without_the_option_is_not_asked_for_a_preference() {
    let node = Node::new().await;
    let plugin = node.plugin(1, Answers::default()).await;
    plugin.take_asked();
    node.admit(&pod("p", 1)).await.unwrap();
    assert_eq!(plugin.take_asked(), [Asked::Allocate(ids(&["gpu-0"]))]);
}

#[tokio::test]
async fn own_choice_takes_the_place_of_the_plugins() {
    let last = |request: &stowage_stand_ins::kubelet::ChoiceRequest<'_>| {
        assert_eq!((request.node_name, request.resource_name), ("gpu-node-1", GPU));
        request.available.iter().rev().take(request.size).cloned().collect()
    };
    let node = Node::with(|options| options.device_choice = DeviceChoice::own(last)).await;
    let plugin = node.plugin(4, prefers(&["gpu-0"])).await;
    plugin.take_asked();
    let admitted = node.admit(&pod("p", 2)).await.unwrap();
    assert_eq!(devices(&admitted), [["gpu-2", "gpu-3"]]);
    assert_eq!(plugin.take_asked(), [Asked::Allocate(ids(&["gpu-2", "gpu-3"]))]);
}

#[tokio::test]
async fn init_containers_devices_are_used_again_and_a_sidecars_are_not() {
    let node = Node::new().await;
    let plugin = node.plugin(4, prefers(&["gpu-0", "gpu-1"])).await;
    plugin.take_asked();
    let kinds = [
        ("load", ContainerKind::Init, 2),
        ("proxy", ContainerKind::Sidecar, 1),
        ("main", ContainerKind::App, 2),
    ];
    let admitted = node.admit(&pod_of("p", &kinds)).await.unwrap();
    let [load, proxy, main] = &devices(&admitted)[..] else { panic!("three containers") };
    assert_eq!(load[..], ["gpu-0", "gpu-1"]);
    assert!(load.contains(&proxy[0]), "the sidecar takes one of the two");
    let left = load.iter().find(|id| **id != proxy[0]).unwrap();
    let added = main.iter().find(|id| *id != left).unwrap();
    assert!(
        main.contains(left) && ["gpu-2", "gpu-3"].contains(added),
        "the other one and a new one: {main:?}"
    );

    let asked = plugin.take_asked();
    let last = question(&[left, "gpu-2", "gpu-3"], &[left], 2);
    assert_eq!(asked[asked.len() - 2], last, "{asked:#?}");
}

#[tokio::test]
async fn pod_that_asks_for_more_than_is_free_fails_in_the_kubelets_words() {
    let node = Node::new().await;
    let _plugin = node.plugin(3, Answers::default()).await;
    node.admit(&pod("first", 1)).await.unwrap();
    let error = node.kubelet.admit(pod("second", 3)).await.unwrap_err();
    assert_eq!(error.pod_reason(), Some("UnexpectedAdmissionError"));
    assert_eq!(
        error.pod_message().unwrap(),
        "Pod was rejected: Allocate failed due to requested number of devices unavailable for \
         nvidia.com/gpu. Requested: 3, Available: 2, which is unexpected"
    );
}

#[tokio::test]
async fn unhealthy_devices_are_not_given_out() {
    let node = Node::new().await;
    let plugin = node.plugin(2, Answers::default()).await;
    plugin.devices.send_replace(Some(vec![sick_gpu(0), sick_gpu(1)]));
    node.told(GPU, 2, 0).await;
    let refused = node.admit(&pod("p", 1)).await.unwrap_err();
    assert_eq!(
        refused,
        "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices \
         nvidia.com/gpu, which is unexpected"
    );
    plugin.devices.send_replace(Some([gpus(0..1), vec![sick_gpu(1)]].concat()));
    node.told(GPU, 2, 1).await;
    assert_eq!(devices(&node.admit(&pod("q", 1)).await.unwrap()), [["gpu-0"]]);
}

#[tokio::test]
async fn error_from_get_preferred_allocation_fails_the_pod() {
    let node = Node::new().await;
    let answers = Answers { preferred_error: Some("NVML is lost".to_owned()), ..prefers(&[]) };
    let plugin = node.plugin(2, answers).await;
    let refused = node.admit(&pod("p", 1)).await.unwrap_err();
    assert_eq!(
        refused,
        "Allocate failed due to device plugin GetPreferredAllocation rpc failed with err: rpc error: \
         code = Internal desc = NVML is lost, which is unexpected"
    );
    plugin.answers.lock().unwrap().preferred_error = None;
    node.admit(&pod("q", 2)).await.unwrap();
}

#[tokio::test]
async fn error_from_allocate_fails_the_pod_and_its_devices_are_free_again() {
    let node = Node::new().await;
    let plugin = node.plugin(2, Answers::default()).await;
    plugin.answers.lock().unwrap().allocate_error = Some("no such device".to_owned());
    let refused = node.admit(&pod("p", 2)).await.unwrap_err();
    assert_eq!(
        refused,
        "Allocate failed due to rpc error: code = Unknown desc = no such device, which is unexpected"
    );
    plugin.answers.lock().unwrap().allocate_error = None;
    node.admit(&pod("q", 2)).await.unwrap();
}

/// The first container's devices are held by a pod that has failed: the next pod must get them.
#[tokio::test]
async fn devices_of_a_pod_that_failed_halfway_go_to_the_next_pod() {
    let node = Node::new().await;
    let _plugin = node.plugin(2, Answers::default()).await;
    let halves = pod_of("p", &[("a", ContainerKind::App, 2), ("b", ContainerKind::App, 1)]);
    node.admit(&halves).await.unwrap_err();
    node.admit(&pod("q", 2)).await.unwrap();
}

#[tokio::test]
async fn pod_that_asks_for_what_no_plugin_serves_is_admitted_with_nothing() {
    let node = Node::new().await;
    let admitted = node.admit(&pod("p", 1)).await.unwrap();
    assert_eq!(devices(&admitted), [[""; 0]]);
}

#[tokio::test]
async fn several_resources_of_a_container_are_allocated_one_by_one_and_merged() {
    let node = Node::new().await;
    let whole = node.plugin(1, Answers::default()).await;
    let shared = "nvidia.com/gpu.shared";
    let list = gpus([8]);
    let share = FakePlugin::start(&node.plugins(), "shared.sock", shared, list, Answers::default()).await;
    node.told(shared, 1, 1).await;
    let mut both = pod("p", 1);
    both.containers[0].devices.insert(shared.to_owned(), 1);
    let admitted = node.admit(&both).await.unwrap();
    let held = &admitted.containers[0].devices;
    let expected: BTreeMap<_, _> = [(GPU, "gpu-0"), (shared, "gpu-8")].into();
    let held: BTreeMap<_, _> =
        held.iter().map(|(name, ids)| (name.as_str(), ids.first().unwrap().as_str())).collect();
    assert_eq!(held, expected);
    assert!(whole.take_asked().contains(&Asked::Allocate(ids(&["gpu-0"]))));
    assert!(share.take_asked().contains(&Asked::Allocate(ids(&["gpu-8"]))));
    let visible = &admitted.containers[0].response.envs["VISIBLE"];
    assert!(["gpu-0", "gpu-8"].contains(&visible.as_str()), "one of the two wins: {visible}");
}

#[tokio::test]
async fn pre_start_container_is_called_at_every_start_and_its_error_does_not_fail_the_pod() {
    let node = Node::new().await;
    let options = DevicePluginOptions { pre_start_required: true, ..Default::default() };
    let plugin = node.plugin(1, Answers { options, ..Answers::default() }).await;
    let first = node.admit(&pod("p", 1)).await.unwrap();
    plugin.take_asked();
    plugin.answers.lock().unwrap().pre_start_error = Some("not built yet".to_owned());
    let error = node.kubelet.start_container("default", "p", "main").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "device plugin PreStartContainer rpc failed with err: rpc error: code = Unknown desc = not built yet"
    );
    plugin.answers.lock().unwrap().pre_start_error = None;
    for _ in 0..2 {
        let told = node.kubelet.start_container("default", "p", "main").await.unwrap();
        assert_eq!(told, first.containers[0].response);
    }
    assert_eq!(plugin.take_asked(), vec![Asked::PreStart(ids(&["gpu-0"])); 3]);
    let unknown = node.kubelet.start_container("default", "p", "other").await.unwrap_err();
    assert!(unknown.to_string().starts_with("no container other in a pod default/p"), "{unknown}");
}

#[tokio::test]
async fn admission_is_one_pod_at_a_time() {
    let node = Node::new().await;
    let _plugin = node.plugin(8, Answers::default()).await;
    let pods: Vec<_> = (0..10).map(|number| pod(&format!("p{number}"), 1)).collect();
    let outcomes = futures::future::join_all(pods.iter().map(|pod| node.admit(pod))).await;
    let admitted: Vec<_> = outcomes.iter().flatten().collect();
    assert_eq!(admitted.len(), 8);
    let mut given: Vec<_> = admitted.iter().flat_map(|admitted| devices(admitted).concat()).collect();
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 8, "no device twice");
}

#[tokio::test]
async fn abandoned_admission_leaves_nothing_behind() {
    let node = Node::new().await;
    let plugin = node.plugin(1, Answers::default()).await;
    let hold = plugin.hold_allocate.lock().await;
    let (first, asked) = (pod("p", 1), plugin.asked.subscribe());
    tokio::select! {
        _ = node.admit(&first) => panic!("Allocate is held"),
        () = becomes(&asked, vec![Asked::Options, Asked::Allocate(ids(&["gpu-0"]))]) => {}
    }
    drop(hold);
    assert_eq!(node.kubelet.pod_resources().pod_resources, []);
    node.admit(&pod("q", 1)).await.unwrap();
}

#[tokio::test]
async fn stopped_kubelet_decides_nothing() {
    let node = Node::new().await;
    node.kubelet.stop().await;
    let error = node.kubelet.admit(pod("p", 1)).await.unwrap_err();
    assert!(matches!(error, AdmissionError::Stopped));
    assert_eq!(error.pod_reason(), None);
}
