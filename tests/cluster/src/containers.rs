//! Looking into running containers.
//!
//! Read from `/proc`, not by running a command inside: that needs no tool in the image, and it shows what the
//! runtime gave the container's first process, whatever a shell made of it since.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use crate::Cluster;

impl Cluster {
    /// The environment that the runtime gave a running container.
    ///
    /// # Errors
    /// When the pod or the container is not there, or the container does not run (yet, or any more).
    pub async fn container_env(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<BTreeMap<String, String>> {
        let pid = self.container_pid(namespace, pod, container).await?;
        let path = format!("/proc/{pid}/environ");
        let environ = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
        let environment = parse_environ(&environ);
        // A process that is ending has none, and runc's own is not the container's.
        ensure!(
            !environment.is_empty() && !environment.keys().any(|name| name.starts_with("_LIBCONTAINER")),
            "container {container} of pod {namespace}/{pod} is just starting or ending"
        );
        Ok(environment)
    }

    /// The id of a running container's first process, as the test process sees it: its devices are under
    /// `/proc/PID/root/dev`, for instance.
    ///
    /// # Errors
    /// As [`Self::container_env`].
    pub async fn container_pid(&self, namespace: &str, pod: &str, container: &str) -> Result<u32> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let pod_object = pods.get(pod).await?;
        let node = pod_object.spec.and_then(|spec| spec.node_name).context("the pod has no node yet")?;
        let status = pod_object.status.unwrap_or_default();
        let statuses = [status.container_statuses, status.init_container_statuses];
        let status = statuses
            .into_iter()
            .flatten()
            .flatten()
            .find(|status| status.name == container)
            .with_context(|| format!("pod {namespace}/{pod} has no container {container} yet"))?;
        let running = status.state.is_some_and(|state| state.running.is_some());
        ensure!(running, "container {container} of pod {namespace}/{pod} does not run");
        let id = status.container_id.unwrap_or_default();
        let id = id.strip_prefix("containerd://").context("its id is not containerd's")?;
        // containerd's shim keeps it there for as long as the container has a task.
        let path = self
            .node(&node)?
            .folder()
            .join("containerd/state/io.containerd.runtime.v2.task/k8s.io")
            .join(id)
            .join("init.pid");
        let pid = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        pid.trim().parse().with_context(|| format!("{} holds no process id", path.display()))
    }

    /// What a container has printed so far, by way of the API server and the kubelet.
    pub async fn container_log(&self, namespace: &str, pod: &str, container: &str) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let parameters = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        Ok(pods.logs(pod, &parameters).await?)
    }
}

/// Parses `/proc/PID/environ`: `NAME=VALUE`, each ended by a zero byte.
fn parse_environ(environ: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(environ);
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_hold_an_equals_sign_and_a_line_break() {
        let environment = parse_environ(b"A=b=c\nd\0EMPTY=\0");
        let expected = [("A", "b=c\nd"), ("EMPTY", "")];
        assert_eq!(environment, expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
    }
}
