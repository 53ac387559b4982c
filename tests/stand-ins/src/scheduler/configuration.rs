//! Reads kube-scheduler's own configuration file, so that a demo or a test runs with the file that users
//! deploy.
//!
//! Only what the stand-in can do differently is read: profiles, the in-tree scorers it has, extenders.
//! The rest (leader election, plugins it does not have) is passed over; whether the file is valid, only
//! the real kube-scheduler can tell.

use std::time::Duration;

use serde::Deserialize;

use super::options::{ExtenderOptions, Profile, SchedulerOptions};
use super::queue::QueueOptions;
use super::score::ScoreWeights;

/// Why a file does not say how to schedule.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// Not the format.
    #[error("cannot read the KubeSchedulerConfiguration: {0}")]
    Format(String),
    /// The extender wants whole Node objects.
    #[error("extender {0} is not nodeCacheCapable: the stand-in sends names only")]
    WholeNodes(String),
    /// A duration in no known form.
    #[error("extender {url}: httpTimeout is {text:?}: write it in seconds, such as 30s")]
    Duration {
        /// The extender.
        url: String,
        /// What it says.
        text: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    profiles: Vec<ProfileEntry>,
    #[serde(default)]
    extenders: Vec<ExtenderEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileEntry {
    scheduler_name: String,
    #[serde(default)]
    plugins: Plugins,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Plugins {
    score: PluginSet,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PluginSet {
    enabled: Vec<Plugin>,
    disabled: Vec<Plugin>,
}

#[derive(Deserialize)]
struct Plugin {
    name: String,
    weight: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExtenderEntry {
    url_prefix: String,
    #[serde(default)]
    filter_verb: String,
    #[serde(default)]
    prioritize_verb: String,
    #[serde(default)]
    bind_verb: String,
    #[serde(default = "one")]
    weight: i64,
    #[serde(default = "five_seconds")]
    http_timeout: String,
    #[serde(default)]
    node_cache_capable: bool,
    #[serde(default)]
    ignorable: bool,
    #[serde(default)]
    managed_resources: Vec<ManagedResource>,
}

#[derive(Deserialize)]
struct ManagedResource {
    name: String,
}

fn one() -> i64 {
    1
}

fn five_seconds() -> String {
    "5s".to_owned()
}

impl SchedulerOptions {
    /// Reads a `KubeSchedulerConfiguration`, with the patience of a stock kube-scheduler.
    ///
    /// # Errors
    /// [`ConfigurationError`].
    pub fn from_configuration(yaml: &str, seed: u64) -> Result<Self, ConfigurationError> {
        let file: File =
            serde_saphyr::from_str(yaml).map_err(|error| ConfigurationError::Format(error.to_string()))?;
        let extenders = file.extenders.into_iter().map(ExtenderEntry::read).collect::<Result<_, _>>()?;
        let profiles = file.profiles.into_iter().map(ProfileEntry::read).collect();
        Ok(Self { profiles, extenders, queue: QueueOptions::default(), ..Self::stock(seed) })
    }
}

impl ProfileEntry {
    fn read(self) -> Profile {
        let weights = ScoreWeights {
            least_allocated: self.plugins.score.weight("NodeResourcesFit"),
            balanced_allocation: self.plugins.score.weight("NodeResourcesBalancedAllocation"),
        };
        Profile { scheduler_name: self.scheduler_name, weights }
    }
}

impl PluginSet {
    /// A default scorer's weight: 1, unless it is turned off, or on again with another weight.
    fn weight(&self, name: &str) -> i64 {
        match self.enabled.iter().find(|plugin| plugin.name == name) {
            Some(plugin) => plugin.weight.unwrap_or(1),
            None if self.disabled.iter().any(|plugin| [name, "*"].contains(&plugin.name.as_str())) => 0,
            None => 1,
        }
    }
}

impl ExtenderEntry {
    fn read(self) -> Result<ExtenderOptions, ConfigurationError> {
        if !self.node_cache_capable {
            return Err(ConfigurationError::WholeNodes(self.url_prefix));
        }
        let seconds = self.http_timeout.strip_suffix('s').and_then(|number| number.parse().ok());
        let Some(http_timeout) = seconds.map(Duration::from_secs) else {
            return Err(ConfigurationError::Duration { url: self.url_prefix, text: self.http_timeout });
        };
        Ok(ExtenderOptions {
            url_prefix: self.url_prefix,
            filter_verb: self.filter_verb,
            prioritize_verb: self.prioritize_verb,
            bind_verb: self.bind_verb,
            weight: self.weight,
            http_timeout,
            ignorable: self.ignorable,
            managed_resources: self.managed_resources.into_iter().map(|resource| resource.name).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_users_deploy_is_understood() {
        let yaml = include_str!("../../../../deploy/scheduler/kube-scheduler-config.yaml");
        let options = SchedulerOptions::from_configuration(yaml, 1).unwrap();
        assert_eq!(options.profiles.len(), 1);
        assert_eq!(options.profiles[0].scheduler_name, stowage_shared::contract::SCHEDULER_NAME);
        let [extender] = options.extenders.as_slice() else { panic!("one extender: {options:?}") };
        assert_eq!(
            [&extender.filter_verb, &extender.prioritize_verb, &extender.bind_verb],
            ["filter", "prioritize", "bind"]
        );
        // One point of the extender must outweigh what is left of the in-tree scores.
        let ScoreWeights { least_allocated, balanced_allocation } = options.profiles[0].weights;
        assert!(extender.weight * 10 > 100 * (least_allocated + balanced_allocation), "{options:?}");
        assert!(!extender.ignorable && extender.managed_resources.is_empty());
    }

    #[test]
    fn defaults_are_kube_schedulers() {
        let yaml = "profiles: [{schedulerName: x}]\nextenders: [{urlPrefix: u, nodeCacheCapable: true}]";
        let options = SchedulerOptions::from_configuration(yaml, 1).unwrap();
        assert_eq!(options.profiles[0].weights, ScoreWeights::default());
        assert_eq!((options.extenders[0].weight, options.extenders[0].http_timeout.as_secs()), (1, 5));
        assert!(options.extenders[0].bind_verb.is_empty());
    }

    #[test]
    fn what_the_stand_in_cannot_do_is_an_error() {
        for (yaml, want) in [
            ("extenders: [{urlPrefix: u}]", "is not nodeCacheCapable"),
            ("extenders: [{urlPrefix: u, nodeCacheCapable: true, httpTimeout: 5m}]", "such as 30s"),
            ("profiles: 3", "cannot read"),
        ] {
            let error = SchedulerOptions::from_configuration(yaml, 1).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
