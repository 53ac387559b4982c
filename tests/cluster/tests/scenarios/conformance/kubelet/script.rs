//! The script. Each choice that a kubelet makes at random is left with one way out.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kubelet_api::device_plugin::{
    Device, DevicePluginOptions, HEALTHY, NumaNode, TopologyInfo, UNHEALTHY, VERSION,
};
use kubelet_api::pod_resources::{
    AllocatableResourcesRequest, GetPodResourcesRequest, ListPodResourcesRequest, PodResources,
};
use stowage_cluster_tests::wait_until;
use stowage_stand_ins::kubelet::ContainerKind::{App, Init, Sidecar};
use stowage_stand_ins::kubelet::{ContainerKind, PodToAdmit};

use super::fake_plugin::{Answers, FakePlugin, register};
use super::words::{self, asked};
use super::{NAMESPACE, Node, Steps, WIDGET, pod_of};

/// How long the kubelet may take to hear of a plugin, or to come back.
const LIMIT: Duration = Duration::from_secs(30);
/// How soon a kubelet hangs up, if it is going to.
const SETTLED: Duration = Duration::from_secs(1);
/// Of this resource there is no plugin.
const GADGET: &str = "example.com/gadget";

/// Runs all steps.
pub(super) async fn run(node: &impl Node) -> Result<Steps> {
    let mut script = Script { node, pods: BTreeSet::new(), steps: Steps::new() };
    script.refusals().await;
    let plugin = script.first_plugin().await?;
    script.choices(&plugin).await?;
    script.init_containers(&plugin).await?;
    script.failures(&plugin).await?;
    script.health(&plugin).await?;
    let plugin = script.another_instance(plugin).await?;
    script.starts(&plugin).await?;
    script.dropped_stream(&plugin).await?;
    script.restart(plugin).await?;
    Ok(script.steps)
}

struct Script<'a, N> {
    node: &'a N,
    /// The names of all pods so far: a real node may have others besides.
    pods: BTreeSet<String>,
    steps: Steps,
}

