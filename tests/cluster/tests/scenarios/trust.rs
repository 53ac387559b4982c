//! Tenants may write annotations; they may not write plans. (What the accounts of Stowage itself may write is seen in
//! `tests/scale`, for which no kubelet is needed.)

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use stowage_cluster_tests::{Scenario, TokenBoundTo, apply, scenarios};
use stowage_shared::contract::PLAN_ANNOTATION;

use super::Stage;
use super::stowage::pods::{self, By};
use super::stowage::{LIMIT, TOKEN_TTL, look};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![a_tenant_can_neither_forge_nor_change_a_plan]
}

const TENANT: &str = r"
apiVersion: v1
kind: ServiceAccount
metadata: {name: tenant, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: tenant, namespace: default}]
";

async fn a_tenant_can_neither_forge_nor_change_a_plan(stage: &mut Stage) -> Result<()> {
    let cluster = stage.fresh().await?.0;
    cluster.apply(apply::parse(TENANT)?).await?;
    let kubeconfig =
        cluster.service_account_kubeconfig("default", "tenant", TOKEN_TTL, TokenBoundTo::Nothing).await?;
    let tenant: Api<Pod> = Api::namespaced(cluster.client_of(&kubeconfig).await?, "default");

    pods::create(cluster, "honest", pods::spec(By::Stowage, "gpu.shared", 1)).await?;
    let honest = pods::all_running(cluster, 1, LIMIT).await?;
    let plan = honest[0].metadata.annotations.clone().unwrap_or_default().remove(PLAN_ANNOTATION);
    let plan = plan.unwrap_or_default();
    let patch = |text: &str| Patch::Merge(json!({"metadata": {"annotations": {PLAN_ANNOTATION: text}}}));
    let changed = tenant.patch("honest", &PatchParams::default(), &patch("{}")).await;
    ensure!(is_refused(&changed), "a tenant changed a plan: {changed:?}");

    // A copied plan is let in with a new pod and is no plan for it: the pod still gets one of its own.
    let mut spec = pods::spec(By::Stowage, "gpu.shared", 1);
    spec["containers"][0]["name"] = "main".into();
    let forged = json!({
        "metadata": {"name": "forged", "labels": {"stowage-test": "yes"}, "annotations": {PLAN_ANNOTATION: plan}},
        "spec": spec,
    });
    tenant.create(&kube::api::PostParams::default(), &serde_json::from_value(forged)?).await?;
    let running = pods::all_running(cluster, 2, LIMIT).await?;
    look::containers_see_their_plans(cluster, &running).await?;
    look::audit_is_clean(cluster).await?;
    pods::delete_all(cluster, LIMIT).await
}

/// Refused by a policy (422) or by rights (403).
fn is_refused<T>(result: &Result<T, kube::Error>) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if status.code == 403 || status.code == 422)
}
