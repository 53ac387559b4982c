//! Nominating ahead: waiting pods are placed over the whole cluster before kube-scheduler takes them up.
//!
//! kube-scheduler shows an extender only the nodes that it has sampled, and looking at all of them costs it tens of
//! milliseconds a pod. A pod with `status.nominatedNodeName` is tried on that node first and alone. So the best node of
//! the whole cluster costs about what a look at a tenth of it costs.
//!
//! ```text
//!   watches ──► book ──┐
//!          └──► state ─┴──► plan (pure) ──► write ──► API server ──► kube-scheduler tries that node first
//!                             ▲ track (pure): once a pod, so many at once, taken back when not used
//! ```
//!
//! A nomination is a hint. If what it was based on has changed, kube-scheduler goes its ordinary way. Two planners at
//! once do no harm either: each writes only where the field is empty and the pod is as it was looked at. What an earlier
//! leader has left behind is taken back when it is of no use ([`left`]).

pub mod left;
pub mod plan;
pub mod rush;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod tests;
pub mod track;
pub mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::mpsc;

use self::left::{Fits, Left, fits};
use self::plan::{Nomination, Scene, plan};
use self::track::{Expired, Outcome, Tracker};
use self::write::Target;
use crate::binding::post::PostError;
use crate::book::feed::Desk;
use crate::book::objects::Pod;
use crate::book::{Book, Place};
use crate::lease::Held;
use crate::metrics::Metrics;
use crate::seldom::Seldom;
use crate::state::{Broken, Snapshot, Store};
use crate::verbs::Memo;

/// Writes at once.
const WRITES_MAX: usize = 64;
/// How long nothing need happen before the queue is looked at again, for what changes with time alone.
const TICK: Duration = Duration::from_secs(1);
/// The pause after a round, at least and at most: a storm of events is looked at in whole, and not event by event.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// So many times as long as a round took is the pause after it, so that rounds cost a fifth of a core at most.
const PAUSE_TIMES: u32 = 4;
/// In so many rounds at most as many pods are nominated as may be.
const ROUNDS_A_FILL: usize = 8;
/// How often a write that fails for a reason that a person must mend is logged at most.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// Nominates waiting pods, while the Lease is held.
pub struct Planner {
    /// Writes.
    pub client: Client,
    /// The GPUs.
    pub store: Arc<Store>,
    /// Everything else.
    pub desk: Arc<Desk>,
    /// Whether we are the one who plans.
    pub held: Held,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Pods that are nominated and not bound, at most.
    pub outstanding_max: usize,
}

/// What a write has come to.
struct Written {
    nomination: Nomination,
    result: Result<(), PostError>,
}

/// What goes on from round to round.
struct Course {
    tracker: Tracker,
    left: Left,
    memo: Memo,
    resume: Option<Place>,
    results: mpsc::Sender<Written>,
    complaint: Seldom,
}

impl Course {
    fn new(results: mpsc::Sender<Written>) -> Self {
        Self {
            tracker: Tracker::default(),
            left: Left::default(),
            memo: Memo::default(),
            resume: None,
            results,
            complaint: Seldom::every(COMPLAINT_EVERY),
        }
    }

    /// The waiting pods that are nominated or were when they were last looked at; of the others there is nothing to tell.
    fn concerned<'a>(&self, book: &'a Book) -> Vec<&'a Pod> {
        let were = self.tracker.uids().chain(self.left.uids()).filter_map(|uid| book.pod(uid));
        let are_not = were.filter(|pod| pod.node.is_empty() && pod.nominated.is_empty());
        book.nominated().chain(are_not).collect()
    }

    /// The book told of such a pod; `kept_up` is whether room is kept for it that is only being made, so that its
    /// nomination is preemption's.
    fn told(&mut self, pod: &Pod, kept_up: bool, now: Instant) {
        self.tracker.told(pod);
        let known = self.tracker.is_outstanding(&pod.uid) || pod.nominated_by_us && kept_up;
        if !known {
            self.left.told(pod, now);
        }
    }
}

/// How many pods may be nominated now. Near the bound it is worth waiting until more may: each round looks at the whole
/// cluster, and the pods that are nominated keep kube-scheduler busy meanwhile.
fn room_for(outstanding: usize, most: usize) -> usize {
    let room = most.saturating_sub(outstanding);
    if room * ROUNDS_A_FILL < most { 0 } else { room }
}

