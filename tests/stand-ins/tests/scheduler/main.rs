//! The scheduler stand-in on the API server stand-in, with and without an extender over HTTP.

#![allow(clippy::unwrap_used)]

mod fake_extender;

use std::future::Future;
use std::time::Duration;

use fake_extender::FakeExtender;
use serde_json::{Value, json};
use stowage_stand_ins::api_server::resources::{NODES, PODS};
use stowage_stand_ins::api_server::{DeleteOptions, Part, Store, StoreOptions};
use stowage_stand_ins::scheduler::{ExtenderOptions, QueueOptions, Scheduler, SchedulerOptions};

const DEADLINE: Duration = Duration::from_secs(20);

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Nodes `n0`, `n1`, … with so many GPUs each.
fn cluster(gpus: &[u32]) -> Store {
    let store = Store::new(StoreOptions { seed: 1, ..StoreOptions::default() });
    for (i, gpus) in gpus.iter().enumerate() {
        let allocatable =
            json!({ "cpu": "8", "memory": "16Gi", "pods": "110", "nvidia.com/gpu": gpus.to_string() });
        let node =
            json!({ "metadata": { "name": format!("n{i}") }, "status": { "allocatable": allocatable } });
        store.create(&NODES, "", node).unwrap();
    }
    store
}

fn create(store: &Store, name: &str, gpus: u32, priority: i64) -> String {
    let requests = json!({ "cpu": "1", "memory": "1Gi", "nvidia.com/gpu": gpus.to_string() });
    let container =
        json!({ "name": "c", "image": "i", "resources": { "requests": requests, "limits": requests } });
    let pod =
        json!({ "metadata": { "name": name }, "spec": { "priority": priority, "containers": [container] } });
    store.create(&PODS, "default", pod).unwrap().uid().to_owned()
}

fn delete(store: &Store, name: &str) {
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    store.delete(&PODS, "default", name, &now).unwrap();
}

