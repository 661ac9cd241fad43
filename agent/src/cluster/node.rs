//! The labels of our own Node: seen, and changed.
//!
//! Invariant: only labels of ours are written, and nothing of a Node but its metadata is decoded.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{Stream, StreamExt, future};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use profiles::label::{LABEL_VALUE, LabelKey};
use profiles::name::NodeName;
use profiles::plan::LabelChange;
use profiles::state::{Event, NodeLabels};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::report::NodeUid;
use super::{advice, said, watch_advice, watch_said};

/// How long the API server may take for a change, after which nobody knows how it ended.
const TIMEOUT: Duration = Duration::from_secs(10);
const PERMISSION_TO_WATCH: &str = "list and watch Nodes";
const PERMISSION_TO_WRITE: &str = "patch Nodes, and see what policy forbids it";

type Metadata = PartialObjectMeta<Node>;

/// The Node that this agent runs on.
pub(crate) struct OwnNode {
    api: Api<Metadata>,
    pub(super) name: NodeName,
    pub(super) uid: NodeUid,
}

impl OwnNode {
    /// The Node called `name`.
    pub(crate) fn new(client: Client, name: NodeName) -> Self {
        Self { api: Api::all(client), name, uid: NodeUid::default() }
    }

    /// Watches its labels, for ever.
    pub(crate) fn watch(&self) -> impl Stream<Item = Event> + use<> {
        let config =
            watcher::Config::default().fields(&format!("metadata.name={}", self.name)).streaming_lists();
        let mut sighting = Sighting { uid: self.uid.clone(), ..Sighting::new(self.name.clone()) };
        watcher(self.api.clone(), config)
            .default_backoff()
            .filter_map(move |event| future::ready(sighting.take(event)))
    }

    /// Changes its labels in one write, and says how that ended.
    ///
    /// A merge patch, because server-side apply can't take away labels that somebody else set under our
    /// names.
    pub(crate) fn write(&self, change: LabelChange) -> impl Future<Output = Vec<Event>> + use<> {
        let (api, name) = (self.api.clone(), self.name.clone());
        async move {
            let patch = Patch::Merge(patch_of(&change));
            let params = PatchParams { field_manager: Some("pavise".to_owned()), ..PatchParams::default() };
            match tokio::time::timeout(TIMEOUT, api.patch(name.as_str(), &params, &patch)).await {
                Ok(Ok(node)) => {
                    info!(node = %name, set = change.set.len(), unset = change.unset.len(), "Labels changed");
                    vec![Event::LabelsWritten(labels_of(&node.metadata))]
                }
                Ok(Err(error)) => {
                    let advice = advice(&error, PERMISSION_TO_WRITE);
                    warn!(node = %name, error = said(&error), advice, "Labels can't be changed");
                    vec![Event::LabelsFailed]
                }
                Err(_) => {
                    warn!(node = %name, timeout = ?TIMEOUT, "Labels can't be changed: no answer; trying again");
                    vec![Event::LabelsFailed]
                }
            }
        }
    }
}

/// Whether the Node was seen in the list that is being received.
struct Sighting {
    name: NodeName,
    is_seen: bool,
    /// The labels that were told last.
    told: Option<BTreeMap<String, String>>,
    /// For whoever has to know which Node of this name it is.
    uid: NodeUid,
}

impl Sighting {
    fn new(name: NodeName) -> Self {
        Self { name, is_seen: false, told: None, uid: NodeUid::default() }
    }

    fn take(&mut self, event: watcher::Result<watcher::Event<Metadata>>) -> Option<Event> {
        match event {
            Ok(watcher::Event::Init) => {
                self.is_seen = false;
                None
            }
            Ok(watcher::Event::InitApply(node)) => {
                self.is_seen = true;
                self.told.clone_from(&node.metadata.labels);
                self.uid.replace(node.metadata.uid.clone());
                Some(Event::NodeListed(labels_of(&node.metadata)))
            }
            // The kubelet's reports of the Node's state are no news of its labels.
            Ok(watcher::Event::Apply(node)) if self.told == node.metadata.labels => None,
            Ok(watcher::Event::Apply(node)) => {
                self.told.clone_from(&node.metadata.labels);
                self.uid.replace(node.metadata.uid.clone());
                Some(Event::NodeLabels(labels_of(&node.metadata)))
            }
            Ok(watcher::Event::InitDone) if self.is_seen => None,
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => {
                self.told = None;
                self.uid.replace(None);
                warn!(node = %self.name, "Node does not exist; it is labelled when it does, or check --node-name");
                Some(Event::NodeGone)
            }
            Err(error) => {
                let advice = watch_advice(&error, PERMISSION_TO_WATCH);
                warn!(node = %self.name, error = watch_said(&error), advice, "Node can't be watched");
                None
            }
        }
    }
}

