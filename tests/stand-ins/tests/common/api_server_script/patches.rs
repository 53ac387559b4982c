//! What is patched and applied.

use http::Method;
use serde_json::{Value, json};

use super::{APPLY, CONFIG_MAPS, JSON_PATCH, MERGE, PODS, Run, STRATEGIC, WIDGETS, WRONG_UID};

impl Run {
    pub(super) async fn patches(&mut self) {
        let path = format!("{CONFIG_MAPS}/list-b");
        let seen = ["/metadata/labels", "/data"];
        let patch = json!({ "metadata": { "labels": { "more": "x", "group": null } }, "data": { "l": "m" } });
        self.patch("a merge patch", &path, MERGE, patch, &seen).await;
        let patch = json!({ "metadata": { "resourceVersion": "1" }, "data": { "l": "n" } });
        self.patch("a merge patch of an old version", &path, MERGE, patch, &[]).await;
        let patch = json!({ "metadata": { "uid": WRONG_UID }, "data": { "l": "n" } });
        self.patch("a merge patch with another uid", &path, MERGE, patch, &[]).await;
        let patch = json!({ "metadata": { "name": "other" } });
        self.patch("a merge patch of the name", &path, MERGE, patch, &[]).await;
        let patch = json!([
            { "op": "test", "path": "/data/l", "value": "m" },
            { "op": "replace", "path": "/data/l", "value": "o" },
            { "op": "add", "path": "/metadata/labels/a~1b", "value": "c" },
        ]);
        self.patch("a json patch", &path, JSON_PATCH, patch.clone(), &seen).await;
        let (code, answer) = self.call(Method::PATCH, &path, JSON_PATCH, patch).await;
        self.note("a json patch whose test fails", format!("{code} {}", answer["reason"]));
        let patch = json!([{ "op": "remove", "path": "/data/none" }]);
        let (code, answer) = self.call(Method::PATCH, &path, JSON_PATCH, patch).await;
        self.note("a json patch of nothing", format!("{code} {}", answer["reason"]));
        let patch = json!({ "data": { "l": null, "k": "p" } });
        self.patch("a strategic patch", &path, STRATEGIC, patch.clone(), &seen).await;
        let (code, answer) =
            self.call(Method::PATCH, &format!("{WIDGETS}/a"), STRATEGIC, patch.clone()).await;
        self.note("a strategic patch of a custom object", format!("{code} {}", answer["reason"]));
        let (code, answer) = self.call(Method::PATCH, &path, "application/json", patch.clone()).await;
        self.note("a patch of no known kind", format!("{code} {}", answer["reason"]));
        self.patch("a patch of nothing", &format!("{CONFIG_MAPS}/none"), MERGE, patch, &[]).await;

        let pod = format!("{PODS}/first");
        let patch = json!({ "metadata": { "annotations": { "plan": "a" } } });
        self.patch("a pod's annotation", &pod, STRATEGIC, patch, &["/metadata/annotations"]).await;
        let patch = json!({ "spec": { "containers": [{ "name": "main", "image": "third" }] } });
        let seen =
            ["/spec/containers/0/image", "/spec/containers/0/resources/limits", "/metadata/generation"];
        self.patch("a pod's image, merged by name", &pod, STRATEGIC, patch, &seen).await;
        let patch = json!({ "metadata": { "finalizers": ["example.com/a"] } });
        self.patch("a finalizer", &pod, STRATEGIC, patch, &["/metadata/finalizers"]).await;
        let patch = json!({ "metadata": { "finalizers": ["example.com/b"] } });
        self.patch("another finalizer", &pod, STRATEGIC, patch, &["/metadata/finalizers"]).await;
        let patch = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["example.com/a"] } });
        self.patch("a finalizer less", &pod, STRATEGIC, patch, &["/metadata/finalizers"]).await;
        let patch = json!({ "metadata": { "finalizers": null } });
        self.patch("no finalizer", &pod, MERGE, patch, &["/metadata/finalizers"]).await;
    }

    pub(super) async fn applies(&mut self) {
        let one = format!("{CONFIG_MAPS}/applied?fieldManager=one");
        let two = format!("{CONFIG_MAPS}/applied?fieldManager=two");
        let seen = ["/data", "/metadata/labels"];
        let config = |data: Value| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "applied" }, "data": data,
            })
        };
        self.patch("an apply that creates", &one, APPLY, config(json!({ "a": "1", "b": "1" })), &seen).await;
        let made = self.read(&format!("{CONFIG_MAPS}/applied")).await;
        let entry = &made["metadata"]["managedFields"][0];
        let entry = json!([entry["manager"], entry["operation"], entry["fieldsV1"]]).to_string();
        self.note("its managed fields", entry);
        self.patch("an apply of another", &two, APPLY, config(json!({ "c": "2" })), &seen).await;
        self.patch("an apply in conflict", &two, APPLY, config(json!({ "a": "2", "c": "2" })), &[]).await;
        let forced = format!("{two}&force=true");
        self.patch("an apply by force", &forced, APPLY, config(json!({ "a": "2", "c": "2" })), &seen).await;
        self.patch("an apply that drops a field", &one, APPLY, config(json!({})), &seen).await;
        self.patch("an apply that drops two", &two, APPLY, config(json!({})), &seen).await;
        let nobody = format!("{CONFIG_MAPS}/applied");
        self.patch("an apply by nobody", &nobody, APPLY, config(json!({})), &[]).await;

        let widget = |status: Value| {
            json!({
                "apiVersion": "script.stowage.dev/v1", "kind": "Widget", "metadata": { "name": "a" }, "status": status,
            })
        };
        let status = format!("{WIDGETS}/a/status?fieldManager=one&force=true");
        let seen = ["/spec", "/status", "/metadata/generation"];
        let first = json!({ "gpus": { "GPU-1": { "used": 1 }, "GPU-2": { "used": 2 } }, "list": [1, 2] });
        self.patch("an applied status", &status, APPLY, widget(first), &seen).await;
        let second = json!({ "gpus": { "GPU-2": { "used": 3 } }, "list": [3] });
        self.patch("an applied status with less in it", &status, APPLY, widget(second), &seen).await;
    }
}
