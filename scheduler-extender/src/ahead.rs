//! What the extender does without being asked, each behind a flag of its own and all of it under one Lease:
//! nominating ahead, preemption across resource names, moving pods, scale-downs that drain.
//!
//! Behind a Service the same Lease says as well who is asked (`--leader-elect`): what a bind holds is held in memory, so
//! the verbs of one pod must not be spread over replicas.

use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args};
use futures::TryFutureExt;
use kube::Client;
use ops::Fault;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::book::feed::{self, Desk, Keep};
use crate::defrag::Mover;
use crate::defrag::pace::Budget;
use crate::drain::Drainer;
use crate::lease::{Held, Lease, identity};
use crate::planner::Planner;
use crate::planner::rush::Rush;
use crate::preempt::Preemptor;
use crate::preempt::course::PATIENCE;
use crate::watch::Feed;

/// How long giving the Lease back may take: it is a favour to the next one, who otherwise waits for it to run out.
const GIVE_BACK: Duration = Duration::from_millis(150);

/// The flags.
#[derive(Debug, Clone, Args)]
pub struct AheadArgs {
    /// Places waiting pods over the whole cluster and writes status.nominatedNodeName, so that kube-scheduler tries that
    /// node first.
    #[arg(long, env = "NOMINATE", default_value_t = false, action = ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    pub nominate: bool,
    /// Pods that are nominated and not bound yet, at most.
    #[arg(long, env = "NOMINATIONS_MAX", default_value_t = 256)]
    pub nominations_max: usize,
    /// Makes room where a pod's devices are blocked by devices of other resource names: evicts pods of lower priority,
    /// as PodDisruptionBudgets allow.
    #[arg(long, env = "PREEMPTION", default_value_t = false, action = ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    pub preemption: bool,
    /// Pods that are evicted by it in an hour, at most.
    #[arg(long, env = "EVICTIONS_PER_HOUR", default_value_t = 60)]
    pub evictions_per_hour: u32,
    /// Moves one pod where a waiting pod would fit without it and its like fits elsewhere: evicts it, as PodDisruptionBudgets
    /// and its author allow.
    #[arg(long, env = "DEFRAG", default_value_t = false, action = ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    pub defrag: bool,
    /// Pods that are moved by it in an hour, at most.
    #[arg(long, env = "DEFRAG_MOVES_PER_HOUR", default_value_t = 12)]
    pub defrag_moves_per_hour: u32,
    /// Pods that are moved by it for each hundred GPU pods that are placed, at most.
    #[arg(long, env = "DEFRAG_MOVES_PER_100_PLACEMENTS", default_value_t = 5)]
    pub defrag_moves_per_100_placements: u32,
    /// Keeps controller.kubernetes.io/pod-deletion-cost of ReplicaSets' GPU pods, so that a scale-down takes the pods whose
    /// going frees most.
    #[arg(long, env = "DRAIN_SCALE_DOWNS", default_value_t = false, action = ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    pub drain_scale_downs: bool,
    /// Deletion costs that are written in a minute, at most.
    #[arg(long, env = "DELETION_COSTS_PER_MINUTE", default_value_t = 60)]
    pub deletion_costs_per_minute: u32,
    /// Whether the holder of the Lease alone is ready and answers: for several replicas behind a Service. Not where each has
    /// a kube-scheduler beside it, whose own leader says who is asked.
    #[arg(long, env = "LEADER_ELECT", default_value_t = false, action = ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    pub leader_elect: bool,
    /// The namespace of the Lease under which one replica alone plans ahead.
    #[arg(long, env = "LEASE_NAMESPACE", default_value = "stowage-system")]
    pub lease_namespace: String,
    /// The name of that Lease.
    #[arg(long, env = "LEASE_NAME", default_value = "stowage-scheduler-extender")]
    pub lease_name: String,
}

impl AheadArgs {
    /// Whether anything is done without being asked.
    pub fn plans(&self) -> bool {
        self.nominate || self.preemption || self.defrag || self.drain_scale_downs
    }
}

