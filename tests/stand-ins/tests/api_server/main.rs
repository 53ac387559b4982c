//! The API server stand-in, met over HTTP by the real `kube` client.
#![allow(clippy::unwrap_used, missing_docs)]

mod clients;
mod conformance;
mod faults;
mod watchers;

use std::future::Future;
use std::time::Duration;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use stowage_stand_ins::api_server::{ApiServer, Options};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

async fn start() -> (ApiServer, Client) {
    let server = ApiServer::start(Options::default()).await.unwrap();
    let client = client_of(&server.kubeconfig(None)).await;
    (server, client)
}

/// A client that does not try again by itself, so that a test sees each refusal.
async fn client_of(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// Waits for what must happen, with a deadline instead of a sleep.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("this should have happened long ago")
}
