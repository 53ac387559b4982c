//! Slices on demand that the driver refuses to build although there is room.

use nvml_simulator::state::{Created, CreationFault};
use stowage_stand_ins::kubelet::AdmissionError;

use super::*;
use crate::on_demand::{instances, node, ready_with_cdi};

/// NVML's `NVML_ERROR_INSUFFICIENT_RESOURCES`.
const NO_RESOURCES: u32 = 23;

fn refuse(node: &Node, of: Created, times: u32) {
    node.driver(|driver| driver.fail_creations(0, CreationFault { of, times, code: NO_RESOURCES }));
}

/// The kubelet tries again, and the pod waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_cdi_the_container_waits_until_the_driver_builds_its_slice() {
    for of in [Created::GpuInstance, Created::ComputeInstance] {
        let node = node().await;
        let mut plugin = ready_with_cdi(&node).await;
        node.until_allocatable(SLICE, 7).await;
        refuse(&node, of, u32::MAX);
        node.run_pod("p", SLICE, 1, |_| None).await.unwrap();
        let error = node.kubelet.start_container("default", "p", "main").await.unwrap_err().to_string();
        assert!(error.contains("1g.5gb"), "{error}");
        plugin.until_said("1g.5gb").await;
        assert_eq!(instances(&node), [], "nothing half-built stays");
        refuse(&node, of, 0);
        node.kubelet.start_container("default", "p", "main").await.unwrap();
        assert_eq!(instances(&node).len(), 1);
        plugin.until_ready().await;
    }
}

/// The kubelet fails the pod for good; whoever made it makes another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_cdi_the_pod_is_refused_and_the_next_one_served() {
    let node = node().await;
    let mut plugin = node.ready(&["--mig-strategy=on-demand", FAST]).await;
    node.until_allocatable(SLICE, 7).await;
    refuse(&node, Created::GpuInstance, u32::MAX);
    let refused = node.run_pod("p", SLICE, 1, |_| None).await;
    assert!(matches!(&refused, Err(AdmissionError::Unexpected(_))), "{refused:?}");
    node.remove_pod("p");
    refuse(&node, Created::GpuInstance, 0);
    node.until_allocatable(SLICE, 7).await;
    assert!(node.visible_in("q", SLICE, 1).await[0].starts_with("MIG-"));
    assert_eq!(instances(&node).len(), 1);
    plugin.until_ready().await;
}
