//! What is counted, all under `stowage_scheduler_extender_`.

mod labels;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use self::labels::{BindOutcome, EvictionResult, Handshake, MoveOutcome, Verb};

pub(crate) use self::labels::StateLabel;

use self::labels::{
    EvictionLabel, HandshakeLabel, KindLabel, MoveLabel, OutcomeLabel, ReasonLabel, RequestLabels,
    ResultLabel, VerbLabel, Words, WriteLabel,
};
use crate::health::Kind;
use crate::planner::track::Outcome as NominationOutcome;
use crate::state::{NodeGpus, Snapshot, State, Unknown};
use crate::verbs::Outcome;

/// Upper bounds in seconds: a filter takes a millisecond, a bind waits for the API server.
const BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0];

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    durations: Family<VerbLabel, Histogram>,
    requests: Family<RequestLabels, Counter>,
    binds: Family<ResultLabel, Counter>,
    assumptions: Family<StateLabel, Gauge>,
    nodes: Family<StateLabel, Gauge>,
    synced: Family<KindLabel, Gauge>,
    watch_errors: Family<KindLabel, Counter>,
    plans_ignored: Counter,
    panics: Counter,
    connections: Gauge,
    handshakes: Family<HandshakeLabel, Counter>,
    certificates_refused: Gauge,
    leader: Gauge,
    nominations: Family<OutcomeLabel, Counter>,
    filter_waits: Counter,
    evictions: Family<EvictionLabel, Counter>,
    moves: Family<MoveLabel, Counter>,
    moves_refused: Family<ReasonLabel, Counter>,
    deletion_costs: Family<WriteLabel, Counter>,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            requests: Family::default(),
            binds: Family::default(),
            assumptions: Family::default(),
            nodes: Family::default(),
            synced: Family::default(),
            watch_errors: Family::default(),
            plans_ignored: Counter::default(),
            panics: Counter::default(),
            connections: Gauge::default(),
            handshakes: Family::default(),
            certificates_refused: Gauge::default(),
            leader: Gauge::default(),
            nominations: Family::default(),
            filter_waits: Counter::default(),
            evictions: Family::default(),
            moves: Family::default(),
            moves_refused: Family::default(),
            deletion_costs: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("stowage_scheduler_extender");
        registry.register(
            "request_duration_seconds",
            "Time from a request's last byte to its answer, by verb",
            metrics.durations.clone(),
        );
        registry.register(
            "requests",
            "Requests of kube-scheduler, by verb and result",
            metrics.requests.clone(),
        );
        registry.register(
            "binds",
            "Pods that kube-scheduler asked us to bind, by what became of it",
            metrics.binds.clone(),
        );
        registry.register(
            "assumptions",
            "Pods for which devices are held until the watch shows them bound, by state",
            metrics.assumptions.clone(),
        );
        registry.register("nodes", "Nodes, by what is known of their GPUs", metrics.nodes.clone());
        registry.register("synced", "1 once all objects of a kind were listed", metrics.synced.clone());
        registry.register("watch_errors", "Failures of a watch, by kind", metrics.watch_errors.clone());
        registry.register(
            "plans_ignored",
            "Plan annotations that were not valid for their pod",
            metrics.plans_ignored.clone(),
        );
        registry.register("panics", "Requests that ended in a defect of ours", metrics.panics.clone());
        registry.register("connections", "Open connections of the verbs' port", metrics.connections.clone());
        registry.register(
            "tls_handshakes",
            "TLS handshakes with who calls the verbs, by what became of it",
            metrics.handshakes.clone(),
        );
        registry.register(
            "tls_files_refused",
            "1 while the TLS files cannot be used, and those before stay in use",
            metrics.certificates_refused.clone(),
        );
        registry.register(
            "leader",
            "1 while this replica holds the Lease, whose holder alone plans ahead and, behind a Service, is asked",
            metrics.leader.clone(),
        );
        registry.register(
            "nominations",
            "GPU pods of our scheduler that were bound, by whether they were nominated before; and nominations taken back",
            metrics.nominations.clone(),
        );
        registry.register(
            "filter_waits",
            "Answers of filter that waited for nominations",
            metrics.filter_waits.clone(),
        );
        registry.register(
            "evictions",
            "Pods evicted to make room across resource names, by what became of it",
            metrics.evictions.clone(),
        );
        registry.register(
            "moves",
            "Pods moved so that a waiting one fits, by how far that came",
            metrics.moves.clone(),
        );
        registry.register(
            "moves_refused",
            "Searches for a pod to move that found none, and those not begun, by why",
            metrics.moves_refused.clone(),
        );
        registry.register(
            "deletion_costs",
            "Writes of deletion costs of ReplicaSets' pods, by result",
            metrics.deletion_costs.clone(),
        );
        metrics.begin_at_zero();
        metrics
    }

    /// Lets every counter be there from the start: one that comes into being with its first event hides that from
    /// `rate` and `increase`, and a ratio of such counters is nothing instead of zero.
    fn begin_at_zero(&self) {
        for &verb in Verb::ALL {
            drop(self.durations.get_or_create(&VerbLabel { verb }));
            for &result in Outcome::ALL {
                self.requests.get_or_create(&RequestLabels { verb, result }).inc_by(0);
            }
        }
        for &result in BindOutcome::ALL {
            self.binds.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        for kind in Kind::ALL {
            self.watch_errors.get_or_create(&KindLabel { kind: kind.plural() }).inc_by(0);
        }
        for &outcome in NominationOutcome::ALL {
            self.nominations.get_or_create(&OutcomeLabel { outcome }).inc_by(0);
        }
        for &result in Handshake::ALL {
            self.handshakes.get_or_create(&HandshakeLabel { result }).inc_by(0);
        }
        for &result in EvictionResult::ALL {
            self.evictions.get_or_create(&EvictionLabel { result }).inc_by(0);
        }
        for &outcome in MoveOutcome::ALL {
            self.moves.get_or_create(&MoveLabel { outcome }).inc_by(0);
        }
        for written in [true, false] {
            self.deletion_costs.get_or_create(&WriteLabel::of(written)).inc_by(0);
        }
    }

    /// It is known what became of an eviction.
    pub fn eviction(&self, result: EvictionResult) {
        self.evictions.get_or_create(&EvictionLabel { result }).inc();
    }

    /// A move has come so far.
    pub fn moves(&self, outcome: MoveOutcome) {
        self.moves.get_or_create(&MoveLabel { outcome }).inc();
    }

    /// Nobody is moved for a pod that waits, for this reason, a word of a closed set.
    pub fn move_refused(&self, reason: &'static str) {
        self.moves_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A deletion cost was written, or not.
    pub fn deletion_cost(&self, written: bool) {
        self.deletion_costs.get_or_create(&WriteLabel::of(written)).inc();
    }

    /// An answer waited for nominations.
    pub fn waited(&self) {
        self.filter_waits.inc();
    }

    /// It is known what became of a nomination.
    pub fn nomination(&self, outcome: NominationOutcome) {
        self.nominations.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Whether the Lease is held.
    pub fn leader(&self, held: bool) {
        self.leader.set(held.into());
    }

    /// A request was answered.
    pub fn answered(&self, verb: Verb, result: Outcome, seconds: f64) {
        self.durations.get_or_create(&VerbLabel { verb }).observe(seconds);
        self.requests.get_or_create(&RequestLabels { verb, result }).inc();
    }

    /// It is known what became of a bind.
    pub fn bind(&self, result: BindOutcome) {
        self.binds.get_or_create(&ResultLabel { result }).inc();
    }

    /// A watch failed.
    pub fn watch_error(&self, kind: Kind) {
        self.watch_errors.get_or_create(&KindLabel { kind: kind.plural() }).inc();
    }

    /// A request panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// A connection was opened (1) or closed (-1).
    pub fn connection(&self, change: i64) {
        self.connections.inc_by(change);
    }

    /// A TLS handshake is over.
    pub fn handshake(&self, result: Handshake) {
        self.handshakes.get_or_create(&HandshakeLabel { result }).inc();
    }

    /// Whether the TLS files cannot be used as they are now.
    pub fn certificates_refused(&self, refused: bool) {
        self.certificates_refused.set(refused.into());
    }

    /// Takes stock of what the state holds.
    pub fn state(&self, state: &State) {
        let (pending, bound) = state.assumptions();
        for (label, count) in [("pending", pending), ("bound", bound)] {
            self.assumptions.get_or_create(&StateLabel { state: label }).set(gauge(count));
        }
        let synced = state.synced();
        for (kind, done) in
            [(Kind::Pods, synced.pods), (Kind::Nodes, synced.nodes), (Kind::GpuNodes, synced.gpu_nodes)]
        {
            self.synced.get_or_create(&KindLabel { kind: kind.plural() }).set(i64::from(done));
        }
        let ignored = state.plans_ignored();
        self.plans_ignored.inc_by(ignored.saturating_sub(self.plans_ignored.get()));
    }

    /// Takes stock of the nodes; a node becomes old without an event.
    pub fn nodes(&self, snapshot: &Snapshot, now: std::time::Instant) {
        let mut counts: Vec<(&'static str, usize)> = ["known", "no_gpus"]
            .into_iter()
            .chain(Unknown::ALL.map(Unknown::label))
            .map(|label| (label, 0))
            .collect();
        for node in snapshot.nodes() {
            let label = match (node.usable(now), &node.gpus) {
                (Ok(_), _) => "known",
                (Err(_), NodeGpus::None) | (Err(None), _) => "no_gpus",
                (Err(Some(why)), _) => why.label(),
            };
            counts.iter_mut().filter(|(known, _)| *known == label).for_each(|(_, count)| *count += 1);
        }
        for (label, count) in counts {
            self.nodes.get_or_create(&StateLabel { state: label }).set(gauge(count));
        }
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_counter_is_told_before_its_first_event() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        metrics.bind(BindOutcome::Bound);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"requests_total{verb="preempt",result="bad_request"} 0"#,
            r#"request_duration_seconds_count{verb="bind"} 0"#,
            r#"binds_total{result="bound"} 1"#,
            r#"binds_total{result="in_doubt"} 0"#,
            r#"watch_errors_total{kind="gpunodes"} 0"#,
            r#"nominations_total{outcome="expired"} 0"#,
            r#"evictions_total{result="protected"} 0"#,
            r#"deletion_costs_total{result="failed"} 0"#,
        ] {
            let line = format!("stowage_scheduler_extender_{line}");
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
    }
}
