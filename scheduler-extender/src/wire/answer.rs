//! Answers, each built in one buffer of the right size.
//!
//! A name that had no escapes in the request is copied into it, and a reason that thousands of nodes share is written as JSON once.

use super::{Asked, Name, write_json};

/// What filter says of a node, and of every other node that is like it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The pod fits.
    Fits,
    /// It does not now, for this reason; it might if other pods left.
    Failed(T),
    /// It does not, whoever leaves, for this reason.
    Unresolvable(T),
}

/// `ExtenderFilterResult`. `outcome_of` tells for each name which of the outcomes is its own. Whoever asked with
/// whole nodes gets whole nodes back: kube-scheduler would take an answer by name for none.
pub fn filter_result<T: AsRef<str>>(
    asked: &Asked<'_>,
    outcomes: &[Outcome<T>],
    outcome_of: &[usize],
) -> Vec<u8> {
    // Behind its reason as JSON, each node's entry is ready.
    let outcomes: Vec<Outcome<Vec<u8>>> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Fits => Outcome::Fits,
            Outcome::Failed(why) => Outcome::Failed(entry(why.as_ref())),
            Outcome::Unresolvable(why) => Outcome::Unresolvable(entry(why.as_ref())),
        })
        .collect();
    let told =
        || asked.names().iter().zip(outcome_of).filter_map(|(name, &at)| Some((name, outcomes.get(at)?)));
    let sizes = told().map(|(name, outcome)| match outcome {
        Outcome::Fits => name.json_len() + 1,
        Outcome::Failed(entry) | Outcome::Unresolvable(entry) => name.json_len() + entry.len(),
    });
    let mut out = Vec::with_capacity(128 + sizes.sum::<usize>());
    if asked.nodes().is_empty() {
        out.extend_from_slice(br#"{"Nodes":null,"NodeNames":["#);
        for (name, outcome) in told() {
            if *outcome == Outcome::Fits {
                name.write(&mut out);
                out.push(b',');
            }
        }
        end_list(&mut out);
        out.push(b']');
    } else {
        out.extend_from_slice(br#"{"Nodes":{"metadata":{},"items":["#);
        for (node, (_, outcome)) in asked.nodes().iter().zip(told()) {
            if *outcome == Outcome::Fits {
                write_json(&mut out, node);
                out.push(b',');
            }
        }
        end_list(&mut out);
        out.extend_from_slice(br#"]},"NodeNames":null"#);
    }
    out.extend_from_slice(br#","FailedNodes":{"#);
    for (name, outcome) in told() {
        if let Outcome::Failed(entry) = outcome {
            name.write(&mut out);
            out.extend_from_slice(entry);
        }
    }
    end_list(&mut out);
    out.extend_from_slice(br#"},"FailedAndUnresolvableNodes":{"#);
    for (name, outcome) in told() {
        if let Outcome::Unresolvable(entry) = outcome {
            name.write(&mut out);
            out.extend_from_slice(entry);
        }
    }
    end_list(&mut out);
    out.extend_from_slice(br#"},"Error":""}"#);
    out
}

/// `ExtenderFilterResult` of a request that cannot be served.
pub fn filter_error(error: &str) -> Vec<u8> {
    let mut out =
        br#"{"Nodes":null,"NodeNames":null,"FailedNodes":null,"FailedAndUnresolvableNodes":null,"Error":"#
            .to_vec();
    write_json(&mut out, error);
    out.push(b'}');
    out
}

/// What stands behind a name in `HostPriorityList`, for each score that kube-scheduler knows.
const SCORES: [&str; 11] = [
    r#","Score":0},"#,
    r#","Score":1},"#,
    r#","Score":2},"#,
    r#","Score":3},"#,
    r#","Score":4},"#,
    r#","Score":5},"#,
    r#","Score":6},"#,
    r#","Score":7},"#,
    r#","Score":8},"#,
    r#","Score":9},"#,
    r#","Score":10},"#,
];

/// `HostPriorityList`: nodes with their scores, 0 to 10.
pub fn host_priorities(names: &[Name<'_>], scores: &[u8]) -> Vec<u8> {
    let host = br#"{"Host":"#;
    let around = host.len() + SCORES[10].len();
    let size: usize = names.iter().map(|name| name.json_len() + around).sum();
    let mut out = Vec::with_capacity(2 + size);
    out.push(b'[');
    for (name, &score) in names.iter().zip(scores) {
        out.extend_from_slice(host);
        name.write(&mut out);
        out.extend_from_slice(SCORES[usize::from(score).min(SCORES.len() - 1)].as_bytes());
    }
    end_list(&mut out);
    out.push(b']');
    out
}

/// `ExtenderBindingResult`; an empty error means that the pod is bound.
pub fn binding_result(error: &str) -> Vec<u8> {
    let mut out = br#"{"Error":"#.to_vec();
    write_json(&mut out, error);
    out.push(b'}');
    out
}

/// What stands behind a name in a map of reasons.
fn entry(reason: &str) -> Vec<u8> {
    let mut out = vec![b':'];
    write_json(&mut out, reason);
    out.push(b',');
    out
}

/// Takes back the comma behind the last one.
fn end_list(out: &mut Vec<u8>) {
    if out.last() == Some(&b',') {
        out.pop();
    }
}
