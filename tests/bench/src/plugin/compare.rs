//! Both plugins on the same node, with the same flags, asked the same: do they answer the same?
//!
//! Compared are what each registers, its device lists with health and NUMA nodes, and what it tells containers,
//! field by field. What has no order is sorted, since NVIDIA's comes out of Go's maps; the random part of an
//! annotation's key is left out. Which devices a plugin *prefers* is its own policy, and not compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kubelet_api::device_plugin::{ContainerAllocateResponse, Device, DevicePluginOptions, Empty};
use nvml_simulator::description::{Description, GpuDescription};
use serde_json::{Value, json};

use super::calls;
use super::machine::{Machine, Plugin};
use super::namespace::mount;
use super::node::Node;
use crate::program::Running;

const LIMIT: Duration = Duration::from_secs(20);
/// Device nodes that exist, and their major and minor numbers.
const NODES: [(&str, u32, u32); 12] = [
    ("null", 1, 3),
    ("urandom", 1, 9),
    ("nvidiactl", 195, 255),
    ("nvidia-uvm", 510, 0),
    ("nvidia0", 195, 0),
    ("nvidia1", 195, 1),
    ("nvidia2", 195, 2),
    ("gdrdrv", 450, 0),
    ("nvidia-fs0", 451, 0),
    ("infiniband/uverbs0", 231, 192),
    ("infiniband/rdma_cm", 10, 58),
    ("nvidia-caps-imex-channels/channel0", 508, 0),
];
/// Everything that adds to an answer.
const EVERYTHING: [&str; 5] =
    ["--pass-device-specs", "--gdrcopy-enabled", "--gds-enabled", "--mofed-enabled", "--imex-channel-ids=0"];
const STRATEGIES: [&str; 4] = ["envvar", "volume-mounts", "cdi-annotations", "cdi-cri"];
const SHARES: &str = "version: v1\nsharing: {timeSlicing: {renameByDefault: true, resources: \
                      [{name: nvidia.com/gpu, replicas: 4}, {name: nvidia.com/mig-1g.5gb, replicas: 2}]}}\n";

/// What a plugin said: of what, and what.
type Said = BTreeMap<String, Value>;

/// Compares, and tells what differs.
pub(crate) async fn measure(nvidia: &Path, node: &mut Node) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mixed = ["whole", "whole", "1g.5gb 1g.5gb 3g.20gb"];
    let mixed = machine(&scratch.path().join("mixed"), &mixed)?;
    let sliced = machine(&scratch.path().join("sliced"), &["3g.20gb 3g.20gb", "3g.20gb"])?;
    lay_over(&mixed)?;
    let shares = scratch.path().join("shares.yaml");
    fs::write(&shares, SHARES)?;
    let shares = format!("--config-file={}", shares.display());

    let mut cases: Vec<(&Machine, Vec<String>)> = Vec::new();
    let with = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<String>>();
    for strategy in STRATEGIES.map(|strategy| format!("--device-list-strategy={strategy}")) {
        for id in ["--device-id-strategy=uuid", "--device-id-strategy=index"] {
            cases.push((&mixed, with(&["--mig-strategy=mixed", &strategy, id])));
        }
        cases.push((&mixed, with(&[&["--mig-strategy=mixed", &strategy], &EVERYTHING[..]].concat())));
        cases.push((&mixed, with(&["--mig-strategy=mixed", &strategy, &shares])));
    }
    let all = format!("--device-list-strategy={}", STRATEGIES.join(","));
    cases.push((&mixed, with(&[&["--mig-strategy=mixed", &all], &EVERYTHING[..]].concat())));
    cases.push((&mixed, with(&["--mig-strategy=none", "--pass-device-specs"])));
    cases.push((&mixed, with(&["--mig-strategy=none", &shares])));
    cases.push((&sliced, with(&["--mig-strategy=single", "--pass-device-specs"])));
    cases.push((&sliced, with(&["--mig-strategy=single", &shares])));

    println!("device plugin, answers beside NVIDIA's in {} configurations", cases.len());
    let (mut compared, mut differ) = (0, 0);
    for (machine, flags) in &cases {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let theirs = ask(&Plugin::Nvidias(nvidia.to_owned()), machine, node, &flags).await;
        let theirs = theirs.with_context(|| format!("NVIDIA's with {flags:?}"))?;
        let ours = ask(&Plugin::Ours, machine, node, &flags).await;
        let ours = ours.with_context(|| format!("ours with {flags:?}"))?;
        for what in ours.keys().chain(theirs.keys().filter(|what| !ours.contains_key(*what))) {
            compared += 1;
            if ours.get(what) != theirs.get(what) {
                differ += 1;
                let text = |said: &Said| said.get(what).map_or("nothing".to_owned(), Value::to_string);
                println!(
                    "  {flags:?}, {what}:\n    ours     {}\n    NVIDIA's {}",
                    text(&ours),
                    text(&theirs)
                );
            }
        }
    }
    println!("  {compared} answers compared field by field, {differ} differ");
    Ok(())
}

/// A machine of these GPUs, with the files that a driver's root has.
fn machine(folder: &Path, gpus: &[&str]) -> Result<Machine> {
    let describe = |(numa, what): (u32, &&str)| {
        let gpu = GpuDescription { numa_node: Some(numa % 2), ..GpuDescription::new("a100-40gb") };
        match *what {
            "whole" => gpu,
            slices => gpu.with_mig(&slices.split(' ').collect::<Vec<_>>()),
        }
    };
    let description = Description::new((0..).zip(gpus).map(describe).collect());
    let machine = Machine::make(folder, &description)?;
    let library = fs::read(&machine.library)?;
    for name in ["libcuda.so.570.86.15", "libnvidia-ml.so.570.86.15"] {
        fs::write(machine.library.with_file_name(name), &library)?;
    }
    make_nodes(&machine.driver_root.join("dev"))?;
    Ok(machine)
}

