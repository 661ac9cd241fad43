//! On which Nodes a pod can be, by its own words.
//!
//! Invariant: what is allowed here is what the scheduler's plugin for node affinity allows
//! (`GetRequiredNodeAffinity` in Kubernetes' component-helpers, scheduling/corev1/nodeaffinity). All else
//! that the scheduler looks at, such as taints, is not looked at.

mod unscheduled;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use self::unscheduled::Unscheduled;
use super::Node;
use crate::label::LabelKey;
use crate::selector::Test;

/// The one field of a Node that a term can ask for (`metadata.name`).
const NAME: &str = "metadata.name";
/// The label that the kubelet sets to the operating system of its node.
const OS: &str = "kubernetes.io/os";
/// So many pairs of a `nodeSelector` are shown.
const MOST_SHOWN: usize = 2;

/// What of a pod's `spec` says on which Nodes it can be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Constraints {
    node_name: Option<String>,
    node_selector: Option<BTreeMap<String, String>>,
    affinity: Option<Affinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Affinity {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeAffinity {
    required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
}

/// Terms, of which a Node has to meet one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeSelector {
    node_selector_terms: Option<Vec<Term>>,
}

/// Requirements, all of which a Node has to meet. One without any is met by none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Term {
    match_expressions: Option<Vec<Requirement>>,
    match_fields: Option<Vec<Requirement>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
    /// One that is not known here. It is taken for met by all: what it means is for the scheduler to know.
    #[serde(other)]
    Unknown,
}

impl Constraints {
    /// The Node that the pod is on, or that it names itself, past the scheduler.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        self.node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// The same without what it says of labels of ours, which may have been added for its profiles.
    #[must_use]
    pub(super) fn without_ours(&self) -> Self {
        let mut rest = self.clone();
        if let Some(selector) = &mut rest.node_selector {
            selector.retain(|key, _| !LabelKey::is_ours(key));
        }
        let Some(terms) = rest.terms_mut() else { return rest };
        let had_some: Vec<bool> = terms.iter().map(|term| !term.is_empty()).collect();
        for term in terms.iter_mut() {
            if let Some(expressions) = &mut term.match_expressions {
                expressions.retain(|one| !LabelKey::is_ours(&one.key));
            }
        }
        // One that asks for nothing is met by none; one that asks for nothing else is met by all.
        if terms.iter().zip(had_some).any(|(term, had_some)| had_some && term.is_empty()) {
            rest.affinity = None;
        }
        rest
    }

    /// The keys of all labels that decide which Nodes it allows.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let expressions = self.terms().iter().flat_map(|term| term.match_expressions.iter().flatten());
        let of_affinity = expressions.map(|one| one.key.as_str());
        self.node_selector.iter().flatten().map(|(key, _)| key.as_str()).chain(of_affinity).chain([OS])
    }

    /// The keys of the labels that it asks for, whatever their values: those that a Node has if it meets it.
    fn selected(&self) -> impl Iterator<Item = &str> {
        let expressions = self.terms().iter().flat_map(|term| term.match_expressions.iter().flatten());
        let asking = expressions.filter(|one| matches!(one.operator, Operator::In | Operator::Exists));
        let of_selector = self.node_selector.iter().flatten().map(|(key, _)| key.as_str());
        of_selector.chain(asking.map(|one| one.key.as_str()))
    }

    /// About how many bytes it takes, which are up to the pod's author.
    #[must_use]
    pub fn size(&self) -> usize {
        let pair = |(key, value): (&String, &String)| 2 * size_of::<String>() + key.len() + value.len();
        self.node_selector.iter().flatten().map(pair).sum::<usize>()
            + self.terms().iter().map(Term::size).sum::<usize>()
    }

    /// What keeps the pod from being on any node, in a few words; empty if nothing does.
    pub(super) fn said(&self) -> String {
        let mut pairs = self.node_selector.iter().flatten().map(|(key, value)| format!("{key}={value}"));
        let shown: Vec<String> = pairs.by_ref().take(MOST_SHOWN).collect();
        let more = if pairs.next().is_some() { " and more" } else { "" };
        let selector = (!shown.is_empty()).then(|| format!("nodeSelector {}{more}", shown.join(", ")));
        let affinity = (!self.terms().is_empty()).then(|| "node affinity".to_owned());
        [selector, affinity].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn terms(&self) -> &[Term] {
        let affinity = self.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required =
            affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution.as_ref());
        required.and_then(|one| one.node_selector_terms.as_deref()).unwrap_or_default()
    }

    fn terms_mut(&mut self) -> Option<&mut Vec<Term>> {
        let affinity = self.affinity.as_mut()?.node_affinity.as_mut()?;
        affinity.required_during_scheduling_ignored_during_execution.as_mut()?.node_selector_terms.as_mut()
    }

    /// Whether the pod can be on `node`, which has to run Linux: no other system has these profiles.
    pub(super) fn allow(&self, node: &Node) -> bool {
        if let Some(name) = self.node_name() {
            return node.name == name;
        }
        let is_linux = node.label(OS).is_none_or(|os| os == "linux");
        let mut selected = self.node_selector.iter().flatten();
        let affinity = self.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required =
            affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution.as_ref());
        is_linux
            && selected.all(|(key, value)| node.label(key) == Some(value))
            && required
                .is_none_or(|one| one.node_selector_terms.iter().flatten().any(|term| term.allows(node)))
    }
}