impl Planner {
    /// Plans until the process ends.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn run(self) -> Result<(), Broken> {
        let (results, mut written) = mpsc::channel(WRITES_MAX);
        let mut course = Course::new(results);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let start = Instant::now();
            self.round(&mut course)?;
            tokio::time::sleep((start.elapsed() * PAUSE_TIMES).clamp(PAUSE.0, PAUSE.1)).await;
            tokio::select! {
                () = self.desk.changed() => {}
                _ = ticks.tick() => {}
                () = std::future::ready(()), if course.resume.is_some() => {}
                Some(done) = written.recv() => self.settle(&mut course, done)?,
            }
            while let Ok(done) = written.try_recv() {
                self.settle(&mut course, done)?;
            }
        }
    }

    /// Looks at the queue once, and begins to write what it decides.
    fn round(&self, course: &mut Course) -> Result<(), Broken> {
        let held = self.held.now();
        let now = Instant::now();
        let nominations = {
            let mut desk = self.desk.open();
            let settled = std::mem::take(&mut desk.settled);
            for settled in &settled {
                let left = course.left.settled(settled);
                let outcome = left.or(course.tracker.settled(settled));
                let counted = held && plan::want(&settled.pod, &self.store.snapshot()).is_some();
                outcome.filter(|_| counted).into_iter().for_each(|outcome| self.metrics.nomination(outcome));
            }
            let snapshot = self.store.snapshot();
            if !held || !snapshot.synced {
                course.tracker.clear();
                course.left.clear();
                course.resume = None;
                return Ok(());
            }
            desk.book.refresh();
            let concerned = course.concerned(&desk.book);
            self.store.change(|state| {
                concerned.iter().for_each(|pod| course.told(pod, state.nominated(&pod.uid).is_some(), now));
            })?;
            self.look_at_left(course, &desk.book, &snapshot, now)?;
            self.look_at_ours(course, &desk.book, &snapshot, now)?;
            for Expired { uid, node, first } in course.tracker.expire(now) {
                if first {
                    self.metrics.nomination(Outcome::Expired);
                }
                if let Some(pod) = desk.book.pod(&uid).filter(|pod| pod.nominated == *node) {
                    self.take_back(pod);
                }
                self.store.change(|state| state.unnominate(&uid))?;
            }
            let outstanding = course.tracker.outstanding() + course.left.outstanding();
            let limit = room_for(outstanding, self.outstanding_max).min(WRITES_MAX);
            let scene = Scene { snapshot: &snapshot, memo: &course.memo, book: &desk.book, now };
            let round = plan(&scene, course.resume, limit, |uid| course.tracker.has(uid));
            // At the bound there is nothing to go on with.
            course.resume = round.resume.filter(|_| limit > round.nominations.len());
            round.nominations.iter().for_each(|it| desk.book.nominates(&it.uid));
            round.nominations
        };
        if !nominations.is_empty() {
            // From now on, before anybody has told it back, filter keeps their room.
            self.store.change(|state| nominations.iter().for_each(|it| state.nominate(&it.uid, &it.node)))?;
        }
        for nomination in nominations {
            course.tracker.begins(&nomination.uid, nomination.node.clone());
            self.desk.rush.begins(&nomination.uid);
            self.begin(nomination, course.results.clone());
        }
        Ok(())
    }

    /// Takes back what an earlier leader has nominated and what is of no use any more.
    fn look_at_left(
        &self,
        course: &mut Course,
        book: &Book,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Result<(), Broken> {
        for uid in course.left.due(now) {
            let Some(pod) = book.pod(&uid) else { continue };
            let fits = self.store.change(|state| fits(book, state, snapshot, pod, now))?;
            if let Some(expired) = course.left.judge(&uid, fits, now) {
                if expired.first {
                    self.metrics.nomination(Outcome::Expired);
                }
                self.take_back(pod);
            }
        }
        Ok(())
    }

    /// Ends nominations of our own that are of no use any more, which kube-scheduler does not do in every minor.
    fn look_at_ours(
        &self,
        course: &mut Course,
        book: &Book,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Result<(), Broken> {
        for uid in course.tracker.due(now) {
            let Some(pod) = book.pod(&uid) else { continue };
            if self.store.change(|state| fits(book, state, snapshot, pod, now))? == Fits::No {
                course.tracker.no_longer_fits(&uid, now);
            }
        }
        Ok(())
    }

    /// Writes a nomination. The bound on those that are outstanding bounds the tasks.
    fn begin(&self, nomination: Nomination, results: mpsc::Sender<Written>) {
        let client = self.client.clone();
        tokio::spawn(async move {
            let Nomination { namespace, name, uid, resource_version, node } = &nomination;
            let target = Target { namespace, name, uid, resource_version };
            let result = write::nominate(&client, target, Some(node)).await;
            // Nobody listens any more when the process ends.
            let _ = results.send(Written { nomination, result }).await;
        });
    }

    fn settle(&self, course: &mut Course, done: Written) -> Result<(), Broken> {
        let Written { nomination: Nomination { uid, namespace, name, node, .. }, result } = done;
        let now = Instant::now();
        match result {
            Ok(()) => {
                course.tracker.written(&uid, true, now);
                tracing::debug!(pod.namespace = namespace, pod.name = name, pod.uid = uid, %node, "Pod nominated.");
            }
            Err(error) => {
                // Where nobody knows, it counts as not done: if it was, the watch tells.
                course.tracker.written(&uid, false, now);
                self.desk.rush.failed(&uid);
                self.store.change(|state| state.unnominate(&uid))?;
                tracing::debug!(pod.namespace = namespace, pod.name = name, pod.uid = uid, %node, %error, "Pod not nominated.");
                if error.is_forbidden() && course.complaint.now() {
                    tracing::error!(
                        %error,
                        "Pods cannot be nominated: apply deploy/options/nominate.yaml"
                    );
                }
            }
        }
        Ok(())
    }

    /// Takes a nomination back that was not used. If the pod has changed meanwhile, it is left as it is.
    fn take_back(&self, pod: &Pod) {
        let (client, pod) = (self.client.clone(), pod.clone());
        tokio::spawn(async move {
            let target = Target {
                namespace: &pod.namespace,
                name: &pod.name,
                uid: &pod.uid,
                resource_version: &pod.resource_version,
            };
            let result = write::nominate(&client, target, None).await;
            let error = result.err().map(|error| error.to_string());
            tracing::info!(
                pod.namespace = pod.namespace,
                pod.name = pod.name,
                error,
                "A nomination was not used in time, or is of no use any more."
            );
        });
    }
}
