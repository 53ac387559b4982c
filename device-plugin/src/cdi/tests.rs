use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::Value;

use super::spec::NodeFacts;
use super::*;
use crate::config::{self, MigStrategy};
use crate::fixture::{gpu, rules};
use crate::nvml::Reading;

const VERSION: &str = "570.86.15";

/// The machine on which NVIDIA's plugin wrote the golden specs, in a folder: the driver root, `/proc` and `/sys` in one.
fn golden_machine() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str, mode: u32| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let link = |target: &str, path: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    };
    const LIB: &str = "usr/lib/x86_64-linux-gnu";
    for name in [
        "libcuda",
        "libnvidia-ptxjitcompiler",
        "libnvidia-opticalflow",
        "libGLX_nvidia",
        "libnvidia-allocator",
        "libnvidia-vulkan-producer",
        "libnvidia-gpucomp",
        "libnvidia-ml",
        "vdpau/libvdpau_nvidia",
    ] {
        put(&format!("{LIB}/{name}.so.{VERSION}"), 0o644);
    }
    put(&format!("{LIB}/libnvidia-egl-gbm.so.1.1.2"), 0o644);
    link("libnvidia-egl-gbm.so.1.1.2", &format!("{LIB}/libnvidia-egl-gbm.so.1"));
    for name in ["libnvidia-ml", "libcuda", "libnvidia-ptxjitcompiler", "libnvidia-opticalflow"] {
        link(&format!("{name}.so.{VERSION}"), &format!("{LIB}/{name}.so.1"));
    }
    link("libcuda.so.1", &format!("{LIB}/libcuda.so"));
    // As on most systems; every library must be told once.
    link("usr/lib", "lib");
    for name in ["nvidia-smi", "nvidia-debugdump", "nvidia-cuda-mps-control", "nvidia-cuda-mps-server"] {
        put(&format!("usr/bin/{name}"), 0o755);
    }
    for path in [
        "usr/lib/firmware/nvidia/570.86.15/gsp_ga10x.bin",
        "run/nvidia-persistenced/socket",
        "etc/cufile.json",
        "run/udev/x",
        "etc/OpenCL/vendors/nvidia.icd",
        "usr/share/glvnd/egl_vendor.d/10_nvidia.json",
        "usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json",
        "usr/share/vulkan/icd.d/nvidia_icd.json",
        "usr/share/nvidia/nvoptix.bin",
        "usr/lib/xorg/modules/drivers/nvidia_drv.so",
        "usr/lib/xorg/modules/extensions/libglxserver_nvidia.so.570.86.15",
        "sys/bus/pci/devices/0000:04:00.0/drm/card1",
        "sys/bus/pci/devices/0000:04:00.0/drm/renderD129",
        "dev/nvidiactl",
        "dev/nvidia-uvm",
        "dev/nvidia0",
        "dev/nvidia1",
        "dev/nvidia2",
        "dev/dri/card1",
        "dev/dri/renderD129",
        "dev/nvidia-caps/nvidia-cap11",
        "dev/nvidia-caps/nvidia-cap12",
        "dev/nvidia-caps/nvidia-cap21",
        "dev/nvidia-caps/nvidia-cap22",
        "dev/gdrdrv",
        "dev/nvidia-fs0",
        "dev/infiniband/uverbs0",
        "dev/infiniband/rdma_cm",
    ] {
        put(path, 0o644);
    }
    link("../card1", "dev/dri/by-path/pci-0000:04:00.0-card");
    link("../renderD129", "dev/dri/by-path/pci-0000:04:00.0-render");
    let minors = "gpu2/gi1/access 11\ngpu2/gi1/ci0/access 12\ngpu2/gi2/access 21\ngpu2/gi2/ci0/access 22\n";
    put("driver/nvidia-caps/mig-minors", 0o644);
    fs::write(folder.path().join("driver/nvidia-caps/mig-minors"), minors).unwrap();
    folder
}

