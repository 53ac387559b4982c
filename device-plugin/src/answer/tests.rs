use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::config::{self, File, MigStrategy};
use crate::fixture::{gpu, inventory, rules};
use crate::inventory::OfferRules;
use crate::nvml::Reading;

/// What a container is told: its environment, then the device nodes.
#[track_caller]
fn told(ids: &[&str], resource: &str, rules: &AnswerRules, want: &str) {
    let gpus = &["whole", "whole", "1g.5gb@0 3g.20gb@4"];
    let inventory = inventory(gpus, MigStrategy::Mixed, "rename gpu=3").unwrap();
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    let got = match allocate_response(&inventory, &resource.parse().unwrap(), &ids, &BTreeMap::new(), rules) {
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

/// Nothing but `NVIDIA_VISIBLE_DEVICES`, by UUID.
fn by_uuid() -> AnswerRules {
    AnswerRules {
        strategies: [DeviceListStrategy::EnvVar].into(),
        device_id_strategy: DeviceIdStrategy::Uuid,
        cdi_annotation_prefix: "cdi.k8s.io/".to_owned(),
        extras: BTreeSet::new(),
        cdi_extras: BTreeSet::new(),
        imex_channels: Vec::new(),
        mps: None,
        device_specs: None,
    }
}

#[test]
fn visible_devices_are_told_once_each_in_the_order_of_the_request() {
    told(
        &["GPU-1::2", "GPU-0::0", "GPU-1::0"],
        "nvidia.com/gpu.shared",
        &by_uuid(),
        "NVIDIA_VISIBLE_DEVICES=GPU-1,GPU-0",
    );
    let by_index = AnswerRules { device_id_strategy: DeviceIdStrategy::Index, ..by_uuid() };
    told(&["GPU-1::2", "GPU-0::0"], "nvidia.com/gpu.shared", &by_index, "NVIDIA_VISIBLE_DEVICES=1,0");
    told(&["MIG-2-1"], "nvidia.com/mig-3g.20gb", &by_index, "NVIDIA_VISIBLE_DEVICES=2:1");
    told(&[], "nvidia.com/gpu.shared", &by_uuid(), "NVIDIA_VISIBLE_DEVICES=");
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
        told(&[id], resource, &by_uuid(), &want);
    }
}

#[test]
fn device_nodes_are_the_gpus_own_the_instances_and_the_control_nodes_that_exist() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("dev")).unwrap();
    fs::write(folder.path().join("dev/nvidiactl"), "").unwrap();
    let caps = folder.path().join("driver/nvidia-caps");
    fs::create_dir_all(&caps).unwrap();
    fs::write(caps.join("mig-minors"), "config 1\nmonitor 2\ngpu2/gi8/access 21\ngpu2/gi8/ci0/access 22\n")
        .unwrap();
    let device_specs = Some(DeviceSpecRules {
        dev_root: "/run/nvidia/driver".into(),
        seen_at: vec![folder.path().into()],
        mig_minors: MigMinors::read(folder.path()).unwrap(),
    });
    let rules = AnswerRules { device_specs, ..by_uuid() };
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
    let error = MigMinors::read(Path::new("/does/not/exist")).unwrap_err().to_string();
    assert!(error.contains("/does/not/exist/driver/nvidia-caps/mig-minors"), "{error}");
    assert!(error.contains("without passDeviceSpecs"), "{error}");
}

/// The node on which NVIDIA's plugin gave the golden answers: two whole A100 and one that is cut, in the simulator.
fn golden_node(file: &str) -> Inventory {
    let uuids = [
        "GPU-bd49ea47-499d-58f6-9594-443461e15aab",
        "GPU-43953122-e879-5be3-add4-d6c3b1c9dcfd",
        "GPU-00000000-0000-0000-0000-000000000000",
    ];
    let slices = ["MIG-f0799ce1-c4c2-579d-9e85-7b40af9751ea", "MIG-7585a5ce-ab43-5c86-aa37-cf1284bb5199"];
    let mut gpus: Vec<_> =
        (0..).zip(["whole", "whole", "1g.5gb@0 3g.20gb@4"]).map(|(index, what)| gpu(index, what)).collect();
    for (gpu, uuid) in gpus.iter_mut().zip(uuids) {
        gpu.uuid = uuid.parse().unwrap();
    }
    for (device, (uuid, id)) in gpus[2].mig.as_mut().unwrap().devices.iter_mut().zip(slices.iter().zip(1..)) {
        (device.uuid, device.gpu_instance_id) = ((*uuid).to_owned(), id);
    }
    let rules =
        OfferRules { sharing: File::parse(file, "FILE").unwrap().sharing, ..rules(MigStrategy::Mixed, "") };
    Inventory::build(&Reading { gpus, ..Reading::default() }, &rules).unwrap()
}

/// A folder with the device nodes that the golden answers' machine had, as links to a device that every machine has.
fn golden_machine() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for node in ["nvidiactl", "nvidia-uvm", "nvidia-caps-imex-channels/channel0"] {
        let node = folder.path().join("dev").join(node);
        fs::create_dir_all(node.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/dev/null", node).unwrap();
    }
    let caps = folder.path().join("driver/nvidia-caps");
    fs::create_dir_all(&caps).unwrap();
    let minors = "gpu2/gi1/access 11\ngpu2/gi1/ci0/access 12\ngpu2/gi2/access 21\ngpu2/gi2/ci0/access 22\n";
    fs::write(caps.join("mig-minors"), minors).unwrap();
    folder
}

