//! What the program does without being asked, over its sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use stowage_stand_ins::api_server::resources::{BUDGETS, LEASES, NEW_EVENTS, PODS};
use stowage_stand_ins::api_server::{ApiError, ApiServer, DeleteOptions, Fault, Part};

use super::harness::*;

const GPU: &str = "nvidia.com/gpu";

fn nominated(api: &ApiServer, name: &str) -> String {
    pod(api, name)["status"]["nominatedNodeName"].as_str().unwrap_or_default().to_owned()
}

/// What filter answers for a pod of this UID that wants `count` GPUs.
async fn filter(extender: &Extender, uid: &str, count: u32, names: &[&str]) -> Value {
    let limits = json!({ GPU: count.to_string() });
    let pod = json!({
        "metadata": { "name": uid, "namespace": "default", "uid": uid },
        "spec": { "containers": [{ "name": "main", "resources": { "limits": limits, "requests": limits } }] },
    });
    let body = json!({ "Pod": pod, "Nodes": null, "NodeNames": names }).to_string();
    extender.post("/filter", body.as_bytes()).await.1["NodeNames"].clone()
}

fn holder(api: &ApiServer) -> String {
    let lease = api.store().get(&LEASES, "stowage-system", "stowage-scheduler-extender");
    lease
        .map(|lease| lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
        .unwrap_or_default()
}

/// Two GPU nodes, and the namespace of the Lease.
pub async fn cluster() -> ApiServer {
    let api = api_server().await;
    api.store()
        .create(
            &stowage_stand_ins::api_server::resources::NAMESPACES,
            "",
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "stowage-system" } }),
        )
        .unwrap();
    create_gpu_node(&api, "a");
    create_gpu_node(&api, "b");
    api
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_pod_is_nominated_and_its_room_is_kept_until_it_is_bound() {
    let api = cluster().await;
    let uid = create_pod(&api, "p", GPU, 3);
    let extender = Extender::ready_with(&api, &["--nominate"]).await;
    eventually("the pod is nominated", || async { nominated(&api, "p") == "a" }).await;
    assert_eq!(filter(&extender, "other", 2, &["a", "b"]).await, json!(["b"]));
    assert_eq!(
        filter(&extender, &uid, 3, &["a"]).await,
        json!(["a"]),
        "its own room is not counted against it"
    );
    assert_eq!(extender.bind("p", &uid, "a").await, "");
    eventually("it is counted", || async {
        let metrics = extender.get("/metrics").await.1;
        metrics.contains(r#"stowage_scheduler_extender_nominations_total{outcome="on_node"} 1"#)
            && metrics.contains("stowage_scheduler_extender_leader 1")
    })
    .await;
    assert_eq!(ask(extender.verbs, "GET", "/debug/audit", b"").await, (200, "no findings\n".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_nominated_unless_it_is_asked_for() {
    let api = cluster().await;
    let uid = create_pod(&api, "p", GPU, 1);
    let extender = Extender::ready(&api).await;
    assert_eq!(extender.bind("p", &uid, "b").await, "");
    let written = api.audit().into_iter().filter(|record| record.attributes.verb == "patch").count();
    assert_eq!((written, holder(&api)), (0, String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_has_changed_meanwhile_is_nominated_in_its_new_version() {
    let api = cluster().await;
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = writes.clone();
    api.set_fault(Some(Arc::new(move |request| {
        let first = request.subresource == "status" && counted.fetch_add(1, Ordering::Relaxed) == 0;
        first.then(|| Fault::Refuse(ApiError::new(409, "Conflict", "the object has been modified")))
    })));
    create_pod(&api, "p", GPU, 3);
    let _extender = Extender::ready_with(&api, &["--nominate"]).await;
    eventually("the pod is nominated", || async { nominated(&api, "p") == "a" }).await;
    assert_eq!(writes.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_replicas_one_plans_and_the_next_begins_when_it_ends() {
    let api = cluster().await;
    let first = Extender::ready_with(&api, &["--nominate"]).await;
    eventually("the first holds the Lease", || async { !holder(&api).is_empty() }).await;
    let before = holder(&api);
    let second = Extender::ready_with(&api, &["--nominate"]).await;
    create_pod(&api, "p", GPU, 4);
    eventually("the pod is nominated", || async { nominated(&api, "p") == "a" }).await;
    // The other one keeps the room as well.
    eventually("the room is kept by both", || async {
        filter(&second, "other", 1, &["a", "b"]).await == json!(["b"])
    })
    .await;
    assert_eq!(holder(&api), before);
    assert_eq!(first.terminate().await, 0);
    eventually("the second holds the Lease", || async {
        ![String::new(), before.clone()].contains(&holder(&api))
    })
    .await;
    create_pod(&api, "q", GPU, 4);
    eventually("the next pod is nominated", || async { nominated(&api, "q") == "b" }).await;
}

/// A waiting pod that somebody has nominated to a node.
fn create_nominated(api: &ApiServer, name: &str, node: &str, manager: &str) {
    let limits = json!({ GPU: "3" });
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "managedFields": [{
            "manager": manager, "operation": "Update", "subresource": "status", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:status": { "f:nominatedNodeName": {} } } }] },
        "spec": { "schedulerName": "stowage-scheduler", "containers": [{
            "name": "main", "image": "x", "resources": { "limits": limits, "requests": limits } }] },
    });
    api.store().create(&PODS, "default", object).unwrap();
    let nominate = |object: &mut Value| object["status"]["nominatedNodeName"] = node.into();
    api.store().modify(&PODS, "default", name, Part::Status, nominate).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_leader_nominated_in_vain_is_taken_back_and_what_others_did_is_not() {
    let api = cluster().await;
    let ours = "stowage-scheduler-extender";
    create_nominated(&api, "in-vain", "gone", ours);
    create_nominated(&api, "theirs", "gone", "kube-scheduler");
    create_nominated(&api, "of-use", "b", ours);
    let _extender = Extender::ready_with(&api, &["--nominate"]).await;
    // Taken back, and nominated by the one who plans now.
    eventually("the pod is nominated anew", || async { nominated(&api, "in-vain") == "a" }).await;
    assert_eq!((nominated(&api, "theirs"), nominated(&api, "of-use")), ("gone".into(), "b".into()));
}

/// Binds a pod of that priority to a node.
async fn run(api: &ApiServer, extender: &Extender, name: &str, count: u32, node: &str) {
    let uid = create_pod(api, name, GPU, count);
    assert_eq!(extender.bind(name, &uid, node).await, "");
    api.store()
        .modify(&PODS, "default", name, Part::Status, |object| object["status"]["phase"] = "Running".into())
        .unwrap();
}

/// A pod that kube-scheduler has found no node for.
fn create_unschedulable(api: &ApiServer, name: &str, count: u32, priority: i32) {
    let limits = json!({ GPU: count.to_string() });
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
        "spec": { "schedulerName": "stowage-scheduler", "priority": priority, "containers": [{
            "name": "main", "image": "x", "resources": { "limits": limits, "requests": limits } }] },
    });
    api.store().create(&PODS, "default", object).unwrap();
    let condition = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable" }]);
    api.store()
        .modify(&PODS, "default", name, Part::Status, |object| object["status"]["conditions"] = condition)
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_made_for_a_more_important_pod_and_a_budget_is_kept() {
    let api = cluster().await;
    let extender = Extender::ready_with(&api, &["--preemption"]).await;
    for (name, node) in [("protected", "a"), ("victim", "b")] {
        run(&api, &extender, name, 4, node).await;
    }
    let label = |object: &mut Value| object["metadata"]["labels"] = json!({ "app": "x" });
    api.store().modify(&PODS, "default", "protected", Part::Main, label).unwrap();
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "x" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "x" } } },
    });
    api.store().create(&BUDGETS, "default", budget).unwrap();
    create_unschedulable(&api, "p", 2, 5);
    eventually("the victim is evicted", || async {
        !pod(&api, "victim")["metadata"]["deletionTimestamp"].is_null()
    })
    .await;
    assert!(pod(&api, "protected")["metadata"]["deletionTimestamp"].is_null());
    eventually("the pod is nominated", || async { nominated(&api, "p") == "b" }).await;
    let gone = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    api.store().delete(&PODS, "default", "victim", &gone).unwrap();
    eventually("the room is kept for it", || async {
        filter(&extender, "other", 2, &["b"]).await == json!(["b"])
            && filter(&extender, "other", 3, &["b"]).await == json!([])
    })
    .await;
    let events = api.store().list(&NEW_EVENTS, &Default::default()).unwrap().items;
    let told = events.iter().find(|event| event["reason"] == "Preempted").unwrap();
    assert_eq!((&told["regarding"]["name"], &told["related"]["name"]), (&json!("victim"), &json!("p")));
}

fn own(api: &ApiServer, name: &str) {
    let own = |object: &mut Value| {
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true }]);
    };
    api.store().modify(&PODS, "default", name, Part::Main, own).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_has_another_place_is_moved_so_that_one_that_waits_fits() {
    let api = cluster().await;
    let extender = Extender::ready_with(&api, &["--defrag"]).await;
    run(&api, &extender, "in-the-way", 1, "a").await;
    run(&api, &extender, "firm", 2, "b").await;
    own(&api, "in-the-way");
    create_unschedulable(&api, "p", 4, 5);
    eventually("the pod in the way is evicted", || async {
        !pod(&api, "in-the-way")["metadata"]["deletionTimestamp"].is_null()
    })
    .await;
    assert!(pod(&api, "firm")["metadata"]["deletionTimestamp"].is_null());
    eventually("the pod that waits is nominated", || async { nominated(&api, "p") == "a" }).await;
    // Its replacement goes elsewhere, although three GPUs of that node are free already.
    assert_eq!(filter(&extender, "other", 1, &["a", "b"]).await, json!(["b"]));
    let gone = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    api.store().delete(&PODS, "default", "in-the-way", &gone).unwrap();
    let uid = pod(&api, "p")["metadata"]["uid"].as_str().unwrap().to_owned();
    eventually("it fits", || async { filter(&extender, &uid, 4, &["a"]).await == json!(["a"]) }).await;
    assert_eq!(extender.bind("p", &uid, "a").await, "");
    eventually("it is counted as a help", || async {
        let metrics = extender.get("/metrics").await.1;
        ["proposed", "evicted", "helped"].iter().all(|outcome| {
            metrics.contains(&format!(r#"stowage_scheduler_extender_moves_total{{outcome="{outcome}"}} 1"#))
        })
    })
    .await;
    let events = api.store().list(&NEW_EVENTS, &Default::default()).unwrap().items;
    for (reason, regarding, related) in [("Moved", "in-the-way", "p"), ("RoomMade", "p", "in-the-way")] {
        let told = events.iter().find(|event| event["reason"] == reason).unwrap();
        assert_eq!(
            (&told["regarding"]["name"], &told["related"]["name"]),
            (&json!(regarding), &json!(related))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_moved_who_must_stay_and_the_reason_is_counted() {
    let api = cluster().await;
    let extender = Extender::ready_with(&api, &["--defrag=true"]).await;
    run(&api, &extender, "in-the-way", 1, "a").await;
    run(&api, &extender, "firm", 2, "b").await;
    create_unschedulable(&api, "p", 4, 5);
    eventually("the reason is counted", || async {
        let metrics = extender.get("/metrics").await.1;
        metrics.contains(r#"stowage_scheduler_extender_moves_refused_total{reason="no_controller"} 1"#)
    })
    .await;
    assert!(pod(&api, "in-the-way")["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_replica_set_the_pod_whose_going_frees_most_costs_least() {
    let api = cluster().await;
    let extender = Extender::ready_with(&api, &["--drain-scale-downs"]).await;
    run(&api, &extender, "beside-1", 1, "a").await;
    // Alone on its node, it is in the way of whoever wants four GPUs.
    run(&api, &extender, "alone", 1, "b").await;
    run(&api, &extender, "other", 1, "a").await;
    own(&api, "beside-1");
    own(&api, "alone");
    let cost = |name: &str| -> i32 {
        let annotations = &pod(&api, name)["metadata"]["annotations"];
        assert_eq!(
            annotations["controller.kubernetes.io/pod-deletion-cost"],
            annotations["stowage.dev/pod-deletion-cost"]
        );
        annotations["controller.kubernetes.io/pod-deletion-cost"]
            .as_str()
            .map_or(0, |cost| cost.parse().unwrap())
    };
    eventually("the costs differ", || async { cost("alone") < cost("beside-1") && cost("beside-1") < 0 })
        .await;
    assert_eq!(cost("other"), 0, "no ReplicaSet made it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_uses_the_rights_of_the_flags_that_are_on_and_no_others() {
    for (flag, file, role, ready) in [
        ("--nominate", "deploy/options/nominate.yaml", "stowage-scheduler-extender-nominate", "pods/status"),
        (
            "--drain-scale-downs",
            "deploy/options/drain-scale-downs.yaml",
            "stowage-scheduler-extender-drain-scale-downs",
            "pods",
        ),
        ("--preemption", "deploy/options/preemption.yaml", "stowage-scheduler-extender-preemption", "events"),
        ("--defrag", "deploy/options/defrag.yaml", "stowage-scheduler-extender-defrag", "events"),
    ] {
        let api = cluster().await;
        let extender = Extender::ready_with(&api, &[flag]).await;
        run(&api, &extender, "x", 3, "b").await;
        run(&api, &extender, "y", 1, "a").await;
        run(&api, &extender, "z", 2, "a").await;
        assert_ne!(extender.bind("nobody", "u", "a").await, "");
        own(&api, "x");
        own(&api, "y");
        create_pod(&api, "waiting", GPU, 1);
        create_unschedulable(&api, "important", 2, 5);
        eventually("the flag's last right is used", || async {
            used(&api)
                .iter()
                .any(|(verb, _, resource)| ["patch", "create"].contains(&&**verb) && resource == ready)
        })
        .await;
        // The Lease is renewed every two seconds.
        eventually("the Lease is renewed", || async {
            used(&api).iter().any(|(verb, _, resource)| verb == "update" && resource == "leases")
        })
        .await;
        let mut allowed = granted("deploy/manifests/scheduler-rbac.yaml", &["stowage-scheduler-extender"]);
        allowed.extend(granted("deploy/options/lease.yaml", &["stowage-scheduler-extender-lease"]));
        allowed.extend(granted(file, &[role]));
        assert_eq!(used(&api), allowed, "{flag}: what is used is what is granted");
    }
}
