//! A CDI folder that cannot be written, as when its file system is full.

use super::*;

const SPEC: &str = "k8s.device-plugin.nvidia.com-gpu.json";
/// Where a spec is written before it takes the old one's place.
const DRAFT: &str = "cdi/.k8s.device-plugin.nvidia.com-gpu.new";

fn flags(node: &Node) -> [String; 4] {
    let root = format!("--cdi-root={}", node.path("cdi").display());
    [FAST.to_owned(), "--mig-strategy=mixed".to_owned(), "--device-list-strategy=cdi-cri".to_owned(), root]
}

/// Makes every write of the spec fail, for whoever runs this test: root may write where nobody may.
fn block(node: &Node) {
    std::fs::create_dir_all(node.path(DRAFT)).unwrap();
}

fn unblock(node: &Node) {
    std::fs::remove_dir(node.path(DRAFT)).unwrap();
}

fn spec(node: &Node) -> String {
    std::fs::read_to_string(node.path("cdi").join(SPEC)).unwrap()
}

async fn node() -> Node {
    let node = Node::new(vec![a100().with_mig(&["1g.5gb"])]).await;
    let minors =
        (0..15).map(|id| format!("gpu0/gi{id}/access {}\ngpu0/gi{id}/ci0/access {}\n", 10 * id, 10 * id + 1));
    node.write("proc/driver/nvidia-caps/mig-minors", &minors.collect::<String>());
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_start_it_ends_the_program_with_the_reason_and_offers_nothing() {
    let node = node().await;
    block(&node);
    let (code, log) = node.start(|command| _ = command.args(flags(&node))).ended().await;
    assert_eq!(code, Some(69), "restart it:\n{log}");
    assert!(log.contains(&format!("cannot write {}", node.path("cdi").join(SPEC).display())), "{log}");
    assert!(node.sockets().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_what_is_there_goes_on_and_new_devices_are_told_as_soon_as_they_can_be() {
    let node = node().await;
    let flags = flags(&node);
    let mut plugin = node.ready(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let before = spec(&node);
    block(&node);
    crate::live::create(&node, 0, crate::live::SMALL_ID, 1);
    plugin.until_not_ready("cannot write").await;
    node.until_event("DevicesNotTold", "cannot write").await;
    plugin.until_said("New devices cannot be told to containers in full: it is tried again.").await;
    assert_eq!(spec(&node), before, "a runtime reads the old one, never half of a new one");
    assert_eq!(plugin.get("/livez").await.0, 200);
    unblock(&node);
    plugin.until_ready().await;
    node.until_event("DevicesTold", "in full again").await;
    assert!(spec(&node).len() > before.len());
    node.until_allocatable(SLICE, 2).await;
    assert_eq!(plugin.log().matches("New devices cannot be told").count(), 1, "said once");
}
