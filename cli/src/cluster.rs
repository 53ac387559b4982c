//! What the API server knows: GpuNodes and the pods on their nodes.

use anyhow::{Context, Result};
use kube::api::{ApiResource, GroupVersionKind, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Object;
use kube::{Api, Client, Config};
use stowage_shared::audit::{NodeView, PodView};
use stowage_shared::contract::{API_GROUP, API_VERSION};
use stowage_shared::gpu_node::{GpuNodeSpec, GpuNodeStatus, KIND, PLURAL};
use stowage_shared::pod::{PodSpec, PodStatus};

type GpuNode = Object<GpuNodeSpec, GpuNodeStatus>;
type Pod = Object<PodSpec, PodStatus>;

/// One page of a list: enough to be quick, small enough to be kind.
const PAGE: u32 = 500;

/// GPU nodes and the pods bound to them.
pub struct Cluster {
    /// Node names and what their plugins say.
    pub gpu_nodes: Vec<(String, GpuNodeStatus)>,
    pods: Vec<Pod>,
}

impl Cluster {
    /// Lists GpuNodes and pods.
    pub async fn read(context: Option<&str>) -> Result<Self> {
        let config = match context {
            None => Config::infer().await.context("no cluster: set KUBECONFIG or use --context")?,
            Some(name) => {
                let options =
                    KubeConfigOptions { context: Some(name.to_owned()), ..KubeConfigOptions::default() };
                let file = Kubeconfig::read().context("cannot read the kubeconfig")?;
                Config::from_custom_kubeconfig(file, &options)
                    .await
                    .with_context(|| format!("cannot use the context {name:?} of the kubeconfig"))?
            }
        };
        let client = Client::try_from(config).context("cannot make a client for the cluster")?;
        let gvk = GroupVersionKind::gvk(API_GROUP, API_VERSION, KIND);
        let gpu_nodes: Api<GpuNode> =
            Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&gvk, PLURAL));
        let gpu_nodes = gpu_nodes.list(&ListParams::default()).await.context(
            "cannot list GpuNodes: is Stowage installed (deploy/crds), and may you list gpunodes.stowage.dev?",
        )?;
        let pods: Api<Pod> =
            Api::all_with(client, &ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&()));
        Ok(Self { gpu_nodes: gpu_nodes.items.into_iter().map(named).collect(), pods: all(&pods).await? })
    }

    /// Each GPU node as the audit wants it.
    pub fn views(&self) -> Vec<NodeView> {
        let view = |(node, status): &(String, GpuNodeStatus)| NodeView {
            node: node.clone(),
            gpus: status.inventory().unwrap_or_default(),
            allocations: status.allocations.clone(),
            pods: self.pods.iter().filter_map(|pod| view_of(pod, node)).collect(),
        };
        self.gpu_nodes.iter().map(view).collect()
    }
}

fn named(node: GpuNode) -> (String, GpuNodeStatus) {
    (node.metadata.name.unwrap_or_default(), node.status.unwrap_or_default())
}

fn view_of(pod: &Pod, node: &str) -> Option<PodView> {
    let meta = &pod.metadata;
    let key = (meta.namespace.as_deref()?, meta.name.as_deref()?, meta.uid.as_deref()?);
    let annotation = |key: &str| meta.annotations.as_ref()?.get(key).map(String::as_str);
    PodView::of(key, annotation, &pod.spec, pod.status.as_ref().unwrap_or(&PodStatus::default()), node)
}

async fn all(pods: &Api<Pod>) -> Result<Vec<Pod>> {
    let mut found = Vec::new();
    let mut params = ListParams::default().fields("spec.nodeName!=").limit(PAGE);
    loop {
        let page = pods.list(&params).await.context("cannot list pods in all namespaces: may you?")?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}
