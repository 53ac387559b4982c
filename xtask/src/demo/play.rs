//! Plays a day on a cluster, whichever that is: the controllers act, the cluster settles, what is seen
//! is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use anyhow::Result;

use super::figures::Sample;
use super::replicas::{Replica, Replicas};
use super::services::{Day, Piece};

/// Separates the controllers' random numbers from those of the day and of the scheduler.
const CONTROLLER_SEED: u64 = 0x5245_504c_4943_4153;

/// One way to serve a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Every GPU pod asks for a whole GPU.
    Whole,
    /// Nodes split by hand, stock kube-scheduler, NVIDIA's device order.
    Stock,
    /// The extender and plans.
    Stowage,
}

impl Way {
    /// All ways, in the order in which they are played.
    pub const ALL: [Self; 3] = [Self::Whole, Self::Stock, Self::Stowage];

    /// The key in the JSON file, and the heading.
    pub fn key(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Stock => "stock",
            Self::Stowage => "stowage",
        }
    }

    /// What a pod that needs `piece` asks for.
    pub fn granted(self, piece: Piece) -> Piece {
        match (self, piece) {
            (_, Piece::None) => Piece::None,
            (Self::Whole, _) => Piece::Gpu,
            (Self::Stock | Self::Stowage, piece) => piece,
        }
    }
}

/// What a cluster shows once it has settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The pods that run, by name, and their nodes.
    pub nodes: BTreeMap<String, String>,
    /// UUIDs of the GPUs on which somebody holds a device; empty where the cluster knows no GPUs.
    pub gpus_in_use: BTreeSet<String>,
}

/// Something that pods can be played on.
pub trait Cluster {
    /// Deletes pods; they are gone when this returns.
    fn delete(&mut self, pods: &[Replica]) -> impl Future<Output = Result<()>>;
    /// Creates pods, in this order.
    fn create(&mut self, pods: &[Replica]) -> impl Future<Output = Result<()>>;
    /// Waits until nothing changes any more, and looks.
    fn settle(&mut self) -> impl Future<Output = Result<Seen>>;
}

/// Plays the day; `tell` hears of each step when it is over.
pub async fn play(
    day: &Day,
    way: Way,
    seed: u64,
    cluster: &mut impl Cluster,
    mut tell: impl FnMut(usize, &Sample),
) -> Result<Vec<Sample>> {
    let mut replicas = Replicas::new(day, seed ^ CONTROLLER_SEED);
    let mut samples = Vec::with_capacity(day.steps);
    for step in 0..day.steps {
        let changes = replicas.advance(step);
        cluster.delete(&changes.delete).await?;
        cluster.create(&changes.create).await?;
        let seen = cluster.settle().await?;
        replicas.observe(&seen.nodes, step);
        let sample = count(day, way, step, &replicas, &seen);
        tell(step, &sample);
        samples.push(sample);
    }
    Ok(samples)
}

fn count(day: &Day, way: Way, step: usize, replicas: &Replicas<'_>, seen: &Seen) -> Sample {
    let mut running = vec![0; day.services.len()];
    let mut sample = Sample { gpus_in_use: seen.gpus_in_use.len(), ..Sample::default() };
    for pod in replicas.pods() {
        if seen.nodes.contains_key(&pod.name) {
            running[pod.service] += 1;
        } else {
            sample.waiting += 1;
        }
    }
    for (service, running) in day.services.iter().zip(running) {
        sample.count(service.piece, way.granted(service.piece), service.wanted[step], running);
    }
    sample
}
