//! What is believed of a node, and for how long.

use proptest::prelude::*;
use stowage_shared::gpu_node::GpuNodeStatus;

use super::*;

fn one_node(now: Now) -> (Node, GpuNodeStatus) {
    (synthetic::node(NODE), synthetic::status(NODE, Vec::new(), now))
}

fn state_of(node: Node, status: Option<Result<GpuNodeStatus, String>>, now: Now) -> State {
    let mut state = State::default();
    for event in
        [Event::Node(Change::ListEnds), Event::GpuNode(Change::ListEnds), Event::Pod(Change::ListEnds)]
    {
        state.apply(event, now);
    }
    state.apply(Event::Node(Change::Applied(node)), now);
    if let Some(status) = status {
        state.apply(Event::GpuNode(Change::Applied(GpuNode { name: NODE.into(), status })), now);
    }
    state
}

#[track_caller]
fn check(state: &mut State, now: Now, want: Result<(), Option<Unknown>>) {
    let view = state.view(NODE).unwrap();
    assert_eq!(view.usable(now.monotonic).map(drop), want);
}

#[test]
fn what_is_not_known_is_not_used() {
    let now = start();
    let (node, status) = one_node(now);
    check(&mut state_of(node.clone(), Some(Ok(status.clone())), now), now, Ok(()));

    let not_ready = Node { ready: false, ..node.clone() };
    check(&mut state_of(not_ready, Some(Ok(status.clone())), now), now, Err(Some(Unknown::NotReady)));
    check(&mut state_of(node.clone(), None, now), now, Err(Some(Unknown::NotPublished)));
    let made_again = Node { uid: "another".into(), ..node.clone() };
    check(&mut state_of(made_again, Some(Ok(status.clone())), now), now, Err(Some(Unknown::OtherNode)));
    let nothing = Node {
        allocatable: node.allocatable.keys().cloned().map(|name| (name, 0)).collect(),
        ..node.clone()
    };
    check(&mut state_of(nothing, Some(Ok(status.clone())), now), now, Err(Some(Unknown::NotAllocatable)));
    check(&mut state_of(node.clone(), Some(Err("torn".into())), now), now, Err(Some(Unknown::Unreadable)));
    let mut twice = status.clone();
    twice.gpus[1].uuid = twice.gpus[0].uuid.clone();
    check(&mut state_of(node.clone(), Some(Ok(twice)), now), now, Err(Some(Unknown::Unreadable)));
    let timeless = GpuNodeStatus { observed_at: "yesterday".into(), ..status };
    check(&mut state_of(node, Some(Ok(timeless)), now), now, Err(Some(Unknown::Unreadable)));
}

#[test]
fn a_gpu_node_whose_status_was_not_written_yet_tells_nothing() {
    let now = start();
    let (node, _) = one_node(now);
    let empty = GpuNodeStatus::default();
    check(&mut state_of(node, Some(Ok(empty)), now), now, Err(Some(Unknown::NotPublished)));
}

#[test]
fn a_node_without_gpus_has_none() {
    let now = start();
    let (node, status) = one_node(now);
    let plain = Node { allocatable: BTreeMap::new(), ..node };
    check(&mut state_of(plain.clone(), None, now), now, Err(None));
    let empty = GpuNodeStatus { gpus: Vec::new(), ..status };
    check(&mut state_of(plain, Some(Ok(empty)), now), now, Err(None));
}

#[test]
fn a_gpu_node_that_is_not_written_any_more_becomes_old() {
    let now = start();
    let (node, status) = one_node(now);
    let mut state = state_of(node, Some(Ok(status)), now);
    check(&mut state, later(now, 599), Ok(()));
    check(&mut state, later(now, 600), Err(Some(Unknown::Old)));
}

#[test]
fn at_first_sight_the_timestamp_tells_the_age() {
    let written = start();
    let (node, status) = one_node(written);
    let now = later(written, 500);
    let mut state = state_of(node, Some(Ok(status)), now);
    check(&mut state, later(now, 99), Ok(()));
    check(&mut state, later(now, 100), Err(Some(Unknown::Old)));
}

