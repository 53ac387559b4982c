//! What is read: things that are not there, lists and watches.

use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use http::Method;
use kube::api::{Api, ApiResource, DynamicObject, WatchEvent, WatchParams};
use serde_json::{Value, json};

use super::{CONFIG_MAPS, MERGE, NAMESPACE, PODS, Run, WIDGETS, names_of, pod};

/// How long an event may take to come.
const PATIENCE: Duration = Duration::from_secs(20);

impl Run {
    pub(super) async fn unknown_things(&mut self) {
        self.get("an unknown core resource", "/api/v1/widgets", &[]).await;
        self.get("an unknown object", "/api/v1/namespaces/script/widgets/a", &[]).await;
        self.get("an unknown group", "/apis/nowhere.stowage.dev/v1/widgets", &[]).await;
        self.get("an unknown path", "/nothing", &[]).await;
        let custom = "/apis/script.stowage.dev/v1";
        self.get("an unknown custom resource", &format!("{custom}/nothings"), &[]).await;
        self.get("a cluster's object in a namespace", &format!("{custom}/namespaces/script/widgets"), &[])
            .await;
        self.get("a namespaced object without its namespace", "/api/v1/pods/a", &[]).await;
        self.get("an object that is not there", &format!("{PODS}/a"), &[]).await;
        self.get("a custom object that is not there", &format!("{WIDGETS}/a"), &[]).await;
        self.show("a post to an object", Method::POST, &format!("{PODS}/a"), json!({}), &[]).await;
        self.show("a post without a namespace", Method::POST, "/api/v1/pods", pod("a"), &[]).await;
        self.show("a delete of the version", Method::DELETE, "/version", Value::Null, &[]).await;
        self.get("the core group", "/api", &["/kind", "/versions"]).await;
        let lease_group = "/apis/coordination.k8s.io/v1";
        let seen = ["/groupVersion", "/resources/0/name", "/resources/0/kind", "/resources/0/namespaced"];
        self.get("a group", lease_group, &seen).await;
    }