fn patch_of(change: &LabelChange) -> Value {
    let set = change.set.iter().map(|label| (label.to_string(), Value::from(LABEL_VALUE)));
    let unset = change.unset.iter().map(|label| (label.to_string(), Value::Null));
    json!({"metadata": {"labels": set.chain(unset).collect::<BTreeMap<_, _>>()}})
}

fn labels_of(metadata: &ObjectMeta) -> NodeLabels {
    let version = metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
    let mut seen = NodeLabels { version, ..NodeLabels::default() };
    for (key, value) in metadata.labels.iter().flatten() {
        match LabelKey::observed(key) {
            Some(label) => seen.labels.insert(label, value.clone()),
            None => seen.others.insert(key.clone(), value.clone()),
        };
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(version: &str) -> ObjectMeta {
        let labels = [("kubernetes.io/os", "linux"), ("seccomp.pavise.dev/web_a", "true")];
        ObjectMeta {
            resource_version: Some(version.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_patch_sets_and_unsets_in_one_write() {
        let label = |key| LabelKey::observed(key).unwrap();
        let change = LabelChange {
            set: [label("seccomp.pavise.dev/web_a")].into(),
            unset: [label("seccomp.pavise.dev/web_b")].into(),
        };
        assert_eq!(
            patch_of(&change),
            json!({"metadata": {"labels": {"seccomp.pavise.dev/web_a": "true", "seccomp.pavise.dev/web_b": null}}})
        );
    }

    #[test]
    fn labels_of_ours_are_told_from_others() {
        let seen = labels_of(&metadata("7"));
        assert_eq!(seen.version, Some(7));
        assert_eq!(
            seen.labels.keys().map(LabelKey::as_str).collect::<Vec<_>>(),
            ["seccomp.pavise.dev/web_a"]
        );
        assert_eq!(seen.others, [("kubernetes.io/os".to_owned(), "linux".to_owned())].into());
    }

    #[test]
    fn a_version_that_is_no_number_is_none() {
        assert_eq!(labels_of(&metadata("v7")).version, None);
    }

    #[test]
    fn a_list_is_told_from_what_is_watched() {
        let mut sighting = Sighting::new(NodeName::new("n").unwrap());
        let node = || Metadata { metadata: metadata("7"), ..Metadata::default() };
        assert!(sighting.take(Ok(watcher::Event::Init)).is_none());
        assert!(matches!(sighting.take(Ok(watcher::Event::InitApply(node()))), Some(Event::NodeListed(_))));
        assert!(sighting.take(Ok(watcher::Event::InitDone)).is_none());
        assert!(sighting.take(Ok(watcher::Event::Apply(node()))).is_none(), "nothing has changed");
        let mut relabelled = node();
        relabelled.metadata.labels = None;
        assert!(matches!(sighting.take(Ok(watcher::Event::Apply(relabelled))), Some(Event::NodeLabels(_))));
        assert!(matches!(sighting.take(Ok(watcher::Event::Apply(node()))), Some(Event::NodeLabels(_))));
    }

    #[test]
    fn a_list_without_the_node_says_that_it_is_gone() {
        let mut sighting = Sighting { is_seen: true, ..Sighting::new(NodeName::new("n").unwrap()) };
        let node = Metadata {
            metadata: ObjectMeta { uid: Some("u".to_owned()), ..metadata("7") },
            ..Metadata::default()
        };
        assert!(matches!(sighting.take(Ok(watcher::Event::Apply(node))), Some(Event::NodeLabels(_))));
        assert_eq!(sighting.uid.borrow().as_deref(), Some("u"));
        assert!(sighting.take(Ok(watcher::Event::Init)).is_none());
        assert!(matches!(sighting.take(Ok(watcher::Event::InitDone)), Some(Event::NodeGone)));
        assert_eq!(*sighting.uid.borrow(), None);
    }
}
