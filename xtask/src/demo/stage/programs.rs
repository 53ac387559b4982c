//! The programs that the demo runs: built first, then found beside this one.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::process::die_with_us;

/// What is built.
const PACKAGES: [&str; 3] = ["stowage-device-plugin", "stowage-scheduler-extender", "nvml-simulator"];
/// A build that takes longer is worth a word.
const SLOW: Duration = Duration::from_secs(2);

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The device plugin.
    pub plugin: PathBuf,
    /// The scheduler extender.
    pub extender: PathBuf,
    /// The simulated `libnvidia-ml.so.1`.
    pub nvml: PathBuf,
}

impl Programs {
    /// Builds them in the profile of this program, and says so if it takes a while.
    pub fn build() -> Result<Self> {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).args(["build", "--quiet"]);
        cargo.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        die_with_us(&mut cargo);
        let mut build = cargo.spawn().with_context(|| format!("cannot run {cargo:?}"))?;
        let started = Instant::now();
        let mut told = false;
        let status = loop {
            if let Some(status) = build.try_wait().context("cannot wait for cargo")? {
                break status;
            }
            if !told && started.elapsed() > SLOW {
                told = true;
                // Progress only: a closed standard error is no reason to stop.
                let _ = writeln!(
                    std::io::stderr(),
                    "Building the device plugin, the extender and the simulator …"
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        ensure!(status.success(), "the programs cannot be built: {cargo:?} ended with {status}");

        let own = env::current_exe().context("cannot tell where this program is")?;
        let folder = own.parent().context("this program lies in no folder")?;
        let there = |name: &str| {
            let path = folder.join(name);
            ensure!(path.is_file(), "{} was built but is not there", path.display());
            Ok(path)
        };
        let nvml = nvml_simulator::library_near(&own).context("the simulator was built but is not there")?;
        Ok(Self {
            plugin: there("stowage-device-plugin")?,
            extender: there("stowage-scheduler-extender")?,
            nvml,
        })
    }
}
