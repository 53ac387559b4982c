//! `nvidia-cuda-mps-control`: starts a daemon, and talks to it.
//!
//! It is NVIDIA's program and the only way to talk to the daemon: the daemon's pipes have no documented format. Each
//! call is a process of its own, bounded in time.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The program, which is looked for in `PATH`: the container runtime puts it there with the rest of the driver.
pub const PROGRAM: &str = "nvidia-cuda-mps-control";
/// How long one command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(5);
/// The most of an answer that is read, in bytes.
const ANSWER_MAX_BYTES: u64 = 4096;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It is not there, or cannot be executed.
    #[error(
        "cannot run {PROGRAM}, which comes with the driver: is NVIDIA_DRIVER_CAPABILITIES compute,utility here?"
    )]
    Run(#[source] io::Error),
    /// It does not end.
    #[error("{PROGRAM} has not carried out {command:?} within {} s", COMMAND_LIMIT.as_secs())]
    Hangs {
        /// What it was told.
        command: String,
    },
    /// It says no, or finds no daemon.
    #[error("{PROGRAM} does not carry out {command:?}: {said}")]
    Refused {
        /// What it was told.
        command: String,
        /// What it said, or how it ended.
        said: String,
    },
}

/// One daemon's control program.
#[derive(Debug, Clone)]
pub struct Control {
    /// Where its clients find it.
    pub pipe: PathBuf,
    /// Where it writes its logs.
    pub log: PathBuf,
}

impl Control {
    /// Starts the daemon, in the background: it outlives this program, as pods that run do.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn start(&self) -> Result<(), ControlError> {
        let mut command = self.command();
        // The daemon keeps what it inherits: a pipe would never end.
        let child =
            command.arg("-d").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.map_err(ControlError::Run)?;
        let hangs = |_| ControlError::Hangs { command: "-d".to_owned() };
        let status = timeout(COMMAND_LIMIT, child.wait()).await.map_err(hangs)?.map_err(ControlError::Run)?;
        if status.success() {
            return Ok(());
        }
        Err(ControlError::Refused { command: "-d".to_owned(), said: status.to_string() })
    }

    /// Tells the daemon something; its answer.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn tell(&self, text: &str) -> Result<String, ControlError> {
        let hangs = |_| ControlError::Hangs { command: text.to_owned() };
        let child =
            self.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let talk = talk(child.map_err(ControlError::Run)?, text);
        let (success, said) =
            timeout(COMMAND_LIMIT, talk).await.map_err(hangs)?.map_err(ControlError::Run)?;
        if success { Ok(said) } else { Err(ControlError::Refused { command: text.to_owned(), said }) }
    }

    /// Whether the daemon answers.
    ///
    /// # Errors
    /// [`ControlError`], where it does not.
    pub async fn probe(&self) -> Result<(), ControlError> {
        self.tell("get_default_active_thread_percentage").await.map(drop)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.env("CUDA_MPS_PIPE_DIRECTORY", &self.pipe).env("CUDA_MPS_LOG_DIRECTORY", &self.log);
        command.kill_on_drop(true);
        command
    }
}

/// Whether the command was carried out, and what was said.
async fn talk(mut child: Child, text: &str) -> io::Result<(bool, String)> {
    if let Some(mut stdin) = child.stdin.take() {
        // Who ends without reading says why with what it ends.
        let _ = stdin.write_all(format!("{text}\n").as_bytes()).await;
    }
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(ANSWER_MAX_BYTES).read_to_end(&mut said).await?;
    }
    if let Some(stderr) = child.stderr.take() {
        stderr.take(ANSWER_MAX_BYTES).read_to_end(&mut said).await?;
    }
    let status = child.wait().await?;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let said = if said.is_empty() { status.to_string() } else { said };
    Ok((status.success(), said))
}
