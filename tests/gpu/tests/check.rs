//! The check itself, where there is no GPU: beside the simulator and a stand-in for `nvidia-smi` that prints files in
//! the shape of the real one's, it passes where they agree, and fails where any one value differs.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use nvml_simulator::state::{Process, RemappedRows, Utilization};
use nvml_simulator::store::Store;
use tempfile::TempDir;

const NODE: &str = include_str!("h200/node.yaml");
const QUERY: &str = include_str!("h200/query.xml");
const COMPUTE_CAP: &str = include_str!("h200/compute_cap.csv");
const TOPOLOGY: &str = include_str!("h200/topology.txt");

/// Prints what lies beside it.
const NVIDIA_SMI: &str = r#"#!/bin/sh
here=$(dirname "$0")
case "$1" in
    -q) cat "$here/query.xml" ;;
    --query-gpu=*) cat "$here/compute_cap.csv" ;;
    topo) cat "$here/topology.txt" ;;
    *) exit 1 ;;
esac
"#;

/// Two H200: one works and has seen errors, the other is cut and has a row to remap.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for (name, text) in [
            ("node.yaml", NODE),
            ("query.xml", QUERY),
            ("compute_cap.csv", COMPUTE_CAP),
            ("topology.txt", TOPOLOGY),
        ] {
            machine.write(name, text);
        }
        machine.write("nvidia-smi", NVIDIA_SMI);
        std::fs::set_permissions(machine.path("nvidia-smi"), PermissionsExt::from_mode(0o755)).unwrap();
        let library = nvml_simulator::library_near(&std::env::current_exe().unwrap());
        std::fs::create_dir_all(machine.path("usr/lib64")).unwrap();
        symlink(library.expect("cargo builds it first"), machine.path("usr/lib64/libnvidia-ml.so.1"))
            .unwrap();
        let done = Store::open(&machine.path("node.yaml")).unwrap().update(|node| {
            node.set_utilization(0, Utilization { gpu_percent: 73, memory_percent: 36 })?;
            node.start_process(0, Process { pid: 4242, memory_mib: 20_480, instance: None })?;
            node.add_ecc_errors(0, 0, 3)?;
            node.set_remapped_rows(
                1,
                RemappedRows { uncorrectable: 1, pending: true, ..RemappedRows::default() },
            )
        });
        done.unwrap();
        machine
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn check(&self) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stowage-gpu-check"));
        command.env(nvml_simulator::CONFIG_ENV, self.path("node.yaml"));
        command.arg("--driver-root").arg(self.0.path()).arg("--nvidia-smi").arg(self.path("nvidia-smi"));
        told(&command.output().unwrap())
    }
}

fn told(output: &Output) -> (bool, String) {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (output.status.success(), text.concat())
}

#[test]
fn what_agrees_in_every_field_passes() {
    let (passed, told) = Machine::new().check();
    assert!(passed, "{told}");
    assert!(told.contains(" 0 differ, 0 are not told"), "{told}");
    for row in [
        "GPU 1, health: ill (a damaged memory row waits",
        "GPU 0, memory used (MiB): 20480",
        "GPU 1, MIG 1/0, ",
    ] {
        assert!(told.contains(row), "{row} is not in\n{told}");
    }
}

