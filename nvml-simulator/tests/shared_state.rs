//! One state for all processes of a node: restarts, several writers, edited files.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{child, is_child, on_node, state_file, text};
use nvml_simulator::description::{Description, GpuDescription};
use nvml_simulator::state::{Node, Refusal};
use nvml_simulator::store::{STATE_MAX_BYTES, Store, StoreError, UpdateError};
use nvml_simulator::{CONFIG_ENV, STATE_ENV};
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

fn mig_node() -> Description {
    Description::new(vec![GpuDescription::new("a100-40gb").with_mig(&[]).times(2)])
}

fn write(folder: &Path, description: &Description) -> std::path::PathBuf {
    let path = folder.join("node.yaml");
    description.write(&path).unwrap();
    path
}

fn nvml() -> Nvml {
    Nvml::builder().lib_path(common::library().as_os_str()).init().unwrap()
}

/// A GPU instance filled by one compute instance.
fn build(node: &mut Node<'_>, gpu: u32, profile_id: u32, slices: u8) -> Result<(), Refusal> {
    let instance = node.create_gpu_instance(gpu, profile_id, None)?;
    node.create_compute_instance(gpu, instance, slices, None).map(|_| ())
}

#[test]
fn a_restarted_process_sees_what_the_last_one_built() {
    let test = "a_restarted_process_sees_what_the_last_one_built";
    if is_child(test) {
        let nvml = nvml();
        let gpu = nvml.device_by_index(1).unwrap();
        if let Ok(mig) = gpu.mig_device_by_index(0) {
            println!("found {}", mig.uuid().unwrap());
        } else {
            Store::open(Path::new(&std::env::var_os(CONFIG_ENV).unwrap()))
                .unwrap()
                .update(|node| build(node, 1, 9, 3))
                .unwrap();
            println!("built {}", gpu.mig_device_by_index(0).unwrap().uuid().unwrap());
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &mig_node());
    let run = || {
        let output = child(test, |command| command.env(CONFIG_ENV, &path));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        let line = said.lines().find(|line| line.contains("MIG-")).unwrap();
        line.split_once("MIG-").map(|(said, uuid)| (said.contains("built"), uuid.to_owned())).unwrap()
    };
    let (built, first) = run();
    let (built_again, second) = run();
    assert!(built && !built_again);
    assert_eq!(first, second, "the same instance has the same UUID in every process");
}

#[test]
fn processes_that_write_at_once_lose_nothing() {
    let test = "processes_that_write_at_once_lose_nothing";
    const ROUNDS: u64 = 40;
    if is_child(test) {
        let path = std::env::var_os(CONFIG_ENV).unwrap();
        let mut store = Store::open(Path::new(&path)).unwrap();
        for round in 0..ROUNDS {
            store.update(|node| node.raise_xid(0, round, None)).unwrap();
            let built = store.update(|node| build(node, 0, 19, 1));
            assert!(matches!(built, Ok(()) | Err(UpdateError::Refused(Refusal::NoRoom))), "{built:?}");
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &mig_node());
    std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| child(test, |command| command.env(CONFIG_ENV, &path)))).collect();
        for writer in writers {
            let output = writer.join().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
    });
    let mut store = Store::open(&path).unwrap();
    let state = store.state().unwrap();
    let starts: Vec<u8> = state.gpus[0].gpu_instances.iter().map(|instance| instance.start).collect();
    assert_eq!(starts, [6, 4, 5, 0, 1, 2, 3]);
    assert_eq!(state.event_count(), 4 * ROUNDS);
}

