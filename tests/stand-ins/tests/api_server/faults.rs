//! What a fault hook can do to a client.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use stowage_stand_ins::api_server::resources::CONFIG_MAPS;
use stowage_stand_ins::api_server::{ApiError, ApiServer, Fault, FaultHook};

use super::{soon, start};

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap()
}

/// `fault` for requests of one verb, and none for others.
fn on(verb: &'static str, fault: Fault) -> Option<FaultHook> {
    Some(Arc::new(move |request| (request.verb == verb).then(|| fault.clone())))
}

fn has(server: &ApiServer, name: &str) -> bool {
    server.store().get(&CONFIG_MAPS, "default", name).is_ok()
}

#[tokio::test]
async fn a_refused_request_is_not_carried_out() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    server.set_fault(on("create", Fault::Refuse(ApiError::new(403, "Forbidden", "not you"))));
    let refusal = maps.create(&PostParams::default(), &map("a")).await.unwrap_err();
    assert!(
        matches!(&refusal, kube::Error::Api(status) if status.is_forbidden() && status.message == "not you")
    );
    assert!(!has(&server, "a"));
    server.set_fault(None);
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
}

#[tokio::test]
async fn an_answer_is_lost_with_or_without_its_deed() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    server.set_fault(on("create", Fault::Drop));
    soon(maps.create(&PostParams::default(), &map("dropped"))).await.unwrap_err();
    server.set_fault(on("create", Fault::LoseAnswer));
    soon(maps.create(&PostParams::default(), &map("lost"))).await.unwrap_err();
    server.set_fault(on("create", Fault::CutWatchAfter(0)));
    soon(maps.create(&PostParams::default(), &map("cut"))).await.unwrap_err();
    assert_eq!(["dropped", "lost", "cut"].map(|name| has(&server, name)), [false, true, true]);
    assert!(server.audit().iter().all(|record| record.code == 0));
}

#[tokio::test]
async fn a_delayed_request_is_carried_out_after_its_delay() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let delay = Duration::from_millis(50);
    server.set_fault(on("list", Fault::Delay(delay)));
    let began = std::time::Instant::now();
    maps.list(&ListParams::default()).await.unwrap();
    assert!(began.elapsed() >= delay);
}

#[tokio::test]
async fn a_stalled_request_gets_no_answer() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    server.set_fault(on("list", Fault::Stall));
    let waiting = tokio::time::timeout(Duration::from_millis(50), maps.list(&ListParams::default())).await;
    assert!(waiting.is_err());
}

#[tokio::test]
async fn a_stalled_watch_begins_and_says_nothing() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    server.set_fault(on("watch", Fault::Stall));
    let mut stream = pin!(soon(maps.watch(&WatchParams::default(), "0")).await.unwrap());
    assert!(tokio::time::timeout(Duration::from_millis(50), stream.next()).await.is_err());
    server.close_watches();
    assert!(soon(stream.next()).await.is_none());
}

#[tokio::test]
async fn a_cut_watch_breaks_off_after_its_events() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    for name in ["a", "b", "c"] {
        maps.create(&PostParams::default(), &map(name)).await.unwrap();
    }
    server.set_fault(on("watch", Fault::CutWatchAfter(2)));
    let stream = maps.watch(&WatchParams::default(), "0").await.unwrap();
    let seen: Vec<_> = soon(stream.into_stream().collect()).await;
    let added = seen.iter().filter(|event| matches!(event, Ok(WatchEvent::Added(_)))).count();
    assert_eq!(added, 2);
}

#[tokio::test]
async fn a_hook_can_count_and_fail_only_the_first_requests() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    server.set_fault(Some(Arc::new(move |_| {
        let unavailable = || Fault::Refuse(ApiError::new(503, "ServiceUnavailable", "not yet"));
        (counter.fetch_add(1, Ordering::Relaxed) < 2).then(unavailable)
    })));
    for _ in 0..2 {
        maps.list(&ListParams::default()).await.unwrap_err();
    }
    maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}
