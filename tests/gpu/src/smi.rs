//! What `nvidia-smi` says: `-q -x`, and what that leaves out.
//!
//! Its XML grows with every driver, so nothing here is required but the GPUs' UUIDs: a field that is not there, or
//! is `N/A`, is `None`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use roxmltree::{Document, Node, ParsingOptions};
use tokio::process::Command;

/// Where `nvidia-smi` is.
#[derive(Debug)]
pub struct Tool(pub PathBuf);

/// Why there is nothing to compare with.
#[derive(Debug)]
pub struct NoGpu(pub String);

/// What it says of the machine.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Said {
    pub driver_version: Option<String>,
    pub cuda_version: Option<String>,
    pub attached: Option<u64>,
    pub gpus: Vec<Gpu>,
    /// The cells of `topo -m`, by the two GPUs' indices: `NV18`, `PIX`, `SYS`.
    pub paths: BTreeMap<(u32, u32), String>,
}

/// Of one GPU; memory in MiB.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gpu {
    pub uuid: String,
    pub bus_id: Option<String>,
    pub product: Option<String>,
    pub minor: Option<u64>,
    /// `Enabled`, `Disabled`, or none where the GPU has no MIG.
    pub mig_mode: Option<String>,
    pub mig_devices: Vec<MigDevice>,
    pub memory: Memory,
    pub gpu_percent: Option<u64>,
    pub memory_percent: Option<u64>,
    /// Since the driver was loaded or the GPU reset.
    pub uncorrected_errors: Option<u64>,
    pub row_remap_pending: Option<bool>,
    pub row_remap_failed: Option<bool>,
    pub recovery_action: Option<String>,
    /// Cluster and clique of a fabric that it is a complete member of.
    pub fabric: Option<(String, u64)>,
    /// `9.0`.
    pub compute_capability: Option<String>,
}

/// Framebuffer memory in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Memory {
    pub total: Option<u64>,
    pub used: Option<u64>,
    pub free: Option<u64>,
}

/// Of one MIG device.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MigDevice {
    pub gpu_instance: u64,
    pub compute_instance: u64,
    pub index: Option<u64>,
    pub memory: Memory,
    /// Multiprocessors and engines, under the names of the XML.
    pub shared: BTreeMap<String, u64>,
}

impl Tool {
    /// Asks; `Err` where there is no GPU.
    pub async fn ask(&self) -> Result<Result<Said>, NoGpu> {
        let xml = match self.run(&["-q", "-x"]).await {
            Ok(xml) => xml,
            Err(error) => return Err(NoGpu(format!("there is no working nvidia-smi here: {error:#}"))),
        };
        let mut said = match parse(&xml) {
            Ok(said) if said.gpus.is_empty() => return Err(NoGpu("nvidia-smi lists no GPU".to_owned())),
            Ok(said) => said,
            Err(error) => return Ok(Err(error)),
        };
        // Both are left out by some drivers: then they are not compared.
        if let Ok(text) = self.run(&["--query-gpu=uuid,compute_cap", "--format=csv,noheader"]).await {
            let rows: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(", ")).collect();
            for gpu in &mut said.gpus {
                gpu.compute_capability = rows.get(gpu.uuid.as_str()).and_then(|text| value(text));
            }
        }
        if let Ok(text) = self.run(&["topo", "-m"]).await {
            said.paths = paths(&text);
        }
        Ok(Ok(said))
    }

    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.0).args(arguments).output().await;
        let output = output.with_context(|| self.0.display().to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::ensure!(
            output.status.success(),
            "{} {}: {}",
            self.0.display(),
            arguments.join(" "),
            text.trim()
        );
        Ok(text)
    }
}

/// Reads `-q -x`.
fn parse(xml: &str) -> Result<Said> {
    // It names its document type, which is not looked up.
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(xml, options).context("nvidia-smi -q -x is not XML")?;
    let root = document.root_element();
    let gpus = root.children().filter(|node| node.has_tag_name("gpu"));
    Ok(Said {
        driver_version: text(root, &["driver_version"]),
        cuda_version: text(root, &["cuda_version"]),
        attached: number(root, &["attached_gpus"]),
        gpus: gpus.map(gpu).collect::<Result<_>>()?,
        paths: BTreeMap::new(),
    })
}

fn gpu(node: Node<'_, '_>) -> Result<Gpu> {
    let fabric = match text(node, &["fabric", "state"]).as_deref() {
        Some("Completed") => {
            text(node, &["fabric", "clusterUuid"]).zip(number(node, &["fabric", "cliqueId"]))
        }
        _ => None,
    };
    let mig_devices = child(node, &["mig_devices"]);
    let mig_devices =
        mig_devices.into_iter().flat_map(|list| list.children().filter(|n| n.has_tag_name("mig_device")));
    Ok(Gpu {
        uuid: text(node, &["uuid"]).context("a GPU of nvidia-smi -q -x has no uuid")?,
        bus_id: node.attribute("id").map(str::to_owned),
        product: text(node, &["product_name"]),
        minor: number(node, &["minor_number"]),
        mig_mode: text(node, &["mig_mode", "current_mig"]),
        mig_devices: mig_devices.map(mig_device).collect::<Result<_>>()?,
        memory: memory(node),
        gpu_percent: number(node, &["utilization", "gpu_util"]),
        memory_percent: number(node, &["utilization", "memory_util"]),
        uncorrected_errors: uncorrected(node),
        row_remap_pending: yes(node, &["remapped_rows", "remapped_row_pending"]),
        row_remap_failed: yes(node, &["remapped_rows", "remapped_row_failure"]),
        recovery_action: text(node, &["gpu_recovery_action"]),
        fabric,
        compute_capability: None,
    })
}

