//! The script: its cluster, and what its steps are made of. Each choice that a scheduler makes at random is
//! left with one way out.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use stowage_cluster_tests::wait_until;

use super::extender::Extender;
use super::{LABEL, NAMESPACE, SCHEDULER, Side, Steps, WIDGET, words};

/// The longest back-off is 10 s.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// Priority classes, where there are any: elsewhere the pods say their number themselves, which is allowed here too.
pub(super) const PRIORITIES: [(&str, i32); 2] = [("conformance-high", 1000), ("conformance-middle", 500)];

/// Runs all steps.
pub(super) async fn run<S: Side>(side: &S) -> Result<Steps> {
    let extender = Extender::start(side.client()).await;
    let mut script = Script { side, extender, uids: BTreeMap::new(), steps: Steps::new() };
    script.add_nodes().await?;
    let scheduler = script.order().await?;
    script.questions(&scheduler).await?;
    script.fits(&scheduler).await?;
    script.misfits(&scheduler).await?;
    script.filters(&scheduler).await?;
    script.scores(&scheduler).await?;
    script.priorities(&scheduler).await?;
    script.bindings(&scheduler).await?;
    script.waking(&scheduler).await?;
    drop(scheduler);
    script.several_extenders().await?;
    Ok(script.steps)
}

pub(super) struct Script<'a, S> {
    pub(super) side: &'a S,
    pub(super) extender: Extender,
    /// The UIDs of the pods, by name, of the last one where a name came again.
    uids: BTreeMap<String, String>,
    steps: Steps,
}

