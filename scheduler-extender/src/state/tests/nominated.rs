//! Room that is kept for pods that are not bound yet.

use stowage_shared::pack::Demand;

use super::*;

fn waiting(name: &str, resource: &str, count: u64, priority: i32, nominated: &str) -> Pod {
    let pod = synthetic::pod(name, name, resource, count);
    Pod { priority, nominated: nominated.to_owned(), ..pod }
}

fn demand(resource: &str, count: u32) -> Demand {
    let pod = synthetic::pod("p", "p", resource, u64::from(count));
    stowage_shared::request::Request::of_standard(&pod.spec).unwrap().demand()
}

/// How many of a resource a pod may get on the node.
fn room(state: &mut State, priority: i32, uid: &str, resource: &str) -> u32 {
    let view = state.view(NODE).unwrap();
    let NodeGpus::Known(known) = &view.gpus else { panic!("{view:?}") };
    let mix = state.mix.clone();
    let room =
        view.nominated.as_ref().map_or(Room::Class(known), |kept| kept.room(known, priority, uid, &mix));
    let gpus = match &room {
        Room::Class(known) => &known.now.gpus,
        Room::Own(room) => &room.gpus,
    };
    let resource: ResourceName = resource.parse().unwrap();
    gpus.iter().map(|gpu| gpu.copies(&resource)).sum()
}

#[test]
fn room_is_kept_against_pods_of_equal_and_lower_priority_only() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    state.apply(pod_applied(&waiting("a", synthetic::WHOLE, 3, 5, NODE)), now);
    state.apply(pod_applied(&waiting("b", synthetic::WHOLE, 1, 0, NODE)), now);
    let mut left = |priority, uid| room(&mut state, priority, uid, synthetic::WHOLE);
    assert_eq!([left(6, "x"), left(5, "x"), left(1, "x"), left(0, "x")], [4, 1, 1, 0]);
    assert_eq!((left(5, "a"), left(0, "b")), (4, 1), "its own room is not counted against a pod");
}

#[test]
fn our_own_nomination_counts_at_once_and_then_as_the_watch_tells_it() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    let pod = waiting("a", synthetic::WHOLE, 3, 0, "");
    state.apply(pod_applied(&pod), now);
    assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 4);
    state.nominate("a", NODE);
    assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 1);
    // An older version of the pod, told late.
    state.apply(pod_applied(&Pod { running: true, ..pod.clone() }), now);
    assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 1);
    let told = Pod { nominated: NODE.to_owned(), ..pod.clone() };
    state.apply(pod_applied(&told), now);
    assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 1, "once, not twice");
    state.apply(pod_applied(&pod), now);
    assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 4, "kube-scheduler took it back");
    state.make_room("a", NODE, BTreeSet::new());
    state.apply(pod_applied(&told), now);
    state.apply(pod_applied(&pod), now);
    assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 1, "what is kept up stays");
    state.unnominate("a");
    assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 4);
}

/// A list after a break in the watch.
fn list(state: &mut State, pods: &[&Pod], now: Now) {
    let pods = pods.iter().map(|&pod| Change::Listed(pod.clone()));
    let list = std::iter::once(Change::ListBegins).chain(pods).chain([Change::ListEnds]);
    list.for_each(|change| state.apply(Event::Pod(change), now));
}

/// Room was kept for ever that a list had told back, or whose pod it lacked.
#[test]
fn what_a_list_tells_of_our_own_nomination_counts_as_well() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    let pod = waiting("a", synthetic::WHOLE, 3, 0, "");
    state.apply(pod_applied(&pod), now);
    state.nominate("a", NODE);
    list(&mut state, &[&Pod { nominated: NODE.to_owned(), ..pod.clone() }], now);
    assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 1);
    state.apply(pod_applied(&pod), now);
    assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 4, "kube-scheduler took it back");
    state.nominate("a", NODE);
    assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 1);
    list(&mut state, &[], now);
    assert_eq!((room(&mut state, 0, "x", synthetic::WHOLE), state.nominated("a")), (4, None));
}

#[test]
fn room_is_kept_again_for_a_pod_that_was_not_bound_in_time_elsewhere() {
    let now = start();
    let mut state = synthetic::state(2, 0, now);
    let pod = waiting("a", synthetic::WHOLE, 3, 0, NODE);
    state.apply(pod_applied(&pod), now);
    assert!(matches!(state.choose(&pod, "gpu-node-1", now), Ok(Choice::Planned(..))));
    assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 4, "it has its place elsewhere");
    let later = later(now, i64::try_from(stowage_shared::contract::ASSUMPTION_TTL.as_secs()).unwrap());
    state.expire(later);
    assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 1);
}

