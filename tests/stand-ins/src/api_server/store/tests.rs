#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use futures::FutureExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::patch::{ApplyConfig, Patch};
use super::super::resources::{BUDGETS, CONFIG_MAPS, GPU_NODES, PODS};
use super::*;

fn store() -> Store {
    Store::new(StoreOptions { seed: 7, ..StoreOptions::default() })
}

fn map(name: &str, label: &str) -> Value {
    json!({ "metadata": { "name": name, "labels": { "l": label } } })
}

fn put(store: &Store, name: &str, label: &str) {
    if store.create(&CONFIG_MAPS, "default", map(name, label)).is_err() {
        store.update(&CONFIG_MAPS, "default", name, Part::Main, map(name, label)).unwrap();
    }
}

fn remove(store: &Store, name: &str) {
    let _ = store.delete(&CONFIG_MAPS, "default", name, &DeleteOptions::default());
}

/// Name to label, of what a list shows.
fn listed(list: &List) -> BTreeMap<String, String> {
    list.items.iter().map(|object| label_of(object)).collect()
}

fn label_of(object: &Object) -> (String, String) {
    (object.name().to_owned(), object["metadata"]["labels"]["l"].as_str().unwrap_or_default().to_owned())
}

fn from(version: u64) -> WatchOptions {
    WatchOptions { resource_version: version.to_string(), ..WatchOptions::default() }
}

/// What a watch says without waiting.
fn told(watch: &mut Watch) -> Vec<WatchEvent> {
    std::iter::from_fn(|| watch.next().now_or_never().flatten()).collect()
}