#[test]
fn the_same_version_told_again_does_not_make_it_younger() {
    let now = start();
    let (node, status) = one_node(now);
    let mut state = state_of(node, Some(Ok(status.clone())), now);
    let again = Event::GpuNode(Change::Applied(GpuNode { name: NODE.into(), status: Ok(status) }));
    state.apply(again, later(now, 200));
    check(&mut state, later(now, 601), Err(Some(Unknown::Old)));
}

/// An NTP step of an hour on our machine once would have made every node stale at once.
#[test]
fn a_clock_that_jumps_makes_no_node_stale_that_goes_on_publishing() {
    let now = start();
    let (node, status) = one_node(now);
    for jump in [3600, -3600] {
        let mut state = state_of(node.clone(), Some(Ok(status.clone())), now);
        let heard = later(now, 110);
        let shifted = Now { wall: heard.wall + jiff::SignedDuration::from_secs(jump), ..heard };
        let status = synthetic::status(NODE, Vec::new(), heard);
        state.apply(
            Event::GpuNode(Change::Applied(GpuNode { name: NODE.into(), status: Ok(status) })),
            shifted,
        );
        check(&mut state, later(heard, 120), Ok(()));
    }
}

#[test]
fn other_names_of_gpus_are_learned_from_gpu_nodes() {
    let now = start();
    let (node, mut status) = one_node(now);
    let name: ResourceName = "example.com/big-gpu".parse().unwrap();
    let mut pod = synthetic::pod("p", "u", name.as_str(), 1);
    pod.node = NODE.into();
    let mut state = state_of(node, Some(Ok(status.clone())), now);
    state.apply(pod_applied(&pod), now);
    assert_eq!(all_in_use(&mut state, NODE), 0);
    status.gpus[0].offers[0].resource = name;
    status.observed_at = later(now, 1).wall.to_string();
    state.apply(
        Event::GpuNode(Change::Applied(GpuNode { name: NODE.into(), status: Ok(status) })),
        later(now, 1),
    );
    assert_eq!(in_use(&mut state, NODE, 0), 1);
}

#[test]
fn nothing_is_told_before_everything_was_listed() {
    let now = start();
    let mut state = State::default();
    let events = synthetic::events(2, 4, now);
    let last = events.len() - 1;
    for event in events.into_iter().take(last) {
        state.apply(event, now);
        assert!(state.snapshot().is_none());
    }
    state.apply(Event::Pod(Change::ListEnds), now);
    assert!(state.snapshot().unwrap().synced);
    assert!(state.snapshot().is_none(), "nothing changed since");
}

#[test]
fn what_a_later_list_lacks_is_gone() {
    let now = start();
    let mut state = synthetic::state(2, 6, now);
    assert_eq!(all_in_use(&mut state, "gpu-node-1"), 6);
    for event in synthetic::events(1, 0, now) {
        state.apply(event, now);
    }
    assert_eq!(all_in_use(&mut state, NODE), 0);
    assert!(state.view("gpu-node-1").is_none());
}

/// Merges what three watches tell, in any order across kinds.
fn merged(kinds: [Vec<Event>; 3], picks: &[usize]) -> Vec<Event> {
    let mut kinds = kinds.map(std::collections::VecDeque::from);
    let mut merged = Vec::new();
    for pick in picks.iter().copied().chain([0, 1, 2].into_iter().cycle()) {
        if kinds.iter().all(std::collections::VecDeque::is_empty) {
            return merged;
        }
        merged.extend(kinds[pick % 3].pop_front());
    }
    merged
}

proptest! {
    #[test]
    fn the_order_across_kinds_does_not_matter(picks in prop::collection::vec(0_usize..3, 0..80), pods in 0_usize..14) {
        let now = start();
        let mut want = synthetic::state(3, pods, now);
        let mut kinds = [Vec::new(), Vec::new(), Vec::new()];
        for event in synthetic::events(3, pods, now) {
            let kind = match event { Event::Pod(_) => 0, Event::Node(_) => 1, Event::GpuNode(_) => 2 };
            kinds[kind].push(event);
        }
        let mut state = State::default();
        for event in merged(kinds, &picks) {
            state.apply(event, now);
            // Reckoning in between must not change what comes out.
            let _ = state.snapshot();
        }
        prop_assert_eq!(look(&want.snapshot().unwrap()), {
            state.apply(Event::Pod(Change::Deleted("nobody".into())), now);
            look(&state.snapshot().unwrap())
        });
    }
}
