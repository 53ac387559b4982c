//! Devices held for pods that are being bound.

use stowage_shared::contract::ASSUMPTION_TTL;
use stowage_shared::plan::Plan;
use stowage_shared::request::Request;

use super::*;

const PAST_TTL: i64 = ASSUMPTION_TTL.as_secs() as i64 + 1;

fn waiting(n: usize) -> Pod {
    synthetic::pod(&format!("p{n}"), &format!("u{n}"), synthetic::WHOLE, 1)
}

/// Chooses for a pod; what is held, and the plan.
#[track_caller]
fn choose(state: &mut State, pod: &Pod, node: &str, now: Now) -> (AssumptionId, String) {
    match state.choose(pod, node, now) {
        Ok(Choice::Planned(id, plan)) => (id, plan),
        other => panic!("{other:?}"),
    }
}

#[test]
fn devices_are_held_from_the_moment_they_are_chosen() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    let plans: Vec<String> = (0..4).map(|n| choose(&mut state, &waiting(n), NODE, now).1).collect();
    assert_eq!(all_in_use(&mut state, NODE), 4);
    let refusal = state.choose(&waiting(4), NODE, now).unwrap_err().to_string();
    assert_eq!(refusal, "no free placement for nvidia.com/gpu any more");
    for (n, plan) in plans.iter().enumerate() {
        let request = Request::of_standard(&waiting(n).spec).unwrap();
        Plan::read(plan, &format!("u{n}"), NODE, &request).unwrap();
    }
}

#[test]
fn a_share_counts_with_the_size_that_it_was_planned_with() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    let sized = |n: usize, size: &str| {
        let pod = synthetic::pod(&format!("p{n}"), &format!("u{n}"), synthetic::SHARE, 1);
        let annotations = [("stowage.dev/gpu-memory", size.to_owned())].into_iter().collect();
        Pod { annotations, ..pod }
    };
    let (id, plan) = choose(&mut state, &sized(0, "30Gi"), NODE, now);
    assert!(plan.contains(r#""memoryMib":30720"#), "{plan}");
    // Its author says something else once it is bound, and nothing changes.
    state.bound("u0", id);
    state.apply(pod_applied(&bound(&sized(0, "1Gi"), NODE, &plan)), now);
    choose(&mut state, &sized(1, "30Gi"), NODE, now);
    assert!(state.choose(&sized(2, "30Gi"), NODE, now).is_err(), "two GPUs of 40 GiB are shared");
    choose(&mut state, &sized(3, "10Gi"), NODE, now);
}

#[test]
fn a_pod_counts_alike_while_it_is_assumed_and_once_it_is_bound() {
    let now = start();
    let mut state = synthetic::state(1, 3, now);
    let pod = waiting(0);
    let (id, plan) = choose(&mut state, &pod, NODE, now);
    let assumed = look(&state.snapshot().unwrap());
    state.bound("u0", id);
    state.apply(pod_applied(&bound(&pod, NODE, &plan)), now);
    assert_eq!(state.assumptions(), (0, 0));
    assert_eq!(look(&state.snapshot().unwrap()), assumed);
}

#[test]
fn what_failed_is_free_again_and_only_that() {
    let now = start();
    let mut state = synthetic::state(2, 0, now);
    let (first, _) = choose(&mut state, &waiting(0), NODE, now);
    let (second, _) = choose(&mut state, &waiting(0), "gpu-node-1", now);
    assert_eq!((all_in_use(&mut state, NODE), all_in_use(&mut state, "gpu-node-1")), (0, 1));
    state.failed("u0", first);
    assert_eq!(all_in_use(&mut state, "gpu-node-1"), 1, "the late answer to an earlier try frees nothing");
    state.failed("u0", second);
    assert_eq!(all_in_use(&mut state, "gpu-node-1"), 0);
}

#[test]
fn a_binding_that_is_tried_again_gets_the_same_plan() {
    let now = start();
    let mut state = synthetic::state(1, 2, now);
    let first = choose(&mut state, &waiting(0), NODE, now);
    choose(&mut state, &waiting(1), NODE, now);
    assert_eq!(choose(&mut state, &waiting(0), NODE, later(now, 100)), first);
    state.expire(later(now, PAST_TTL));
    assert_eq!(state.assumptions(), (1, 0), "its time counts from the last try");
}

#[test]
fn a_pod_that_is_never_bound_gives_its_devices_back() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    choose(&mut state, &waiting(0), NODE, now);
    state.expire(later(now, PAST_TTL - 2));
    assert_eq!(all_in_use(&mut state, NODE), 1);
    state.expire(later(now, PAST_TTL));
    assert_eq!(all_in_use(&mut state, NODE), 0);
}