fn node_of(store: &Store, name: &str) -> String {
    store.get(&PODS, "default", name).unwrap()["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()
}

fn impatient() -> SchedulerOptions {
    let queue = QueueOptions {
        backoff_initial: Duration::ZERO,
        backoff_max: Duration::ZERO,
        ..QueueOptions::default()
    };
    SchedulerOptions { queue, ..SchedulerOptions::stock(1) }
}

fn with(extender: ExtenderOptions) -> SchedulerOptions {
    SchedulerOptions { extenders: vec![extender], ..impatient() }
}

/// An extender that passes everything, likes `best`, and binds into `store`.
async fn agreeable(store: &Store, best: &'static str) -> FakeExtender {
    let store = store.clone();
    FakeExtender::start(move |verb, asked| match verb {
        "filter" => (200, json!({ "NodeNames": asked["NodeNames"], "FailedNodes": null, "Error": "" })),
        "prioritize" => {
            let names = asked["NodeNames"].as_array().unwrap().iter();
            let score = |name: &Value| json!({ "Host": name, "Score": if name == best { 10 } else { 0 } });
            (200, names.map(score).collect())
        }
        "bind" => {
            let text = |key: &str| asked[key].as_str().unwrap().to_owned();
            let metadata = json!({ "name": text("PodName"), "uid": text("PodUID") });
            let binding = json!({ "metadata": metadata, "target": { "kind": "Node", "name": text("Node") } });
            let result = store.bind(&text("PodNamespace"), &text("PodName"), &binding);
            (200, json!({ "Error": result.err().map(|refusal| refusal.message).unwrap_or_default() }))
        }
        other => panic!("no verb {other}"),
    })
    .await
}

#[tokio::test]
async fn without_an_extender_pods_spread_and_the_rest_waits_with_a_reason() {
    let store = cluster(&[1, 1]);
    let scheduler = Scheduler::start(store.clone(), impatient());
    for name in ["a", "b", "c"] {
        create(&store, name, 1, 0);
    }
    in_time("idle", scheduler.idle()).await.unwrap();
    let mut nodes = ["a", "b", "c"].map(|name| node_of(&store, name));
    nodes.sort();
    assert_eq!(nodes, ["", "n0", "n1"]);
    let status = scheduler.status().borrow().clone();
    let reasons: Vec<&String> = status.waiting.values().map(|waiting| &waiting.message).collect();
    assert_eq!(reasons, ["0/2 nodes are available: 2 Insufficient nvidia.com/gpu."]);
    assert_eq!((status.parked, status.binding), (1, 0));
}

#[tokio::test]
async fn a_parked_pod_gets_the_place_of_one_that_goes_and_the_most_important_one_first() {
    let store = cluster(&[1]);
    let scheduler = Scheduler::start(store.clone(), impatient());
    create(&store, "first", 1, 0);
    in_time("idle", scheduler.idle()).await.unwrap();
    create(&store, "low", 1, 0);
    create(&store, "high", 1, 5);
    in_time("idle", scheduler.idle()).await.unwrap();
    delete(&store, "first");
    in_time("idle", scheduler.idle()).await.unwrap();
    assert_eq!((node_of(&store, "high").as_str(), node_of(&store, "low").as_str()), ("n0", ""));
    let grown = |node: &mut Value| node["status"]["allocatable"]["nvidia.com/gpu"] = "2".into();
    store.modify(&NODES, "", "n0", Part::Status, grown).unwrap();
    in_time("idle", scheduler.idle()).await.unwrap();
    assert_eq!(node_of(&store, "low"), "n0");
}

#[tokio::test]
async fn pods_of_other_schedulers_are_counted_and_left_alone() {
    let store = cluster(&[1]);
    create(&store, "other", 1, 0);
    store
        .bind("default", "other", &json!({ "metadata": { "name": "other" }, "target": { "name": "n0" } }))
        .unwrap();
    let scheduler = Scheduler::start(store.clone(), impatient());
    create(&store, "ours", 1, 0);
    let foreign = json!({ "metadata": { "name": "foreign" }, "spec": { "schedulerName": "x",
        "containers": [{ "name": "c", "image": "i" }] } });
    store.create(&PODS, "default", foreign).unwrap();
    in_time("idle", scheduler.idle()).await.unwrap();
    assert_eq!((node_of(&store, "ours"), node_of(&store, "foreign")), (String::new(), String::new()));
}

#[tokio::test]
async fn the_extender_is_asked_as_kube_scheduler_asks_and_its_ten_points_win() {
    let store = cluster(&[1, 1, 1]);
    let extender = agreeable(&store, "n2").await;
    let scheduler = Scheduler::start(
        store.clone(),
        with(ExtenderOptions { weight: 5, ..ExtenderOptions::new(extender.url()) }),
    );
    let uid = create(&store, "a", 1, 0);
    in_time("idle", scheduler.idle()).await.unwrap();
    assert_eq!(node_of(&store, "a"), "n2");

    let asked = extender.asked();
    assert_eq!(extender.verbs(), ["filter", "prioritize", "bind"]);
    let (_, filter) = &asked[0];
    let keys: Vec<&String> = filter.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["NodeNames", "Nodes", "Pod"]);
    assert_eq!((&filter["Nodes"], &filter["NodeNames"]), (&Value::Null, &json!(["n0", "n1", "n2"])));
    assert_eq!(filter["Pod"]["metadata"]["uid"], uid.as_str());
    assert_eq!(filter["Pod"]["spec"]["schedulerName"], "default-scheduler");
    assert_eq!((filter["Pod"].get("kind"), filter["Pod"].get("apiVersion")), (None, None));
    assert_eq!(asked[0].1, asked[1].1, "prioritize is asked what filter was asked");
    assert_eq!(asked[2].1, json!({ "PodName": "a", "PodNamespace": "default", "PodUID": uid, "Node": "n2" }));
}

#[tokio::test]
async fn a_single_node_that_is_left_is_not_prioritized() {
    let store = cluster(&[1, 0]);
    let extender = agreeable(&store, "n1").await;
    let scheduler = Scheduler::start(store.clone(), with(ExtenderOptions::new(extender.url())));
    create(&store, "a", 1, 0);
    in_time("idle", scheduler.idle()).await.unwrap();
    assert_eq!(extender.verbs(), ["filter", "bind"]);
    assert_eq!(extender.asked()[0].1["NodeNames"], json!(["n0"]));
}

