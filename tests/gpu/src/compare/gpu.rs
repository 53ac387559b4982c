//! One GPU.

use stowage_device_plugin::nvml::{Fabric, MemoryUsage, MigAttributes, RecoveryAction};
use stowage_shared::units::MemoryMib;

use super::{Rows, Verdict};
use crate::{ours, smi};

/// What is in use may change by that much between two looks, in MiB.
const MEMORY_SLACK_MIB: u64 = 64;
/// Utilization is an average over the last moments: it may change by that much, in per cent.
const PERCENT_SLACK: u64 = 25;
/// Bytes become MiB by rounding there, by cutting off here.
const ROUNDING_MIB: u64 = 1;

impl Rows {
    /// All of one GPU, and of its MIG devices.
    pub(super) fn gpu(&mut self, ours: &ours::Gpu, before: &smi::Gpu, after: &smi::Gpu) {
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

    fn fabric(&mut self, ours: Option<&Fabric>, theirs: Option<&(String, u64)>) {
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
