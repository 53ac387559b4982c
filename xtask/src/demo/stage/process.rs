//! A child process that never outlives the demo.
//!
//! It is killed when its handle is dropped, which covers errors and Ctrl-C, and by the kernel when this
//! process dies otherwise. Its output goes to a file, whose end is shown where the child failed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a child may take to end after SIGTERM, before it is killed.
const END_MAX: Duration = Duration::from_secs(2);
/// How much of a log is shown.
const LOG_SHOWN_BYTES: u64 = 2_000;

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; `name` is for messages, `log` for its output.
    pub fn start(
        name: &str,
        program: &Path,
        log: PathBuf,
        set_up: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().context("cannot share a log file")?;
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
        set_up(&mut command);
        die_with_us(command.as_std_mut());
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// An error, with the end of the log, if the process has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) =
            self.child.try_wait().with_context(|| format!("cannot ask for {}", self.name))?
        {
            bail!("{} ended with {status}; its last words:\n{}", self.name, self.last_words());
        }
        Ok(())
    }

    /// The end of what it wrote.
    pub fn last_words(&self) -> String {
        let mut text = String::new();
        let read = File::open(&self.log).and_then(|mut file| {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_SHOWN_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            text = String::from_utf8_lossy(&bytes).into_owned();
            Ok(())
        });
        if read.is_err() {
            text = format!("(its log {} cannot be read)", self.log.display());
        }
        text
    }

    /// Asks it to end and waits; kills it if it does not.
    pub async fn end(mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended in between.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(END_MAX, self.child.wait()).await.is_err() {
            // Nothing is lost by a failure here: the handle kills once more when dropped.
            let _ = self.child.kill().await;
        }
    }
}

/// Lets the kernel end the child when the thread that starts it ends: the demo has one thread.
pub fn die_with_us(command: &mut std::process::Command) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is one system call
    // (prctl) that neither allocates nor locks.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, folder: &Path) -> Process {
        let script = script.to_owned();
        Process::start("the shell", Path::new("/bin/sh"), folder.join("log"), |command| {
            command.args(["-c", &script]);
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_child_that_ends_by_itself_is_an_error_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell("echo no such node >&2; exit 78", folder.path());
        process.child.wait().await.unwrap();
        let error = process.check().unwrap_err().to_string();
        assert!(error.contains("78") && error.contains("no such node"), "{error}");
    }

    #[tokio::test]
    async fn a_child_that_does_not_want_to_end_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let process = shell("trap '' TERM; echo ready; while true; do sleep 0.05; done", folder.path());
        while !process.last_words().contains("ready") {
            tokio::task::yield_now().await;
        }
        let pid = Pid::from_raw(i32::try_from(process.child.id().unwrap()).unwrap()).unwrap();
        timeout(END_MAX * 3, process.end()).await.unwrap();
        assert!(rustix::process::test_kill_process(pid).is_err(), "it is gone");
    }
}
