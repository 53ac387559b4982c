//! Stock that is taken now and then, for metrics: how much of all GPUs is in use, free and stranded, and what the pods
//! that wait for GPUs wait for.
//!
//! Nobody asks for it and no decision rests on it, so it is taken seldom, of a snapshot, and with judgements of its own:
//! a filter never waits for it.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use stowage_shared::pack::NoFit;
use stowage_shared::policy::{Policy, ShareWith, Want, WhyNot};
use stowage_shared::tally::Tally;

use crate::metrics::StateLabel;
use crate::state::{Class, KnownGpus, Snapshot, Waiting};
use crate::verbs::{Judgement, Memo};

/// Some node's GPUs have room: the pod's turn has not come, or it waits for something else than GPUs.
const FITS: &str = "fits";
/// There are GPU nodes of which nothing is known, and none of the others could ever take the pod.
const NODES_UNKNOWN: &str = "nodes_unknown";

/// Why pods wait; where nodes give different reasons, the first of these counts.
const REASONS: [&str; 8] = [
    FITS,
    NoFit::FULL,
    NoFit::UNHEALTHY,
    WhyNot::POLICY,
    NODES_UNKNOWN,
    NoFit::TOO_LARGE,
    NoFit::TOO_FEW,
    NoFit::NOT_OFFERED,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The gauges.
#[derive(Debug, Default)]
pub struct Stock {
    gpus: Family<StateLabel, Gauge<f64, AtomicU64>>,
    pending: Family<ReasonLabel, Gauge>,
    memo: Memo,
}

impl Stock {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let stock = Self::default();
        let registry = registry.sub_registry_with_prefix("stowage_scheduler_extender");
        registry.register(
            "gpus",
            "GPUs of the nodes that may be used, in parts of a whole GPU, by state: in_use, free, stranded, unhealthy or foreign",
            stock.gpus.clone(),
        );
        registry.register(
            "pending_pods",
            "GPU pods of our scheduler that are not bound, by what they wait for",
            stock.pending.clone(),
        );
        stock
    }

    /// Takes stock; `waiting` is what pods wait for and how many of them do.
    pub fn take(&self, snapshot: &Snapshot, waiting: &[Waiting], now: Instant) {
        if !snapshot.synced {
            return;
        }
        let mut tallies: HashMap<Class, Tally> = HashMap::new();
        let mut all: [u64; 5] = [0; 5];
        for known in snapshot.nodes().filter_map(|node| node.usable(now).ok()) {
            let Tally { in_use, free, stranded, unhealthy, foreign } = tally(known, &mut tallies);
            for (sum, one) in all.iter_mut().zip([in_use, free, stranded, unhealthy, foreign]) {
                *sum += one;
            }
        }
        for (state, milli) in ["in_use", "free", "stranded", "unhealthy", "foreign"].into_iter().zip(all) {
            self.gpus.get_or_create(&StateLabel { state }).set(milli as f64 / 1000.0);
        }
        let outlook = Outlook::of(snapshot, &self.memo, now);
        let mut counts = REASONS.map(|reason| (reason, 0));
        for Waiting { want, namespace, pods } in waiting {
            let reason = outlook.reason(want.as_ref(), namespace);
            counts.iter_mut().filter(|(known, _)| *known == reason).for_each(|(_, count)| *count += pods);
        }
        for (reason, pods) in counts {
            self.pending.get_or_create(&ReasonLabel { reason }).set(i64::try_from(pods).unwrap_or(i64::MAX));
        }
    }
}

/// What the nodes of a snapshot say to pods that wait.
pub(crate) struct Outlook<'a> {
    snapshot: &'a Snapshot,
    memo: &'a Memo,
    nodes: Vec<&'a KnownGpus>,
    /// One of each class will do where nobody minds company.
    one_of_each: Vec<&'a KnownGpus>,
    /// Whether there are GPU nodes of which nothing is known.
    unknown: bool,
}

impl<'a> Outlook<'a> {
    pub(crate) fn of(snapshot: &'a Snapshot, memo: &'a Memo, now: Instant) -> Self {
        let mut unknown = false;
        let mut nodes: Vec<&KnownGpus> = Vec::new();
        for node in snapshot.nodes() {
            match node.usable(now) {
                Ok(known) => nodes.push(known),
                Err(why) => unknown |= why.is_some(),
            }
        }
        // Who minds company minds a pod of no namespace.
        let is_open = |known: &&&KnownGpus| known.barred(&Policy::default(), "").is_none();
        let open: HashMap<Class, &KnownGpus> =
            nodes.iter().filter(is_open).map(|known| (known.class, *known)).collect();
        let minded = nodes.iter().filter(|known| !is_open(known)).copied();
        let one_of_each = open.into_values().chain(minded).collect();
        Self { snapshot, memo, nodes, one_of_each, unknown }
    }

    /// What a pod waits for that wants this; `None` where what it wants cannot be read.
    pub(crate) fn reason(&self, want: Option<&Want>, namespace: &str) -> &'static str {
        let Some(want) = want else { return WhyNot::POLICY };
        let anyone = want.policy.share_with == ShareWith::Anyone;
        let nodes = if anyone { &self.one_of_each } else { &self.nodes };
        reason(&self.memo.judge(self.snapshot, want, namespace, nodes.iter().copied()), self.unknown)
    }
}

