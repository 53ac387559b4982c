//! NVLinks: which GPUs they join, directly, through a switch, or across nodes.

use std::collections::BTreeSet;

use nvml_wrapper_sys::bindings::NVML_NVLINK_MAX_LINKS;
use serde::{Deserialize, Serialize};

use super::{Description, DescriptionError};
use crate::hardware::{Fabric, GpuHardware, LinkEnd};

/// The most groups of a node: each switch has a PCI bus number, and the last of 256 are theirs.
pub const NVLINK_GROUPS_MAX: usize = 32;

/// A group of GPUs that NVLinks join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NvLinkDescription {
    /// Indices of the GPUs, two or more.
    pub gpus: Vec<u32>,
    /// How many links join each two of them, or each to the switch.
    pub links: u32,
    /// Whether they meet at an NVSwitch; if not, each two are joined directly.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub switched: bool,
}

/// An NVLink fabric of several nodes, such as a GB200 NVL72's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FabricDescription {
    /// The UUID of the cluster: five groups of hexadecimal digits.
    pub cluster_uuid: String,
    /// The part of it whose GPUs reach each other.
    pub clique_id: u32,
}

impl NvLinkDescription {
    /// So many links between each two of these GPUs.
    pub fn direct(gpus: &[u32], links: u32) -> Self {
        Self { gpus: gpus.to_vec(), links, switched: false }
    }

    /// So many links from each of these GPUs to an NVSwitch.
    pub fn switched(gpus: &[u32], links: u32) -> Self {
        Self { switched: true, ..Self::direct(gpus, links) }
    }

    /// The far ends of that GPU's links of this group, the `number`th.
    fn ends(&self, number: u32, of: u32) -> impl Iterator<Item = LinkEnd> + '_ {
        let peers = self.gpus.iter().filter(move |&&gpu| gpu != of).map(|&gpu| LinkEnd::Gpu(gpu));
        let switch = self.switched.then_some(LinkEnd::Switch(number));
        let ends = switch.into_iter().chain(peers.filter(|_| !self.switched));
        ends.flat_map(|end| (0..self.links).map(move |_| end))
    }
}

impl Description {
    /// The fabric, checked.
    pub(super) fn checked_fabric(&self) -> Result<Option<Fabric>, DescriptionError> {
        let Some(FabricDescription { cluster_uuid, clique_id }) = &self.fabric else { return Ok(None) };
        let groups = cluster_uuid.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
        let number = u128::from_str_radix(&cluster_uuid.replace('-', ""), 16).ok().filter(|_| groups);
        let cluster = number.ok_or_else(|| DescriptionError::Value {
            key: "fabric.clusterUuid".to_owned(),
            problem: format!("is {cluster_uuid:?}: use five groups of 8, 4, 4, 4 and 12 hexadecimal digits"),
        })?;
        Ok(Some(Fabric { cluster_uuid: cluster.to_be_bytes(), clique_id: *clique_id }))
    }

    /// Adds the links to the GPUs, checked.
    pub(super) fn link(&self, gpus: &mut [GpuHardware]) -> Result<(), DescriptionError> {
        let wrong = |number: usize, field: &str, problem: String| {
            Err(DescriptionError::Value { key: format!("nvLinks[{number}].{field}"), problem })
        };
        if self.nv_links.len() > NVLINK_GROUPS_MAX {
            let problem = format!("is one too many: a node has at most {NVLINK_GROUPS_MAX} groups");
            return wrong(NVLINK_GROUPS_MAX, "gpus", problem);
        }
        for (number, group) in self.nv_links.iter().enumerate() {
            let distinct: BTreeSet<u32> = group.gpus.iter().copied().collect();
            let exist = distinct.iter().all(|&gpu| usize::try_from(gpu).is_ok_and(|gpu| gpu < gpus.len()));
            if distinct.len() < 2 || distinct.len() != group.gpus.len() || !exist {
                let problem = format!(
                    "is {:?}: name two or more of the node's {} GPUs, each once",
                    group.gpus,
                    gpus.len()
                );
                return wrong(number, "gpus", problem);
            }
            if group.links == 0 || group.links > NVML_NVLINK_MAX_LINKS {
                let problem = format!("is {}: 1 to {NVML_NVLINK_MAX_LINKS} are possible", group.links);
                return wrong(number, "links", problem);
            }
            for gpu in gpus.iter_mut().filter(|gpu| distinct.contains(&gpu.index)) {
                let switch = u32::try_from(number).unwrap_or(u32::MAX);
                gpu.links.extend(group.ends(switch, gpu.index));
                let most = usize::try_from(NVML_NVLINK_MAX_LINKS).unwrap_or(usize::MAX);
                if gpu.links.len() > most {
                    let (index, links) = (gpu.index, gpu.links.len());
                    let problem = format!("gives GPU {index} {links} links: the most is {most}");
                    return wrong(number, "links", problem);
                }
            }
        }
        Ok(())
    }
}