#[tokio::test]
async fn what_the_extender_filters_out_waits_until_anything_happens() {
    let store = cluster(&[1, 1]);
    let extender = FakeExtender::start(|_, _| {
        (
            200,
            json!({ "NodeNames": [], "FailedNodes": { "n0": "full", "n1": "both" },
            "FailedAndUnresolvableNodes": { "n1": "never" } }),
        )
    })
    .await;
    let scheduler = Scheduler::start(store.clone(), with(ExtenderOptions::new(extender.url())));
    create(&store, "a", 1, 0);
    in_time("idle", scheduler.idle()).await.unwrap();
    let why = scheduler.status().borrow().waiting["default/a"].message.clone();
    assert_eq!(why, "0/2 nodes are available: 1 full, 1 never.");
    assert_eq!(extender.verbs(), ["filter"]);
    in_time("retry", scheduler.retry()).await.unwrap();
    in_time("idle", scheduler.idle()).await.unwrap();
    assert_eq!(extender.verbs(), ["filter", "filter"]);
}

#[tokio::test]
async fn a_broken_filter_fails_the_cycle_unless_it_is_ignorable_and_a_broken_prioritize_never() {
    for (ignorable, broken, want) in
        [(false, "filter", false), (true, "filter", true), (false, "prioritize", true)]
    {
        let store = cluster(&[1, 1]);
        let extender = FakeExtender::start(move |verb, asked| match verb {
            verb if verb == broken => (500, json!("it burns")),
            "filter" => (200, json!({ "NodeNames": asked["NodeNames"] })),
            _ => (200, json!([])),
        })
        .await;
        let options =
            ExtenderOptions { ignorable, bind_verb: String::new(), ..ExtenderOptions::new(extender.url()) };
        // With a back-off longer than the test, so that an error can be looked at.
        let patient = QueueOptions::default();
        let scheduler = Scheduler::start(store.clone(), SchedulerOptions { queue: patient, ..with(options) });
        create(&store, "a", 1, 0);
        let mut status = scheduler.status();
        in_time("a try", status.wait_for(|status| status.attempts > 0)).await.unwrap();
        if want {
            in_time("idle", scheduler.idle()).await.unwrap();
        } else {
            in_time("back-off", status.wait_for(|status| status.backing_off == 1)).await.unwrap();
            let why = status.borrow().waiting["default/a"].message.clone();
            assert_eq!(
                why,
                format!("failed filter with extender at URL http://{}/filter, code 500", extender.address)
            );
        }
        assert_eq!(!node_of(&store, "a").is_empty(), want, "{ignorable} {broken}");
    }
}

#[tokio::test]
async fn a_node_nobody_asked_about_is_an_error() {
    let store = cluster(&[1, 1]);
    let extender = FakeExtender::start(|_, _| (200, json!({ "NodeNames": ["n7"] }))).await;
    let options =
        SchedulerOptions { queue: QueueOptions::default(), ..with(ExtenderOptions::new(extender.url())) };
    let scheduler = Scheduler::start(store.clone(), options);
    create(&store, "a", 1, 0);
    let mut status = scheduler.status();
    let status = in_time("back-off", status.wait_for(|status| status.backing_off == 1)).await.unwrap();
    assert!(status.waiting["default/a"].message.contains("claims a filtered node \"n7\""), "{status:?}");
}

#[tokio::test]
async fn a_failed_binding_gives_the_place_back_and_the_pod_is_tried_again() {
    let store = cluster(&[1]);
    let bound = store.clone();
    let tries = std::sync::atomic::AtomicU32::new(0);
    let extender = FakeExtender::start(move |verb, asked| {
        if verb == "filter" {
            return (200, json!({ "NodeNames": asked["NodeNames"] }));
        }
        if tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            return (200, json!({ "Error": "placement gone" }));
        }
        let binding = json!({ "metadata": { "name": "a" }, "target": { "name": "n0" } });
        bound.bind("default", "a", &binding).unwrap();
        (200, json!({ "Error": "" }))
    })
    .await;
    let scheduler = Scheduler::start(store.clone(), with(ExtenderOptions::new(extender.url())));
    create(&store, "a", 1, 0);
    in_time("idle", scheduler.idle()).await.unwrap();
    assert_eq!(extender.verbs(), ["filter", "bind", "filter", "bind"]);
    assert_eq!(node_of(&store, "a"), "n0");
}

