//! What is to be expected of the pods to come: the [`Market`] of this cluster's GPUs, by the pods that it has now.
//!
//! Which pods are here is in the API, so every replica, also one that has just started, and `kubectl stowage`, which has
//! only the API, come to the same. A pod that has gone is no longer expected; a pod that stays counts as long as it is
//! there, as the room that it takes does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stowage_shared::pack::fleet::Shape;
use stowage_shared::pack::{Market, Stands};

use super::State;
use super::pods::Pods;
use crate::clock::Now;

/// The market is made anew once this part of the pods has come or gone: judging by another one means judging all
/// nodes again.
const NEWS: usize = 8;
/// And at the latest so long after a pod has come or gone.
const LATEST: Duration = Duration::from_secs(30);

/// Whether the market is still what the pods tell.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    /// Of how many pods it was made.
    pods: usize,
    wrong_since: Option<Instant>,
    /// Counts the markets.
    pub(super) version: u64,
}

impl State {
    /// Makes the market anew where so many pods have come or gone, or where the GPUs are others.
    pub(super) fn look_out(&mut self, others: Option<Stands>) {
        let news = self.pods.changes;
        let stands = match (others, self.mix.market()) {
            (Some(stands), _) => Arc::new(stands),
            (None, Some(market)) if news > 0 && news * NEWS >= self.outlook.pods => market.stands().clone(),
            _ => return,
        };
        let (shapes, pods) = shapes(&self.pods, &stands);
        let market = Market::new(stands, shapes);
        self.pods.changes = 0;
        (self.outlook.pods, self.outlook.wrong_since) = (pods, None);
        if self.mix.market().is_none_or(|known| **known != market) {
            self.outlook.version += 1;
            self.mix = Arc::new((*self.mix).clone().with(Arc::new(market)));
            self.touch_all_nominated();
        }
    }

    /// Makes the market anew where it has been a little wrong for long.
    pub(super) fn look_out_in_time(&mut self, now: Now) {
        if self.pods.changes == 0 {
            return;
        }
        let since = *self.outlook.wrong_since.get_or_insert(now.monotonic);
        if now.monotonic.duration_since(since) >= LATEST {
            self.outlook.pods = 0;
            self.dirty.any = true;
        }
    }
}

/// What all pods ask for that are here and ask for GPUs, and how many they are.
fn shapes(pods: &Pods, stands: &Stands) -> (HashMap<Shape, u64>, usize) {
    let (mut shapes, mut all) = (HashMap::new(), 0);
    for (want, count) in pods.wants() {
        all += count;
        if let Some(shape) = want.shape(stands) {
            *shapes.entry(shape).or_default() += u64::try_from(count).unwrap_or(u64::MAX);
        }
    }
    (shapes, all)
}
