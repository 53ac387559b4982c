//! Pods over all MIG profiles come and go at random on eight GPUs that are cut on demand, while plugin and kubelet die.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use rustix::process::Signal;
use stowage_cluster_tests::{Process, Scenario, scenarios};
use stowage_shared::audit::{Severity, audit};

use super::stowage::on_demand::{NODE, OnDemand, with_gpus};
use super::stowage::pods::{self, By};
use super::stowage::random::Random;
use super::stowage::{LIMIT, NodeFiles, look};
use super::{Stage, is_long};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![a_random_stream_of_pods_never_overlaps_and_leaks_nothing]
}

/// Eight A100s, cut on demand.
const EIGHT: NodeFiles = NodeFiles {
    node: NODE,
    gpus: "seed: 6\ngpus:\n  - {model: a100-40gb, count: 8, migMode: enabled}\n",
    config: "version: v1\nflags: {migStrategy: on-demand, plugin: {deviceListStrategy: cdi-cri}}\n",
    offers: &[("nvidia.com/mig-1g.5gb", 56), ("nvidia.com/mig-7g.40gb", 8)],
};
/// Every profile of an A100 as pods ask for it, NVML's id of it, and how often it is asked for.
const PROFILES: [(&str, u32, usize); 7] = [
    ("mig-1g.5gb", 19, 6),
    ("mig-1g.5gb.me", 20, 1),
    ("mig-1g.10gb", 15, 2),
    ("mig-2g.10gb", 14, 4),
    ("mig-3g.20gb", 9, 3),
    ("mig-4g.20gb", 5, 1),
    ("mig-7g.40gb", 0, 1),
];
/// How many starts and stops there are, if somebody asks for other than the usual number.
const STEPS_ENV: &str = "STOWAGE_STREAM_STEPS";
const STEPS: usize = 120;
const STEPS_LONG: usize = 2000;
/// A plugin is killed every so many steps, a kubelet too; in the middle between, so that the short form has some of each.
const PLUGIN_KILL_EVERY: usize = 40;
const KUBELET_KILL_EVERY: usize = 200;
/// How many steps are taken around a kill before the wound may heal; they take about a second.
const STEPS_WOUNDED: usize = 6;
const CHECK_EVERY: usize = 10;
/// Pods at once: as many as make some of them wait for room.
const PODS: usize = 30;
/// Pods that are on their way at once.
const ON_THEIR_WAY: usize = 4;
/// Until all pods run or wait for room, even after a kill.
const SETTLED: Duration = Duration::from_secs(120);

async fn a_random_stream_of_pods_never_overlaps_and_leaks_nothing(stage: &mut Stage) -> Result<()> {
    let (cluster, stowage) = stage.fresh().await?;
    let asked = std::env::var(STEPS_ENV).ok().map(|text| text.parse().context(STEPS_ENV)).transpose()?;
    let steps = asked.unwrap_or(if is_long() { STEPS_LONG } else { STEPS });
    with_gpus(cluster, stowage, &EIGHT, async |node| {
        let standby = node.start_standby()?;
        let mut stream = Stream::on(node, &standby);
        let start = Instant::now();
        for step in 0..steps {
            stream.step().await?;
            if step % PLUGIN_KILL_EVERY == PLUGIN_KILL_EVERY / 2 {
                stream.wound(Victim::Plugin).await?;
            }
            if step % KUBELET_KILL_EVERY == KUBELET_KILL_EVERY / 2 {
                stream.wound(Victim::Kubelet).await?;
            }
            if step % CHECK_EVERY == 0 {
                stream.settle(0).await?;
                stream.check().await?;
            }
        }
        stream.settle(0).await?;
        stream.check().await?;
        eprintln!("{steps} steps in {} s: {:?}", start.elapsed().as_secs(), stream.counts);
        ensure!(stream.counts.failed.is_empty(), "pods failed without any kill: {:?}", stream.counts.failed);
        nothing_leaked(node).await
    })
    .await
}

