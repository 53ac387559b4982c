//! The words of a CDI spec file, in the order in which the CDI specification lists them.

use serde::Serialize;

/// One spec file: devices of one kind, and what every container with any of them gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The oldest version of the CDI specification that has every field used here.
    pub cdi_version: &'static str,
    /// `<vendor>/<class>`.
    pub kind: String,
    /// The devices; a file without any is refused by runtimes.
    pub devices: Vec<Device>,
    /// What every container with any of the devices gets.
    pub container_edits: ContainerEdits,
}

/// A device that can be asked for by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its name.
    pub name: String,
    /// What a container with it gets.
    pub container_edits: ContainerEdits,
}

/// What is done to a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerEdits {
    /// Environment, `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Device nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_nodes: Vec<DeviceNode>,
    /// Programs that the runtime runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// Bind mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Groups that the container's processes join, so that they may open the device nodes; since CDI 0.7.0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceNode {
    /// Where the container has it.
    pub path: String,
    /// Where the host has it; since CDI 0.5.0.
    pub host_path: String,
    /// What it is; where that is not known, the runtime looks itself.
    #[serde(flatten)]
    pub facts: Option<NodeFacts>,
}

/// What a device node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// The driver's number.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u32,
    /// The device's number within the driver.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u32,
    /// Permission bits.
    #[serde(skip_serializing_if = "is_zero")]
    pub file_mode: u32,
    /// What the container's cgroup may do with it.
    pub permissions: &'static str,
    /// Its group.
    #[serde(skip_serializing_if = "is_zero")]
    pub gid: u32,
}

/// A program that the runtime runs at a stage of a container's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// The stage.
    pub hook_name: &'static str,
    /// The program, on the host.
    pub path: String,
    /// Its arguments, its own name first.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// What, on the host.
    pub host_path: String,
    /// Where to, in the container.
    pub container_path: String,
    /// Mount options.
    pub options: &'static [&'static str],
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Spec {
    /// A spec of these devices, sorted as NVIDIA's are, in the oldest version that has all of its fields.
    pub fn new(kind: String, mut devices: Vec<Device>, mut container_edits: ContainerEdits) -> Self {
        devices.sort_by(|a, b| a.name.cmp(&b.name));
        devices.iter_mut().for_each(|device| device.container_edits.sort());
        container_edits.sort();
        let has_gids = |edits: &ContainerEdits| !edits.additional_gids.is_empty();
        let newer =
            has_gids(&container_edits) || devices.iter().any(|device| has_gids(&device.container_edits));
        let cdi_version = if newer { "0.7.0" } else { "0.5.0" };
        Self { cdi_version, kind, devices, container_edits }
    }
}

impl ContainerEdits {
    /// The least deep paths first: what is mounted later must not cover what was mounted before.
    fn sort(&mut self) {
        let depth = |path: &str| path.matches('/').count();
        self.env.sort();
        self.device_nodes.sort_by(|a, b| (depth(&a.path), &a.path).cmp(&(depth(&b.path), &b.path)));
        self.device_nodes.dedup();
        let key = |mount: &Mount| (depth(&mount.container_path), mount.container_path.clone());
        self.mounts.sort_by_key(key);
        self.mounts.dedup();
        self.additional_gids.sort_unstable();
        self.additional_gids.dedup();
    }
}
