//! `sharing` of NVIDIA's file: which devices are shared, and under which name.

use serde_json::{Map, Value};
use stowage_shared::contract::{MPS_CLIENTS_MAX, REPLICAS_MAX};
use stowage_shared::resource::ResourceName;

use super::ConfigError;
use super::file::At;
use super::names::{ResourceNames, resource_name};

/// Which GPU's shares are handed out first, where no plan says; NVIDIA's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AllocationPolicy {
    /// The GPU with the fewest shares in use: pods have more of their GPU. NVIDIA's default.
    #[default]
    Distributed,
    /// The packing core's choice, which fills GPUs up.
    Packed,
}

/// By what those who share a GPU are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SharingStrategy {
    /// By time: the GPU switches between processes that know nothing of each other.
    #[default]
    TimeSlicing,
    /// By CUDA's Multi-Process Service: they run at once, each within limits of memory and threads.
    Mps,
}

impl SharingStrategy {
    /// Its section in NVIDIA's file.
    pub fn section(self) -> &'static str {
        match self {
            Self::TimeSlicing => "timeSlicing",
            Self::Mps => "mps",
        }
    }
}

/// How resources are shared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sharing {
    /// By what.
    pub strategy: SharingStrategy,
    /// Whether a container may ask for one share only.
    pub fail_requests_greater_than_one: bool,
    /// Whether the shares of one container must be of different GPUs or MIG devices; Stowage's own key.
    pub distinct_gpus: bool,
    /// Whether pods may ask for shares larger than an equal part under MPS; Stowage's own key. By time anybody may.
    pub sized_shares: bool,
    /// What is shared. A device belongs to the first entry that names it.
    pub resources: Vec<SharedResource>,
}

/// Devices of one resource, shared alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedResource {
    /// Their name without sharing.
    pub name: ResourceName,
    /// The name of their shares, where it is another.
    pub rename: Option<ResourceName>,
    /// Which of the devices.
    pub devices: SharedDevices,
    /// Into how many shares each is divided; 2 or more.
    pub replicas: u32,
}

/// Which devices of a resource are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharedDevices {
    /// All of them.
    All,
    /// So many, in NVML's order; 1 or more.
    Count(u32),
    /// These, by UUID or by NVML's index: `0`, or `0:1` for a MIG device.
    List(Vec<String>),
}

/// The longest list of devices that is read.
const LIST_MAX: usize = 1024;

/// Reads the section; `names` are the names that devices may have here.
pub(super) fn read(
    at: &At<'_>,
    value: Option<&Value>,
    names: &ResourceNames,
) -> Result<Option<Sharing>, ConfigError> {
    let Some(map) = at.map(value)? else { return Ok(None) };
    at.only(map, &["timeSlicing", "mps"])?;
    let section = |strategy: SharingStrategy| {
        let name = strategy.section();
        sharing(&at.key(name), map.get(name), strategy, names)
    };
    let (mps, time_slicing) = (section(SharingStrategy::Mps)?, section(SharingStrategy::TimeSlicing)?);
    // Where both are given, NVIDIA's plugin goes by MPS.
    Ok(mps.filter(|mps| !mps.resources.is_empty()).or(time_slicing))
}

/// One of the two sections.
fn sharing(
    at: &At<'_>,
    value: Option<&Value>,
    strategy: SharingStrategy,
    names: &ResourceNames,
) -> Result<Option<Sharing>, ConfigError> {
    let Some(map) = at.map(value)? else { return Ok(None) };
    let mut keys = vec!["renameByDefault", "failRequestsGreaterThanOne", "distinctGPUs", "resources"];
    keys.extend((strategy == SharingStrategy::Mps).then_some("sizedShares"));
    at.only(map, &keys)?;
    let rename_by_default = at.boolean(map, "renameByDefault")?;
    // NVIDIA's default under MPS is to refuse: the limits of two shares do not add up for one process.
    let fail_by_default =
        strategy == SharingStrategy::Mps && map.get("failRequestsGreaterThanOne").is_none_or(Value::is_null);
    let mut sharing = Sharing {
        strategy,
        fail_requests_greater_than_one: fail_by_default || at.boolean(map, "failRequestsGreaterThanOne")?,
        distinct_gpus: at.boolean(map, "distinctGPUs")?,
        sized_shares: at.boolean(map, "sizedShares")?,
        resources: Vec::new(),
    };
    let at = at.key("resources");
    for (index, item) in at.list(map.get("resources"))?.iter().enumerate() {
        let at = at.item(index);
        let Some(map) = at.map(Some(item))? else { continue };
        let entry = shared_resource(&at, map, strategy, names, rename_by_default)?;
        let taken = |known: &SharedResource| known.name == entry.name && known.devices == SharedDevices::All;
        if sharing.resources.iter().any(taken) {
            return Err(at.wrong(
                item,
                "an entry before shares all devices of this resource: name it once, or devices in each",
            ));
        }
        sharing.resources.push(entry);
    }
    Ok(Some(sharing))
}

