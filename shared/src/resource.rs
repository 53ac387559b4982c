//! Extended-resource names: `nvidia.com/gpu`, `nvidia.com/mig-1g.5gb`, `nvidia.com/gpu.shared`.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mig::ProfileName;

/// The name of an extended resource as pods request it, domain included.
///
/// Valid by construction: `domain/name`, each a lower-case DNS subdomain, `name` at most 63 characters
/// (what Kubernetes and NVIDIA's plugin accept).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ResourceName(String);

/// Why a text is no extended-resource name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not an extended-resource name: {reason}")]
pub struct ResourceNameError {
    name: String,
    reason: &'static str,
}

/// The domain of every resource that NVIDIA's plugin, and therefore ours, advertises.
pub const NVIDIA_DOMAIN: &str = "nvidia.com";
const NAME_MAX_BYTES: usize = 63;
const DOMAIN_MAX_BYTES: usize = 253;

impl ResourceName {
    /// `nvidia.com/gpu`: whole GPUs, or whatever a node's configuration offers under that name.
    pub fn gpu() -> Self {
        Self(format!("{NVIDIA_DOMAIN}/gpu"))
    }

    /// `nvidia.com/mig-<profile>`, with NVIDIA's spelling: `+` becomes `.` (`mig-1g.5gb.me`).
    pub fn mig(profile: &ProfileName) -> Self {
        Self(format!("{NVIDIA_DOMAIN}/mig-{}", profile.as_str().replace('+', ".")))
    }

    /// The same name with `.shared` behind it, as `renameByDefault` makes it.
    pub fn shared(&self) -> Self {
        Self(format!("{}.shared", self.0))
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part behind the domain, e.g. `mig-1g.5gb`.
    pub fn short(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// Whether pods that ask for it are GPU pods by name alone: `nvidia.com/gpu`, `nvidia.com/gpu.…`
    /// and `nvidia.com/mig-…`. A node may offer GPUs under other names; those are known by its GpuNode.
    pub fn is_standard_gpu(text: &str) -> bool {
        text.strip_prefix(NVIDIA_DOMAIN)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|name| name == "gpu" || name.starts_with("gpu.") || name.starts_with("mig-"))
    }
}

fn is_subdomain(text: &str) -> bool {
    !text.is_empty()
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

impl FromStr for ResourceName {
    type Err = ResourceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| {
            let name = text.chars().take(80).collect();
            Err(ResourceNameError { name, reason })
        };
        let Some((domain, name)) = text.split_once('/') else {
            return fail("it wants a domain before a slash, such as nvidia.com/gpu");
        };
        if domain.len() > DOMAIN_MAX_BYTES || !is_subdomain(domain) {
            return fail("its domain must be lower-case letters, digits, '-' and '.'");
        }
        if name.len() > NAME_MAX_BYTES {
            return fail("the part behind the slash is longer than 63 characters");
        }
        if !is_subdomain(name) {
            return fail("the part behind the slash must be lower-case letters, digits, '-' and '.'");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ResourceName {
    type Error = ResourceNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ResourceName> for String {
    fn from(name: ResourceName) -> Self {
        name.0
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_nvidias() {
        let me: ProfileName = "1g.5gb+me".parse().unwrap();
        assert_eq!(ResourceName::mig(&me).as_str(), "nvidia.com/mig-1g.5gb.me");
        assert_eq!(ResourceName::gpu().shared().as_str(), "nvidia.com/gpu.shared");
        assert_eq!(ResourceName::gpu().shared().short(), "gpu.shared");
    }

    #[test]
    fn a_bad_name_says_what_is_wrong() {
        for (text, want) in [
            ("gpu", "wants a domain"),
            ("nvidia.com/", "behind the slash"),
            ("NVIDIA.com/gpu", "domain must"),
            ("nvidia.com/Gpu", "behind the slash"),
            ("nvidia.com/a-", "behind the slash"),
        ] {
            let error = text.parse::<ResourceName>().unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
        let long = format!("nvidia.com/{}", "a".repeat(64));
        assert!(long.parse::<ResourceName>().is_err());
    }

    #[test]
    fn only_nvidias_gpu_names_are_gpus_by_name() {
        for (text, want) in [
            ("nvidia.com/gpu", true),
            ("nvidia.com/gpu.shared", true),
            ("nvidia.com/mig-1g.5gb", true),
            ("nvidia.com/gpus", false),
            ("nvidia.com/imex", false),
            ("amd.com/gpu", false),
            ("cpu", false),
        ] {
            assert_eq!(ResourceName::is_standard_gpu(text), want, "{text}");
        }
    }
}
