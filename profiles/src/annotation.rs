//! What a bundle's annotations say about its nodes and their labels.
//!
//! Invariant: whatever stands in annotations, the bundle's profiles are judged all the same. One that can't
//! be read is a diagnostic.

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic, Place};
use crate::findings::cut;
use crate::label::LabelKey;
use crate::selector::Selector;
use crate::suggestion;

/// Annotations below this are ours.
const PREFIX: &str = "pavise.dev/";
/// What the annotations of ours are called, after the prefix.
const NAMES: [&str; 2] = [NODE_SELECTOR, NODE_LABELS];
const NODE_SELECTOR: &str = "node-selector";
const NODE_LABELS: &str = "node-labels";

/// What the annotations of a bundle mean.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Annotations {
    /// The labels of the Nodes that the bundle is for; none if that can't be read.
    pub(crate) nodes: Option<Selector>,
    /// Whether each of its profiles has a label of its own.
    pub(crate) has_profile_labels: bool,
    /// What is wrong with them.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Annotations {
    /// Reads `annotations`; those of others are none of our business.
    pub(crate) fn read(annotations: &BTreeMap<String, String>) -> Self {
        let mut read =
            Self { nodes: Some(Selector::default()), has_profile_labels: true, diagnostics: Vec::new() };
        for (key, value) in annotations {
            match key.strip_prefix(PREFIX) {
                Some(NODE_SELECTOR) => read.node_selector(value),
                Some(NODE_LABELS) => read.node_labels(value),
                Some(name) => read.unknown(name),
                None => {}
            }
        }
        read
    }

    fn node_selector(&mut self, text: &str) {
        let selector = Selector::parse(text).map_err(|error| error.to_string());
        match selector.and_then(without_ours) {
            Ok(selector) => self.nodes = Some(selector),
            Err(message) => {
                self.nodes = None;
                let help =
                    "correct it; until then nodes keep what they have of the bundle, and take nothing new";
                self.report(Code::InvalidNodeSelector, NODE_SELECTOR, message, help);
            }
        }
    }

    fn node_labels(&mut self, value: &str) {
        match value {
            "profiles" => {}
            "bundle" => self.has_profile_labels = false,
            other => {
                let message = format!("{:?} is neither \"profiles\" nor \"bundle\"", cut(other, 60));
                let help = "correct it; until then it counts as \"profiles\"";
                self.report(Code::InvalidNodeLabels, NODE_LABELS, message, help);
            }
        }
    }

    fn unknown(&mut self, name: &str) {
        let meant = suggestion::word(name, NAMES).map(|meant| format!("; did you mean {PREFIX}{meant}?"));
        let message = format!("it means nothing to Pavise{}", meant.unwrap_or_default());
        self.report(Code::UnknownAnnotation, name, message, "correct or remove it");
    }

    fn report(&mut self, code: Code, name: &str, message: String, help: &'static str) {
        let place = Place::at(format!("$.metadata.annotations[\"{PREFIX}{name}\"]"));
        self.diagnostics.push(Diagnostic { code, place, message, help });
    }
}

/// `selector`, unless it looks at labels that depend on what bundles ask for.
fn without_ours(selector: Selector) -> Result<Selector, String> {
    if let Some(key) = selector.keys().find(|key| LabelKey::is_of_project(key)) {
        return Err(format!("{key} is a label of Pavise's own, on which no bundle can depend"));
    }
    Ok(selector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Annotations {
        Annotations::read(&[(name.to_owned(), value.to_owned())].into())
    }

    /// Claims that reading one annotation is worth this one line.
    fn check(name: &str, value: &str, expected: &str) -> Annotations {
        let read = read(name, value);
        let lines: Vec<String> = read.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(lines, [expected]);
        read
    }

    #[test]
    fn a_bundle_is_for_all_nodes_unless_it_says_otherwise() {
        for (name, value, expected) in [
            ("example.com/node-selector", "pool=canary", ""),
            ("pavise.dev/node-selector", "", ""),
            ("pavise.dev/node-selector", "pool=canary", "pool=canary"),
        ] {
            let read = read(name, value);
            assert_eq!(read.nodes, Some(Selector::parse(expected).unwrap()));
            assert!(read.has_profile_labels && read.diagnostics.is_empty());
        }
    }

    #[test]
    fn an_invalid_selector_is_for_nobody_knows_whom() {
        let read = check(
            "pavise.dev/node-selector",
            "pool in canary",
            "error[invalid-node-selector] $.metadata.annotations[\"pavise.dev/node-selector\"]: \
             \"canary\" stands where there should be a list in parentheses; \
             correct it; until then nodes keep what they have of the bundle, and take nothing new",
        );
        assert_eq!(read.nodes, None);
    }

    #[test]
    fn a_selector_can_not_look_at_labels_of_ours() {
        for key in [
            "seccomp.pavise.dev/web_a",
            "team.bundle.pavise.dev/web",
            "pavise.dev/anything",
            "new.pavise.dev/x",
        ] {
            let read = read("pavise.dev/node-selector", &format!("pool=canary,!{key}"));
            assert_eq!(read.nodes, None, "{key}");
            assert!(read.diagnostics[0].message.starts_with(key), "{:?}", read.diagnostics);
        }
        assert!(read("pavise.dev/node-selector", "notpavise.dev/x").diagnostics.is_empty());
    }

    #[test]
    fn a_bundle_can_do_without_labels_of_its_profiles() {
        for (value, expected) in [("profiles", true), ("bundle", false)] {
            let read = read("pavise.dev/node-labels", value);
            assert_eq!((read.has_profile_labels, read.diagnostics.len()), (expected, 0));
        }
        let read = check(
            "pavise.dev/node-labels",
            "bundles",
            "warning[invalid-node-labels] $.metadata.annotations[\"pavise.dev/node-labels\"]: \
             \"bundles\" is neither \"profiles\" nor \"bundle\"; \
             correct it; until then it counts as \"profiles\"",
        );
        assert!(read.has_profile_labels);
    }

    #[test]
    fn a_misspelt_annotation_is_noticed() {
        check(
            "pavise.dev/nodeSelector",
            "pool=canary",
            "warning[unknown-annotation] $.metadata.annotations[\"pavise.dev/nodeSelector\"]: \
             it means nothing to Pavise; did you mean pavise.dev/node-selector?; correct or remove it",
        );
        check(
            "pavise.dev/owner",
            "me",
            "warning[unknown-annotation] $.metadata.annotations[\"pavise.dev/owner\"]: \
             it means nothing to Pavise; correct or remove it",
        );
    }
}
