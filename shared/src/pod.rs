//! The few fields of a pod that Stowage looks at, as the API server writes them.
//!
//! A slim type on purpose: a cluster has tens of thousands of pods, and environment, volumes and managed
//! fields of each would cost gigabytes. Unknown fields are skipped; every field may be absent or `null`.

use std::collections::BTreeMap;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::contract::{
    DELETION_COST_ANNOTATION, DISRUPTABLE_ANNOTATION, DISTINCT_GPUS_ANNOTATION, GPU_MEMORY_MIN_ANNOTATION,
    GPU_MODEL_ANNOTATION, MIRROR_ANNOTATION, OUR_DELETION_COST_ANNOTATION, PLACEMENT_ANNOTATION,
    PLAN_ANNOTATION, PLAN_MAX_BYTES, POLICY_MAX_BYTES, SAFE_TO_EVICT_ANNOTATION, SHARE_MEMORY_ANNOTATION,
    SHARE_MILLI_ANNOTATION, SHARE_WITH_ANNOTATION,
};

/// A pod's spec, as far as placement goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The node it is bound to; empty while it waits.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// The scheduler it asks for.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub scheduler_name: String,
    /// Who goes first, and whom it may push aside: the number that its priority class stands for.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Containers that run before the others, one by one; restartable ones (sidecars) go on running.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    /// The containers.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
    /// What the pod asks for as a whole, in place of what its containers sum up to.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// What running it costs on top.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub overhead: BTreeMap<String, Quantity>,
}

/// A container, as far as placement goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// `Always` makes an init container a sidecar.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub restart_policy: String,
    /// What it asks for.
    #[serde(deserialize_with = "null_is_default")]
    pub resources: Resources,
}

/// What a container asks for, as quantities by resource name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Resources {
    /// Upper bounds; for extended resources equal to the requests.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
    /// What is reserved.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
}

impl Resources {
    fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.requests.is_empty()
    }
}

/// A quantity as it is written: a string, or a bare number in hand-written JSON.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Quantity {
    /// E.g. `"1"` or `"500m"`.
    Text(String),
    /// E.g. `1`.
    Number(u64),
}

/// A pod's status, as far as placement goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// The node that kube-scheduler tries first for it, and on which room is kept for it; empty where there is none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub nominated_node_name: String,
}

impl PodStatus {
    /// Whether it will never run again, so that its devices are free.
    pub fn is_terminal(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }
}

/// The annotations of a pod that Stowage reads, and none of its others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnAnnotations(BTreeMap<&'static str, String>);

/// All keys that are kept, each with the most bytes of a value. What is longer is cut one byte beyond, which tells its
/// reader that it is too long.
const OWN: [(&str, usize); 13] = [
    (PLAN_ANNOTATION, PLAN_MAX_BYTES),
    (SHARE_MEMORY_ANNOTATION, ANNOTATION_MAX_BYTES),
    (SHARE_MILLI_ANNOTATION, ANNOTATION_MAX_BYTES),
    (DELETION_COST_ANNOTATION, ANNOTATION_MAX_BYTES),
    (OUR_DELETION_COST_ANNOTATION, ANNOTATION_MAX_BYTES),
    (DISRUPTABLE_ANNOTATION, ANNOTATION_MAX_BYTES),
    (SAFE_TO_EVICT_ANNOTATION, ANNOTATION_MAX_BYTES),
    (MIRROR_ANNOTATION, ANNOTATION_MAX_BYTES),
    (PLACEMENT_ANNOTATION, POLICY_MAX_BYTES),
    (GPU_MODEL_ANNOTATION, POLICY_MAX_BYTES),
    (GPU_MEMORY_MIN_ANNOTATION, POLICY_MAX_BYTES),
    (DISTINCT_GPUS_ANNOTATION, POLICY_MAX_BYTES),
    (SHARE_WITH_ANNOTATION, POLICY_MAX_BYTES),
];
/// No size or cost is longer.
const ANNOTATION_MAX_BYTES: usize = 256;

impl OwnAnnotations {
    /// What a pod's author says under a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The same, taken out.
    pub fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    fn keep(&mut self, key: &str, mut value: String) {
        if let Some(&(key, most)) = OWN.iter().find(|(own, _)| *own == key) {
            if value.len() > most {
                let end = (most + 1..=value.len()).find(|&at| value.is_char_boundary(at));
                value.truncate(end.unwrap_or(0));
                value.shrink_to_fit();
            }
            self.0.insert(key, value);
        }
    }
}

impl<K: AsRef<str>> FromIterator<(K, String)> for OwnAnnotations {
    fn from_iter<T: IntoIterator<Item = (K, String)>>(all: T) -> Self {
        let mut own = Self::default();
        all.into_iter().for_each(|(key, value)| own.keep(key.as_ref(), value));
        own
    }
}

impl From<OwnAnnotations> for BTreeMap<String, String> {
    fn from(own: OwnAnnotations) -> Self {
        own.0.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

impl<'de> Deserialize<'de> for OwnAnnotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keep;

        impl<'de> Visitor<'de> for Keep {
            type Value = OwnAnnotations;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a pod's annotations")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(OwnAnnotations::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut own = OwnAnnotations::default();
                while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
                    if OWN.iter().any(|(known, _)| *known == key) {
                        if let Some(value) = map.next_value::<Option<String>>()? {
                            own.keep(&key, value);
                        }
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(own)
            }
        }

        deserializer.deserialize_any(Keep)
    }
}

/// Reads `null` as the default: Go writes nil slices and maps so.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

// serde hands the field by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl Quantity {
    /// The quantity as a whole number, where it is one: extended resources are counted in whole devices.
    ///
    /// Understands the forms that Kubernetes writes for whole numbers: `3`, `1k`, `2Ki`, `1e3`, `2000m`.
    pub fn as_count(&self) -> Option<u64> {
        let text = match self {
            Self::Number(number) => return Some(*number),
            Self::Text(text) => text,
        };
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, suffix) = text.split_at(split);
        let number: u64 = digits.parse().ok()?;
        if suffix == "m" {
            return (number.is_multiple_of(1000)).then_some(number / 1000);
        }
        let factor: u64 = match suffix {
            "" => 1,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
                10_u64.checked_pow(exponent)?
            }
        };
        number.checked_mul(factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_as_kubernetes_writes_them() {
        for (text, want) in [
            ("1", Some(1)),
            ("1k", Some(1000)),
            ("2Ki", Some(2048)),
            ("1e3", Some(1000)),
            ("2000m", Some(2)),
            ("500m", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("99999999999999999999", None),
            ("9e99", None),
        ] {
            assert_eq!(Quantity::Text(text.into()).as_count(), want, "{text:?}");
        }
    }

    #[test]
    fn nulls_and_unknown_fields_are_no_error() {
        let text = r#"{"nodeName":null,"containers":[{"name":"a","resources":null,"env":[1]}],"initContainers":null}"#;
        let spec: PodSpec = serde_json::from_str(text).unwrap();
        assert_eq!(spec.containers.len(), 1);
    }
}
