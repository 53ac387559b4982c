//! NVML calls that are bounded in time.
//!
//! A call into the driver can hang for ever, and nothing can end it: the thread that made it is lost until the
//! driver lets go. So calls are made on a thread of their own, one after another. Where one takes longer than the
//! limit, its thread is left behind, the GPU that it asked about is not asked again until the call has returned,
//! and the next call gets a new thread: one at most for each GPU that hangs, at the price of its stack.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// What a call is about: the GPU that is named, and left alone, where it hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// The driver as a whole.
    Driver,
    /// One GPU, by NVML's index.
    Gpu(u32),
    /// How the GPUs are connected: where it hangs, any of them may be why.
    Topology,
    /// All that labels tell.
    Labels,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver => f.write_str("the driver"),
            Self::Gpu(index) => write!(f, "GPU {index}"),
            Self::Topology => f.write_str("how the GPUs are connected"),
            Self::Labels => f.write_str("the node's labels"),
        }
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It takes longer than it may.
    #[error("an NVML call about {about} has not returned within {} s", .limit.as_secs())]
    Hangs {
        /// What it is about.
        about: About,
        /// How long it may take.
        limit: Duration,
    },
    /// There is no thread to make it on.
    #[error("cannot start a thread for NVML calls")]
    Thread(#[source] io::Error),
    /// It panicked, a defect of ours.
    #[error("an NVML call about {0} panicked")]
    Panicked(About),
}

type Job = Box<dyn FnOnce() + Send>;

/// Makes calls, one after another.
pub struct Calls {
    limit: Duration,
    /// The thread that makes them. The lock is the queue: it is held until the call has its answer.
    thread: tokio::sync::Mutex<Option<Sender<Job>>>,
    left_behind: Arc<LeftBehind>,
}

/// Calls that nobody waits for any more.
#[derive(Default)]
struct LeftBehind {
    about: Mutex<BTreeSet<About>>,
    returned: Notify,
}

impl LeftBehind {
    fn about(&self) -> MutexGuard<'_, BTreeSet<About>> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// Calls that may take so long each.
    pub fn new(limit: Duration) -> Self {
        Self { limit, thread: tokio::sync::Mutex::default(), left_behind: Arc::default() }
    }

    /// Makes one call, after those that wait already.
    ///
    /// # Errors
    /// [`CallError`]; at once while an earlier call about the same thing has not returned.
    pub async fn run<T: Send + 'static>(
        &self,
        about: About,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CallError> {
        let mut thread = self.thread.lock().await;
        let hangs = || CallError::Hangs { about, limit: self.limit };
        if self.left_behind.about().contains(&about) {
            return Err(hangs());
        }
        let (tell, mut told) = oneshot::channel();
        let left_behind = self.left_behind.clone();
        let job: Job = Box::new(move || {
            if tell.send(call()).is_err() {
                left_behind.about().remove(&about);
                left_behind.returned.notify_one();
            }
        });
        let jobs = match thread.take() {
            Some(jobs) => jobs,
            None => start().map_err(CallError::Thread)?,
        };
        // The thread ends only when it panics or this sender is dropped; then nobody answers either.
        let _ = jobs.send(job);
        match timeout(self.limit, &mut told).await {
            Ok(Ok(answer)) => {
                *thread = Some(jobs);
                Ok(answer)
            }
            Ok(Err(_)) => Err(CallError::Panicked(about)),
            Err(_) => {
                // First the note, then the look: whichever of the two sides comes second sees the other.
                self.left_behind.about().insert(about);
                told.close();
                let Ok(answer) = told.try_recv() else { return Err(hangs()) };
                self.left_behind.about().remove(&about);
                *thread = Some(jobs);
                Ok(answer)
            }
        }
    }

    /// Waits until a call returns that had been given up.
    pub async fn returned(&self) {
        self.left_behind.returned.notified().await;
    }
}

/// Starts a thread that makes calls until its sender is dropped.
fn start() -> io::Result<Sender<Job>> {
    let (jobs, wanted) = channel::<Job>();
    thread::Builder::new().name("nvml".to_owned()).spawn(move || wanted.into_iter().for_each(|job| job()))?;
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_hangs_is_named_and_holds_nobody_else_up() {
        let calls = Calls::new(Duration::from_millis(50));
        let (let_go, held) = channel::<()>();
        let stuck = calls.run(About::Gpu(3), move || held.recv()).await.unwrap_err();
        assert_eq!(stuck.to_string(), "an NVML call about GPU 3 has not returned within 0 s");
        assert_eq!(calls.run(About::Gpu(4), || 7).await.unwrap(), 7);
        let again = calls.run(About::Gpu(3), || ()).await;
        assert!(matches!(again, Err(CallError::Hangs { about: About::Gpu(3), .. })), "{again:?}");
        let_go.send(()).unwrap();
        timeout(Duration::from_secs(20), calls.returned()).await.expect("told that it returned");
        assert_eq!(calls.run(About::Gpu(3), || 8).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn calls_are_made_one_after_another_on_one_thread() {
        let calls = Calls::new(Duration::from_secs(20));
        let id = || thread::current().id();
        let (one, two) = tokio::join!(calls.run(About::Driver, id), calls.run(About::Gpu(0), id));
        assert_eq!(one.unwrap(), two.unwrap());
    }

    #[tokio::test]
    async fn a_call_that_panics_is_no_hang() {
        let calls = Calls::new(Duration::from_secs(20));
        let died = calls.run(About::Driver, || panic!("on purpose")).await;
        assert!(matches!(died, Err(CallError::Panicked(About::Driver))), "{died:?}");
        assert_eq!(calls.run(About::Driver, || 1).await.unwrap(), 1);
    }
}
