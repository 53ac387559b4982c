//! What is created and updated.

use http::Method;
use serde_json::{Value, json};

use super::{CONFIG_MAPS, LEASES, MERGE, PODS, Run, STRATEGIC, WIDGETS, WRONG_UID, annotated, pod};

impl Run {
    pub(super) async fn creates(&mut self) {
        let seen = [
            "/kind",
            "/metadata/generation",
            "/spec/schedulerName",
            "/spec/restartPolicy",
            "/spec/terminationGracePeriodSeconds",
            "/spec/containers/0/resources/requests",
            "/status/phase",
            "/status/qosClass",
            "/status/message",
        ];
        let mut first = pod("first");
        first["metadata"]["uid"] = WRONG_UID.into();
        first["status"] = json!({ "phase": "Running", "message": "mine" });
        let made = self.create("a pod", PODS, first, &seen).await;
        self.note("its uid is the server's", (made["metadata"]["uid"] != WRONG_UID).to_string());
        self.create("a pod of that name again", PODS, pod("first"), &[]).await;

        let mut generated = pod("");
        generated["metadata"] = json!({ "generateName": "made-" });
        let made = self.create("a generated name", PODS, generated, &["/metadata/generateName"]).await;
        let name = made["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.note("its form", format!("{} {}", name.starts_with("made-"), name.len()));
        self.call(Method::DELETE, &format!("{PODS}/{name}"), "", Value::Null).await;

        self.create("no name", PODS, pod(""), &[]).await;
        self.create("a bad name", PODS, pod("Upper"), &[]).await;
        let mut elsewhere = pod("b");
        elsewhere["metadata"]["namespace"] = "default".into();
        self.create("another namespace than the path's", PODS, elsewhere, &[]).await;
        let mut versioned = pod("b");
        versioned["metadata"]["resourceVersion"] = "7".into();
        self.create("a version on a new object", PODS, versioned, &[]).await;
        self.create("a missing namespace", "/api/v1/namespaces/nowhere/pods", pod("b"), &[]).await;
        let mut empty = pod("b");
        empty["spec"]["containers"] = json!([]);
        self.create("no containers", PODS, empty, &[]).await;
        self.create("a long annotation", PODS, annotated(pod("b"), 300 << 10), &[]).await;
        let (code, _) = self.call(Method::POST, PODS, "application/json", annotated(pod("b"), 4 << 20)).await;
        self.note("a body over three mebibytes", code.to_string());
        let (code, body) = self.call(Method::POST, PODS, "application/json", json!(["a"])).await;
        self.note("a body that is no object", format!("{code} {}", body["reason"]));
        let (code, body) = self.call(Method::POST, PODS, "application/json", json!({ "kind": "Node" })).await;
        self.note("a body of another kind", format!("{code} {}", body["reason"]));
        self.create("a rehearsal", &format!("{PODS}?dryRun=All"), pod("dry"), &["/metadata/name"]).await;
        self.get("what was only rehearsed", &format!("{PODS}/dry"), &[]).await;

        let mut gated = pod("gated");
        gated["spec"]["schedulingGates"] = json!([{ "name": "example.com/gate" }]);
        let condition =
            ["/status/conditions/0/type", "/status/conditions/0/status", "/status/conditions/0/reason"];
        self.create("a gated pod", PODS, gated, &condition).await;
        let mut sized = pod("sized");
        let amounts = json!({ "cpu": "1", "memory": "1Gi" });
        sized["spec"]["containers"][0]["resources"] = json!({ "limits": amounts });
        self.create("a guaranteed pod", PODS, sized, &["/status/qosClass"]).await;
    }

    pub(super) async fn updates(&mut self) {
        let path = format!("{CONFIG_MAPS}/list-a");
        let (_, original) = self.call(Method::GET, &path, "", Value::Null).await;
        let mut changed = original.clone();
        changed["data"]["k"] = "new".into();
        self.put("an update", &path, changed.clone(), &["/data"]).await;
        self.put("an update of an old version", &path, changed.clone(), &[]).await;
        let (_, before) = self.call(Method::GET, &path, "", Value::Null).await;
        let (_, after) = self.call(Method::PUT, &path, "application/json", before.clone()).await;
        let same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"];
        self.note("an update that changes nothing keeps the version", same.to_string());
        let bare = json!({ "metadata": { "name": "list-a" }, "data": { "k": "bare" } });
        self.put("an update without a version", &path, bare.clone(), &["/data", "/metadata/labels"]).await;
        let mut other_uid = bare.clone();
        other_uid["metadata"]["uid"] = WRONG_UID.into();
        self.put("an update with another uid", &path, other_uid, &[]).await;
        self.put("an update under another name", &format!("{CONFIG_MAPS}/list-b"), bare, &[]).await;
        let missing = json!({ "metadata": { "name": "none" } });
        self.put("an update of nothing", &format!("{CONFIG_MAPS}/none"), missing, &[]).await;

        let path = format!("{PODS}/first");
        let (_, original) = self.call(Method::GET, &path, "", Value::Null).await;
        let mut changed = original.clone();
        changed["spec"]["nodeName"] = "a-node".into();
        self.put("a node name by update", &path, changed, &[]).await;
        let mut changed = original.clone();
        changed["status"]["phase"] = "Running".into();
        changed["metadata"]["labels"] = json!({ "changed": "yes" });
        let seen = ["/status/phase", "/metadata/labels", "/metadata/generation"];
        self.put("a status by update", &path, changed, &seen).await;
        let (_, mut changed) = self.call(Method::GET, &path, "", Value::Null).await;
        changed["spec"]["containers"][0]["image"] = "other".into();
        self.put("an image by update", &path, changed, &["/metadata/generation"]).await;

        let lease = json!({ "metadata": { "name": "a" }, "spec": { "holderIdentity": "me" } });
        let seen = ["/spec/holderIdentity", "/metadata/generation"];
        self.put("a lease that was not there", &format!("{LEASES}/a"), lease.clone(), &seen).await;
        self.put("a lease without a version", &format!("{LEASES}/a"), lease, &[]).await;

        let widget = json!({
            "apiVersion": "script.stowage.dev/v1", "kind": "Widget",
            "metadata": { "name": "a" }, "spec": { "size": 1 }, "status": { "ready": true },
        });
        let seen = ["/spec", "/status", "/metadata/generation"];
        let mut widget = self.create("a custom object", WIDGETS, widget, &seen).await;
        widget["spec"]["size"] = 2.into();
        widget["status"] = json!({ "ready": true });
        let mut widget = self.put("its update", &format!("{WIDGETS}/a"), widget, &seen).await;
        widget["metadata"]["labels"] = json!({ "a": "b" });
        let mut widget = self.put("its label", &format!("{WIDGETS}/a"), widget, &seen).await;
        widget["metadata"].as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
        self.put("its update without a version", &format!("{WIDGETS}/a"), widget, &[]).await;
    }

    pub(super) async fn statuses(&mut self) {
        let status = format!("{PODS}/first/status");
        let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status });
        let conditions =
            json!({ "status": { "conditions": [condition("A", "True"), condition("B", "True")] } });
        let seen = [
            "/status/conditions/0/type",
            "/status/conditions/0/status",
            "/status/conditions/1/type",
            "/status/conditions/1/status",
            "/status/phase",
            "/metadata/generation",
        ];
        self.patch("two conditions", &status, STRATEGIC, conditions, &seen).await;
        let changed = json!({ "status": { "conditions": [condition("A", "False")] } });
        self.patch("one of them, merged by type", &status, STRATEGIC, changed.clone(), &seen).await;
        self.patch("one of them, by merge patch", &status, MERGE, changed, &seen).await;
        let both = json!({
            "metadata": { "annotations": { "from": "status" } },
            "spec": { "nodeName": "mine" },
            "status": { "phase": "Pending", "nominatedNodeName": "a-node" },
        });
        let seen = ["/metadata/annotations", "/spec/nodeName", "/status/nominatedNodeName"];
        self.patch("a pod's status with other things", &status, MERGE, both, &seen).await;

