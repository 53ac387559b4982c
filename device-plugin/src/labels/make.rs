//! Which labels a node gets: NVIDIA's names and values, as `gpu-feature-discovery` v0.20 writes them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use stowage_shared::resource::ResourceName;

use super::facts::{Facts, GpuFacts, MigFacts};
use crate::config::MigStrategy;

/// Labels by key, in the keys' order.
pub type Labels = BTreeMap<String, String>;

/// The longest value that Kubernetes takes.
const VALUE_MAX_BYTES: usize = 63;

/// What of the configuration labels tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How MIG devices are offered.
    pub mig_strategy: MigStrategy,
    /// How GPUs are shared, where they are.
    pub sharing: Option<SharingRules>,
    /// When the labels were first made, in seconds since 1970; `None` leaves the label out.
    pub timestamp: Option<i64>,
}

/// How GPUs are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharingRules {
    /// Whether by MPS; else by time-slicing.
    pub mps: bool,
    /// The resources that are shared, by their name before sharing.
    pub resources: BTreeMap<ResourceName, Shares>,
}

/// How one resource is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Into how many replicas; 2 or more.
    pub replicas: u32,
    /// Whether the shares go by another name than the resource.
    pub renamed: bool,
}

/// The labels of a machine.
pub fn labels(facts: &Facts, rules: &Rules) -> Labels {
    let mut labels = Labels::new();
    if let Some(timestamp) = rules.timestamp {
        put(&mut labels, "gfd.timestamp", timestamp);
    }
    vgpu(&mut labels, facts);
    if !facts.gpus.is_empty() {
        versions(&mut labels, facts);
        node(&mut labels, facts, rules);
        whole_gpus(&mut labels, facts, rules);
        match rules.mig_strategy {
            MigStrategy::None => {}
            // What is built comes and goes with pods: no selector should depend on it.
            MigStrategy::OnDemand => put(&mut labels, "mig.strategy", "on-demand"),
            MigStrategy::Single => {
                put(&mut labels, "mig.strategy", "single");
                single(&mut labels, facts, rules);
            }
            MigStrategy::Mixed => {
                put(&mut labels, "mig.strategy", "mixed");
                for (name, kind) in kinds(facts) {
                    mig_device(&mut labels, &format!("mig-{name}"), &kind, rules);
                }
            }
        }
    }
    labels
}

fn put(labels: &mut Labels, key: &str, value: impl ToString) {
    labels.insert(format!("nvidia.com/{key}"), valid(&value.to_string()));
}

