//! What the simulated driver of the program's own tests cannot show.

use super::*;
use crate::config::MigStrategy;
use crate::nvml::{Fabric, MigAttributes};
use stowage_shared::units::MemoryMib;

fn gpu(model: &str) -> GpuFacts {
    GpuFacts {
        model: model.into(),
        memory: MemoryMib(81_920),
        compute_capability: (9, 0),
        pci_class: Some(0x0302),
        fabric: None,
        mig_enabled: Some(false),
        mig_devices: vec![],
    }
}

fn cut(model: &str, devices: &[&str]) -> GpuFacts {
    let attributes = MigAttributes {
        memory_mib: 9_984,
        multiprocessors: 16,
        gpu_instance_slices: 1,
        compute_instance_slices: 1,
        copy_engines: 1,
        decoders: 1,
        encoders: 0,
        jpeg_engines: 1,
        ofa_engines: 0,
    };
    let devices = devices.iter().map(|name| MigFacts { name: (*name).into(), attributes });
    GpuFacts { mig_enabled: Some(true), mig_devices: devices.collect(), ..gpu(model) }
}

const NONE: Rules = Rules { mig_strategy: MigStrategy::None, sharing: None, timestamp: None };
const SINGLE: Rules = Rules { mig_strategy: MigStrategy::Single, ..NONE };
const MIXED: Rules = Rules { mig_strategy: MigStrategy::Mixed, ..NONE };

fn shared(mig_strategy: MigStrategy, mps: bool, renamed: bool) -> Rules {
    let resources = [("nvidia.com/gpu".parse().unwrap(), Shares { replicas: 4, renamed })].into();
    Rules { mig_strategy, sharing: Some(SharingRules { mps, resources }), timestamp: None }
}

fn facts(gpus: Vec<GpuFacts>) -> Facts {
    Facts { driver_version: "550.54".into(), cuda_version: (12, 4), gpus, ..Facts::default() }
}

/// Checks the values of these labels; `-` for one that is not there.
#[track_caller]
fn check(facts: &Facts, rules: &Rules, expect: &[(&str, &str)]) {
    let labels = labels(facts, rules);
    for (key, value) in expect {
        let found = labels.get(&format!("nvidia.com/{key}")).map_or("-", String::as_str);
        assert_eq!(found, *value, "{key} in {labels:#?}");
    }
}

#[test]
fn families_follow_the_compute_capability() {
    for (capability, family) in [
        ((3, 7), "kepler"),
        ((7, 0), "volta"),
        ((7, 5), "turing"),
        ((8, 6), "ampere"),
        ((8, 9), "ada-lovelace"),
        ((9, 0), "hopper"),
        ((10, 0), "blackwell"),
        ((12, 0), "blackwell"),
        ((13, 0), "rubin"),
        ((11, 0), "undefined"),
        ((0, 0), "-"),
    ] {
        let gpus = vec![GpuFacts { compute_capability: capability, ..gpu("X") }];
        check(&facts(gpus), &NONE, &[("gpu.family", family)]);
    }
}

#[test]
fn the_mode_is_the_one_class_of_all_gpus() {
    for (classes, mode) in [
        (&[Some(0x0302), Some(0x0302)][..], "compute"),
        (&[Some(0x0300)], "graphics"),
        (&[Some(0x0300), Some(0x0302)], "unknown"),
        (&[Some(0x0302), None], "unknown"),
        (&[Some(0x0680)], "unknown"),
    ] {
        let gpus = classes.iter().map(|class| GpuFacts { pci_class: *class, ..gpu("X") }).collect();
        check(&facts(gpus), &NONE, &[("gpu.mode", mode)]);
    }
}

#[test]
fn a_clique_is_named_where_all_members_are_in_it() {
    let member = |clique| GpuFacts {
        fabric: Some(Fabric { cluster: std::array::from_fn(|n| n as u8), clique }),
        ..gpu("NVIDIA GB200")
    };
    let clique = "00010203-0405-0607-0809-0a0b0c0d0e0f.32766";
    check(&facts(vec![member(32_766), member(32_766)]), &NONE, &[("gpu.clique", clique)]);
    check(&facts(vec![member(32_766), gpu("X")]), &NONE, &[("gpu.clique", clique)]);
    check(&facts(vec![member(1), member(2)]), &NONE, &[("gpu.clique", "-")]);
    check(&facts(vec![gpu("X")]), &NONE, &[("gpu.clique", "-")]);
}