#[test]
fn what_another_process_destroys_is_gone_at_once() {
    let description = Description::new(vec![GpuDescription::new("a30").with_mig(&["2g.12gb", "1g.6gb"])]);
    on_node("what_another_process_destroys_is_gone_at_once", &description, |node| {
        let nvml = node.wrapper();
        let gpu = nvml.device_by_index(0).unwrap();
        let (first, second) = (gpu.mig_device_by_index(0).unwrap(), gpu.mig_device_by_index(1).unwrap());
        let second_uuid = second.uuid().unwrap();
        node.outside()
            .update(|node| {
                node.destroy_compute_instance(0, 1, 0)?;
                node.destroy_gpu_instance(0, 1)
            })
            .unwrap();
        assert!(matches!(first.uuid(), Err(NvmlError::InvalidArg)));
        assert_eq!(second.uuid().unwrap(), second_uuid);
        assert_eq!(gpu.mig_device_by_index(0).unwrap().uuid().unwrap(), second_uuid);
        assert!(matches!(gpu.mig_device_by_index(1), Err(NvmlError::NotFound)));
    });
}

#[test]
fn a_refused_change_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&write(folder.path(), &mig_node())).unwrap();
    let before = store.state().unwrap();
    let refused = store.update(|node| {
        node.create_gpu_instance(0, 9, Some(4))?;
        node.create_gpu_instance(0, 0, None)
    });
    assert!(matches!(refused, Err(UpdateError::Refused(Refusal::NoRoom))));
    assert_eq!(store.state().unwrap(), before);
}

#[test]
fn a_new_comment_keeps_the_state_and_a_new_gpu_begins_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &mig_node());
    let mut running = Store::open(&path).unwrap();
    running.update(|node| build(node, 0, 9, 3)).unwrap();

    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("# eight A100 at home\n{text}")).unwrap();
    assert_eq!(Store::open(&path).unwrap().state().unwrap().gpus[0].gpu_instances.len(), 1);

    write(folder.path(), &Description::new(vec![GpuDescription::new("a100-40gb").with_mig(&[]).times(3)]));
    let state = Store::open(&path).unwrap().state().unwrap();
    assert_eq!(state.gpus.len(), 3);
    assert!(state.gpus[0].gpu_instances.is_empty());
    assert!(
        matches!(running.state(), Err(StoreError::OtherDescription(_))),
        "who runs on must initialize again"
    );
}

#[test]
fn a_damaged_state_file_is_refused_with_the_cure() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &mig_node());
    let state = state_file(&path);
    let mut store = Store::open(&path).unwrap();
    store.update(|node| build(node, 0, 9, 3)).unwrap();
    let good = std::fs::read_to_string(&state).unwrap();
    let damaged = [
        (String::new(), "EOF while parsing"),
        ("{}".to_owned(), "missing field `version`"),
        (good.replace("\"version\":3", "\"version\":2"), "its version is 2, this library writes 3"),
        (good.replace("\"profileId\":9", "\"profileId\":8"), "GPU 0 has an impossible MIG instance 1"),
        (good.replace("\"start\":4", "\"start\":255"), "GPU 0 has an impossible MIG instance 1"),
        (good.replace("\"slices\":3", "\"slices\":255"), "GPU 0 has an impossible MIG instance 1"),
        (" ".repeat(STATE_MAX_BYTES + 1), "it is larger than 1048576 bytes"),
    ];
    for (text, why) in damaged {
        assert_ne!(text, good);
        std::fs::write(&state, text).unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains(why) && error.ends_with("; delete it to start anew"), "{error}");
    }
    std::fs::remove_file(&state).unwrap();
    assert!(Store::open(&path).unwrap().state().unwrap().gpus[0].gpu_instances.is_empty());
}

#[test]
fn the_state_file_can_lie_elsewhere() {
    let test = "the_state_file_can_lie_elsewhere";
    if is_child(test) {
        assert_eq!(nvml().device_count().unwrap(), 2);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &mig_node());
    let elsewhere = folder.path().join("run/gpus.json");
    let run = || child(test, |command| command.env(CONFIG_ENV, &path).env(STATE_ENV, &elsewhere));
    let output = run();
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("cannot create ") && said.contains("run/gpus.json.lock: No such file"), "{said}");
    std::fs::create_dir(folder.path().join("run")).unwrap();
    assert!(run().status.success());
    assert!(elsewhere.is_file() && !state_file(&path).exists());
}