#[test]
fn a_pod_that_is_bound_or_gone_keeps_no_room_by_nomination() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    for end in ["bound", "deleted", "deleting"] {
        let pod = waiting("a", synthetic::WHOLE, 3, 0, NODE);
        state.apply(pod_applied(&pod), now);
        state.make_room("a", NODE, BTreeSet::new());
        assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 1);
        match end {
            "bound" => {
                let Ok(Choice::Planned(_, plan)) = state.choose(&pod, NODE, now) else { panic!() };
                assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 1, "held, and not kept besides");
                state.apply(pod_applied(&bound(&pod, NODE, &plan)), now);
                assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 1);
                state.apply(Event::Pod(Change::Deleted("a".into())), now);
            }
            "deleted" => state.apply(Event::Pod(Change::Deleted("a".into())), now),
            _ => {
                state.unnominate("a");
                state.apply(pod_applied(&Pod { deleting: true, ..pod.clone() }), now);
            }
        }
        assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 4, "{end}");
    }
}

#[test]
fn a_pod_is_bound_beside_what_is_kept_where_it_can_be() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    // A nominee is placed as any pod would be: so that who comes next does not take its place.
    state.apply(pod_applied(&waiting("a", synthetic::SLICE, 7, 0, NODE)), now);
    let pod = waiting("b", synthetic::SLICE, 7, 0, "");
    state.apply(pod_applied(&pod), now);
    assert!(matches!(state.choose(&pod, NODE, now), Ok(Choice::Planned(..))));
    assert_eq!(room(&mut state, 0, "x", synthetic::SLICE), 0);
    assert_eq!(room(&mut state, 0, "a", synthetic::SLICE), 7);
    // One that kube-scheduler wants bound all the same goes before one that only hopes.
    let third = waiting("c", synthetic::SLICE, 7, 0, "");
    state.apply(pod_applied(&third), now);
    assert!(matches!(state.choose(&third, NODE, now), Ok(Choice::Planned(..))));
    assert_eq!(room(&mut state, 0, "a", synthetic::SLICE), 0);
}

#[test]
fn nominees_fit_together_or_do_not() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    let view = state.view(NODE).unwrap();
    let NodeGpus::Known(known) = &view.gpus else { panic!() };
    let nominee = |uid: &str, count| Nominee {
        uid: uid.into(),
        priority: 0,
        namespace: "models".into(),
        want: demand(synthetic::WHOLE, count).into(),
        once_gone: None,
    };
    assert!(arrange(&known.now, &[nominee("a", 2), nominee("b", 2)], &state.mix));
    assert!(!arrange(&known.now, &[nominee("a", 2), nominee("b", 3)], &state.mix));
}

#[test]
fn of_room_that_is_being_made_the_part_that_is_free_already_is_kept() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    let leaves = waiting("leaves", synthetic::WHOLE, 2, 0, "");
    state.apply(pod_applied(&leaves), now);
    let Ok(Choice::Planned(_, plan)) = state.choose(&leaves, NODE, now) else { panic!() };
    state.apply(pod_applied(&bound(&leaves, NODE, &plan)), now);
    state.apply(pod_applied(&waiting("a", synthetic::WHOLE, 3, 0, "")), now);
    assert!(state.make_room("a", NODE, BTreeSet::from(["leaves".into()])));
    assert!(!state.make_room("a", NODE, BTreeSet::new()), "one at a time");
    assert_eq!([0, 1].map(|priority| room(&mut state, priority, "x", synthetic::WHOLE)), [1, 2]);
    assert_eq!(room(&mut state, 0, "x", synthetic::SLICE), 14, "what it has no use for is not kept");
    state.apply(Event::Pod(Change::Deleted("leaves".into())), now);
    assert_eq!(room(&mut state, 0, "x", synthetic::WHOLE), 1);
    assert_eq!(room(&mut state, 0, "a", synthetic::WHOLE), 4);
}

#[test]
fn a_pod_that_waited_for_gpus_and_is_bound_counts_as_placed_once() {
    let now = start();
    let mut state = synthetic::state(1, 0, now);
    let pod = waiting("a", synthetic::WHOLE, 1, 0, "");
    assert_eq!(state.placements(), 0);
    state.apply(pod_applied(&pod), now);
    let Ok(Choice::Planned(_, plan)) = state.choose(&pod, NODE, now) else { panic!() };
    let bound = bound(&pod, NODE, &plan);
    for running in [false, true] {
        state.apply(pod_applied(&Pod { running, ..bound.clone() }), now);
    }
    assert_eq!(state.placements(), 1);
}
