//! Writes labels where they belong, by server-side apply: the API server remembers which ones are ours, so that one
//! that we no longer name goes away, and nobody else's is touched.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::json;
use tokio::time::timeout;

use super::LabelError;
use super::make::Labels;
use crate::config::LabelTarget;

/// Whose labels they are.
const FIELD_MANAGER: &str = "stowage-device-plugin";
/// How long one call of the API server may take.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The label by which node-feature-discovery knows whose features they are.
const NODE_NAME_LABEL: &str = "nfd.node.kubernetes.io/node-name";

/// Writes one node's labels.
pub(super) struct Writer {
    nodes: Api<Node>,
    features: Api<DynamicObject>,
    node: String,
    target: LabelTarget,
}

impl Writer {
    pub(super) fn new(client: kube::Client, node: &str, target: LabelTarget) -> Self {
        let kind = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("nfd.k8s-sigs.io", "v1alpha1", "NodeFeature"),
            "nodefeatures",
        );
        Self {
            nodes: Api::all(client.clone()),
            features: Api::default_namespaced_with(client, &kind),
            node: node.to_owned(),
            target,
        }
    }

    /// Makes these the labels that are ours.
    pub(super) async fn write(&mut self, labels: &Labels) -> Result<(), LabelError> {
        let uid = self.node_uid().await?;
        // The labels are the hardware's: whoever said otherwise before, such as a plugin that we replace, was wrong.
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match self.target {
            LabelTarget::Node => {
                // An apply would make a Node that is not there, but none of that UID.
                let patch = Patch::Apply(json!({
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": { "name": self.node, "uid": uid, "labels": labels },
                }));
                call(self.nodes.patch_metadata(&self.node, &params, &patch))
                    .await?
                    .map_err(LabelError::Call)?;
            }
            LabelTarget::NodeFeature => {
                let name = format!("nvidia-features-for-{}", self.node);
                let patch = Patch::Apply(self.feature(&name, &uid, labels));
                let written = call(self.features.patch(&name, &params, &patch)).await?;
                written.map_err(|error| match error {
                    kube::Error::Api(status) if status.code == 404 => LabelError::MissingCrd,
                    error => LabelError::Call(error),
                })?;
            }
        }
        Ok(())
    }

    /// Takes the labels that are ours off the Node; false where none is. Only a Node that has some is written, so that
    /// the right to write Nodes is not needed where labels were never wanted.
    pub(super) async fn clear(&self) -> Result<bool, LabelError> {
        let node = self.node_metadata().await?;
        let ours = |fields: &ManagedFieldsEntry| {
            let set = fields.fields_v1.as_ref().and_then(|set| set.0["f:metadata"]["f:labels"].as_object());
            fields.manager.as_deref() == Some(FIELD_MANAGER) && set.is_some_and(|labels| !labels.is_empty())
        };
        if !node.managed_fields.iter().flatten().any(ours) {
            return Ok(false);
        }
        let patch = Patch::Apply(json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": self.node, "uid": node.uid, "labels": {} },
        }));
        let params = PatchParams::apply(FIELD_MANAGER).force();
        call(self.nodes.patch_metadata(&self.node, &params, &patch)).await?.map_err(LabelError::Call)?;
        Ok(true)
    }

    /// The object that NVIDIA's `gpu-feature-discovery` makes, but owned by the Node, with which it goes.
    fn feature(&self, name: &str, node_uid: &str, labels: &Labels) -> serde_json::Value {
        json!({
            "apiVersion": "nfd.k8s-sigs.io/v1alpha1",
            "kind": "NodeFeature",
            "metadata": {
                "name": name,
                "labels": { NODE_NAME_LABEL: self.node },
                "ownerReferences": [
                    { "apiVersion": "v1", "kind": "Node", "name": self.node, "uid": node_uid }
                ],
            },
            "spec": { "features": { "flags": {}, "attributes": {}, "instances": {} }, "labels": labels },
        })
    }

    async fn node_uid(&self) -> Result<String, LabelError> {
        self.node_metadata().await?.uid.ok_or_else(|| LabelError::NoNode(self.node.clone()))
    }

    async fn node_metadata(&self) -> Result<ObjectMeta, LabelError> {
        match call(self.nodes.get_metadata(&self.node)).await? {
            Ok(node) => Ok(node.metadata),
            Err(kube::Error::Api(status)) if status.code == 404 => Err(LabelError::NoNode(self.node.clone())),
            Err(error) => Err(LabelError::Call(error)),
        }
    }
}

async fn call<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, LabelError> {
    timeout(CALL_TIMEOUT, call).await.map_err(|_| LabelError::Timeout)
}
