use serde_json::Value;
use stowage_shared::contract::GPU_NODE_HEARTBEAT;
use stowage_stand_ins::api_server::resources::{GPU_NODES, NODES};
use stowage_stand_ins::api_server::{ApiServer, DeleteOptions, Options};

use super::*;

const NODE: &str = "n1";

/// Makes the Node; its UID.
fn make_node(api: &ApiServer) -> String {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } });
    api.store().create(&NODES, "", node).unwrap().uid().to_owned()
}

/// A writer of a cluster of one Node, and that Node's UID.
async fn cluster() -> (ApiServer, Writer, String) {
    let api = ApiServer::start(Options::default()).await.unwrap();
    let uid = make_node(&api);
    let client = kube::Client::try_from(kube::Config::new(api.url().parse().unwrap())).unwrap();
    (api, Writer::new(client, NODE), uid)
}

/// A status that differs from every other one.
fn change(number: u32) -> impl FnOnce(&str) -> News {
    move |uid| {
        let (plugin_version, node_uid) = (number.to_string(), uid.to_owned());
        let status = GpuNodeStatus { plugin_version, node_uid, ..GpuNodeStatus::default() };
        News { status, unplanned: 0, awaited: false }
    }
}

/// Which Node the GpuNode is about.
fn told(api: &ApiServer) -> Value {
    api.store().get(&GPU_NODES, "", NODE).unwrap()["status"]["nodeUid"].clone()
}

/// The Node was once read only where nothing had been written for a heartbeat, which a busy node never reaches.
#[tokio::test]
async fn a_node_that_was_made_again_is_noticed_however_often_its_gpu_node_is_written() {
    let (api, mut writer, before) = cluster().await;
    let start = Instant::now();
    writer.write(start, change(0)).await.unwrap();
    assert_eq!(told(&api), before);
    api.store().delete(&NODES, "", NODE, &DeleteOptions::default()).unwrap();
    let after = make_node(&api);
    for number in 1..=30 {
        assert!(writer.write(start + GPU_NODE_HEARTBEAT * number / 30, change(number)).await.unwrap());
    }
    assert_eq!(told(&api), after);
}