        let status = format!("{WIDGETS}/a/status");
        let mut widget = self.read(&format!("{WIDGETS}/a")).await;
        widget["status"] = json!({ "ready": true });
        widget["spec"]["size"] = 9.into();
        widget["metadata"]["annotations"] = json!({ "from": "status" });
        let seen = ["/metadata/annotations", "/metadata/generation", "/spec", "/status"];
        self.put("a custom status with other things", &status, widget.clone(), &seen).await;
        self.put("a custom status of an old version", &status, widget, &[]).await;
        let patch = json!({ "spec": { "size": 3 }, "status": { "ready": false, "since": "today" } });
        self.patch("a custom status by merge patch", &status, MERGE, patch.clone(), &seen).await;
        self.patch("a custom object by merge patch", &format!("{WIDGETS}/a"), MERGE, patch, &seen).await;
        self.get("a status by itself", &status, &["/kind", "/status"]).await;
        self.get("a status that there is none of", &format!("{LEASES}/a/status"), &[]).await;
    }

    pub(super) async fn other_resources(&mut self) {
        let node = json!({
            "metadata": { "name": "script-node", "labels": { "a": "b" } },
            "status": { "capacity": { "nvidia.com/gpu": "8" } },
        });
        let seen = ["/metadata/labels", "/metadata/generation", "/status/capacity"];
        self.create("a node with a status", "/api/v1/nodes", node, &seen).await;
        let path = "/api/v1/nodes/script-node";
        let patch = json!({
            "metadata": { "annotations": { "c": "d" } },
            "spec": { "unschedulable": true },
            "status": { "allocatable": { "nvidia.com/gpu": "7" } },
        });
        let seen =
            ["/metadata/annotations/c", "/spec/unschedulable", "/status/allocatable", "/status/capacity"];
        self.patch("its status", &format!("{path}/status"), STRATEGIC, patch.clone(), &seen).await;
        self.patch("its spec", path, STRATEGIC, patch, &seen).await;

        let seen = ["/metadata/labels", "/spec/finalizers", "/status/phase"];
        let namespace = json!({ "metadata": { "name": "script-extra" } });
        self.create("a namespace", "/api/v1/namespaces", namespace.clone(), &seen).await;
        self.create("a namespace again", "/api/v1/namespaces", namespace, &[]).await;

        let event = json!({
            "metadata": { "name": "an-event", "namespace": "script" },
            "involvedObject": { "kind": "Pod", "namespace": "script", "name": "first" },
            "reason": "Tried", "message": "one", "type": "Normal", "count": 1,
        });
        let events = "/api/v1/namespaces/script/events";
        self.create("an event", events, event, &["/reason", "/message", "/count"]).await;
        let patch = json!({ "count": 2 });
        let path = format!("{events}/an-event");
        self.patch("the event again", &path, STRATEGIC, patch, &["/count", "/message"]).await;
        self.names_as("events of a pod", &format!("{events}?fieldSelector=involvedObject.name%3Dfirst"))
            .await;
        let event = json!({
            "metadata": { "name": "new-event", "namespace": "script" },
            "regarding": { "kind": "Pod", "namespace": "script", "name": "first" },
            "eventTime": "2026-01-02T03:04:05.000006Z", "reportingController": "example.com/script",
            "reportingInstance": "one", "action": "Trying", "reason": "Tried", "note": "new", "type": "Normal",
        });
        let path = "/apis/events.k8s.io/v1/namespaces/script/events";
        self.create("an event of the new kind", path, event, &["/reason", "/note", "/action"]).await;

        let path = format!("{LEASES}/a");
        let mut lease = self.read(&path).await;
        lease["spec"] = json!({ "holderIdentity": "you", "leaseTransitions": 1 });
        self.put(
            "a lease taken over",
            &path,
            lease.clone(),
            &["/spec/holderIdentity", "/spec/leaseTransitions"],
        )
        .await;
        self.put("a lease taken over too late", &path, lease, &[]).await;
    }
}
