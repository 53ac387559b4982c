//! The driver's files that a container needs, found below the driver root: what `nvidia-ctk`'s nvml mode finds there.
//!
//! A file's path is that in the driver root, `/usr/bin/nvidia-smi`, which is also where the container gets it.

use std::path::{Path, PathBuf};

/// Where libraries may lie; where there is one of the driver's, there are the others.
const LIBRARY_FOLDERS: [&str; 10] = [
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/lib/x86_64-linux-gnu/nvidia/current",
    "/lib/aarch64-linux-gnu/nvidia/current",
];
const PROGRAM_FOLDERS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const PROGRAMS: [&str; 7] = [
    "nvidia-smi",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
    "nvidia-imex",
    "nvidia-imex-ctl",
];
const SETTINGS_FOLDERS: [&str; 3] = ["/etc", "/usr/local/share", "/usr/share"];
const SETTINGS: [&str; 8] = [
    "glvnd/egl_vendor.d/10_nvidia.json",
    "egl/egl_external_platform.d/15_nvidia_gbm.json",
    "egl/egl_external_platform.d/10_nvidia_wayland.json",
    "egl/egl_external_platform.d/09_nvidia_wayland2.json",
    "nvidia/nvoptix.bin",
    "X11/xorg.conf.d/10-nvidia.conf",
    "X11/xorg.conf.d/nvidia-drm-outputclass.conf",
    "OpenCL/vendors/nvidia.icd",
];
/// Found in different places, and wanted below `/etc`.
const VULKAN: [&str; 4] = [
    "vulkan/icd.d/nvidia_icd.json",
    "vulkan/icd.d/nvidia_layers.json",
    "vulkan/implicit_layer.d/nvidia_layers.json",
    #[cfg(not(target_arch = "aarch64"))]
    "vulkan/icd.d/nvidia_icd.x86_64.json",
    #[cfg(target_arch = "aarch64")]
    "vulkan/icd.d/nvidia_icd.aarch64.json",
];
/// Libraries of the driver that have version numbers of their own.
const OWN_VERSIONS: [&str; 3] = ["libnvidia-egl-gbm", "libnvidia-egl-wayland", "libnvidia-egl-wayland2"];
/// The same, of old drivers.
const NVVM: &str = "libnvidia-nvvm70";
/// Libraries without the driver's version in their name, for who asks for them.
const EXPLICIT: [&str; 11] = [
    "libEGL.so",
    "libGL.so",
    "libGLESv1_CM.so",
    "libGLESv2.so",
    "libGLX.so",
    "libGLdispatch.so",
    "libOpenCL.so",
    "libOpenGL.so",
    "libnvidia-api.so",
    "libnvidia-egl-xcb.so",
    "libnvidia-egl-xlib.so",
];
const XORG_FOLDERS: [&str; 3] =
    ["/usr/lib/xorg/modules", "/usr/lib64/xorg/modules", "/usr/X11R6/lib/modules"];
const SOCKETS: [&str; 2] = ["/nvidia-persistenced/socket", "/nvidia-fabricmanager/socket"];

/// A library and the links beside it that lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// The file.
    pub path: String,
    /// `(target, link)`, as names in the same folder.
    pub links: Vec<(String, String)>,
}

/// The driver's files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DriverFiles {
    /// Folders of the driver's libraries.
    pub folders: Vec<String>,
    /// The driver's libraries.
    pub libraries: Vec<Library>,
    /// Those that have version numbers of their own.
    pub own_versions: Vec<Library>,
    /// Modules of the X server.
    pub xorg: Vec<String>,
    /// Sockets and folders through which the driver's services are reached.
    pub services: Vec<String>,
    /// Programs, firmware and settings.
    pub others: Vec<String>,
    /// Files that a container gets elsewhere: here, and there.
    pub moved: Vec<(String, String)>,
}

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// Where this program sees the driver root.
    pub root: &'a Path,
    /// The driver's version.
    pub version: &'a str,
    /// The kernel's release, `6.8.0-40-generic`: firmware may lie in a folder of that name.
    pub kernel: &'a str,
    /// Whether libraries without the driver's version are wanted too.
    pub explicit_libraries: bool,
    /// Whether sockets are wanted.
    pub services: bool,
}

