//! The least program that uses NVML: loads the library, looks at the GPUs once, and tells its own peak memory.
//!
//! What a plugin takes beyond this is the plugin's own.
#![allow(clippy::print_stdout)]

use std::ffi::OsString;

use anyhow::{Context, Result};
use nvml_wrapper::Nvml;

fn main() -> Result<()> {
    let library: OsString = std::env::args_os().nth(1).context("usage: bare-library LIBRARY")?;
    let nvml = Nvml::builder().lib_path(&library).init()?;
    for index in 0..nvml.device_count()? {
        nvml.device_by_index(index)?.uuid()?;
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    println!("{}", peak.trim().trim_end_matches(" kB"));
    Ok(())
}