/// A node's tally: once for all nodes that are alike. A class does not know what others have built on a GPU, so a
/// node with such instances is looked at by itself.
fn tally(known: &KnownGpus, tallies: &mut HashMap<Class, Tally>) -> Tally {
    let of = || Tally::of(&known.now.gpus);
    if known.now.gpus.iter().any(|state| !state.gpu.foreign.is_empty()) {
        return of();
    }
    *tallies.entry(known.class).or_insert_with(of)
}

/// The reason that comes first, of what nodes say.
fn reason(of_nodes: &[Judgement], unknown: bool) -> &'static str {
    let said = of_nodes.iter().map(|judgement| match judgement {
        Judgement::Fits(_) => FITS,
        Judgement::DoesNot { reason, .. } => reason,
    });
    let said: Vec<&str> = said.chain(unknown.then_some(NODES_UNKNOWN)).collect();
    REASONS.into_iter().find(|reason| said.contains(reason)).unwrap_or(NoFit::NOT_OFFERED)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use stowage_shared::contract::{GPU_MODEL_ANNOTATION, SHARE_WITH_ANNOTATION};

    use super::*;
    use crate::clock::Now;
    use crate::state::State;
    use crate::state::event::{Change, Event, Pod};
    use crate::synthetic;

    fn now() -> Now {
        Now { monotonic: Instant::now(), wall: Timestamp::from_second(1_795_510_800).unwrap() }
    }

    /// What is told of a cluster of one node, half an hour later or at once.
    fn told(pods: &[(&str, u64)], placed: usize, late: Duration) -> String {
        let pod = |(at, (resource, count)): (usize, &(&str, u64))| {
            synthetic::pod(&format!("p{at}"), &format!("u{at}"), resource, *count)
        };
        told_of(pods.iter().enumerate().map(pod).collect(), placed, late)
    }

    fn told_of(pods: Vec<Pod>, placed: usize, late: Duration) -> String {
        let now = now();
        let mut state: State = synthetic::state(1, placed, now);
        for pod in pods {
            state.apply(Event::Pod(Change::Applied(pod)), now);
        }
        let waiting = state.waiting();
        let mut registry = Registry::default();
        Stock::new(&mut registry).take(&state.snapshot().unwrap(), &waiting, now.monotonic + late);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[track_caller]
    fn check(text: &str, lines: &[&str]) {
        for line in lines {
            let line = format!("stowage_scheduler_extender_{line}");
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn gpus_are_told_in_parts_of_a_whole_one() {
        let text = told(&[], 6, Duration::ZERO);
        check(&text, &[r#"gpus{state="stranded"} 0.0"#, r#"gpus{state="foreign"} 0.0"#]);
        let sum: f64 = text
            .lines()
            .filter_map(|line| line.strip_prefix("stowage_scheduler_extender_gpus{")?.split(' ').nth(1))
            .map(|value| value.parse::<f64>().unwrap())
            .sum();
        assert!((sum - f64::from(synthetic::GPUS_PER_NODE)).abs() < 1e-9, "{text}");
    }

    #[test]
    fn a_pod_that_waits_has_one_reason() {
        let pods = [
            (synthetic::WHOLE, 1),
            (synthetic::WHOLE, 1),
            (synthetic::WHOLE, 5),
            ("nvidia.com/mig-7g.40gb", 1),
        ];
        check(
            &told(&pods, 0, Duration::ZERO),
            &[
                r#"pending_pods{reason="fits"} 2"#,
                r#"pending_pods{reason="full"} 0"#,
                r#"pending_pods{reason="too_few"} 1"#,
                r#"pending_pods{reason="not_offered"} 1"#,
            ],
        );
    }

    #[test]
    fn a_policy_that_nothing_fits_or_nobody_can_read_is_a_reason() {
        let pod = |(name, key, value): (&str, &'static str, &str)| {
            let annotations = [(key, value.to_owned())].into_iter().collect();
            Pod { annotations, ..synthetic::pod(name, name, synthetic::SHARE, 1) }
        };
        let pods = [
            ("a", GPU_MODEL_ANNOTATION, "*H100*"),
            ("b", SHARE_WITH_ANNOTATION, "nobody"),
            ("c", SHARE_WITH_ANNOTATION, "namespace"),
        ];
        let text = told_of(pods.map(pod).into(), 0, Duration::ZERO);
        check(&text, &[r#"pending_pods{reason="policy"} 2"#, r#"pending_pods{reason="fits"} 1"#]);
    }

    #[test]
    fn on_a_full_node_pods_wait_for_room() {
        let text = told(&[(synthetic::WHOLE, 1), (synthetic::SHARE, 1)], 30, Duration::ZERO);
        check(&text, &[r#"pending_pods{reason="full"} 2"#, r#"pending_pods{reason="fits"} 0"#]);
    }

    #[test]
    fn nodes_that_tell_nothing_any_more_are_a_reason_and_no_room() {
        let text = told(&[(synthetic::WHOLE, 1)], 0, Duration::from_secs(1800));
        check(&text, &[r#"pending_pods{reason="nodes_unknown"} 1"#, r#"gpus{state="free"} 0.0"#]);
    }
}
