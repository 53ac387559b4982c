//! How busy the GPUs are: in the metrics, and in the GpuNode.

use nvml_simulator::state::{Process, Utilization};
use nvml_simulator::store::Store;

use crate::harness::*;

/// Makes GPU 0 busy, with a program that has taken memory.
fn work(node: &Node, gpu_percent: u8, memory_mib: u64, instance: Option<(u32, u32)>) {
    let mut store = Store::open(&node.path("node.yaml")).unwrap();
    let utilization = Utilization { gpu_percent, memory_percent: gpu_percent / 2 };
    let done = store.update(|node| {
        node.set_utilization(0, utilization)?;
        node.start_process(0, Process { pid: 1, memory_mib, instance })
    });
    done.unwrap();
}

/// The value of the one metric line that begins with this name and has all of these labels.
fn value(metrics: &str, name: &str, labels: &[&str]) -> Option<String> {
    let mut lines = metrics.lines().filter(|line| {
        line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
    });
    let found = lines.next().map(|line| line.rsplit(' ').next().unwrap().to_owned());
    assert_eq!(lines.next(), None, "one line only");
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gpus_are_told_as_dcgm_exporter_does_with_the_pod_that_holds_them() {
    let node = Node::new(vec![a100().times(2)]).await;
    work(&node, 73, 10_240, None);
    let mut plugin = node.ready(&[]).await;
    let gpu = node.gpus().await.remove(0);
    node.run_pod("p", GPU, 1, |uid| plan(uid, NODE, GPU, &[&gpu])).await.unwrap();
    eventually("the pod is known", || async { node.gpu_node().await.allocations.len() == 1 }).await;
    let uuid = format!(r#"UUID="{gpu}""#);
    let labels = [
        uuid.as_str(),
        r#"gpu="0""#,
        r#"modelName="NVIDIA A100-SXM4-40GB""#,
        r#"Hostname="n1""#,
        r#"namespace="default""#,
        r#"pod="p""#,
        r#"container="main""#,
    ];
    let metrics = until_told(&mut plugin, "DCGM_FI_DEV_GPU_UTIL{").await;
    assert!(metrics.contains("# TYPE DCGM_FI_DEV_GPU_UTIL gauge"), "{metrics}");
    for (name, want) in [
        ("DCGM_FI_DEV_GPU_UTIL", "73.0"),
        ("DCGM_FI_DEV_MEM_COPY_UTIL", "36.0"),
        ("DCGM_FI_DEV_FB_USED", "10240.0"),
        ("DCGM_FI_DEV_FB_FREE", "30720.0"),
        ("stowage_device_plugin_allocated_devices", "1.0"),
    ] {
        assert_eq!(value(&metrics, name, &labels).as_deref(), Some(want), "{name}\n{metrics}");
    }
    assert_eq!(value(&metrics, "DCGM_FI_DEV_GPU_UTIL", &[r#"gpu="1""#, r#"pod="""#]).as_deref(), Some("0.0"));
    eventually("the GpuNode tells it", || async {
        let busy = node.gpu_node().await.gpus[0].utilization;
        busy.is_some_and(|busy| (busy.gpu_percent, busy.memory_percent) == (Some(73), 25))
    })
    .await;
    node.remove_pod("p");
    eventually("the pod is gone", || async { node.gpu_node().await.allocations.is_empty() }).await;
    assert!(!plugin.get("/metrics").await.1.contains(r#"pod="p""#), "its labels go with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_takes_more_than_its_share_is_told() {
    let node = Node::new(vec![a100()]).await;
    let file =
        "sharing: {timeSlicing: {renameByDefault: true, resources: [{name: nvidia.com/gpu, replicas: 4}]}}";
    let mut plugin = node.ready_with_file(file).await;
    let gpu = node.gpus().await.remove(0);
    let mut pod = String::new();
    let plan = |uid: &str| {
        pod = uid.to_owned();
        sized_plan(uid, NODE, SHARED, &[&gpu], Some(2048))
    };
    node.run_pod("greedy", SHARED, 1, plan).await.unwrap();
    let slice = pod.replace('-', "_");
    node.write(
        "proc/1/cgroup",
        &format!("0::/kubepods.slice/kubepods-besteffort-pod{slice}.slice/x.scope\n"),
    );
    work(&node, 10, 3000, None);
    node.until_event(
        "GpuShareExceeded",
        "pod default/greedy takes 3000 MiB of GPU 0, and its shares are 2048 MiB",
    )
    .await;
    let metrics = plugin.get("/metrics").await.1;
    let labels = [r#"pod="greedy""#, r#"namespace="default""#, r#"gpu="0""#];
    for (name, mib) in [("share_memory_bytes", 2048.0), ("share_memory_used_bytes", 3000.0)] {
        let value = value(&metrics, &format!("stowage_device_plugin_{name}"), &labels).unwrap();
        assert_eq!(value.parse(), Ok(mib * f64::from(1 << 20)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slice_tells_its_own_memory() {
    let node = Node::new(vec![a100().with_mig(&["1g.5gb"])]).await;
    let instance = Store::open(&node.path("node.yaml")).unwrap().state().unwrap().gpus[0].gpu_instances[0].id;
    work(&node, 50, 1_024, Some((instance, 0)));
    let mut plugin = node.ready(&["--mig-strategy=mixed"]).await;
    let metrics = until_told(&mut plugin, "DCGM_FI_DEV_FB_USED{").await;
    let labels = [r#"GPU_I_PROFILE="1g.5gb""#, &format!(r#"GPU_I_ID="{instance}""#)];
    assert_eq!(value(&metrics, "DCGM_FI_DEV_FB_USED", &labels).as_deref(), Some("1024.0"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_dcgm_exporter_the_names_are_left_to_it() {
    let node = Node::new(vec![a100()]).await;
    let mut plugin = node.ready(&["--dcgm-metrics=false"]).await;
    eventually("it measures", || async { node.gpu_node().await.gpus[0].utilization.is_some() }).await;
    node.run_pod("p", GPU, 1, |_| None).await.unwrap();
    // Who holds what only the plugin knows.
    let metrics = until_told(&mut plugin, "stowage_device_plugin_allocated_devices{").await;
    assert!(!metrics.contains("DCGM"), "{metrics}");
}

/// Waits until a text is in the metrics; all of them.
async fn until_told(plugin: &mut Plugin, text: &str) -> String {
    let asking = async {
        loop {
            let metrics = plugin.get("/metrics").await.1;
            if metrics.contains(text) {
                return metrics;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.expect(text)
}
