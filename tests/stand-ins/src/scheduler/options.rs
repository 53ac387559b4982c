//! How a scheduler is set up: the part of `KubeSchedulerConfiguration` that the stand-in understands.

use std::time::Duration;

use super::queue::QueueOptions;
use super::score::ScoreWeights;

/// A profile: whose pods are scheduled, and what counts in-tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// `schedulerName`.
    pub scheduler_name: String,
    /// The in-tree scorers' weights.
    pub weights: ScoreWeights,
}

/// One entry of `extenders`, in the words of `KubeSchedulerConfiguration`.
///
/// `nodeCacheCapable` is always true: only names are sent. An empty verb is one that is not called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtenderOptions {
    /// `urlPrefix`, plain HTTP.
    pub url_prefix: String,
    /// `filterVerb`.
    pub filter_verb: String,
    /// `prioritizeVerb`.
    pub prioritize_verb: String,
    /// `bindVerb`.
    pub bind_verb: String,
    /// `weight`.
    pub weight: i64,
    /// `httpTimeout`.
    pub http_timeout: Duration,
    /// `ignorable`: placed without it where it does not answer.
    pub ignorable: bool,
    /// `managedResources`: only pods that ask for one of these are shown to it; all pods if empty.
    pub managed_resources: Vec<String>,
}

impl ExtenderOptions {
    /// An extender with the verbs `filter`, `prioritize` and `bind`, asked for every pod.
    pub fn new(url_prefix: impl Into<String>) -> Self {
        Self {
            url_prefix: url_prefix.into(),
            filter_verb: "filter".into(),
            prioritize_verb: "prioritize".into(),
            bind_verb: "bind".into(),
            weight: 1,
            http_timeout: Duration::from_secs(5),
            ignorable: false,
            managed_resources: Vec::new(),
        }
    }
}

/// What a scheduler is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// The profiles; pods of other schedulers are only counted.
    pub profiles: Vec<Profile>,
    /// The extenders, asked for the pods of all profiles.
    pub extenders: Vec<ExtenderOptions>,
    /// How patient the queue is.
    pub queue: QueueOptions,
    /// How many bindings may be on their way while the next pod is tried. With 0 each cycle waits for
    /// its own binding: slower, and the same in every run.
    pub bindings_max: usize,
    /// Breaks ties among equally good nodes.
    pub seed: u64,
}

impl SchedulerOptions {
    /// A stock kube-scheduler: `default-scheduler`, no extender.
    pub fn stock(seed: u64) -> Self {
        let profile =
            Profile { scheduler_name: "default-scheduler".into(), weights: ScoreWeights::default() };
        let queue = QueueOptions::default();
        Self { profiles: vec![profile], extenders: Vec::new(), queue, bindings_max: 64, seed }
    }
}
