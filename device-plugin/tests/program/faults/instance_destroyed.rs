//! A MIG instance that somebody destroys behind the program's back, while a pod holds it.

use super::*;
use crate::live::{MIXED, counts, destroy};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mig_device_that_a_pod_holds_stays_listed_as_unhealthy_when_it_is_destroyed() {
    let node = Node::new(vec![a100().with_mig(&["1g.5gb", "1g.5gb"])]).await;
    let mut plugin = node.ready(MIXED).await;
    let held = node.visible_in("p", SLICE, 1).await.remove(0);
    eventually("the GpuNode tells who holds it", || async { node.gpu_node().await.allocations.len() == 1 })
        .await;
    let offers = node.gpu_node().await.gpus.remove(0).offers;
    let index = offers.iter().position(|offer| offer.uuid == held).unwrap();
    let ids = node.driver(|driver| {
        let state = driver.state.gpus[0].clone();
        Ok(state.gpu_instances.iter().map(|instance| instance.id).collect::<Vec<_>>())
    });
    destroy(&node, 0, ids[index]);
    node.until_allocatable(SLICE, 1).await;
    assert_eq!(counts(&node, SLICE), Some((2, 1)), "what a pod holds does not vanish");
    let why = "its 1g.5gb instance was destroyed while a pod holds it";
    eventually("the GpuNode tells why", || async {
        let offers = node.gpu_node().await.gpus.remove(0).offers;
        offers.iter().any(|offer| offer.uuid == held && offer.unhealthy.as_deref() == Some(why))
    })
    .await;
    node.until_event("GpuUnhealthy", &format!("{held} of GPU 0 is unhealthy: {why}")).await;
    plugin.until_said(&format!("error=\"{why}")).await;
    plugin
        .until_counted(r#"stowage_device_plugin_gpu_failures_total{gpu="0",scope="instance",cause="gone"} 1"#)
        .await;
    node.remove_pod("p");
    eventually("it goes with its pod", || async { counts(&node, SLICE) == Some((1, 1)) }).await;
    plugin.until_ready().await;
}
