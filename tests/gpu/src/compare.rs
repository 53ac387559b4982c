//! Field by field: what the plugin's code sees beside what `nvidia-smi` says. Pure.
//!
//! What stays as it is must be equal. What changes from one moment to the next, memory in use and utilization, must lie
//! where `nvidia-smi` saw it before and after, give or take what a moment can change.

use std::fmt;

use stowage_device_plugin::nvml::{MemoryUsage, MigAttributes, RecoveryAction};
use stowage_shared::gpu::GpuUuid;
use stowage_shared::units::MemoryMib;

use crate::ours::{self, Ours};
use crate::smi::{self, Said};

/// What is in use may change by that much between two looks, in MiB.
const MEMORY_SLACK_MIB: u64 = 64;
/// Utilization is an average over the last moments: it may change by that much, in per cent.
const PERCENT_SLACK: u64 = 25;
/// Bytes become MiB by rounding there, by cutting off here.
const ROUNDING_MIB: u64 = 1;

/// One value of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Of what.
    pub of: String,
    /// Which value.
    pub field: String,
    /// As the plugin's code sees it.
    pub ours: String,
    /// As `nvidia-smi` says it.
    pub theirs: String,
    /// How the two compare.
    pub verdict: Verdict,
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They agree.
    Same,
    /// They do not.
    Differs,
    /// This `nvidia-smi` does not say it.
    NotTold,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, field, ours, theirs, verdict } = self;
        match verdict {
            Verdict::Same => write!(f, "  same     {of}, {field}: {ours}"),
            Verdict::Differs => {
                write!(f, "  DIFFERS  {of}, {field}: the plugin sees {ours}, nvidia-smi says {theirs}")
            }
            Verdict::NotTold => write!(f, "  not told {of}, {field}: {ours}"),
        }
    }
}

/// Compares all there is.
pub fn compare(before: &Said, after: &Said, ours: &Ours) -> Vec<Row> {
    let mut node = Rows { of: "the node".to_owned(), rows: Vec::new() };
    node.equal("driver version", &ours.driver_version, before.driver_version.as_ref());
    let (major, minor) = ours.cuda_version;
    node.equal("CUDA version", format!("{major}.{minor}"), before.cuda_version.clone());
    node.equal("GPUs", ours.gpus.len() as u64, before.attached);
    node.must("GPUs listed", ours.gpus.len(), before.gpus.len());
    for (index, gpu) in ours.gpus.iter().enumerate() {
        match gpu {
            Err(why) => node.must(
                "a GPU that can be read",
                format!("GPU {index}: {why}"),
                "GPUs that answer".to_owned(),
            ),
            Ok(gpu) => {
                let uuid = gpu.reading.uuid.as_str();
                let find = |said: &Said| said.gpus.iter().find(|other| other.uuid == uuid).cloned();
                match find(before) {
                    None => node.must("UUIDs", uuid, "no such GPU"),
                    Some(theirs) => {
                        let mut of_gpu = Rows { of: format!("GPU {index}"), rows: Vec::new() };
                        of_gpu.must("UUID", uuid, theirs.uuid.as_str());
                        of_gpu.gpu(gpu, &theirs, &find(after).unwrap_or_else(|| theirs.clone()));
                        node.rows.extend(of_gpu.rows);
                    }
                }
            }
        }
    }
    node.paths(ours, before);
    node.labels(ours, before);
    node.rows
}

struct Rows {
    of: String,
    rows: Vec<Row>,
}

impl Rows {
    fn row(&mut self, field: &str, ours: String, theirs: String, verdict: Verdict) {
        self.rows.push(Row { of: self.of.clone(), field: field.to_owned(), ours, theirs, verdict });
    }

    /// Equal, where it is told.
    fn equal<T: PartialEq + fmt::Display>(&mut self, field: &str, ours: T, theirs: Option<T>) {
        match theirs {
            None => self.row(field, ours.to_string(), String::new(), Verdict::NotTold),
            Some(theirs) => self.must(field, ours, theirs),
        }
    }

    /// Equal.
    fn must<T: PartialEq + fmt::Display>(&mut self, field: &str, ours: T, theirs: T) {
        let verdict = if ours == theirs { Verdict::Same } else { Verdict::Differs };
        self.row(field, ours.to_string(), theirs.to_string(), verdict);
    }

    /// Both told and equal, or told by neither.
    fn both<T: PartialEq + fmt::Display>(&mut self, field: &str, ours: Option<T>, theirs: Option<T>) {
        let text = |value: Option<T>| value.map_or_else(|| "N/A".to_owned(), |value| value.to_string());
        self.must(field, text(ours), text(theirs));
    }

