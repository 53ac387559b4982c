//! Which pods come: their shapes, and their objects.

use serde_json::{Value, json};
use stowage_shared::contract::SCHEDULER_NAME;

use crate::inventory::{SHARE, SLICE, WHOLE};

/// The label of pods that the hollow kubelets look at. Those that were there from the start lack it.
pub const LABEL: &str = "stowage-scale";

/// The mix of new pods, in turn: of twenty, nine ask for a share, five for a slice, four for a GPU, two for more.
const TURNS: [(&str, u32); 20] = [
    (SHARE, 1),
    (SLICE, 1),
    (SHARE, 1),
    (WHOLE, 1),
    (SHARE, 1),
    (SLICE, 1),
    (SHARE, 1),
    (WHOLE, 2),
    (SLICE, 1),
    (SHARE, 1),
    (WHOLE, 1),
    (SHARE, 1),
    (SLICE, 1),
    (SHARE, 1),
    (WHOLE, 1),
    (SHARE, 1),
    (SLICE, 2),
    (SHARE, 1),
    (WHOLE, 1),
    (WHOLE, 3),
];

/// What the n-th of the new pods asks for.
pub fn turn(n: usize) -> (&'static str, u32) {
    TURNS[n % TURNS.len()]
}

/// The n-th new pod of a mixed stream, which our scheduler is to place.
pub fn mixed_pod(prefix: &str, n: usize) -> Value {
    let (resource, count) = turn(n);
    let amounts = json!({resource: count.to_string(), "cpu": "500m", "memory": "1Gi"});
    let mut pod = pod(&format!("{prefix}-{n:05}"), &amounts);
    pod["metadata"]["labels"] = json!({LABEL: prefix});
    pod
}

/// A pod with one container that asks for `amounts`.
pub fn pod(name: &str, amounts: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "schedulerName": SCHEDULER_NAME,
            // Nothing runs in it, so it needs no token.
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": "model-server:1",
                "resources": {"limits": amounts, "requests": amounts},
            }],
        },
    })
}

/// What the `p`-th pod that was there from the start asks for, on the `n`-th node: kinds in turns, which differ
/// from node to node as in a cluster that has lived for a while.
pub fn placed(n: usize, p: usize) -> &'static str {
    [WHOLE, SLICE, SHARE][(p + (n >> (p % 8) & 1)) % 3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_of_twenty_new_pods_ask_for_a_share() {
        assert_eq!((0..20).filter(|&n| turn(n).0 == SHARE).count(), 9);
        assert_eq!(turn(20), turn(0));
    }

    #[test]
    fn a_new_pod_names_our_scheduler_and_what_it_asks_for() {
        let pod = mixed_pod("run", 7);
        assert_eq!(pod["metadata"]["name"], "run-00007");
        assert_eq!(pod["spec"]["schedulerName"], SCHEDULER_NAME);
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"][WHOLE], "2");
    }
}
