//! What pods ask for and nodes have of every resource, added up as kube-scheduler adds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use stowage_shared::at_once::{Amount, at_once};
use stowage_shared::pod::{Quantity, Resources};
use stowage_shared::request::Role;

/// Counts pods: each asks for one, and a node has room for so many.
pub const PODS: &str = "pods";
/// The one resource that is counted in thousandths.
const CPU: &str = "cpu";

/// Amounts by resource: cpu in thousandths of a core, everything else in whole units. Sorted, none is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amounts(Vec<(Arc<str>, u64)>);

impl Amounts {
    /// Reads quantities as they are written. What is no quantity counts as more than anybody has: nothing is guessed
    /// as small.
    pub fn of(quantities: &BTreeMap<String, Quantity>, names: &mut Names) -> Self {
        let read = |(name, quantity): (&String, &Quantity)| {
            let amount = if name == CPU { quantity.milli() } else { quantity.whole() };
            (names.intern(name), amount.unwrap_or(u64::MAX))
        };
        Self(quantities.iter().map(read).filter(|(_, amount)| *amount > 0).collect())
    }

    /// The amount of one resource.
    pub fn get(&self, name: &str) -> u64 {
        self.at(name).map_or(0, |at| self.0[at].1)
    }

    /// Sets the amount of one resource.
    pub fn set(&mut self, name: &Arc<str>, amount: u64) {
        match self.0.binary_search_by(|(known, _)| known.cmp(name)) {
            Ok(at) => self.0[at].1 = amount,
            Err(at) => self.0.insert(at, (name.clone(), amount)),
        }
    }

    /// Adds other amounts.
    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.get(name).saturating_add(*amount);
            self.set(name, sum);
        }
    }

    /// Whether so much is left of `all` where `used` is in use.
    pub fn fits(&self, all: &Self, used: &Self) -> bool {
        self.fits_but(all, used, |_| false)
    }

    /// The same, whatever there is of the resources that are left out.
    pub fn fits_but(&self, all: &Self, used: &Self, leave_out: impl Fn(&str) -> bool) -> bool {
        let fits = |name: &str, wanted| all.get(name).saturating_sub(used.get(name)) >= wanted;
        self.0.iter().all(|(name, wanted)| leave_out(name) || fits(name, *wanted))
    }

    fn at(&self, name: &str) -> Option<usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok()
    }
}

impl Amount for Amounts {
    fn add(&mut self, other: &Self) {
        Self::add(self, other);
    }

    fn raise(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            if self.get(name) < *amount {
                self.set(name, *amount);
            }
        }
    }
}

/// One copy of each resource name: thousands of pods name the same few.
#[derive(Debug, Default)]
pub struct Names(BTreeMap<Arc<str>, ()>);

impl Names {
    /// Different names that are kept; more are not worth it.
    const MAX: usize = 4096;

    /// The shared copy.
    pub fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some((known, ())) = self.0.get_key_value(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        if self.0.len() < Self::MAX {
            self.0.insert(name.clone(), ());
        }
        name
    }
}

/// The requests; what has only a limit asks for that much, as the API server would have written.
fn requested(resources: &Resources, names: &mut Names) -> Amounts {
    let mut amounts = Amounts::of(&resources.requests, names);
    for (name, amount) in Amounts::of(&resources.limits, names).0 {
        if !resources.requests.contains_key(&*name) {
            amounts.set(&name, amount);
        }
    }
    amounts
}

/// A container, as far as this goes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    #[serde(deserialize_with = "super::null_is_default")]
    pub name: String,
    /// `Always` makes an init container a sidecar.
    #[serde(deserialize_with = "super::null_is_default")]
    pub restart_policy: String,
    /// What it asks for.
    #[serde(deserialize_with = "super::null_is_default")]
    pub resources: Resources,
    /// Its ports.
    #[serde(deserialize_with = "super::null_is_default")]
    pub ports: Vec<Port>,
}

/// A container's port.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// Its port on the node, if it wants one.
    #[serde(deserialize_with = "super::null_is_default")]
    pub host_port: u32,
}

/// What a pod asks for in all, as kube-scheduler counts it: what runs of it [at once](at_once). What the pod as a whole
/// states goes over that, and its overhead comes on top.
pub fn of_pod(
    init: &[Container],
    containers: &[Container],
    whole: &Resources,
    overhead: &BTreeMap<String, Quantity>,
    names: &mut Names,
) -> Amounts {
    let init = init.iter().map(|of| (Role::of_init(&of.restart_policy), of));
    let containers = init.chain(containers.iter().map(|of| (Role::App, of)));
    let mut all = at_once(containers.map(|(role, of)| (role, requested(&of.resources, names))));
    for (name, amount) in requested(whole, names).0 {
        all.set(&name, amount);
    }
    all.add(&Amounts::of(overhead, names));
    all.set(&names.intern(PODS), 1);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(text: &str) -> Container {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_pod_asks_for_what_runs_at_once() {
        let mut names = Names::default();
        let app = container(
            r#"{"resources":{"requests":{"cpu":"1","memory":"1Gi"},"limits":{"nvidia.com/gpu":"1"}}}"#,
        );
        let init = container(r#"{"resources":{"requests":{"cpu":"3"}}}"#);
        let sidecar = container(r#"{"restartPolicy":"Always","resources":{"requests":{"cpu":"500m"}}}"#);
        let overhead = BTreeMap::from([("cpu".to_owned(), Quantity::Text("100m".into()))]);
        let mut of = |init: &[Container], whole: &str| {
            let whole = serde_json::from_str(whole).unwrap();
            let all = of_pod(init, &[app.clone(), app.clone()], &whole, &overhead, &mut names);
            (all.get("cpu"), all.get("memory") >> 30, all.get("nvidia.com/gpu"), all.get(PODS))
        };
        assert_eq!(of(&[], "{}"), (2100, 2, 2, 1));
        assert_eq!(of(std::slice::from_ref(&init), "{}"), (3100, 2, 2, 1));
        assert_eq!(of(&[sidecar.clone(), init.clone()], "{}"), (3600, 2, 2, 1));
        assert_eq!(of(&[init, sidecar], "{}"), (3100, 2, 2, 1));
        assert_eq!(of(&[], r#"{"requests":{"cpu":"8"}}"#), (8100, 2, 2, 1));
    }

    #[test]
    fn what_is_no_quantity_fits_nowhere() {
        let mut names = Names::default();
        let odd = Amounts::of(&BTreeMap::from([("cpu".to_owned(), Quantity::Text("-5".into()))]), &mut names);
        let mut all = Amounts::default();
        all.set(&"cpu".into(), 1_000_000);
        assert!(!odd.fits(&all, &Amounts::default()));
        assert!(Amounts::default().fits(&all, &odd));
    }
}
