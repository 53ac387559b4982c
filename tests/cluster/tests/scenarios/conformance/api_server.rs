//! The API server: the script of requests that the stand-in's own tests run, too.
//!
//! There it is compared with a record of what kube-apiserver answered once; here both answer anew. Left
//! out are streaming lists, which need an etcd newer than Debian's.

use anyhow::Result;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::DeleteParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use stowage_cluster_tests::Cluster;
use stowage_stand_ins::api_server::{ApiServer, Options, ResourceType};

use super::Steps;

// The record is for those who have no server.
#[allow(dead_code)]
#[path = "../../../../stand-ins/tests/common/api_server_script/mod.rs"]
mod api_server_script;

/// What the stand-in answers.
pub(super) async fn stand_in() -> Result<Steps> {
    let server = ApiServer::start(Options::default()).await?;
    let widgets = ResourceType::custom("script.stowage.dev", "v1", "widgets", "Widget").with_status();
    server.store().install(widgets);
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig(None))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(api_server_script::script(Client::try_from(config)?).await)
}

/// What kube-apiserver answers.
pub(super) async fn real(cluster: &Cluster) -> Result<Steps> {
    cluster.apply(vec![api_server_script::widget_crd()]).await?;
    let steps = api_server_script::script(cluster.client()).await;
    let crds = Api::<CustomResourceDefinition>::all(cluster.client());
    crds.delete("widgets.script.stowage.dev", &DeleteParams::default()).await?;
    Ok(steps)
}
