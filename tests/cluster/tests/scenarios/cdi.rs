//! CDI: containerd gives containers the device nodes of what they hold, without anything of NVIDIA's.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::json;
use stowage_cluster_tests::{Scenario, scenarios};

use super::Stage;
use super::stowage::on_demand::{NODE, spec, with_gpus};
use super::stowage::pods::{self, By};
use super::stowage::{LIMIT, NodeFiles};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![containers_have_the_device_nodes_of_what_they_hold_and_no_others]
}

/// A whole GPU, one that was cut by hand, and one that is cut on demand.
const THREE_KINDS: NodeFiles = NodeFiles {
    node: NODE,
    gpus: "\
seed: 5
gpus:
  - {model: a100-40gb}
  - model: a100-40gb
    migMode: enabled
    migInstances: [{profile: 3g.20gb, start: 4}]
  - {model: a100-40gb, migMode: enabled}
",
    config: "\
version: v1
flags: {migStrategy: on-demand, migStaticGPUs: ['1'], plugin: {deviceListStrategy: cdi-cri}}
",
    offers: &[("nvidia.com/gpu", 1), ("nvidia.com/mig-3g.20gb", 3)],
};
/// NVML's id of the profile 3g.20gb.
const HALF: u32 = 9;
/// Opens each node, as a program would: without a driver none can be opened, but who may not is told otherwise.
const OPEN: &str =
    "for node in /dev/nvidia* /dev/nvidia-caps/*; do cat $node; done; echo opened; exec sleep 100000";

async fn containers_have_the_device_nodes_of_what_they_hold_and_no_others(stage: &mut Stage) -> Result<()> {
    let (cluster, stowage) = stage.fresh().await?;
    with_gpus(cluster, stowage, &THREE_KINDS, async |node| {
        for (name, resource) in [
            ("whole", "gpu"),
            ("half-1", "mig-3g.20gb"),
            ("half-2", "mig-3g.20gb"),
            ("half-3", "mig-3g.20gb"),
        ] {
            let mut spec = spec(By::Stowage, resource);
            spec["containers"][0]["command"] = json!(["/bin/sh", "-c", OPEN]);
            pods::create(cluster, name, spec).await?;
        }
        let running = pods::all_running(cluster, 4, LIMIT).await?;
        let instances = node.instances()?;
        ensure!(instances.len() == 3 && instances.values().all(|profile| *profile == HALF), "{instances:?}");
        let mut halves = BTreeMap::new();
        for pod in &running {
            let (name, part) = (pods::name(pod), node.seen_by(pod).await?);
            match part.instance {
                None => ensure!((name, part.gpu) == ("whole", 0), "{name} sees {part:?}"),
                Some(instance) => {
                    ensure!(
                        instances.contains_key(&(part.gpu, instance)),
                        "{name} sees {part:?} of {instances:?}"
                    );
                    halves.insert((part.gpu, instance), name);
                }
            }
            // What NVIDIA's runtime is told where CDI has done its work.
            let environment = cluster.container_env("default", name, "main").await?;
            let visible = environment.get("NVIDIA_VISIBLE_DEVICES").map(String::as_str);
            ensure!(visible == Some("void"), "{name}: {environment:?}");
            let opened = async || {
                let log = cluster.container_log("default", name, "main").await?;
                ensure!(log.contains("opened"), "its log: {log}");
                Ok(log)
            };
            let log = cluster.wait_until(LIMIT, "a container's log", &[], opened).await?;
            ensure!(!log.contains("not permitted"), "{name} may not open its devices: {log}");
        }
        ensure!(halves.keys().copied().eq(instances.into_keys()), "the halves are seen by {halves:?}");
        Ok(())
    })
    .await
}
