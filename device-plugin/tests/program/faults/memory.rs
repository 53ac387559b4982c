//! Memory that fails, and what the driver wants done.

use nvml_simulator::state::{RecoveryAction, RemappedRows};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_fails_takes_its_gpu_until_it_is_reset() {
    let node = Node::new(vec![a100().times(2)]).await;
    let _plugin = node.ready(&[FAST, "--health-quiet-time=1s"]).await;
    let rows = RemappedRows { uncorrectable: 1, pending: true, ..RemappedRows::default() };
    node.driver(|driver| driver.set_remapped_rows(0, rows));
    until_unhealthy(&node, 0, "a damaged memory row waits to be replaced: it needs a reset").await;
    node.until_allocatable(GPU, 1).await;
    node.driver(|driver| driver.reset_gpu(0));
    until_healthy(&node, 0).await;
    node.driver(|driver| driver.add_ecc_errors(1, 0, 1));
    until_unhealthy(&node, 1, "memory errors that ECC could not mend").await;
    until_healthy(&node, 1).await;
    node.until_allocatable(GPU, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_driver_wants_done_is_said_and_over_when_it_is_done() {
    let node = Node::new(vec![a100().times(2)]).await;
    let _plugin = node.ready(&[FAST]).await;
    node.driver(|driver| driver.set_recovery_action(1, RecoveryAction::GpuReset));
    node.driver(|driver| driver.raise_xid(1, 119, None));
    node.until_allocatable(GPU, 1).await;
    until_unhealthy(&node, 1, "the driver says that it must be reset").await;
    node.driver(|driver| driver.set_recovery_action(1, RecoveryAction::None));
    node.until_allocatable(GPU, 2).await;
    until_healthy(&node, 1).await;
}
