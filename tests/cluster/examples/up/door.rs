//! The way in from the host, whose network is another: a Unix socket, since those are found by path.
//!
//! Behind it is the API server, and kubectl needs nothing else: logs, exec and port-forward go through it. The first who
//! connects is whoever started the cluster: it says nothing, and when it goes away, however it ends, the cluster ends too.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use stowage_cluster_tests::Cluster;
use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener, UnixStream};

/// The socket's name, in the cluster's folder.
const NAME: &str = "door";
/// Where the API server is, inside.
const API_SERVER: &str = "127.0.0.1:443";
/// How long whoever started the cluster may take to connect.
const START_MAX: Duration = Duration::from_secs(60);

/// The socket.
pub(crate) struct Door(UnixListener);

impl Door {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        Ok(Self(UnixListener::bind(&path).with_context(|| format!("cannot listen at {}", path.display()))?))
    }

    /// Lets people in until the first one goes away.
    pub(crate) async fn serve(self) -> Result<()> {
        let first = tokio::time::timeout(START_MAX, self.0.accept());
        let (mut first, _) = first.await.context("whoever started this cluster does not come")??;
        tokio::select! {
            // Nothing is read but the end.
            _ = first.read_u8() => Ok(()),
            error = self.let_in() => error,
        }
    }

    async fn let_in(&self) -> Result<()> {
        loop {
            let (visitor, _) = self.0.accept().await.context("cannot accept at the door")?;
            tokio::spawn(pass(visitor));
        }
    }
}

/// A visitor who leaves in the middle of a sentence is no error.
async fn pass(mut visitor: UnixStream) {
    if let Ok(mut server) = TcpStream::connect(API_SERVER).await {
        let _ = copy_bidirectional(&mut visitor, &mut server).await;
    }
}

/// Writes `kubeconfig` into the cluster's folder: the admin's, with the files where the host sees them.
pub(crate) fn write_kubeconfig(cluster: &Cluster, outside: &Path, address: &str) -> Result<()> {
    let text = fs::read_to_string(cluster.admin_kubeconfig())?;
    let mut kubeconfig: Value = serde_json::from_str(&text).context("the admin's kubeconfig is no JSON")?;
    kubeconfig["clusters"][0]["cluster"]["server"] = format!("https://{address}").into();
    for pointer in [
        "/clusters/0/cluster/certificate-authority",
        "/users/0/user/client-certificate",
        "/users/0/user/client-key",
    ] {
        let file = kubeconfig.pointer_mut(pointer).with_context(|| format!("no {pointer}"))?;
        let inside = Path::new(file.as_str().unwrap_or_default());
        let inside =
            inside.strip_prefix(cluster.folder()).with_context(|| format!("{pointer} is elsewhere"))?;
        *file = outside.join(inside).display().to_string().into();
    }
    let path = cluster.folder().join("kubeconfig");
    fs::write(&path, serde_json::to_vec_pretty(&kubeconfig)?)
        .with_context(|| format!("cannot write {}", path.display()))
}