impl<S: Side> Script<'_, S> {
    /// Nodes that can take pods, `a` to `c`, and some that cannot.
    async fn add_nodes(&self) -> Result<()> {
        let taint = |key: &str, effect: &str| json!({ "key": key, "value": "yes", "effect": effect });
        let (normal, large) = (("4", "8Gi", "110", 4), ("8", "16Gi", "110", 8));
        for (name, spec, amounts) in [
            ("a", json!({}), normal),
            ("b", json!({}), large),
            ("c", json!({}), ("4", "16Gi", "110", 0)),
            ("cordoned", json!({ "unschedulable": true }), normal),
            ("crowded", json!({}), ("4", "8Gi", "0", 4)),
            ("evicting", json!({ "taints": [taint("evict", "NoExecute")] }), normal),
            ("tainted", json!({ "taints": [taint("keep", "NoSchedule")] }), normal),
        ] {
            self.side.add_node(node(name, spec, amounts)?).await?;
        }
        Ok(())
    }

    /// Whoever waits when a scheduler starts is served by priority.
    async fn order(&mut self) -> Result<S::Scheduler> {
        let [(high, high_value), (middle, middle_value)] = PRIORITIES;
        for (name, class) in
            [("low", None), ("high", Some((high, high_value))), ("middle", Some((middle, middle_value)))]
        {
            let mut pod = pod(name, json!({ WIDGET: "1" }));
            if let Some((class, value)) = class {
                pod["spec"]["priorityClassName"] = json!(class);
                pod["spec"]["priority"] = json!(value);
                pod["spec"]["preemptionPolicy"] = json!("Never");
            }
            self.create(pod).await?;
        }
        let extender = json!({
            "urlPrefix": self.extender.url(),
            "filterVerb": "filter",
            "prioritizeVerb": "prioritize",
            "bindVerb": "bind",
            "weight": 1,
            "nodeCacheCapable": true,
        });
        let scheduler = self.side.start_scheduler(configuration(json!({}), vec![extender]))?;
        for name in ["low", "middle", "high"] {
            self.placed(name).await?;
        }
        self.note("by priority", self.extender.pods("filter").join(" "));
        self.delete(&["low", "middle", "high"]).await?;
        Ok(scheduler)
    }

    /// What exactly an extender is asked.
    async fn questions(&mut self, scheduler: &S::Scheduler) -> Result<()> {
        self.extender.like("prioritize", [("a", 50)]);
        let mut pod = pod("asked", json!({ "cpu": "500m", "memory": "1Gi", WIDGET: "1" }));
        pod["metadata"]["annotations"] = json!({ "stay": "with me" });
        pod["spec"]["initContainers"] = json!([container("first", json!({ WIDGET: "2" }))]);
        self.create(pod).await?;
        let outcome = self.decided(scheduler, "asked").await?;
        self.note("asked", outcome);
        for (path, asked) in self.questions_about("asked") {
            self.note(&format!("asked: {path}"), words::question_in_full(&asked, self.uid("asked")));
        }
        self.extender.agree();
        self.delete(&["asked"]).await
    }

    /// Creates a pod, notes what came of its first try and what the extender was asked, and deletes it.
    pub(super) async fn try_pod(&mut self, step: &str, scheduler: &S::Scheduler, pod: Value) -> Result<()> {
        let (outcome, asked) = self.tried(scheduler, pod).await?;
        self.note(step, [outcome, asked].join("\n"));
        Ok(())
    }

    /// Creates a pod, says what came of its first try and what the extender was asked, and deletes it.
    pub(super) async fn tried(&mut self, scheduler: &S::Scheduler, pod: Value) -> Result<(String, String)> {
        let name = pod["metadata"]["name"].as_str().context("a pod without a name")?.to_owned();
        self.create(pod).await?;
        let outcome = self.decided(scheduler, &name).await?;
        let asked = self.asked(&name);
        self.delete(&[&name]).await?;
        Ok((outcome, asked))
    }

    /// What the extender was asked in a pod's first try, one line each.
    pub(super) fn asked(&self, pod: &str) -> String {
        let asked = words::first_try(self.questions_about(pod));
        let lines: Vec<String> = asked.iter().map(|(path, asked)| words::question(path, asked)).collect();
        if lines.is_empty() { "nothing asked".to_owned() } else { lines.join("\n") }
    }

    /// Waits until a pod has a node, or is said to have none: which, or why.
    pub(super) async fn decided(&self, scheduler: &S::Scheduler, name: &str) -> Result<String> {
        wait_until(LIMIT, &format!("a decision about {name}"), async || {
            let pod = self.pods().get(name).await?;
            if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) {
                return Ok(format!("on {node}"));
            }
            let (reason, message) = S::why(scheduler, &pod).context("nothing said yet")?;
            Ok(words::why(&reason, &message, &self.extender.address()))
        })
        .await
    }

    /// Waits until a pod has a node.
    pub(super) async fn placed(&self, name: &str) -> Result<String> {
        wait_until(LIMIT, &format!("a node for {name}"), async || {
            let pod = self.pods().get(name).await?;
            let node = pod.spec.and_then(|spec| spec.node_name).context("it has none yet")?;
            Ok(format!("on {node}"))
        })
        .await
    }

    pub(super) async fn create(&mut self, pod: Value) -> Result<()> {
        let pod = self.pods().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        let metadata = pod.metadata;
        self.uids.extend(metadata.name.zip(metadata.uid));
        Ok(())
    }

    /// All that the extender was asked about a pod so far.
    pub(super) fn questions_about(&self, pod: &str) -> Vec<(String, Value)> {
        self.extender.asked(self.uid(pod))
    }

    fn uid(&self, pod: &str) -> &str {
        self.uids.get(pod).map_or("", String::as_str)
    }

    pub(super) async fn patch(&self, name: &str, patch: Value) -> Result<()> {
        self.pods().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    pub(super) async fn patch_status(&self, name: &str, patch: Value) -> Result<()> {
        self.pods().patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Gives a node more resources.
    pub(super) async fn grow(&self, node: &str, more: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "status": { "capacity": more, "allocatable": more } }));
        let nodes = Api::<Node>::all(self.side.client());
        nodes.patch_status(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Deletes pods at once, and returns when they are gone.
    pub(super) async fn delete(&self, names: &[&str]) -> Result<()> {
        for name in names {
            self.pods().delete(name, &DeleteParams::default().grace_period(0)).await?;
        }
        wait_until(LIMIT, &format!("{names:?} to be gone"), async || {
            for name in names {
                ensure!(self.pods().get_opt(name).await?.is_none(), "{name} is there");
            }
            Ok(())
        })
        .await
    }

    pub(super) fn note(&mut self, step: &str, outcome: impl Into<String>) {
        self.steps.push((step.to_owned(), outcome.into()));
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.side.client(), NAMESPACE)
    }
}

/// A `KubeSchedulerConfiguration` with one profile.
pub(super) fn configuration(plugins: Value, extenders: Vec<Value>) -> Value {
    json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "profiles": [{ "schedulerName": SCHEDULER, "plugins": plugins }],
        "extenders": extenders,
    })
}

/// A node of the script with so much CPU and memory, and so many pods and widgets.
pub(super) fn node(name: &str, spec: Value, amounts: (&str, &str, &str, u32)) -> Result<Node> {
    let (cpu, memory, pods, widgets) = amounts;
    let amounts = json!({ "cpu": cpu, "memory": memory, "pods": pods, WIDGET: widgets.to_string() });
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { LABEL.0: LABEL.1, "called": name } },
        "spec": spec,
        "status": { "capacity": amounts, "allocatable": amounts },
    }))?)
}

/// A pod of one container that asks for this.
pub(super) fn pod(name: &str, requests: Value) -> Value {
    json!({
        "metadata": { "name": name, "labels": { LABEL.0: LABEL.1 } },
        "spec": {
            "schedulerName": SCHEDULER,
            "nodeSelector": { LABEL.0: LABEL.1 },
            "automountServiceAccountToken": false,
            "containers": [container("main", requests)],
        },
    })
}

/// A container that asks for this.
pub(super) fn container(name: &str, requests: Value) -> Value {
    let resources = json!({ "requests": requests, "limits": requests });
    json!({ "name": name, "image": "example.com/never-pulled:1", "resources": resources })
}