/// Applies events to a view, as any client would, and refuses those that do not fit it.
fn follow(view: &mut BTreeMap<String, String>, events: &[WatchEvent]) {
    for event in events {
        match event {
            WatchEvent::Added(object) => {
                let (name, label) = label_of(object);
                assert!(view.insert(name, label).is_none(), "added twice");
            }
            WatchEvent::Modified(object) => {
                let (name, label) = label_of(object);
                assert!(view.insert(name, label).is_some(), "modified before it was added");
            }
            WatchEvent::Deleted(object) => {
                assert!(view.remove(object.name()).is_some(), "deleted before it was added");
            }
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    /// Whatever is written, each version can be listed again as it was, and a watch from it arrives
    /// at what there is now, seen through any selector.
    #[test]
    fn lists_and_watches_of_any_version_agree_with_what_was_seen(
        writes in prop::collection::vec((0..4_u8, 0..4_u8), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let store = store();
        let mut truth = BTreeMap::new();
        let mut seen = vec![(store.version(), truth.clone())];
        for (name, label) in writes {
            let (name, label) = (format!("map-{name}"), label.to_string());
            if label == "3" {
                remove(&store, &name);
                truth.remove(&name);
            } else {
                put(&store, &name, &label);
                truth.insert(name, label);
            }
            seen.push((store.version(), truth.clone()));
        }
        for (version, was) in seen {
            let exact = ListOptions {
                resource_version: version.to_string(),
                version_match: Some(VersionMatch::Exact),
                ..ListOptions::default()
            };
            prop_assert_eq!(&listed(&store.list(&CONFIG_MAPS, &exact).unwrap()), &was);
            for labels in ["", "l=1", "l!=1", "l in (0,2)"] {
                let shows = |label: &str| match labels {
                    "" => true,
                    "l=1" => label == "1",
                    "l!=1" => label != "1",
                    _ => label == "0" || label == "2",
                };
                let mut view = was.clone();
                view.retain(|_, label| shows(label));
                let mut now = truth.clone();
                now.retain(|_, label| shows(label));
                let options = WatchOptions { labels: labels.to_owned(), ..from(version) };
                follow(&mut view, &told(&mut store.watch(&CONFIG_MAPS, &options).unwrap()));
                prop_assert_eq!(view, now);
            }
        }
    }

    /// Pages of any size make up the list, also when the list changes while it is read.
    #[test]
    fn pages_make_up_the_list(count in 0..12_usize, limit in 1..5_usize) {
        let store = store();
        (0..count).for_each(|index| put(&store, &format!("map-{index:02}"), "x"));
        let whole = listed(&store.list(&CONFIG_MAPS, &ListOptions::default()).unwrap());
        let mut options = ListOptions { limit, ..ListOptions::default() };
        let mut read = BTreeMap::new();
        loop {
            let page = store.list(&CONFIG_MAPS, &options).unwrap();
            prop_assert!(page.items.len() <= limit);
            prop_assert_eq!(page.remaining.unwrap_or_default(), count - read.len() - page.items.len());
            read.extend(listed(&page));
            remove(&store, "map-01");
            put(&store, "map-03", "y");
            match page.continue_token {
                Some(token) => options.continue_token = token,
                None => break,
            }
        }
        prop_assert_eq!(read, whole);
    }
}

#[tokio::test]
async fn a_version_that_left_the_bounded_history_is_gone() {
    let store = Store::new(StoreOptions { history: 3, ..StoreOptions::default() });
    let before = store.version();
    let mut slow = store.watch(&CONFIG_MAPS, &from(before)).unwrap();
    ["a", "b", "c"].iter().for_each(|name| put(&store, name, ""));
    assert_eq!(told(&mut store.watch(&CONFIG_MAPS, &from(before)).unwrap()).len(), 3);
    put(&store, "d", "");
    for watch in [&mut slow, &mut store.watch(&CONFIG_MAPS, &from(before)).unwrap()] {
        let events = told(watch);
        let [WatchEvent::Error(refusal)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((refusal.code, refusal.reason), (410, "Expired"));
        assert!(watch.next().await.is_none());
    }
    let exact = ListOptions {
        resource_version: before.to_string(),
        version_match: Some(VersionMatch::Exact),
        ..ListOptions::default()
    };
    assert_eq!(store.list(&CONFIG_MAPS, &exact).unwrap_err().code, 410);
    // Other resources have a history of their own.
    assert!(told(&mut store.watch(&PODS, &from(before)).unwrap()).is_empty());
}

#[tokio::test]
async fn a_watch_that_is_up_to_date_survives_a_compaction() {
    let store = store();
    put(&store, "a", "");
    let mut watch = store.watch(&CONFIG_MAPS, &from(store.version())).unwrap();
    assert!(told(&mut watch).is_empty());
    store.compact();
    put(&store, "b", "");
    assert!(matches!(&told(&mut watch)[..], [WatchEvent::Added(object)] if object.name() == "b"));
}

#[tokio::test]
async fn a_watch_ends_in_time_and_with_its_resource() {
    let store = store();
    let timeout = Some(Duration::from_millis(10));
    let mut watch = store.watch(&PODS, &WatchOptions { timeout, ..WatchOptions::default() }).unwrap();
    assert!(watch.next().await.is_none());
    let mut watch = store.watch(&GPU_NODES, &WatchOptions::default()).unwrap();
    store.uninstall(&GPU_NODES);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_sees_a_write_that_happens_while_it_waits() {
    let store = store();
    let mut watch = store.watch(&CONFIG_MAPS, &WatchOptions::default()).unwrap();
    let writer = store.clone();
    let (event, ()) = tokio::join!(watch.next(), async move {
        tokio::task::yield_now().await;
        put(&writer, "a", "");
    });
    assert!(matches!(event, Some(WatchEvent::Added(object)) if object.name() == "a"));
}

#[test]
fn a_write_that_changes_nothing_is_no_write() {
    let store = store();
    put(&store, "a", "x");
    let version = store.version();
    put(&store, "a", "x");
    store.modify(&CONFIG_MAPS, "default", "a", Part::Main, |_| {}).unwrap();
    assert_eq!(store.version(), version);
    store.modify(&CONFIG_MAPS, "default", "a", Part::Main, |map| map["data"] = json!({ "k": "v" })).unwrap();
    assert_eq!(store.version(), version + 1);
}

#[test]
fn a_version_that_has_not_happened_is_too_large() {
    let options = ListOptions { resource_version: "1000".to_owned(), ..ListOptions::default() };
    let refusal = store().list(&PODS, &options).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (504, "Timeout"));
    assert_eq!(refusal.message, "Timeout: Too large resource version: 1000, current: 4");
}

#[test]
fn equal_seeds_make_equal_identities_and_no_two_objects_share_one() {
    let make = || {
        let store = store();
        let made = |_| {
            store.create(&CONFIG_MAPS, "default", json!({ "metadata": { "generateName": "m-" } })).unwrap()
        };
        (0..50)
            .map(made)
            .map(|object| (object.uid().to_owned(), object.name().to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let first = make();
    assert_eq!(first, make());
    assert_eq!(first.len(), 50);
    let uid = first.keys().next().unwrap();
    assert!(uid.len() == 36 && uid.as_bytes()[14] == b'4' && b"89ab".contains(&uid.as_bytes()[19]), "{uid}");
}

#[test]
fn a_namespace_takes_its_objects_with_it() {
    let store = store();
    store.create(&NAMESPACES, "", json!({ "metadata": { "name": "n" } })).unwrap();
    store.create(&CONFIG_MAPS, "n", map("a", "")).unwrap();
    put(&store, "a", "");
    store.delete(&NAMESPACES, "", "n", &DeleteOptions::default()).unwrap();
    assert_eq!(store.get(&CONFIG_MAPS, "n", "a").unwrap_err().code, 404);
    assert!(store.get(&CONFIG_MAPS, "default", "a").is_ok());
    let refusal = store.create(&CONFIG_MAPS, "n", map("a", "")).unwrap_err();
    assert_eq!(refusal.message, "namespaces \"n\" not found");
}

#[test]
fn whatever_a_body_holds_it_is_refused_or_stored_but_never_breaks_the_server() {
    let store = store();
    let odd = [json!(null), json!(1), json!("a"), json!([]), json!({}), json!({ "a": 1 })];
    for odd in &odd {
        for (key, inner) in
            [("metadata", ""), ("spec", ""), ("status", ""), ("metadata", "labels"), ("spec", "containers")]
        {
            let mut pod = json!({
                "metadata": { "name": "a" }, "spec": { "containers": [{ "name": "m", "image": "i" }] },
            });
            if inner.is_empty() {
                pod[key] = odd.clone()
            } else {
                pod[key][inner] = odd.clone()
            }
            let _ = store.create(&PODS, "default", pod.clone());
            let _ = store.update(&PODS, "default", "a", Part::Main, pod.clone());
            let _ = store.update(&PODS, "default", "a", Part::Status, pod.clone());
            let _ = store.patch(&PODS, "default", "a", Part::Main, &Patch::Strategic(pod.clone()));
            let _ = store.patch(&PODS, "default", "a", Part::Status, &Patch::Merge(pod.clone()));
            let _ = store.bind("default", "a", &pod);
            let _ = store.delete(&PODS, "default", "a", &DeleteOptions::default());
        }
        let _ = store.create(&GPU_NODES, "", odd.clone());
        let _ = store.patch(&GPU_NODES, "", "a", Part::Status, &Patch::Merge(odd.clone()));
    }
}

#[test]
fn an_applied_status_takes_back_what_it_no_longer_names() {
    let store = store();
    store.create(&GPU_NODES, "", json!({ "metadata": { "name": "n" } })).unwrap();
    let apply = |status: Value| {
        let config = json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "GpuNode", "metadata": { "name": "n" }, "status": status,
        });
        let patch = Patch::Apply(ApplyConfig::new(config, "plugin", true).unwrap());
        store.patch(&GPU_NODES, "", "n", Part::Status, &patch).unwrap().0
    };
    apply(json!({ "gpus": { "GPU-1": { "used": 1 }, "GPU-2": { "used": 2 } }, "list": [1, 2] }));
    let object = apply(json!({ "gpus": { "GPU-2": { "used": 3 } }, "list": [3] }));
    assert_eq!(object["status"], json!({ "gpus": { "GPU-2": { "used": 3 } }, "list": [3] }));
    let version = store.version();
    apply(json!({ "gpus": { "GPU-2": { "used": 3 } }, "list": [3] }));
    assert_eq!(store.version(), version, "an apply that changes nothing writes nothing");
}

#[test]
fn an_eviction_is_a_deletion_that_a_budget_may_refuse() {
    let store = store();
    let pod = |name: &str, app: &str| json!({ "metadata": { "name": name, "labels": { "app": app } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        store.create(&PODS, "default", pod(name, app)).unwrap();
    }
    let budget =
        json!({ "metadata": { "name": "x" }, "spec": { "selector": { "matchLabels": { "app": "x" } } } });
    store.create(&BUDGETS, "default", budget).unwrap();
    store
        .modify(&BUDGETS, "default", "x", Part::Status, |it| it["status"]["disruptionsAllowed"] = 1.into())
        .unwrap();
    let other = DeleteOptions { uid: Some("other".into()), ..DeleteOptions::default() };
    assert_eq!(store.evict("default", "a", &other).unwrap_err().code, 409);
    let any = DeleteOptions::default();
    assert!(store.evict("default", "a", &any).is_ok());
    assert_eq!(store.evict("default", "b", &any).unwrap_err().code, 429);
    assert!(store.evict("default", "c", &any).is_ok(), "no budget protects it");
    assert_eq!(store.evict("default", "c", &any).unwrap_err().code, 404);
}
