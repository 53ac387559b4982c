//! What is expected of the pods to come, and where that makes pods go.

use super::*;
use crate::synthetic::{SHARE, WHOLE};

/// A pod that is bound, and asks for that much CPU.
fn hungry(uid: &str, node: &str, resource: &str, cpu_milli: u64) -> Pod {
    let mut pod = synthetic::pod(uid, uid, resource, 1);
    pod.host.cpu_milli = cpu_milli;
    Pod { node: node.into(), ..pod }
}

fn left(state: &mut State, node: &str) -> Option<u64> {
    let view = state.view(node)?;
    let NodeGpus::Known(known) = &view.gpus else { return None };
    Some(known.now.host.cpu_milli)
}

/// How many markets were made.
fn markets(state: &mut State) -> u64 {
    state.touch_any();
    state.snapshot().unwrap().market_version
}

#[test]
fn every_pod_takes_cpu_from_its_node_whatever_else_it_asks_for() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    assert_eq!(left(&mut state, NODE), Some(96_000));
    let plain = Pod { spec: Default::default(), ..hungry("plain", NODE, WHOLE, 6_000) };
    state.apply(pod_applied(&plain), now);
    assert_eq!(left(&mut state, NODE), Some(90_000));
    let waiting = Pod { node: String::new(), ..hungry("waits", NODE, WHOLE, 10_000) };
    state.apply(pod_applied(&waiting), now);
    assert_eq!(left(&mut state, NODE), Some(90_000));
    state.choose(&waiting, NODE, now).unwrap();
    assert_eq!(left(&mut state, NODE), Some(80_000), "it is held");
    state.apply(pod_applied(&Pod { node: NODE.into(), ..waiting }), now);
    assert_eq!(left(&mut state, NODE), Some(80_000), "and counts once when the watch has told");
    state.apply(Event::Pod(Change::Deleted("plain".into())), now);
    assert_eq!(left(&mut state, NODE), Some(86_000));
    state.apply(Event::Pod(Change::ListBegins), now);
    state.apply(Event::Pod(Change::ListEnds), now);
    assert_eq!(left(&mut state, NODE), Some(96_000), "nobody is there");
}

#[test]
fn the_market_is_made_anew_when_an_eighth_of_the_pods_is_new_and_otherwise_after_a_while() {
    let now = start();
    let mut state = synthetic::state(20, 5, now);
    let first = markets(&mut state);
    let come = |state: &mut State, n: u64| {
        state.apply(pod_applied(&hungry(&format!("new-{n}"), NODE, SHARE, 1_000 + n)), now);
        markets(state)
    };
    assert_eq!((0..12).map(|n| come(&mut state, n)).max(), Some(first), "100 pods are known");
    assert_eq!(come(&mut state, 12), first + 1);
    assert_eq!(come(&mut state, 13), first + 1);
    state.expire(now);
    state.expire(later(now, 29));
    assert_eq!(markets(&mut state), first + 1);
    state.expire(later(now, 31));
    assert_eq!(markets(&mut state), first + 2);
    state.expire(later(now, 90));
    assert_eq!(markets(&mut state), first + 2, "nothing is new");
}

#[test]
fn what_is_expected_is_the_same_whatever_came_before() {
    let now = start();
    let pods: Vec<Pod> = (0..40).map(|n| hungry(&format!("p{n}"), NODE, SHARE, 500 * (n % 3))).collect();
    let mut lived = synthetic::state(4, 3, now);
    for n in 0..40 {
        let gone = hungry(&format!("gone-{n}"), NODE, WHOLE, 100 * n);
        lived.apply(pod_applied(&gone), now);
        lived.apply(pod_applied(&pods[usize::try_from(n).unwrap()]), now);
        lived.snapshot();
        lived.apply(Event::Pod(Change::Deleted(gone.uid)), now);
    }
    lived.expire(now);
    lived.expire(later(now, 31));
    let mut young = synthetic::state(4, 3, now);
    pods.iter().for_each(|pod| young.apply(pod_applied(pod), now));
    young.expire(now);
    young.expire(later(now, 31));
    let market = |state: &mut State| state.snapshot().unwrap().mix.market().cloned().unwrap();
    assert_eq!(market(&mut lived), market(&mut young));
}
