//! A kube-scheduler elsewhere, as the cluster's own one: it asks the extender over TLS, each showing a certificate, with the
//! configuration of `deploy/`.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use stowage_cluster_tests::{Program, Scenario, TokenBoundTo, apply, scenarios};

use super::Stage;
use super::stowage::pods::{self, By};
use super::stowage::{LIMIT, TOKEN_TTL, built, deploy, look};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![a_shared_kube_scheduler_asks_over_mutual_tls_about_pods_with_gpus_alone]
}

const VERBS: &str = "127.0.0.1:9512";
const HTTP: &str = "127.0.0.1:9511";
const SERVICE: &str = "stowage-scheduler-extender.stowage-system.svc";

async fn a_shared_kube_scheduler_asks_over_mutual_tls_about_pods_with_gpus_alone(
    stage: &mut Stage,
) -> Result<()> {
    let (cluster, _) = stage.fresh().await?;
    cluster.apply(apply::read_manifests(&deploy().join("options/lease.yaml"))?).await?;
    let kubeconfig = async |name: &str| {
        cluster.service_account_kubeconfig("stowage-system", name, TOKEN_TTL, TokenBoundTo::Nothing).await
    };
    let serving = cluster.server_certificate("verbs", &[SERVICE])?;
    let extender = Program::new("extender-behind-a-service", built("stowage-scheduler-extender")?)
        .args(["--verb-address", VERBS, "--http-address", HTTP, "--leader-elect"])
        .args(["--scheduler-names", "shared-default,shared-stowage"])
        .args(["--allowed-client-names", "system:kube-scheduler"])
        .arg(format!("--tls-cert-file={}", serving.certificate.display()))
        .arg(format!("--tls-private-key-file={}", serving.key.display()))
        .arg(format!("--client-ca-file={}", cluster.authority().display()))
        .env("KUBECONFIG", kubeconfig("stowage-scheduler-extender").await?);
    let extender = cluster.start_program(extender)?;
    cluster
        .wait_until(LIMIT, "the extender to lead", &[&extender], async || {
            look::http_ok(HTTP, "/readyz").await
        })
        .await?;

    let configuration = apply::read_manifests(&deploy().join("scheduler/shared-kube-scheduler-config.yaml"))?;
    let mut configuration = configuration.into_iter().next().context("an empty scheduler configuration")?;
    // The cluster has a scheduler of that name already.
    for (profile, name) in ["shared-default", "shared-stowage"].into_iter().enumerate() {
        configuration["profiles"][profile]["schedulerName"] = name.into();
    }
    let client = cluster.client_certificate("verbs-client", "system:kube-scheduler")?;
    let asked = &mut configuration["extenders"][0];
    asked["urlPrefix"] = format!("https://{VERBS}").into();
    ensure!(asked["tlsConfig"]["serverName"] == SERVICE, "{asked}");
    for (key, path) in
        [("caFile", cluster.authority()), ("certFile", client.certificate), ("keyFile", client.key)]
    {
        asked["tlsConfig"][key] = json!(path);
    }
    let account = kubeconfig("stowage-kube-scheduler").await?;
    let scheduler = cluster.start_scheduler("shared-kube-scheduler", configuration, &account)?;

    for (name, by, resource) in [
        ("whole", "shared-default", "gpu"),
        ("slice", "shared-stowage", "mig-1g.5gb"),
        ("share", "shared-stowage", "gpu.shared"),
        ("plain", "shared-default", ""),
    ] {
        let mut spec = pods::spec(By::Stock, resource, 1);
        spec["schedulerName"] = by.into();
        pods::create(cluster, name, spec).await?;
    }
    let mut running = pods::all_running(cluster, 4, LIMIT).await?;
    running.retain(|pod| pods::name(pod) != "plain");
    look::containers_see_their_plans(cluster, &running).await?;
    look::audit_is_clean(cluster).await?;
    let metrics = look::http_text(HTTP, "/metrics").await?;
    for line in [
        r#"stowage_scheduler_extender_binds_total{result="bound"} 3"#,
        r#"stowage_scheduler_extender_requests_total{verb="bind",result="ok"} 3"#,
        r#"stowage_scheduler_extender_leader 1"#,
    ] {
        ensure!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    // Connections are kept: there are not as many handshakes as requests.
    let count = |line: &str| {
        metrics.lines().find_map(|said| said.strip_prefix(line)?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let handshakes = count(r#"stowage_scheduler_extender_tls_handshakes_total{result="done"}"#);
    let filters = count(r#"stowage_scheduler_extender_requests_total{verb="filter",result="ok"}"#);
    eprintln!("({handshakes} handshakes for {filters} filters and three binds)");
    ensure!(handshakes >= 1 && filters >= 3, "{metrics}");

    pods::delete_all(cluster, LIMIT).await?;
    scheduler.terminate(LIMIT).await?;
    extender.terminate(LIMIT).await?;
    Ok(())
}
