//! Typed reads and writes, users, and what is logged of them.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use stowage_stand_ins::api_server::resources::{GPU_NODES, PODS};
use stowage_stand_ins::api_server::{ApiServer, Options, User};

use super::{client_of, start};

fn pod(name: &str) -> Pod {
    let containers = json!([{ "name": "main", "image": "none" }]);
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": { "containers": containers } }))
        .unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: kube::Result<T>) -> (u16, String) {
    match result.unwrap_err() {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("not refused by the server: {other}"),
    }
}

#[tokio::test]
async fn objects_are_created_read_changed_and_deleted() {
    let (_server, client) = start().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    let created = pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    assert_eq!(created.status.unwrap().phase.as_deref(), Some("Pending"));
    assert_eq!(refused(pods.create(&PostParams::default(), &pod("a")).await), (409, "AlreadyExists".into()));

    let patch = json!({ "metadata": { "labels": { "app": "x" } } });
    pods.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let found = pods.list(&ListParams::default().labels("app=x")).await.unwrap();
    assert_eq!(found.items.len(), 1);

    assert!(pods.delete("a", &DeleteParams::default()).await.unwrap().is_left());
    assert_eq!(refused(pods.get("a").await), (404, "NotFound".into()));
    assert!(pods.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn of_two_writers_of_one_version_the_second_is_refused() {
    let (_server, client) = start().await;
    let leases: Api<Lease> = Api::default_namespaced(client);
    let lease = serde_json::from_value(json!({ "metadata": { "name": "a" } })).unwrap();
    let read = leases.create(&PostParams::default(), &lease).await.unwrap();
    let mut mine = read.clone();
    mine.spec.get_or_insert_default().holder_identity = Some("me".into());
    let mut theirs = read;
    theirs.spec.get_or_insert_default().holder_identity = Some("they".into());
    leases.replace("a", &PostParams::default(), &mine).await.unwrap();
    assert_eq!(refused(leases.replace("a", &PostParams::default(), &theirs).await), (409, "Conflict".into()));
}

#[tokio::test]
async fn a_list_comes_in_pages_of_one_version() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    for index in 0..5 {
        let map = json!({ "metadata": { "name": format!("map-{index}") } });
        maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    }
    let mut params = ListParams::default().limit(2);
    let first = maps.list(&params).await.unwrap();
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (2, Some(3)));
    maps.delete("map-2", &DeleteParams::default()).await.unwrap();
    params.continue_token = first.metadata.continue_.clone();
    let second = maps.list(&params).await.unwrap();
    let names: Vec<_> = second.items.iter().filter_map(|map| map.metadata.name.clone()).collect();
    assert_eq!(names, ["map-2", "map-3"]);
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);

    // Once the history is gone, the page is refused with a token that goes on from what there is now.
    server.store().compact();
    let refusal = match maps.list(&params).await.unwrap_err() {
        kube::Error::Api(status) => status,
        other => panic!("{other}"),
    };
    assert_eq!((refusal.code, refusal.reason.as_str()), (410, "Expired"));
    params.continue_token = refusal.metadata.and_then(|metadata| metadata.continue_);
    let names: Vec<_> =
        maps.list(&params).await.unwrap().into_iter().filter_map(|map| map.metadata.name).collect();
    assert_eq!(names, ["map-3", "map-4"]);
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused_and_the_client_learns_why() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let map = json!({ "metadata": { "name": "large" }, "data": { "long": "x".repeat(8 << 20) } });
    let map = serde_json::from_value(map).unwrap();
    let (code, reason) = refused(maps.create(&PostParams::default(), &map).await);
    assert_eq!((code, reason.as_str()), (413, "RequestEntityTooLarge"));
}