/// Lays what the kernel tells of such GPUs over this mount namespace's `/dev`, `/proc` and `/sys`.
fn lay_over(machine: &Machine) -> Result<()> {
    let (dev, driver, pci) =
        (Path::new("/dev"), Path::new("/proc/driver"), Path::new("/sys/bus/pci/devices"));
    [dev, driver, pci].into_iter().try_for_each(mount)?;
    make_nodes(dev)?;
    let mut minors = String::new();
    for gpu in &machine.store()?.hardware().gpus {
        let bus = gpu.pci_bus_id().to_ascii_lowercase();
        let device = pci.join(bus.get(4..).context("a short bus id")?);
        fs::create_dir_all(&device)?;
        fs::write(device.join("numa_node"), format!("{}\n", gpu.numa_node.unwrap_or_default()))?;
        for instance in 1..10 {
            let minor = gpu.index * 20 + instance * 2;
            let line = format!("gpu{}/gi{instance}", gpu.index);
            minors += &format!("{line}/access {minor}\n{line}/ci0/access {}\n", minor + 1);
        }
    }
    fs::create_dir_all(driver.join("nvidia-caps"))?;
    Ok(fs::write(driver.join("nvidia-caps/mig-minors"), minors)?)
}

fn make_nodes(dev: &Path) -> Result<()> {
    let caps = (1..64).map(|minor| (format!("nvidia-caps/nvidia-cap{minor}"), 508, minor));
    for (name, major, minor) in
        NODES.map(|(name, major, minor)| (name.to_owned(), major, minor)).into_iter().chain(caps)
    {
        let path = dev.join(&name);
        fs::create_dir_all(path.parent().unwrap_or(dev))?;
        let numbers = [major.to_string(), minor.to_string()];
        let status = Command::new("mknod").args(["-m", "666"]).arg(path).arg("c").args(numbers).status()?;
        ensure!(status.success(), "cannot make the device node {name}");
    }
    Ok(())
}

/// Starts a plugin, and asks it everything.
async fn ask(plugin: &Plugin, machine: &Machine, node: &mut Node, flags: &[&str]) -> Result<Said> {
    node.restart(Duration::ZERO).await?;
    let _program = Running::start(&mut machine.command(plugin, node, flags)?)?;
    let mut said = Said::new();
    for resource in &node.settled(LIMIT).await? {
        let mut client = calls::connect(&node.sockets, plugin, resource).await?;
        let registered = node.registered(resource).context("it did not register")?;
        said.insert(
            format!("{resource}: registration"),
            json!({"version": registered.version, "options": registered.options.map(options)}),
        );
        let asked = client.get_device_plugin_options(Empty {}).await?.into_inner();
        said.insert(format!("{resource}: options"), options(asked));
        let mut devices = calls::list(&mut client).await?.devices;
        devices.sort_by(|one, other| one.id.cmp(&other.id));
        said.insert(format!("{resource}: devices"), devices.iter().map(device).collect());
        let ids: Vec<String> = devices.into_iter().map(|device| device.id).collect();
        for ids in [&ids[..1], &ids[ids.len() - 1..], &ids[..ids.len().min(2)]] {
            let answer = client.allocate(calls::allocate(ids)).await?.into_inner();
            let answers: Value = answer.container_responses.iter().map(container).collect();
            said.insert(format!("{resource}: Allocate {ids:?}"), answers);
        }
    }
    Ok(said)
}

fn options(options: DevicePluginOptions) -> Value {
    json!([options.pre_start_required, options.get_preferred_allocation_available])
}

fn device(device: &Device) -> Value {
    let nodes = device.topology.as_ref().map(|topology| topology.nodes.iter().map(|node| node.id));
    json!({"id": device.id, "health": device.health, "numa": nodes.map(Iterator::collect::<Vec<_>>)})
}

/// What a container is told, in an order of its own.
fn container(answer: &ContainerAllocateResponse) -> Value {
    let text = |(name, value): (&str, &String)| {
        let mut parts: Vec<&str> = value.split(',').collect();
        parts.sort_unstable();
        (name.to_owned(), parts.join(","))
    };
    // NVIDIA's names the GPU's own node once for each of its slices, ours once: that is the same to a container.
    let sorted = |mut values: Vec<Value>| {
        values.sort_by_key(Value::to_string);
        values.dedup();
        values
    };
    let envs: BTreeMap<_, _> = answer.envs.iter().map(|(name, value)| text((name, value))).collect();
    // The rest of the key is random.
    let kind = |name: &str| name.split_once('_').map_or(name, |(kind, _)| kind).to_owned();
    let annotations: BTreeMap<_, _> =
        answer.annotations.iter().map(|(name, value)| text((&kind(name), value))).collect();
    let mounts = answer.mounts.iter().map(|m| json!([m.host_path, m.container_path, m.read_only]));
    let devices = answer.devices.iter().map(|d| json!([d.host_path, d.container_path, d.permissions]));
    let names = answer.cdi_devices.iter().map(|device| json!(device.name));
    json!({
        "envs": envs,
        "annotations": annotations,
        "mounts": sorted(mounts.collect()),
        "devices": sorted(devices.collect()),
        "cdi": sorted(names.collect()),
    })
}
