//! Moving one pod so that a waiting one fits.
//!
//! Placement alone cannot keep GPUs unfragmented, since nobody knows who leaves next. When a pod fits nowhere, and would
//! if one other pod were elsewhere, that one is evicted: its controller makes another, which has a place already.
//!
//! ```text
//!   book, state ──► search (pure): who, if anybody      ┌──► evict ──► API server
//!                   pace   (pure): whether now, how often┤
//!                   course (pure, preemption's): one at a time, the room is kept, it helped or not
//! ```
//!
//! The pods that may be moved are those of `kubectl stowage defrag`, and among them only the less important ones, or those
//! of equal priority whose author has agreed. The API server's eviction is the only way, so that it counts
//! PodDisruptionBudgets itself; the UID is a precondition.

pub mod pace;
pub mod search;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use stowage_shared::policy::Want;

use self::pace::{Budget, Pace};
use self::search::{Found, Look, Moved};
use crate::book::amounts::Amounts;
use crate::book::feed::Desk;
use crate::book::objects::Pod;
use crate::book::rules::Rules;
use crate::clock::Now;
use crate::lease::Held;
use crate::metrics::{Metrics, MoveOutcome};
use crate::planner::plan::want;
use crate::planner::write;
use crate::preempt::course::{Course, Ended, How, Making, Next, PATIENCE};
use crate::preempt::evict::{self, Evicted, Reason};
use crate::preempt::victims::Victim;
use crate::state::{Broken, Store};

/// How often it is looked what to do next.
const TICK: Duration = Duration::from_secs(1);
/// Pods that are picked at a time, where all but one are alike to one that nothing was found for.
const PICKS_MAX: usize = 16;
/// Nodes that are looked at before other tasks have their turn.
const NODES_AT_ONCE: usize = 16;
/// So many times as long as a search took is the pause after it, so that searches cost a fifth of a core at most.
const PAUSE_TIMES: u32 = 4;
/// How long it is remembered that nothing was found for a pod, for those that ask alike.
const HOPELESS: Duration = Duration::from_secs(30);

/// Moves pods, while the Lease is held.
pub struct Mover {
    /// Writes.
    pub client: Client,
    /// The GPUs.
    pub store: Arc<Store>,
    /// Everything else.
    pub desk: Arc<Desk>,
    /// Whether we are the one who acts.
    pub held: Held,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How often it may.
    pub budget: Budget,
}

/// Pods that ask alike: what was not found for one is not looked for again for the next.
type Alike = (i32, String, Want, Amounts, Arc<Rules>);

/// What goes on from tick to tick.
struct Doing {
    course: Course,
    pace: Pace,
    hopeless: HashMap<Alike, Instant>,
    /// Where the one that is moved should go, for its Event.
    to: Arc<str>,
}

