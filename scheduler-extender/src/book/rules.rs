//! What a pod says about the nodes it may run on, and whether a node is one of them: as kube-scheduler's own filters
//! decide it (NodeUnschedulable, NodeAffinity, TaintToleration).
//!
//! What is not mirrored here is named by [`LeftAlone`]: such a pod is placed by kube-scheduler alone.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::null_is_default;

/// The taint that kube-scheduler imagines on a node that is cordoned.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// What a pod says about its node.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rules {
    /// `spec.nodeSelector`: all of these labels.
    pub selector: Labels,
    /// Required node affinity: one of these terms; empty where nothing is required.
    pub affinity: Vec<Term>,
    /// Taints that it tolerates.
    pub tolerations: Vec<Toleration>,
}

/// What a node is, for those rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
}

/// One term of node affinity: all of its expressions.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Term {
    /// About labels.
    #[serde(deserialize_with = "null_is_default")]
    pub match_expressions: Vec<Expression>,
    /// About fields, of which there is one: `metadata.name`.
    #[serde(deserialize_with = "null_is_default")]
    pub match_fields: Vec<Expression>,
}

/// One requirement of a label or field.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(default)]
pub struct Expression {
    /// The label's key.
    #[serde(deserialize_with = "null_is_default")]
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`.
    #[serde(deserialize_with = "null_is_default")]
    pub operator: String,
    /// Its values.
    #[serde(deserialize_with = "null_is_default")]
    pub values: Vec<String>,
}

/// A taint of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// Its key.
    #[serde(deserialize_with = "null_is_default")]
    pub key: String,
    /// Its value.
    #[serde(deserialize_with = "null_is_default")]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    #[serde(deserialize_with = "null_is_default")]
    pub effect: String,
}

/// A taint that a pod tolerates.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(default)]
pub struct Toleration {
    /// The taint's key; empty for all.
    #[serde(deserialize_with = "null_is_default")]
    pub key: String,
    /// `Exists` or `Equal`; empty means `Equal`.
    #[serde(deserialize_with = "null_is_default")]
    pub operator: String,
    /// The taint's value.
    #[serde(deserialize_with = "null_is_default")]
    pub value: String,
    /// The taint's effect; empty for all.
    #[serde(deserialize_with = "null_is_default")]
    pub effect: String,
}

/// Why a pod is left to kube-scheduler alone: it asks for what only kube-scheduler weighs, and a pod that is
/// nominated is not weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeftAlone {
    /// It prefers some nodes.
    PreferredNodes,
    /// It wants to be with or away from other pods, or prefers to.
    PodAffinity,
    /// It wants to be spread. Where it must be, that is counted over all pods of its namespace, zone by zone.
    TopologySpread,
    /// It has volumes that may be bound to some nodes.
    Volumes,
    /// It wants a port of its node.
    HostPorts,
    /// It claims devices by DRA.
    ResourceClaims,
    /// It belongs to a group that is scheduled together.
    Group,
}

impl Rules {
    /// Whether the pod may run on a node, by what both say. A node that has a taint which the pod does not tolerate
    /// and which only says "better not" (`PreferNoSchedule`) is none: whether there is a better one is weighed by
    /// kube-scheduler.
    pub fn admit(&self, site: &Site) -> bool {
        let has = |(key, value): (&String, &String)| site.labels.get(key) == Some(value);
        (!site.unschedulable || self.tolerates_cordon())
            && site
                .taints
                .iter()
                .all(|taint| self.tolerations.iter().any(|toleration| toleration.tolerates(taint)))
            && self.selector.iter().all(has)
            && (self.affinity.is_empty() || self.affinity.iter().any(|term| term.matches(site)))
    }

    fn tolerates_cordon(&self) -> bool {
        let taint = Taint { key: UNSCHEDULABLE.into(), value: String::new(), effect: "NoSchedule".into() };
        self.tolerations.iter().any(|toleration| toleration.tolerates(&taint))
    }
}

impl Toleration {
    fn tolerates(&self, taint: &Taint) -> bool {
        let exists = self.operator == "Exists";
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key == taint.key || self.key.is_empty() && exists)
            && (exists || matches!(&*self.operator, "" | "Equal") && self.value == taint.value)
    }
}

impl Term {
    /// A term without requirements matches nothing, as kube-scheduler has it.
    fn matches(&self, site: &Site) -> bool {
        let fields = |expression: &Expression| {
            expression.key == "metadata.name" && expression.matches(Some(&site.name))
        };
        (!self.match_expressions.is_empty() || !self.match_fields.is_empty())
            && self
                .match_expressions
                .iter()
                .all(|it| it.matches(site.labels.get(&it.key).map(String::as_str)))
            && self.match_fields.iter().all(fields)
    }
}

impl Expression {
    /// Whether a label's value is as required. What cannot be understood matches nothing.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|known| known == value);
        let compared = |value: &str| -> Option<std::cmp::Ordering> {
            let bound: i64 = self.values.first()?.parse().ok()?;
            Some(value.parse::<i64>().ok()?.cmp(&bound))
        };
        match &*self.operator {
            "In" => value.is_some_and(listed),
            "NotIn" => !value.is_some_and(listed),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => value.and_then(compared) == Some(std::cmp::Ordering::Greater),
            "Lt" => value.and_then(compared) == Some(std::cmp::Ordering::Less),
            _ => false,
        }
    }
}

/// Which objects a policy or a term is about, by their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// All of these labels.
    #[serde(deserialize_with = "null_is_default")]
    pub match_labels: Labels,
    /// And all of these requirements.
    #[serde(deserialize_with = "null_is_default")]
    pub match_expressions: Vec<Expression>,
}

impl Selector {
    /// Whether an object with these labels is meant; an empty selector means all.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|it| it.matches(labels.get(&it.key).map(String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn site() -> Site {
        let labels = [("zone", "a"), ("gpus", "8")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        Site { name: "n1".into(), labels: labels.into(), ..Site::default() }
    }

    #[track_caller]
    fn check_term(term: serde_json::Value, want: bool) {
        let term: Term = serde_json::from_value(term).unwrap();
        let rules = Rules { affinity: vec![term.clone()], ..Rules::default() };
        assert_eq!(rules.admit(&site()), want, "{term:?}");
    }

    #[test]
    fn required_node_affinity_is_read_as_kubernetes_reads_it() {
        for (operator, key, values, want) in [
            ("In", "zone", json!(["a", "b"]), true),
            ("In", "zone", json!(["b"]), false),
            ("In", "none", json!(["b"]), false),
            ("NotIn", "zone", json!(["b"]), true),
            ("NotIn", "none", json!(["b"]), true),
            ("NotIn", "zone", json!(["a"]), false),
            ("Exists", "zone", json!([]), true),
            ("Exists", "none", json!(null), false),
            ("DoesNotExist", "none", json!([]), true),
            ("DoesNotExist", "zone", json!([]), false),
            ("Gt", "gpus", json!(["7"]), true),
            ("Gt", "gpus", json!(["8"]), false),
            ("Lt", "gpus", json!(["9"]), true),
            ("Lt", "zone", json!(["9"]), false),
            ("Gt", "gpus", json!(["x"]), false),
            ("Odd", "zone", json!(["a"]), false),
        ] {
            check_term(
                json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }),
                want,
            );
        }
        let name = |name: &str| json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] });
        check_term(name("n1"), true);
        check_term(name("n2"), false);
        check_term(
            json!({ "matchFields": [{ "key": "spec.x", "operator": "In", "values": ["n1"] }] }),
            false,
        );
        check_term(json!({}), false);
    }

    #[track_caller]
    fn check_taint(toleration: serde_json::Value, taint: serde_json::Value, want: bool) {
        let rules = Rules {
            tolerations: vec![serde_json::from_value(toleration.clone()).unwrap()],
            ..Rules::default()
        };
        let site = Site { taints: vec![serde_json::from_value(taint.clone()).unwrap()], ..site() };
        assert_eq!(rules.admit(&site), want, "{toleration} {taint}");
        assert!(!Rules::default().admit(&site));
    }

    #[test]
    fn taints_are_tolerated_as_kubernetes_says() {
        let taint = json!({ "key": "k", "value": "v", "effect": "NoSchedule" });
        for (toleration, want) in [
            (json!({ "key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule" }), true),
            (json!({ "key": "k", "value": "v" }), true),
            (json!({ "key": "k", "value": "w" }), false),
            (json!({ "key": "k", "operator": "Exists" }), true),
            (json!({ "operator": "Exists" }), true),
            (json!({ "key": "l", "operator": "Exists" }), false),
            (json!({ "key": "k", "operator": "Exists", "effect": "NoExecute" }), false),
        ] {
            check_taint(toleration, taint.clone(), want);
        }
        let soft = json!({ "key": "k", "effect": "PreferNoSchedule" });
        check_taint(json!({ "key": "l", "operator": "Exists" }), soft, false);
    }

    #[test]
    fn a_cordoned_node_is_none_unless_it_is_tolerated() {
        let site = Site { unschedulable: true, ..site() };
        assert!(!Rules::default().admit(&site));
        let all = Toleration { operator: "Exists".into(), ..Toleration::default() };
        assert!(Rules { tolerations: vec![all], ..Rules::default() }.admit(&site));
    }

    #[test]
    fn a_selector_means_all_of_what_it_says() {
        let selector = |value| serde_json::from_value::<Selector>(value).unwrap();
        let labels = site().labels;
        assert!(selector(json!({})).matches(&labels));
        assert!(selector(json!({ "matchLabels": { "zone": "a" } })).matches(&labels));
        assert!(!selector(json!({ "matchLabels": { "zone": "a", "x": "y" } })).matches(&labels));
        let both = json!({ "matchLabels": { "zone": "a" }, "matchExpressions": [{ "key": "x", "operator": "Exists" }] });
        assert!(!selector(both).matches(&labels));
    }
}
