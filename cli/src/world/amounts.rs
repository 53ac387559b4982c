//! CPU, memory, pods and extended resources as numbers, counted as kube-scheduler counts them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use stowage_shared::at_once::{Amount, at_once};
use stowage_shared::host::Host;
use stowage_shared::request::Role;

/// The most digits of a number that are read: more than any node can have.
const DIGITS_MAX: usize = 18;
const NANO: i128 = 1_000_000_000;

/// Amounts by resource name: cpu in thousandths of a core, everything else in units (bytes, pods, devices).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, i64>);

impl Amounts {
    /// Reads a map of quantities. What is no quantity, which no API server lets in, is 0.
    pub fn of(quantities: Option<&BTreeMap<String, Quantity>>) -> Self {
        let read = |(name, quantity): (&String, &Quantity)| {
            let unit = if name == "cpu" { NANO / 1000 } else { NANO };
            let nano = nano(&quantity.0).unwrap_or(0);
            (name.clone(), i64::try_from((nano + unit - 1) / unit).unwrap_or(i64::MAX))
        };
        Self(quantities.into_iter().flatten().map(read).collect())
    }

    /// What a pod is counted with on its node: what runs of it [at once](at_once); the pod's own resources in place of
    /// that where it names some; its overhead; and one pod.
    pub fn of_pod(spec: &PodSpec) -> Self {
        let asked = |container: &Container| {
            let resources = container.resources.as_ref();
            let mut asked = Self::of(resources.and_then(|r| r.requests.as_ref()));
            // The API server defaults requests from limits; a pod from a file may not have been through it.
            let limits = Self::of(resources.and_then(|r| r.limits.as_ref()));
            for (name, amount) in limits.0 {
                asked.0.entry(name).or_insert(amount);
            }
            asked
        };
        let role = |of: &Container| Role::of_init(of.restart_policy.as_deref().unwrap_or_default());
        let init = spec.init_containers.iter().flatten().map(|of| (role(of), asked(of)));
        let mut sum: Self = at_once(init.chain(spec.containers.iter().map(|of| (Role::App, asked(of)))));
        let own = Self::of(spec.resources.as_ref().and_then(|r| r.requests.as_ref()));
        sum.0.extend(own.0);
        sum.add(&Self::of(spec.overhead.as_ref()));
        sum.0.insert("pods".into(), 1);
        sum
    }

    /// Takes away.
    pub fn take(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_default();
            *known = known.saturating_sub(*amount);
        }
    }

    /// CPU and memory alone.
    pub fn host(&self) -> Host {
        let amount = |name| u64::try_from(self.get(name)).unwrap_or(0);
        Host { cpu_milli: amount("cpu"), memory_mib: amount("memory") >> 20 }
    }

    /// How much of a resource; 0 where it is not named.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Every resource and how much of it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }
}

impl Amount for Amounts {
    fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_default();
            *known = known.saturating_add(*amount);
        }
    }

    fn raise(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_default();
            *known = (*known).max(*amount);
        }
    }
}

/// A quantity in billionths, rounded up: the smallest that Kubernetes keeps. `None` for what is none, or below 0.
fn nano(text: &str) -> Option<i128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (before, behind) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{before}{behind}");
    if digits.is_empty() || digits.len() > DIGITS_MAX || behind.contains('.') {
        return None;
    }
    let decimals = 10_i128.checked_pow(u32::try_from(behind.len()).ok()?)?;
    Some((digits.parse::<i128>().ok()?.checked_mul(factor(suffix)?)? + decimals - 1) / decimals)
}

/// What a suffix stands for, in billionths.
fn factor(suffix: &str) -> Option<i128> {
    if let Some(binary) = suffix.strip_suffix('i') {
        let power = "KMGTPE".find(binary).filter(|_| binary.len() == 1)?;
        return Some(NANO << (10 * (power + 1)));
    }
    let decimal = |power: u32| NANO.checked_mul(10_i128.pow(power));
    match suffix {
        "n" => Some(1),
        "u" => Some(1_000),
        "m" => Some(1_000_000),
        "" => Some(NANO),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        _ => match suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()? {
            power @ 0..=18 => decimal(power.unsigned_abs()),
            power @ -9..0 => Some(NANO / 10_i128.pow(power.unsigned_abs())),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, cpu, memory) in [
            ("500m", 500, 1),
            ("2", 2_000, 2),
            ("1.5", 1_500, 2),
            ("1Ki", 1_024_000, 1_024),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("100k", 100_000_000, 100_000),
            ("1e3", 1_000_000, 1_000),
            ("100n", 1, 1),
            ("", 0, 0),
            ("-1", 0, 0),
            ("1Xi", 0, 0),
            ("1e99", 0, 0),
        ] {
            let both = BTreeMap::from(["cpu", "memory"].map(|n| (n.to_owned(), Quantity(text.into()))));
            let amounts = Amounts::of(Some(&both));
            assert_eq!((amounts.get("cpu"), amounts.get("memory")), (cpu, memory), "{text}");
        }
    }

    #[test]
    fn a_pod_counts_as_kube_scheduler_counts_it() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "overhead": { "cpu": "50m" },
            "initContainers": [
                { "name": "sidecar", "restartPolicy": "Always", "resources": { "requests": { "cpu": "100m" } } },
                { "name": "init", "resources": { "requests": { "cpu": "3", "nvidia.com/gpu": "1" } } }],
            "containers": [
                { "name": "a", "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "4", "nvidia.com/gpu": "2" } } },
                { "name": "b", "resources": { "requests": { "cpu": "1", "memory": "1Gi" } } }],
        }))
        .unwrap();
        let amounts = Amounts::of_pod(&spec);
        let all: Vec<_> = amounts.iter().collect();
        assert_eq!(all, [("cpu", 3_150), ("memory", 1 << 30), ("nvidia.com/gpu", 2), ("pods", 1)]);
    }
}
