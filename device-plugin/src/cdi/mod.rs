//! Our own CDI specs: what a container runtime gives a container that holds a GPU, without NVIDIA's runtime or tools.
//!
//! ```text
//!   driver root ──DriverFiles──┐
//!   device nodes ──Nodes───────┼──render──► Spec ──write──► /var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json
//!   inventory ──parts──────────┘
//! ```
//!
//! Kind, names and edits are those that NVIDIA's plugin writes, so that nobody sees a difference but these: hooks are told
//! only where their program is (NVIDIA's plugin tells them always, and containers then fail where it is missing); links
//! below `/dev/dri/by-path` lead to the container's nodes; and a driver without libraries is no error.
//!
//! The folder is as good as root: files are written whole or not at all, with device nodes, read-only mounts and NVIDIA's
//! own hooks in them, and nothing a pod's author can choose.

mod driver;
pub mod hooks;
mod nodes;
mod render;
pub mod spec;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use driver::Search;
use hooks::Hooks;
use nodes::Nodes;
use spec::{ContainerEdits, Device, DeviceNode, Spec};

use crate::answer::{CDI_VENDOR, MigMinors, MigMinorsError, imex};
use crate::config::{CdiConfig, CdiFeature, Config, DeviceIdStrategy, Extra};
use crate::inventory::{Inventory, PartDetail};
use crate::nvml::pci_folder;