    pub(super) async fn lists(&mut self) {
        for (name, label) in [("list-a", "x"), ("list-b", "y"), ("list-c", "x")] {
            let body =
                json!({ "metadata": { "name": name, "labels": { "group": label } }, "data": { "k": name } });
            self.post(CONFIG_MAPS, body).await;
        }
        for query in
            ["labelSelector=group%3Dx", "labelSelector=group+in+(y,z)", "labelSelector=group!=x,group"]
        {
            self.names(&format!("{CONFIG_MAPS}?{query}")).await;
        }
        for query in [
            "fieldSelector=metadata.name%3Dlist-b",
            "fieldSelector=metadata.name!=list-b&labelSelector=group",
        ] {
            self.names(&format!("{CONFIG_MAPS}?{query}")).await;
        }
        for query in [
            "fieldSelector=spec.schedulerName%3Dnobody,spec.nodeName%3D",
            "fieldSelector=status.phase!=Pending",
            "fieldSelector=spec.nodeName%3Delsewhere",
        ] {
            self.names(&format!("{PODS}?{query}")).await;
        }

        // Pages show the version of the first one, whatever happens meanwhile.
        let limited = format!("{CONFIG_MAPS}?labelSelector=group&limit=2");
        let (_, page) = self.call(Method::GET, &limited, "", Value::Null).await;
        self.note("the first page", names_of(&page));
        self.post(CONFIG_MAPS, json!({ "metadata": { "name": "list-d", "labels": { "group": "x" } } })).await;
        let token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        let encoded: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
        let (_, rest) =
            self.call(Method::GET, &format!("{limited}&continue={encoded}"), "", Value::Null).await;
        self.note("the second page", names_of(&rest));
        let same = page["metadata"]["resourceVersion"] == rest["metadata"]["resourceVersion"];
        self.note("both pages are of one version", same.to_string());
        let version = page["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let exact = format!("resourceVersion={version}&resourceVersionMatch=Exact");
        self.names_as("an exact version", &format!("{CONFIG_MAPS}?labelSelector=group&{exact}")).await;
        let newer = format!("resourceVersion={version}&resourceVersionMatch=NotOlderThan");
        self.names_as("not older than a version", &format!("{CONFIG_MAPS}?labelSelector=group&{newer}"))
            .await;
        let (_, page) =
            self.call(Method::GET, "/api/v1/namespaces/script/pods?limit=1", "", Value::Null).await;
        self.note("what remains", page["metadata"]["remainingItemCount"].to_string());

        for query in [
            "fieldSelector=spec.foo%3D1",
            "labelSelector=a%3D%3Db%3D%3Dc",
            "limit=x",
            "resourceVersion=x",
            "resourceVersionMatch=Exact",
            "sendInitialEvents=true",
            "watch=true&sendInitialEvents=true",
            "watch=true&resourceVersionMatch=NotOlderThan",
            "watch=true&resourceVersion=x",
        ] {
            self.get(&format!("a list with {query}"), &format!("{PODS}?{query}"), &[]).await;
        }
        self.get("kinds in a list", &format!("{CONFIG_MAPS}?limit=1"), &["/kind", "/items/0/kind"]).await;
    }

    pub(super) async fn watches(&mut self) {
        let version = self.read(CONFIG_MAPS).await["metadata"]["resourceVersion"].clone();
        let version = version.as_str().unwrap_or_default().to_owned();
        let label = |value: &str| json!({ "metadata": { "labels": { "seen": value } } });
        let body = json!({ "metadata": { "name": "watched", "labels": { "seen": "yes" } } });
        self.post(CONFIG_MAPS, body).await;
        let path = format!("{CONFIG_MAPS}/watched");
        for value in ["no", "yes"] {
            self.call(Method::PATCH, &path, MERGE, label(value)).await;
        }
        self.call(Method::PATCH, &path, MERGE, json!({ "data": { "k": "v" } })).await;
        self.call(Method::DELETE, &path, "", Value::Null).await;
        let all = WatchParams::default();
        let seen = self.events("ConfigMap", all.clone().fields("metadata.name=watched"), &version, 5).await;
        self.note("a watch from a version", seen);
        let seen = self.events("ConfigMap", all.clone().labels("seen=yes"), &version, 5).await;
        self.note("a watch of a label", seen);

        self.post(PODS, pod("watched")).await;
        let version = self.read(PODS).await["metadata"]["resourceVersion"].clone();
        let version = version.as_str().unwrap_or_default().to_owned();
        let binding = json!({ "metadata": { "name": "watched" }, "target": { "name": "script-watch" } });
        self.post(&format!("{PODS}/watched/binding"), binding).await;
        self.call(
            Method::PATCH,
            &format!("{PODS}/watched/status"),
            MERGE,
            json!({ "status": { "phase": "Failed" } }),
        )
        .await;
        let on_node = all.clone().fields("spec.nodeName=script-watch");
        let seen = self.events("Pod", on_node, &version, 2).await;
        self.note("a watch of a node's pods", seen);
        let unbound = all.clone().fields("spec.nodeName=,metadata.name=watched");
        let seen = self.events("Pod", unbound, &version, 1).await;
        self.note("a watch of unbound pods", seen);
        self.call(Method::DELETE, &format!("{PODS}/watched"), "", Value::Null).await;
    }

    /// Streaming lists, in a namespace of their own: the script's may still be on its way out.
    pub(super) async fn streaming_lists(&mut self) {
        let namespace = "/api/v1/namespaces/script-streams";
        self.post("/api/v1/namespaces", json!({ "metadata": { "name": "script-streams" } })).await;
        for name in ["stream-a", "stream-b", "stream-c"] {
            let group = if name == "stream-b" { "y" } else { "x" };
            let body = json!({ "metadata": { "name": name, "labels": { "group": group } } });
            self.post(&format!("{namespace}/configmaps"), body).await;
        }
        let all = WatchParams::default().labels("group=x");
        let seen = self.events_in("script-streams", "ConfigMap", all.clone(), "0", 3).await;
        self.note("a watch from nowhere", seen);
        let silent = all.clone().disable_bookmarks();
        let seen = self.events_in("script-streams", "ConfigMap", silent, "0", 2).await;
        self.note("a watch from nowhere without bookmarks", seen);
        let seen = self.events_in("script-streams", "ConfigMap", all.initial_events(), "0", 3).await;
        self.note("a streaming list", seen);
        self.call(Method::DELETE, namespace, "", Value::Null).await;
    }

    /// Records which objects a list shows; the step is named as its query.
    async fn names(&mut self, path: &str) {
        self.names_as(path, path).await;
    }

    pub(super) async fn names_as(&mut self, step: &str, path: &str) {
        let list = self.read(path).await;
        self.note(step, names_of(&list));
    }

    /// The first events of a watch in the script's namespace.
    async fn events(&self, kind: &str, params: WatchParams, version: &str, count: usize) -> String {
        self.events_in(NAMESPACE, kind, params, version, count).await
    }

    async fn events_in(
        &self,
        namespace: &str,
        kind: &str,
        params: WatchParams,
        version: &str,
        count: usize,
    ) -> String {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: kind.to_owned(),
            plural: format!("{}s", kind.to_lowercase()),
        };
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
        match api.watch(&params.timeout(60), version).await {
            Ok(stream) => told(stream, count).await,
            Err(error) => format!("no watch: {error}"),
        }
    }
}

async fn told(stream: impl Stream<Item = kube::Result<WatchEvent<DynamicObject>>>, count: usize) -> String {
    let mut stream = pin!(stream);
    let mut seen = Vec::new();
    while seen.len() < count {
        let event = match tokio::time::timeout(PATIENCE, stream.next()).await {
            Ok(Some(Ok(event))) => event,
            Ok(Some(Err(error))) => {
                seen.push(format!("error {error}"));
                break;
            }
            Ok(None) => break,
            Err(_) => {
                seen.push("nothing more".to_owned());
                break;
            }
        };
        seen.push(match event {
            WatchEvent::Added(object) => format!("added {}", of(&object)),
            WatchEvent::Modified(object) => format!("modified {}", of(&object)),
            WatchEvent::Deleted(object) => format!("deleted {}", of(&object)),
            WatchEvent::Bookmark(bookmark) => {
                format!("bookmark {:?}", bookmark.metadata.annotations.keys().collect::<Vec<_>>())
            }
            WatchEvent::Error(status) => format!("error {} {}", status.code, status.reason),
        });
    }
    seen.join(", ")
}

fn of(object: &DynamicObject) -> String {
    let labels = object.metadata.labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let name = object.metadata.name.clone().unwrap_or_default();
    [name].into_iter().chain(labels).collect::<Vec<_>>().join(" ")
}
