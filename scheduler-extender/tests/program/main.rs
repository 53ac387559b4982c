//! The program, over its sockets: from an empty cluster to bound pods, and what goes wrong on the way.

#![allow(clippy::unwrap_used)]

mod ahead;
mod harness;
mod map;
mod pki;
mod policies;
mod service;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stowage_shared::contract::PLAN_ANNOTATION;
use stowage_stand_ins::api_server::resources::{GPU_NODES, PODS, known};
use stowage_stand_ins::api_server::{DeleteOptions, Fault};
use tokio::net::TcpListener;
use tokio::process::Command;

use self::harness::*;

const GPU: &str = "nvidia.com/gpu";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_filtered_ranked_and_bound_and_its_devices_are_gone_at_once() {
    let api = api_server().await;
    create_gpu_node(&api, "a");
    create_gpu_node(&api, "b");
    let uid = create_pod(&api, "first", GPU, 3);
    let extender = Extender::ready(&api).await;
    assert_eq!(extender.filter(GPU, 3, &["b", "a"]).await["NodeNames"], json!(["b", "a"]));
    assert_eq!(extender.bind("first", &uid, "a").await, "");
    // No watch need have told anything yet.
    let answer = extender.filter(GPU, 2, &["b", "a"]).await;
    assert_eq!(answer["NodeNames"], json!(["b"]));
    assert_eq!(answer["FailedNodes"], json!({ "a": "no free placement for nvidia.com/gpu" }));
    let bound = pod(&api, "first");
    assert_eq!(bound["spec"]["nodeName"], "a");
    let plan: Value =
        serde_json::from_str(bound["metadata"]["annotations"][PLAN_ANNOTATION].as_str().unwrap()).unwrap();
    assert_eq!((&plan["uid"], &plan["node"]), (&json!(uid), &json!("a")));
    assert_eq!(plan["c"]["main"][GPU].as_array().unwrap().len(), 3);
    let scores = extender
        .post("/prioritize", &stowage_scheduler_extender::synthetic::request(GPU, 1, ["b", "a"]))
        .await;
    assert_eq!(scores.1[1], json!({ "Host": "a", "Score": 10 }), "the used node is filled first");
    api.store()
        .delete(
            &PODS,
            "default",
            "first",
            &DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() },
        )
        .unwrap();
    eventually("the room of a deleted pod is free again", || async {
        extender.filter(GPU, 4, &["a"]).await["NodeNames"] == json!(["a"])
    })
    .await;
    assert_eq!(ask(extender.verbs, "GET", "/debug/audit", b"").await, (200, "no findings\n".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_crd_it_waits_and_says_what_to_do() {
    let api = api_server().await;
    api.store().uninstall(&GPU_NODES);
    let mut extender = Extender::start(&api).await;
    extender.wait_for_log("apply deploy/crds/gpunodes.yaml").await;
    let (status, why) = extender.get("/readyz").await;
    assert!(status == 503 && why.contains("apply deploy/crds/gpunodes.yaml"), "{status} {why}");
    assert_eq!(extender.get("/livez").await.0, 200);
    assert_eq!(extender.filter(GPU, 1, &["a"]).await["Error"], "caches are not synced yet");
    assert_eq!(extender.bind("p", "u", "a").await, "caches are not synced yet");
    assert_eq!(extender.post("/prioritize", b"{}").await.0, 500);
    eventually("it goes on trying", || async {
        let tries = api.audit().into_iter().filter(|record| record.attributes.resource == GPU_NODES.resource);
        tries.count() >= 3
    })
    .await;
    // Each try begins with a list, which once counted as a sign of life, so that each was logged.
    let log = extender.wait_for_log("The watch fails").await;
    assert_eq!(log.matches("The watch fails").count(), 1, "{log}");
    known().into_iter().for_each(|resource| api.store().install(resource));
    eventually("it gets ready", || async { extender.get("/readyz").await.0 == 200 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_extender_comes_back_with_the_same_picture() {
    let api = api_server().await;
    create_gpu_node(&api, "a");
    let extender = Extender::ready(&api).await;
    for n in 0..3 {
        let name = format!("p{n}");
        let uid = create_pod(&api, &name, GPU, 1);
        assert_eq!(extender.bind(&name, &uid, "a").await, "");
    }
    let before = (extender.filter(GPU, 1, &["a"]).await, extender.filter(GPU, 2, &["a"]).await);
    extender.kill().await;
    let extender = Extender::ready(&api).await;
    assert_eq!((extender.filter(GPU, 1, &["a"]).await, extender.filter(GPU, 2, &["a"]).await), before);
    assert_eq!(before.0["NodeNames"], json!(["a"]));
    assert_eq!(before.1["NodeNames"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_whose_answer_is_lost_succeeds_all_the_same() {
    let api = api_server().await;
    create_gpu_node(&api, "a");
    let uid = create_pod(&api, "p", GPU, 1);
    let extender = Extender::ready(&api).await;
    let once = AtomicBool::new(true);
    api.set_fault(Some(Arc::new(move |request| {
        (request.subresource == "binding" && once.swap(false, Ordering::Relaxed)).then_some(Fault::LoseAnswer)
    })));
    assert_eq!(extender.bind("p", &uid, "a").await, "");
    assert_eq!(pod(&api, "p")["spec"]["nodeName"], "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_watches_that_broke_and_a_history_that_is_gone_it_knows_all() {
    let api = api_server().await;
    create_gpu_node(&api, "a");
    let extender = Extender::ready(&api).await;
    api.set_fault(Some(Arc::new(|request| (request.verb == "watch").then_some(Fault::Drop))));
    api.close_watches();
    create_gpu_node(&api, "b");
    api.store().delete(&GPU_NODES, "", "a", &DeleteOptions::default()).unwrap();
    api.store().compact();
    assert_eq!(extender.filter(GPU, 1, &["a"]).await["NodeNames"], json!(["a"]), "the cache still answers");
    api.set_fault(None);
    eventually("the new node is known, and the old one's GpuNode is not", || async {
        extender.filter(GPU, 1, &["a", "b"]).await["NodeNames"] == json!(["b"])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_uses_no_right_that_its_role_does_not_give() {
    let api = api_server().await;
    create_gpu_node(&api, "a");
    let extender = Extender::ready(&api).await;
    let uid = create_pod(&api, "p", GPU, 1);
    assert_eq!(extender.bind("p", &uid, "a").await, "");
    assert_ne!(extender.bind("nobody", "u", "a").await, "");
    let granted = granted("deploy/manifests/scheduler-rbac.yaml", &["stowage-scheduler-extender"]);
    let used = used(&api);
    assert_eq!(used, granted, "what is used is what is granted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_within_a_second_when_asked() {
    let api = api_server().await;
    let extender = Extender::ready(&api).await;
    let start = Instant::now();
    assert_eq!(extender.terminate().await, 0);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_port_and_a_missing_configuration_are_named() {
    let api = api_server().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut extender = Extender::start_at(&api, address, free_port().await, &[]);
    extender.wait_for_log(&format!("cannot listen on {address}")).await;
    assert_eq!(extender.ended().await, 69);
    let output = Command::new(env!("CARGO_BIN_EXE_stowage-scheduler-extender"))
        .env("KUBECONFIG", "/does/not/exist")
        .args(["--verb-address=127.0.0.1:0", "--http-address=127.0.0.1:0"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("KUBECONFIG"), "{log}");
    let output = Command::new(env!("CARGO_BIN_EXE_stowage-scheduler-extender"))
        .arg("--verb-address=nonsense")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_metrics_tell_what_it_knows() {
    let api = api_server().await;
    create_gpu_node(&api, "a");
    let extender = Extender::ready(&api).await;
    extender.filter(GPU, 1, &["a"]).await;
    eventually("stock is taken", || async {
        let (_, text) = extender.get("/metrics").await;
        [
            r#"stowage_scheduler_extender_nodes{state="known"} 1"#,
            r#"stowage_scheduler_extender_synced{kind="gpunodes"} 1"#,
            r#"stowage_scheduler_extender_requests_total{verb="filter",result="ok"} 1"#,
            r#"stowage_scheduler_extender_assumptions{state="pending"} 0"#,
        ]
        .iter()
        .all(|line| text.contains(line))
    })
    .await;
}
