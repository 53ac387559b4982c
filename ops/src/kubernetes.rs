//! The client of the API server.

use anyhow::Context;

use crate::Fault;

/// Connects as `KUBECONFIG` says, else as the pod's ServiceAccount. Nothing is sent yet.
///
/// # Errors
/// A [`Fault`] of a configuration that is missing or cannot be read.
pub async fn client() -> Result<kube::Client, Fault> {
    let config = kube::Config::infer()
        .await
        .context(
            "no way to reach the API server: set KUBECONFIG, or run in a pod with a ServiceAccount token",
        )
        .map_err(Fault::config)?;
    let url = config.cluster_url.clone();
    kube::Client::try_from(config)
        .with_context(|| format!("cannot make a client for the API server at {url}"))
        .map_err(Fault::config)
}