fn mig_device(node: Node<'_, '_>) -> Result<MigDevice> {
    let shared = child(node, &["device_attributes", "shared"]);
    let shared = shared.into_iter().flat_map(|shared| shared.children().filter(Node::is_element));
    Ok(MigDevice {
        gpu_instance: number(node, &["gpu_instance_id"]).context("a MIG device has no gpu_instance_id")?,
        compute_instance: number(node, &["compute_instance_id"])
            .context("a MIG device has no compute_instance_id")?,
        index: number(node, &["index"]),
        memory: memory(node),
        shared: shared.filter_map(|n| Some((n.tag_name().name().to_owned(), number(n, &[])?))).collect(),
    })
}

fn memory(node: Node<'_, '_>) -> Memory {
    let of = |what| number(node, &["fb_memory_usage", what]);
    Memory { total: of("total"), used: of("used"), free: of("free") }
}

/// All kinds together: newer drivers tell SRAM's by parity and SEC-DED.
fn uncorrected(node: Node<'_, '_>) -> Option<u64> {
    let volatile = child(node, &["ecc_errors", "volatile"])?;
    let kinds = volatile.children().filter(|n| n.tag_name().name().contains("uncorrectable"));
    let counts: Vec<u64> = kinds.filter_map(|kind| number(kind, &[])).collect();
    (!counts.is_empty()).then(|| counts.iter().sum())
}

/// The cells of `topo -m`: one line for each GPU, whose first columns are the GPUs.
fn paths(text: &str) -> BTreeMap<(u32, u32), String> {
    let index = |word: &str| word.strip_prefix("GPU").and_then(|number| number.parse::<u32>().ok());
    let mut lines = text.lines();
    let Some(header) = lines.find(|line| line.contains("GPU0")) else { return BTreeMap::new() };
    let columns: Vec<u32> = header.split_whitespace().map_while(index).collect();
    let mut paths = BTreeMap::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let Some(row) = words.next().and_then(index) else { continue };
        for (column, cell) in columns.iter().zip(words).filter(|(column, _)| row < **column) {
            paths.insert((row, *column), cell.to_owned());
        }
    }
    paths
}

fn child<'a, 'i>(node: Node<'a, 'i>, path: &[&str]) -> Option<Node<'a, 'i>> {
    path.iter().try_fold(node, |node, name| node.children().find(|child| child.has_tag_name(*name)))
}

fn text(node: Node<'_, '_>, path: &[&str]) -> Option<String> {
    value(child(node, path)?.text()?)
}

fn value(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && !["N/A", "[N/A]", "[Not Supported]", "Not Supported"].contains(&text))
        .then(|| text.to_owned())
}

/// A whole number, without its unit.
fn number(node: Node<'_, '_>, path: &[&str]) -> Option<u64> {
    text(node, path)?.split_whitespace().next()?.parse().ok()
}

fn yes(node: Node<'_, '_>, path: &[&str]) -> Option<bool> {
    match text(node, path)?.as_str() {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_not_there_or_not_available_is_none() {
        let said = parse(
            "<nvidia_smi_log><gpu><uuid>GPU-a</uuid><minor_number>N/A</minor_number></gpu></nvidia_smi_log>",
        );
        assert_eq!(said.unwrap().gpus, [Gpu { uuid: "GPU-a".into(), ..Gpu::default() }]);
        assert!(
            parse("<nvidia_smi_log><gpu/></nvidia_smi_log>").is_err(),
            "without a UUID nothing can be matched"
        );
        assert!(parse("Failed to initialize NVML").is_err());
    }

    #[test]
    fn all_kinds_of_uncorrected_errors_are_added_up() {
        let said = parse(
            "<nvidia_smi_log><gpu><uuid>GPU-a</uuid><ecc_errors><volatile><sram_correctable>9</sram_correctable>\
             <sram_uncorrectable_parity>1</sram_uncorrectable_parity><sram_uncorrectable_secded>2</sram_uncorrectable_secded>\
             <dram_uncorrectable>4</dram_uncorrectable></volatile></ecc_errors></gpu></nvidia_smi_log>",
        );
        assert_eq!(said.unwrap().gpus[0].uncorrected_errors, Some(7));
    }

    #[test]
    fn the_upper_half_of_the_topology_is_read() {
        let text = "\tGPU0\tGPU1\tGPU2\tNIC0\tCPU Affinity\nGPU0\t X \tNV12\tSYS\tPIX\t0-7\nGPU1\tNV12\t X \tNODE\tSYS\t0-7\n\
                    GPU2\tSYS\tNODE\t X \tSYS\t0-7\nNIC0\tPIX\tSYS\tSYS\t X\n\nLegend:\n\n  X    = Self\n";
        let cell = |a, b, word: &str| ((a, b), word.to_owned());
        assert_eq!(paths(text), [cell(0, 1, "NV12"), cell(0, 2, "SYS"), cell(1, 2, "NODE")].into());
    }
}
