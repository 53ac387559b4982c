//! Carrying moves out: one eviction at a time, and no further one when the last did not help.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;
use stowage_shared::moves::Cluster;

use super::one::{evict, replaced};
use super::proposal::propose;
use super::{Options, find};
use crate::world::World;

/// Looks at the cluster in between.
pub(super) const PAUSE: Duration = Duration::from_secs(2);
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
    /// Whether it ended because something could not be done.
    pub failed: bool,
}

/// An evicted pod.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// Its namespace and name.
    pub pod: String,
    /// Where it was.
    pub from: String,
    /// The pod in its place; absent where none was seen to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    /// Where that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

impl Done {
    fn end(self, ended: impl Into<String>) -> Self {
        Self { ended: ended.into(), ..self }
    }

    fn fail(self, why: impl Into<String>) -> Self {
        Self { failed: true, ..self.end(why) }
    }
}

/// Moves pods as long as it helps.
///
/// After each step, and after each pod that went elsewhere than planned, the cluster is looked at anew and the next step
/// is searched for in it, so nothing is done by a stale plan. A step whose moves did not gain anything is the last.
///
/// # Errors
/// Where the cluster cannot be read, or the pod is not there that is to be let in. Once a pod was evicted nothing is an
/// error any more: it ends the work, and is told beside what was done.
pub async fn apply(
    cluster: &mut impl Movable,
    options: &Options,
    tell: &mut dyn FnMut(String),
) -> Result<Done> {
    let mut done = Done::default();
    let (mut world, mut budgets) = cluster.look().await?;
    options.lets_in.as_ref().map(|name| find(&world, name)).transpose()?;
    let start = value(&world);
    // How many moves the last step was short of when it ended, where it was to let a pod in: more would be a new plan.
    let mut short = None;
    loop {
        let left = options.max_moves.saturating_sub(done.moved.len());
        let waiting = match &options.lets_in {
            None => None,
            // Bound meanwhile: that was the aim.
            Some(name) => match find(&world, name) {
                Ok(pod) if pod.node().is_empty() => Some(pod),
                Ok(pod) => return Ok(done.end(format!("{} is on {}", pod.key(), pod.node()))),
                Err(error) => return Ok(done.fail(error.to_string())),
            },
        };
        let now = Options { max_moves: short.unwrap_or(left).min(left), ..options.clone() };
        let proposal = propose(&world, &budgets, waiting, &now);
        let Some(step) = proposal.steps.first() else {
            return Ok(match &options.lets_in {
                Some(name) if short.is_some() => {
                    match let_in(cluster, name, options.timeout.min(TOLD_LIMIT)).await {
                        Ok(ended) => done.end(ended),
                        Err(error) => done.fail(format!("{error:#}")),
                    }
                }
                _ if left == 0 => done.end("no moves are left"),
                _ => done.end("no further move would help"),
            });
        };
        let before = value(&world);
        let mut rest = step.moves.len();
        for planned in &step.moves {
            let pod = format!("{}/{}", planned.namespace, planned.name);
            let leaving = match evict(cluster, &world, planned).await {
                Ok(leaving) => leaving,
                Err(error) => {
                    done.gained_milli = gained(start, value(&world));
                    return Ok(done.fail(format!("{pod}: {error:#}")));
                }
            };
            tell(format!("{pod}: evicted from {} ({})", planned.from, planned.from_devices));
            let from = planned.from.clone();
            match replaced(cluster, &leaving, planned, options.timeout).await {
                Ok((by, after)) => {
                    tell(format!("{} runs on {}", by.key(), by.node()));
                    let (replacement, to) = (Some(by.key()), Some(by.node().to_owned()));
                    done.moved.push(Moved { pod, from, replacement, to });
                    (world, budgets) = after;
                    rest -= 1;
                    if by.node() != planned.to || !still_waits(&world, options) {
                        break;
                    }
                }
                Err(error) => {
                    done.gained_milli = gained(start, value(&world));
                    let why = format!("{pod}: it was evicted, and {error:#}");
                    done.moved.push(Moved { pod, from, replacement: None, to: None });
                    return Ok(done.fail(why));
                }
            }
        }
        done.gained_milli = gained(start, value(&world));
        if options.lets_in.is_some() {
            short = Some(rest);
        } else if value(&world) <= before {
            return Ok(done.end("the last step did not help: its pods went elsewhere"));
        }
    }
}

/// Whether whoever is to be let in is there and has no node yet; true where the moves are for nobody.
fn still_waits(world: &World, options: &Options) -> bool {
    let waits = |(namespace, name): &(String, String)| {
        world.pod(namespace, name).is_some_and(|pod| pod.node().is_empty())
    };
    options.lets_in.as_ref().is_none_or(waits)
}

/// What became of the pod that was to be let in. Whether or not its scheduler binds it by then, moving more would not let it in
/// any sooner.
async fn let_in(cluster: &mut impl Movable, name: &(String, String), limit: Duration) -> Result<String> {
    let mut waited = Duration::ZERO;
    loop {
        let (world, _) = cluster.look().await?;
        let pod = find(&world, name)?;
        if !pod.node().is_empty() {
            return Ok(format!("{} is on {}", pod.key(), pod.node()));
        }
        if World::best(&world.judge(pod)).is_some() {
            return Ok(format!("{} fits now, and waits for its scheduler", pod.key()));
        }
        if waited >= limit {
            return Ok("the last step did not help: its room was taken".into());
        }
        cluster.pause(PAUSE).await;
        waited += PAUSE;
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
