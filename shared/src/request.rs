//! What a pod asks for, counted the way Kubernetes counts.
//!
//! Containers run together; init containers run one after another before them, and the kubelet hands a
//! finished init container's devices on to the containers that follow. A restartable init container (a
//! sidecar) goes on running, so it keeps its devices. The same walk that counts also tells which container
//! gets which device of the pod's set ([`Request::distribute`]).

use std::collections::BTreeMap;

use crate::contract::{CONTAINERS_MAX, DEVICES_PER_POD_MAX};
use crate::pack::Demand;
use crate::pod::{Container, PodSpec};
use crate::resource::ResourceName;
use crate::share::{ShareSize, ShareSizeError};

/// How a container of a pod runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: goes on running.
    Sidecar,
    /// An ordinary container.
    App,
}

impl Role {
    /// The role of an init container, by its restart policy.
    pub fn of_init(restart_policy: &str) -> Self {
        if restart_policy == "Always" { Self::Sidecar } else { Self::Init }
    }
}

/// What one container asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRequest {
    /// Its name.
    pub name: String,
    /// How it runs.
    pub role: Role,
    /// Devices by resource; never 0.
    pub devices: BTreeMap<ResourceName, u32>,
}

/// What a pod asks for: its containers that want GPUs, in the order in which the kubelet starts them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    containers: Vec<ContainerRequest>,
    share: Option<ShareSize>,
}

/// Why a pod's request cannot be served by anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not a whole number of devices.
    #[error("container {container} asks for {quantity:?} of {resource}: whole devices only")]
    Quantity {
        /// The container.
        container: String,
        /// The resource.
        resource: String,
        /// What it says.
        quantity: String,
    },
    /// More than any node can have.
    #[error("the pod asks for more than {DEVICES_PER_POD_MAX} devices")]
    TooManyDevices,
    /// An absurd pod.
    #[error("more than {CONTAINERS_MAX} containers ask for GPUs")]
    TooManyContainers,
    /// Shares of a size that cannot be read.
    #[error(transparent)]
    ShareSize(#[from] ShareSizeError),
}

impl Request {
    /// Reads a pod's request; `is_gpu` tells which resource names are GPUs.
    ///
    /// # Errors
    /// [`RequestError`] for fractions of a device and absurd amounts.
    pub fn of(spec: &PodSpec, is_gpu: impl Fn(&str) -> bool) -> Result<Self, RequestError> {
        let init = spec.init_containers.iter().map(|of| (of, Role::of_init(&of.restart_policy)));
        let apps = spec.containers.iter().map(|container| (container, Role::App));
        let mut containers = Vec::new();
        for (container, role) in init.chain(apps) {
            let devices = devices_of(container, &is_gpu)?;
            if !devices.is_empty() {
                containers.push(ContainerRequest { name: container.name.clone(), role, devices });
            }
        }
        if containers.len() > CONTAINERS_MAX {
            return Err(RequestError::TooManyContainers);
        }
        Ok(Self { containers, share: None })
    }

    /// Reads a pod's request with the size of its shares, which its annotations may say.
    ///
    /// # Errors
    /// As [`Request::of`], and for a size that cannot be read where the pod asks for any GPU.
    pub fn of_pod<'a>(
        spec: &PodSpec,
        annotation: impl Fn(&str) -> Option<&'a str>,
        is_gpu: impl Fn(&str) -> bool,
    ) -> Result<Self, RequestError> {
        let request = Self::of(spec, is_gpu)?;
        // Whatever else a pod says: what it does not ask for cannot be wrong.
        let share = if request.is_empty() { None } else { ShareSize::read(annotation)? };
        Ok(Self { share, ..request })
    }

    /// Reads a pod's request for resources with NVIDIA's names.
    ///
    /// # Errors
    /// As [`Request::of`].
    pub fn of_standard(spec: &PodSpec) -> Result<Self, RequestError> {
        Self::of(spec, ResourceName::is_standard_gpu)
    }

    /// Whether the pod wants no GPU.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// The size of each share that the pod asks for; `None` where it does not say.
    pub fn share(&self) -> Option<ShareSize> {
        self.share
    }

    /// What the pod asks of a node in all.
    pub fn demand(&self) -> Demand {
        Demand { devices: self.total(), share: self.share }
    }

    /// The containers that want GPUs, in the kubelet's order.
    pub fn containers(&self) -> &[ContainerRequest] {
        &self.containers
    }

    /// How many devices of each resource the pod holds in all, with handed-on devices counted once.
    pub fn total(&self) -> BTreeMap<ResourceName, u32> {
        let mut total: BTreeMap<ResourceName, u32> = BTreeMap::new();
        self.walk(|resource, fresh| *total.entry(resource.clone()).or_default() += fresh);
        total
    }

    /// Tells each container its devices, out of the pod's set of each resource (as many as [`total`] says).
    ///
    /// [`total`]: Self::total
    pub fn distribute<T: Clone>(
        &self,
        sets: &BTreeMap<ResourceName, Vec<T>>,
    ) -> Vec<(&ContainerRequest, ResourceName, Vec<T>)> {
        let mut next: BTreeMap<&ResourceName, usize> = BTreeMap::new();
        let mut pools: BTreeMap<&ResourceName, Vec<T>> = BTreeMap::new();
        let mut out = Vec::new();
        for container in &self.containers {
            for (resource, &count) in &container.devices {
                let pool = pools.entry(resource).or_default();
                let reused = (count as usize).min(pool.len());
                let mut devices: Vec<T> = pool.drain(..reused).collect();
                let from = next.entry(resource).or_default();
                let fresh =
                    sets.get(resource).into_iter().flatten().skip(*from).take(count as usize - reused);
                let before = devices.len();
                devices.extend(fresh.cloned());
                *from += devices.len() - before;
                if container.role == Role::Init {
                    pool.extend(devices.iter().cloned());
                }
                out.push((container, resource.clone(), devices));
            }
        }
        out
    }

    /// Walks the containers as the kubelet allocates: tells for each container and resource how many devices
    /// do not come from finished init containers.
    fn walk(&self, mut tell: impl FnMut(&ResourceName, u32)) {
        let mut reusable: BTreeMap<&ResourceName, u32> = BTreeMap::new();
        for container in &self.containers {
            for (resource, &count) in &container.devices {
                let pool = reusable.entry(resource).or_default();
                let reused = count.min(*pool);
                match container.role {
                    Role::Init => *pool += count - reused,
                    Role::Sidecar | Role::App => *pool -= reused,
                }
                tell(resource, count - reused);
            }
        }
    }
}

fn devices_of(
    container: &Container,
    is_gpu: &impl Fn(&str) -> bool,
) -> Result<BTreeMap<ResourceName, u32>, RequestError> {
    let Container { name, resources, .. } = container;
    // Kubernetes defaults requests from limits and holds the two equal for extended resources.
    let mut devices = BTreeMap::new();
    let mut all: u32 = 0;
    for (resource, quantity) in resources.requests.iter().chain(&resources.limits) {
        let Ok(known) = resource.parse::<ResourceName>() else { continue };
        if !is_gpu(resource) || devices.contains_key(&known) {
            continue;
        }
        let count = quantity.as_count().ok_or_else(|| RequestError::Quantity {
            container: name.clone(),
            resource: resource.clone(),
            quantity: format!("{quantity:?}"),
        })?;
        let count = u32::try_from(count).map_err(|_| RequestError::TooManyDevices)?;
        all = all.saturating_add(count);
        if all > DEVICES_PER_POD_MAX {
            return Err(RequestError::TooManyDevices);
        }
        if count > 0 {
            devices.insert(known, count);
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests;
