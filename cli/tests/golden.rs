//! What each command says about a recorded cluster, compared with golden files.
//!
//! The cluster (`golden/cluster.yaml`) is served by the API server stand-in, so reading it is tested as well.
//! `UPDATE_GOLDEN=1 cargo test -p kubectl-stowage --test golden` writes the files anew: look at the difference.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cluster, here};
use kubectl_stowage::answer::Output;
use kubectl_stowage::page::Style;
use serde_json::{Value, json};

/// Asks `kubectl stowage QUESTION` and compares what it prints, and whether it would end with 1.
async fn check(name: &str, question: &str, found: bool) {
    check_on(&Cluster::recorded().await, name, question, found).await;
}

/// The same about another cluster.
async fn check_on(cluster: &Cluster, name: &str, question: &str, found: bool) {
    let (answer, output) = cluster.ask(question).await.unwrap();
    let mut out = Vec::new();
    answer.print(output, Style::Plain, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(!text.contains('\u{1b}'), "no escapes of others reach the terminal");
    let extension = match output {
        Output::Text => "txt",
        Output::Json => "json",
        Output::Yaml => "yaml",
    };
    let path = here().join(format!("{name}.{extension}"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == golden, "{} is not what is said now; it is:\n{text}", path.display());
    assert_eq!(answer.found, found, "what the exit code says");
}

#[tokio::test]
async fn the_map_shows_every_gpu() {
    check("map", "map", false).await;
}

#[tokio::test]
async fn nodes_are_one_line_each() {
    check("nodes", "nodes", false).await;
    check("nodes", "nodes -o yaml", false).await;
}

#[tokio::test]
async fn a_pod_that_waits_is_explained_with_the_numbers() {
    check("explain-waits", "explain trainer-1 -n team-a", false).await;
    check("explain-waits", "explain trainer-1 -n team-a -o json", false).await;
}

#[tokio::test]
async fn a_pod_that_would_fit_is_explained_with_its_best_nodes_and_what_holds_it_up() {
    check("explain-fits", "explain embedder-1 -n search", false).await;
}

#[tokio::test]
async fn a_pod_with_policies_is_explained_with_them() {
    check("explain-policy", "explain speech-1 -A", false).await;
    check("explain-odd", "explain odd -n team-b", false).await;
}

/// Behind a Service the extender places the pods of the cluster's own scheduler: they were said to be held up by it.
#[tokio::test]
async fn pods_of_each_scheduler_that_is_named_are_stowages() {
    let mut objects = Cluster::recorded_objects();
    let waiting = objects.iter_mut().find(|object| object["metadata"]["name"] == "trainer-1").unwrap();
    waiting["spec"]["schedulerName"] = "default-scheduler".into();
    let cluster = Cluster::of(objects).await;
    for (flag, is_ours) in [("", false), (" --scheduler-names gpus,default-scheduler", true)] {
        let (answer, output) = cluster.ask(&format!("explain trainer-1 -n team-a{flag}")).await.unwrap();
        let mut out = Vec::new();
        answer.print(output, Style::Plain, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert_eq!(!said.contains("does not ask Stowage"), is_ours, "{said}");
    }
}

/// The cluster, with a pod that waits for a whole GPU.
fn with_a_notebook() -> Vec<Value> {
    let limits = json!({ "cpu": "4", "nvidia.com/gpu": "1" });
    let mut objects = Cluster::recorded_objects();
    objects.push(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "notebook-0", "namespace": "team-b", "uid": "UID-p99" },
        "spec": { "schedulerName": "stowage-scheduler", "containers": [{
            "name": "main", "image": "registry.example/notebook:1", "resources": { "limits": limits } }] },
        "status": { "phase": "Pending" },
    }));
    objects
}

#[tokio::test]
async fn a_pod_for_a_whole_gpu_is_told_first_what_it_costs_the_pods_to_come() {
    let cluster = Cluster::of(with_a_notebook()).await;
    check_on(&cluster, "explain-whole", "explain notebook-0 -n team-b", false).await;
}

