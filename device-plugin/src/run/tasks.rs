//! What runs side by side, until the first of it fails or all of it is asked to end.

use anyhow::anyhow;
use ops::Fault;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// Tasks, and what asks them to end.
pub(super) struct Tasks {
    running: JoinSet<Result<(), Fault>>,
    stop: watch::Receiver<bool>,
}

impl Tasks {
    /// None yet; they end when `stop` turns true.
    pub(super) fn until(stop: watch::Receiver<bool>) -> Self {
        Self { running: JoinSet::new(), stop }
    }

    /// Runs a task that hears for itself that it is to end, and has something to put in order then.
    pub(super) fn in_order(&mut self, task: impl Future<Output = Result<(), Fault>> + Send + 'static) {
        self.running.spawn(task);
    }

    /// Runs a task that has nothing to put in order at the end.
    pub(super) fn spawn(&mut self, task: impl Future<Output = Result<(), Fault>> + Send + 'static) {
        let mut stop = self.stop.clone();
        self.running.spawn(async move {
            tokio::select! {
                result = task => result,
                _ = stop.wait_for(|stop| *stop) => Ok(()),
            }
        });
    }

    /// The same for one that never ends by itself: `ended` says what is wrong where it does.
    pub(super) fn forever(&mut self, ended: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(async move {
            task.await;
            Err(Fault::software(anyhow!(ended)))
        });
    }

    /// Waits for the first task that fails, or until all have ended as asked.
    pub(super) async fn wait(self) -> Result<(), Fault> {
        let Self { mut running, stop } = self;
        let died = |error: JoinError| Fault::software(anyhow::Error::new(error).context("a task panicked"));
        while let Some(ended) = running.join_next().await {
            ended.map_err(died)??;
        }
        if *stop.borrow() { Ok(()) } else { Err(Fault::software(anyhow!("every task ended by itself"))) }
    }
}