/// What Kubernetes takes as a value: one bad value and it takes none of them. NVIDIA's values pass unchanged.
fn valid(value: &str) -> String {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let value: String = value.chars().filter(allowed).take(VALUE_MAX_BYTES).collect();
    value.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// What is no letter, digit, `-`, `_`, `.` or blank goes; blanks between words become one `-`.
fn words(text: &str) -> String {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
    let text: String = text.chars().filter(allowed).collect();
    text.split_whitespace().collect::<Vec<_>>().join("-")
}

fn versions(labels: &mut Labels, facts: &Facts) {
    let (major, minor) = facts.cuda_version;
    put(labels, "cuda.runtime-version.major", major);
    put(labels, "cuda.runtime-version.minor", minor);
    put(labels, "cuda.runtime-version.full", format!("{major}.{minor}"));
    // The names before v0.15 of NVIDIA's.
    put(labels, "cuda.runtime.major", major);
    put(labels, "cuda.runtime.minor", minor);
    let parts: Vec<&str> = facts.driver_version.split('.').collect();
    let (major, minor, revision) = match parts[..] {
        [major, minor] => (major, minor, ""),
        [major, minor, revision] => (major, minor, revision),
        _ => return,
    };
    put(labels, "cuda.driver-version.major", major);
    put(labels, "cuda.driver-version.minor", minor);
    put(labels, "cuda.driver-version.revision", revision);
    put(labels, "cuda.driver-version.full", &facts.driver_version);
    put(labels, "cuda.driver.major", major);
    put(labels, "cuda.driver.minor", minor);
    put(labels, "cuda.driver.rev", revision);
}

fn vgpu(labels: &mut Labels, facts: &Facts) {
    let Some(vgpus) = &facts.vgpus else { return };
    put(labels, "vgpu.present", !vgpus.is_empty());
    if let Some(host) = vgpus.last() {
        put(labels, "vgpu.host-driver-version", &host.driver_version);
        put(labels, "vgpu.host-driver-branch", &host.driver_branch);
    }
}

/// What holds for the node as a whole.
fn node(labels: &mut Labels, facts: &Facts, rules: &Rules) {
    let gpus = &facts.gpus;
    put(labels, "gpu.machine", words(facts.machine.as_deref().unwrap_or("unknown")));
    put(labels, "mig.capable", gpus.iter().any(|gpu| gpu.mig_enabled.is_some()));
    let mps = rules.sharing.as_ref().is_some_and(|sharing| sharing.mps);
    put(labels, "mps.capable", mps && !gpus.iter().any(|gpu| gpu.mig_enabled == Some(true)));
    let classes: BTreeSet<Option<u16>> = gpus.iter().map(|gpu| gpu.pci_class).collect();
    let mode = match classes.into_iter().collect::<Vec<_>>()[..] {
        [Some(0x0300)] => "graphics",
        [Some(0x0302)] => "compute",
        _ => "unknown",
    };
    put(labels, "gpu.mode", mode);
    // Members of several cliques, or of several clusters, are no good as one group.
    let fabrics: Vec<_> = gpus.iter().filter_map(|gpu| gpu.fabric.as_ref()).collect();
    if let Some((first, rest)) = fabrics.split_first()
        && rest.iter().all(|other| other == first)
    {
        put(labels, "gpu.clique", format!("{}.{}", uuid(&first.cluster), first.clique));
    }
}

/// Sixteen bytes in the usual form.
fn uuid(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// One model's labels; with several models, NVIDIA's labels are any one's. Here they are those of the last name in
/// the alphabet, so that they stay what they are. A model that has GPUs outside of MIG mode comes before one that
/// has none, and only its labels tell of sharing.
fn whole_gpus(labels: &mut Labels, facts: &Facts, rules: &Rules) {
    let is_cut = |gpu: &GpuFacts| gpu.mig_enabled == Some(true);
    let whole = facts.gpus.iter().filter(|gpu| !is_cut(gpu)).max_by_key(|gpu| &gpu.model);
    let Some(gpu) = whole.or_else(|| facts.gpus.iter().max_by_key(|gpu| &gpu.model)) else { return };
    let count = facts.gpus.iter().filter(|other| other.model == gpu.model).count();
    let resource = ResourceName::gpu();
    if is_cut(gpu) {
        base(labels, "gpu", &[&gpu.model], count, 0, "none");
    } else {
        shared(labels, "gpu", &resource, &[&gpu.model], count, rules);
    }
    if gpu.memory.0 > 0 {
        put(labels, "gpu.memory", gpu.memory.0);
    }
    let (major, minor) = gpu.compute_capability;
    if major > 0 {
        put(labels, "gpu.family", family(major, minor));
        put(labels, "gpu.compute.major", major);
        put(labels, "gpu.compute.minor", minor);
    }
}

fn family(major: i32, minor: i32) -> &'static str {
    match (major, minor) {
        (1, _) => "tesla",
        (2, _) => "fermi",
        (3, _) => "kepler",
        (5, _) => "maxwell",
        (6, _) => "pascal",
        (7, ..5) => "volta",
        (7, _) => "turing",
        (8, ..9) => "ampere",
        (8, _) => "ada-lovelace",
        (9, _) => "hopper",
        (10 | 12, _) => "blackwell",
        (13, _) => "rubin",
        _ => "undefined",
    }
}

/// The MIG devices of one name: how many there are, of which model's GPU the first is, and the first.
struct Kind<'a> {
    count: usize,
    model: &'a str,
    first: &'a MigFacts,
}