#[tokio::test]
async fn a_small_pod_is_told_what_a_node_keeps_for_large_ones() {
    let mut objects = with_a_notebook();
    for node in objects.iter_mut().filter(|object| object["metadata"]["name"] == "gpu-node-3") {
        node["metadata"]["labels"] = json!({ "stowage.dev/reserve-whole-gpus": "2" });
    }
    let cluster = Cluster::of(objects.clone()).await;
    check_on(&cluster, "explain-reserve", "explain notebook-0 -n team-b", false).await;
    for node in objects.iter_mut().filter(|object| object["kind"] == "Node") {
        node["metadata"]["labels"] = json!({ "stowage.dev/reserve-whole-gpus": "two" });
    }
    let (answer, output) = Cluster::of(objects).await.ask("doctor").await.unwrap();
    let mut out = Vec::new();
    answer.print(output, Style::Plain, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let wrong = "gpu-node-3  node label stowage.dev/reserve-whole-gpus is no number from 0 to 64";
    assert!(text.contains(wrong), "{text}");
}

#[tokio::test]
async fn a_running_pod_is_explained_with_its_plan_and_its_devices() {
    check("explain-runs", "explain pod/embedder-0 -n search", false).await;
    check("explain-unplanned", "explain reranker-0 -n search", false).await;
}

#[tokio::test]
async fn what_if_places_pods_beside_each_other_and_creates_nothing() {
    let file = here().join("what-if.yaml");
    check("what-if", &format!("what-if -f {}", file.display()), true).await;
    check("what-if", &format!("what-if -o json -f {}", file.display()), true).await;
}

#[tokio::test]
async fn advice_names_the_request_the_reason_and_what_else_would_do() {
    check("advise", "advise --model-size 3Gi --latency-ms 50", false).await;
    check("advise", "advise --model-size 3Gi --latency-ms 50 -o json", false).await;
    check("advise-batch", "advise --model-size 3Gi --batch -o yaml", false).await;
    check("advise-large", "advise --model-size 90Gi --latency-ms 300 --requests-per-second 10", false).await;
    check("advise-tiny", "advise --model-size 100Mi", false).await;
}

/// Shares had room, and were recommended to who must be kept apart.
#[tokio::test]
async fn a_model_that_must_be_kept_apart_is_not_told_to_share_and_learns_why() {
    let mut objects = Cluster::recorded_objects();
    objects.retain(|object| {
        let name = object["metadata"]["name"].as_str().unwrap();
        !name.starts_with("gpu-node-") || name == "gpu-node-2"
    });
    let (answer, _) = Cluster::of(objects).await.ask("advise --model-size 3Gi --isolation").await.unwrap();
    let reason = "neighbours are kept apart in hardware, but no node offers one that is large enough";
    assert_eq!(answer.value["recommended"], json!({ "strategy": "mig", "reason": reason }));
    assert!(answer.found && answer.value["alternatives"].to_string().contains("time-slicing"));
}

#[tokio::test]
async fn defrag_proposes_and_says_who_stays() {
    check("defrag", "defrag", false).await;
    check("defrag", "defrag -o json", false).await;
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong_and_knows_the_cure() {
    check("doctor", "doctor", true).await;
    check("doctor", "doctor -o json", true).await;
}

#[tokio::test]
async fn the_audit_compares_what_was_planned_with_what_is() {
    check("audit", "audit", false).await;
}

#[tokio::test]
async fn a_pod_that_is_not_there_is_an_error_that_names_the_namespace() {
    let cluster = Cluster::recorded().await;
    let error = cluster.ask("explain nobody -n team-a").await.unwrap_err();
    assert!(error.to_string().contains("no pod \"nobody\" in namespace \"team-a\""), "{error}");
}

#[tokio::test]
async fn commands_only_read() {
    let cluster = Cluster::recorded().await;
    let file = here().join("what-if.yaml");
    for question in [
        "map",
        "nodes",
        "doctor",
        "audit",
        "defrag",
        "advise --model-size 3Gi",
        "explain trainer-1 -A",
        &format!("what-if -f {}", file.display()),
    ] {
        cluster.ask(question).await.unwrap();
    }
    let verbs: std::collections::BTreeSet<String> = cluster.verbs();
    assert_eq!(verbs.into_iter().collect::<Vec<_>>(), ["list"]);
}
