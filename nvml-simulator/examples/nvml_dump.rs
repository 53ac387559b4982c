//! Prints what a program sees through NVML, much as `nvidia-smi -L` does.
//!
//! ```sh
//! NVML_SIMULATOR_CONFIG=node.yaml cargo run -p nvml-simulator --example nvml_dump
//! ```
//! An argument names another library, e.g. a real `libnvidia-ml.so.1`, to compare with.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::path::PathBuf;
use std::process::ExitCode;

use nvml_simulator::library_near;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

fn main() -> ExitCode {
    let near = || std::env::current_exe().ok().and_then(|executable| library_near(&executable));
    let Some(library) = std::env::args_os().nth(1).map(PathBuf::from).or_else(near) else {
        eprintln!("the library is not built: cargo build -p nvml-simulator");
        return ExitCode::FAILURE;
    };
    match Nvml::builder().lib_path(library.as_os_str()).init().and_then(|nvml| dump(&nvml)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", library.display());
            ExitCode::FAILURE
        }
    }
}

fn dump(nvml: &Nvml) -> Result<(), NvmlError> {
    let cuda = nvml.sys_cuda_driver_version()?;
    println!("driver {}, CUDA {}.{}", nvml.sys_driver_version()?, cuda / 1000, cuda % 1000 / 10);
    for index in 0..nvml.device_count()? {
        match nvml.device_by_index(index).and_then(|gpu| dump_gpu(index, &gpu)) {
            Ok(()) => {}
            Err(error) => println!("GPU {index}: {error}"),
        }
    }
    Ok(())
}

fn dump_gpu(index: u32, gpu: &Device<'_>) -> Result<(), NvmlError> {
    let numa = gpu.numa_node_id().map_or("no NUMA node".to_owned(), |node| format!("NUMA node {node}"));
    let mib = gpu.memory_info()?.total >> 20;
    let (name, uuid, bus) = (gpu.name()?, gpu.uuid()?, gpu.pci_info()?.bus_id);
    println!("GPU {index}: {name} (UUID: {uuid}) {mib} MiB, {bus}, {numa}");
    for number in 0..gpu.mig_device_count()? {
        match gpu.mig_device_by_index(number) {
            Ok(mig) => {
                let mib = mig.memory_info()?.total >> 20;
                println!("  MIG Device {number}: {} (UUID: {}) {mib} MiB", mig.name()?, mig.uuid()?);
            }
            Err(NvmlError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
