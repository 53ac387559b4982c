//! Offers each resource for as long as there is something of it.
//!
//! Resources come and go with MIG devices that somebody else creates and destroys. A new one is registered at once.
//! One that has no device left is listed as empty, so that the kubelet counts none, and is given up a moment later:
//! the kubelet itself forgets it after five minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ops::Fault;
use stowage_shared::resource::ResourceName;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::folder::Folder;
use super::life::Surroundings;
use super::supervise::offer;

/// How long a resource without devices stays registered: the kubelet must have read the empty list, and MIG devices
/// that are only made anew are back within it.
const RETIRE_AFTER: Duration = Duration::from_secs(3);

/// A resource that is offered.
struct Offered {
    stop: watch::Sender<bool>,
    /// Since when it has no device.
    empty_since: Option<Instant>,
}

/// Offers what the book has, until the program is to end.
///
/// # Errors
/// The [`Fault`] of the first resource that cannot be offered any more.
pub async fn offer_all(world: Surroundings, folder: Arc<Folder>) -> Result<(), Fault> {
    let mut book = world.plugin.book.subscribe();
    let mut stop = world.stop.clone();
    let mut offered: BTreeMap<ResourceName, Offered> = BTreeMap::new();
    let mut tasks: JoinSet<(ResourceName, Result<(), Fault>)> = JoinSet::new();
    loop {
        let wanted: BTreeSet<ResourceName> = world.plugin.resources(&book.borrow_and_update());
        for resource in &wanted {
            if let Some(offered) = offered.get_mut(resource) {
                offered.empty_since = None;
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            let world = Surroundings { stop: stopped, ..world.clone() };
            let (resource, folder) = (resource.clone(), folder.clone());
            offered.insert(resource.clone(), Offered { stop, empty_since: None });
            world.plugin.set_offered(&resource, Some("it is not registered with the kubelet yet".to_owned()));
            tasks.spawn(async move { (resource.clone(), offer(resource, world, &folder).await) });
        }
        let mut next_retirement: Option<Instant> = None;
        for (resource, offered) in offered.iter_mut().filter(|(resource, _)| !wanted.contains(resource)) {
            let due = *offered.empty_since.get_or_insert_with(Instant::now) + RETIRE_AFTER;
            world.plugin.forget_offered(resource);
            if Instant::now() >= due {
                offered.stop.send_replace(true);
            } else {
                next_retirement = Some(next_retirement.map_or(due, |other| other.min(due)));
            }
        }
        tokio::select! {
            changed = book.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
            Some(ended) = tasks.join_next() => {
                let (resource, result) = ended.context("a task panicked").map_err(Fault::software)?;
                result?;
                // If it has devices again by now, the next round offers it anew.
                offered.remove(&resource);
                world.plugin.metrics.set_streams(&resource, 0);
                tracing::info!(resource_name = %resource, "No longer offered: there is no device of it left.");
            }
            () = sleep_until(next_retirement.unwrap_or_else(Instant::now)), if next_retirement.is_some() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    for offered in offered.values() {
        offered.stop.send_replace(true);
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task panicked").map_err(Fault::software)?.1?;
    }
    Ok(())
}