/// Once all pods are gone every GPU can be had whole: nobody's instance is in the way.
async fn nothing_leaked(node: &OnDemand<'_>) -> Result<()> {
    pods::delete_all(node.cluster, LIMIT).await?;
    node.until_allocatable(EIGHT.offers).await?;
    eprintln!("{} idle instances are kept", node.instances()?.len());
    for number in 0..8 {
        node.create(&format!("all-{number}"), By::Stowage, "mig-7g.40gb").await?;
    }
    pods::all_running(node.cluster, 8, LIMIT).await?;
    let instances = node.instances()?;
    ensure!(instances.len() == 8 && instances.values().all(|profile| *profile == 0), "{instances:?}");
    look::audit_is_clean(node.cluster).await
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Plugin,
    Kubelet,
}

/// What happened.
#[derive(Debug, Default)]
struct Counts {
    starts: usize,
    stops: usize,
    plugin_kills: usize,
    kubelet_kills: usize,
    /// Pods that failed while nothing had been killed.
    failed: Vec<String>,
    failed_by_plugin_kills: usize,
    failed_by_kubelet_kills: usize,
    most_running: usize,
    containers_checked: usize,
}

struct Stream<'a> {
    node: &'a OnDemand<'a>,
    /// Two plugins: the one that serves, and the one that stands by.
    plugins: [&'a Process; 2],
    random: Random,
    next: usize,
    /// What each pod asks for, by name.
    asked: BTreeMap<String, &'static str>,
    /// Who was killed, from that moment until all is well.
    wounded: Rc<Cell<Option<Victim>>>,
    counts: Counts,
}

impl<'a> Stream<'a> {
    fn on(node: &'a OnDemand<'a>, standby: &'a Process) -> Self {
        let (asked, counts) = (BTreeMap::new(), Counts::default());
        let plugins = [&node.plugin, standby];
        Self { node, plugins, random: Random::of(1), next: 0, asked, wounded: Rc::default(), counts }
    }

    /// Starts or stops a pod, whatever the others do.
    async fn step(&mut self) -> Result<()> {
        self.settle(ON_THEIR_WAY).await?;
        let stops = self.asked.len() >= PODS || (self.asked.len() > PODS / 3 && self.random.below(5) < 2);
        if !stops {
            let all = PROFILES.iter().flat_map(|(resource, _, often)| std::iter::repeat_n(*resource, *often));
            let all: Vec<&'static str> = all.collect();
            let resource = all[self.random.below(all.len())];
            self.counts.starts += 1;
            return self.start(resource).await;
        }
        let at = self.random.below(self.asked.len());
        let Some(name) = self.asked.keys().nth(at).cloned() else { return Ok(()) };
        self.asked.remove(&name);
        self.counts.stops += 1;
        pods::delete(self.node.cluster, &name).await
    }

    async fn start(&mut self, resource: &'static str) -> Result<()> {
        let name = format!("stream-{}", self.next);
        self.next += 1;
        self.node.create(&name, By::Stowage, resource).await?;
        self.asked.insert(name, resource);
        Ok(())
    }

