//! Evicting through the API.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, EvictParams, Preconditions};
use kube::{Api, Client};

use super::apply::Movable;
use crate::objects::{Objects, list};
use crate::schedulers::Schedulers;
use crate::world::World;

/// The cluster behind a client.
pub struct Live {
    client: Client,
    schedulers: Schedulers,
}

impl Live {
    /// This cluster, where pods of these schedulers are ours.
    pub fn new(client: Client, schedulers: Schedulers) -> Self {
        Self { client, schedulers }
    }
}

impl Movable for Live {
    async fn look(&mut self) -> Result<(World, Vec<PodDisruptionBudget>)> {
        let objects = Objects::read(&self.client, Timestamp::now()).await?;
        Ok((World::of(&objects, &self.schedulers), budgets(&self.client).await?))
    }

    async fn evict(&mut self, namespace: &str, name: &str, uid: &str) -> Result<()> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
        let delete = DeleteParams::default().preconditions(preconditions);
        let params = EvictParams { delete_options: Some(delete), ..EvictParams::default() };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        match pods.evict(name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 429 => {
                Err(anyhow!("a PodDisruptionBudget forbids it now: {}", status.message))
            }
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {
                Err(anyhow!("it changed meanwhile: {}", status.message))
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                Err(anyhow!("you may not evict it (create pods/eviction): {}", status.message))
            }
            Err(error) => Err(error).context("cannot evict it"),
        }
    }

    async fn pause(&mut self, how_long: Duration) {
        tokio::time::sleep(how_long).await;
    }
}

/// The PodDisruptionBudgets of all namespaces.
///
/// # Errors
/// Where they cannot be listed: then nobody knows whom they protect.
pub async fn budgets(client: &Client) -> Result<Vec<PodDisruptionBudget>> {
    let api: Api<PodDisruptionBudget> = Api::all(client.clone());
    list(&api, "").await.context("cannot list PodDisruptionBudgets, which are to be honoured: may you?")
}