#[test]
fn virtual_gpus_name_their_host() {
    let host = VgpuHost { driver_version: "460.16".into(), driver_branch: "r460_00".into() };
    let with = Facts { vgpus: Some(vec![host]), ..facts(vec![gpu("GRID T4-1Q")]) };
    let expect = [
        ("vgpu.present", "true"),
        ("vgpu.host-driver-version", "460.16"),
        ("vgpu.host-driver-branch", "r460_00"),
    ];
    check(&with, &NONE, &expect);
    check(&facts(vec![]), &NONE, &[("vgpu.present", "-")]);
}

#[test]
fn a_driver_version_may_have_two_parts_and_another_is_left_out() {
    check(
        &facts(vec![gpu("X")]),
        &NONE,
        &[
            ("cuda.driver-version.full", "550.54"),
            ("cuda.driver-version.revision", ""),
            ("cuda.driver.rev", ""),
        ],
    );
    let odd = Facts { driver_version: "nightly".into(), ..facts(vec![gpu("X")]) };
    check(&odd, &NONE, &[("cuda.driver-version.full", "-"), ("cuda.runtime-version.full", "12.4")]);
}

#[test]
fn the_single_strategy_says_where_slices_are_not_alike() {
    let invalid = [
        ("gpu.product", "NVIDIA-H100-MIG-INVALID"),
        ("gpu.count", "0"),
        ("gpu.replicas", "0"),
        ("gpu.sharing-strategy", ""),
        ("gpu.memory", "0"),
        ("gpu.slices.gi", "-"),
    ];
    let h100 = "NVIDIA H100";
    for gpus in [
        vec![cut(h100, &["1g.10gb", "2g.20gb"])],
        vec![cut(h100, &["1g.10gb"]), cut(h100, &[])],
        vec![cut(h100, &["1g.10gb"]), gpu(h100)],
    ] {
        check(&facts(gpus), &SINGLE, &invalid);
    }
    let alike = facts(vec![cut(h100, &["1g.10gb"; 7]), cut(h100, &["1g.10gb"; 7])]);
    check(&alike, &SINGLE, &[("gpu.product", "NVIDIA-H100-MIG-1g.10gb"), ("gpu.count", "14")]);
    let whole = facts(vec![gpu(h100)]);
    check(&whole, &SINGLE, &[("gpu.product", "NVIDIA-H100"), ("mig.strategy", "single")]);
}

#[test]
fn gpus_in_mig_mode_tell_nothing_of_sharing() {
    let all_cut = facts(vec![cut("X", &["1g.10gb"])]);
    let rules = shared(MigStrategy::Mixed, false, false);
    check(&all_cut, &rules, &[("gpu.replicas", "0"), ("gpu.sharing-strategy", "none"), ("gpu.product", "X")]);
    let one_whole = facts(vec![cut("X", &[]), gpu("X")]);
    check(&one_whole, &rules, &[("gpu.replicas", "4"), ("gpu.count", "2"), ("gpu.product", "X-SHARED")]);
}

#[test]
fn mps_wants_gpus_outside_of_mig_mode() {
    let rules = shared(MigStrategy::None, true, false);
    check(&facts(vec![gpu("X")]), &rules, &[("mps.capable", "true"), ("gpu.sharing-strategy", "mps")]);
    check(&facts(vec![cut("X", &[])]), &rules, &[("mps.capable", "false")]);
}

#[test]
fn slices_of_odd_names_keep_them() {
    let gpus = vec![cut("X", &["1g.24gb.me.all", "1c.3g.20gb", "1c.3g.20gb"])];
    let expect = [("mig-1g.24gb.me.all.count", "1"), ("mig-1c.3g.20gb.count", "2")];
    check(&facts(gpus), &MIXED, &expect);
}

#[test]
fn two_models_give_the_labels_of_one_of_them_whatever_their_order() {
    let (a, b) = (gpu("NVIDIA A"), gpu("NVIDIA B"));
    let expect = [("gpu.product", "NVIDIA-B"), ("gpu.count", "1")];
    check(&facts(vec![a.clone(), b.clone()]), &NONE, &expect);
    check(&facts(vec![b, a]), &NONE, &expect);
}

#[test]
fn any_machine_name_becomes_a_value_that_kubernetes_takes() {
    for (machine, label) in [
        (Some("DGX  A100 \"9\" (x)"), "DGX-A100-9-x"),
        (Some("Standard PC (Q35 + ICH9, 2009)"), "Standard-PC-Q35-ICH9-2009"),
        (Some("To Be Filled By O.E.M."), "To-Be-Filled-By-O.E.M"),
        (Some("机器"), ""),
        (Some(&"x".repeat(100)), &"x".repeat(63)),
        (None, "unknown"),
    ] {
        let facts = Facts { machine: machine.map(str::to_owned), ..facts(vec![gpu("X")]) };
        check(&facts, &NONE, &[("gpu.machine", label)]);
    }
}
