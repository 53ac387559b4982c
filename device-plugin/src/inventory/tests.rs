use super::*;
use crate::config::DeviceIdStrategy;
use crate::fixture::{gpu, inventory, rules};

/// Each resource with its device ids: `gpu: GPU-0 GPU-1; mig-1g.5gb: MIG-2-0`.
#[track_caller]
fn check(gpus: &[&str], strategy: MigStrategy, sharing: &str, want: &str) {
    let got = match inventory(gpus, strategy, sharing) {
        Err(error) => error.to_string(),
        Ok(inventory) => {
            let line = |(resource, devices): (&ResourceName, &Vec<ListedDevice>)| {
                let ids: Vec<&str> = devices.iter().map(|device| device.id.as_str()).collect();
                format!("{}: {}", resource.short(), ids.join(" "))
            };
            inventory.devices().iter().map(line).collect::<Vec<_>>().join("; ")
        }
    };
    assert_eq!(got, want);
}

use MigStrategy::{Mixed, None as NoMig, Single};

#[test]
fn without_a_strategy_every_gpu_is_whole_whatever_its_mig_mode() {
    check(&["whole", "empty", "1g.5gb@0"], NoMig, "", "gpu: GPU-0 GPU-1 GPU-2");
}

#[test]
fn mixed_offers_whole_gpus_and_slices_side_by_side() {
    check(
        &["whole", "1g.5gb@0 3g.20gb@4", "1g.5gb@6 1g.5gb+me@0"],
        Mixed,
        "",
        "gpu: GPU-0; mig-1g.5gb: MIG-1-0 MIG-2-0; mig-1g.5gb.me: MIG-2-1; mig-3g.20gb: MIG-1-1",
    );
}

#[test]
fn a_gpu_in_mig_mode_without_instances_is_no_error_for_mixed_and_offers_nothing() {
    check(&["empty", "whole"], Mixed, "", "gpu: GPU-1");
    check(&["empty"], Mixed, "", "");
    assert_eq!(inventory(&["empty"], Mixed, "").unwrap().gpus().len(), 1, "it is still listed");
}

#[test]
fn a_compute_instance_that_leaves_part_of_its_gpu_instance_is_passed_over_with_a_remark() {
    check(&["1c.3g.20gb@4 1g.5gb@0"], Mixed, "", "mig-1g.5gb: MIG-0-1");
    let remarks = inventory(&["1c.3g.20gb@4"], Mixed, "").unwrap().remarks().to_vec();
    assert_eq!(
        remarks,
        ["MIG-0-0 is not offered: its compute instance takes only part of a 3g.20gb instance"]
    );
}

#[test]
fn single_calls_every_slice_a_gpu() {
    check(&["1g.5gb@0 1g.5gb@1", "1g.5gb@6"], Single, "", "gpu: MIG-0-0 MIG-0-1 MIG-1-0");
    check(&["whole", "whole"], Single, "", "gpu: GPU-0 GPU-1");
}

#[test]
fn single_says_why_it_cannot_be() {
    for (gpus, want) in [
        (&["whole", "1g.5gb@0"][..], "GPU 1 is, GPU 0 is not. Use mixed, or switch MIG mode"),
        (&["1g.5gb@0", "empty"], "GPU 1 has none. Create them, or use mixed"),
        (&["1g.5gb@0", "2g.10gb@0"], "there are 1g.5gb and 2g.10gb. Use mixed, or cut all GPUs alike"),
        (&["1c.3g.20gb@0"], "MIG-0-0 does not. Use mixed, which leaves it out, or cut it anew"),
    ] {
        let error = inventory(gpus, Single, "").unwrap_err().to_string();
        assert!(error.starts_with("migStrategy is single") && error.ends_with(want), "{error}");
    }
}

#[test]
fn shares_have_nvidias_ids_and_names() {
    check(&["whole"], NoMig, "keep gpu=2", "gpu: GPU-0::0 GPU-0::1");
    check(&["whole"], NoMig, "rename gpu=2", "gpu.shared: GPU-0::0 GPU-0::1");
    check(
        &["1g.5gb@0 3g.20gb@4", "whole"],
        Mixed,
        "rename mig-1g.5gb=2",
        "gpu: GPU-1; mig-1g.5gb.shared: MIG-0-0::0 MIG-0-0::1; mig-3g.20gb: MIG-0-1",
    );
    check(&["1g.5gb@0"], Single, "rename gpu=2", "gpu.shared: MIG-0-0::0 MIG-0-0::1");
}

#[test]
fn sharing_that_matches_nothing_is_remarked() {
    let remarks = inventory(&["whole"], NoMig, "rename mig-1g.5gb=2 gpu=2").unwrap().remarks().to_vec();
    assert_eq!(remarks, ["nvidia.com/mig-1g.5gb is to be shared, and this node has none of it"]);
}

#[test]
fn a_gpu_that_cannot_be_read_is_left_out_and_remarked() {
    let reading = Reading {
        gpus: vec![gpu(0, "whole")],
        unreadable: vec![(1, "GPU is lost".into())],
        ..Reading::default()
    };
    let inventory = Inventory::build(&reading, &rules(NoMig, "")).unwrap();
    assert_eq!(inventory.gpus().len(), 1);
    assert_eq!(inventory.remarks(), ["GPU 1 cannot be read, and is not offered: GPU is lost"]);
}