    async fn steps(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.step().await?;
        }
        Ok(())
    }

    /// Kills somebody while the stream goes on, and waits until all is well. A plugin dies at any moment of the next
    /// second, not always right after a creation.
    async fn wound(&mut self, victim: Victim) -> Result<()> {
        let (node, wounded) = (self.node, Rc::clone(&self.wounded));
        let [serving, standby] = self.plugins;
        match victim {
            Victim::Plugin => {
                self.counts.plugin_kills += 1;
                let moment = Duration::from_millis(self.random.below(1000) as u64);
                let kill = async {
                    tokio::time::sleep(moment).await;
                    wounded.set(Some(victim));
                    serving.kill()?;
                    // A kubelet takes longer to start a container again.
                    node.wait_healthy().await?;
                    serving.restart()
                };
                tokio::try_join!(kill, self.steps(STEPS_WOUNDED))?;
                self.plugins = [standby, serving];
            }
            Victim::Kubelet => {
                self.counts.kubelet_kills += 1;
                wounded.set(Some(victim));
                node.cluster.node(NODE)?.restart_kubelet(Signal::KILL).await?;
                self.steps(STEPS_WOUNDED).await?;
            }
        }
        node.wait_healthy().await?;
        self.settle(0).await?;
        self.wounded.set(None);
        Ok(())
    }

    /// Waits until all pods but `most` run or wait for room. Those that failed are made anew, as a controller would.
    async fn settle(&mut self, most: usize) -> Result<()> {
        let deadline = Instant::now() + SETTLED;
        loop {
            let failed =
                self.settled_or_failed(most, deadline.saturating_duration_since(Instant::now())).await?;
            if failed.is_empty() {
                return Ok(());
            }
            for pod in failed {
                let said = pods::describe(&pod);
                let wounded = self.wounded.get();
                eprintln!("failed ({wounded:?}): {said}");
                match wounded {
                    None => self.counts.failed.push(said),
                    Some(Victim::Plugin) => self.counts.failed_by_plugin_kills += 1,
                    Some(Victim::Kubelet) => self.counts.failed_by_kubelet_kills += 1,
                }
                pods::delete(self.node.cluster, pods::name(&pod)).await?;
                if let Some(resource) = self.asked.remove(pods::name(&pod)) {
                    self.start(resource).await?;
                }
            }
        }
    }

    async fn settled_or_failed(&mut self, most: usize, limit: Duration) -> Result<Vec<Pod>> {
        let (node, asked) = (self.node, &self.asked);
        let mut most_running = self.counts.most_running;
        let look = async || {
            let pods = pods::list(node.cluster).await?;
            let (failed, others): (Vec<Pod>, Vec<Pod>) =
                pods.into_iter().partition(|pod| pods::phase(pod) == "Failed");
            if !failed.is_empty() {
                return Ok(failed);
            }
            let running = others.iter().filter(|pod| pods::phase(pod) == "Running").count();
            most_running = most_running.max(running);
            let is_settled = |pod: &&Pod| pods::phase(pod) == "Running" || pods::fits_no_node(pod);
            let names: BTreeSet<&str> = others.iter().filter(is_settled).map(pods::name).collect();
            let unsettled: Vec<&Pod> = others.iter().filter(|pod| !names.contains(pods::name(pod))).collect();
            let missing =
                asked.keys().filter(|name| !others.iter().any(|pod| pods::name(pod) == *name)).count();
            let say: Vec<String> = unsettled.iter().take(3).map(|pod| pods::describe(pod)).collect();
            ensure!(
                unsettled.len() + missing <= most,
                "{} are on their way: {}",
                unsettled.len(),
                say.join("; ")
            );
            Ok(Vec::new())
        };
        let result = node.cluster.wait_until(limit, "the pods to settle", &self.plugins, look).await;
        self.counts.most_running = most_running;
        result
    }

    /// What must hold whenever all is well: each container has an instance of its own, of the profile that it asked
    /// for; no device in use is called unhealthy; and the audit finds no error.
    async fn check(&mut self) -> Result<()> {
        let pods = pods::list(self.node.cluster).await?;
        let mut seen = BTreeSet::new();
        for pod in pods.iter().filter(|pod| pods::phase(pod) == "Running") {
            let name = pods::name(pod);
            let part = self.node.seen_by(pod).await?;
            let asked = self.asked.get(name).with_context(|| format!("{name} was not asked for"))?;
            let want = PROFILES.iter().find(|(resource, ..)| resource == asked).map(|(_, id, _)| *id);
            let instance = part.instance.with_context(|| format!("{name} sees a whole GPU"))?;
            let got = self.node.instances()?.get(&(part.gpu, instance)).copied();
            ensure!(got == want, "{name} asked for {asked}, and {part:?} is of the profile {got:?}");
            ensure!(seen.insert(part.clone()), "{name} sees {part:?}, and another container too");
            let ill = ill_devices(pod);
            ensure!(ill.is_empty(), "{name} has devices that are called unhealthy: {ill:?}");
            self.counts.containers_checked += 1;
        }
        // GpuNodes lag a moment behind the kubelet: only what stays wrong is wrong.
        let no_error = async || {
            let findings: Vec<_> = look::views(self.node.cluster).await?.iter().flat_map(audit).collect();
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
            let errors: Vec<String> = errors.map(ToString::to_string).collect();
            ensure!(errors.is_empty(), "{}", errors.join("\n"));
            Ok(())
        };
        self.node.cluster.wait_until(LIMIT, "an audit without errors", &self.plugins, no_error).await
    }
}

/// The devices of a pod that the kubelet calls anything but healthy.
fn ill_devices(pod: &Pod) -> Vec<String> {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let statuses = containers.flat_map(|container| container.allocated_resources_status.iter().flatten());
    let devices = statuses.flat_map(|status| status.resources.iter().flatten());
    let ill = devices.filter(|device| device.health.as_deref() == Some("Unhealthy"));
    ill.map(|device| device.resource_id.clone()).collect()
}
