//! The stand-in, on the API server stand-in.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use stowage_stand_ins::api_server::{ApiServer, Options};
use stowage_stand_ins::scheduler::{Scheduler, SchedulerOptions};

use super::{NAMESPACE, Side};

pub(super) struct StandIn {
    server: ApiServer,
    client: Client,
}

impl StandIn {
    /// With nodes of these names, which the script's pods do not want.
    pub(super) async fn start(others: impl Iterator<Item = String>) -> Result<Self> {
        let server = ApiServer::start(Options::default()).await?;
        let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig(None))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let side = Self { server, client: Client::try_from(config)? };
        for name in others {
            side.add_node(serde_json::from_value(json!({ "metadata": { "name": name } }))?).await?;
        }
        Ok(side)
    }
}

impl Side for StandIn {
    type Scheduler = Scheduler;

    fn client(&self) -> Client {
        self.client.clone()
    }

    async fn add_node(&self, node: Node) -> Result<()> {
        Api::all(self.client()).create(&PostParams::default(), &node).await?;
        Ok(())
    }

    fn start_scheduler(&self, configuration: Value) -> Result<Scheduler> {
        // What the script relies on must not depend on how ties are broken.
        let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos();
        let options = SchedulerOptions::from_configuration(&configuration.to_string(), seed.into())?;
        Ok(Scheduler::start(self.server.store().clone(), options))
    }

    fn why(scheduler: &Scheduler, pod: &Pod) -> Option<(String, String)> {
        let name = format!("{NAMESPACE}/{}", pod.metadata.name.as_deref()?);
        let why = scheduler.status().borrow().waiting.get(&name)?.clone();
        (!why.reason.is_empty()).then(|| (why.reason.to_owned(), why.message))
    }
}