#[test]
fn devices_carry_the_numa_node_of_their_gpu_and_geometry_is_told_once_a_model() {
    let inventory = inventory(&["1g.5gb@0"; 5], Mixed, "").unwrap();
    let nodes: Vec<_> = inventory.devices().values().flatten().map(|device| device.numa_node).collect();
    assert_eq!(nodes, [Some(0), Some(0), Some(0), Some(0), Some(1)]);
    assert_eq!(inventory.geometries().len(), 1);
    let slices: Vec<u8> = inventory.geometries().iter().map(|g| g.memory_slices).collect();
    assert_eq!(slices, [8]);
}

/// What a container is told: its environment, then the device nodes.
#[track_caller]
fn told(ids: &[&str], resource: &str, rules: &AnswerRules, want: &str) {
    let gpus = &["whole", "whole", "1g.5gb@0 3g.20gb@4"];
    let inventory = inventory(gpus, Mixed, "rename gpu=3").unwrap();
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    let got = match allocate_response(&inventory, &resource.parse().unwrap(), &ids, rules) {
        Err(error) => error.to_string(),
        Ok(response) => {
            let envs = response.envs.iter().map(|(name, value)| format!("{name}={value}"));
            let nodes = response
                .devices
                .iter()
                .map(|d| format!("{}:{}:{}", d.host_path, d.container_path, d.permissions));
            envs.chain(nodes).collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(got, want);
}

const BY_UUID: AnswerRules = AnswerRules { device_id_strategy: DeviceIdStrategy::Uuid, device_specs: None };

#[test]
fn visible_devices_are_told_once_each_in_the_order_of_the_request() {
    told(
        &["GPU-1::2", "GPU-0::0", "GPU-1::0"],
        "nvidia.com/gpu.shared",
        &BY_UUID,
        "NVIDIA_VISIBLE_DEVICES=GPU-1,GPU-0",
    );
    let by_index = AnswerRules { device_id_strategy: DeviceIdStrategy::Index, ..BY_UUID };
    told(&["GPU-1::2", "GPU-0::0"], "nvidia.com/gpu.shared", &by_index, "NVIDIA_VISIBLE_DEVICES=1,0");
    told(&["MIG-2-1"], "nvidia.com/mig-3g.20gb", &by_index, "NVIDIA_VISIBLE_DEVICES=2:1");
    told(&[], "nvidia.com/gpu.shared", &BY_UUID, "NVIDIA_VISIBLE_DEVICES=");
}

#[test]
fn a_device_that_was_never_offered_is_an_error_that_names_it() {
    for (id, resource) in [
        ("GPU-9::0", "nvidia.com/gpu.shared"),
        ("GPU-0::3", "nvidia.com/gpu.shared"),
        ("GPU-0", "nvidia.com/gpu.shared"),
        ("MIG-2-1", "nvidia.com/mig-1g.5gb"),
        ("", "nvidia.com/gpu.shared"),
        ("../../etc", "nvidia.com/gpu.shared"),
    ] {
        let want = format!(
            "{resource} has no device {id:?} on this node: the kubelet's list is out of date, or the request is not the kubelet's"
        );
        told(&[id], resource, &BY_UUID, &want);
    }
}

#[test]
fn device_nodes_are_the_gpus_own_the_instances_and_the_control_nodes_that_exist() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("dev")).unwrap();
    std::fs::write(folder.path().join("dev/nvidiactl"), "").unwrap();
    let caps = folder.path().join("driver/nvidia-caps");
    std::fs::create_dir_all(&caps).unwrap();
    std::fs::write(
        caps.join("mig-minors"),
        "config 1\nmonitor 2\ngpu2/gi8/access 21\ngpu2/gi8/ci0/access 22\n",
    )
    .unwrap();
    let device_specs = Some(DeviceSpecRules {
        dev_root: "/run/nvidia/driver".into(),
        seen_at: vec![folder.path().into()],
        mig_minors: MigMinors::read(folder.path()).unwrap(),
    });
    let rules = AnswerRules { device_specs, ..BY_UUID };
    let node = |path: &str| format!("/run/nvidia/driver/dev/{path}:/dev/{path}:rw");
    let want = |env: &str, nodes: &[&str]| {
        let nodes: Vec<String> = nodes.iter().map(|path| node(path)).collect();
        format!("NVIDIA_VISIBLE_DEVICES={env} {}", nodes.join(" "))
    };
    told(
        &["GPU-1::0", "GPU-1::1"],
        "nvidia.com/gpu.shared",
        &rules,
        &want("GPU-1", &["nvidiactl", "nvidia1"]),
    );
    let slice = ["nvidiactl", "nvidia2", "nvidia-caps/nvidia-cap21", "nvidia-caps/nvidia-cap22"];
    told(&["MIG-2-1"], "nvidia.com/mig-3g.20gb", &rules, &want("MIG-2-1", &slice));
}

#[test]
fn missing_capability_nodes_say_what_to_do() {
    let error = MigMinors::read(std::path::Path::new("/does/not/exist")).unwrap_err().to_string();
    assert!(error.contains("/does/not/exist/driver/nvidia-caps/mig-minors"), "{error}");
    assert!(error.contains("set passDeviceSpecs to false"), "{error}");
}
