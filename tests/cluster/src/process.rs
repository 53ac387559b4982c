//! Starting, killing, restarting and waiting for the cluster's processes, each with a log file of its own.
//!
//! Every process is ended by its own id, at the latest when its [`Process`] is dropped. What a process leaves
//! behind (containerd's shims, for instance) is ended by [`crate::Isolated`].

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How often a process that should end is looked at.
const POLL: Duration = Duration::from_millis(10);
/// Where every program finds the Debian programs it calls (runc, mount, ip).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to start: what to run, with what, and under which name its log is found.
///
/// The environment is empty but for `PATH`, `HOME` and what [`Self::env`] adds: a proxy setting or a
/// `KUBECONFIG` of whoever runs the tests must not reach the cluster.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Program {
    /// `name` names the log file and appears in messages; `path` is absolute.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), arguments: Vec::new(), environment: Vec::new() }
    }

    /// The same program under another name.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Adds one argument.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds several arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets one environment variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn command(&self, log: &File, mount_namespace: Option<&Arc<OwnedFd>>) -> io::Result<Command> {
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .process_group(0);
        if let Some(namespace) = mount_namespace.cloned() {
            // SAFETY: the closure runs in the forked child and makes one system call on a descriptor that it
            // owns; it allocates nothing and takes no lock. The child is single-threaded and shares its
            // root and working directory with nobody, as setns(2) asks for mount namespaces.
            unsafe {
                command.pre_exec(move || {
                    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?)
                });
            }
        }
        Ok(command)
    }
}

/// A started program. Dropping it kills it (SIGKILL) and reaps it.
///
/// All methods take `&self`, so that one task may kill a process while another uses its node.
#[derive(Debug)]
pub struct Process {
    program: Program,
    log: PathBuf,
    mount_namespace: Option<Arc<OwnedFd>>,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `program`, in the mount namespace of a node where one is given. Standard output and standard
    /// error are appended to `log_folder/NAME.log`.
    pub(crate) fn start(
        program: Program,
        log_folder: &Path,
        mount_namespace: Option<Arc<OwnedFd>>,
    ) -> Result<Self> {
        let log = log_folder.join(&program.name).with_added_extension("log");
        let child = spawn(&program, &log, mount_namespace.as_ref())?;
        Ok(Self { program, log, mount_namespace, child: Mutex::new(child) })
    }

    /// The name given to [`Program::new`].
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// The process id, as this test process sees it (the cluster has a PID namespace of its own).
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Where standard output and standard error go; a restart appends.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last `lines` lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        log_tail(&self.log, lines)
    }

    /// How the process ended, or `None` while it runs.
    pub fn exited(&self) -> Option<ExitStatus> {
        // An error means that somebody else reaped it, which nobody does.
        self.child().try_wait().ok().flatten()
    }

    /// Sends `signal`. A process that has ended is no error.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child();
        // Not yet reaped, so the id still belongs to this child and to nobody else.
        if let Ok(None) = child.try_wait()
            && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills the process (SIGKILL) and reaps it.
    pub fn kill(&self) -> Result<ExitStatus> {
        let mut child = self.child();
        child.kill().with_context(|| format!("cannot kill {}", self.program.name))?;
        child.wait().with_context(|| format!("cannot wait for {}", self.program.name))
    }

    /// Asks the process to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When it still runs after `limit`; it keeps running then.
    pub async fn terminate(&self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait_exit(limit).await
    }

    /// Waits until the process has ended by itself and says how.
    ///
    /// # Errors
    /// When it still runs after `limit`, with the end of its log.
    pub async fn wait_exit(&self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited() {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} still runs after {limit:?}; its log ends:\n{}", self.name(), self.log_tail(20));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts the same program again, in the same place, with the same log; kills it first if it runs.
    pub fn restart(&self) -> Result<()> {
        self.kill()?;
        *self.child() = spawn(&self.program, &self.log, self.mount_namespace.as_ref())?;
        Ok(())
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        // A panic elsewhere leaves a child as it was: still to be killed.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn spawn(program: &Program, log: &Path, mount_namespace: Option<&Arc<OwnedFd>>) -> Result<Child> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot open the log {}", log.display()))?;
    program
        .command(&file, mount_namespace)
        .and_then(|mut command| command.spawn())
        .with_context(|| format!("cannot start {} ({})", program.name, program.path.display()))
}

/// The last `lines` lines of a log file, or why it cannot be read.
pub(crate) fn log_tail(log: &Path, lines: usize) -> String {
    match fs::read(log) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("(cannot read {}: {error})", log.display()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shell(script: &str) -> Program {
        Program::new("shell", "/bin/sh").args(["-c", script])
    }

    fn start(script: &str) -> (tempfile::TempDir, Process) {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(shell(script), folder.path(), None).unwrap();
        (folder, process)
    }

    #[tokio::test]
    async fn a_process_that_ends_by_itself_gives_its_exit_code_and_its_log() {
        let (_folder, process) = start("echo one; echo two >&2; exit 3");
        let status = process.wait_exit(Duration::from_secs(10)).await.unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(process.log_tail(1), "two");
        assert_eq!(process.log_tail(9), "one\ntwo");
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_reported_and_then_killed() {
        let (_folder, process) = start("trap '' TERM; echo ready; while :; do sleep 0.05; done");
        crate::wait_until(Duration::from_secs(10), "the trap", async || {
            anyhow::ensure!(process.log_tail(1) == "ready");
            Ok(())
        })
        .await
        .unwrap();
        let error = process.terminate(Duration::from_millis(200)).await.unwrap_err();
        assert!(error.to_string().contains("still runs"), "{error}");
        assert_eq!(process.exited(), None);
        process.kill().unwrap();
        assert!(process.exited().is_some());
    }

    #[tokio::test]
    async fn a_restart_ends_the_old_process_and_appends_to_its_log() {
        let (_folder, process) = start("echo $$; exec sleep 600");
        let first = process.pid();
        process.restart().unwrap();
        assert_ne!(process.pid(), first);
        assert!(!Path::new(&format!("/proc/{first}")).exists());
        let logged = crate::wait_until(Duration::from_secs(10), "the second line", async || {
            let tail = process.log_tail(9);
            anyhow::ensure!(tail.ends_with(&process.pid().to_string()), "{tail}");
            Ok(tail)
        });
        logged.await.unwrap();
    }

    #[tokio::test]
    async fn the_environment_of_whoever_runs_the_tests_does_not_reach_a_process() {
        let folder = tempfile::tempdir().unwrap();
        let program = Program::new("env", "/usr/bin/env").env("ASKED_FOR", "yes");
        let process = Process::start(program, folder.path(), None).unwrap();
        process.wait_exit(Duration::from_secs(10)).await.unwrap();
        let log = process.log_tail(99);
        let mut names: Vec<_> = log.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["ASKED_FOR", "HOME", "PATH"]);
    }
}
