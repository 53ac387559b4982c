//! CPU and memory: what a pod asks for beside its devices, and what a node has left for whoever uses its GPUs.
//!
//! kube-scheduler alone decides whether they suffice. Here they only say what an idle GPU is still worth: one on a node
//! without CPU serves nobody.

use crate::at_once::{Amount, at_once};
use crate::pod::{Container, PodSpec, Quantity, Resources};
use crate::request::Role;

/// CPU and memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host {
    /// CPU, in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory, in MiB.
    pub memory_mib: u64,
}

impl Host {
    /// From thousandths of a core, and bytes of which a part of a MiB counts as one.
    pub fn of_bytes(cpu_milli: u64, memory: u64) -> Self {
        Self { cpu_milli, memory_mib: memory.div_ceil(1 << 20) }
    }

    /// What a pod is counted with on its node: what runs of it [at once](at_once); what the pod as a whole states goes before
    /// that, and its overhead comes on top. What is no quantity counts as more than anybody has.
    pub fn of_pod(spec: &PodSpec) -> Self {
        let init = spec.init_containers.iter().map(|of| (Role::of_init(&of.restart_policy), of));
        let containers = init.chain(spec.containers.iter().map(|of| (Role::App, of)));
        let mut all: Self = at_once(containers.map(|(role, of)| (role, requested(of))));
        let amount = |name| asked(&spec.resources, name);
        all.cpu_milli = amount("cpu").map_or(all.cpu_milli, milli);
        all.memory_mib = amount("memory").map_or(all.memory_mib, mib);
        let over = &spec.overhead;
        all.add(Self {
            cpu_milli: over.get("cpu").map_or(0, milli),
            memory_mib: over.get("memory").map_or(0, mib),
        });
        all
    }

    /// What a node has for pods, by its `status.allocatable`.
    pub fn of_node<'a>(allocatable: impl Fn(&str) -> Option<&'a Quantity>) -> Self {
        Self {
            cpu_milli: allocatable("cpu").and_then(Quantity::milli).unwrap_or(0),
            memory_mib: allocatable("memory").and_then(Quantity::whole).unwrap_or(0) >> 20,
        }
    }

    /// Adds.
    pub fn add(&mut self, other: Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(other.cpu_milli);
        self.memory_mib = self.memory_mib.saturating_add(other.memory_mib);
    }

    /// Takes away; less than nothing is nothing.
    pub fn take(&mut self, other: Self) {
        self.cpu_milli = self.cpu_milli.saturating_sub(other.cpu_milli);
        self.memory_mib = self.memory_mib.saturating_sub(other.memory_mib);
    }
}

impl Amount for Host {
    fn add(&mut self, other: &Self) {
        Self::add(self, *other);
    }

    fn raise(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.max(other.cpu_milli);
        self.memory_mib = self.memory_mib.max(other.memory_mib);
    }
}

/// The request, or the limit where there is none, as the API server would have written.
fn asked<'a>(resources: &'a Resources, name: &str) -> Option<&'a Quantity> {
    resources.requests.get(name).or_else(|| resources.limits.get(name))
}

fn requested(container: &Container) -> Host {
    let amount = |name| asked(&container.resources, name);
    Host { cpu_milli: amount("cpu").map_or(0, milli), memory_mib: amount("memory").map_or(0, mib) }
}

fn milli(quantity: &Quantity) -> u64 {
    quantity.milli().unwrap_or(u64::MAX)
}

fn mib(quantity: &Quantity) -> u64 {
    quantity.whole().map_or(u64::MAX, |bytes| bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> (u64, u64) {
        let host = Host::of_pod(&serde_json::from_str(text).unwrap());
        (host.cpu_milli, host.memory_mib)
    }

    #[test]
    fn a_pod_asks_for_what_runs_at_once() {
        let of = |init: &str, rest: &str| {
            let app = r#"{"resources":{"requests":{"cpu":"1","memory":"1Gi"},"limits":{"cpu":"2"}}}"#;
            let over = r#""overhead":{"cpu":"100m"}"#;
            host(&format!(r#"{{"containers":[{app},{app}],"initContainers":[{init}],{over}{rest}}}"#))
        };
        let init = r#"{"resources":{"limits":{"cpu":"3"}}}"#;
        let sidecar = r#"{"restartPolicy":"Always","resources":{"requests":{"cpu":"500m"}}}"#;
        assert_eq!(of("", ""), (2100, 2048));
        assert_eq!(of(init, ""), (3100, 2048));
        assert_eq!(of(&format!("{sidecar},{init}"), ""), (3600, 2048));
        assert_eq!(of(&format!("{init},{sidecar}"), ""), (3100, 2048));
        assert_eq!(of(init, r#","resources":{"requests":{"cpu":"8"}}"#), (8100, 2048));
    }

    #[test]
    fn what_is_no_quantity_is_more_than_anybody_has() {
        let odd = host(r#"{"containers":[{"resources":{"requests":{"cpu":"-1","memory":"x"}}}]}"#);
        assert_eq!(odd, (u64::MAX, u64::MAX));
    }
}
