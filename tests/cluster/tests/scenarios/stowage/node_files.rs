//! What each GPU node has, as files: the simulator's description, NVIDIA's plugin configuration, a driver root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One GPU node of the test cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeFiles {
    pub(crate) node: &'static str,
    /// The simulated GPUs.
    pub(crate) gpus: &'static str,
    /// NVIDIA's configuration file.
    pub(crate) config: &'static str,
    /// What the node must then offer.
    pub(crate) offers: &'static [(&'static str, u32)],
}

/// Where the files of a node were written.
pub(crate) struct Written {
    pub(crate) simulator: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) driver_root: PathBuf,
}

/// Eight A100s, four of them cut into MIG slices by hand.
const MIXED: NodeFiles = NodeFiles {
    node: "gpu-node-1",
    gpus: "\
seed: 1
gpus:
  - model: a100-40gb
    count: 4
    numaNode: 0
    migMode: enabled
    migInstances:
      - {profile: 3g.20gb, start: 4}
      - {profile: 1g.5gb, start: 0}
      - {profile: 1g.5gb, start: 1}
      - {profile: 2g.10gb, start: 2}
  - model: a100-40gb
    count: 4
    numaNode: 1
",
    config: "version: v1\nflags: {migStrategy: mixed}\n",
    offers: &[
        ("nvidia.com/gpu", 4),
        ("nvidia.com/mig-1g.5gb", 8),
        ("nvidia.com/mig-2g.10gb", 4),
        ("nvidia.com/mig-3g.20gb", 4),
    ],
};

/// Four A100s cut like the other node's, and four L4s, each in four shares.
const SHARED: NodeFiles = NodeFiles {
    node: "gpu-node-2",
    gpus: "\
seed: 2
gpus:
  - model: a100-40gb
    count: 4
    migMode: enabled
    migInstances:
      - {profile: 3g.20gb, start: 4}
      - {profile: 1g.5gb, start: 0}
      - {profile: 1g.5gb, start: 1}
      - {profile: 2g.10gb, start: 2}
  - {model: l4, count: 4}
",
    config: "\
version: v1
flags: {migStrategy: mixed}
sharing:
  timeSlicing:
    renameByDefault: true
    resources:
      - {name: nvidia.com/gpu, replicas: 4}
",
    offers: &[
        ("nvidia.com/gpu.shared", 16),
        ("nvidia.com/mig-1g.5gb", 8),
        ("nvidia.com/mig-2g.10gb", 4),
        ("nvidia.com/mig-3g.20gb", 4),
    ],
};

/// Four whole H100s.
const WHOLE: NodeFiles = NodeFiles {
    node: "gpu-node-3",
    gpus: "seed: 3\ngpus:\n  - {model: h100-80gb, count: 4}\n",
    config: "version: v1\n",
    offers: &[("nvidia.com/gpu", 4)],
};

impl NodeFiles {
    /// The three GPU nodes.
    pub(crate) fn all() -> [Self; 3] {
        [MIXED, SHARED, WHOLE]
    }

    /// Writes them into `folder`, which every process on the node sees at the same path.
    pub(crate) fn write(&self, folder: &Path) -> Result<Written> {
        let library = super::built("libnvml_simulator.so")?;
        let driver_root = folder.join("driver-root");
        let libraries = driver_root.join("usr/lib64");
        fs::create_dir_all(&libraries).with_context(|| format!("cannot make {}", libraries.display()))?;
        let link = libraries.join("libnvidia-ml.so.1");
        if !link.exists() {
            symlink(&library, &link).with_context(|| format!("cannot link {}", link.display()))?;
        }
        let written =
            Written { simulator: folder.join("gpus.yaml"), config: folder.join("config.yaml"), driver_root };
        fs::write(&written.simulator, self.gpus)?;
        fs::write(&written.config, self.config)?;
        Ok(written)
    }
}
