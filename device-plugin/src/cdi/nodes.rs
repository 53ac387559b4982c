//! Device nodes: which there are, and what they are.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::spec::{ContainerEdits, DeviceNode, NodeFacts};
use crate::config::{CdiFeature, Config, Extra};

/// Device nodes that every container with a GPU gets, those of them that there are.
const CONTROL: [&str; 4] = ["dev/nvidia-modeset", "dev/nvidia-uvm-tools", "dev/nvidia-uvm", "dev/nvidiactl"];

/// Tells what a path is, if it is a device node: a parameter, since only root can make one.
pub type Look = fn(&Path) -> Option<NodeFacts>;

/// Looks at a path of this machine.
pub fn look(path: &Path) -> Option<NodeFacts> {
    let file = std::fs::metadata(path).ok()?;
    file.file_type().is_char_device().then(|| NodeFacts {
        major: rustix::fs::major(file.rdev()),
        minor: rustix::fs::minor(file.rdev()),
        file_mode: file.permissions().mode() & 0o7777,
        permissions: "rwm",
        gid: file.gid(),
    })
}

/// The host's device nodes.
#[derive(Debug, Clone)]
pub struct Nodes {
    /// The folder that holds `dev`, as this program sees it.
    pub seen: PathBuf,
    /// The same folder, as the host's runtime sees it.
    pub host: PathBuf,
    /// Whether containers join the groups of nodes that not everybody may open.
    pub additional_gids: bool,
    /// How to look at one.
    pub look: Look,
}

impl Nodes {
    /// Where a configuration says that they are.
    pub fn of(config: &Config) -> Self {
        // A driver container has its own device nodes; else they are the host's, mounted at the usual place.
        let own = &config.container_driver_root;
        Self {
            seen: if own.join("dev").is_dir() { own.clone() } else { "/".into() },
            host: config.dev_root.clone(),
            additional_gids: !config.cdi.features.contains(&CdiFeature::NoAdditionalGids),
            look,
        }
    }

    /// Those that every container with a GPU gets.
    pub fn control(&self) -> Vec<DeviceNode> {
        CONTROL.iter().filter_map(|path| self.existing(path)).collect()
    }

    /// Those of an extra.
    pub fn of_extra(&self, extra: Extra) -> Vec<DeviceNode> {
        match extra {
            Extra::GdrCopy => self.existing("dev/gdrdrv").into_iter().collect(),
            Extra::Gds => self.matching("dev", "nvidia-fs"),
            Extra::Mofed => {
                let mut nodes = self.matching("dev/infiniband", "uverbs");
                nodes.extend(self.existing("dev/infiniband/rdma_cm"));
                nodes
            }
        }
    }

    /// A node by its path below the root, `dev/nvidia0`, whether or not it is there.
    pub fn node(&self, path: &str) -> DeviceNode {
        DeviceNode {
            path: format!("/{path}"),
            host_path: self.host.join(path).display().to_string(),
            facts: (self.look)(&self.seen.join(path)),
        }
    }

    /// A node that is there.
    pub fn existing(&self, path: &str) -> Option<DeviceNode> {
        Some(self.node(path)).filter(|node| node.facts.is_some())
    }

    /// The nodes of a folder whose names begin so.
    pub fn matching(&self, folder: &str, begin: &str) -> Vec<DeviceNode> {
        let entries = std::fs::read_dir(self.seen.join(folder)).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(begin)).collect();
        names.sort();
        names.iter().filter_map(|name| self.existing(&format!("{folder}/{name}"))).collect()
    }

    /// The edits that give a container these nodes.
    pub fn edits(&self, device_nodes: Vec<DeviceNode>) -> ContainerEdits {
        let closed = |facts: &NodeFacts| facts.gid != 0 && facts.file_mode & 0o006 != 0o006;
        let facts = device_nodes.iter().filter_map(|node| node.facts);
        let additional_gids =
            facts.filter(|facts| self.additional_gids && closed(facts)).map(|facts| facts.gid).collect();
        ContainerEdits { device_nodes, additional_gids, ..ContainerEdits::default() }
    }
}
