//! Amounts of a node's resources, and what a pod asks for of them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::quantity;

/// What a container that says nothing counts with when nodes are *scored*; for fitting it counts with 0.
/// (`DefaultMilliCPURequest`, `DefaultMemoryRequest` of kube-scheduler.)
const UNSAID_MILLI_CPU: i64 = 100;
const UNSAID_MEMORY_BYTES: i64 = 200 << 20;

/// Amounts of resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Everything else by name, in units: devices, bytes of ephemeral storage; `pods` on nodes.
    pub others: BTreeMap<String, i64>,
}

impl Amounts {
    /// Reads a resource list such as `resources.requests` or `status.allocatable`.
    pub(super) fn of(list: &Value) -> Self {
        let mut amounts = Self::default();
        for (name, quantity) in list.as_object().into_iter().flatten() {
            match name.as_str() {
                "cpu" => amounts.milli_cpu = quantity::milli(quantity).unwrap_or_default(),
                "memory" => amounts.memory_bytes = quantity::whole(quantity).unwrap_or_default(),
                _ => drop(amounts.others.insert(name.clone(), quantity::whole(quantity).unwrap_or_default())),
            }
        }
        amounts
    }

    /// The amount of a resource that is neither CPU nor memory.
    pub fn other(&self, name: &str) -> i64 {
        self.others.get(name).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.merge(more, |own, more| own.saturating_add(more));
    }

    pub(super) fn subtract(&mut self, less: &Self) {
        self.merge(less, |own, less| own.saturating_sub(less));
    }

    fn at_least(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }

    fn merge(&mut self, other: &Self, merge: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = merge(self.milli_cpu, other.milli_cpu);
        self.memory_bytes = merge(self.memory_bytes, other.memory_bytes);
        for (name, &amount) in &other.others {
            let own = self.others.entry(name.clone()).or_default();
            *own = merge(*own, amount);
        }
    }
}

/// What a pod asks for: once for fitting, once for scoring.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodAmounts {
    /// What its spec says.
    pub requested: Amounts,
    /// CPU and memory with something put in for containers that say nothing.
    pub for_scoring: Amounts,
}

impl PodAmounts {
    /// A pod of one container that asks for this.
    pub fn single(requested: Amounts) -> Self {
        let unsaid = (requested.milli_cpu == 0, requested.memory_bytes == 0);
        Self { for_scoring: with_defaults(requested.clone(), unsaid), requested }
    }

    /// Reads a pod's spec as `PodRequests` of Kubernetes does: containers add up, init containers run
    /// one by one before them, sidecars go on running; the overhead comes on top.
    pub(super) fn of(spec: &Value) -> Self {
        Self { requested: total(spec, false), for_scoring: total(spec, true) }
    }
}

/// Puts something in where a container says nothing of CPU, or of memory.
fn with_defaults(mut amounts: Amounts, (no_cpu, no_memory): (bool, bool)) -> Amounts {
    if no_cpu {
        amounts.milli_cpu = UNSAID_MILLI_CPU;
    }
    if no_memory {
        amounts.memory_bytes = UNSAID_MEMORY_BYTES;
    }
    amounts
}

fn total(spec: &Value, for_scoring: bool) -> Amounts {
    let containers = |key: &str| spec[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let request = |container: &Value| {
        let list = &container["resources"]["requests"];
        let amounts = Amounts::of(list);
        let unsaid = (list.get("cpu").is_none(), list.get("memory").is_none());
        if for_scoring { with_defaults(amounts, unsaid) } else { amounts }
    };
    let mut sum = Amounts::default();
    containers("containers").iter().for_each(|container| sum.add(&request(container)));
    let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
    for container in containers("initContainers") {
        let mut now = request(container);
        if container["restartPolicy"] == "Always" {
            sum.add(&now);
            sidecars.add(&now);
            now = sidecars.clone();
        } else {
            now.add(&sidecars);
        }
        peak.at_least(&now);
    }
    sum.at_least(&peak);
    sum.add(&Amounts::of(&spec["overhead"]));
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(cpu: &str, gpus: u32, policy: Option<&str>) -> Value {
        json!({ "resources": { "requests": { "cpu": cpu, "nvidia.com/gpu": gpus } }, "restartPolicy": policy })
    }

    #[test]
    fn containers_add_up_init_containers_do_not_and_sidecars_stay() {
        let spec = json!({
            "initContainers": [container("3", 2, None), container("500m", 1, Some("Always")), container("1", 0, None)],
            "containers": [container("1", 1, None), container("1", 0, None)],
            "overhead": { "cpu": "250m" },
        });
        let amounts = PodAmounts::of(&spec).requested;
        assert_eq!((amounts.milli_cpu, amounts.other("nvidia.com/gpu")), (3_250, 2));
    }

    #[test]
    fn a_container_that_says_nothing_counts_only_when_nodes_are_scored() {
        let amounts =
            PodAmounts::of(&json!({ "containers": [{}, { "resources": { "requests": { "cpu": "1" } } }] }));
        assert_eq!((amounts.requested.milli_cpu, amounts.requested.memory_bytes), (1_000, 0));
        assert_eq!((amounts.for_scoring.milli_cpu, amounts.for_scoring.memory_bytes), (1_100, 400 << 20));
    }
}