impl Search<'_> {
    /// Finds what is there. A driver without some of it, and none at all, are no errors.
    pub fn run(&self) -> DriverFiles {
        let suffix = format!(".so.{}", self.version);
        let mut folders: Vec<&str> = Vec::new();
        for folder in LIBRARY_FOLDERS {
            // `/lib` may be a link to `/usr/lib`: each library once.
            let known = |other: &&&str| self.same(other, folder);
            if !self.version.is_empty()
                && self.files(folder, "lib", &suffix).next().is_some()
                && !folders.iter().any(|other| known(&other))
            {
                folders.push(folder);
            }
        }
        let (mut libraries, mut own_versions) = (Vec::new(), Vec::new());
        for folder in &folders {
            libraries.extend(self.files(folder, "lib", &suffix));
            libraries.extend(self.files(&format!("{folder}/vdpau"), "lib", &suffix));
            libraries.extend(self.versions(folder, NVVM));
            let explicit = EXPLICIT.iter().filter(|_| self.explicit_libraries);
            libraries
                .extend(explicit.map(|name| format!("{folder}/{name}")).filter(|path| self.exists(path)));
            own_versions.extend(OWN_VERSIONS.iter().flat_map(|name| self.versions(folder, name)));
        }
        let with_links = |paths: Vec<String>| paths.into_iter().map(|path| self.with_links(path)).collect();
        DriverFiles {
            libraries: with_links(libraries),
            own_versions: with_links(own_versions),
            xorg: self.xorg(&folders, &suffix),
            services: if self.services { self.services() } else { Vec::new() },
            others: self.programs().chain(self.firmware()).chain(self.settings()).collect(),
            moved: self.vulkan().collect(),
            folders: folders.into_iter().map(str::to_owned).collect(),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    fn is_link(&self, path: &str) -> bool {
        self.at(path).is_symlink()
    }

    fn same(&self, one: &str, two: &str) -> bool {
        let real = |path| std::fs::canonicalize(self.at(path)).ok();
        real(one).is_some_and(|one| real(two) == Some(one))
    }

    /// The files of a folder whose names begin and end so, in order.
    fn files(&self, folder: &str, begin: &str, end: &str) -> impl Iterator<Item = String> + use<> {
        let mut names: Vec<String> = std::fs::read_dir(self.at(folder))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(begin) && name.ends_with(end))
            .collect();
        names.sort();
        let folder = folder.to_owned();
        names.into_iter().map(move |name| format!("{folder}/{name}"))
    }

    /// The files, not links, of a library whose version is not known.
    fn versions(&self, folder: &str, name: &str) -> impl Iterator<Item = String> {
        self.files(folder, &format!("{name}.so."), "").filter(|path| !self.is_link(path))
    }

    /// The links in the library's folder that lead to it, at once or by another link: programs look for those names.
    fn with_links(&self, path: String) -> Library {
        let Some((folder, name)) = path.rsplit_once('/') else { return Library { path, links: Vec::new() } };
        let stem = name.split(".so").next().unwrap_or(name);
        let target = |link: &String| {
            let target = std::fs::read_link(self.at(link)).ok()?;
            // A link may name its own folder.
            let target =
                target.to_str()?.rsplit_once('/').map_or(target.to_str()?, |(_, name)| name).to_owned();
            Some((target, link.rsplit_once('/')?.1.to_owned()))
        };
        let all: Vec<(String, String)> =
            self.files(folder, &format!("{stem}.so"), "").filter_map(|link| target(&link)).collect();
        let mut links: Vec<(String, String)> = Vec::new();
        let mut reached = vec![name.to_owned()];
        while let Some(name) = reached.pop() {
            for link in all.iter().filter(|(target, _)| *target == name) {
                if !links.contains(link) {
                    links.push(link.clone());
                    reached.push(link.1.clone());
                }
            }
        }
        Library { links, path }
    }

    fn xorg(&self, libraries: &[&str], suffix: &str) -> Vec<String> {
        let beside = libraries
            .iter()
            .flat_map(|folder| [format!("{folder}/nvidia/xorg"), format!("{folder}/xorg/modules")]);
        let modules = beside.chain(XORG_FOLDERS.map(str::to_owned));
        let folders: Vec<String> = modules
            .flat_map(|folder| {
                let inner = ["drivers", "extensions", "updates/drivers", "updates/extensions"];
                let inner = inner.map(|inner| format!("{folder}/{inner}"));
                [folder].into_iter().chain(inner)
            })
            .collect();
        let names = ["nvidia_drv.so".to_owned(), format!("libglxserver_nvidia{suffix}")];
        let first = |name: &String| {
            folders.iter().map(|folder| format!("{folder}/{name}")).find(|path| self.exists(path))
        };
        names.iter().filter_map(first).collect()
    }

    fn services(&self) -> Vec<String> {
        let first = |socket: &&str| {
            ["/run", "/var/run"]
                .into_iter()
                .map(|run| format!("{run}{socket}"))
                .find(|path| self.exists(path))
        };
        let mps = ["/tmp/nvidia-mps".to_owned()].into_iter().filter(|path| self.exists(path));
        SOCKETS.iter().filter_map(first).chain(mps).collect()
    }

    fn programs(&self) -> impl Iterator<Item = String> {
        let first = |name: &&str| {
            PROGRAM_FOLDERS.iter().map(|folder| format!("{folder}/{name}")).find(|path| self.is_program(path))
        };
        PROGRAMS.iter().filter_map(first)
    }

    fn is_program(&self, path: &str) -> bool {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(self.at(path))
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    }

    fn firmware(&self) -> impl Iterator<Item = String> {
        let of_kernel =
            ["/lib/firmware/updates", "/lib/firmware"].map(|folder| format!("{folder}/{}", self.kernel));
        let of_kernel = of_kernel.into_iter().filter(|_| !self.kernel.is_empty());
        let folders = of_kernel.chain(["/lib/firmware/updates", "/lib/firmware"].map(str::to_owned));
        folders.flat_map(|folder| {
            self.files(&format!("{folder}/nvidia/{}", self.version), "gsp", ".bin").collect::<Vec<_>>()
        })
    }

    fn settings(&self) -> impl Iterator<Item = String> {
        SETTINGS.iter().filter_map(|name| self.setting(name))
    }

    fn setting(&self, name: &str) -> Option<String> {
        SETTINGS_FOLDERS.iter().map(|folder| format!("{folder}/{name}")).find(|path| self.exists(path))
    }

    fn vulkan(&self) -> impl Iterator<Item = (String, String)> {
        VULKAN.iter().filter_map(|name| {
            // Some installations have it in the driver root itself.
            let at_root = Some(format!("/{name}")).filter(|path| self.exists(path));
            Some((self.setting(name).or(at_root)?, format!("/etc/{name}")))
        })
    }
}