#[test]
fn a_bound_pod_keeps_its_devices_however_late_the_watch_is() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    let (id, _) = choose(&mut state, &waiting(0), NODE, now);
    state.bound("u0", id);
    state.expire(later(now, 100 * PAST_TTL));
    assert_eq!(all_in_use(&mut state, NODE), 1);
    let elsewhere = state.choose(&waiting(0), "gpu-node-9", now).unwrap_err().to_string();
    assert_eq!(elsewhere, "the pod is already bound to node gpu-node-0");
}

#[test]
fn an_older_version_of_a_pod_frees_nothing() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    let pod = waiting(0);
    let (_, plan) = choose(&mut state, &pod, NODE, now);
    state.apply(pod_applied(&pod), now);
    assert_eq!(state.assumptions(), (1, 0), "the watch still shows it waiting");
    state.apply(pod_applied(&bound(&pod, NODE, &plan)), now);
    state.apply(pod_applied(&pod), now);
    assert_eq!(all_in_use(&mut state, NODE), 1, "a pod is never unbound");
}

#[test]
fn a_pod_that_goes_or_ends_gives_its_devices_back() {
    let now = start();
    for gone in [
        Event::Pod(Change::Deleted("u0".into())),
        pod_applied(&Pod { terminal: true, ..waiting(0) }),
        pod_applied(&Pod { terminal: true, ..bound(&waiting(0), NODE, "") }),
    ] {
        let mut state = synthetic::state(1, 0, now);
        choose(&mut state, &waiting(0), NODE, now);
        state.apply(gone.clone(), now);
        assert_eq!(all_in_use(&mut state, NODE), 0, "{gone:?}");
    }
}

#[test]
fn a_list_that_began_after_the_binding_and_lacks_the_pod_frees_its_devices() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    state.apply(Event::Pod(Change::ListBegins), now);
    let (id, _) = choose(&mut state, &waiting(0), NODE, now);
    state.bound("u0", id);
    state.apply(Event::Pod(Change::ListEnds), now);
    assert_eq!(all_in_use(&mut state, NODE), 1, "that list was begun before");
    state.apply(Event::Pod(Change::ListBegins), now);
    state.apply(Event::Pod(Change::ListEnds), now);
    assert_eq!(all_in_use(&mut state, NODE), 0);
}

#[test]
fn a_node_of_which_nothing_is_known_is_refused() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    let refusal =
        |state: &mut State, node: &str, now| state.choose(&waiting(0), node, now).unwrap_err().to_string();
    assert_eq!(refusal(&mut state, "nowhere", now), "node nowhere is not known to Stowage");
    assert_eq!(refusal(&mut state, NODE, later(now, 601)), Unknown::Old.text());
    let no_gpu = synthetic::pod("cpu", "c", "example.com/other", 1);
    assert_eq!(state.choose(&no_gpu, "nowhere", now).unwrap(), Choice::Plain);
}

#[test]
fn plans_that_are_not_the_pods_are_counted_and_not_used() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    let (id, plan) = choose(&mut state, &waiting(0), NODE, now);
    state.failed("u0", id);
    for (n, plan) in [plan.as_str(), "{", &"x".repeat(1 << 20), ""].into_iter().enumerate() {
        let forged = bound(&waiting(n + 1), NODE, plan);
        state.apply(pod_applied(&forged), now);
        state.apply(pod_applied(&Pod { running: true, ..forged }), now);
    }
    assert_eq!(state.plans_ignored(), 4, "each once");
    assert_eq!(all_in_use(&mut state, NODE), 4, "such pods count where the core would put them");
}

#[test]
fn only_our_own_waiting_pods_are_bound() {
    let pod = waiting(0);
    let check =
        |pod: &Pod, name: &str| may_be_bound(pod, "models", name).map_err(|refusal| refusal.to_string());
    assert_eq!(check(&pod, "p0"), Ok(()));
    for (pod, name, want) in [
        (pod.clone(), "p1", "has another name"),
        (Pod { ours: false, ..pod.clone() }, "p0", "does not ask for one of the schedulers"),
        (Pod { node: NODE.into(), ..pod.clone() }, "p0", "already bound to node gpu-node-0"),
        (Pod { deleting: true, ..pod.clone() }, "p0", "is being deleted"),
        (Pod { terminal: true, ..pod.clone() }, "p0", "has ended"),
    ] {
        let refusal = check(&pod, name).unwrap_err();
        assert!(refusal.contains(want), "{refusal}");
    }
}