impl Mover {
    /// Moves pods until the process ends.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn run(self) -> Result<(), Broken> {
        // The hour is counted by the pace.
        let course = Course::new(u32::MAX, PATIENCE);
        let (pace, to) = (Pace::new(self.budget), "".into());
        let mut doing = Doing { course, pace, hopeless: HashMap::new(), to };
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for _ in 0..PICKS_MAX {
                match self.next(&mut doing) {
                    Next::Nothing => {}
                    Next::LookFor(pod) => {
                        let begun = Instant::now();
                        if !self.look_for(&mut doing, &pod).await? {
                            continue;
                        }
                        tokio::time::sleep(begun.elapsed() * PAUSE_TIMES).await;
                    }
                    Next::Evict(making, victim) => self.evict(&mut doing, &making, &victim).await?,
                    Next::Nominate(making) => write::nominate_for(&self.client, &self.desk, &making).await,
                    Next::End(ended) => self.end(&mut doing, &ended)?,
                }
                break;
            }
        }
    }

    /// What to do now.
    fn next(&self, doing: &mut Doing) -> Next {
        let (desk, now) = (self.desk.open(), Instant::now());
        if let Some(pause) = doing.pace.look(&desk.book, now) {
            self.metrics.moves(MoveOutcome::Displaced);
            rest(pause, "the pod that was moved has found no place");
        }
        let may = self.held.now() && desk.budgets_known && self.store.snapshot().synced;
        if may { doing.course.next(&desk.book, now) } else { doing.course.stop() }
    }

    /// Finds a pod to move, and begins. Answers with whether it has searched, which costs something.
    async fn look_for(&self, doing: &mut Doing, pod: &Pod) -> Result<bool, Broken> {
        let snapshot = self.store.snapshot();
        let Some(want) = want(pod, &snapshot) else { return Ok(false) };
        let (now, placements) = (Instant::now(), self.store.change(|state| state.placements())?);
        if let Err(wait) = doing.pace.may(now, placements) {
            self.metrics.move_refused(wait.label());
            return Ok(false);
        }
        doing.hopeless.retain(|_, at| now.saturating_duration_since(*at) < HOPELESS);
        let (wants, rules) = (pod.wants.clone(), pod.rules.clone());
        let alike: Alike = (pod.priority, pod.namespace.clone(), want.clone(), wants, rules);
        if doing.hopeless.contains_key(&alike) {
            return Ok(false);
        }
        let mut found = Found::default();
        for (at, node) in snapshot.nodes().filter(|node| node.is_gpu_node()).enumerate() {
            if at % NODES_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            let (desk, now) = (self.desk.open(), Now::read());
            self.store.change(|state| {
                let look = Look { book: &desk.book, state, snapshot: &snapshot, now };
                found.look(&look, pod, &want, &node.name);
            })?;
            if found.fits() {
                // kube-scheduler finds it, once those who are leaving are gone.
                return Ok(true);
            }
        }
        let best = {
            let mut desk = self.desk.open();
            desk.book.refresh();
            found.best(&desk.book, &snapshot, pod, Instant::now())
        };
        match best {
            Ok(moved) => self.begin(doing, pod, moved, placements).await?,
            Err(why) => {
                why.into_iter().for_each(|why| self.metrics.move_refused(why));
                doing.hopeless.insert(alike, Instant::now());
            }
        }
        Ok(true)
    }

    async fn begin(&self, doing: &mut Doing, pod: &Pod, moved: Moved, placements: u64) -> Result<(), Broken> {
        let Moved { candidate, to } = moved;
        let to_go = [candidate.pod.uid.clone()].into();
        // From now on, before anybody has told it back, filter keeps the room.
        if !self.store.change(|state| state.make_room(&pod.uid, &candidate.node, to_go))? {
            // Preemption makes room for it already, or it is bound.
            return Ok(());
        }
        let (node, now) = (&candidate.node, Instant::now());
        let Some(making) = doing.course.begin(pod, node, vec![candidate.pod.clone()], now) else {
            return self.store.change(|state| state.unnominate(&pod.uid));
        };
        doing.pace.moved(&candidate.owner, now, placements);
        doing.to = to;
        self.metrics.moves(MoveOutcome::Proposed);
        tracing::info!(
            pod.namespace = pod.namespace,
            pod.name = pod.name,
            %node,
            moved.namespace = candidate.pod.namespace,
            moved.name = candidate.pod.name,
            to = %doing.to,
            "A pod is moved so that another one fits."
        );
        write::nominate_for(&self.client, &self.desk, &making).await;
        Ok(())
    }

    async fn evict(&self, doing: &mut Doing, making: &Making, victim: &Victim) -> Result<(), Broken> {
        let evicted = if self.held.now() {
            evict::evict(&self.client, victim).await
        } else {
            Evicted::Failed("the Lease is lost".into())
        };
        self.metrics.moves(MoveOutcome::Eviction(evicted.result()));
        match evicted {
            Evicted::Done => {
                doing.course.evicted(&victim.uid);
                self.tell(making, victim, &doing.to).await;
            }
            Evicted::Gone => doing.course.evicted(&victim.uid),
            Evicted::Protected | Evicted::Failed(_) => {
                tracing::warn!(
                    pod.namespace = victim.namespace,
                    pod.name = victim.name,
                    node = making.node,
                    result = ?evicted,
                    "A pod is not moved: its eviction was refused."
                );
                doing.course.stop();
                self.end(doing, &Ended { uid: making.uid.clone(), how: How::InVain })?;
            }
        }
        Ok(())
    }

    /// Tells with an Event on both pods what was done.
    async fn tell(&self, making: &Making, victim: &Victim, to: &str) {
        let (client, node) = (&self.client, &making.node);
        let note = format!(
            "Evicted from node {node} to make room for pod {}; the pod that replaces it has a place on node {to}",
            making.uid
        );
        evict::tell(client, Reason::Moved, victim.into(), making.into(), note).await;
        let note = format!("Pod {} was evicted from node {node}, so that this one fits there", victim.uid);
        evict::tell(client, Reason::RoomMade, making.into(), victim.into(), note).await;
    }

    /// Keeps no more room, and learns whether it helped.
    fn end(&self, doing: &mut Doing, ended: &Ended) -> Result<(), Broken> {
        let helped = match ended.how {
            How::There => Some(true),
            How::Elsewhere | How::InVain => Some(false),
            How::Gone | How::Stopped => None,
        };
        if let Some(helped) = helped {
            self.metrics.moves(if helped { MoveOutcome::Helped } else { MoveOutcome::InVain });
        }
        if let Some(pause) = doing.pace.ended(helped, Instant::now()) {
            rest(pause, "the pod that it was to let in is not there");
        }
        self.store.change(|state| state.unnominate(&ended.uid))
    }
}

/// One place that says so.
fn rest(pause: Duration, why: &str) {
    tracing::info!(minutes = pause.as_secs() / 60, why, "A move did not help: no pod is moved for a while.");
}