/// What runs.
pub struct Ahead {
    stop: oneshot::Sender<()>,
    lease: JoinHandle<()>,
    held: Held,
    rush: Option<Arc<Rush>>,
}

impl Ahead {
    /// Starts what the flags ask for; `None` where they ask for nothing. Where it plans ([`AheadArgs::plans`]), its watches on
    /// pods and nodes feed the state as well.
    pub fn start(
        args: &AheadArgs,
        client: &Client,
        feed: &Feed,
        parts: &mut JoinSet<Result<(), Fault>>,
    ) -> Option<Self> {
        if !args.plans() && !args.leader_elect {
            return None;
        }
        let (namespace, name) = (&args.lease_namespace, &args.lease_name);
        let lease = Lease::new(client.clone(), namespace, name, identity(), feed.metrics.clone());
        let held = lease.held();
        let rush = Arc::new(Rush::new(args.nominations_max));
        if args.plans() {
            Self::plan(args, client, feed, &held, &rush, parts);
        }
        let rush = args.nominate.then_some(rush);
        let (stop, stopped) = oneshot::channel::<()>();
        let lease = tokio::spawn(lease.run(async {
            // Dropped or sent, it means the same.
            let _ = stopped.await;
        }));
        Some(Self { stop, lease, held, rush })
    }

    /// Whether the Lease is held.
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// The pods that came last, where they are nominated by whoever holds the Lease.
    pub fn rush(&self) -> Option<Arc<Rush>> {
        self.rush.clone()
    }

    fn plan(
        args: &AheadArgs,
        client: &Client,
        feed: &Feed,
        held: &Held,
        rush: &Arc<Rush>,
        parts: &mut JoinSet<Result<(), Fault>>,
    ) {
        let keep = Keep { settled: args.nominate, movable: args.defrag };
        let desk = Arc::new(Desk::new(keep, rush.clone()));
        parts.spawn(feed::pods(client.clone(), feed.clone(), desk.clone()).map_err(Fault::software));
        parts.spawn(feed::nodes(client.clone(), feed.clone(), desk.clone()).map_err(Fault::software));
        if args.nominate {
            let planner = Planner {
                client: client.clone(),
                store: feed.store.clone(),
                desk: desk.clone(),
                held: held.clone(),
                metrics: feed.metrics.clone(),
                outstanding_max: args.nominations_max,
            };
            parts.spawn(planner.run().map_err(Fault::software));
        }
        if args.preemption || args.defrag {
            parts.spawn(feed::budgets(client.clone(), desk.clone()).map_err(Fault::software));
        }
        if args.preemption {
            let preemptor = Preemptor {
                client: client.clone(),
                store: feed.store.clone(),
                desk: desk.clone(),
                held: held.clone(),
                metrics: feed.metrics.clone(),
                evictions_per_hour: args.evictions_per_hour,
                // Where a move is enough, nobody loses its place.
                patience: if args.defrag { PATIENCE * 4 } else { PATIENCE },
            };
            parts.spawn(preemptor.run().map_err(Fault::software));
        }
        if args.defrag {
            let mover = Mover {
                client: client.clone(),
                store: feed.store.clone(),
                desk: desk.clone(),
                held: held.clone(),
                metrics: feed.metrics.clone(),
                budget: Budget {
                    per_hour: args.defrag_moves_per_hour,
                    per_100_placements: args.defrag_moves_per_100_placements,
                },
            };
            parts.spawn(mover.run().map_err(Fault::software));
        }
        if args.drain_scale_downs {
            let drainer = Drainer {
                client: client.clone(),
                store: feed.store.clone(),
                desk,
                held: held.clone(),
                metrics: feed.metrics.clone(),
                writes_per_minute: args.deletion_costs_per_minute,
            };
            parts.spawn(drainer.run().map_err(Fault::software));
        }
    }

    /// Gives the Lease back.
    pub async fn stop(self) {
        drop(self.stop);
        // Who cannot give it back in time leaves it to run out.
        let _ = tokio::time::timeout(GIVE_BACK, self.lease).await;
    }
}
