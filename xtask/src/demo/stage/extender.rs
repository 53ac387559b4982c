//! The real extender, as a process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::process::Process;
use super::programs::Programs;
use super::wait::WAIT_MAX;

/// The longest answer that is read.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;
/// How often it is asked again.
const ASK_EVERY: std::time::Duration = std::time::Duration::from_millis(2);

/// A running extender.
pub struct Extender {
    process: Process,
    verbs: SocketAddr,
}

impl Extender {
    /// Starts the extender and waits until it is ready.
    pub async fn start(programs: &Programs, kubeconfig: &Path, folder: &Path) -> Result<Self> {
        let (verbs, health) = (free_address().await?, free_address().await?);
        let process =
            Process::start("the extender", &programs.extender, folder.join("extender.log"), |command| {
                command.env_clear().env("KUBECONFIG", kubeconfig);
                command.arg(format!("--verb-address={verbs}"));
                command.arg(format!("--http-address={health}"));
                command.arg("--log-format=text");
            })?;
        let mut extender = Self { process, verbs };
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            extender.check()?;
            let answer = get(health, "/readyz").await.unwrap_or_default();
            if answer.starts_with("HTTP/1.1 200") {
                return Ok(extender);
            }
            let last_words = || extender.process.last_words();
            anyhow::ensure!(
                Instant::now() < deadline,
                "the extender is not ready: {answer}\n{}",
                last_words()
            );
            sleep(ASK_EVERY).await;
        }
    }

    /// What kube-scheduler's configuration calls `urlPrefix`.
    pub fn url(&self) -> String {
        format!("http://{}", self.verbs)
    }

    /// Waits until it knows of no device that is held for a pod that is gone.
    ///
    /// It hears of a deleted pod before the pod's plugin has told of the freed device, so what is left to
    /// wait for is that its own audit names no such device any more.
    pub async fn wait_for_no_leak(&mut self) -> Result<()> {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            self.check()?;
            let answer = get(self.verbs, "/debug/audit").await?;
            anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "the extender's audit fails: {answer}");
            if !answer.contains(" Leak ") {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "the extender still knows of leaks: {answer}");
            sleep(ASK_EVERY).await;
        }
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    /// Ends it.
    pub async fn end(self) {
        self.process.end().await;
    }
}

/// An address that nobody listens on. Somebody else may take it before the extender does; then that says so.
async fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port on 127.0.0.1")?;
    listener.local_addr().context("a socket without an address")
}

/// A GET, as plain as it gets: status line, headers and body as one text.
async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_MAX_BYTES).read_to_string(&mut answer).await?;
        Ok(answer)
    };
    timeout(WAIT_MAX, exchange).await.context("no answer in time")?
}
