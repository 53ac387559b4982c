//! How pods are bound, and how objects are deleted.

use http::Method;
use serde_json::{Value, json};

use super::{CONFIG_MAPS, MERGE, PODS, Run, WIDGETS, WRONG_UID, pod};

impl Run {
    pub(super) async fn bindings(&mut self) {
        self.post(PODS, pod("bound")).await;
        let path = format!("{PODS}/bound/binding");
        let pod_path = format!("{PODS}/bound");
        let target = json!({ "apiVersion": "v1", "kind": "Node", "name": "script-none" });
        let binding = |metadata: Value| {
            json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target,
            })
        };
        let nominate = json!({ "status": { "nominatedNodeName": "elsewhere" } });
        self.patch(
            "a nomination",
            &format!("{pod_path}/status"),
            MERGE,
            nominate.clone(),
            &["/status/nominatedNodeName"],
        )
        .await;
        let annotate = json!({ "metadata": { "annotations": { "own": "1", "plan": "forged" } } });
        self.call(Method::PATCH, &pod_path, MERGE, annotate).await;
        let old = self.read(&pod_path).await["metadata"]["resourceVersion"].clone();
        self.call(Method::PATCH, &pod_path, MERGE, json!({ "metadata": { "annotations": { "own": "2" } } }))
            .await;

        self.create(
            "a binding with another uid",
            &path,
            binding(json!({ "name": "bound", "uid": WRONG_UID })),
            &[],
        )
        .await;
        let stale = binding(json!({ "name": "bound", "resourceVersion": old }));
        self.create("a binding of an old version", &path, stale, &[]).await;
        self.create("a binding of another name", &path, binding(json!({ "name": "other" })), &[]).await;
        let nowhere = json!({ "metadata": { "name": "bound" }, "target": { "name": "" } });
        self.create("a binding without a target", &path, nowhere, &[]).await;
        let wrong = json!({ "metadata": { "name": "bound" }, "target": { "kind": "Pod", "name": "a" } });
        self.create("a binding to no node", &path, wrong, &[]).await;
        let missing = binding(json!({ "name": "none" }));
        self.create("a binding of no pod", &format!("{PODS}/none/binding"), missing, &[]).await;
        let gated = binding(json!({ "name": "gated" }));
        self.create("a binding of a gated pod", &format!("{PODS}/gated/binding"), gated, &[]).await;

        let uid = self.read(&pod_path).await["metadata"]["uid"].clone();
        let metadata =
            json!({ "name": "bound", "uid": uid, "annotations": { "plan": "real" }, "labels": { "a": "b" } });
        let seen = ["/kind", "/status", "/code", "/details"];
        self.create("a binding to a node that is not there", &path, binding(metadata.clone()), &seen).await;
        let seen = [
            "/spec/nodeName",
            "/metadata/annotations",
            "/metadata/generation",
            "/status/nominatedNodeName",
            "/status/conditions/0/type",
            "/status/conditions/0/status",
        ];
        self.get("the bound pod", &pod_path, &seen).await;
        self.create("a second binding", &path, binding(metadata), &[]).await;
        self.patch("a nomination of a bound pod", &format!("{pod_path}/status"), MERGE, nominate, &[]).await;
        self.get("a read of a binding", &path, &[]).await;

        self.post(PODS, pod("bricked")).await;
        let long = "x".repeat(300 << 10);
        let metadata = json!({ "name": "bricked", "annotations": { "long": long } });
        self.create(
            "a binding with a long annotation",
            &format!("{PODS}/bricked/binding"),
            binding(metadata),
            &[],
        )
        .await;
        let running = json!({ "status": { "phase": "Running" } });
        self.patch("a status of that pod", &format!("{PODS}/bricked/status"), MERGE, running, &[]).await;
    }

    pub(super) async fn deletions(&mut self) {
        let marks =
            ["/kind", "/metadata/deletionGracePeriodSeconds", "/metadata/generation", "/status/phase"];
        let path = format!("{PODS}/sized");
        let other = json!({ "preconditions": { "uid": WRONG_UID } });
        self.delete("a delete with another uid", &path, other, &[]).await;
        let old = json!({ "preconditions": { "resourceVersion": "1" } });
        self.delete("a delete of an old version", &path, old, &[]).await;
        self.delete("a delete of an unbound pod", &path, Value::Null, &marks).await;
        self.delete("a delete of nothing", &path, Value::Null, &[]).await;

        let path = format!("{PODS}/bound");
        let options = json!({ "gracePeriodSeconds": 40 });
        let marked = self.delete("a delete of a bound pod", &path, options, &marks).await;
        self.note("it is marked", marked["metadata"]["deletionTimestamp"].is_string().to_string());
        self.get("the marked pod", &path, &marks).await;
        let longer = json!({ "gracePeriodSeconds": 50 });
        self.delete("a delete with more patience", &path, longer, &marks).await;
        let shorter = json!({ "gracePeriodSeconds": 20 });
        self.delete("a delete with less patience", &path, shorter, &marks).await;
        let finalizer = json!({ "metadata": { "finalizers": ["example.com/late"] } });
        self.patch("a finalizer on a marked pod", &path, MERGE, finalizer, &[]).await;
        let now = json!({ "gracePeriodSeconds": 0 });
        self.delete("a delete by the kubelet", &path, now.clone(), &marks).await;
        self.get("the pod after that", &path, &[]).await;

        self.post(PODS, pod("leaving")).await;
        let path = format!("{PODS}/leaving");
        let holder = json!({ "metadata": { "finalizers": ["example.com/hold"] } });
        self.call(Method::PATCH, &path, MERGE, holder.clone()).await;
        self.delete("a delete of a held pod", &path, Value::Null, &marks).await;
        let binding = json!({ "metadata": { "name": "leaving" }, "target": { "name": "a" } });
        self.create("a binding of a marked pod", &format!("{path}/binding"), binding, &[]).await;
        let release = json!({ "metadata": { "finalizers": null } });
        self.patch("its release", &path, MERGE, release.clone(), &["/kind"]).await;
        self.get("the pod after its release", &path, &[]).await;

        self.post(PODS, pod("ended")).await;
        let path = format!("{PODS}/ended");
        let binding = json!({ "metadata": { "name": "ended" }, "target": { "name": "script-none" } });
        self.post(&format!("{path}/binding"), binding).await;
        let failed = json!({ "status": { "phase": "Failed" } });
        self.call(Method::PATCH, &format!("{path}/status"), MERGE, failed).await;
        self.delete("a delete of a pod that has ended", &path, Value::Null, &marks).await;
        self.get("the pod that had ended", &path, &[]).await;

        let path = format!("{WIDGETS}/a");
        self.call(Method::PATCH, &path, MERGE, holder).await;
        let seen = ["/kind", "/metadata/deletionGracePeriodSeconds", "/metadata/generation"];
        self.delete("a delete of a held custom object", &path, Value::Null, &seen).await;
        self.delete("a delete of it again", &path, Value::Null, &seen).await;
        self.patch("the release of it", &path, MERGE, release, &["/kind"]).await;
        self.get("the custom object after that", &path, &[]).await;
        let seen = ["/kind", "/status", "/details/name", "/details/kind", "/details/group"];
        self.post(
            WIDGETS,
            json!({
                "apiVersion": "script.stowage.dev/v1", "kind": "Widget", "metadata": { "name": "b" },
            }),
        )
        .await;
        self.delete("a delete of a free custom object", &format!("{WIDGETS}/b"), Value::Null, &seen).await;
        self.delete("a delete of a config map", &format!("{CONFIG_MAPS}/list-c"), Value::Null, &seen).await;
        self.delete(
            "a delete of many",
            &format!("{CONFIG_MAPS}?labelSelector=group%3Dy"),
            Value::Null,
            &["/kind"],
        )
        .await;
        for name in ["first", "gated", "bricked"] {
            self.call(Method::DELETE, &format!("{PODS}/{name}"), "application/json", now.clone()).await;
        }
    }
}
