//! The command line tool: what a person breaks is broken for programs that run.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{on_node, text};
use nvml_simulator::CONFIG_ENV;
use nvml_simulator::description::{Description, GpuDescription};
use nvml_wrapper::error::NvmlError;

fn two_a100() -> Description {
    let a100 = || GpuDescription::new("a100-40gb");
    Description::new(vec![a100().with_mig(&["3g.20gb"]), a100()])
}

/// What the tool says when it is told that, on success and on failure.
fn told(description: &Path, words: &str) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_nvml-simulator"))
        .args(words.split(' '))
        .env(CONFIG_ENV, description)
        .output()
        .unwrap();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn what_is_broken_on_the_command_line_is_broken_for_programs_that_run() {
    let test = "what_is_broken_on_the_command_line_is_broken_for_programs_that_run";
    on_node(test, &two_a100(), |node| {
        let nvml = node.wrapper();
        let tell = |words: &str| told(&node.description, words).unwrap();
        let (mig, whole) = (nvml.device_by_index(0).unwrap(), nvml.device_by_index(1).unwrap());
        let uuid = whole.uuid().unwrap();
        tell(&format!("lose {uuid}"));
        assert!(matches!(whole.uuid(), Err(NvmlError::GpuLost)));
        tell("return 1");
        tell("utilization 1 75 30");
        assert_eq!(whole.utilization_rates().unwrap().gpu, 75);
        tell("process 1 4242 1024");
        tell("process 0 17 64 --instance 1/0");
        assert_eq!(whole.running_compute_processes().unwrap()[0].pid, 4242);
        assert_eq!(mig.running_compute_processes().unwrap()[0].gpu_instance_id, Some(1));
        tell("end 1 4242");
        assert_eq!(whole.running_compute_processes_count().unwrap(), 0);
        tell("xid 0 94 --instance 1/0");
        assert_eq!(node.outside().state().unwrap().event_count(), 1);

        tell("hang 1");
        std::thread::scope(|scope| {
            let hanging = scope.spawn(|| whole.uuid().unwrap());
            tell("release 1");
            assert_eq!(hanging.join().unwrap(), uuid);
        });
        let state = node.outside().state().unwrap();
        assert!(!state.gpus[1].hanging && !state.gpus[1].lost);
        assert!(tell("show").contains("\"gpuPercent\": 75"));
    });
}

#[test]
fn each_mistake_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.yaml");
    two_a100().write(&path).unwrap();
    for (words, want) in [
        ("lose 2", "nvml-simulator: there is no GPU 2\n"),
        ("process 0 1 64", "GPU 0: a process names its GPU and compute instance if MIG mode is on"),
        ("process 1 1 999999", "has 40960 MiB left"),
        ("end 1 7", "nvml-simulator: no process 7 runs on GPU 1\n"),
        ("utilization 1 101", "utilization in per cent is 101: the most is 100"),
        ("latency 60001", "the most is 60000"),
        ("xid 0 94 --instance one", "use GI or GI/CI, e.g. 1/0"),
    ] {
        let said = told(&path, words).unwrap_err();
        assert!(said.contains(want), "{words}: {said}");
    }
    let nowhere = told(Path::new("/nowhere/node.yaml"), "show").unwrap_err();
    assert!(nowhere.contains("cannot read the description /nowhere/node.yaml"), "{nowhere}");
}

#[test]
fn the_rest_of_the_faults_reach_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.yaml");
    two_a100().write(&path).unwrap();
    for words in [
        "ecc 1 --corrected 3 --uncorrected 1",
        "rows 1 --uncorrectable 2 --pending",
        "refuse 0 compute-instances --times 2 --code 4",
        "latency 250",
    ] {
        told(&path, words).unwrap();
    }
    let state = nvml_simulator::store::Store::open(&path).unwrap().state().unwrap();
    assert_eq!((state.gpus[1].ecc.volatile_corrected, state.gpus[1].ecc.aggregate_uncorrected), (3, 1));
    assert!(state.gpus[1].remapped_rows.pending && state.gpus[1].remapped_rows.uncorrectable == 2);
    assert_eq!((state.gpus[0].creation_faults[0].times, state.gpus[0].creation_faults[0].code), (2, 4));
    assert_eq!(state.latency.create_gpu_instance_ms, 250);
    told(&path, "reset 0").unwrap();
    let state = nvml_simulator::store::Store::open(&path).unwrap().state().unwrap();
    assert!(state.gpus[0].creation_faults.is_empty() && state.gpus[0].gpu_instances.is_empty());
}
