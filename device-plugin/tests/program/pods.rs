//! What pods get.

use nvml_simulator::store::Store;
use stowage_shared::plan::{Plan, PlannedDevice};
use stowage_stand_ins::kubelet::AdmittedContainer;

use crate::harness::*;

const FOUR_SHARES: &str =
    "sharing: {timeSlicing: {renameByDefault: true, resources: [{name: nvidia.com/gpu, replicas: 4}]}}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_a_plan_gets_the_devices_of_its_plan() {
    let node = Node::new(vec![a100().times(4)]).await;
    let mut plugin = node.ready(&[]).await;
    let gpus = node.gpus().await;
    // Neither the first nor the last ones, which anybody might give it by chance.
    for (pod, gpu) in [("a", &gpus[2]), ("b", &gpus[1])] {
        let got = node.run_pod(pod, GPU, 1, |uid| plan(uid, NODE, GPU, &[gpu])).await.unwrap();
        assert_eq!(visible(&got), [gpu.as_str()]);
        assert!(got.response.devices.is_empty(), "device nodes are the container runtime's business");
    }
    plugin.until_counted(r#"stowage_device_plugin_preferred_allocations_total{source="plan"} 2"#).await;
    plugin.until_counted(r#"stowage_device_plugin_allocations_total{result="planned"} 2"#).await;
    eventually("the GpuNode tells who holds what", || async {
        let held = node.gpu_node().await.allocations;
        held.iter().map(|held| (held.pod.as_str(), &held.device_ids[..])).collect::<Vec<_>>()
            == [("a", &gpus[2..3]), ("b", &gpus[1..2])]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_slice_is_found_by_its_place() {
    let node = Node::new(vec![a100().with_mig(&["1g.5gb"; 4])]).await;
    let _plugin = node.ready(&["--mig-strategy=mixed"]).await;
    let gpu = node.gpu_node().await.gpus.remove(0);
    let wanted = &gpu.offers[2];
    let slice = wanted.slice.as_ref().unwrap();
    let device = PlannedDevice {
        gpu: gpu.uuid.parse().unwrap(),
        slice: Some((slice.profile.clone(), slice.start)),
        memory: None,
    };
    let devices = [(SLICE.parse().unwrap(), vec![device])].into();
    let containers = [("main".to_owned(), devices)].into();
    let plan = |uid: &str| Some(Plan { uid: uid.to_owned(), node: NODE.to_owned(), containers });
    let got = node.run_pod("p", SLICE, 1, plan).await.unwrap();
    assert_eq!(visible(&got), [wanted.uuid.as_str()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_plan_shares_are_packed_on_one_gpu_if_the_policy_says_so() {
    let node = Node::new(vec![a100().times(3)]).await;
    let file = node.write("config.yaml", FOUR_SHARES);
    let _plugin = node.ready(&["--config-file", &file, "--shared-devices-allocation-policy=packed"]).await;
    let gpus = node.gpus().await;
    let second = |uid: &str| plan(uid, NODE, SHARED, &[&gpus[1]]);
    assert_eq!(visible(&node.run_pod("a", SHARED, 1, second).await.unwrap()), [gpus[1].as_str()]);
    for pod in ["b", "c", "d"] {
        assert_eq!(node.visible_in(pod, SHARED, 1).await, [gpus[1].as_str()], "the used GPU is filled first");
    }
    assert_ne!(node.visible_in("e", SHARED, 1).await, [gpus[1].as_str()], "until it is full");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_for_another_node_is_ignored_and_the_pod_runs() {
    let node = Node::new(vec![a100().times(2)]).await;
    let mut plugin = node.ready(&[]).await;
    let gpu = node.gpus().await.remove(1);
    let got = node.run_pod("p", GPU, 1, |uid| plan(uid, "n2", GPU, &[&gpu])).await.unwrap();
    assert_eq!(visible(&got).len(), 1);
    let log = plugin.until_said("The pod's plan is ignored.").await;
    assert!(log.contains(r#"the plan was made for node "n2""#), "{log}");
    plugin.until_counted("stowage_device_plugin_plans_ignored_total 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_nodes_are_named_where_the_configuration_says_so() {
    let node = Node::new(vec![a100().times(2), a100().with_mig(&["1g.5gb"])]).await;
    for name in ["nvidiactl", "nvidia-uvm"] {
        node.write(&format!("driver/dev/{name}"), "");
    }
    let instance = Store::open(&node.path("node.yaml")).unwrap().state().unwrap().gpus[2].gpu_instances[0].id;
    node.write(
        "proc/driver/nvidia-caps/mig-minors",
        &format!("config 1\nmonitor 2\ngpu2/gi{instance}/access 30\ngpu2/gi{instance}/ci0/access 31\n"),
    );
    let _plugin = node.ready(&["--mig-strategy=mixed", "--pass-device-specs"]).await;
    let gpu = node.gpus().await.remove(1);
    let whole = node.run_pod("whole", GPU, 1, |uid| plan(uid, NODE, GPU, &[&gpu])).await.unwrap();
    let slice = node.run_pod("slice", SLICE, 1, |_| None).await.unwrap();
    let told = |container: &AdmittedContainer| -> Vec<String> {
        let specs = container.response.devices.iter();
        let driver = node.path("driver").display().to_string();
        specs
            .map(|spec| {
                assert_eq!(spec.permissions, "rw");
                assert_eq!(spec.host_path, driver.clone() + &spec.container_path);
                spec.container_path.strip_prefix("/dev/").unwrap().to_owned()
            })
            .collect()
    };
    assert_eq!(told(&whole), ["nvidiactl", "nvidia-uvm", "nvidia1"]);
    let caps = ["nvidia-caps/nvidia-cap30", "nvidia-caps/nvidia-cap31"];
    assert_eq!(told(&slice), [&["nvidiactl", "nvidia-uvm", "nvidia2"][..], &caps].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_one_share_is_refused_where_the_configuration_says_so() {
    let node = Node::new(vec![a100()]).await;
    let _plugin = node
        .ready_with_file(
            &FOUR_SHARES.replace("renameByDefault", "failRequestsGreaterThanOne: true, renameByDefault"),
        )
        .await;
    let refused = node.run_pod("greedy", SHARED, 2, |_| None).await.unwrap_err();
    assert_eq!(refused.pod_reason(), Some("UnexpectedAdmissionError"));
    let message = refused.pod_message().unwrap();
    assert!(
        message.contains(
            "request for 'nvidia.com/gpu.shared: 2' too large: maximum request size for shared resources is 1"
        ),
        "{message}"
    );
    node.remove_pod("greedy");
    assert_eq!(node.visible_in("modest", SHARED, 1).await, [node.gpus().await[0].as_str()]);
}
