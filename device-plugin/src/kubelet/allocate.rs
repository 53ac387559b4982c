//! `Allocate` and `PreStartContainer`: what a container is told of its devices, and that they are there.

use std::collections::BTreeMap;

use kubelet_api::device_plugin::{ContainerAllocateRequest, ContainerAllocateResponse};
use ops::chain;
use tonic::Status;

use super::service::Service;
use crate::answer::{allocate_response, token_name};
use crate::book::Event;
use crate::inventory::Inventory;
use crate::slices::{Part, ROOM_WAIT_IN_ALLOCATE, Slices};

impl Service {
    /// Answers for each container, or refuses all of them.
    pub(super) async fn answer(
        &self,
        requests: Vec<ContainerAllocateRequest>,
    ) -> Result<Vec<ContainerAllocateResponse>, Status> {
        let inventory = self.plugin.book.borrow().inventory().clone();
        let answers = self.plugin.answers();
        let answer = |ids: &[String], slices: &BTreeMap<String, Part>| {
            let answer = allocate_response(&inventory, &self.resource, ids, slices, &answers);
            answer.map_err(|error| self.refuse(error.to_string()))
        };
        let mut responses = Vec::with_capacity(requests.len());
        for request in &requests {
            self.check_shares(&inventory, &request.devices_ids)?;
            let slices = self.to_be_built(&inventory, &request.devices_ids);
            responses.push(answer(&request.devices_ids, &slices)?);
        }
        let at = self.plugin.now();
        for ids in requests.iter().map(|request| request.devices_ids.clone()) {
            tracing::debug!(resource_name = %self.resource, ?ids, "Devices allocated.");
            self.plugin.record(Event::Allocated { resource: self.resource.clone(), ids, at });
        }
        if let Some(slices) = &self.slices {
            slices.keep_bookings(&self.plugin).await;
        }
        for (request, response) in requests.iter().zip(&mut responses) {
            let limits = self.plugin.book.borrow().share_limits(&self.resource, &request.devices_ids);
            answers.tell_limits(response, &limits);
        }
        let Some(slices) = self.slices.as_ref().filter(|slices| !slices.are_built_at_start()) else {
            return Ok(responses);
        };
        for (request, response) in requests.iter().zip(&mut responses) {
            match slices
                .prepare(&self.plugin, &self.resource, &request.devices_ids, ROOM_WAIT_IN_ALLOCATE)
                .await
            {
                Ok(built) if built.is_empty() => {}
                Ok(built) => *response = answer(&request.devices_ids, &built)?,
                Err(error) => {
                    for ids in requests.iter().map(|request| request.devices_ids.clone()) {
                        self.plugin.record(Event::Refused { resource: self.resource.clone(), ids });
                    }
                    return Err(self.refuse(chain(&error)));
                }
            }
        }
        Ok(responses)
    }

    /// Makes what a container is about to use.
    pub(super) async fn prepare(&self, ids: &[String]) -> Result<(), Status> {
        let Some(slices) = self.slices.as_ref().filter(|slices| slices.are_built_at_start()) else {
            return Ok(());
        };
        slices.start(&self.plugin, &self.resource, ids).await.map_err(|error| {
            let text = chain(&error);
            tracing::warn!(resource_name = %self.resource, ?ids, error = text, "A container cannot start yet.");
            // The kubelet tells it as the container's state, and tries again.
            Status::unavailable(text)
        })
    }

    /// Tokens by the names that containers are told; they have a slice when the container starts.
    fn to_be_built(&self, inventory: &Inventory, ids: &[String]) -> BTreeMap<String, Part> {
        let book = self.plugin.book.borrow();
        let part = |id: &String| {
            let (gpu, _) = id.split_once("::")?;
            let detail = inventory.cut_on_demand(&gpu.parse().ok()?)?;
            book.knows_token(&self.resource, id).then(|| (id.clone(), (token_name(id), detail.clone())))
        };
        ids.iter().filter_map(part).collect()
    }

    /// Refuses shares that one container must not have together.
    fn check_shares(&self, inventory: &Inventory, ids: &[String]) -> Result<(), Status> {
        let (resource, count) = (&self.resource, ids.len());
        let is_share = |id: &String| inventory.is_share(resource, id);
        if count > 1 && self.plugin.fail_requests_greater_than_one && ids.iter().any(is_share) {
            return Err(self.refuse(format!(
                "request for '{resource}: {count}' too large: maximum request size for shared resources is 1"
            )));
        }
        if inventory.share_rules().distinct_gpus
            && let Some(part) = inventory.same_part_twice(resource, ids)
        {
            return Err(self.refuse(format!(
                "request for '{resource}: {count}' wants shares of different GPUs (sharing.timeSlicing.distinctGPUs), and this node has not as many free: {part} would be used twice"
            )));
        }
        Ok(())
    }

    /// The kubelet fails the pod for good with this text as its message: it is for the pod's author.
    fn refuse(&self, text: String) -> Status {
        self.plugin.metrics.allocation_refused();
        tracing::error!(resource_name = %self.resource, error = text, "Devices refused.");
        Status::invalid_argument(text)
    }
}

/// What the kubelet is told when it registers us.
pub(super) fn options(slices: Option<&Slices>) -> kubelet_api::device_plugin::DevicePluginOptions {
    kubelet_api::device_plugin::DevicePluginOptions {
        pre_start_required: slices.is_some_and(Slices::are_built_at_start),
        get_preferred_allocation_available: true,
    }
}
