//! What a restart of the kubelet does to plugins, pods and sockets.

use kubelet_api::pod_resources::ListPodResourcesRequest;
use stowage_stand_ins::kubelet::{Kubelet, KubeletOptions, StartError};

use crate::fake_plugin::{Answers, FakePlugin};
use crate::node::{GPU, Node, becomes, devices, gpus, is_socket, pod};

#[tokio::test]
async fn restart_deletes_every_socket_and_makes_its_own_anew() {
    let node = Node::new().await;
    let plugin = node.plugin(1, Answers::default()).await;
    let other = node.plugins().join("kubelet_internal_checkpoint");
    std::fs::write(&other, "{}").unwrap();
    becomes(&plugin.streams, 1).await;
    node.kubelet.restart().await.unwrap();
    assert!(!plugin.socket.exists());
    assert!(is_socket(&node.kubelet.registration_socket()));
    assert!(is_socket(node.kubelet.pod_resources_socket()));
    assert!(other.exists(), "only sockets are deleted");
    becomes(&plugin.streams, 0).await;
    node.told(GPU, 0, 0).await;
}

#[tokio::test]
async fn pods_keep_their_devices_over_a_restart() {
    let node = Node::new().await;
    let before = node.plugin(2, Answers::default()).await;
    let first = node.admit(&pod("first", 1)).await.unwrap();
    let listed = node.kubelet.pod_resources();
    node.kubelet.restart().await.unwrap();

    let refused = node.admit(&pod("too-early", 1)).await.unwrap_err();
    assert!(refused.contains("no healthy devices present"), "{refused}");
    let list = node.pod_resources().await.list(ListPodResourcesRequest {}).await.unwrap();
    assert_eq!(list.into_inner(), listed);

    drop(before);
    let _after = FakePlugin::start(&node.plugins(), "after.sock", GPU, gpus(0..2), Answers::default()).await;
    node.told(GPU, 2, 2).await;
    let second = node.admit(&pod("second", 1)).await.unwrap();
    assert_ne!(devices(&first), devices(&second));
    let again = node.admit(&pod("first", 1)).await.unwrap();
    assert_eq!(devices(&first), devices(&again), "and its Allocate answer was kept");
    assert_eq!(first.containers[0].response, again.containers[0].response);
}

#[tokio::test]
async fn stopped_kubelet_leaves_its_sockets_with_nobody_listening_until_it_resumes() {
    let node = Node::new().await;
    let plugin = node.plugin(2, Answers::default()).await;
    let mut client = node.pod_resources().await;
    client.list(ListPodResourcesRequest {}).await.unwrap();
    let connect = || tokio::net::UnixStream::connect(node.kubelet.registration_socket());
    node.kubelet.stop().await;
    client.list(ListPodResourcesRequest {}).await.unwrap_err();
    becomes(&plugin.streams, 0).await;
    assert!(is_socket(&node.kubelet.registration_socket()));
    assert_eq!(connect().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    node.told(GPU, 2, 2).await;
    assert_eq!(node.kubelet.allocatable()[GPU].allocatable, 2, "nobody updates the Node");

    node.kubelet.resume().await.unwrap();
    node.told(GPU, 0, 0).await;
    connect().await.unwrap();
    client.list(ListPodResourcesRequest {}).await.unwrap();
    node.kubelet.resume().await.unwrap();
}

#[tokio::test]
async fn dropped_kubelet_hangs_up_on_its_plugins() {
    let node = Node::new().await;
    let plugin = node.plugin(1, Answers::default()).await;
    becomes(&plugin.streams, 1).await;
    drop(node);
    becomes(&plugin.streams, 0).await;
}

#[tokio::test]
async fn socket_path_that_is_too_long_is_named_in_the_error() {
    let root = tempfile::tempdir().unwrap();
    let long = root.path().join("x".repeat(100));
    let error = Kubelet::start(KubeletOptions::new("node", &long)).await.unwrap_err();
    assert!(matches!(&error, StartError::Listen { .. }), "{error:?}");
    assert!(error.to_string().contains(&long.display().to_string()), "{error}");
}
