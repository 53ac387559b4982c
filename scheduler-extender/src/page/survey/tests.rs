use serde_json::{Value, json};
use stowage_shared::pack::Demand;

use super::*;
use crate::clock::Now;
use crate::state::Store;
use crate::synthetic;

fn ask(nodes: usize, pods: usize, resource: &str, count: u32) -> Value {
    let now = Now::read();
    let store = Store::new(synthetic::state(nodes, pods, now));
    let demand = Demand::from([(resource.parse().unwrap(), count)]);
    let asker = Asker { uid: String::new(), namespace: "models".into(), priority: 0, want: demand.into() };
    serde_json::to_value(survey(&store.snapshot(), &Memo::default(), &asker, now.monotonic)).unwrap()
}

#[test]
fn a_pod_that_fits_is_told_where_and_what_it_takes_away() {
    let said = ask(3, 3, synthetic::WHOLE, 2);
    assert_eq!((&said["asks"], &said["fits"]), (&json!("2 x nvidia.com/gpu"), &json!(3)));
    let best = &said["best"];
    assert_eq!(best["devices"].as_array().unwrap().len(), 2);
    assert_eq!(best["devices"][0][2], "nvidia.com/gpu");
    let amount = |when: &str| best[when]["inUse"].as_u64().unwrap();
    assert_eq!(amount("after") - amount("before"), 2000);
    assert_eq!(best["cost"]["wakesGpus"], 2);
    assert_eq!(said["next"].as_array().unwrap().len(), 2);
}

#[test]
fn a_pod_that_does_not_is_told_why_with_the_numbers() {
    let said = ask(2, 4, synthetic::WHOLE, 4);
    assert_eq!(said["fits"], 0);
    let group = &said["doesNotFit"][0];
    assert_eq!(
        (&group["text"], &group["nodes"]),
        (&json!("no free placement for nvidia.com/gpu"), &json!(2))
    );
    let numbers = group["numbers"].to_string();
    assert!(
        numbers.contains("wants 4 on one node; the most free is 3, on gpu-node-1 (of 4 possible, 1 in use)"),
        "{numbers}"
    );
    assert!(numbers.contains("are free on all these nodes together, scattered"), "{numbers}");
    let said = ask(2, 0, "nvidia.com/mig-7g.40gb", 1);
    assert_eq!(said["doesNotFit"][0]["text"], "no nvidia.com/mig-7g.40gb on this node");
    assert_eq!(said["doesNotFit"][0]["permanent"], true);
}

#[test]
fn it_says_what_filter_says() {
    let now = Now::read();
    let (nodes, names) = (40, (0..40).map(synthetic::gpu_node_name).collect::<Vec<_>>());
    let verbs = synthetic::verbs(nodes, 9, now);
    for (resource, count) in
        [(synthetic::WHOLE, 1), (synthetic::WHOLE, 3), (synthetic::SLICE, 9), (synthetic::SHARE, 5)]
    {
        let body = synthetic::request(resource, count, names.iter().map(String::as_str));
        let filtered: Value = serde_json::from_slice(&verbs.filter(&body, now.monotonic).body).unwrap();
        let fits = filtered["NodeNames"].as_array().unwrap().len();
        assert_eq!(ask(nodes, 9, resource, count)["fits"], fits, "{count} of {resource}");
    }
}
