//! What breaks, and what is to be seen of it: the devices at the kubelet, the reason in the log, the metric, the Event
//! about the Node, the GpuNode, and the recovery without a restart.
//!
//! | what breaks | where |
//! |---|---|
//! | XID 79 (fatal), 94 (contained in an instance), 13 (an application's own) | [`xids`] |
//! | a GPU is lost, at the start or later | [`lost`] |
//! | an NVML call hangs | [`hanging_call`] |
//! | memory fails; the driver wants a reset | [`memory`] |
//! | a GPU with slices on demand does not answer one look | [`missed_look`] |
//! | an instance is destroyed behind our back | [`instance_destroyed`] |
//! | the driver refuses to create an instance | [`creation_refused`] |
//! | the CDI folder cannot be written | [`cdi_folder`] |
//! | the kubelet restarts, hangs up, or its socket is gone | [`kubelet`] |
//! | the driver is loaded again, or a `daemon-reload` takes its device nodes away | [`driver`] |

mod cdi_folder;
mod creation_refused;
mod driver;
mod hanging_call;
mod instance_destroyed;
mod kubelet;
mod lost;
mod memory;
mod missed_look;
mod xids;

use crate::harness::*;

const FAST: &str = "--nvml-period=200ms";

async fn unhealthy(node: &Node, gpu: usize) -> Option<String> {
    node.gpu_node().await.gpus[gpu].unhealthy.clone()
}

async fn until_unhealthy(node: &Node, gpu: usize, why: &str) {
    eventually(why, || async { unhealthy(node, gpu).await.is_some_and(|text| text.contains(why)) }).await;
}

async fn until_healthy(node: &Node, gpu: usize) {
    eventually("the GpuNode says that it is healthy", || async { unhealthy(node, gpu).await.is_none() })
        .await;
}