fn kinds(facts: &Facts) -> BTreeMap<&str, Kind<'_>> {
    let mut kinds: BTreeMap<&str, Kind<'_>> = BTreeMap::new();
    for gpu in facts.gpus.iter().filter(|gpu| gpu.mig_enabled == Some(true)) {
        for device in &gpu.mig_devices {
            let new = Kind { count: 0, model: &gpu.model, first: device };
            kinds.entry(&device.name).or_insert(new).count += 1;
        }
    }
    kinds
}

/// Strategy `single`: the slices take the GPUs' place, unless they are not all alike.
fn single(labels: &mut Labels, facts: &Facts, rules: &Rules) {
    let is_cut = |gpu: &&GpuFacts| gpu.mig_enabled == Some(true);
    let Some(cut) = facts.gpus.iter().find(is_cut) else { return };
    let has_empty = facts.gpus.iter().filter(is_cut).any(|gpu| gpu.mig_devices.is_empty());
    let has_whole = !facts.gpus.iter().all(|gpu| is_cut(&gpu));
    let kinds = kinds(facts);
    match kinds.into_values().collect::<Vec<_>>()[..] {
        [ref kind] if !has_empty && !has_whole => mig_device(labels, "gpu", kind, rules),
        _ => {
            base(labels, "gpu", &[&cut.model, "MIG", "INVALID"], 0, 0, "");
            put(labels, "gpu.memory", 0);
        }
    }
}

fn mig_device(labels: &mut Labels, resource: &str, kind: &Kind<'_>, rules: &Rules) {
    let product = [kind.model, "MIG", &kind.first.name];
    match format!("nvidia.com/{resource}").parse() {
        Ok(name) => shared(labels, resource, &name, &product, kind.count, rules),
        // A name that no resource can have is not shared either.
        Err(_) => base(labels, resource, &product, kind.count, 1, "none"),
    }
    let of = &kind.first.attributes;
    put(labels, &format!("{resource}.memory"), of.memory_mib);
    for (suffix, count) in [
        ("multiprocessors", of.multiprocessors),
        ("slices.gi", of.gpu_instance_slices),
        ("slices.ci", of.compute_instance_slices),
        ("engines.copy", of.copy_engines),
        ("engines.decoder", of.decoders),
        ("engines.encoder", of.encoders),
        ("engines.jpeg", of.jpeg_engines),
        ("engines.ofa", of.ofa_engines),
    ] {
        put(labels, &format!("{resource}.{suffix}"), count);
    }
}

/// Product, count and how the resource is shared.
fn shared(
    labels: &mut Labels,
    key: &str,
    resource: &ResourceName,
    product: &[&str],
    count: usize,
    rules: &Rules,
) {
    let sharing = rules.sharing.as_ref();
    let shares = sharing.and_then(|sharing| sharing.resources.get(resource));
    match (sharing, shares) {
        (Some(sharing), Some(shares)) => {
            let mut product = product.to_vec();
            if !shares.renamed {
                product.push("SHARED");
            }
            let strategy = if sharing.mps { "mps" } else { "time-slicing" };
            base(labels, key, &product, count, shares.replicas, strategy);
        }
        _ => base(labels, key, product, count, 1, "none"),
    }
}

fn base(labels: &mut Labels, key: &str, product: &[&str], count: usize, replicas: u32, strategy: &str) {
    let product: Vec<String> = product.iter().map(|part| words(part)).collect();
    put(labels, &format!("{key}.product"), product.join("-"));
    put(labels, &format!("{key}.count"), count);
    put(labels, &format!("{key}.replicas"), replicas);
    put(labels, &format!("{key}.sharing-strategy"), strategy);
}