/// One entry of `resources`.
fn shared_resource(
    at: &At<'_>,
    map: &Map<String, Value>,
    strategy: SharingStrategy,
    names: &ResourceNames,
    rename_by_default: bool,
) -> Result<SharedResource, ConfigError> {
    at.only(map, &["name", "rename", "devices", "replicas"])?;
    let value = |key: &str| map.get(key).unwrap_or(&Value::Null);
    let wrong = |key: &str, cure: &str| at.key(key).wrong(value(key), cure);

    let name = resource_name(value("name").as_str().unwrap_or_default())
        .filter(|name| ResourceName::is_standard_gpu(name.as_str()) || names.give(name))
        .ok_or_else(|| {
            wrong("name", "use nvidia.com/gpu, nvidia.com/mig-<profile>, or a name given in resources")
        })?;

    let is_mps = strategy == SharingStrategy::Mps;
    if is_mps && name.as_str().starts_with("nvidia.com/mig-") {
        return Err(wrong("name", "MPS shares whole GPUs: use sharing.timeSlicing for MIG devices"));
    }

    let (most, why) =
        if is_mps { (MPS_CLIENTS_MAX, ", the most clients of one MPS server") } else { (REPLICAS_MAX, "") };
    let replicas = value("replicas").as_u64().and_then(|n| u32::try_from(n).ok());
    let replicas = replicas
        .filter(|replicas| (2..=most).contains(replicas))
        .ok_or_else(|| wrong("replicas", &format!("use a whole number from 2 to {most}{why}")))?;

    let rename = match value("rename") {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        value => Some(value.as_str().and_then(resource_name).ok_or_else(|| {
            wrong(
                "rename",
                "use a resource name of nvidia.com, at most 63 lower-case letters, digits, '-' and '.'",
            )
        })?),
    };
    let rename = rename.or_else(|| rename_by_default.then(|| name.shared())).filter(|rename| *rename != name);
    let devices = devices(value("devices")).ok_or_else(|| {
        wrong("devices", r#"use all, a number of devices, or a list of UUIDs and indices such as [0, "1:0"]"#)
    })?;
    Ok(SharedResource { name, rename, devices, replicas })
}

/// `devices`, in NVIDIA's grammar.
fn devices(value: &Value) -> Option<SharedDevices> {
    match value {
        Value::Null => Some(SharedDevices::All),
        Value::String(all) if all == "all" => Some(SharedDevices::All),
        Value::Number(count) => {
            let count = count.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|count| *count > 0);
            count.map(SharedDevices::Count)
        }
        Value::Array(list) if !list.is_empty() && list.len() <= LIST_MAX => {
            list.iter().map(device).collect::<Option<_>>().map(SharedDevices::List)
        }
        _ => None,
    }
}

fn device(value: &Value) -> Option<String> {
    let is_index = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match value {
        Value::Number(index) => index.as_u64().map(|index| index.to_string()),
        Value::String(text) => {
            let is_mig_index = text.split_once(':').is_some_and(|(gpu, mig)| is_index(gpu) && is_index(mig));
            let is_uuid = text.starts_with("GPU-") || text.starts_with("MIG-");
            (is_index(text) || is_mig_index || is_uuid).then(|| text.clone())
        }
        _ => None,
    }
}
