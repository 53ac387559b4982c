//! The simulated machine, and the two plugins on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nvml_simulator::description::Description;
use nvml_simulator::store::Store;

use super::node::Node;
use crate::program::built;

/// A plugin.
#[derive(Debug, Clone)]
pub(crate) enum Plugin {
    /// Stowage's.
    Ours,
    /// NVIDIA's, the program at this path.
    Nvidias(PathBuf),
}

impl Plugin {
    /// Its program.
    pub(crate) fn program(&self) -> Result<PathBuf> {
        match self {
            Self::Ours => built("stowage-device-plugin"),
            Self::Nvidias(path) => Ok(path.clone()),
        }
    }
}

/// The files of a simulated machine.
pub(crate) struct Machine {
    description: PathBuf,
    /// NVML's library as the programs find it.
    pub(crate) library: PathBuf,
    /// Where the driver is, as a plugin's container sees it.
    pub(crate) driver_root: PathBuf,
}

impl Machine {
    /// Makes it in this folder.
    pub(crate) fn make(folder: &Path, description: &Description) -> Result<Self> {
        let driver_root = folder.join("driver-root");
        let libraries = driver_root.join("usr/lib64");
        fs::create_dir_all(&libraries)?;
        let library = libraries.join("libnvidia-ml.so.1");
        let built =
            nvml_simulator::library_near(&std::env::current_exe()?).context("the simulator is not built")?;
        ensure!(built.exists(), "{} is missing", built.display());
        symlink(built, &library)?;
        let machine = Self { description: folder.join("gpus.yaml"), library, driver_root };
        description.write(&machine.description)?;
        Ok(machine)
    }

    /// A program that sees its GPUs.
    pub(crate) fn sees(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("NVML_SIMULATOR_CONFIG", &self.description);
        command
    }

    /// What changes its GPUs while programs run.
    pub(crate) fn store(&self) -> Result<Store> {
        Ok(Store::open(&self.description)?)
    }

    /// A plugin on it, with the same flags for both. Ours without an API server, which NVIDIA's knows nothing of.
    pub(crate) fn command(&self, plugin: &Plugin, node: &Node, flags: &[&str]) -> Result<Command> {
        let mut command = self.sees(&plugin.program()?);
        command.arg("--driver-root-ctr-path").arg(&self.driver_root).args(flags);
        command.arg("--kubelet-socket").arg(&node.door_path);
        if matches!(plugin, Plugin::Ours) {
            command.args(["--node-name", "bench", "--kubernetes=false", "--http-address", "127.0.0.1:0"]);
            command.arg("--pod-resources-socket").arg(node.kubelet.pod_resources_socket());
        }
        Ok(command)
    }
}
