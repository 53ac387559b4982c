//! From the start of the process to a node that offers its GPUs.

use kubelet_api::pod_resources::AllocatableResourcesRequest;
use nvml_simulator::description::GpuDescription;
use stowage_shared::units::MemoryMib;
use stowage_stand_ins::api_server::resources::GPU_NODES;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_device_is_registered_under_nvidias_name() {
    let node = Node::new(vec![a100().times(2), a100().with_mig(&["1g.5gb", "1g.5gb", "3g.20gb"])]).await;
    let _plugin = node.ready(&["--mig-strategy=mixed"]).await;
    let want = [(GPU, 2), (SLICE, 2), ("nvidia.com/mig-3g.20gb", 1)];
    assert_eq!(node.allocatable(), want.map(|(name, count)| (name.to_owned(), count)).into());
    assert_eq!(node.sockets().len(), 3, "each resource has a socket of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_resources_are_renamed_by_default_if_the_file_says_so() {
    let sharing = |rename: bool| {
        format!(
            "version: v1\nsharing: {{timeSlicing: {{renameByDefault: {rename}, resources: [{{name: {GPU}, replicas: 4}}]}}}}"
        )
    };
    for (rename, name) in [(true, SHARED), (false, GPU)] {
        let node = Node::new(vec![a100().times(2)]).await;
        let _plugin = node.ready_with_file(&sharing(rename)).await;
        assert_eq!(node.allocatable(), [(name.to_owned(), 8)].into());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubelet_is_told_the_numa_node_of_each_device() {
    let node = Node::new(vec![a100().times(3)]).await;
    // The simulated GPUs' bus addresses; the kernel says -1 where the platform does not tell.
    for (address, numa_node) in [("0000:04:00.0", "0\n"), ("0000:07:00.0", "1\n"), ("0000:0a:00.0", "-1\n")] {
        node.write(&format!("sys/bus/pci/devices/{address}/numa_node"), numa_node);
    }
    let _plugin = node.ready(&[]).await;
    let endpoint = kubelet_api::endpoint(node.kubelet.pod_resources_socket()).unwrap();
    let mut client = kubelet_api::pod_resources::client(endpoint.connect_lazy());
    let told = client.get_allocatable_resources(AllocatableResourcesRequest {}).await.unwrap().into_inner();
    let gpus = node.gpus().await;
    let mut numa_nodes = vec![None; gpus.len()];
    for devices in told.devices {
        let nodes: Vec<i64> = devices.topology.unwrap_or_default().nodes.iter().map(|node| node.id).collect();
        for id in devices.device_ids {
            numa_nodes[gpus.iter().position(|gpu| *gpu == id).unwrap()] = Some(nodes.clone());
        }
    }
    assert_eq!(numa_nodes, [Some(vec![0]), Some(vec![1]), Some(vec![])]);
    let published: Vec<_> = node.gpu_node().await.gpus.iter().map(|gpu| gpu.numa_node).collect();
    assert_eq!(published, [Some(0), Some(1), None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gpu_node_says_what_nvml_says() {
    let node = Node::new(vec![a100(), a100().with_mig(&["3g.20gb"])]).await;
    let _plugin = node.ready(&["--mig-strategy=mixed"]).await;
    let status = node.gpu_node().await;
    let gpus: Vec<_> =
        status.gpus.iter().map(|gpu| (gpu.index, gpu.model.as_str(), gpu.memory_mib.0)).collect();
    assert_eq!(gpus, [(0, "NVIDIA A100-SXM4-40GB", 40_960), (1, "NVIDIA A100-SXM4-40GB", 40_960)]);
    let slice = status.gpus[1].offers[0].slice.as_ref().unwrap();
    assert_eq!((slice.profile.as_str(), slice.size), ("3g.20gb", 4));
    assert_eq!(status.geometries.len(), 1, "once for the model");
    assert_eq!((status.summary.gpus, status.summary.in_use, status.summary.unhealthy), (2, 0, 0));
    let object = node.api.store().get(&GPU_NODES, "", NODE).unwrap();
    let owner = &object["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"]), (&"Node".into(), &NODE.into()));
    assert_eq!(owner["uid"], status.node_uid.as_str(), "it goes when its Node goes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_http_pages_tell_how_it_is() {
    let node = Node::new(vec![a100().times(2)]).await;
    let mut plugin = node.ready(&[]).await;
    assert_eq!(plugin.get("/livez").await, (200, "ok\n".into()));
    assert_eq!(plugin.get("/readyz").await, (200, "ok\n".into()));
    node.visible_in("p", GPU, 1).await;
    for line in [
        // One registration, at the first try: it serves before it registers, as the kubelet calls back at once.
        r#"stowage_device_plugin_registrations_total{resource_name="nvidia.com/gpu",result="ok"} 1"#,
        r#"stowage_device_plugin_kubelet_streams{resource_name="nvidia.com/gpu"} 1"#,
        r#"stowage_device_plugin_devices{resource_name="nvidia.com/gpu",health="healthy"} 2"#,
        r#"stowage_device_plugin_preferred_allocations_total{source="core"} 1"#,
        r#"stowage_device_plugin_allocations_total{result="unplanned"} 1"#,
    ] {
        plugin.until_counted(line).await;
    }
    let log = plugin.log();
    assert!(!log.contains("Registering again") && !log.contains(" WARN "), "{log}");
}

/// GPUs that share the machine's memory do not tell how much it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_does_not_tell_its_memory_is_offered_and_measured() {
    let gpu = GpuDescription { memory_mib: Some(0), ..GpuDescription::new("t4") };
    let node = Node::new(vec![gpu]).await;
    let file = "sharing: {timeSlicing: {resources: [{name: gpu, replicas: 2}]}}";
    let mut plugin = node.ready_with_file(file).await;
    node.until_allocatable(GPU, 2).await;
    assert_eq!(node.gpu_node().await.gpus[0].memory_mib, MemoryMib(0));
    eventually("it is measured", || async { node.gpu_node().await.gpus[0].utilization.is_some() }).await;
    let metrics = plugin.get("/metrics").await.1;
    assert!(metrics.contains("DCGM_FI_DEV_GPU_UTIL{") && !metrics.contains("DCGM_FI_DEV_FB"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_without_the_newer_call_for_memory_is_asked_by_the_older_one() {
    let node = Node::new(vec![a100()]).await;
    let library = node.path("driver/usr/lib64/libnvidia-ml.so.1");
    let mut bytes = std::fs::read(&library).unwrap();
    let name = b"nvmlDeviceGetMemoryInfo_v2\0";
    let at: Vec<usize> =
        bytes.windows(name.len()).enumerate().filter(|(_, here)| here == name).map(|(at, _)| at).collect();
    assert!(!at.is_empty());
    at.iter().for_each(|at| bytes[at + name.len() - 2] = b'9');
    std::fs::remove_file(&library).unwrap();
    std::fs::write(&library, bytes).unwrap();
    let _plugin = node.ready(&[]).await;
    assert_eq!(node.gpu_node().await.gpus[0].memory_mib, MemoryMib(40_960));
    eventually("it is measured", || async { node.gpu_node().await.gpus[0].utilization.is_some() }).await;
}