#[tokio::test]
async fn pods_without_a_managed_resource_are_not_shown_to_the_extender() {
    let store = cluster(&[1]);
    let extender = agreeable(&store, "n0").await;
    let managed_resources = vec!["nvidia.com/gpu".to_owned()];
    let options = ExtenderOptions { managed_resources, ..ExtenderOptions::new(extender.url()) };
    let scheduler = Scheduler::start(store.clone(), with(options));
    let cpu = json!({ "requests": { "cpu": "1" } });
    let pod = json!({ "metadata": { "name": "cpu-only" },
        "spec": { "containers": [{ "name": "c", "image": "i", "resources": cpu }] } });
    store.create(&PODS, "default", pod).unwrap();
    in_time("idle", scheduler.idle()).await.unwrap();
    assert_eq!((node_of(&store, "cpu-only").as_str(), extender.asked().len()), ("n0", 0));
    // To name it is enough: whoever asks for none of it is shown as well.
    create(&store, "no-gpu", 0, 0);
    in_time("idle", scheduler.idle()).await.unwrap();
    assert_eq!(extender.verbs(), ["filter", "bind"]);
}

#[tokio::test]
async fn points_for_a_node_that_is_named_twice_add_up() {
    let store = cluster(&[1, 1]);
    let extender = FakeExtender::start(|verb, asked| match verb {
        "filter" => (200, json!({ "NodeNames": asked["NodeNames"] })),
        _ => {
            let score = |node: &str, points: u32| json!({ "Host": node, "Score": points });
            (200, json!([score("n0", 10), score("n1", 14), score("n0", 10)]))
        }
    })
    .await;
    let options = ExtenderOptions { bind_verb: String::new(), ..ExtenderOptions::new(extender.url()) };
    let scheduler = Scheduler::start(store.clone(), with(options));
    create(&store, "a", 1, 0);
    in_time("idle", scheduler.idle()).await.unwrap();
    assert_eq!(node_of(&store, "a"), "n0");
}

#[tokio::test]
async fn bindings_on_their_way_already_count() {
    // Sixty pods at once on fifty places: what is assumed must count before it is told back.
    let store = cluster(&[10; 5]);
    let scheduler = Scheduler::start(store.clone(), impatient());
    (0..60).for_each(|i| drop(create(&store, &format!("p{i}"), 1, 0)));
    in_time("idle", scheduler.idle()).await.unwrap();
    let mut on = std::collections::BTreeMap::<String, u32>::new();
    (0..60).for_each(|i| *on.entry(node_of(&store, &format!("p{i}"))).or_default() += 1);
    assert!(on.iter().all(|(node, count)| node.is_empty() || *count <= 8), "cpu bounds a node at 8: {on:?}");
    assert_eq!(on[""], 20);
}

#[tokio::test]
async fn a_watch_that_is_cut_off_is_taken_up_again() {
    let store = Store::new(StoreOptions { seed: 1, history: 4, ..StoreOptions::default() });
    let scheduler = Scheduler::start(store.clone(), impatient());
    in_time("idle", scheduler.idle()).await.unwrap();
    // More changes at once than the history holds: the watch is told 410 and begins anew.
    for node in 0..20 {
        let allocatable = json!({ "cpu": "1", "memory": "1Gi", "pods": "9" });
        let node =
            json!({ "metadata": { "name": format!("m{node}") }, "status": { "allocatable": allocatable } });
        store.create(&NODES, "", node).unwrap();
    }
    create(&store, "a", 0, 0);
    in_time("idle", scheduler.idle()).await.unwrap();
    assert!(node_of(&store, "a").starts_with('m'));
}
