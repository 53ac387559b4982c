//! Which nodes a pod fits on: kube-scheduler's own filters, then the extender's.

use anyhow::Result;
use serde_json::{Value, json};

use super::extender::names;
use super::script::{Script, container, pod};
use super::{GADGET, LABEL, Side, WIDGET};

impl<S: Side> Script<'_, S> {
    /// Which nodes the extender hears of. Where there are several, it says which one it likes.
    pub(super) async fn fits(&mut self, scheduler: &S::Scheduler) -> Result<()> {
        self.extender.like("prioritize", [("b", 50)]);
        let requests = [
            ("nothing", json!({})),
            ("little", json!({ "cpu": "10m", "memory": "1Mi" })),
            ("all of a small node", json!({ "cpu": "4", "memory": "8Gi", WIDGET: "4" })),
            ("more CPU", json!({ "cpu": "4001m" })),
            ("more memory", json!({ "memory": "8388609Ki" })),
            ("more widgets", json!({ WIDGET: "5" })),
            ("no widgets", json!({ WIDGET: "0" })),
        ];
        for (step, requests) in requests {
            self.try_pod(step, scheduler, pod("fits", requests)).await?;
        }

        let mut limits_only = pod("fits", json!({}));
        limits_only["spec"]["containers"][0]["resources"] = json!({ "limits": { "cpu": "5", WIDGET: "1" } });
        self.try_pod("limits only", scheduler, limits_only).await?;

        let widgets = |count: u32| json!({ WIDGET: count.to_string() });
        let mut sum = pod("fits", widgets(2));
        sum["spec"]["containers"] = json!([container("one", widgets(2)), container("two", widgets(3))]);
        self.try_pod("containers add up", scheduler, sum).await?;
        for (step, first, policy) in [
            ("init containers do not", 4, None),
            ("but count", 5, None),
            ("sidecars add up", 4, Some("Always")),
        ] {
            let mut with_first = pod("fits", widgets(1));
            let mut init = container("first", widgets(first));
            if let Some(policy) = policy {
                init["restartPolicy"] = json!(policy);
            }
            with_first["spec"]["initContainers"] = json!([init]);
            self.try_pod(step, scheduler, with_first).await?;
        }

        for (step, key, value) in [("one node by label", "called", "c"), ("label", "called", "tainted")] {
            let mut choosy = pod("fits", json!({}));
            choosy["spec"]["nodeSelector"][key] = json!(value);
            self.try_pod(step, scheduler, choosy).await?;
        }
        let everything = json!({ "operator": "Exists" });
        for (step, toleration) in [
            ("tolerates everything", everything),
            ("a key", json!({ "key": "keep", "operator": "Exists" })),
            ("a key and value", json!({ "key": "keep", "value": "yes" })),
            ("another value", json!({ "key": "keep", "value": "no" })),
            ("another effect", json!({ "key": "keep", "operator": "Exists", "effect": "NoExecute" })),
            ("an effect", json!({ "operator": "Exists", "effect": "NoExecute" })),
            ("a cordon", json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Exists" })),
        ] {
            let mut tolerant = pod("fits", json!({}));
            tolerant["spec"]["tolerations"] = json!([toleration]);
            self.try_pod(step, scheduler, tolerant).await?;
        }
        self.extender.agree();
        Ok(())
    }

    /// What is said of a pod that no node takes.
    pub(super) async fn misfits(&mut self, scheduler: &S::Scheduler) -> Result<()> {
        for (step, requests) in [
            ("too much CPU", json!({ "cpu": "100" })),
            ("too much memory", json!({ "memory": "1Ti" })),
            ("too many widgets", json!({ WIDGET: "9" })),
            ("too much of all", json!({ "cpu": "100", "memory": "1Ti", WIDGET: "9" })),
            ("a resource that nobody has", json!({ GADGET: "1" })),
        ] {
            self.try_pod(step, scheduler, pod("unfit", requests)).await?;
        }
        let mut nowhere = pod("unfit", json!({}));
        nowhere["spec"]["nodeSelector"] = json!({ LABEL.0: "nowhere" });
        self.try_pod("a label that no node has", scheduler, nowhere).await
    }

    /// What an extender's `filter` may answer.
    pub(super) async fn filters(&mut self, scheduler: &S::Scheduler) -> Result<()> {
        let nobody = Value::Array(Vec::new());
        let (full, never) =
            (json!({ "a": "is full", "b": "is full" }), json!({ "b": "never", "c": "never" }));
        for (step, status, answer) in [
            ("one is left", 200, json!({ "NodeNames": ["a"], "FailedNodes": full })),
            ("two are left", 200, json!({ "NodeNames": ["c", "a"] })),
            ("none is left", 200, json!({ "NodeNames": nobody, "FailedNodes": full })),
            (
                "some for ever",
                200,
                json!({ "NodeNames": nobody, "FailedNodes": full, "FailedAndUnresolvableNodes": never }),
            ),
            ("without reasons", 200, json!({ "NodeNames": nobody })),
            ("no names", 200, json!({ "NodeNames": null, "FailedNodes": null, "Error": "" })),
            ("empty", 200, json!({})),
            ("passed and failed", 200, json!({ "NodeNames": ["b"], "FailedNodes": full })),
            ("a stranger failed", 200, json!({ "NodeNames": nobody, "FailedNodes": { "z": "is strange" } })),
            ("a stranger passed", 200, json!({ "NodeNames": ["a", "z"] })),
            ("error", 200, json!({ "NodeNames": ["a"], "Error": "no idea" })),
            ("status 500", 500, json!({ "NodeNames": ["a"] })),
            ("status 202", 202, json!({ "NodeNames": ["a"] })),
        ] {
            self.extender.say("filter", status, answer);
            self.extender.like("prioritize", [("a", 50)]);
            self.try_pod(&format!("filter: {step}"), scheduler, pod("filtered", json!({}))).await?;
        }
        // The words are Go's.
        self.extender.say("filter", 200, json!("what?"));
        let (outcome, asked) = self.tried(scheduler, pod("filtered", json!({}))).await?;
        let reason = outcome.split_once(':').map_or(outcome.as_str(), |(reason, _)| reason);
        self.note("filter: not an object", format!("{reason}\n{asked}"));

        // What kube-scheduler's own filters say comes together with what the extender says.
        self.extender.answer("filter", |asked| {
            let failed: serde_json::Map<String, Value> =
                names(asked).map(|name| (name.to_owned(), json!("Insufficient patience"))).collect();
            (200, json!({ "NodeNames": [], "FailedNodes": failed }))
        });
        let demanding = pod("filtered", json!({ WIDGET: "5" }));
        self.try_pod("filter: after others", scheduler, demanding).await?;
        self.extender.agree();
        Ok(())
    }
}
