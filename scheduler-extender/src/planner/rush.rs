//! Whether kube-scheduler takes pods up faster than they are nominated.
//!
//! kube-scheduler takes a pod as soon as it has nothing else to do. Where pods come one after another, that is before
//! anybody could have nominated it; looking at thousands of nodes for it then takes as long as some fifty nominated
//! pods would have, and so on with the next one. So while nominations of other pods are being written, or many were a
//! moment ago, filter answers only once some nominated pods wait behind the one that it is asked about: kube-scheduler
//! finds one of them next. Nominations are written in the order of kube-scheduler's queue and are done in any: those behind
//! one that is still being written do not count, since kube-scheduler comes to that one first. Where nobody else is
//! nominated, because a pod comes alone or no pod fits, nobody waits.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::write::WRITE_TIMEOUT;

/// So many pods that are nominated within [`WINDOW`] make a rush.
const MANY: usize = 8;
/// See [`MANY`].
const WINDOW: Duration = Duration::from_millis(250);
/// So many nominated pods behind the one that is asked about are enough: what kube-scheduler's watch may lag behind ours, on a
/// machine whose cores are all in use.
const ENOUGH: usize = 48;
/// The longest wait. kube-scheduler gives an extender five seconds.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// How often it is looked whether there are enough.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The pods that are nominated, or about to be.
#[derive(Debug)]
pub struct Rush {
    enough: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The UIDs of those whose nomination is being written, and has not come back by the watch; their numbers, in the order in
    /// which they were begun, and when that was.
    under_way: HashMap<String, (u64, Instant)>,
    /// The UIDs of those that are nominated, and were not asked about; and the same numbers.
    ready: HashMap<String, u64>,
    /// The UIDs of all that wait, and whether they were asked about: the news that one is nominated may come after that.
    waiting: HashMap<String, bool>,
    /// When the last ones were nominated.
    last: VecDeque<Instant>,
    /// The last number that was given.
    begun: u64,
}

impl Inner {
    fn next(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }
}

