//! An API server that is not as it should be: pods go on being served, and one line says what to do.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use stowage_stand_ins::api_server::resources::{GPU_NODES, NODES, known};
use stowage_stand_ins::api_server::{ApiError, Attributes, DeleteOptions, Fault};

use crate::harness::*;

/// Answers these requests as RBAC does where a right is missing.
fn forbid(node: &Node, which: impl Fn(&Attributes) -> bool + Send + Sync + 'static) {
    node.api.set_fault(Some(Arc::new(move |asked| {
        let no = || format!("cannot {} {}", asked.verb, asked.resource);
        which(asked).then(|| Fault::Refuse(ApiError::new(403, "Forbidden", no())))
    })));
}

/// Waits until a request was made so many times.
async fn until_tried(node: &Node, verb: &str, resource: &str, times: usize) {
    eventually("it goes on trying", || async {
        let tries = node.api.audit().into_iter().map(|record| record.attributes);
        tries.filter(|asked| asked.verb == verb && asked.resource == resource).count() >= times
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_crd_pods_are_served_and_it_says_once_what_to_apply() {
    let node = Node::new(vec![a100().times(2)]).await;
    node.api.store().uninstall(&GPU_NODES);
    let mut plugin = node.start(|_| {});
    plugin.until_ready().await;
    let log = plugin.until_said("The GpuNode cannot be written").await;
    assert!(log.contains("the API server knows no gpunodes.stowage.dev"), "{log}");
    assert!(log.contains("apply deploy/crds/gpunodes.yaml"), "{log}");
    assert_eq!(node.visible_in("p", GPU, 1).await.len(), 1);
    until_tried(&node, "patch", "gpunodes", 3).await;
    assert_eq!(plugin.log().matches("The GpuNode cannot be written").count(), 1);
    plugin.until_counted(r#"stowage_device_plugin_gpunode_writes_total{result="missing_crd"} 3"#).await;
    known().into_iter().for_each(|resource| node.api.store().install(resource));
    plugin.until_said("The GpuNode is written again.").await;
    assert_eq!(node.gpu_node().await.allocations.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_to_write_gpu_nodes_pods_are_served_and_it_says_once_what_to_apply() {
    let node = Node::new(vec![a100().times(2)]).await;
    forbid(&node, |asked| asked.resource == "gpunodes");
    let mut plugin = node.start(|_| {});
    plugin.until_ready().await;
    let log = plugin.until_said("The GpuNode cannot be written").await;
    assert!(log.contains("cannot patch gpunodes (HTTP 403)"), "{log}");
    assert!(log.contains("apply deploy/manifests/device-plugin-rbac.yaml"), "{log}");
    let gpu = node.visible_in("p", GPU, 1).await.remove(0);
    until_tried(&node, "patch", "gpunodes", 3).await;
    assert_eq!(plugin.log().matches("The GpuNode cannot be written").count(), 1);
    node.api.set_fault(None);
    plugin.until_said("The GpuNode is written again.").await;
    assert_eq!(node.gpu_node().await.allocations[0].device_ids, [gpu]);
}

/// Each try begins with a list, which once counted as a sign of life, so that each was logged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_to_watch_pods_pods_are_served_and_it_says_once_what_to_apply() {
    let node = Node::new(vec![a100().times(3)]).await;
    forbid(&node, |asked| asked.resource == "pods");
    let mut plugin = node.start(|_| {});
    plugin.until_ready().await;
    let log = plugin.until_said("This node's pods cannot be watched").await;
    assert!(log.contains("cannot list pods (HTTP 403)"), "{log}");
    assert!(log.contains("apply deploy/manifests/device-plugin-rbac.yaml"), "{log}");
    assert_eq!(node.visible_in("a", GPU, 1).await.len(), 1);
    until_tried(&node, "list", "pods", 3).await;
    assert_eq!(plugin.log().matches("This node's pods cannot be watched").count(), 1);
    node.api.set_fault(None);
    plugin.until_said("This node's pods are watched again.").await;
    let gpu = node.gpus().await.remove(1);
    let got = node.run_pod("b", GPU, 1, |uid| plan(uid, NODE, GPU, &[&gpu])).await.unwrap();
    assert_eq!(visible(&got), [gpu], "plans are seen again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_name_that_is_none_is_named() {
    let node = Node::new(vec![a100()]).await;
    let mut plugin = node.start(|command| _ = command.arg("--node-name=n2"));
    let log = plugin.until_said("The GpuNode cannot be written").await;
    assert!(log.contains("Node n2 is not there"), "{log}");
    assert!(log.contains("is --node-name (NODE_NAME) the Node's name?"), "{log}");
}

/// The API server removes a GpuNode with the Node that owns it, and the plugin's pod may live through that: it once made
/// the next one with the same owner, which was removed as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_made_again_gets_a_gpu_node_of_its_own() {
    let node = Node::new(vec![a100().times(2)]).await;
    let _plugin = node.ready(&[]).await;
    let store = node.api.store();
    store.delete(&NODES, "", NODE, &DeleteOptions::default()).unwrap();
    let made = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } });
    let uid = store.create(&NODES, "", made).unwrap().uid().to_owned();
    store.delete(&GPU_NODES, "", NODE, &DeleteOptions::default()).unwrap();
    node.visible_in("p", GPU, 1).await;
    eventually("the new Node owns it, and it is about the new Node", || async {
        let object = store.get(&GPU_NODES, "", NODE);
        object.is_ok_and(|object| {
            object["metadata"]["ownerReferences"][0]["uid"] == uid && object["status"]["nodeUid"] == uid
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_api_server_is_away_pods_get_devices() {
    let node = Node::new(vec![a100().times(2)]).await;
    let mut plugin = node.ready(&[]).await;
    node.api.set_fault(Some(Arc::new(|_| Some(Fault::Drop))));
    node.api.close_watches();
    assert_eq!(node.visible_in("p", GPU, 1).await.len(), 1);
    plugin.until_said("The GpuNode cannot be written").await;
    assert_eq!(plugin.get("/readyz").await.0, 200);
    node.api.set_fault(None);
    eventually("the GpuNode follows", || async { node.gpu_node().await.allocations.len() == 1 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_uses_no_right_that_its_role_does_not_give() {
    let node = Node::new(vec![a100().times(2)]).await;
    node.write("configs/default", "version: v1");
    let configs = node.path("configs").display().to_string();
    let plugin = node.ready(&["--config-file-srcdir", &configs]).await;
    node.visible_in("p", GPU, 1).await;
    node.driver(|driver| driver.raise_xid(0, 79, None));
    node.until_event("GpuUnhealthy", "XID 79").await;
    until_tried(&node, "watch", "pods", 1).await;
    until_tried(&node, "watch", "nodes", 1).await;
    until_tried(&node, "patch", "nodes", 1).await;
    assert_eq!(plugin.terminate().await.0, Some(0));
    let used: BTreeSet<(String, String, String)> = node
        .api
        .audit()
        .into_iter()
        .map(|record| record.attributes)
        .map(|a| {
            let sub = if a.subresource.is_empty() { String::new() } else { format!("/{}", a.subresource) };
            (a.verb, a.group, a.resource + &sub)
        })
        .collect();
    assert_eq!(used, granted(), "what is used is what is granted");
}

/// What `deploy/` grants: verb, group and resource.
fn granted() -> BTreeSet<(String, String, String)> {
    let yaml = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/manifests/device-plugin-rbac.yaml"
    ));
    let documents: Vec<Value> = serde_saphyr::from_multiple(&yaml.unwrap()).unwrap();
    let needed = |object: &&Value| {
        object["kind"] == "ClusterRole"
            || (object["kind"] == "Role" && object["metadata"]["name"] == "stowage-device-plugin-events")
    };
    let mut granted = BTreeSet::new();
    for rule in documents.iter().filter(needed).flat_map(|role| role["rules"].as_array().unwrap()) {
        let words = |key: &str| -> Vec<String> {
            rule[key].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        for group in words("apiGroups") {
            for resource in words("resources") {
                let rights = words("verbs").into_iter().map(|verb| (verb, group.clone(), resource.clone()));
                granted.extend(rights);
            }
        }
    }
    granted
}