/// An answer as Go's `encoding/json` writes it: what is empty is left out.
fn as_json(answer: ContainerAllocateResponse) -> Value {
    let mounts = answer.mounts.iter().map(|mount| {
        assert!(!mount.read_only);
        json!({ "container_path": mount.container_path, "host_path": mount.host_path })
    });
    let devices = answer.devices.iter().map(|device| {
        json!({ "container_path": device.container_path, "host_path": device.host_path, "permissions": device.permissions })
    });
    let names = answer.cdi_devices.iter().map(|device| json!({ "name": device.name }));
    let mut all = json!({
        "envs": answer.envs, "annotations": answer.annotations, "mounts": mounts.collect::<Vec<_>>(),
        "devices": devices.collect::<Vec<_>>(), "cdi_devices": names.collect::<Vec<_>>(),
    });
    all.as_object_mut().unwrap().retain(|_, value| *value != json!([]) && *value != json!({}));
    all
}

/// The keys of CDI annotations without the UUID, which is random at NVIDIA's; its shape is checked.
fn without_uuid(mut answer: Value) -> Value {
    if let Some(annotations) = answer.get_mut("annotations").and_then(Value::as_object_mut) {
        let cut = |(key, value): (String, Value)| {
            let (start, uuid) = key.split_once('_').unwrap();
            let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{uuid}");
            (start.to_owned(), value)
        };
        *annotations = std::mem::take(annotations).into_iter().map(cut).collect();
    }
    answer
}

/// `tests/golden/answers`: what NVIDIA's plugin v0.20.0 answered with the flags that stand there, on the simulated node
/// of [`golden_node`].
#[test]
fn every_answer_equals_nvidias_field_by_field() {
    let machine = golden_machine();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/answers");
    let mut compared = 0;
    for file in fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()) {
        let golden: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let flags = golden["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap());
        let line = ["x", "--kubernetes=false"].into_iter().chain(flags);
        let matches = config::arguments().try_get_matches_from(line).unwrap();
        let mut config = config::load(&matches, |_| None).unwrap();
        let inventory = golden_node(golden["file"].as_str().unwrap_or_default());
        (config.container_driver_root, config.procfs) = (machine.path().into(), machine.path().into());
        let mut rules = AnswerRules::look_up(&config, &inventory, machine.path()).unwrap();
        rules.cdi_extras = rules.extras.clone();
        for call in golden["answers"].as_array().unwrap() {
            let resource = call["resource"].as_str().unwrap().parse().unwrap();
            let ids: Vec<String> = serde_json::from_value(call["ids"].clone()).unwrap();
            let answer = allocate_response(&inventory, &resource, &ids, &BTreeMap::new(), &rules).unwrap();
            assert_eq!(
                without_uuid(as_json(answer)),
                without_uuid(call["answer"].clone()),
                "{}",
                file.display()
            );
            compared += 1;
        }
    }
    assert!(compared >= 50, "{compared} answers are compared");
}

#[test]
fn the_annotations_of_one_container_differ() {
    let key = |resource: &str, ids: &[&str]| {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        digest((&resource.parse().unwrap(), &ids))
    };
    let one = key("nvidia.com/gpu", &["GPU-0"]);
    assert_eq!(one, key("nvidia.com/gpu", &["GPU-0"]), "the same call gets the same answer");
    assert_ne!(one, key("nvidia.com/gpu", &["GPU-1"]));
    assert_ne!(one, key("nvidia.com/gpu.shared", &["GPU-0"]));
    assert_ne!(key("nvidia.com/gpu", &["GPU-0", "GPU-1"]), key("nvidia.com/gpu", &["GPU-0"]));
}

#[test]
fn an_imex_channel_that_is_missing_is_left_out_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let seen_at = [folder.path().to_owned()];
    assert!(imex::channels(&[0], false, &seen_at).unwrap().is_empty());
    let required = || imex::channels(&[0], true, &seen_at).unwrap_err().to_string();
    assert!(required().starts_with(
        "IMEX channel 0 is required, and /dev/nvidia-caps-imex-channels/channel0 is not there: "
    ));
    let node = folder.path().join(imex::node(0));
    fs::create_dir_all(node.parent().unwrap()).unwrap();
    fs::write(&node, "").unwrap();
    assert!(required().contains("is no character device: create it"));
    assert!(imex::channels(&[], true, &seen_at).unwrap().is_empty());
}

/// Golden: NVIDIA's plugin v0.20.0 on the simulator with `sharing.mps`, its host paths and their order.
#[test]
fn shares_by_mps_are_told_where_the_daemon_is_before_anything_else_is_mounted() {
    let rules = AnswerRules {
        strategies: [DeviceListStrategy::VolumeMounts].into(),
        mps: Some(Folders::at("/run/nvidia/mps")),
        ..by_uuid()
    };
    let inventory = inventory(&["whole"], MigStrategy::None, "rename gpu=4").unwrap();
    let (resource, ids) = ("nvidia.com/gpu.shared".parse().unwrap(), ["GPU-0::0".to_owned()]);
    let response = allocate_response(&inventory, &resource, &ids, &BTreeMap::new(), &rules).unwrap();
    assert_eq!(response.envs["CUDA_MPS_PIPE_DIRECTORY"], "/mps/nvidia.com/gpu.shared/pipe");
    let mounts: Vec<String> =
        response.mounts.iter().map(|mount| format!("{}:{}", mount.host_path, mount.container_path)).collect();
    assert_eq!(
        mounts,
        [
            "/run/nvidia/mps/nvidia.com/gpu.shared/pipe:/mps/nvidia.com/gpu.shared/pipe",
            "/run/nvidia/mps/shm:/dev/shm",
            "/dev/null:/var/run/nvidia-container-devices/GPU-0",
        ]
    );
}
