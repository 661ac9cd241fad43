//! The labels of our own Node, and its startup taint: seen, and changed.
//!
//! Invariant: only labels of ours are set, and only the startup taint is taken away. Nothing of a Node is
//! decoded but its metadata and the keys of its taints.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::{self, Either};
use futures::{Stream, StreamExt};
use json_patch::jsonptr::PointerBuf;
use json_patch::{PatchOperation, RemoveOperation, TestOperation};
use k8s_openapi::api::core::v1;
use kube::Api;
use kube::api::{ApiResource, Patch, PatchParams};
use kube::core::Object;
use kube::runtime::{WatchStreamExt, watcher};
use profiles::label::{LABEL_VALUE, LabelKey};
use profiles::name::NodeName;
use profiles::node::STARTUP_TAINT;
use profiles::plan::{LabelChange, NodeWrite, Untaint};
use profiles::state::{Event, NodeLabels};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::report::NodeUid;
use super::{AGENT_MANAGER, Connection, advice, said, watch_advice, watch_said};

/// How long the API server may take for a change, after which nobody knows how it ended.
const TIMEOUT: Duration = Duration::from_secs(10);
const PERMISSION_TO_WATCH: &str = "list and watch Nodes";
const PERMISSION_TO_WRITE: &str = "patch Nodes, and see what policy forbids it";

/// A Node, as far as it matters here.
type Node = Object<Spec, IgnoredAny>;

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    taints: Option<Vec<Taint>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Taint {
    key: String,
}

/// The Node that this agent runs on.
pub(crate) struct OwnNode {
    api: Api<Node>,
    pub(super) name: NodeName,
    pub(super) uid: NodeUid,
}

impl OwnNode {
    /// The Node called `name`.
    pub(crate) fn new(client: Connection, name: NodeName) -> Self {
        let resource = ApiResource::erase::<v1::Node>(&());
        Self { api: Api::all_with(client.0, &resource), name, uid: NodeUid::default() }
    }

    /// Watches its labels and its startup taint, for ever.
    pub(crate) fn watch(&self) -> impl Stream<Item = Event> + use<> {
        let config =
            watcher::Config::default().fields(&format!("metadata.name={}", self.name)).streaming_lists();
        let mut sighting = Sighting { uid: self.uid.clone(), ..Sighting::new(self.name.clone()) };
        watcher(self.api.clone(), config)
            .default_backoff()
            .filter_map(move |event| future::ready(sighting.take(event)))
    }

    /// Writes to it, and says how that ended.
    pub(crate) fn write(&self, write: NodeWrite) -> impl Future<Output = Vec<Event>> + use<> {
        match write {
            NodeWrite::Labels(change) => Either::Left(self.relabel(change)),
            NodeWrite::Untaint(untaint) => Either::Right(self.untaint(untaint)),
        }
    }