/// Why there are no CDI specs.
#[derive(Debug, thiserror::Error)]
pub enum CdiError {
    /// The disk is full.
    #[error("cannot write {}: its file system is full. Free some space: CDI specs need a few KiB", .path.display())]
    Full {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not ours to write.
    #[error(
        "cannot write {}: mount the host's CDI folder here, and writable, or correct --cdi-root (CDI_ROOT)",
        .path.display()
    )]
    NotWritable {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot write {}", .path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// MIG devices without capability nodes.
    #[error(transparent)]
    MigMinors(#[from] MigMinorsError),
}

impl CdiError {
    fn of(path: &Path, source: io::Error) -> Self {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let path = path.to_owned();
        match source.kind() {
            StorageFull | QuotaExceeded => Self::Full { path, source },
            PermissionDenied | ReadOnlyFilesystem => Self::NotWritable { path, source },
            _ => Self::Write { path, source },
        }
    }
}

/// The device nodes that come with a kernel module or a program, those of them that there are now: with others, specs are
/// to be written anew. None where no strategy uses CDI.
pub fn passing_nodes(config: &Config) -> Vec<DeviceNode> {
    if !config.uses_cdi() {
        return Vec::new();
    }
    let nodes = Nodes::of(config);
    let extras = config.extras.iter().flat_map(|extra| nodes.of_extra(*extra));
    nodes.control().into_iter().chain(extras).collect()
}

/// What is known of a machine before its inventory, and stays.
#[derive(Debug, Clone)]
pub struct Specs {
    cdi: CdiConfig,
    id_strategy: DeviceIdStrategy,
    extras: BTreeSet<Extra>,
    /// The driver root, as this program and as the runtime see it.
    seen: PathBuf,
    host: PathBuf,
    nodes: Nodes,
    hooks: Hooks,
    driver_version: String,
    procfs: PathBuf,
    sysfs: PathBuf,
}

impl Specs {
    /// What the configuration says; `None` where no strategy uses CDI.
    pub fn of(config: &Config, driver_version: &str) -> Option<Self> {
        if !config.uses_cdi() {
            return None;
        }
        let seen = config.container_driver_root.clone();
        let hook = config.cdi.hook.clone();
        let is_there = config.cdi.hook_is_given || in_root(&seen, &hook).is_file() || hook.is_file();
        if !is_there {
            tracing::info!(path = %hook.display(), "NVIDIA's hooks are not there, and CDI does without: libraries are mounted under all their names.");
        }
        Some(Self {
            id_strategy: config.device_id_strategy,
            extras: config.extras.clone(),
            host: config.driver_root.clone(),
            nodes: Nodes::of(config),
            hooks: Hooks { program: is_there.then_some(hook), disabled: config.cdi.disabled_hooks.clone() },
            driver_version: driver_version.to_owned(),
            procfs: config.procfs.clone(),
            sysfs: config.sysfs.clone(),
            cdi: config.cdi.clone(),
            seen,
        })
    }

    /// Writes the spec of the GPUs and MIG devices of an inventory, with `slices`, those that were built on demand, by
    /// name. Blocks.
    ///
    /// # Errors
    /// [`CdiError`].
    pub fn write_gpus(&self, inventory: &Inventory, slices: &[(String, PartDetail)]) -> Result<(), CdiError> {
        self.put("gpu", self.gpu_spec(inventory, slices)?)
    }

    /// Writes the specs of an inventory, and removes those that say nothing any more. Files that would not change are
    /// left alone, so it may be called after every look at the GPUs. Blocks.
    ///
    /// Tells which extras containers get: those whose devices this machine has.
    ///
    /// # Errors
    /// [`CdiError`], for the first file that cannot be written. What was there before is there still.
    pub fn write(
        &self,
        inventory: &Inventory,
        slices: &[(String, PartDetail)],
        imex_channels: &[u32],
    ) -> Result<BTreeSet<Extra>, CdiError> {
        self.write_gpus(inventory, slices)?;
        self.put("imex-channel", self.imex_spec(imex_channels))?;
        let mut found = BTreeSet::new();
        for extra in Extra::ALL {
            let spec = self.extras.contains(&extra).then(|| self.extra_spec(extra)).flatten();
            if spec.is_some() {
                found.insert(extra);
            }
            self.put(extra.cdi_class(), spec)?;
        }
        Ok(found)
    }

    fn put(&self, class: &str, spec: Option<Spec>) -> Result<(), CdiError> {
        let Some(spec) = spec else { return write::remove(&self.cdi.folder, CDI_VENDOR, class) };
        if write::write(&self.cdi.folder, CDI_VENDOR, class, &spec)? {
            let path = write::path(&self.cdi.folder, CDI_VENDOR, class);
            tracing::info!(path = %path.display(), devices = spec.devices.len(), "CDI spec written.");
        }
        Ok(())
    }

    /// The GPUs and MIG devices; `None` where there are none.
    fn gpu_spec(
        &self,
        inventory: &Inventory,
        slices: &[(String, PartDetail)],
    ) -> Result<Option<Spec>, CdiError> {
        let minors = MigMinors::needed(inventory, &self.procfs)?;
        let device = |name: String, part| Device { name, container_edits: self.part_edits(part, &minors) };
        let parts = inventory.parts().map(|(uuid, part)| device(self.id_strategy.name(uuid, part), part));
        let slices = slices.iter().map(|(name, part)| device(name.clone(), part));
        let devices: Vec<Device> = parts.chain(slices).collect();
        let kernel = std::fs::read_to_string(self.procfs.join("sys/kernel/osrelease")).unwrap_or_default();
        let search = Search {
            root: &self.seen,
            version: &self.driver_version,
            kernel: kernel.trim(),
            explicit_libraries: self.cdi.features.contains(&CdiFeature::ExplicitLibraries),
            services: !self.cdi.features.contains(&CdiFeature::NoIpc),
        };
        let files = search.run();
        if files.libraries.is_empty() && !devices.is_empty() {
            tracing::warn!(
                root = %self.seen.display(),
                driver_version = self.driver_version,
                "No libraries of the driver are found, and containers get none by CDI. Is --driver-root-ctr-path right?"
            );
        }
        let common =
            render::common(&files, self.nodes.control(), (&self.host, &self.driver_version), &self.hooks);
        Ok((!devices.is_empty()).then(|| Spec::new(format!("{CDI_VENDOR}/gpu"), devices, common)))
    }

    fn part_edits(&self, part: &PartDetail, minors: &MigMinors) -> ContainerEdits {
        let nodes = minors.nodes_of(part).iter().map(|path| self.nodes.node(path)).collect::<Vec<_>>();
        // Graphics wants the whole GPU, or a MIG device that was made for it.
        let direct = if part.has_graphics { self.rendering_nodes(&part.bus_id) } else { Vec::new() };
        let links = self.hooks.links(self.links_by_path(&part.bus_id, &direct));
        let mut edits = self.nodes.edits(nodes.into_iter().chain(direct).collect());
        edits.hooks.extend(links);
        edits
    }

    /// `/dev/dri/card…` and `/dev/dri/renderD…` of a GPU.
    fn rendering_nodes(&self, bus_id: &str) -> Vec<DeviceNode> {
        let entries =
            pci_folder(&self.sysfs, bus_id).and_then(|folder| std::fs::read_dir(folder.join("drm")).ok());
        let names =
            entries.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|name| self.nodes.existing(&format!("dev/dri/{name}"))).collect()
    }

    /// The names that programs know a GPU's rendering nodes by.
    fn links_by_path(&self, bus_id: &str, nodes: &[DeviceNode]) -> Vec<(String, String)> {
        let Some(folder) = pci_folder(Path::new(""), bus_id) else { return Vec::new() };
        let Some(address) = folder.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
        let link = |end: &str| {
            let path = format!("dev/dri/by-path/pci-{address}-{end}");
            let target = std::fs::read_link(self.nodes.seen.join(&path)).ok()?;
            let name = target.file_name()?.to_str()?;
            let is_ours = nodes.iter().any(|node| node.path == format!("/dev/dri/{name}"));
            is_ours.then(|| (format!("../{name}"), format!("/{path}")))
        };
        ["card", "render"].into_iter().filter_map(link).collect()
    }

    fn imex_spec(&self, channels: &[u32]) -> Option<Spec> {
        let device = |channel: &u32| {
            // Without facts: channels are made anew with other numbers, and the runtime looks itself.
            let node = DeviceNode { facts: None, ..self.nodes.node(&imex::node(*channel)) };
            let container_edits = ContainerEdits { device_nodes: vec![node], ..ContainerEdits::default() };
            Device { name: channel.to_string(), container_edits }
        };
        let devices: Vec<Device> = channels.iter().map(device).collect();
        let kind = format!("{CDI_VENDOR}/imex-channel");
        (!devices.is_empty()).then(|| Spec::new(kind, devices, ContainerEdits::default()))
    }

    /// The device `all` of an extra; `None` where the machine has no such device.
    fn extra_spec(&self, extra: Extra) -> Option<Spec> {
        let nodes = self.nodes.of_extra(extra);
        if nodes.is_empty() {
            return None;
        }
        let mut container_edits = self.nodes.edits(nodes);
        if extra == Extra::Gds {
            let files = ["/run/udev", "/etc/cufile.json"].into_iter();
            let files = files.filter(|path| in_root(&self.seen, Path::new(path)).exists());
            container_edits.mounts = files.map(|path| render::mount(&self.host, path, path)).collect();
        }
        let common = ContainerEdits { env: vec![render::VOID.to_owned()], ..ContainerEdits::default() };
        let device = Device { name: "all".to_owned(), container_edits };
        Some(Spec::new(format!("{CDI_VENDOR}/{}", extra.cdi_class()), vec![device], common))
    }
}

/// An absolute path below another root.
fn in_root(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
