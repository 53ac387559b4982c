//! Carrying moves out: one eviction at a time, and no further one when the last did not help.

use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;
use stowage_shared::moves::Cluster;

use super::proposal::{Planned, propose};
use super::stays::controller;
use super::{Options, find};
use crate::world::{PodFacts, World};

/// Looks at the cluster in between.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a kubelet may take to tell, by its Node, what a move has freed.
const TOLD_LIMIT: Duration = Duration::from_secs(30);

/// The cluster, as far as moving pods goes.
pub trait Movable {
    /// What there is now.
    fn look(&mut self) -> impl Future<Output = Result<(World, Vec<PodDisruptionBudget>)>>;

    /// Evicts a pod, if it still has that UID.
    fn evict(&mut self, namespace: &str, name: &str, uid: &str) -> impl Future<Output = Result<()>>;

    /// Waits a while.
    fn pause(&mut self, how_long: Duration) -> impl Future<Output = ()>;
}

/// What was done.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// The pods that were evicted, each with what became of it.
    pub moved: Vec<Moved>,
    /// What fits more than before, in thousandths of a GPU; below 0 where it is less.
    pub gained_milli: i64,
    /// Why it ended.
    pub ended: String,
}

/// An evicted pod.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// Its namespace and name.
    pub pod: String,
    /// Where it was.
    pub from: String,
    /// The pod in its place.
    pub replacement: String,
    /// Where that runs.
    pub to: String,
}

/// Moves pods as long as it helps.
///
/// After each step the cluster is looked at anew and the next step is searched for in it, so nothing is done by a
/// stale plan. A step whose moves did not gain anything is the last.
///
/// # Errors
/// Where the cluster cannot be read. An eviction that is refused is no error: it ends the work, and is told.
pub async fn apply(
    cluster: &mut impl Movable,
    options: &Options,
    tell: &mut dyn FnMut(String),
) -> Result<Done> {
    let mut done = Done::default();
    let (mut world, mut budgets) = cluster.look().await?;
    let start = value(&world);
    loop {
        let left = options.max_moves.saturating_sub(done.moved.len());
        let waiting = match &options.lets_in {
            None => None,
            // Bound meanwhile: that was the aim.
            Some(name) => match find(&world, name) {
                Ok(pod) if pod.node().is_empty() => Some(pod),
                Ok(pod) => return Ok(Done { ended: format!("{} is on {}", pod.key(), pod.node()), ..done }),
                Err(error) => return Ok(Done { ended: error.to_string(), ..done }),
            },
        };
        let now = Options { max_moves: left, ..options.clone() };
        let proposal = propose(&world, &budgets, waiting, &now);
        let Some(step) = proposal.steps.first() else {
            let ended = if left == 0 { "no moves are left" } else { "no further move would help" };
            return Ok(Done { ended: ended.into(), ..done });
        };
        let (before, lets_in) = (value(&world), step.lets_in.is_some());
        for planned in &step.moves {
            tell(format!(
                "{}/{}: evicted from {} ({})",
                planned.namespace, planned.name, planned.from, planned.from_devices
            ));
            match one(cluster, &world, planned, options).await {
                Ok((moved, after)) => {
                    tell(format!("{} runs on {}", moved.replacement, moved.to));
                    done.moved.push(moved);
                    (world, budgets) = after;
                }
                Err(error) => {
                    let ended = format!("{}/{}: {error:#}", planned.namespace, planned.name);
                    return Ok(Done { ended, gained_milli: gained(start, value(&world)), ..done });
                }
            }
        }
        done.gained_milli = gained(start, value(&world));
        if let Some(name) = options.lets_in.as_ref().filter(|_| lets_in) {
            let ended = let_in(cluster, name, options.timeout.min(TOLD_LIMIT)).await?;
            return Ok(Done { ended, ..done });
        }
        if value(&world) <= before {
            return Ok(Done { ended: "the last step did not help: its pods went elsewhere".into(), ..done });
        }
    }
}

/// What became of the pod that was to be let in. Whether or not its scheduler binds it by then, moving more would not let it in
/// any sooner.
async fn let_in(cluster: &mut impl Movable, name: &(String, String), limit: Duration) -> Result<String> {
    let mut waited = Duration::ZERO;
    loop {
        let (world, _) = cluster.look().await?;
        match find(&world, name) {
            Ok(pod) if !pod.node().is_empty() => return Ok(format!("{} is on {}", pod.key(), pod.node())),
            Ok(pod) if World::best(&world.judge(pod)).is_some() => {
                return Ok(format!("{} fits now, and waits for its scheduler", pod.key()));
            }
            Ok(_) if waited < limit => {
                cluster.pause(PAUSE).await;
                waited += PAUSE;
            }
            _ => return Ok("the last step did not help: its room was taken".into()),
        }
    }
}

/// What all nodes could take of everything that is expected.
fn value(world: &World) -> u64 {
    Cluster::new(world.nodes.iter().map(|node| node.states().to_vec()).collect(), world.mix.clone()).value()
}

fn gained(start: u64, now: u64) -> i64 {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    number(now) - number(start)
}

/// Evicts one pod and waits until another of its controller runs in its place, holds its devices, and the old one
/// is gone.
async fn one(
    cluster: &mut impl Movable,
    world: &World,
    planned: &Planned,
    options: &Options,
) -> Result<(Moved, (World, Vec<PodDisruptionBudget>))> {
    let of = |pod: &PodFacts| controller(pod).map(|owner| owner.uid.clone());
    let Some(pod) = world.pod(&planned.namespace, &planned.name).filter(|pod| pod.uid() == planned.uid)
    else {
        bail!("it is not there any more")
    };
    let owner = of(pod);
    let before: Vec<&str> = world.pods.iter().map(PodFacts::uid).collect();
    cluster.evict(&planned.namespace, &planned.name, &planned.uid).await?;
    let mut waited = Duration::ZERO;
    while waited < options.timeout {
        cluster.pause(PAUSE).await;
        waited += PAUSE;
        let (world, budgets) = cluster.look().await?;
        let gone = !world.pods.iter().any(|pod| pod.uid() == planned.uid);
        let new = world.pods.iter().find(|pod| {
            pod.namespace() == planned.namespace && of(pod) == owner && !before.contains(&pod.uid())
        });
        if let Some(new) = new.filter(|new| gone && is_settled(new, &world)) {
            let moved = Moved {
                pod: format!("{}/{}", planned.namespace, planned.name),
                from: planned.from.clone(),
                replacement: new.key(),
                to: new.node().into(),
            };
            return Ok((moved, (world, budgets)));
        }
    }
    bail!(
        "it was evicted, and no other pod of its controller runs in its place after {} s",
        options.timeout.as_secs()
    )
}

/// Whether a pod runs, is ready, and its devices are told.
fn is_settled(pod: &PodFacts, world: &World) -> bool {
    let conditions = pod.object.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready =
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let told = world.node(pod.node()).and_then(|node| node.published.as_ref());
    ready && told.is_some_and(|told| told.allocations.iter().any(|held| held.uid == pod.uid()))
}
