//! The cluster's program as a child, and its door.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdout, Command};

/// The program, running.
pub struct Cluster {
    child: Child,
    group: Pid,
    said: BufReader<ChildStdout>,
}

impl Cluster {
    /// Starts it, in a process group of its own: Ctrl-C in a terminal is for us, and it ends when we say so.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn start(program: &Path, folder: &Path, address: SocketAddr) -> Result<Self> {
        let mut child = Command::new(program)
            .arg(folder)
            .arg(address.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = id.context("the cluster's program ended at once")?;
        let said = BufReader::new(child.stdout.take().context("the cluster's program has no output")?);
        Ok(Self { child, group, said })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// Where it ends before; it has told why.
    pub async fn ready(&mut self) -> Result<()> {
        let mut line = String::new();
        self.said.read_line(&mut line).await.context("cannot read what the cluster says")?;
        if line.trim_end() == "ready" {
            return Ok(());
        }
        let status = self.child.wait().await.context("cannot wait for the cluster")?;
        bail!("the cluster did not start ({status}), for the reason above")
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// Where it ended badly.
    pub async fn end(&mut self) -> Result<()> {
        let status = self.child.wait().await.context("cannot wait for the cluster")?;
        ensure!(status.success(), "the cluster ended with {status}");
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Not yet reaped, so the id is still its own. What is below it the kernel ends, as it is in a namespace.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process_group(self.group, Signal::KILL);
        }
    }
}

/// The cluster's Unix socket, by its folder: a socket's whole path has at most 107 bytes, and a checkout may lie deep.
pub struct Door(File);

impl Door {
    /// The door in the folder of a cluster that is ready.
    ///
    /// # Errors
    /// Where there is no such folder.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        Ok(Self(File::open(folder).with_context(|| format!("cannot open {}", folder.display()))?))
    }

    /// Goes in. The cluster lives until the first who did goes away.
    ///
    /// # Errors
    /// Where it is shut.
    pub async fn enter(&self) -> Result<UnixStream> {
        let path = format!("/proc/self/fd/{}/door", self.0.as_raw_fd());
        UnixStream::connect(path).await.context("the cluster's door is shut")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_door_deep_in_folders_is_found() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a-folder-with-a-long-name".repeat(8));
        std::fs::create_dir(&deep).unwrap();
        let short = root.path().join("link");
        std::os::unix::fs::symlink(&deep, &short).unwrap();
        let _listener = UnixListener::bind(short.join("door")).unwrap();
        Door::in_folder(&deep).unwrap().enter().await.unwrap();
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_get_ready_is_an_error() {
        let mut cluster =
            Cluster::start(Path::new("/bin/false"), Path::new("/"), "127.0.0.1:1".parse().unwrap()).unwrap();
        let error = cluster.ready().await.unwrap_err();
        assert!(error.to_string().contains("did not start"), "{error}");
    }
}
