use std::time::Duration;

use super::*;

/// A GPU, and what is seen of it as time goes by.
struct Story {
    health: Health,
    gpu: GpuUuid,
    now: Duration,
}

const WELL: Vitals = Vitals {
    uncorrected_errors: Some(0),
    row_remap_pending: false,
    row_remap_failed: false,
    recovery_action: None,
};

impl Story {
    fn new() -> Self {
        let mut story = Self {
            health: Health::new(Rules::default()),
            gpu: "GPU-a".parse().unwrap(),
            now: Duration::ZERO,
        };
        assert_eq!(story.well(WELL), [""; 0]);
        story
    }

    fn seen(&mut self, seen: Seen) -> Vec<String> {
        let changes = self.health.apply(&self.gpu, seen, self.now);
        let text = |change: Change| match change.ill {
            Some((cause, _)) => format!("{:?} {}", change.scope, cause.word()),
            None => format!("{:?} well", change.scope),
        };
        changes.into_iter().map(text).collect()
    }

    fn xid(&mut self, xid: u64, instances: Option<(u32, Option<u32>)>) -> Vec<String> {
        self.seen(Seen::Xid { xid, instances })
    }

    fn well(&mut self, vitals: Vitals) -> Vec<String> {
        self.seen(Seen::Well(vitals))
    }

    fn lost(&mut self) -> Vec<String> {
        self.seen(Seen::Ill(Trouble::Lost("gone".into())))
    }

    fn after(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn why(&self, instances: Option<(u32, u32)>) -> &str {
        self.health.why_not(&self.gpu, instances).unwrap_or("well")
    }
}

#[test]
fn a_programs_own_error_leaves_the_gpu_alone() {
    let mut story = Story::new();
    assert_eq!(story.xid(13, None), [""; 0]);
    assert_eq!(story.why(None), "well");
}

#[test]
fn after_a_contained_error_the_gpu_rests_until_it_has_been_quiet_and_answers() {
    let mut story = Story::new();
    assert_eq!(story.xid(94, None), ["Gpu xid"]);
    assert!(
        story
            .why(None)
            .starts_with("XID 94: a memory error that was contained to one program; it gets no new")
    );
    assert_eq!(story.after(59).well(WELL), [""; 0]);
    assert_eq!(story.xid(94, None), [""; 0], "said once");
    assert_eq!(story.after(59).well(WELL), [""; 0], "it was not quiet");
    assert_eq!(story.after(1).well(WELL), ["Gpu well"]);
}

#[test]
fn a_contained_error_of_an_instance_leaves_the_others_alone() {
    let mut story = Story::new();
    assert_eq!(story.xid(94, Some((1, Some(0)))), ["ComputeInstance(1, 0) xid"]);
    assert_eq!(story.xid(94, Some((2, None))), ["GpuInstance(2) xid"]);
    for (instances, ill) in [
        (Some((1, 0)), true),
        (Some((1, 1)), false),
        (Some((2, 5)), true),
        (Some((3, 0)), false),
        (None, true),
    ] {
        assert_eq!(story.why(instances) != "well", ill, "{instances:?}");
    }
    assert_eq!(story.health.why_none(&story.gpu), None);
    assert_eq!(story.after(60).well(WELL), ["GpuInstance(2) well", "ComputeInstance(1, 0) well"]);
}

#[test]
fn what_needs_a_reset_takes_the_whole_gpu_until_one_is_seen() {
    let mut story = Story::new();
    assert_eq!(story.xid(95, Some((1, Some(0)))), ["Gpu xid"]);
    assert_eq!(story.after(3600).well(Vitals { uncorrected_errors: Some(2), ..WELL }), ["Gpu ecc"]);
    assert_eq!(
        story.after(60).well(Vitals { uncorrected_errors: Some(2), ..WELL }),
        [""; 0],
        "time mends nothing"
    );
    assert_eq!(story.why(None), "XID 95: a memory error that was not contained; it needs a reset");
    assert_eq!(story.well(WELL), ["Gpu well"], "the counters begin again");
}

#[test]
fn a_gpu_that_was_away_and_is_back_is_well() {
    let mut story = Story::new();
    assert_eq!(story.xid(79, None), ["Gpu xid"]);
    assert_eq!(story.after(1).lost(), ["Gpu lost"]);
    assert_eq!(story.why(None), "it cannot be reached: gone", "the gravest reason first");
    assert_eq!(story.after(3600).lost(), [""; 0]);
    assert_eq!(story.after(1).well(WELL), ["Gpu well"]);
}

/// An "Unknown Error" now and then is no reset.
#[test]
fn a_gpu_that_could_not_be_read_for_a_while_was_not_reset() {
    let mut story = Story::new();
    story.xid(79, None);
    assert_eq!(story.seen(Seen::Ill(Trouble::Unreadable("Unknown Error".into()))), ["Gpu unreadable"]);
    assert_eq!(story.seen(Seen::Ill(Trouble::Hangs("GPU 0 hangs".into()))), ["Gpu hangs"]);
    assert_eq!(story.why(None), "GPU 0 hangs");
    assert_eq!(story.well(WELL), [""; 0]);
    assert_eq!(story.why(None), "XID 79: the GPU has fallen off the bus; its node needs a reboot");
}

#[test]
fn rows_to_be_remapped_and_the_drivers_wishes_are_over_when_the_gpu_says_so() {
    let mut story = Story::new();
    let pending = Vitals { row_remap_pending: true, ..WELL };
    assert_eq!(story.well(pending), ["Gpu row_remap_pending"]);
    assert_eq!(story.well(Vitals { row_remap_failed: true, ..pending }), ["Gpu row_remap_failed"]);
    assert_eq!(story.well(WELL), ["Gpu well"]);
    let wants = |action| Vitals { recovery_action: Some(action), ..WELL };
    assert_eq!(story.well(wants(RecoveryAction::Reset)), ["Gpu recovery_action"]);
    assert_eq!(story.xid(119, None), ["Gpu xid"]);
    assert_eq!(story.well(wants(RecoveryAction::None)), ["Gpu well"], "done, and the XID with it");
}

#[test]
fn memory_errors_of_before_the_start_are_history_and_new_ones_count() {
    let mut story =
        Story { health: Health::new(Rules::default()), gpu: "GPU-a".parse().unwrap(), now: Duration::ZERO };
    let errors = |count| Vitals { uncorrected_errors: Some(count), ..WELL };
    assert_eq!(story.well(errors(3)), [""; 0]);
    assert_eq!(story.well(errors(4)), ["Gpu ecc"]);
    assert_eq!(story.after(60).well(errors(4)), ["Gpu well"]);
}
