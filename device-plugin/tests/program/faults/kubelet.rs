//! A kubelet that restarts, hangs up, or whose socket is gone.

use stowage_stand_ins::kubelet::{Kubelet, KubeletOptions};

use super::*;

const AGAIN: &str =
    r#"stowage_device_plugin_registrations_total{resource_name="nvidia.com/gpu",result="ok"} 2"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_registers_again_after_a_kubelet_restart() {
    let node = Node::new(vec![a100().times(2)]).await;
    let mut plugin = node.ready(&[]).await;
    let before = node.sockets();
    let held = node.visible_in("a", GPU, 1).await;
    node.kubelet.restart().await.unwrap();
    plugin.until_counted(AGAIN).await;
    node.until_allocatable(GPU, 2).await;
    plugin.until_ready().await;
    assert!(node.sockets().iter().all(|socket| !before.contains(socket)), "under a name of its own");
    assert_ne!(node.visible_in("b", GPU, 1).await, held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_registers_again_after_its_socket_was_removed() {
    let node = Node::new(vec![a100().times(2)]).await;
    let mut plugin = node.ready(&[]).await;
    for socket in node.sockets() {
        std::fs::remove_file(socket).unwrap();
    }
    plugin.until_counted(AGAIN).await;
    node.until_allocatable(GPU, 2).await;
    assert_eq!(node.sockets().len(), 1);
    assert_eq!(node.visible_in("p", GPU, 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_registers_again_after_the_kubelet_hung_up() {
    let node = Node::new(vec![a100().times(2), a100().with_mig(&["1g.5gb"])]).await;
    let mut plugin = node.ready(&["--mig-strategy=mixed"]).await;
    assert!(node.kubelet.drop_stream(GPU));
    plugin.until_counted(AGAIN).await;
    node.until_allocatable(GPU, 2).await;
    let log = plugin.until_said("the kubelet hung up").await;
    assert!(log.contains("Registering again."), "{log}");
    plugin
        .until_counted(
            r#"stowage_device_plugin_registrations_total{resource_name="nvidia.com/mig-1g.5gb",result="ok"} 1"#,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_outlives_a_kubelet_that_is_away() {
    let node = Node::new(vec![a100()]).await;
    let mut plugin = node.ready(&[]).await;
    node.kubelet.stop().await;
    // Its socket's file stays, with nobody behind it.
    plugin.until_not_ready("waiting for the kubelet at").await;
    assert_eq!(plugin.get("/livez").await.0, 200);
    node.kubelet.resume().await.unwrap();
    node.until_allocatable(GPU, 1).await;
    plugin.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_kubelet_socket_is_named_once_and_waited_for() {
    let node = Node::new(vec![a100()]).await;
    let elsewhere = node.path("other");
    std::fs::create_dir(&elsewhere).unwrap();
    let socket = elsewhere.join("kubelet.sock");
    let mut plugin = node.start(|command| _ = command.arg("--kubelet-socket").arg(&socket));
    let why = format!(
        "waiting for the kubelet at {}: there is no such socket. Is it running, and --kubelet-socket (KUBELET_SOCKET) right?",
        socket.display()
    );
    plugin.until_not_ready(&why).await;
    let log = plugin.until_said("The resource is not registered.").await;
    assert!(log.contains(&why), "{log}");
    // A kubelet that comes late is taken at once.
    let late =
        KubeletOptions { device_plugin_dir: elsewhere, ..KubeletOptions::new(NODE, node.path("late")) };
    let _late = Kubelet::start(late).await.unwrap();
    plugin.until_ready().await;
    assert_eq!(plugin.log().matches("The resource is not registered.").count(), 1);
}