    /// Where it was, give or take.
    fn near(&mut self, field: &str, ours: Option<u64>, theirs: [Option<u64>; 2], slack: u64) {
        let told: Vec<u64> = theirs.into_iter().flatten().collect();
        let range = told.iter().min().zip(told.iter().max());
        let fits = match (ours, range) {
            (Some(ours), Some((least, most))) => (least.saturating_sub(slack)..=most + slack).contains(&ours),
            (None, None) => true,
            _ => false,
        };
        let verdict = if fits { Verdict::Same } else { Verdict::Differs };
        let text = |value: Option<u64>| value.map_or_else(|| "N/A".to_owned(), |value| value.to_string());
        self.row(
            field,
            text(ours),
            told.iter().map(u64::to_string).collect::<Vec<_>>().join(" to "),
            verdict,
        );
    }

    fn gpu(&mut self, ours: &ours::Gpu, before: &smi::Gpu, after: &smi::Gpu) {
        let (reading, details, vitals) = (&ours.reading, &ours.details, &ours.vitals);
        self.equal("name", &reading.model, before.product.as_ref());
        self.equal(
            "PCI bus id",
            reading.bus_id.to_uppercase(),
            before.bus_id.as_ref().map(|id| id.to_uppercase()),
        );
        self.equal("minor number", u64::from(reading.minor), before.minor);
        let total = before.memory.total;
        self.near("memory (MiB)", Some(reading.memory.0), [total, total], ROUNDING_MIB);
        let (major, minor) = details.compute_capability;
        self.equal("compute capability", format!("{major}.{minor}"), before.compute_capability.clone());
        self.fabric(details.fabric.as_ref(), before.fabric.as_ref());

        self.both("uncorrected memory errors", vitals.uncorrected_errors, before.uncorrected_errors);
        self.equal("row remap pending", vitals.row_remap_pending, before.row_remap_pending);
        self.equal("row remap failed", vitals.row_remap_failed, before.row_remap_failed);
        if let Some(action) = vitals.recovery_action {
            self.equal("recovery action", recovery_word(action).to_owned(), before.recovery_action.clone());
        }
        let wants =
            before.recovery_action.as_deref().is_some_and(|action| !["None", "Drain P2P"].contains(&action));
        let healthy =
            !wants && before.row_remap_pending != Some(true) && before.row_remap_failed != Some(true);
        let state =
            |why: Option<String>| why.map_or_else(|| "healthy".to_owned(), |why| format!("ill ({why})"));
        let verdict = if healthy == ours.ill.is_none() { Verdict::Same } else { Verdict::Differs };
        self.row(
            "health",
            state(ours.ill.clone()),
            if healthy { "nothing wrong" } else { "trouble" }.to_owned(),
            verdict,
        );

        let usage = &ours.usage;
        self.used(usage.memory, before.memory, after.memory);
        let percent = |value: Option<u32>| value.map(u64::from);
        self.near(
            "utilization (%)",
            percent(usage.gpu_percent),
            [before.gpu_percent, after.gpu_percent],
            PERCENT_SLACK,
        );
        let theirs = [before.memory_percent, after.memory_percent];
        self.near("memory utilization (%)", percent(usage.memory_copy_percent), theirs, PERCENT_SLACK);
        self.mig(ours, before, after);
    }

    fn used(&mut self, ours: MemoryUsage, before: smi::Memory, after: smi::Memory) {
        self.near("memory used (MiB)", Some(ours.used.0), [before.used, after.used], MEMORY_SLACK_MIB);
        self.near("memory free (MiB)", Some(ours.free.0), [before.free, after.free], MEMORY_SLACK_MIB);
    }

    fn fabric(&mut self, ours: Option<&stowage_device_plugin::nvml::Fabric>, theirs: Option<&(String, u64)>) {
        let ours = ours.map(|fabric| {
            let cluster: String = fabric.cluster.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{cluster}.{}", fabric.clique)
        });
        let hex =
            |text: &str| text.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_lowercase();
        // GPUs that are no members of any fabric say zeros.
        let theirs = theirs.map(|(cluster, clique)| (hex(cluster), clique));
        let theirs = theirs.filter(|(cluster, _)| cluster.chars().any(|digit| digit != '0'));
        self.both("NVLink fabric", ours, theirs.map(|(cluster, clique)| format!("{cluster}.{clique}")));
    }

