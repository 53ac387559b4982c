//! Pods with policies, from their annotations at the API server to the devices that they are promised.

use serde_json::{Value, json};
use stowage_scheduler_extender::synthetic::{self, SHARE};
use stowage_shared::contract::{PLACEMENT_ANNOTATION, PLAN_ANNOTATION, SHARE_WITH_ANNOTATION};

use super::harness::*;

/// The nodes where a pod of a namespace fits that wants so many shares, and why it does not fit the others.
async fn asked(extender: &Extender, namespace: &str, annotations: &Value, count: u32) -> (Value, Value) {
    let body = synthetic::request(SHARE, count, ["a", "b"]);
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    body["Pod"]["metadata"]["namespace"] = json!(namespace);
    body["Pod"]["metadata"]["annotations"] = annotations.clone();
    let (status, mut answer) = extender.post("/filter", body.to_string().as_bytes()).await;
    assert_eq!(status, 200);
    let mut reasons = answer["FailedNodes"].take();
    if let Some(never) = answer["FailedAndUnresolvableNodes"].as_object() {
        never.iter().for_each(|(node, why)| reasons[node] = why.clone());
    }
    (answer["NodeNames"].take(), reasons)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_its_own_keeps_other_namespaces_off_its_gpu_and_others_keep_it_off_theirs() {
    let api = api_server().await;
    create_gpu_node(&api, "a");
    create_gpu_node(&api, "b");
    let alone = json!({ SHARE_WITH_ANNOTATION: "namespace" });
    let first = create_pod_that_says(&api, "first", SHARE, 1, &alone);
    let second = create_pod_that_says(&api, "second", SHARE, 1, &json!({ PLACEMENT_ANNOTATION: "spread" }));
    let extender = Extender::ready(&api).await;
    assert_eq!(extender.bind("first", &first, "a").await, "");
    // A GPU of four shares is closed to others from now on, and one is left.
    let kept = "no free placement on a GPU whose pods share with other namespaces (stowage.dev/share-with)";
    assert_eq!(asked(&extender, "other", &json!({}), 5).await, (json!(["b"]), json!({ "a": kept })));
    assert_eq!(asked(&extender, "other", &json!({}), 4).await.0, json!(["a", "b"]));
    assert_eq!(asked(&extender, "default", &json!({}), 7).await.0, json!(["a", "b"]));
    // One of the same namespace that spreads goes to the other GPU, which is closed then to who wants to be alone.
    assert_eq!(extender.bind("second", &second, "a").await, "");
    let gpu = |name: &str| -> String {
        let annotations = pod(&api, name)["metadata"]["annotations"].clone();
        let plan: Value = serde_json::from_str(annotations[PLAN_ANNOTATION].as_str().unwrap()).unwrap();
        plan["c"]["main"][SHARE].to_string()
    };
    assert_ne!(gpu("first"), gpu("second"));
    let others = "no free placement on a GPU without other namespaces (stowage.dev/share-with)";
    assert_eq!(asked(&extender, "other", &alone, 1).await, (json!(["b"]), json!({ "a": others })));
    // It is so for one that was not there when they were bound.
    extender.kill().await;
    let extender = Extender::ready(&api).await;
    assert_eq!(asked(&extender, "other", &alone, 1).await, (json!(["b"]), json!({ "a": others })));
    assert_eq!(asked(&extender, "other", &json!({}), 4).await, (json!(["b"]), json!({ "a": kept })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_cannot_be_read_is_named_in_the_pods_event_and_never_ignored() {
    let api = api_server().await;
    create_gpu_node(&api, "a");
    let wrong = json!({ SHARE_WITH_ANNOTATION: "nobody" });
    let uid = create_pod_that_says(&api, "p", SHARE, 1, &wrong);
    let extender = Extender::ready(&api).await;
    let why = r#"annotation stowage.dev/share-with is "nobody": use namespace or anyone"#;
    let (fits, reasons) = asked(&extender, "default", &wrong, 1).await;
    assert_eq!((fits, &reasons["a"]), (json!([]), &json!(why)));
    assert_eq!(extender.bind("p", &uid, "a").await, why);
}
