//! The map in a real browser: the program against the API server stand-in, looked at and used as a person would.
//!
//! Figures (first paint, changes, scrolling at 5,000 nodes) are printed, not asserted. `STOWAGE_IMAGES=folder` keeps the
//! pictures there; `PAGE=scheduler-extender/page` (an absolute path) shows the files as they are now, without a build.

#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code)]

mod browser;
mod cluster;
#[path = "../program/harness.rs"]
mod harness;

use serde_json::Value;
use stowage_stand_ins::api_server::ApiServer;

use self::browser::Browser;
use self::harness::{Extender, api_server, free_port};

/// Starts the program with its map, and lets the browser go through a script.
async fn look(script: &str, api: &ApiServer) {
    let Some(browser) = Browser::find() else { return };
    let map = free_port().await;
    let extender = Extender::ready_with(api, &[&format!("--map-address={map}")]).await;
    let bind = async |say: &Value| {
        let text = |key: &str| say[key].as_str().unwrap().to_owned();
        let (name, node) = (text("pod"), text("node"));
        let uid = harness::create_pod(api, &name, &text("resource"), 1);
        // The program knows of the pod before it is told to bind it.
        let error = extender.bind(&name, &uid, &node).await;
        assert_eq!(error, "", "{name} is bound to {node}");
    };
    browser.run(script, &format!("http://{map}"), bind).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_cluster_is_shown_and_can_be_searched_walked_and_asked() {
    let api = api_server().await;
    cluster::busy(&api);
    look("busy", &api).await;
}

/// Here the script itself tells the page what there is, so that it can be silent, break off and say what it likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_do_survives_what_the_page_is_told_and_a_silent_connection_is_given_up() {
    let api = api_server().await;
    look("told", &api).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_nodes_are_shown_without_a_stutter() {
    let api = api_server().await;
    cluster::many(&api, 5_000);
    look("many", &api).await;
}