    fn mig(&mut self, ours: &ours::Gpu, before: &smi::Gpu, after: &smi::Gpu) {
        let mode = |enabled: bool| if enabled { "Enabled" } else { "Disabled" }.to_owned();
        self.both(
            "MIG mode",
            ours.reading.mig.as_ref().map(|mig| mode(mig.enabled)),
            before.mig_mode.clone(),
        );
        let devices = ours.reading.mig.iter().flat_map(|mig| &mig.devices);
        let devices: Vec<_> = devices.zip(&ours.details.mig_devices).collect();
        self.must("MIG devices", devices.len(), before.mig_devices.len());
        for (device, attributes) in devices {
            let ids = (u64::from(device.gpu_instance_id), u64::from(device.compute_instance_id));
            let find = |gpu: &smi::Gpu| {
                gpu.mig_devices.iter().find(|d| (d.gpu_instance, d.compute_instance) == ids).cloned()
            };
            let mut rows = Rows { of: format!("{}, MIG {}/{}", self.of, ids.0, ids.1), rows: Vec::new() };
            match find(before) {
                None => rows.must("existence", "exists", "no such MIG device"),
                Some(theirs) => {
                    rows.equal("index", u64::from(device.index), theirs.index);
                    let total = theirs.memory.total;
                    rows.near("memory (MiB)", Some(attributes.memory_mib), [total, total], ROUNDING_MIB);
                    for (name, value) in engines(attributes) {
                        rows.equal(name, u64::from(value), theirs.shared.get(name).copied());
                    }
                    let slice =
                        ours.usage.slices.iter().find(|s| s.gpu_instance_id == device.gpu_instance_id);
                    let nothing = MemoryUsage { used: MemoryMib(0), free: MemoryMib(0) };
                    let usage = slice.map_or(nothing, |slice| slice.memory);
                    rows.used(usage, theirs.memory, find(after).unwrap_or_default().memory);
                }
            }
            self.rows.extend(rows.rows);
        }
    }

    /// PCIe paths count 10 to 60, and each direct NVLink 100 on top; links to a switch count nothing.
    fn paths(&mut self, ours: &Ours, said: &Said) {
        let uuid = |index: u32| -> Option<&GpuUuid> {
            ours.gpus
                .iter()
                .flatten()
                .map(|gpu| &gpu.reading)
                .find(|gpu| gpu.index == index)
                .map(|gpu| &gpu.uuid)
        };
        for ((one, other), cell) in &said.paths {
            let Some(score) = uuid(*one).zip(uuid(*other)).and_then(|(a, b)| ours.nearness.of(a, b)) else {
                continue;
            };
            let (links, path) = (score / 100, score % 100);
            let fits = match cell.as_str() {
                "PIX" => links == 0 && path >= 50,
                "PXB" => links == 0 && path == 40,
                "PHB" => links == 0 && path == 30,
                "NODE" => links == 0 && path == 20,
                "SYS" => links == 0 && path == 10,
                cell => cell
                    .strip_prefix("NV")
                    .and_then(|n| n.parse().ok())
                    .is_some_and(|n: u16| links == n || links == 0),
            };
            let verdict = if fits { Verdict::Same } else { Verdict::Differs };
            self.row(
                &format!("path of GPU {one} to {other}"),
                format!("{links} NVLinks, {path}"),
                cell.clone(),
                verdict,
            );
        }
    }

    fn labels(&mut self, ours: &Ours, said: &Said) {
        // With several models, the labels are those of one of them.
        let Some(first) =
            said.gpus.first().filter(|first| said.gpus.iter().all(|gpu| gpu.product == first.product))
        else {
            return;
        };
        let has_mig = said.gpus.iter().any(|gpu| gpu.mig_mode.is_some());
        let expected = [
            ("gpu.product", first.product.as_ref().map(|product| product.replace(' ', "-"))),
            ("gpu.count", Some(said.gpus.len().to_string())),
            ("gpu.memory", first.memory.total.map(|total| total.to_string())),
            ("gpu.compute.major", part(first.compute_capability.as_ref(), 0)),
            ("gpu.compute.minor", part(first.compute_capability.as_ref(), 1)),
            ("mig.capable", Some(has_mig.to_string())),
            ("cuda.driver-version.full", said.driver_version.clone()),
            ("cuda.driver-version.major", part(said.driver_version.as_ref(), 0)),
            ("cuda.runtime-version.full", said.cuda_version.clone()),
        ];
        for (key, theirs) in expected {
            let key = format!("nvidia.com/{key}");
            let ours = ours.labels.get(&key).cloned().unwrap_or_else(|| "missing".to_owned());
            self.equal(&format!("label {key}"), ours, theirs);
        }
    }
}

fn part(text: Option<&String>, index: usize) -> Option<String> {
    text?.split('.').nth(index).map(str::to_owned)
}

fn recovery_word(action: RecoveryAction) -> &'static str {
    match action {
        RecoveryAction::None => "None",
        RecoveryAction::DrainPeers => "Drain P2P",
        RecoveryAction::DrainAndReset => "Drain and Reset",
        RecoveryAction::Reset => "Reset",
        RecoveryAction::Reboot => "Reboot",
    }
}

/// Under the names of the XML.
fn engines(attributes: &MigAttributes) -> [(&'static str, u32); 6] {
    [
        ("multiprocessor_count", attributes.multiprocessors),
        ("copy_engine_count", attributes.copy_engines),
        ("encoder_count", attributes.encoders),
        ("decoder_count", attributes.decoders),
        ("ofa_count", attributes.ofa_engines),
        ("jpg_count", attributes.jpeg_engines),
    ]
}