impl Rush {
    /// Nobody is nominated yet; so many may be at once.
    pub fn new(nominations_max: usize) -> Self {
        Self { enough: ENOUGH.min(nominations_max / 2), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What a panic leaves behind misleads for a moment at worst.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A nomination is being written.
    pub fn begins(&self, uid: &str) {
        let mut inner = self.inner();
        let begun = inner.next();
        inner.under_way.insert(uid.to_owned(), (begun, Instant::now()));
    }

    /// A pod waits; when it was nominated, if it is, is not known.
    pub fn waits(&self, uid: &str) {
        self.inner().waiting.entry(uid.to_owned()).or_default();
    }

    /// The API server has a waiting pod nominated.
    pub fn nominated(&self, uid: &str) {
        let mut inner = self.inner();
        let begun = inner.under_way.remove(uid);
        let asked = *inner.waiting.entry(uid.to_owned()).or_default();
        if !asked && !inner.ready.contains_key(uid) {
            // Somebody else nominated it, or an earlier leader.
            let begun = begun.map_or_else(|| inner.next(), |(begun, _)| begun);
            inner.ready.insert(uid.to_owned(), begun);
            inner.last.truncate(MANY - 1);
            inner.last.push_front(Instant::now());
        }
    }

    /// A waiting pod is not nominated.
    pub fn not_nominated(&self, uid: &str) {
        self.waits(uid);
        self.inner().ready.remove(uid);
    }

    /// A nomination could not be written.
    pub fn failed(&self, uid: &str) {
        self.inner().under_way.remove(uid);
    }

    /// A pod waits no longer.
    pub fn settled(&self, uid: &str) {
        let mut inner = self.inner();
        inner.under_way.remove(uid);
        inner.ready.remove(uid);
        inner.waiting.remove(uid);
    }

    /// All pods are told anew.
    pub fn begin_anew(&self) {
        let mut inner = self.inner();
        inner.under_way.clear();
        inner.ready.clear();
        inner.waiting.clear();
    }

    /// Whether more will be ready than are: nominations of others are being written, or many were a moment ago.
    fn more_to_come(&self, uid: &str) -> bool {
        let inner = self.inner();
        let others =
            inner.under_way.iter().filter(|(other, (_, at))| *other != uid && at.elapsed() < WRITE_TIMEOUT);
        let first_under_way = others.map(|(_, (begun, _))| *begun).min();
        let many = inner.last.get(MANY - 1).is_some_and(|at| at.elapsed() < WINDOW);
        let in_order =
            inner.ready.values().filter(|begun| first_under_way.is_none_or(|first| **begun < first));
        in_order.count() < self.enough && (first_under_way.is_some() || many)
    }

    /// Waits until enough other pods are ready or no more will be, for [`WAIT_MAX`] at most. `true` if it waited.
    pub async fn over(&self, uid: &str) -> bool {
        {
            let mut inner = self.inner();
            inner.ready.remove(uid);
            // Anybody may ask, about pods that are gone or never were: those are not kept.
            inner.waiting.entry(uid.to_owned()).and_modify(|asked| *asked = true);
        }
        let latest = Instant::now() + WAIT_MAX;
        let mut waited = false;
        while Instant::now() < latest && self.more_to_come(uid) {
            waited = true;
            sleep(LOOK_EVERY).await;
        }
        waited
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep_until;

    use super::*;

    /// How long, in milliseconds, a pod waits that is asked about after some time, if so many others are nominated, one
    /// every so often, and nobody is asked about.
    async fn waited(asked: u64, others: u64, every: u64) -> u128 {
        let (rush, start) = (Rush::new(256), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        let coming = async {
            for n in 1..=others {
                sleep_until(after(n * every)).await;
                rush.nominated(&n.to_string());
                // As if kube-scheduler had it, so that there are never enough.
                rush.settled(&n.to_string());
            }
            std::future::pending::<()>().await;
        };
        let asking = async {
            sleep_until(after(asked)).await;
            rush.nominated("own");
            let waits = rush.over("own").await;
            assert_eq!(waits, Instant::now() > after(asked));
        };
        tokio::select! {
            () = asking => {}
            () = coming => {}
        }
        start.elapsed().as_millis() - u128::from(asked)
    }

    /// A pod that is asked about waits for this news, until it is looked for the next time.
    async fn waits_for(rush: &Rush, uid: &str, news: impl FnOnce()) {
        let start = Instant::now();
        let (waits, ()) = tokio::join!(rush.over(uid), async {
            sleep(LOOK_EVERY + Duration::from_millis(2)).await;
            news();
        });
        assert!(waits);
        assert_eq!(start.elapsed(), 2 * LOOK_EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_waits_while_many_others_are_nominated_and_not_for_ever() {
        assert_eq!(waited(100, 0, 1).await, 0, "alone");
        assert_eq!(waited(101, 6, 10).await, 0, "few others");
        assert_eq!(waited(501, 20, 10).await, 0, "that was a while ago");
        assert_eq!(waited(901, 30, 40).await, 0, "not so many a second");
        assert_eq!(waited(201, 30, 10).await, 280, "until so long after the eighth last one");
        assert_eq!(waited(201, 200, 10).await, WAIT_MAX.as_millis());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_waits_no_longer_than_for_enough_others() {
        let rush = Rush::new(256);
        for n in 0..ENOUGH {
            rush.nominated(&n.to_string());
        }
        assert!(!rush.over("another").await, "enough are ready");
        waits_for(&rush, "0", || rush.nominated("new")).await;
        // Where no more may be nominated at once, fewer are enough.
        let few = Rush { enough: Rush::new(3).enough, ..rush };
        (1..ENOUGH).for_each(|n| few.settled(&n.to_string()));
        assert!(!few.over("another").await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_behind_one_that_is_being_written_does_not_count() {
        let rush = Rush::new(256);
        rush.begins("first");
        for n in 0..ENOUGH {
            rush.begins(&n.to_string());
            rush.nominated(&n.to_string());
        }
        waits_for(&rush, "own", || rush.nominated("first")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_back_is_not_waited_for() {
        let rush = Rush::new(256);
        rush.begins("lost");
        assert!(rush.over("own").await);
        sleep(WRITE_TIMEOUT).await;
        assert!(!rush.over("own").await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_waits_for_what_is_being_written_of_others() {
        let rush = Rush::new(256);
        rush.begins("own");
        assert!(!rush.over("own").await, "its own it need not know");
        rush.begins("other");
        waits_for(&rush, "own", || rush.failed("other")).await;
    }

    /// Anybody on this machine may ask about any UID, and nothing would tell that such a pod waits no longer.
    #[tokio::test(start_paused = true)]
    async fn only_pods_that_wait_are_remembered() {
        let rush = Rush::new(2);
        rush.waits("known");
        for uid in ["known", "unknown", "gone"] {
            assert!(!rush.over(uid).await);
        }
        assert_eq!(rush.inner().waiting, HashMap::from([("known".to_owned(), true)]));
        rush.settled("known");
        assert_eq!(rush.inner().waiting, HashMap::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_was_asked_about_is_nobody_to_wait_for() {
        let rush = Rush::new(2);
        rush.waits("early");
        rush.over("early").await;
        rush.nominated("early");
        rush.begins("other");
        assert!(rush.over("own").await, "early is not behind it");
        rush.settled("early");
        rush.failed("other");
        rush.nominated("early");
        rush.begins("other");
        assert!(!rush.over("own").await, "another pod could be, some day");
    }
}
