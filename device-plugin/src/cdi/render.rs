//! From what the machine has to the words of a CDI spec; no I/O.

use std::path::Path;

use super::driver::{DriverFiles, Library};
use super::hooks::Hooks;
use super::spec::{ContainerEdits, DeviceNode, Mount};

/// For files that containers read.
const READ: &[&str] = &["ro", "nosuid", "nodev", "rbind", "rprivate"];
/// For sockets, which they write to.
const TALK: &[&str] = &["nosuid", "nodev", "rbind", "rprivate", "noexec"];
/// Tells NVIDIA's container runtime that CDI has seen to the devices.
pub const VOID: &str = "NVIDIA_VISIBLE_DEVICES=void";

/// A file of the driver root `host` that a container gets read-only.
pub fn mount(host: &Path, path: &str, container_path: &str) -> Mount {
    let host_path = host.join(path.trim_start_matches('/')).display().to_string();
    Mount { host_path, container_path: container_path.to_owned(), options: READ }
}

/// What every container with any GPU gets of a driver of this version, whose root is `host` to the runtime.
pub fn common(
    files: &DriverFiles,
    control_nodes: Vec<DeviceNode>,
    (host, version): (&Path, &str),
    hooks: &Hooks,
) -> ContainerEdits {
    let libraries = || files.libraries.iter().chain(&files.own_versions);
    let same = libraries().map(|library| &library.path).chain(&files.xorg).chain(&files.others);
    let mut mounts: Vec<Mount> = same.map(|path| mount(host, path, path)).collect();
    mounts.extend(files.moved.iter().map(|(here, there)| mount(host, here, there)));
    mounts.extend(files.services.iter().map(|path| Mount { options: TALK, ..mount(host, path, path) }));
    if !hooks.has("create-symlinks") {
        // Without links, each library stands under every name that programs look for.
        let named =
            libraries().flat_map(|library| links(library).into_iter().map(|(_, link)| (&library.path, link)));
        mounts.extend(named.map(|(path, link)| mount(host, path, &link)));
    }
    let mut folders: Vec<String> = Vec::new();
    for (folder, _) in libraries().filter_map(|library| library.path.rsplit_once('/')) {
        if !folders.iter().any(|known| known == folder) {
            folders.push(folder.to_owned());
        }
    }
    let mut env = vec![VOID.to_owned()];
    if !files.folders.is_empty() {
        env.push(format!("NVIDIA_CTK_LIBCUDA_DIR={}", files.folders.join(":")));
    }
    let cache = folders.into_iter().flat_map(|folder| ["--folder".to_owned(), folder]).collect::<Vec<_>>();
    let all = [
        hooks.links(graphics_links(files, version)),
        hooks.links(files.libraries.iter().flat_map(links)),
        hooks.make("enable-cuda-compat", [format!("--host-driver-version={version}")]),
        (!cache.is_empty()).then(|| hooks.make("update-ldcache", cache)).flatten(),
        hooks.make("disable-device-node-modification", []),
        hooks.make("update-application-profile", []),
    ];
    ContainerEdits {
        env,
        device_nodes: control_nodes,
        hooks: all.into_iter().flatten().collect(),
        mounts,
        additional_gids: Vec::new(),
    }
}

/// The links to a library, `(target, link)`: those of the host, and those that programs want and drivers leave out.
fn links(library: &Library) -> Vec<(String, String)> {
    let Some((folder, name)) = library.path.rsplit_once('/') else { return Vec::new() };
    let wanted = match name.split(".so.").next() {
        Some("libcuda") => Some(("libcuda.so.1", "libcuda.so")),
        Some("libGLX_nvidia") => Some((name, "libGLX_indirect.so.0")),
        Some("libnvidia-opticalflow") => Some(("libnvidia-opticalflow.so.1", "libnvidia-opticalflow.so")),
        _ => None,
    };
    let wanted = wanted.map(|(target, link)| (target.to_owned(), link.to_owned()));
    let mut links: Vec<(String, String)> = Vec::new();
    for (target, link) in wanted.into_iter().chain(library.links.iter().cloned()) {
        let link = format!("{folder}/{link}");
        if !links.iter().any(|(_, known)| *known == link) {
            links.push((target, link));
        }
    }
    links
}

/// The links that graphics wants besides.
fn graphics_links(files: &DriverFiles, version: &str) -> Vec<(String, String)> {
    let paths = || files.libraries.iter().map(|library| &library.path).chain(&files.xorg);
    let of = |name: &str| {
        let file = format!("{name}.so.{version}");
        paths()
            .filter_map(|path| path.rsplit_once('/'))
            .find(|(_, known)| *known == file)
            .map(|(folder, _)| (folder.to_owned(), file))
    };
    let allocator = of("libnvidia-allocator").map(|(folder, _)| {
        ("../libnvidia-allocator.so.1".to_owned(), format!("{folder}/gbm/nvidia-drm_gbm.so"))
    });
    let plain = ["libnvidia-vulkan-producer", "libglxserver_nvidia"];
    let plain = plain.iter().filter_map(|name| {
        let (folder, file) = of(name)?;
        Some((file, format!("{folder}/{name}.so")))
    });
    allocator.into_iter().chain(plain).collect()
}
