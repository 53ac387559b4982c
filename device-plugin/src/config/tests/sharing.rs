//! How GPUs are divided into shares.

use super::*;

#[test]
fn mps_wins_over_time_slicing_and_refuses_more_than_one_share_unless_told_otherwise() {
    let file = |more: &str| {
        format!(
            "flags: {{mpsRoot: /run/nvidia/mps}}\nsharing:\n  timeSlicing: {{resources: [{{name: gpu, replicas: 9}}]}}\n  \
             mps: {{{more}resources: [{{name: gpu, replicas: 2}}]}}"
        )
    };
    for (more, want) in [("", true), ("failRequestsGreaterThanOne: false, ", false)] {
        let config = config(&[], &[], &file(more)).unwrap();
        let sharing = config.sharing.clone().unwrap();
        assert_eq!((sharing.strategy, sharing.resources[0].replicas), (SharingStrategy::Mps, 2));
        assert_eq!(sharing.fail_requests_greater_than_one, want);
        let folders = MpsConfig { host_root: "/run/nvidia/mps".into(), root: "/mps".into() };
        assert_eq!(config.mps_in_use(), Some(&folders));
    }
    let none = "flags: {mpsRoot: /run/nvidia/mps}\nsharing: {mps: {}, timeSlicing: {resources: [{name: gpu, replicas: 9}]}}";
    let config = config(&[], &[], none).unwrap();
    assert_eq!(config.mps_in_use(), None);
    assert_eq!(config.sharing.unwrap().resources[0].replicas, 9);
}

#[test]
fn time_slicing_is_read() {
    let file = "
version: v1
sharing:
  timeSlicing:
    renameByDefault: true
    failRequestsGreaterThanOne: true
    resources:
      - {name: nvidia.com/gpu, replicas: 4}
      - {name: mig-1g.5gb, replicas: 2, devices: [0, '1:0', GPU-4cf8db2d], rename: small}
      - {name: mig-2g.10gb, replicas: 3, devices: 5, rename: mig-2g.10gb}
";
    let sharing = config(&[], &[], file).unwrap().sharing.unwrap();
    assert!(sharing.fail_requests_greater_than_one && !sharing.distinct_gpus);
    let line = |shared: &SharedResource| {
        let rename = shared.rename.as_ref().map_or("-", |rename| rename.as_str());
        format!("{} x{} of {:?} as {rename}", shared.name, shared.replicas, shared.devices)
    };
    assert_eq!(
        sharing.resources.iter().map(line).collect::<Vec<_>>(),
        [
            "nvidia.com/gpu x4 of All as nvidia.com/gpu.shared",
            r#"nvidia.com/mig-1g.5gb x2 of List(["0", "1:0", "GPU-4cf8db2d"]) as nvidia.com/small"#,
            "nvidia.com/mig-2g.10gb x3 of Count(5) as -",
        ]
    );
}

#[test]
fn impossible_sharing_is_refused() {
    let file = |entry: &str| format!("sharing: {{timeSlicing: {{resources: [{entry}]}}}}");
    for (entry, want) in [
        ("{name: nvidia.com/gpu, replicas: 1}", "replicas is 1 (FILE): use a whole number from 2 to 1024"),
        ("{name: nvidia.com/gpu}", "replicas is null"),
        ("{name: nvidia.com/gpu, replicas: -1}", "replicas is -1"),
        (
            "{name: amd.com/gpu, replicas: 2}",
            r#"name is "amd.com/gpu" (FILE): use nvidia.com/gpu, nvidia.com/mig-<profile>, or a name given in resources"#,
        ),
        ("{replicas: 2}", "name is null"),
        (
            "{name: nvidia.com/gpu, replicas: 2, rename: Quick}",
            "rename is \"Quick\" (FILE): use a resource name",
        ),
        (
            "{name: nvidia.com/gpu, replicas: 2, devices: 0}",
            "devices is 0 (FILE): use all, a number of devices, or a list",
        ),
        ("{name: nvidia.com/gpu, replicas: 2, devices: [first]}", "devices is [\"first\"]"),
        ("{name: nvidia.com/gpu, replicas: 2, devices: []}", "devices is []"),
        ("{name: nvidia.com/gpus, replicas: 2}", "name is \"nvidia.com/gpus\""),
        (
            "{name: nvidia.com/gpu, replicas: 2}, {name: gpu, replicas: 3}",
            "an entry before shares all devices of this resource",
        ),
    ] {
        refused(&[], &[], &file(entry), want);
    }
}
