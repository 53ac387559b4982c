//! From a checked configuration to the moment when it is this program's turn to serve the node.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use ops::Fault;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cluster::{NodeEvents, NodeEventsInbox};
use crate::config::Config;
use crate::live::Live;
use crate::turn::{Turn, address, stand_by};

/// What the program has when its turn has come.
pub(super) struct Ready {
    /// Where the probes and `/metrics` are served.
    pub(super) http: TcpListener,
    /// The API server, where there is one.
    pub(super) client: Option<kube::Client>,
    /// The GPUs, looked at once.
    pub(super) live: Live,
    /// Takes events about the Node.
    pub(super) events: NodeEvents,
    /// Writes them.
    pub(super) told: NodeEventsInbox,
    /// The kubelet's folder.
    pub(super) folder: PathBuf,
    /// The right to serve this node, for as long as it is kept.
    pub(super) turn: Turn,
}

/// Gets ready, and waits for the turn; `None` where it was asked to end meanwhile.
pub(super) async fn ready(config: &Config, stop: &watch::Receiver<bool>) -> Result<Option<Ready>, Fault> {
    // Whoever stands by has this behind it when its turn comes.
    let made = if config.standby { Some(client(config).await?) } else { None };
    let Some(http) = address(config, stop.clone()).await? else { return Ok(None) };
    // Both take some ten milliseconds, one in the driver and one in reading certificates.
    let (events, told) = NodeEvents::new();
    let mut live = Live::new(config, events.clone());
    let client = async {
        match made {
            Some(client) => Ok(client),
            None => client(config).await,
        }
    };
    let (looked, client) = tokio::join!(first_look(&mut live, config.fail_on_init_error), client);
    let client = client?;
    looked?;
    let folder = config.kubelet_socket.parent().unwrap_or(Path::new("/")).to_owned();
    check_folder(&folder)?;
    if let Some(turn) = Turn::take(&folder)? {
        return Ok(Some(Ready { http, client, live, events, told, folder, turn }));
    }
    // It works, which is all that is wanted until then. Whoever stands by keeps no GPU open: it could not be reset.
    drop(live);
    let Some(turn) = stand_by(&http, &folder, stop.clone()).await? else { return Ok(None) };
    let mut live = Live::new(config, events.clone());
    first_look(&mut live, config.fail_on_init_error).await?;
    Ok(Some(Ready { http, client, live, events, told, folder, turn }))
}

/// Looks at the GPUs for the first time. A fault is none where the configuration says that it is no reason to end.
async fn first_look(live: &mut Live, fail: bool) -> Result<(), Fault> {
    match live.first_look().await {
        Ok(()) => Ok(()),
        Err(fault) if !fail => {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(fault)),
                "NVML does not work: nothing is offered until it does, as failOnInitError is false."
            );
            Ok(())
        }
        Err(fault) if fault.is_permission() => Err(Fault::no_permission(fault)),
        Err(fault) => Err(Fault::unavailable(fault)),
    }
}

async fn client(config: &Config) -> Result<Option<kube::Client>, Fault> {
    if config.kubernetes { ops::kubernetes::client().await.map(Some) } else { Ok(None) }
}

fn check_folder(folder: &Path) -> Result<(), Fault> {
    if folder.is_dir() {
        return Ok(());
    }
    Err(Fault::unavailable(anyhow!(
        "there is no folder {}, where the kubelet has its sockets: is this a Kubernetes node, and the folder mounted \
         here? Else correct --kubelet-socket (KUBELET_SOCKET)",
        folder.display()
    )))
}
