//! Registration, device lists, and the end of a stream.

use std::time::Duration;

use tonic::Code;

use crate::fake_plugin::{Answers, Asked, FakePlugin, register};
use crate::node::{GPU, Node, becomes, gpus, sick_gpu};

#[tokio::test]
async fn registration_with_another_version_is_refused_in_the_kubelets_words() {
    let node = Node::new().await;
    let refused = register(&node.plugins(), "v1alpha1", "gpu.sock", GPU).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unknown);
    assert_eq!(
        refused.message(),
        r#"requested API version "v1alpha1" is not supported by kubelet. Supported version is ["v1beta1"]"#
    );
}

#[tokio::test]
async fn registration_of_a_native_resource_is_refused_in_the_kubelets_words() {
    let node = Node::new().await;
    let refused = register(&node.plugins(), "v1beta1", "gpu.sock", "cpu").await.unwrap_err();
    assert_eq!(refused.message(), r#"the ResourceName "cpu" is invalid"#);
}

#[tokio::test]
async fn registration_fails_when_the_plugin_does_not_serve_yet() {
    let node = Node::with(|options| options.dial_timeout = Duration::from_millis(50)).await;
    let refused = register(&node.plugins(), "v1beta1", "nobody.sock", GPU).await.unwrap_err();
    assert_eq!(refused.message(), "failed to dial device plugin: context deadline exceeded");
}

#[tokio::test]
async fn register_returns_after_the_plugin_was_asked_for_its_options() {
    let node = Node::new().await;
    let plugin = FakePlugin::start(&node.plugins(), "gpu.sock", GPU, vec![], Answers::default()).await;
    assert_eq!(plugin.take_asked(), [Asked::Options]);
}

#[tokio::test]
async fn every_list_is_the_whole_list() {
    let node = Node::new().await;
    let plugin = node.plugin(3, Answers::default()).await;
    plugin.devices.send_replace(Some([gpus(0..2), vec![sick_gpu(2)]].concat()));
    node.told(GPU, 3, 2).await;
    plugin.devices.send_replace(Some(gpus([7])));
    node.told(GPU, 1, 1).await;
    plugin.devices.send_replace(Some(vec![]));
    node.told(GPU, 0, 0).await;
}

#[tokio::test]
async fn end_of_the_stream_keeps_the_capacity_for_the_grace_period_with_nothing_allocatable() {
    let node = Node::with(|options| options.endpoint_stop_grace_period = Duration::from_millis(300)).await;
    let plugin = node.plugin(2, Answers::default()).await;
    drop(plugin);
    node.told(GPU, 2, 0).await;
    node.told(GPU, 0, 0).await;
}

#[tokio::test]
async fn plugin_that_registers_again_replaces_the_one_before() {
    let node = Node::new().await;
    drop(node.plugin(2, Answers::default()).await);
    node.told(GPU, 2, 0).await;
    let next = FakePlugin::start(&node.plugins(), "next.sock", GPU, gpus(0..5), Answers::default()).await;
    node.told(GPU, 5, 5).await;
    becomes(&next.streams, 1).await;
}

/// Kubernetes 1.36 disconnects by name (its issue 127803): a plugin that hands over to its next
/// instance takes that one down with it. Ours has to notice, so the stand-in must do it.
#[tokio::test]
async fn end_of_an_older_instances_stream_disconnects_the_newer_one() {
    let node = Node::new().await;
    let old = node.plugin(2, Answers::default()).await;
    let new = FakePlugin::start(&node.plugins(), "new.sock", GPU, gpus(0..3), Answers::default()).await;
    node.told(GPU, 3, 3).await;
    drop(old);
    node.told(GPU, 3, 0).await;
    becomes(&new.streams, 0).await;
    new.register(GPU).await.unwrap();
    node.told(GPU, 3, 3).await;
}

#[tokio::test]
async fn dropped_stream_is_seen_by_the_plugin_and_takes_the_allocatable_devices() {
    let node = Node::new().await;
    let plugin = node.plugin(2, Answers::default()).await;
    becomes(&plugin.streams, 1).await;
    assert!(node.kubelet.drop_stream(GPU));
    becomes(&plugin.streams, 0).await;
    node.told(GPU, 2, 0).await;
    assert!(!node.kubelet.drop_stream(GPU), "nobody is registered any more");

    plugin.register(GPU).await.unwrap();
    node.told(GPU, 2, 2).await;
}