#[tokio::test]
async fn a_resource_can_be_missing_and_come_later() {
    let (server, client) = start().await;
    let gpu_nodes = kube::api::ApiResource {
        group: "stowage.dev".into(),
        version: "v1alpha1".into(),
        api_version: "stowage.dev/v1alpha1".into(),
        kind: "GpuNode".into(),
        plural: "gpunodes".into(),
    };
    let api: Api<kube::api::DynamicObject> = Api::all_with(client.clone(), &gpu_nodes);
    assert!(api.list(&ListParams::default()).await.unwrap().items.is_empty());
    let kind = stowage_stand_ins::api_server::resources::known()
        .into_iter()
        .find(|kind| *kind.gvr() == GPU_NODES)
        .unwrap();
    server.store().uninstall(&GPU_NODES);
    assert_eq!(refused(api.list(&ListParams::default()).await).0, 404);
    server.store().install(kind);
    api.list(&ListParams::default()).await.unwrap();
    assert_eq!(client.apiserver_version().await.unwrap().minor, "36");
    let groups = client.list_api_groups().await.unwrap();
    assert!(groups.groups.iter().any(|group| group.name == "stowage.dev"));
}

#[tokio::test]
async fn the_log_tells_who_used_which_right_and_strangers_have_none() {
    let user = |name: &str| User { name: name.to_owned(), token: format!("{name}-token") };
    let options = Options { users: vec![user("extender"), user("admin")], ..Options::default() };
    let server = ApiServer::start(options).await.unwrap();
    let admin = client_of(&server.kubeconfig(Some("admin-token"))).await;
    Api::<Pod>::default_namespaced(admin).create(&PostParams::default(), &pod("a")).await.unwrap();
    server.clear_audit();

    let client = client_of(&server.kubeconfig(Some("extender-token"))).await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let binding = json!({ "metadata": { "name": "a" }, "target": { "name": "n" } });
    let bound: serde_json::Value =
        pods.create_subresource("binding", "a", &PostParams::default(), &binding).await.unwrap();
    assert_eq!(bound["status"], "Success");
    Api::<Node>::all(client).list(&ListParams::default()).await.unwrap();
    let _ = pods.get("none").await;
    for token in [None, Some("nobody's")] {
        let stranger = client_of(&server.kubeconfig(token)).await;
        let pods: Api<Pod> = Api::default_namespaced(stranger);
        assert_eq!(refused(pods.get("a").await), (401, "Unauthorized".into()));
    }

    let seen: Vec<String> = server
        .audit()
        .into_iter()
        .map(|record| {
            let it = record.attributes;
            format!(
                "{} {} {}/{} {}/{} {}",
                it.user, it.verb, it.resource, it.subresource, it.namespace, it.name, record.code
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            "extender create pods/binding default/a 201",
            "extender list nodes/ / 200",
            "extender get pods/ default/none 404",
            " get pods/ default/a 401",
            " get pods/ default/a 401",
        ]
    );
    assert_eq!(server.store().get(&PODS, "default", "a").unwrap()["spec"]["nodeName"], "n");
}

#[tokio::test]
async fn a_server_stops_at_once_and_starts_again_on_its_port_with_its_objects() {
    let (server, client) = start().await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    let (address, store) = (server.address(), server.store().clone());
    server.stop().await;
    assert!(matches!(pods.get("a").await.unwrap_err(), kube::Error::HyperError(_) | kube::Error::Service(_)));
    let options = Options { address, store: Some(store), ..Options::default() };
    let server = ApiServer::start(options).await.unwrap();
    pods.get("a").await.unwrap();

    let taken = ApiServer::start(Options { address, ..Options::default() }).await.err().unwrap();
    assert_eq!(taken.to_string(), format!("the API server stand-in cannot listen on {}", server.address()));
}

/// Two clients may talk at once; the store's lock keeps each write whole.
#[tokio::test]
async fn of_many_binders_of_one_pod_exactly_one_succeeds() {
    let (_server, client) = start().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    let bind = |index: usize, pods: Api<Pod>| async move {
        let binding = json!({ "metadata": { "name": "a" }, "target": { "name": format!("node-{index}") } });
        let params = PostParams::default();
        pods.create_subresource::<_, serde_json::Value>("binding", "a", &params, &binding).await
    };
    let results = futures::future::join_all((0..16).map(|index| bind(index, pods.clone()))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for refusal in results.into_iter().filter(Result::is_err) {
        assert_eq!(refused(refusal), (409, "Conflict".into()));
    }
}
