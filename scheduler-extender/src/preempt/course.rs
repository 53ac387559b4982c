//! The course of making room, step by step: pure.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::victims::Victim;
use crate::book::Book;
use crate::book::objects::Pod;
use crate::planner::plan::may_be_nominated;

/// How long a pod has been unschedulable before room is made: what kube-scheduler does itself comes first, as does a
/// node that is just starting.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long until the same pod is looked at again.
const AGAIN: Duration = Duration::from_secs(30);
/// How long room is kept once it was made, and how long making it may take beyond the victims' own grace.
const KEPT: Duration = Duration::from_secs(60);
/// A pod's `terminationGracePeriodSeconds` may be hours; so long it is waited for at most.
const MAKING_MAX: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3600);

/// Room that is being made.
#[derive(Debug, Clone, PartialEq)]
pub struct Making {
    /// The pod's UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node.
    pub node: String,
    /// Who must go.
    pub victims: Vec<Victim>,
    /// Those that were not asked to go yet.
    left: Vec<Victim>,
    until: Instant,
    /// Whether everybody is gone.
    made: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// Look for room for this pod.
    LookFor(Box<Pod>),
    /// Evict this pod.
    Evict(Box<Making>, Victim),
    /// Everybody is gone: nominate the pod, in case it is not any more.
    Nominate(Box<Making>),
    /// It is over for this pod: nothing is kept for it.
    End(Ended),
}

/// Room is made no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The UID of the pod that it was made for.
    pub uid: String,
    /// What became of it.
    pub how: How,
}

/// What became of a pod that room was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is bound to that node.
    There,
    /// It is bound to another.
    Elsewhere,
    /// It is gone, or ends.
    Gone,
    /// It still waits, and its time is over.
    InVain,
    /// Whoever made room was stopped.
    Stopped,
}

/// What goes on.
#[derive(Debug)]
pub struct Course {
    per_hour: usize,
    patience: Duration,
    making: Option<Making>,
    /// Since when pods are unschedulable, by UID.
    since: HashMap<String, Instant>,
    /// When pods were looked at last.
    looked: BTreeMap<String, Instant>,
    /// When pods were evicted.
    evicted: VecDeque<Instant>,
}

impl Course {
    /// With so many evictions an hour at most, for pods that have waited for so long.
    pub fn new(per_hour: u32, patience: Duration) -> Self {
        Self {
            per_hour: usize::try_from(per_hour).unwrap_or(usize::MAX),
            patience,
            making: None,
            since: HashMap::new(),
            looked: BTreeMap::new(),
            evicted: VecDeque::new(),
        }
    }

    /// What to do now.
    pub fn next(&mut self, book: &Book, now: Instant) -> Next {
        self.note(book, now);
        if self.making.is_none() {
            return self.pick(book, now);
        }
        let Some(making) = &mut self.making else { return Next::Nothing };
        let over = match book.pod(&making.uid) {
            Some(pod) if !pod.node.is_empty() && pod.node == making.node => Some(How::There),
            Some(pod) if !pod.node.is_empty() => Some(How::Elsewhere),
            Some(pod) if !pod.deleting => (now >= making.until).then_some(How::InVain),
            Some(_) | None => Some(How::Gone),
        };
        if let Some(how) = over {
            return self.end(how);
        }
        if let Some(victim) = making.left.last().cloned() {
            return Next::Evict(Box::new(making.clone()), victim);
        }
        if !making.made && making.victims.iter().all(|victim| book.pod(&victim.uid).is_none()) {
            making.made = true;
            making.until = now + KEPT;
            return Next::Nominate(Box::new(making.clone()));
        }
        Next::Nothing
    }

    /// Takes note of who is unschedulable since when.
    fn note(&mut self, book: &Book, now: Instant) {
        let waiting = || book.waiting(None).map(|(_, pod)| pod).filter(|pod| pod.unschedulable);
        self.since.retain(|uid, _| book.pod(uid).is_some_and(|pod| pod.unschedulable && pod.node.is_empty()));
        for pod in waiting() {
            self.since.entry(pod.uid.clone()).or_insert(now);
        }
        self.looked.retain(|_, at| now.saturating_duration_since(*at) < AGAIN);
        while self.evicted.front().is_some_and(|at| now.saturating_duration_since(*at) >= HOUR) {
            self.evicted.pop_front();
        }
    }

    fn pick(&mut self, book: &Book, now: Instant) -> Next {
        if self.evicted.len() >= self.per_hour {
            return Next::Nothing;
        }
        let long = |pod: &Pod| {
            self.since
                .get(&pod.uid)
                .is_some_and(|since| now.saturating_duration_since(*since) >= self.patience)
        };
        let found = book.waiting(None).map(|(_, pod)| pod).find(|pod| {
            pod.preempts
                && long(pod)
                && may_be_nominated(pod)
                && !self.looked.contains_key(&pod.uid)
                && !book.may_be_repelled(pod)
        });
        let Some(pod) = found else { return Next::Nothing };
        self.looked.insert(pod.uid.clone(), now);
        Next::LookFor(Box::new(pod.clone()))
    }

    /// Begins to make room; `None` where that would be more evictions than an hour may have.
    pub fn begin(&mut self, pod: &Pod, node: &str, victims: Vec<Victim>, now: Instant) -> Option<Making> {
        if self.evicted.len() + victims.len() > self.per_hour {
            return None;
        }
        self.evicted.extend(victims.iter().map(|_| now));
        let making = Making {
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            node: node.to_owned(),
            left: victims.clone(),
            victims,
            until: now + MAKING_MAX,
            made: false,
        };
        self.making = Some(making.clone());
        Some(making)
    }

    /// A pod was asked to go.
    pub fn evicted(&mut self, uid: &str) {
        if let Some(making) = &mut self.making {
            making.left.retain(|victim| victim.uid != uid);
        }
    }

    /// No more room is made.
    pub fn stop(&mut self) -> Next {
        self.end(How::Stopped)
    }

    fn end(&mut self, how: How) -> Next {
        self.making.take().map_or(Next::Nothing, |making| Next::End(Ended { uid: making.uid, how }))
    }
}