impl Term {
    fn is_empty(&self) -> bool {
        self.match_expressions.iter().flatten().chain(self.match_fields.iter().flatten()).next().is_none()
    }

    fn size(&self) -> usize {
        let all = self.match_expressions.iter().flatten().chain(self.match_fields.iter().flatten());
        size_of::<Self>() + all.map(Requirement::size).sum::<usize>()
    }

    fn allows(&self, node: &Node) -> bool {
        let expressions = || self.match_expressions.iter().flatten();
        let fields = || self.match_fields.iter().flatten();
        let of_label = |one: &Requirement| one.is_met_by(node.label(&one.key));
        let of_field = |one: &Requirement| one.key == NAME && one.is_met_by(Some(&node.name));
        !self.is_empty() && expressions().all(of_label) && fields().all(of_field)
    }
}

impl Requirement {
    fn size(&self) -> usize {
        let value = |value: &String| size_of::<String>() + value.len();
        size_of::<Self>() + self.key.len() + self.values.iter().flatten().map(value).sum::<usize>()
    }

    fn is_met_by(&self, value: Option<&str>) -> bool {
        let is_listed = |value| self.values.iter().flatten().any(|one| one == value);
        let bound = || self.values.as_ref()?.first()?.parse().ok();
        let test = match self.operator {
            Operator::In => return value.is_some_and(is_listed),
            Operator::NotIn => return !value.is_some_and(is_listed),
            Operator::Exists => Some(Test::Present),
            Operator::DoesNotExist => Some(Test::Absent),
            Operator::Gt => bound().map(Test::Above),
            Operator::Lt => bound().map(Test::Below),
            Operator::Unknown => return true,
        };
        test.is_some_and(|test| test.is_passed_by(value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::placement::tests::node;

    /// Claims on which of three Nodes a pod with this `spec` can be.
    fn check(spec: &Value, expected: &str) {
        let nodes = [
            node("n1 kubernetes.io/os=linux pool=a cores=4"),
            node("n2 kubernetes.io/os=linux pool=b cores=16"),
            node("n3 gpu=yes"),
            node("w1 kubernetes.io/os=windows pool=a cores=4 gpu=yes"),
        ];
        let constraints: Constraints = from_value(spec.clone()).unwrap();
        let allowed = nodes.iter().filter(|node| constraints.allow(node)).map(|node| node.name.as_str());
        assert_eq!(allowed.collect::<Vec<_>>().join(" "), expected, "{spec}");
    }

    fn required(terms: &Value) -> Value {
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        }}})
    }

    #[test]
    fn a_pod_that_says_nothing_can_be_on_every_node_with_linux() {
        check(&json!({}), "n1 n2 n3");
        check(&json!({"nodeSelector": null, "affinity": {"podAffinity": {}}, "nodeName": ""}), "n1 n2 n3");
        let preferred = json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]});
        check(&json!({"affinity": {"nodeAffinity": preferred}}), "n1 n2 n3");
    }

    #[test]
    fn a_node_selector_asks_for_all_its_labels() {
        check(&json!({"nodeSelector": {"pool": "a"}}), "n1");
        check(&json!({"nodeSelector": {"pool": "a", "cores": "16"}}), "");
    }

    #[test]
    fn a_named_node_is_the_only_one_whatever_else_is_asked_for() {
        check(&json!({"nodeName": "n2", "nodeSelector": {"pool": "a"}}), "n2");
        check(&json!({"nodeName": "gone"}), "");
    }

    #[test]
    fn of_the_terms_one_has_to_be_met_with_all_its_requirements() {
        let of = |key: &str, operator: &str, values: Value| json!({"key": key, "operator": operator, "values": values});
        for (requirement, expected) in [
            (of("pool", "In", json!(["a", "b"])), "n1 n2"),
            (of("pool", "NotIn", json!(["a"])), "n2 n3"),
            (of("pool", "Exists", Value::Null), "n1 n2"),
            (of("pool", "DoesNotExist", Value::Null), "n3"),
            (of("cores", "Gt", json!(["4"])), "n2"),
            (of("cores", "Lt", json!(["16"])), "n1"),
            (of("cores", "Gt", json!(["many"])), ""),
            (of("cores", "Near", json!(["4"])), "n1 n2 n3"),
        ] {
            check(&required(&json!([{"matchExpressions": [requirement]}])), expected);
        }
        let both = json!([of("pool", "Exists", Value::Null), of("cores", "Gt", json!(["4"]))]);
        check(&required(&json!([{"matchExpressions": both}])), "n2");
        let named = |name: &str| json!({"matchFields": [of("metadata.name", "In", json!([name]))]});
        check(&required(&json!([named("n3"), {"matchExpressions": both}])), "n2 n3");
        check(&required(&json!([{"matchFields": [of("metadata.uid", "Exists", Value::Null)]}])), "");
    }

    #[test]
    fn what_asks_for_nothing_is_met_by_none() {
        check(&required(&json!([])), "");
        check(&required(&json!([{}, {"matchExpressions": []}])), "");
    }
}
