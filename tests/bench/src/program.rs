//! The programs under measurement: found, started, asked for their memory and time, ended.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// A program that was built in the same profile as this one.
pub(crate) fn built(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let path = me.parent().context("a program without a folder")?.join(name);
    ensure!(path.exists(), "{} is missing: run `cargo xtask bench`", path.display());
    Ok(path)
}

/// A running program; ended when dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Starts it, its output thrown away unless `STOWAGE_BENCH_LOGS` is set.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let output = || {
            if std::env::var_os("STOWAGE_BENCH_LOGS").is_some() { Stdio::inherit() } else { Stdio::null() }
        };
        let child = command.stdin(Stdio::null()).stdout(output()).stderr(output()).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {command:?}"))?))
    }

    /// Starts it with its input and output held by us: it can tell us something, and knows when we end.
    pub(crate) fn start_with_pipes(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {command:?}"))?))
    }

    /// Its output, once, if it was started with pipes.
    pub(crate) fn output(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Resident memory now and at its peak, in MiB.
    pub(crate) fn memory_mib(&self) -> Result<(f64, f64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let field = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such field")?;
            let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
            Ok(kib / 1024.0)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }

    /// How long its threads have been on a processor, as the scheduler counts it: in nanoseconds, not in ticks.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            // A thread may end in between; what it used is lost, which is a fault of at most that thread's time.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            nanoseconds += text.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Prints its memory.
    pub(crate) fn print_memory(&self, what: &str) -> Result<()> {
        let (now, peak) = self.memory_mib()?;
        println!("  {what:<58} RSS {now:>7.1} MiB   peak {peak:>7.1} MiB");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ours, and about to be forgotten; whether it had ended already does not matter.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
