//! How the answers for several resources of one container become one.
//!
//! After `deviceRunContainerOptions` of `pkg/kubelet/cm/devicemanager/pod_devices.go` of Kubernetes
//! 1.36: the first to name a key, a container path or a CDI device wins, later ones are dropped
//! without a word to anybody. So two resources that both set `NVIDIA_VISIBLE_DEVICES` lose one.

use std::collections::BTreeMap;

use kubelet_api::device_plugin::ContainerAllocateResponse;

/// The answers as the runtime sees them.
pub(super) fn merge(
    answers: impl IntoIterator<Item = ContainerAllocateResponse>,
) -> ContainerAllocateResponse {
    let mut all = ContainerAllocateResponse::default();
    for answer in answers {
        let ContainerAllocateResponse { envs, mounts, devices, annotations, cdi_devices } = answer;
        add_missing(&mut all.envs, envs);
        add_missing(&mut all.annotations, annotations);
        add_new(&mut all.mounts, mounts, |mount| mount.container_path.clone());
        add_new(&mut all.devices, devices, |device| device.container_path.clone());
        add_new(&mut all.cdi_devices, cdi_devices, |device| device.name.clone());
    }
    all
}

fn add_missing(all: &mut BTreeMap<String, String>, more: BTreeMap<String, String>) {
    for (key, value) in more {
        all.entry(key).or_insert(value);
    }
}

fn add_new<T>(all: &mut Vec<T>, more: Vec<T>, key: impl Fn(&T) -> String) {
    for item in more {
        if all.iter().all(|present| key(present) != key(&item)) {
            all.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use kubelet_api::device_plugin::{CdiDevice, DeviceSpec, Mount};

    use super::*;

    fn answer(visible: &str, path: &str, cdi: &[&str]) -> ContainerAllocateResponse {
        ContainerAllocateResponse {
            envs: BTreeMap::from([("NVIDIA_VISIBLE_DEVICES".to_owned(), visible.to_owned())]),
            mounts: vec![Mount {
                container_path: path.to_owned(),
                host_path: visible.to_owned(),
                read_only: true,
            }],
            devices: vec![DeviceSpec { container_path: path.to_owned(), ..DeviceSpec::default() }],
            annotations: BTreeMap::from([(visible.to_owned(), "yes".to_owned())]),
            cdi_devices: cdi.iter().map(|name| CdiDevice { name: (*name).to_owned() }).collect(),
        }
    }

    #[test]
    fn first_answer_for_a_key_or_path_wins_and_cdi_devices_add_up() {
        let merged = merge([answer("a", "/x", &["v/c=1", "v/c=2"]), answer("b", "/x", &["v/c=2", "v/c=3"])]);
        assert_eq!(merged.envs["NVIDIA_VISIBLE_DEVICES"], "a");
        assert_eq!(merged.mounts.iter().map(|mount| mount.host_path.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(merged.devices.len(), 1);
        assert_eq!(merged.annotations.len(), 2);
        let cdi: Vec<_> = merged.cdi_devices.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(cdi, ["v/c=1", "v/c=2", "v/c=3"]);
    }

    #[test]
    fn merge_of_one_answer_is_that_answer() {
        let only = answer("a", "/x", &["v/c=1"]);
        assert_eq!(merge([only.clone()]), only);
    }
}
