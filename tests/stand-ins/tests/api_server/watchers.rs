//! `kube::runtime`'s watchers: both ways to begin, resuming, and starting over after 410.

use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::json;
use stowage_stand_ins::api_server::resources::CONFIG_MAPS;
use stowage_stand_ins::api_server::{
    ApiServer, DeleteOptions, Options, Part, Store, StoreOptions, WatchEvent, WatchOptions,
};

use super::{client_of, soon, start};

fn create(store: &Store, name: &str) {
    let map = json!({ "metadata": { "name": name, "labels": { "seen": "yes" } } });
    store.create(&CONFIG_MAPS, "default", map).unwrap();
}

fn relabel(store: &Store, name: &str, value: &str) {
    let change = |map: &mut serde_json::Value| map["metadata"]["labels"]["seen"] = value.into();
    store.modify(&CONFIG_MAPS, "default", name, Part::Main, change).unwrap();
}

fn delete(store: &Store, name: &str) {
    store.delete(&CONFIG_MAPS, "default", name, &DeleteOptions::default()).unwrap();
}

/// The next event in few words; an error in its own.
async fn next(stream: &mut (impl Stream<Item = watcher::Result<Event<ConfigMap>>> + Unpin)) -> String {
    let name = |map: ConfigMap| map.metadata.name.unwrap_or_default();
    match soon(stream.next()).await.unwrap() {
        Ok(Event::Init) => "init".to_owned(),
        Ok(Event::InitApply(map)) => format!("init {}", name(map)),
        Ok(Event::InitDone) => "done".to_owned(),
        Ok(Event::Apply(map)) => format!("apply {}", name(map)),
        Ok(Event::Delete(map)) => format!("delete {}", name(map)),
        Err(watcher::Error::WatchError(status)) => format!("{} {}", status.code, status.reason),
        Err(error) => format!("{error}"),
    }
}

async fn check(
    stream: &mut (impl Stream<Item = watcher::Result<Event<ConfigMap>>> + Unpin),
    expect: &[&str],
) {
    for expect in expect {
        assert_eq!(next(stream).await, *expect);
    }
}

#[tokio::test]
async fn a_watcher_sees_what_there_is_and_what_happens() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let (server, client) = start().await;
        create(server.store(), "a");
        create(server.store(), "b");
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        let mut stream = pin!(watcher(maps, config));
        check(&mut stream, &["init", "init a", "init b", "done"]).await;
        create(server.store(), "c");
        relabel(server.store(), "a", "no");
        delete(server.store(), "b");
        check(&mut stream, &["apply c", "apply a", "delete b"]).await;
    }
}

#[tokio::test]
async fn a_small_page_size_shows_the_same() {
    let (server, client) = start().await;
    ["a", "b", "c"].iter().for_each(|name| create(server.store(), name));
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut stream = pin!(watcher(maps, watcher::Config::default().page_size(1)));
    check(&mut stream, &["init", "init a", "init b", "init c", "done"]).await;
    let lists = server.audit().iter().filter(|record| record.attributes.verb == "list").count();
    assert_eq!(lists, 3);
}

#[tokio::test]
async fn an_object_that_leaves_the_selector_is_deleted_to_it() {
    let (server, client) = start().await;
    create(server.store(), "a");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut stream = pin!(watcher(maps, watcher::Config::default().labels("seen=yes")));
    check(&mut stream, &["init", "init a", "done"]).await;
    relabel(server.store(), "a", "no");
    relabel(server.store(), "a", "never");
    relabel(server.store(), "a", "yes");
    check(&mut stream, &["delete a", "apply a"]).await;
}

#[tokio::test]
async fn a_watch_that_was_closed_goes_on_where_it_was() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut stream = pin!(watcher(maps, watcher::Config::default()));
    check(&mut stream, &["init", "done"]).await;
    create(server.store(), "a");
    check(&mut stream, &["apply a"]).await;
    server.close_watches();
    create(server.store(), "b");
    check(&mut stream, &["apply b"]).await;
    let lists = server.audit().iter().filter(|record| record.attributes.verb == "list").count();
    assert_eq!(lists, 1, "it resumed, and did not list again");
}

#[tokio::test]
async fn a_watcher_starts_over_when_its_version_is_gone() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let (server, client) = start().await;
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        let mut stream = pin!(watcher(maps, config));
        check(&mut stream, &["init", "done"]).await;
        create(server.store(), "a");
        check(&mut stream, &["apply a"]).await;
        server.close_watches();
        create(server.store(), "b");
        server.store().compact();
        check(&mut stream, &["410 Expired", "init", "init a", "init b", "done"]).await;
        create(server.store(), "c");
        check(&mut stream, &["apply c"]).await;
    }
}

#[tokio::test]
async fn bookmarks_keep_a_quiet_watch_from_expiring() {
    let store_options =
        StoreOptions { bookmark_every: Duration::from_millis(20), history: 4, ..StoreOptions::default() };
    let server = ApiServer::start(Options { store_options, ..Options::default() }).await.unwrap();
    let store = server.store().clone();
    let client = client_of(&server.kubeconfig(None)).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    create(&store, "other");
    let only_a = watcher::Config::default().fields("metadata.name=a");
    let mut stream = pin!(watcher(maps, only_a));
    check(&mut stream, &["init", "done"]).await;

    // Nothing that this watch shows happens, but far more than the history holds.
    let quiet = async {
        let options = WatchOptions { bookmarks: true, ..WatchOptions::default() };
        let mut pace = store.watch(&CONFIG_MAPS, &options).unwrap();
        for index in 0..20 {
            relabel(&store, "other", &index.to_string());
            // One bookmark later, the other watch has had one too, or gets it before the next but one.
            while !matches!(pace.next().await, Some(WatchEvent::Bookmark { initial_events_end: false, .. })) {
            }
        }
    };
    tokio::select! {
        () = quiet => {}
        event = stream.next() => panic!("nothing should be seen, but {event:?}"),
    }
    server.close_watches();
    create(&store, "a");
    check(&mut stream, &["apply a"]).await;
}