/// What the golden machine's device nodes were: a test that is not root can make none.
fn golden_look(path: &Path) -> Option<NodeFacts> {
    let name = path.exists().then(|| path.file_name()?.to_str())??;
    let (major, minor, file_mode, gid) = match name {
        "nvidiactl" => (195, 255, 0o666, 0),
        "nvidia-uvm" => (510, 0, 0o666, 0),
        "gdrdrv" => (450, 0, 0o666, 0),
        "nvidia-fs0" => (451, 0, 0o666, 0),
        "uverbs0" => (231, 192, 0o666, 0),
        "rdma_cm" => (10, 58, 0o666, 0),
        "card1" => (226, 1, 0o660, 44),
        "renderD129" => (226, 129, 0o660, 105),
        name => match name.strip_prefix("nvidia-cap") {
            Some(minor) => (508, minor.parse().unwrap(), 0o444, 0),
            None => (195, name.strip_prefix("nvidia")?.parse().unwrap(), 0o666, 0),
        },
    };
    Some(NodeFacts { major, minor, file_mode, permissions: "rwm", gid })
}

/// Two whole A100 and one that is cut.
fn golden_inventory() -> Inventory {
    let uuids =
        ["GPU-bd49ea47-499d-58f6-9594-443461e15aab", "GPU-43953122-e879-5be3-add4-d6c3b1c9dcfd", "GPU-2"];
    let slices = ["MIG-f0799ce1-c4c2-579d-9e85-7b40af9751ea", "MIG-7585a5ce-ab43-5c86-aa37-cf1284bb5199"];
    let mut gpus: Vec<_> =
        (0..).zip(["whole", "whole", "1g.5gb@0 3g.20gb@4"]).map(|(index, what)| gpu(index, what)).collect();
    for (gpu, uuid) in gpus.iter_mut().zip(uuids) {
        gpu.uuid = uuid.parse().unwrap();
    }
    for (device, (uuid, id)) in gpus[2].mig.as_mut().unwrap().devices.iter_mut().zip(slices.iter().zip(1..)) {
        (device.uuid, device.gpu_instance_id) = ((*uuid).to_owned(), id);
    }
    Inventory::build(&Reading { gpus, ..Reading::default() }, &rules(MigStrategy::Mixed, "")).unwrap()
}

/// What these flags make of a machine; the specs go into its folder `cdi`.
fn specs(machine: &Path, flags: &[&str]) -> Specs {
    let line = [
        "x",
        "--kubernetes=false",
        "--device-list-strategy=cdi-cri",
        "--nvidia-driver-root=/run/nvidia/driver",
    ];
    let line = line.into_iter().chain(flags.iter().copied());
    let mut config =
        config::load(&config::arguments().try_get_matches_from(line).unwrap(), |_| None).unwrap();
    config.container_driver_root = machine.into();
    (config.procfs, config.sysfs) = (machine.into(), machine.join("sys"));
    config.cdi.folder = machine.join("cdi");
    let mut specs = Specs::of(&config, VERSION).unwrap();
    specs.nodes.look = golden_look;
    specs
}