impl<N: Node> Script<'_, N> {
    /// What `Register` refuses, in what words.
    async fn refusals(&mut self) {
        for (version, resource) in
            [("v1alpha1", WIDGET), (VERSION, "widget"), (VERSION, "kubernetes.io/widget")]
        {
            let answer = register(&self.node.plugins_folder(), version, "nobody.sock", resource).await;
            let answer = answer.map_err(|status| format!("{:?}: {}", status.code(), status.message()));
            self.note(&format!("register {resource} with {version}"), format!("{answer:?}"));
        }
    }

    /// Four devices, one of them near two NUMA nodes, and a resource that nobody serves.
    async fn first_plugin(&mut self) -> Result<FakePlugin> {
        let mut devices = widgets(["w0", "w1", "w2", "w3"]);
        devices[1].topology =
            Some(TopologyInfo { nodes: [0, 1].into_iter().map(|id| NumaNode { id }).collect() });
        let answers = Answers { options: preferring(), ..Answers::default() };
        let plugin = self.plugin("first.sock", devices, answers).await?;
        self.healthy("w0 w1@0 w1@1 w2 w3").await?;
        self.note("first plugin", asked(&plugin));
        self.admit("unserved", &plugin, pod_of(GADGET, "unserved", &[("main", App, 1)])).await?;
        self.list("unserved").await?;
        self.node.delete(&["unserved"]).await?;
        Ok(plugin)
    }

    /// One container, several, too few devices, and devices that come free.
    async fn choices(&mut self, plugin: &FakePlugin) -> Result<()> {
        prefer(plugin, &["w1"]);
        self.admit("one container", plugin, widget_pod("one", &[("main", App, 1)])).await?;
        prefer(plugin, &["w0", "w1"]);
        let several = [("none", App, 0), ("a", App, 1), ("b", App, 2)];
        self.admit("several containers", plugin, widget_pod("several", &several)).await?;
        self.list("several containers").await?;
        self.admit("nothing left", plugin, widget_pod("none-left", &[("main", App, 1)])).await?;
        self.list("nothing left").await?;
        self.get("a failed pod", "none-left").await?;
        self.get("no pod", "nobody").await?;
        self.node.delete(&["several", "none-left"]).await?;
        self.list("deleted").await?;
        self.admit("more than free", plugin, widget_pod("too-many", &[("main", App, 4)])).await?;
        self.admit("devices reused", plugin, widget_pod("reuse", &[("main", App, 3)])).await?;
        self.list("devices reused").await?;
        self.node.delete(&["one", "too-many", "reuse"]).await
    }

    /// What an init container had goes on to the next one, and is kept by a sidecar.
    async fn init_containers(&mut self, plugin: &FakePlugin) -> Result<()> {
        prefer(plugin, &["w0"]);
        let sidecar = [("load", Init, 1), ("proxy", Sidecar, 1), ("main", App, 3)];
        self.admit("sidecar", plugin, widget_pod("sidecar", &sidecar)).await?;
        self.list("sidecar").await?;
        self.node.delete(&["sidecar"]).await?;

        prefer(plugin, &["w2"]);
        self.admit("holder", plugin, widget_pod("holder", &[("main", App, 1)])).await?;
        prefer(plugin, &["w0", "w1"]);
        let grows = [("load", Init, 2), ("main", App, 3)];
        self.admit("must include", plugin, widget_pod("grows", &grows)).await?;
        self.list("must include").await?;
        self.node.delete(&["grows"]).await?;
        let shrinks = [("load", Init, 3), ("more", Init, 3), ("main", App, 3)];
        self.admit("init containers one after another", plugin, widget_pod("again", &shrinks)).await?;
        self.node.delete(&["again"]).await?;
        let halfway = [("a", App, 3), ("b", App, 1)];
        self.admit("second container fails", plugin, widget_pod("halfway", &halfway)).await?;
        self.admit("after a pod that failed halfway", plugin, widget_pod("after", &[("main", App, 3)]))
            .await?;
        self.list("after a pod that failed halfway").await?;
        self.node.delete(&["halfway", "after"]).await
    }

    /// Errors of the plugin fail the pod, and take no devices away.
    async fn failures(&mut self, plugin: &FakePlugin) -> Result<()> {
        answer(plugin, |answers| answers.preferred_error = Some("no preference today".to_owned()));
        self.admit("preference fails", plugin, widget_pod("unpreferred", &[("main", App, 2)])).await?;
        answer(plugin, |answers| answers.preferred_error = None);
        answer(plugin, |answers| answers.allocate_error = Some("no such widget".to_owned()));
        prefer(plugin, &["w0"]);
        self.admit("Allocate fails", plugin, widget_pod("unallocated", &[("main", App, 1)])).await?;
        answer(plugin, |answers| answers.allocate_error = None);
        prefer(plugin, &["w7", "w2"]);
        self.admit("useless preference", plugin, widget_pod("all", &[("main", App, 3)])).await?;
        self.list("useless preference").await?;
        self.node.delete(&["unpreferred", "unallocated", "all"]).await
    }

    /// Devices go unhealthy, one of them in use, and come back.
    async fn health(&mut self, plugin: &FakePlugin) -> Result<()> {
        let mut sick = widgets(["w0", "w1", "w2", "w3"]);
        sick[2].health = UNHEALTHY.to_owned();
        sick[3].health = UNHEALTHY.to_owned();
        plugin.devices.send_replace(Some(sick.clone()));
        self.healthy("w0 w1").await?;
        self.list("unhealthy in use").await?;
        self.admit("too few healthy", plugin, widget_pod("sick", &[("main", App, 3)])).await?;
        self.node.wait_counts(4, 2).await?;
        for device in &mut sick {
            device.health = UNHEALTHY.to_owned();
        }
        plugin.devices.send_replace(Some(sick));
        self.healthy("").await?;
        self.admit("none healthy", plugin, widget_pod("sicker", &[("main", App, 1)])).await?;
        plugin.devices.send_replace(Some(widgets(["w0", "w2"])));
        self.healthy("w0 w2").await?;
        self.admit("fewer than before", plugin, widget_pod("fewer", &[("main", App, 2)])).await?;
        self.admit("healthy again", plugin, widget_pod("well", &[("main", App, 1)])).await?;
        self.list("healthy again").await?;
        self.node.delete(&["holder", "sick", "sicker", "fewer", "well"]).await
    }

    /// The plugin's next instance registers on a socket of its own while the one before still serves. When
    /// that ends, the kubelet hangs up on the new one: it has to register once more. Who does so before the
    /// kubelet has seen the end of the stream that it hung up on is hung up on again, for the same reason.
    async fn another_instance(&mut self, before: FakePlugin) -> Result<FakePlugin> {
        let options = DevicePluginOptions { pre_start_required: true, ..preferring() };
        let answers = Answers { options, preferred: vec!["n0".to_owned()], ..Answers::default() };
        let plugin = self.plugin("second.sock", widgets(["n0", "n1"]), answers).await?;
        self.healthy("n0 n1").await?;
        before.devices.send_replace(None);
        self.healthy("").await?;
        self.streams(&plugin, 0).await?;
        let first = asked(&plugin);
        wait_until(LIMIT, "the kubelet to stay with the plugin", async || {
            // A kubelet that is still busy with the one it hung up on may strike the new one from its list with it, and then
            // does not notice the end of its stream.
            tokio::time::sleep(SETTLED).await;
            plugin.take_asked();
            plugin.register(WIDGET).await.context("cannot register again")?;
            let healthy = tokio::time::timeout(SETTLED, self.healthy("n0 n1")).await;
            healthy.context("it has hung up already")??;
            let hung_up = tokio::time::timeout(SETTLED, self.streams(&plugin, 0)).await;
            ensure!(hung_up.is_err(), "it hung up once more");
            Ok(())
        })
        .await?;
        self.note("registered twice", format!("{first}\n{}", asked(&plugin)));
        Ok(plugin)
    }

    /// `PreStartContainer` precedes each start; a pod that it fails stays admitted.
    async fn starts(&mut self, plugin: &FakePlugin) -> Result<()> {
        answer(plugin, |answers| answers.pre_start_error = Some("not built yet".to_owned()));
        self.start("start fails", plugin, widget_pod("unstarted", &[("main", App, 1)])).await?;
        self.node.delete(&["unstarted"]).await?;
        plugin.take_asked();
        answer(plugin, |answers| answers.pre_start_error = None);
        self.start("starts", plugin, widget_pod("starts", &[("main", App, 2)])).await?;
        self.list("starts").await
    }

    /// The stream ends, and the plugin stays: its devices are unhealthy until it registers again.
    async fn dropped_stream(&mut self, plugin: &FakePlugin) -> Result<()> {
        plugin.devices.send_replace(None);
        self.healthy("").await?;
        self.admit("stream dropped", plugin, widget_pod("streamless", &[("main", App, 1)])).await?;
        self.list("stream dropped").await?;
        self.node.wait_counts(2, 0).await?;
        plugin.devices.send_replace(Some(widgets(["n0", "n1"])));
        plugin.register(WIDGET).await.context("cannot register after the stream was dropped")?;
        self.healthy("n0 n1").await?;
        self.note("stream anew", asked(plugin));
        self.node.delete(&["streamless"]).await
    }

    /// The kubelet restarts under a running pod: sockets go, devices stay whose they were.
    async fn restart(&mut self, before: FakePlugin) -> Result<()> {
        self.node.restart().await?;
        self.streams(&before, 0).await?;
        self.note("restart", format!("{:?} {}", before.socket.exists(), asked(&before)));
        self.wait_listed("starts").await?;
        self.list("restart").await?;
        self.healthy("").await?;
        self.admit("no plugin yet", &before, widget_pod("early", &[("main", App, 1)])).await?;
        drop(before);

        let plugin = self.plugin("third.sock", widgets(["n0", "n1", "n2"]), Answers::default()).await?;
        self.healthy("n0 n1 n2").await?;
        self.admit("held over the restart", &plugin, widget_pod("greedy", &[("main", App, 2)])).await?;
        self.admit("one is left", &plugin, widget_pod("late", &[("main", App, 1)])).await?;
        self.list("one is left").await?;
        self.node.delete(&["starts", "early", "greedy", "late"]).await?;
        self.admit("all free again", &plugin, widget_pod("last", &[("main", App, 3)])).await?;
        self.node.delete(&["last"]).await?;
        self.list("nobody left").await
    }

    async fn plugin(&self, socket: &str, devices: Vec<Device>, answers: Answers) -> Result<FakePlugin> {
        let plugin = FakePlugin::serve(&self.node.plugins_folder(), socket, devices, answers);
        plugin.register(WIDGET).await.with_context(|| format!("cannot register {socket}"))?;
        Ok(plugin)
    }

    /// Waits until the kubelet has closed all but `count` streams.
    async fn streams(&self, plugin: &FakePlugin, count: usize) -> Result<()> {
        let mut streams = plugin.streams.clone();
        let closed = streams.wait_for(|open| *open == count);
        tokio::time::timeout(LIMIT, closed).await.context("the kubelet keeps its stream open")??;
        Ok(())
    }

    /// Waits until the kubelet has these healthy devices, with their NUMA nodes.
    async fn healthy(&self, wanted: &str) -> Result<()> {
        wait_until(LIMIT, &format!("the healthy devices {wanted:?}"), async || {
            let all = words::ask(self.node, async |mut client| {
                client.get_allocatable_resources(AllocatableResourcesRequest {}).await
            });
            let seen = words::devices(&all.await??.devices);
            ensure!(seen == wanted, "{seen:?}");
            Ok(())
        })
        .await
    }

    /// Admits a pod and notes what came of it, and what the plugin was asked.
    async fn admit(&mut self, step: &str, plugin: &FakePlugin, pod: PodToAdmit) -> Result<()> {
        let outcome = self.node.admit(&pod).await?;
        self.pods.insert(pod.name);
        self.note(step, format!("{outcome}\n{}", asked(plugin)));
        Ok(())
    }

    /// Admits a pod and starts its container, and notes what came of both, and what the plugin was asked: the kubelet may
    /// start it before anybody has seen that it is admitted, and how often it tries is by chance.
    async fn start(&mut self, step: &str, plugin: &FakePlugin, pod: PodToAdmit) -> Result<()> {
        let outcome = self.node.admit(&pod).await?;
        let started = self.node.start(&pod.name, "main").await?;
        self.pods.insert(pod.name);
        let asked = asked(plugin);
        let mut asked: Vec<&str> = asked.lines().collect();
        asked.dedup();
        self.note(step, format!("{outcome}\n{started}\n{}", asked.join("\n")));
        Ok(())
    }

    /// Notes which pods pod-resources lists, and with what.
    async fn list(&mut self, step: &str) -> Result<()> {
        let mut pods: Vec<String> = self.listed().await?.iter().map(words::pod).collect();
        pods.sort();
        self.note(&format!("{step}: list"), pods.join("\n"));
        Ok(())
    }

    /// Notes what pod-resources says of one pod.
    async fn get(&mut self, step: &str, pod: &str) -> Result<()> {
        let request =
            GetPodResourcesRequest { pod_name: pod.to_owned(), pod_namespace: NAMESPACE.to_owned() };
        let answer = words::ask(self.node, async |mut client| client.get(request.clone()).await);
        let outcome = match answer.await? {
            Ok(answer) => answer.pod_resources.as_ref().map(words::pod).unwrap_or_default(),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        };
        self.note(&format!("{step}: get"), outcome);
        Ok(())
    }

    /// Waits until a kubelet that has just started knows a pod.
    async fn wait_listed(&self, pod: &str) -> Result<()> {
        wait_until(LIMIT, &format!("{pod} to be listed"), async || {
            let names: Vec<String> = self.listed().await?.into_iter().map(|pod| pod.name).collect();
            ensure!(names.iter().any(|name| name == pod), "{names:?}");
            Ok(())
        })
        .await
    }

    /// The script's pods, as pod-resources lists them.
    async fn listed(&self) -> Result<Vec<PodResources>> {
        let answer = words::ask(self.node, async |mut client| client.list(ListPodResourcesRequest {}).await);
        let mut pods = answer.await??.pod_resources;
        pods.retain(|pod| pod.namespace == NAMESPACE && self.pods.contains(&pod.name));
        Ok(pods)
    }

    fn note(&mut self, step: &str, outcome: impl Into<String>) {
        self.steps.push((step.to_owned(), outcome.into()));
    }
}

fn widgets<const COUNT: usize>(ids: [&str; COUNT]) -> Vec<Device> {
    let device = |id: &str| Device { id: id.to_owned(), health: HEALTHY.to_owned(), topology: None };
    ids.map(device).into()
}

fn widget_pod(name: &str, containers: &[(&str, ContainerKind, u64)]) -> PodToAdmit {
    pod_of(WIDGET, name, containers)
}

fn preferring() -> DevicePluginOptions {
    DevicePluginOptions { get_preferred_allocation_available: true, ..DevicePluginOptions::default() }
}

fn prefer(plugin: &FakePlugin, ids: &[&str]) {
    answer(plugin, |answers| answers.preferred = ids.iter().map(|id| (*id).to_owned()).collect());
}

fn answer(plugin: &FakePlugin, change: impl FnOnce(&mut Answers)) {
    change(&mut plugin.answers.lock().unwrap_or_else(PoisonError::into_inner));
}
