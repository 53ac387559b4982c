use super::*;
use crate::config::{File, SharingStrategy};
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

/// As [`check`], with one whole A100 for each word and what a configuration file says.
#[track_caller]
fn check_file(gpus: &[&str], file: &str, want: &str, remarks: &[&str]) {
    let file = File::parse(file, "FILE").unwrap();
    let rules = OfferRules { names: file.names, sharing: file.sharing, ..rules(Mixed, "spread") };
    let gpus = (0..).zip(gpus).map(|(index, what)| gpu(index, what)).collect();
    let inventory = Inventory::build(&Reading { gpus, ..Reading::default() }, &rules).unwrap();
    let line = |(resource, devices): (&ResourceName, &Vec<ListedDevice>)| {
        let ids: Vec<&str> = devices.iter().map(|device| device.id.as_str()).collect();
        format!("{}: {}", resource.short(), ids.join(" "))
    };
    assert_eq!(inventory.devices().iter().map(line).collect::<Vec<_>>().join("; "), want);
    assert_eq!(inventory.remarks(), remarks);
}

#[test]
fn some_of_the_devices_can_be_shared() {
    let file = |devices: &str| {
        format!("sharing: {{timeSlicing: {{resources: [{{name: gpu, replicas: 2, devices: {devices}}}]}}}}")
    };
    let three = &["whole"; 3];
    let shared = "gpu: GPU-0::0 GPU-0::1 GPU-1 GPU-2::0 GPU-2::1";
    check_file(three, &file("[GPU-2, 0]"), shared, &[]);
    check_file(three, &file("1"), "gpu: GPU-0::0 GPU-0::1 GPU-1 GPU-2", &[]);
    check_file(
        &["whole"],
        &file("2"),
        "gpu: GPU-0::0 GPU-0::1",
        &["2 devices of nvidia.com/gpu are to be shared, and this node has 1"],
    );
    check_file(
        &["whole"],
        &file("['0:1', 0]"),
        "gpu: GPU-0::0 GPU-0::1",
        &["device 0:1 of nvidia.com/gpu is to be shared, and this node has none such"],
    );
}

#[test]
fn a_device_belongs_to_the_first_entry_that_names_it() {
    let file = "
sharing:
  timeSlicing:
    resources:
      - {name: gpu, replicas: 2, devices: [1], rename: twice}
      - {name: gpu, replicas: 3, devices: [0, 1], rename: thrice}
";
    check_file(
        &["whole"; 3],
        file,
        "gpu: GPU-2; thrice: GPU-0::0 GPU-0::1 GPU-0::2; twice: GPU-1::0 GPU-1::1",
        &[],
    );
}

#[test]
fn resources_have_the_names_that_the_file_gives() {
    let file = "
resources: {gpus: [{pattern: '*A100*', name: a100}], mig: [{pattern: '1g.*', name: small}]}
sharing: {timeSlicing: {renameByDefault: true, resources: [{name: small, replicas: 2}]}}
";
    check_file(
        &["whole", "1g.5gb@0 3g.20gb@4"],
        file,
        "a100: GPU-0; mig-3g.20gb: MIG-1-1; small.shared: MIG-1-0::0 MIG-1-0::1",
        &[],
    );
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

/// NVIDIA's plugin refuses it as well.
#[test]
fn mig_devices_are_not_shared_by_mps() {
    let mut rules = rules(Single, "gpu=2");
    rules.sharing.as_mut().unwrap().strategy = SharingStrategy::Mps;
    let of = |what: &str| Reading { gpus: vec![gpu(0, what)], ..Reading::default() };
    assert_eq!(
        Inventory::build(&of("3g.20gb@0 3g.20gb@4"), &rules),
        Err(OfferError::MpsOnMig("MIG-0-0".into()))
    );
    assert!(Inventory::build(&of("whole"), &rules).is_ok());
}