fn read(machine: &Path, class: &str) -> Value {
    let path = machine.join(format!("cdi/k8s.device-plugin.nvidia.com-{class}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

const EVERYTHING: [&str; 4] = [
    "--gdrcopy-enabled",
    "--gds-enabled",
    "--mofed-enabled",
    "--nvidia-cdi-hook-path=/usr/local/bin/nvidia-ctk",
];

/// `tests/golden/cdi`: what NVIDIA's plugin v0.20.0 wrote on the machine of [`golden_machine`].
#[test]
fn every_spec_equals_nvidias_field_by_field() {
    let machine = golden_machine();
    let found = specs(machine.path(), &EVERYTHING).write(&golden_inventory(), &[], &[0]).unwrap();
    assert_eq!(found, Extra::ALL.into());
    for class in ["gpu", "gds", "gdrcopy", "mofed", "imex-channel"] {
        let golden = format!("{}/tests/golden/cdi/{class}.json", env!("CARGO_MANIFEST_DIR"));
        let golden = fs::read_to_string(golden).unwrap();
        let golden = golden
            // Said by a flag here, since this machine may have none at the usual place.
            .replace("/usr/bin/nvidia-ctk", "/usr/local/bin/nvidia-ctk")
            // NVIDIA's plugin names the link as it sees it itself, which is nothing to the container.
            .replace("/driver-root/dev/dri", "/dev/dri")
            // Where `/lib` is no link, its firmware is found there; the same file.
            .replace("/usr/lib/firmware", "/lib/firmware");
        let golden: Value = serde_json::from_str(&golden).unwrap();
        let pretty = |spec: &Value| serde_json::to_string_pretty(spec).unwrap();
        let (ours, nvidias) = (pretty(&read(machine.path(), class)), pretty(&golden));
        for (line, (ours, nvidias)) in ours.lines().zip(nvidias.lines()).enumerate() {
            assert_eq!(ours, nvidias, "{class}, line {line}");
        }
        assert_eq!(ours.len(), nvidias.len(), "{class}");
    }
}

#[test]
fn device_nodes_are_looked_at_and_other_files_are_none() {
    let facts = nodes::look(Path::new("/dev/null")).unwrap();
    assert_eq!((facts.major, facts.minor, facts.file_mode & 0o006), (1, 3, 0o006));
    assert_eq!(nodes::look(Path::new(env!("CARGO_MANIFEST_DIR"))), None);
    assert_eq!(nodes::look(Path::new("/dev/there/is/none")), None);
}

#[test]
fn without_nvidias_hooks_libraries_have_all_their_names() {
    let machine = golden_machine();
    specs(machine.path(), &["--cdi-disable-hooks=all"]).write(&golden_inventory(), &[], &[]).unwrap();
    let spec = read(machine.path(), "gpu");
    assert!(!spec.to_string().contains("hooks"));
    let mounts = spec["containerEdits"]["mounts"].as_array().unwrap();
    let source = |path: &str| {
        let path = format!("/usr/lib/x86_64-linux-gnu/{path}");
        let found = mounts.iter().find(|mount| mount["containerPath"] == *path)?;
        found["hostPath"].as_str()?.rsplit_once('/').map(|(_, name)| name)
    };
    for link in ["libcuda.so.570.86.15", "libcuda.so.1", "libcuda.so"] {
        assert_eq!(source(link), Some("libcuda.so.570.86.15"), "{link}");
    }
    assert_eq!(source("libnvidia-egl-gbm.so.1"), Some("libnvidia-egl-gbm.so.1.1.2"));
    assert_eq!(source("libGLX_indirect.so.0"), Some("libGLX_nvidia.so.570.86.15"));
}

#[test]
fn some_hooks_can_be_left_out() {
    let machine = golden_machine();
    let flags = [
        "--cdi-disable-hooks=enable-cuda-compat,update-ldcache",
        "--nvidia-cdi-hook-path=/opt/nvidia-cdi-hook",
    ];
    specs(machine.path(), &flags).write(&golden_inventory(), &[], &[]).unwrap();
    let spec = read(machine.path(), "gpu");
    let hooks = spec["containerEdits"]["hooks"].as_array().unwrap();
    let names: Vec<_> = hooks.iter().map(|hook| hook["args"][1].as_str().unwrap()).collect();
    let want = [
        "create-symlinks",
        "create-symlinks",
        "disable-device-node-modification",
        "update-application-profile",
    ];
    assert_eq!(names, want, "nvidia-cdi-hook has them at the top");
    assert_eq!(hooks[0]["path"], "/opt/nvidia-cdi-hook");
}

#[test]
fn feature_flags_do_what_nvidias_do() {
    let machine = golden_machine();
    fs::write(machine.path().join("usr/lib/x86_64-linux-gnu/libGL.so"), "").unwrap();
    let write = |flags: &[&str]| {
        specs(machine.path(), flags).write(&golden_inventory(), &[], &[]).unwrap();
        read(machine.path(), "gpu").to_string()
    };
    let plain = write(&[]);
    assert!(plain.contains("additionalGids") && plain.contains("nvidia-persistenced/socket"));
    assert!(!plain.contains("libGL.so"));
    let flags = "--cdi-feature-flags=no-additional-gids-for-device-nodes,disable-ipc-discoverer,enable-explicit-driver-libraries";
    let other = write(&[flags]);
    assert!(!other.contains("additionalGids") && !other.contains("nvidia-persistenced/socket"));
    assert!(other.contains("libGL.so") && other.contains(r#""cdiVersion":"0.5.0""#));
}

#[test]
fn a_machine_without_a_driver_gets_device_nodes_alone() {
    let machine = tempfile::tempdir().unwrap();
    fs::create_dir_all(machine.path().join("dev")).unwrap();
    let gpus = vec![gpu(0, "whole")];
    let inventory =
        Inventory::build(&Reading { gpus, ..Reading::default() }, &rules(MigStrategy::None, "")).unwrap();
    let found = specs(machine.path(), &EVERYTHING).write(&inventory, &[], &[]).unwrap();
    assert_eq!(found, BTreeSet::new(), "no extra has a device here");
    let spec = read(machine.path(), "gpu");
    let node = &spec["devices"][0]["containerEdits"]["deviceNodes"][0];
    assert_eq!(node.to_string(), r#"{"hostPath":"/run/nvidia/driver/dev/nvidia0","path":"/dev/nvidia0"}"#);
    assert_eq!(spec["containerEdits"]["mounts"], Value::Null);
}

#[test]
fn nothing_is_written_twice_and_what_is_gone_is_removed() {
    let machine = golden_machine();
    let path = machine.path().join("cdi/k8s.device-plugin.nvidia.com-gpu.json");
    let modified = || fs::metadata(&path).unwrap().modified().unwrap();
    specs(machine.path(), &["--gds-enabled"]).write(&golden_inventory(), &[], &[0]).unwrap();
    let before = modified();
    specs(machine.path(), &[]).write(&golden_inventory(), &[], &[]).unwrap();
    assert_eq!(modified(), before);
    let files = |folder: &Path| {
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name()).collect::<Vec<_>>()
    };
    assert_eq!(files(&machine.path().join("cdi")), ["k8s.device-plugin.nvidia.com-gpu.json"]);
    let none = Inventory::build(&Reading::default(), &rules(MigStrategy::None, "")).unwrap();
    specs(machine.path(), &[]).write(&none, &[], &[]).unwrap();
    assert!(files(&machine.path().join("cdi")).is_empty(), "a spec without devices would be refused");
}

#[test]
fn a_link_that_lies_in_the_way_is_not_written_through() {
    let machine = golden_machine();
    let target = machine.path().join("precious");
    fs::write(&target, "keep").unwrap();
    fs::create_dir_all(machine.path().join("cdi")).unwrap();
    symlink(&target, machine.path().join("cdi/.k8s.device-plugin.nvidia.com-gpu.new")).unwrap();
    specs(machine.path(), &[]).write(&golden_inventory(), &[], &[]).unwrap();
    assert_eq!(fs::read_to_string(target).unwrap(), "keep");
    assert_eq!(read(machine.path(), "gpu")["kind"], "k8s.device-plugin.nvidia.com/gpu");
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_the_cure() {
    let machine = golden_machine();
    let mut specs = specs(machine.path(), &[]);
    let mut refused = |folder: &Path| {
        specs.cdi.folder = folder.to_owned();
        specs.write(&golden_inventory(), &[], &[]).unwrap_err()
    };
    // On a full file system, and on one that takes no files: what every Linux has of them.
    let error = refused(Path::new("/proc/cdi"));
    assert!(error.to_string().starts_with("cannot write /proc/cdi"), "{error}");
    let file = machine.path().join("usr/bin/nvidia-smi");
    assert!(refused(&file).to_string().starts_with(&format!("cannot write {}", file.display())));
    for (kind, want) in [
        (io::ErrorKind::StorageFull, "cannot write /x: its file system is full. Free some space"),
        (
            io::ErrorKind::ReadOnlyFilesystem,
            "cannot write /x: mount the host's CDI folder here, and writable, or correct --cdi-root (CDI_ROOT)",
        ),
        (io::ErrorKind::PermissionDenied, "cannot write /x: mount the host's CDI folder here, and writable"),
    ] {
        let error = CdiError::of(Path::new("/x"), kind.into()).to_string();
        assert!(error.starts_with(want), "{error}");
    }
}