    /// Changes its labels in one write.
    ///
    /// A merge patch, because server-side apply can't take away labels that somebody else set under our
    /// names.
    fn relabel(&self, change: LabelChange) -> impl Future<Output = Vec<Event>> + use<> {
        let (api, name) = (self.api.clone(), self.name.clone());
        async move {
            let patch = Patch::Merge(patch_of(&change));
            match tokio::time::timeout(TIMEOUT, api.patch(name.as_str(), &parameters(), &patch)).await {
                Ok(Ok(node)) => {
                    info!(node = %name, set = change.set.len(), unset = change.unset.len(), "Labels changed");
                    vec![Event::LabelsWritten(labels_of(&node))]
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

    /// Takes its startup taint away.
    ///
    /// A JSON patch, because the list of taints is one field to every other kind of patch, and somebody else
    /// may change another taint meanwhile. It tests that it is still about this Node, and this taint.
    fn untaint(&self, untaint: Untaint) -> impl Future<Output = Vec<Event>> + use<> {
        let (api, name, uid) = (self.api.clone(), self.name.clone(), self.uid.borrow().clone());
        async move {
            let patch = Patch::Json::<()>(untaint_patch(uid, &untaint.at));
            match tokio::time::timeout(TIMEOUT, api.patch(name.as_str(), &parameters(), &patch)).await {
                Ok(Ok(node)) => {
                    say_untainted(&name, &untaint);
                    vec![Event::Untainted(labels_of(&node))]
                }
                Ok(Err(error)) if has_changed(&error) => {
                    info!(node = %name, "Startup taint not taken away: the Node has changed meanwhile; trying again");
                    vec![Event::UntaintFailed]
                }
                Ok(Err(error)) => {
                    let advice = advice(&error, PERMISSION_TO_WRITE);
                    warn!(node = %name, error = said(&error), advice, "Startup taint can't be taken away");
                    vec![Event::UntaintFailed]
                }
                Err(_) => {
                    warn!(node = %name, timeout = ?TIMEOUT, "Startup taint can't be taken away: no answer; trying again");
                    vec![Event::UntaintFailed]
                }
            }
        }
    }
}

fn parameters() -> PatchParams {
    PatchParams { field_manager: Some(AGENT_MANAGER.to_owned()), ..PatchParams::default() }
}

fn say_untainted(node: &NodeName, untaint: &Untaint) {
    if untaint.lacks.is_empty() {
        info!(%node, "Startup taint taken away");
        return;
    }
    let lacks = untaint.lacks.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    warn!(%node, lacks, "Startup taint taken away after two minutes, before everything is ready");
}

/// Whether a JSON patch was refused because one of its tests failed. A policy also answers 422, but names the
/// object.
fn has_changed(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let names_none = || status.details.as_ref().is_none_or(|details| details.name.is_empty());
    status.code == 409 || status.code == 422 && names_none()
}

/// Whether the Node was seen in the list that is being received.
struct Sighting {
    name: NodeName,
    is_seen: bool,
    /// The labels that were told last, and where the startup taint was.
    told: Option<Told>,
    /// For whoever has to know which Node of this name it is.
    uid: NodeUid,
}

type Told = (Option<BTreeMap<String, String>>, BTreeSet<usize>);

fn told(node: &Node) -> Told {
    (node.metadata.labels.clone(), startup_taints(node))
}

impl Sighting {
    fn new(name: NodeName) -> Self {
        Self { name, is_seen: false, told: None, uid: NodeUid::default() }
    }

    fn take(&mut self, event: watcher::Result<watcher::Event<Node>>) -> Option<Event> {
        match event {
            Ok(watcher::Event::Init) => {
                self.is_seen = false;
                None
            }
            Ok(watcher::Event::InitApply(node)) => {
                self.is_seen = true;
                self.told = Some(told(&node));
                self.uid.replace(node.metadata.uid.clone());
                Some(Event::NodeListed(labels_of(&node)))
            }
            // The kubelet's reports of the Node's state are no news of its labels or taints.
            Ok(watcher::Event::Apply(node)) if self.told.as_ref() == Some(&told(&node)) => None,
            Ok(watcher::Event::Apply(node)) => {
                self.told = Some(told(&node));
                self.uid.replace(node.metadata.uid.clone());
                Some(Event::NodeLabels(labels_of(&node)))
            }
            Ok(watcher::Event::InitDone) if self.is_seen => None,
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => {
                self.told = None;
                self.uid.replace(None);
                warn!(node = %self.name, "Node does not exist; the agent labels it when it appears; is --node-name right?");
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

/// Each taint is tested for being the startup taint and removed, the last one first: removing one moves those
/// behind it.
fn untaint_patch(uid: Option<String>, at: &BTreeSet<usize>) -> json_patch::Patch {
    let test = |path: &[&str], value: &str| {
        let path = PointerBuf::from_tokens(path.iter().copied());
        PatchOperation::Test(TestOperation { path, value: Value::from(value) })
    };
    let is_this_node = uid.map(|uid| test(&["metadata", "uid"], &uid));
    let removals = at.iter().rev().flat_map(|index| {
        let index = index.to_string();
        let path = PointerBuf::from_tokens(["spec", "taints", &index]);
        let is_startup_taint = test(&["spec", "taints", &index, "key"], STARTUP_TAINT);
        [is_startup_taint, PatchOperation::Remove(RemoveOperation { path })]
    });
    json_patch::Patch(is_this_node.into_iter().chain(removals).collect())
}

fn startup_taints(node: &Node) -> BTreeSet<usize> {
    let taints = node.spec.taints.iter().flatten().enumerate();
    taints.filter(|(_, taint)| taint.key == STARTUP_TAINT).map(|(index, _)| index).collect()
}

fn labels_of(node: &Node) -> NodeLabels {
    let version = node.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
    let mut seen = NodeLabels { version, startup_taints: startup_taints(node), ..NodeLabels::default() };
    for (key, value) in node.metadata.labels.iter().flatten() {
        match LabelKey::observed(key) {
            Some(label) => seen.labels.insert(label, value.clone()),
            None => seen.others.insert(key.clone(), value.clone()),
        };
    }
    seen
}

#[cfg(test)]
mod tests;
