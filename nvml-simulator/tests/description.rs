//! Descriptions: what is accepted, and what is said of what is not.
#![allow(clippy::unwrap_used)]

use nvml_simulator::description::{Description, GpuDescription, MigInstanceDescription};

/// What is said of a description.
#[track_caller]
fn said(yaml: &str) -> String {
    let checked = Description::parse(yaml, "node.yaml").and_then(|description| description.check());
    checked.map_or_else(|error| error.to_string(), |boot| format!("{} GPUs", boot.hardware.gpus.len()))
}

#[test]
fn each_mistake_is_named_with_its_place_and_its_cure() {
    let one_gpu = |line: &str| format!("gpus:\n  - model: a100-40gb\n    {line}\n");
    let mig = |instances: &str| one_gpu(&format!("migMode: enabled\n    migInstances: {instances}"));
    let cases = [
        ("gpus: []", "0 GPUs"),
        (&one_gpu("count: 64"), "64 GPUs"),
        (
            "gpus: [{model: a200}]",
            r#"gpus[0].model is "a200": known are a100-40gb, a100-80gb, h100-80gb, h100-94gb, h200, "#,
        ),
        (
            &one_gpu("count: 0"),
            "gpus[0].count is 0: a node has at most 64 GPUs, and each entry is at least one",
        ),
        (&one_gpu("count: 65"), "gpus[0].count is 65: a node has at most 64 GPUs"),
        (
            &one_gpu("uuid: GPU-1"),
            r#"gpus[0].uuid is "GPU-1": use GPU- and five groups of 8, 4, 4, 4 and 12 hex"#,
        ),
        (
            &one_gpu("uuid: GPU-01234567-89ab-cdef-0123-456789abcdef\n    count: 2"),
            "for several GPUs: give each an entry of its own",
        ),
        (
            "gpus:\n  - {model: t4, uuid: GPU-01234567-89ab-cdef-0123-456789abcdef}\n  - {model: t4, uuid: GPU-01234567-89ab-cdef-0123-456789abcdef}",
            "gpus[1].uuid is \"GPU-01234567-89ab-cdef-0123-456789abcdef\": another GPU has it already",
        ),
        (&one_gpu("numaNode: 5000"), "gpus[0].numaNode is 5000: the highest is 1023"),
        (&one_gpu("memoryMib: 0"), "gpus[0].memoryMib is 0: 1 to 16777216 are possible"),
        (
            &one_gpu("memoryMib: 81920"),
            "gpus[0].memoryMib is 81920: profile 1g.5gb would be called 1g.10gb: stay near the model's 40960",
        ),
        ("driverVersion: newest\ngpus: []", r#"driverVersion is "newest": use one such as 570.86.15"#),
        ("cudaVersion: '12'\ngpus: []", r#"cudaVersion is "12": use one such as "12.8""#),
        ("gpus: [{model: t4, migMode: enabled}]", "gpus[0].migMode is enabled: model t4 has no MIG"),
        (&one_gpu("migInstances: [{profile: 1g.5gb}]"), "gpus[0].migInstances need migMode: enabled"),
        (
            &mig("[{profile: 1g.6gb}]"),
            r#"gpus[0].migInstances[0].profile is "1g.6gb": this GPU has 1g.5gb, 1g.5gb+me, 1g.10gb, 2g.10gb, 3g.20gb,"#,
        ),
        (
            &mig("[{profile: 3g.20gb, start: 2}]"),
            "gpus[0].migInstances[0].start is 2: 3g.20gb may start at 0, 4",
        ),
        (
            &mig("[{profile: 3g.20gb, start: 4}, {profile: 1g.5gb, start: 5}]"),
            "gpus[0].migInstances[1].start is 5: no room: instances that exist take what it needs",
        ),
        (
            &mig("[{profile: 7g.40gb}, {profile: 1g.5gb}]"),
            "gpus[0].migInstances[1].profile is 1g.5gb: no room: instances that exist take what it needs",
        ),
        (
            &mig("[{profile: 3g.20gb, computeInstances: [4]}]"),
            "gpus[0].migInstances[0].computeInstances has 4: there is no such profile (4); 3g.20gb can have 1, 2, 3 compute slices",
        ),
        ("gpus: [{model: t4, colour: green}]", "node.yaml: "),
        ("gpus: [{}]", "node.yaml: "),
        ("gpus: {model: t4}", "node.yaml: "),
        ("gpus: [", "node.yaml: "),
        ("", "node.yaml: "),
        ("gpus: []\ngpus: []", "node.yaml: "),
        (&one_gpu("migMode: on"), "node.yaml: "),
        (&one_gpu("count: many"), "node.yaml: "),
        (&one_gpu("count: -1"), "node.yaml: "),
    ];
    for (yaml, want) in cases {
        let got = said(yaml);
        assert!(got.contains(want), "{yaml}\n  says: {got}\n  not:  {want}");
    }
}

#[test]
fn a_yaml_mistake_is_told_with_key_and_line() {
    let got = said("gpus:\n  - model: t4\n    colour: green\n");
    assert!(got.contains("colour") && got.contains("migInstances") && got.contains('3'), "{got}");
}

#[test]
fn the_whole_form_is_read() {
    let yaml = r#"
driverVersion: "550.107.02"
cudaVersion: "12.4"
name: gpu-node-1
seed: 7
gpus:
  - model: a100-40gb
    numaNode: 0
    migMode: enabled
    migInstances: [{profile: 3g.20gb, start: 4}, {profile: 1g.5gb, start: 0}, {profile: 1g.5gb}]
  - model: l4
    count: 2
    lost: true
"#;
    let boot = Description::parse(yaml, "node.yaml").unwrap().check().unwrap();
    let starts: Vec<u8> = boot.state.gpus[0].gpu_instances.iter().map(|instance| instance.start).collect();
    assert_eq!(starts, [4, 0, 1], "without a start, the placement that keeps 2g.10gb at 2 possible");
    assert!(boot.state.gpus[0].mig_enabled && !boot.state.gpus[0].lost);
    assert!(boot.state.gpus[1].lost && boot.state.gpus[2].lost);
    assert_eq!(boot.hardware.cuda.number(), 12_040);
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.yaml");
    let mut mig = GpuDescription::new("a30").with_mig(&["1g.6gb"]).on_numa_node(1);
    mig.mig_instances.push(MigInstanceDescription::new("2g.12gb").at(2));
    let description = Description::new(vec![mig, GpuDescription::new("l4").times(3).lost()]).named("n1");
    description.write(&path).unwrap();
    assert_eq!(Description::read(&path).unwrap(), description);
}

#[test]
fn another_name_or_seed_gives_other_uuids_and_the_same_ones_the_same() {
    let uuids = |description: &Description| -> Vec<String> {
        description.check().unwrap().hardware.gpus.into_iter().map(|gpu| gpu.uuid).collect()
    };
    let one = Description::new(vec![GpuDescription::new("t4").times(2)]).named("one");
    let other = one.clone().named("other");
    let seeded = Description { seed: 1, ..one.clone() };
    assert_eq!(uuids(&one), uuids(&one.clone()));
    assert!(uuids(&one).iter().all(|uuid| !uuids(&other).contains(uuid) && !uuids(&seeded).contains(uuid)));
}
