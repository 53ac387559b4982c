//! The map on the network: the real API server tells whose a token is, and what they may see.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stowage_cluster_tests::{Cluster, Scenario, TokenBoundTo, apply, scenarios};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Stage;
use super::stowage::pods::{self, By};
use super::stowage::{EXTENDER_HTTP, LIMIT, TOKEN_TTL, deploy, extender, look};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![the_map_is_shown_to_whom_the_api_server_lets_see_the_same]
}

/// Not the loopback alone, so a token is asked for.
const LISTEN: &str = "0.0.0.0:9413";
const MAP: &str = "127.0.0.1:9413";
/// The pod that some may know of.
const POD: &str = "seen-on-the-map";
/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Who may list pods, who may only see GPUs, and who may nothing.
const VISITORS: &str = r"
apiVersion: v1
kind: ServiceAccount
metadata: {name: map-admin, namespace: default}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: map-viewer, namespace: default}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: map-stranger, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: map-gpus}
rules: [{apiGroups: [stowage.dev], resources: [gpunodes], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: map-pods}
rules: [{apiGroups: [''], resources: [pods], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: map-gpus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: map-gpus}
subjects:
  - {kind: ServiceAccount, name: map-admin, namespace: default}
  - {kind: ServiceAccount, name: map-viewer, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: map-pods}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: map-pods}
subjects: [{kind: ServiceAccount, name: map-admin, namespace: default}]
";

async fn the_map_is_shown_to_whom_the_api_server_lets_see_the_same(stage: &mut Stage) -> Result<()> {
    let (cluster, stowage) = stage.fresh().await?;
    cluster.apply(apply::parse(VISITORS)?).await?;
    stowage.extender.terminate(LIMIT).await?;
    let extender = cluster.start_program(extender(cluster).await?.args(["--map-address", LISTEN]))?;
    cluster
        .wait_until(LIMIT, "the extender to be ready", &[&extender], async || {
            look::http_ok(EXTENDER_HTTP, "/readyz").await
        })
        .await?;
    pods::create(cluster, POD, pods::spec(By::Stowage, "gpu.shared", 1)).await?;
    pods::all_running(cluster, 1, LIMIT).await?;

    let admin = token(cluster, "map-admin").await?;
    // Without the rights of deploy/options/map.yaml the extender cannot ask, and says what it lacks.
    let lacks = look_at_map(Some(&admin)).await?;
    ensure!(lacks.starts_with("HTTP/1.1 503") && lacks.contains("deploy/options/map.yaml"), "{lacks}");
    cluster.apply(apply::read_manifests(&deploy().join("options/map.yaml"))?).await?;
    cluster
        .wait_until(LIMIT, "the map with names", &[&extender], async || {
            let seen = look_at_map(Some(&admin)).await?;
            ensure!(seen.starts_with("HTTP/1.1 200") && seen.contains(POD), "{seen}");
            Ok(())
        })
        .await?;
    let viewed = look_at_map(Some(&token(cluster, "map-viewer").await?)).await?;
    ensure!(viewed.starts_with("HTTP/1.1 200") && viewed.contains("gpu-node-2"), "{viewed}");
    ensure!(!viewed.contains(POD), "who may not list pods reads their names: {viewed}");
    let stranger = look_at_map(Some(&token(cluster, "map-stranger").await?)).await?;
    ensure!(stranger.starts_with("HTTP/1.1 403") && stranger.contains("map-stranger"), "{stranger}");
    for none in [None, Some("made-up")] {
        let refused = look_at_map(none).await?;
        ensure!(refused.starts_with("HTTP/1.1 401"), "{none:?}: {refused}");
    }
    pods::delete_all(cluster, LIMIT).await?;
    extender.terminate(LIMIT).await?;
    stowage.extender.restart()?;
    stowage.wait_healthy(cluster).await
}

/// A token of a ServiceAccount, as `kubectl create token` makes it.
async fn token(cluster: &Cluster, account: &str) -> Result<String> {
    let kubeconfig =
        cluster.service_account_kubeconfig("default", account, TOKEN_TTL, TokenBoundTo::Nothing).await?;
    let kubeconfig: Value = serde_json::from_slice(&std::fs::read(kubeconfig)?)?;
    let token = kubeconfig.pointer("/users/0/user/token").and_then(Value::as_str);
    Ok(token.context("a kubeconfig without a token")?.to_owned())
}

/// What whoever has this token sees: a refusal, or the stream up to where it has told everything once.
async fn look_at_map(token: Option<&str>) -> Result<String> {
    let mut stream = TcpStream::connect(MAP).await.context("nobody serves the map")?;
    let authorization = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!(
        "GET /api/v1/events HTTP/1.1\r\nHost: map.example.com\r\nConnection: close\r\n{authorization}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let read = async {
        while stream.read_buf(&mut answer).await? > 0 {
            if String::from_utf8_lossy(&answer).contains("event: ready") {
                break;
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(ANSWER_LIMIT, read).await.context("the map does not answer")??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
