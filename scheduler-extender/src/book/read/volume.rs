//! A pod's volume as the API server writes it: whether it ties the pod to some nodes, and whether it is gone with the pod.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::book::null_is_default;

/// Volumes that tie a pod to no node.
const FREE: [&str; 6] = ["configMap", "secret", "emptyDir", "projected", "downwardAPI", "hostPath"];

/// A volume, as far as it matters where its pod may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::book) struct Volume {
    /// Whether it may be bound to some nodes.
    pub(in crate::book) of_nodes: bool,
    /// Whether what is in it stays behind. Memory, as for `/dev/shm`, holds nothing that a restart would miss.
    pub(in crate::book) local: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EmptyDir {
    #[serde(deserialize_with = "null_is_default")]
    medium: String,
}

impl<'de> Deserialize<'de> for Volume {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = Volume;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pod's volume")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Volume, A::Error> {
                let mut volume = Volume::default();
                while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                    match &*key {
                        "name" => drop(map.next_value::<IgnoredAny>()?),
                        "emptyDir" => {
                            let dir = map.next_value::<Option<EmptyDir>>()?;
                            volume.local |= dir.is_some_and(|dir| dir.medium != "Memory");
                        }
                        key => {
                            let (free, host) = (FREE.contains(&key), key == "hostPath");
                            let is_there = map.next_value::<Option<IgnoredAny>>()?.is_some();
                            volume.of_nodes |= is_there && !free;
                            volume.local |= is_there && host;
                        }
                    }
                }
                Ok(volume)
            }
        }

        deserializer.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(volume: Value, of_nodes: bool, local: bool) {
        let read: Volume = serde_json::from_value(volume.clone()).unwrap();
        assert_eq!(read, Volume { of_nodes, local }, "{volume}");
    }

    #[test]
    fn a_volume_is_read_by_its_kind() {
        check(json!({ "name": "v", "configMap": { "name": "c" } }), false, false);
        check(json!({ "name": "v", "emptyDir": {} }), false, true);
        check(json!({ "name": "v", "emptyDir": { "medium": "", "sizeLimit": "1Gi" } }), false, true);
        check(json!({ "name": "v", "emptyDir": { "medium": "Memory" } }), false, false);
        check(json!({ "name": "v", "hostPath": { "path": "/x" } }), false, true);
        check(json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }), true, false);
        check(json!({ "name": "v", "emptyDir": null, "hostPath": null, "nfs": null }), false, false);
    }
}
