//! MIG strategies, and who may set them.

use nvml_simulator::description::GpuDescription;

use crate::harness::*;

/// What a node of such GPUs offers under a strategy.
async fn offered(gpus: Vec<GpuDescription>, strategy: &str) -> Vec<(String, u64)> {
    let node = Node::new(gpus).await;
    let _plugin = node.ready(&["--mig-strategy", strategy]).await;
    node.allocatable().into_iter().collect()
}

fn resources(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_offers_whole_gpus_whatever_their_mig_mode() {
    let gpus = vec![a100(), a100().with_mig(&["1g.5gb", "3g.20gb"])];
    assert_eq!(offered(gpus, "none").await, resources(&[(GPU, 2)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_offers_slices_as_gpus() {
    let node = Node::new(vec![a100().with_mig(&["3g.20gb", "3g.20gb"]).times(2)]).await;
    let _plugin = node.ready(&["--mig-strategy=single"]).await;
    assert_eq!(node.allocatable(), [(GPU.to_owned(), 4)].into());
    let devices = node.visible_in("p", GPU, 1).await;
    assert!(devices[0].starts_with("MIG-"), "{devices:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_offers_whole_gpus_and_slices_by_profile() {
    let gpus = vec![a100(), a100().with_mig(&["1g.5gb", "1g.5gb+me", "3g.20gb"])];
    let want = [(GPU, 1), (SLICE, 1), ("nvidia.com/mig-1g.5gb.me", 1), ("nvidia.com/mig-3g.20gb", 1)];
    assert_eq!(offered(gpus, "mixed").await, resources(&want));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_come_before_the_environment_and_that_before_the_file() {
    let node = Node::new(vec![a100().with_mig(&["1g.5gb"])]).await;
    let file = node.write("config.yaml", "flags: {migStrategy: none, plugin: {deviceIDStrategy: index}}");
    for (flag, env, resource, visible) in [
        ("", "", GPU, "0"),
        ("", "mixed", SLICE, "0:0"),
        ("--mig-strategy=none", "mixed", GPU, "0"),
        ("--mig-strategy=single", "", GPU, "0:0"),
    ] {
        let mut plugin = node.start(|command| {
            command.args(["--config-file", &file]).env("MIG_STRATEGY", env);
            command.args(Some(flag).filter(|flag| !flag.is_empty()));
        });
        plugin.until_ready().await;
        assert_eq!(node.visible_in("p", resource, 1).await, [visible], "{flag:?} {env:?}");
        node.remove_pod("p");
        assert_eq!(plugin.terminate().await.0, Some(0));
    }
}
