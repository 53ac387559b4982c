//! A hollow cluster with Stowage's manifests on it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use stowage_cluster_tests::{Cluster, Isolated, apply};

use crate::figures::Metrics;

/// Where the manifests are.
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// Starts the cluster and applies the manifests.
///
/// # Errors
/// What did not start, or was refused.
pub async fn start(isolated: Isolated) -> Result<Cluster> {
    let cluster = Cluster::start_hollow(isolated).await?;
    for folder in ["crds", "manifests"] {
        let documents = apply::read_manifests(&deploy().join(folder))?;
        cluster.apply(documents).await.with_context(|| format!("cannot apply deploy/{folder}"))?;
    }
    Ok(cluster)
}

/// The API server's metrics.
///
/// # Errors
/// When it does not answer.
pub async fn metrics(cluster: &Cluster) -> Result<Metrics> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    Ok(Metrics::new(cluster.client().request_text(request).await?))
}
