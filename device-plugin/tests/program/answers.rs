//! What containers are told, through the kubelet; the fields themselves are compared with NVIDIA's beside the code.

use serde_json::Value;
use stowage_shared::contract::ExitCode;

use crate::harness::*;

/// A node with two whole A100 and the plugin with these flags; CDI specs go into the node's folder `cdi`.
async fn node(flags: &[&str]) -> (Node, Plugin) {
    let node = Node::new(vec![a100().times(2)]).await;
    let cdi = node.path("cdi").display().to_string();
    let flags: Vec<&str> = flags.iter().copied().chain(["--cdi-root", &cdi]).collect();
    let plugin = node.ready(&flags).await;
    (node, plugin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cdi_devices_stand_in_the_spec_that_the_runtime_reads() {
    let (node, _plugin) = node(&["--device-list-strategy=cdi-cri"]).await;
    let pod = node.run_pod("p", GPU, 1, |_| None).await.unwrap();
    assert!(pod.response.envs.is_empty(), "no runtime hook shall look for devices too");
    let [device] = &pod.response.cdi_devices[..] else { panic!("{:?}", pod.response) };
    let name = device.name.strip_prefix("k8s.device-plugin.nvidia.com/gpu=").unwrap();
    let path = node.path("cdi/k8s.device-plugin.nvidia.com-gpu.json");
    let spec: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let names: Vec<_> = spec["devices"].as_array().unwrap().iter().map(|device| &device["name"]).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&&Value::from(name)), "{names:?}");
    assert_eq!(spec["containerEdits"]["env"][0], "NVIDIA_VISIBLE_DEVICES=void");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_strategies_are_told_at_once() {
    let (node, _plugin) = node(&["--device-list-strategy=volume-mounts,cdi-annotations"]).await;
    let response = node.run_pod("p", GPU, 1, |_| None).await.unwrap().response;
    assert_eq!(response.envs["NVIDIA_VISIBLE_DEVICES"], "/var/run/nvidia-container-devices");
    let gpu = response.mounts[0].container_path.rsplit_once('/').unwrap().1;
    let told: Vec<&String> = response.annotations.values().collect();
    assert_eq!(told, [&format!("k8s.device-plugin.nvidia.com/gpu={gpu}")]);
    assert!(node.gpus().await.iter().any(|known| known == gpu));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_cdi_no_spec_is_written() {
    let (node, _plugin) = node(&[]).await;
    assert!(!node.path("cdi").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cdi_folder_that_cannot_be_is_named() {
    let node = Node::new(vec![a100()]).await;
    let file = node.write("cdi", "a file in its place");
    let plugin =
        node.start(|command| _ = command.args(["--device-list-strategy=cdi-cri", "--cdi-root", &file]));
    let (ended, log) = plugin.ended().await;
    assert_eq!(ended, Some(ExitCode::Unavailable as i32), "{log}");
    assert!(log.contains(&format!("cannot write {file}")), "{log}");
    assert!(node.sockets().is_empty(), "nothing is offered that no container would get");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_are_spread_over_gpus_as_nvidias_are_unless_they_are_to_be_packed() {
    for (policy, gpus) in [(None, 2), (Some("distributed"), 2), (Some("packed"), 1)] {
        let node = Node::new(vec![a100().times(2)]).await;
        let file = node.write(
            "config.yaml",
            "sharing: {timeSlicing: {resources: [{name: gpu, replicas: 4, rename: quarter}]}}",
        );
        let policy = policy.map(|policy| format!("--shared-devices-allocation-policy={policy}"));
        let flags: Vec<&str> = ["--config-file", &file].into_iter().chain(policy.as_deref()).collect();
        let _plugin = node.ready(&flags).await;
        node.until_allocatable("nvidia.com/quarter", 8).await;
        let mut seen = node.visible_in("a", "nvidia.com/quarter", 1).await;
        seen.extend(node.visible_in("b", "nvidia.com/quarter", 1).await);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), gpus, "{policy:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_of_one_gpu_are_refused_where_different_gpus_are_wanted() {
    let node = Node::new(vec![a100().times(2)]).await;
    let file =
        "sharing: {timeSlicing: {distinctGPUs: true, resources: [{name: gpu, replicas: 4, devices: 2}]}}";
    let _plugin = node.ready_with_file(file).await;
    assert_eq!(node.visible_in("two", GPU, 2).await.len(), 2);
    let error = node.run_pod("three", GPU, 3, |_| None).await.unwrap_err().to_string();
    assert!(error.contains("wants shares of different GPUs (sharing.timeSlicing.distinctGPUs)"), "{error}");
}
