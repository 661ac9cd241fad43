//! The pods of all namespaces that wait for a Node, and select on labels of ours.
//!
//! Invariant: a pod that is not told waits for no label of ours, or asks for more
//! than is kept, or there are more pods than anybody reads. A pod
//! whose scheduling is held up, or that is being deleted, waits for no Node. Of a pod nothing is decoded but what
//! matters: its author does not decide how much memory it takes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use futures::{Stream, StreamExt, future};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::ObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use profiles::catalog::pending::Waiting;
use profiles::placement::Unscheduled;
use profiles::pod::{self, PodId};
use serde::{Deserialize, Deserializer};
use tracing::warn;

use super::{Connection, watch_advice, watch_said};

/// What the API server knows of pods without looking at each.
const WAITING: &str = "spec.nodeName=,status.phase=Pending";
const PERMISSION: &str = "list and watch Pods in all namespaces";

/// What is seen of pods that wait.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A list of all begins, or begins anew because the last one broke off.
    Listing,
    /// The list has this one.
    Found(Waiting),
    /// The list ends.
    Listed,
    /// One that begins to wait, or has changed.
    Applied(Waiting),
    /// One that does not wait any more.
    Deleted(PodId),
}

/// What is read of a pod.
#[derive(Clone, Debug, Deserialize)]
struct Found {
    #[serde(deserialize_with = "read_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Unscheduled,
    status: Option<pod::Status>,
}

impl Resource for Found {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        v1::Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        v1::Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        v1::Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        v1::Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What is read of a pod's metadata. What is not, such as `managedFields`, takes no memory.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

fn read_metadata<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    let read = Metadata::deserialize(from)?;
    Ok(ObjectMeta {
        namespace: read.namespace,
        name: read.name,
        uid: read.uid,
        resource_version: read.resource_version,
        deletion_timestamp: read.deletion_timestamp,
        annotations: read.annotations,
        owner_references: read.owner_references,
        ..ObjectMeta::default()
    })
}

/// Watches them, for ever.
pub(crate) fn watch(client: Connection) -> impl Stream<Item = Seen> {
    let pods: Api<Found> = Api::all(client.0);
    let config = watcher::Config::default().fields(WAITING).streaming_lists();
    watcher(pods, config).default_backoff().filter_map(|event| future::ready(seen(event)))
}

fn seen(event: watcher::Result<watcher::Event<Found>>) -> Option<Seen> {
    match event {
        Ok(watcher::Event::Init) => Some(Seen::Listing),
        Ok(watcher::Event::InitApply(found)) => waiting(found).map(Seen::Found),
        Ok(watcher::Event::InitDone) => Some(Seen::Listed),
        Ok(watcher::Event::Apply(found)) => {
            let id = id(&found.metadata);
            Some(waiting(found).map_or(Seen::Deleted(id), Seen::Applied))
        }
        Ok(watcher::Event::Delete(found)) => Some(Seen::Deleted(id(&found.metadata))),
        Err(error) => {
            let advice = watch_advice(&error, PERMISSION);
            warn!(error = watch_said(&error), advice, "Waiting pods can't be watched");
            None
        }
    }
}

/// What matters of a pod, if it waits for a Node.
fn waiting(Found { metadata, spec, status }: Found) -> Option<Waiting> {
    if !spec.waits() || metadata.deletion_timestamp.is_some() {
        return None;
    }
    let id = id(&metadata);
    let (pod, constraints) = spec.read(&metadata.annotations.unwrap_or_default(), status.as_ref());
    let owners = metadata.owner_references.unwrap_or_default();
    let owner = owners.into_iter().find(|owner| owner.controller == Some(true));
    Waiting::of(id, owner.map(|owner| owner.uid), pod, constraints)
}

