//! What is refused, what goes otherwise than planned, and what is then said.

use super::*;

fn lets_in(name: &str) -> Options {
    Options { lets_in: Some(("d".into(), name.into())), ..Options::default() }
}

/// Two half full nodes, and a pod that waits for either of them to be empty: two moves.
fn halves(fate: Fate) -> Fake {
    Fake { waiting: Some(whole()), ..Fake::new(2, &[(0, 0), (0, 0), (1, 0), (1, 0)], fate) }
}

/// What is said to a pod that waits with something changed, and that nobody is evicted for it.
async fn check(change: impl FnOnce(&mut Value), want: &str) {
    let mut fake = halves(Fate::Packed);
    change(fake.waiting.as_mut().unwrap());
    let proposed = dry_run(&fake.world(), &[], &lets_in("whole")).unwrap_err().to_string();
    let applied = apply(&mut fake, &lets_in("whole"), &mut |_| ()).await.unwrap_err().to_string();
    assert!(proposed.contains(want) && applied == proposed && fake.evicted.is_empty(), "{applied}");
}

/// Only what a pod asks for was looked at, and others were evicted for pods that no move lets in.
#[tokio::test]
async fn nobody_is_evicted_for_a_pod_that_moves_would_not_let_in() {
    let other = |pod: &mut Value| pod["spec"]["schedulerName"] = "other".into();
    check(other, "no move would let d/whole in: it asks for scheduler \"other\"").await;
    let gated = |pod: &mut Value| pod["spec"]["schedulingGates"] = json!([{ "name": "example.com/quota" }]);
    check(gated, "before example.com/quota are gone").await;
    let deleted = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = NOW.into();
    check(deleted, "it is being deleted").await;
    let annotated = |key: &'static str, value: &'static str| {
        move |pod: &mut Value| pod["metadata"]["annotations"][key] = value.into()
    };
    check(annotated("stowage.dev/placement", "anywhere"), "use binpack or spread").await;
    check(annotated("stowage.dev/gpu-model", "N*"), "the extender's --defrag does").await;
    let none = |pod: &mut Value| pod["spec"]["containers"] = json!([{ "name": "c" }]);
    check(none, "pod d/whole asks for no GPU").await;
}

#[tokio::test]
async fn a_pod_that_is_not_there_is_an_error_with_apply_too() {
    let error = apply(&mut halves(Fate::Packed), &lets_in("typo"), &mut |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("no pod \"typo\""), "{error}");
}

#[tokio::test]
async fn two_moves_let_a_pod_in() {
    let mut fake = halves(Fate::Packed);
    let (done, _) = run(&mut fake).await;
    assert_eq!((fake.evicted.len(), done.failed), (2, false));
    assert_eq!(done.ended, "d/whole fits now, and waits for its scheduler");
}

/// The rest of the step was evicted although its first pod had come back to where it was.
#[tokio::test]
async fn what_is_left_of_a_step_is_searched_for_anew_once_a_pod_went_elsewhere() {
    let mut fake = halves(Fate::Back);
    let (done, _) = run(&mut fake).await;
    assert_eq!((fake.evicted.len(), done.failed), (1, false));
    assert_eq!(done.ended, "the last step did not help: its room was taken");
    let pods = [(0, 0), (0, 0), (1, 0), (1, 0), (2, 0), (2, 0), (2, 0)];
    let mut fake = Fake { waiting: Some(whole()), ..Fake::new(3, &pods, Fate::Spread) };
    let (done, _) = run(&mut fake).await;
    assert_eq!(fake.evicted.len(), 2);
    assert_eq!(done.ended, "d/whole fits now, and waits for its scheduler");
}

#[tokio::test]
async fn nobody_else_is_evicted_once_the_pod_that_waited_is_bound() {
    let mut fake = halves(Fate::Bound);
    let (done, _) = run(&mut fake).await;
    assert_eq!((fake.evicted.len(), &*done.ended), (1, "d/whole is on n0"));
}

#[tokio::test]
async fn a_refused_eviction_is_no_eviction_and_ends_with_1() {
    let mut fake = Fake::new(2, &[(0, 0), (1, 0)], Fate::Refused);
    let (done, told) = run(&mut fake).await;
    assert!(done.moved.is_empty() && done.ended.contains("PodDisruptionBudget forbids"), "{done:?}");
    assert!(told.is_empty() && report(&done).unwrap().found, "{told:?}");
}

#[tokio::test]
async fn a_pod_that_does_not_come_back_is_told_as_evicted_and_ends_with_1() {
    let mut fake = Fake::new(2, &[(0, 0), (1, 0)], Fate::Never);
    let (done, told) = run(&mut fake).await;
    assert_eq!((fake.evicted.len(), done.moved.len(), told.len()), (1, 1, 1));
    assert!(done.ended.contains("no other pod of its controller runs"), "{done:?}");
    let answer = report(&done).unwrap();
    let said = answer.page.render(crate::page::Style::Plain);
    assert!(answer.found && said.starts_with("0 pods moved, 1 evicted and not replaced, "), "{said}");
}

/// The report was lost with the error.
#[tokio::test]
async fn a_cluster_that_can_no_longer_be_read_does_not_hide_what_was_done() {
    for (looks, replaced) in [(1, false), (2, true)] {
        let pods = [(0, 0), (0, 0), (1, 0), (2, 0), (2, 0)];
        let mut fake = Fake { waiting: Some(whole()), looks, ..Fake::new(3, &pods, Fate::Packed) };
        let (done, _) = run(&mut fake).await;
        assert_eq!((done.moved.len(), done.moved[0].replacement.is_some()), (1, replaced));
        assert!(done.failed && done.ended.contains("the API server is gone"), "{done:?}");
    }
}