/// Each value of the files is another one in turn; the check must name exactly what it belongs to.
#[test]
fn any_one_value_that_differs_fails_the_check_and_is_named() {
    let machine = Machine::new();
    for (file, now, other, named) in [
        ("query.xml", "<driver_version>570.86.15", "<driver_version>570.86.16", "the node, driver version"),
        ("query.xml", "<cuda_version>12.8", "<cuda_version>12.9", "the node, CUDA version"),
        ("query.xml", "<attached_gpus>2", "<attached_gpus>3", "the node, GPUs"),
        ("query.xml", "<uuid>GPU-2c4f", "<uuid>GPU-2c40", "the node, UUIDs"),
        ("query.xml", "<product_name>NVIDIA H200<", "<product_name>NVIDIA H100<", "GPU 0, name"),
        ("query.xml", "gpu id=\"00000000:04:00.0\"", "gpu id=\"00000000:05:00.0\"", "GPU 0, PCI bus id"),
        ("query.xml", "<minor_number>1", "<minor_number>2", "GPU 1, minor number"),
        ("query.xml", "<total>143771 MiB", "<total>143700 MiB", "GPU 0, memory (MiB)"),
        ("query.xml", "<used>20480 MiB", "<used>10480 MiB", "GPU 0, memory used (MiB)"),
        ("query.xml", "<free>123291 MiB", "<free>103291 MiB", "GPU 0, memory free (MiB)"),
        ("query.xml", "<gpu_util>73 %", "<gpu_util>0 %", "GPU 0, utilization (%)"),
        ("query.xml", "<memory_util>N/A", "<memory_util>5 %", "GPU 1, memory utilization (%)"),
        ("query.xml", "<dram_uncorrectable>2", "<dram_uncorrectable>1", "GPU 0, uncorrected memory errors"),
        ("query.xml", "row_pending>Yes<", "row_pending>No<", "GPU 1, row remap pending"),
        ("query.xml", "row_pending>Yes<", "row_pending>No<", "GPU 1, health"),
        ("query.xml", "row_failure>No<", "row_failure>Yes<", "GPU 0, row remap failed"),
        ("query.xml", "recovery_action>None", "recovery_action>Reset", "GPU 0, recovery action"),
        ("query.xml", "recovery_action>None", "recovery_action>Reset", "GPU 0, health"),
        ("query.xml", "<cliqueId>7", "<cliqueId>8", "GPU 0, NVLink fabric"),
        ("query.xml", "<current_mig>Enabled", "<current_mig>Disabled", "GPU 1, MIG mode"),
        ("query.xml", "<gpu_instance_id>2", "<gpu_instance_id>3", "GPU 1, MIG 2/0, existence"),
        ("query.xml", "<index>1", "<index>4", "GPU 1, MIG 2/0, index"),
        ("query.xml", "<total>71168 MiB", "<total>71000 MiB", "GPU 1, MIG 1/0, memory (MiB)"),
        ("query.xml", "<free>16384 MiB", "<free>16000 MiB", "GPU 1, MIG 2/0, memory free (MiB)"),
        ("query.xml", "processor_count>60", "processor_count>46", "GPU 1, MIG 1/0, multiprocessor_count"),
        ("query.xml", "engine_count>3", "engine_count>4", "GPU 1, MIG 1/0, copy_engine_count"),
        ("compute_cap.csv", "9.0", "8.9", "GPU 0, compute capability"),
        ("compute_cap.csv", "9.0", "8.9", "the node, label nvidia.com/gpu.compute.major"),
        ("topology.txt", "NV18", "PIX", "the node, path of GPU 0 to 1"),
        (
            "query.xml",
            "<driver_version>570.86.15",
            "<driver_version>570.86.16",
            "label nvidia.com/cuda.driver-version.full",
        ),
    ] {
        let right = std::fs::read_to_string(machine.path(file)).unwrap();
        assert!(right.contains(now), "{file} has no {now}");
        machine.write(file, &right.replacen(now, other, 1));
        let (passed, told) = machine.check();
        machine.write(file, &right);
        let named_it =
            told.lines().any(|line| line.contains("DIFFERS") && line.contains(&format!("{named}:")));
        assert!(!passed && named_it, "{now} as {other} does not fail {named}:\n{told}");
    }
    assert!(machine.check().0, "all is as it was");
}

#[test]
fn a_gpu_that_is_lost_fails_the_check() {
    let machine = Machine::new();
    Store::open(&machine.path("node.yaml")).unwrap().update(|node| node.set_lost(1, true)).unwrap();
    let (passed, told) = machine.check();
    assert!(!passed && told.contains("GPU 1: "), "{told}");
}

#[test]
fn without_a_gpu_it_is_skipped_and_says_so_unless_one_is_required() {
    let run = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stowage-gpu-check"));
        command.args(["--nvidia-smi", "/nowhere/nvidia-smi"]).args(flags);
        told(&command.output().unwrap())
    };
    let (passed, told) = run(&[]);
    assert!(passed && told.starts_with("skipped: there is no working nvidia-smi here"), "{told}");
    let (passed, told) = run(&["--require-gpu"]);
    assert!(!passed && told.contains("/nowhere/nvidia-smi"), "{told}");
    assert!(!Path::new("/nowhere").exists());
}