fn id(metadata: &ObjectMeta) -> PodId {
    PodId {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::script::{self, Exchange, end_of_pods, line};

    /// A pod that waits and selects on the label of a profile, with these parts of its `spec` in addition.
    fn pod(name: &str, more: Value) -> Value {
        let mut spec = json!({
            "nodeSelector": {"seccomp.pavise.dev/web_a": "true"},
            "containers": [{"name": "c", "image": "busybox"}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        });
        let Value::Object(more) = more else { panic!("{more} is no part of a spec") };
        spec.as_object_mut().unwrap().extend(more);
        let metadata =
            json!({"namespace": "ns", "name": name, "uid": format!("uid-of-{name}"), "resourceVersion": "1"});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": "Pending"}})
    }

    fn shown(seen: &Seen) -> String {
        match seen {
            Seen::Listing => "[".to_owned(),
            Seen::Found(waiting) => waiting.id().name.clone(),
            Seen::Listed => "]".to_owned(),
            Seen::Applied(waiting) => format!("+{}", waiting.id().name),
            Seen::Deleted(id) => format!("-{}", id.name),
        }
    }

    /// Claims what is told when the API server answers so: in brackets a list, `+` a pod that waits, `-` one that
    /// does not.
    async fn check(script: Vec<Exchange>, expected: &[&str]) {
        let seen = watch(script::client(script)).map(|seen| shown(&seen));
        let seen: Vec<String> = seen.take(expected.len()).collect().await;
        assert_eq!(seen, expected);
    }

    const LIST: &str =
        "/api/v1/pods?&watch=true&timeoutSeconds=290&fieldSelector=spec.nodeName%3D%2Cstatus.phase%3DPending";

    #[tokio::test(start_paused = true)]
    async fn pods_without_a_node_are_asked_for_and_a_watch_that_ends_goes_on_where_it_was() {
        let plain = json!({"nodeSelector": {"pool": "a"}});
        let list =
            vec![line("ADDED", pod("a", json!({})), 3), line("ADDED", pod("b", plain), 4), end_of_pods(5)];
        let more = vec![line("ADDED", pod("c", json!({})), 6), line("DELETED", pod("a", json!({})), 7)];
        let rest = vec![line("DELETED", pod("c", json!({"nodeName": "n1"})), 8)];
        check(
            vec![
                Exchange { asked: LIST, status: 200, answer: list },
                Exchange { asked: "resourceVersion=5", status: 200, answer: more },
                Exchange { asked: "resourceVersion=7", status: 200, answer: rest },
            ],
            &["[", "a", "]", "+c", "-a", "-c"],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_breaks_off_or_is_refused_is_asked_for_again() {
        let ask = |status, answer| Exchange { asked: "sendInitialEvents=true", status, answer };
        let list = vec![line("ADDED", pod("b", json!({})), 4), end_of_pods(5)];
        let script = vec![
            ask(403, vec![]),
            ask(200, vec![line("ADDED", pod("z", json!({})), 2)]),
            ask(403, vec![]),
            ask(200, list),
        ];
        check(script, &["[", "z", "[", "b", "]"]).await;
    }

    /// Claims whether a pod with these parts of its `spec` waits for a label of ours.
    fn check_waiting(more: &Value, expected: bool) {
        let found: Found = serde_json::from_value(pod("a", more.clone())).unwrap();
        assert_eq!(waiting(found).is_some(), expected, "{more}");
    }

    #[test]
    fn who_is_held_up_or_has_a_node_waits_for_none() {
        check_waiting(&json!({}), true);
        check_waiting(&json!({"schedulingGates": []}), true);
        check_waiting(&json!({"schedulingGates": [{"name": "example.com/wait"}]}), false);
        check_waiting(&json!({"nodeName": "n1"}), false);
        check_waiting(&json!({"nodeSelector": {"pool": "a"}}), false);
        let affinity = json!({"nodeSelector": null, "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "bundle.pavise.dev/web", "operator": "Exists"}]},
            ]},
        }}});
        check_waiting(&affinity, true);
        let mut going = pod("a", json!({}));
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(waiting(serde_json::from_value(going).unwrap()).is_none());
    }

    #[test]
    fn what_does_not_matter_is_read_over_however_much_it_is() {
        let many = |one: Value| Value::Array(vec![one; 100_000]);
        let container = json!({"name": "c", "env": many(json!({"name": "E", "value": "1"}))});
        let gates = many(json!({"conditionType": "example.com/ready"}));
        let fields = many(json!({"manager": "m", "fieldsV1": {"f:spec": {"f:containers": {}}}}));
        let shown = |more: &Value, fields: &Value| {
            let mut pod = pod("a", more.clone());
            pod["metadata"]["managedFields"] = fields.clone();
            let text = pod.to_string();
            let found: Found = serde_json::from_str(&text).unwrap();
            let decoded = format!("{found:?}");
            (decoded, format!("{:?}", waiting(found).unwrap()))
        };
        let plain = shown(&json!({"containers": [{"name": "c"}]}), &Value::Null);
        assert_eq!(shown(&json!({"containers": [container], "readinessGates": gates}), &fields), plain);
    }
}
