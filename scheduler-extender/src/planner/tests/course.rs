//! Who watches over a nomination from round to round.

use serde_json::json;

use super::super::Course;
use super::*;
use crate::synthetic::WHOLE;

const NODE: &str = "gpu-node-0";

/// The pod `a`, nominated or not.
fn pod_a(nominated: &str) -> Value {
    let mut pod = asks("a", WHOLE, 1, &json!({}));
    pod["status"]["nominatedNodeName"] = nominated.into();
    pod["metadata"]["managedFields"] = json!([{ "manager": "stowage-scheduler-extender",
        "fieldsV1": { "f:status": { "f:nominatedNodeName": {} } } }]);
    pod
}

/// Once a pod had its nomination, nobody watched over another one: that of preemption, whose first eviction was refused,
/// or our own, whose third write succeeded without an answer.
#[test]
fn a_nomination_of_ours_is_watched_also_where_the_pod_had_one_before() {
    let (mut course, now) = (Course::new(tokio::sync::mpsc::channel(1).0), Instant::now());
    for _ in 0..3 {
        course.tracker.begins("a", NODE.into());
        course.tracker.written("a", false, now);
    }
    let nominated = pod(pod_a(NODE));
    course.told(&nominated, true, now);
    assert_eq!(course.left.outstanding(), 0, "preemption watches over its own");
    course.told(&nominated, false, now);
    assert_eq!((course.left.due(now), course.tracker.has("a")), (vec!["a".to_owned()], true));
    course.told(&pod(pod_a("")), false, now);
    assert_eq!(course.left.outstanding(), 0);
}
