//! What the API server has, asked once: for `pavise check`, and for the catalog when pods wait.
//!
//! Invariant: what is asked for changes nothing. Lists come in pages, and of Nodes and namespaces their metadata
//! alone.

mod levels;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{self, ConfigMap};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{ApiResource, ListParams, ObjectList, ObjectMeta, PartialObjectMeta};
use kube::core::Object;
use profiles::bundle::{Bundle, KIND_LABEL};
use profiles::name::Namespace;
use profiles::placement::{Constraints, Node};
use profiles::pod::{self, Limits, Pod};
use profiles::verdicts::Verdicts;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::bundles::source;
use super::{Connection, code, said};
pub(crate) use levels::{DeclaredProfiles, declared_profiles, namespaces};

/// The metadata of a Node with a thousand labels is 100 KB.
const PAGE_OF_NODES: u32 = 25;
/// A pod is some 10 KB.
const PAGE_OF_PODS: u32 = 200;
/// What it takes to hold a label, beside its key and value: two strings in a tree, and what allocators add.
const LABEL: usize = 2 * size_of::<String>() + 48;
/// A ConfigMap has 1 MiB at most.
const PAGE_OF_BUNDLES: u32 = 50;

/// A pod, which has not ended.
#[derive(Debug)]
pub(crate) struct FoundPod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) owner: Option<Owner>,
    pub(crate) pod: Pod,
    pub(crate) constraints: Constraints,
}

/// What makes a pod, and makes it again.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Owner {
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// All Nodes, by their names, with those labels that `matters` says of their keys. Nodes with the same labels of
/// ours share these.
///
/// # Errors
/// The API server does not list them, or they would take more than about `most` bytes.
pub(crate) async fn nodes(
    client: Connection,
    matters: impl Fn(&str) -> bool,
    most: usize,
) -> Result<Vec<Node>> {
    let nodes: Api<v1::Node> = Api::all(client.0);
    let (mut found, mut shared, mut size) = (Vec::new(), BTreeSet::new(), 0);
    let mut page = ListParams::default().limit(PAGE_OF_NODES);
    loop {
        let list = page_of(&nodes, &page).await.map_err(|error| failed("list nodes", &error))?;
        let next = next(&page, &list);
        for one in list.items {
            let mut node = node(one, &matters);
            if let Some(ours) = shared.get(&node.ours) {
                node.ours = Arc::clone(ours);
            } else {
                size += size_of_labels(&node.ours);
                shared.insert(node.ours.clone());
            }
            size += size_of::<Node>() + node.name.len() + size_of_labels(&node.others);
            ensure!(
                size <= most,
                "what is to be known of the Nodes takes more than {} MiB; ask for labels with fewer values in \
                 pavise.dev/node-selector of bundles",
                most >> 20
            );
            found.push(node);
        }
        let Some(next) = next else { break };
        page = next;
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// One page. It is asked for again if the API server puts it off: that must not cost all pages before it.
async fn page_of(
    nodes: &Api<v1::Node>,
    page: &ListParams,
) -> kube::Result<ObjectList<PartialObjectMeta<v1::Node>>> {
    let mut pauses = [1, 2, 4].map(Duration::from_secs).into_iter();
    loop {
        match nodes.list_metadata(page).await {
            Err(error) if matches!(code(&error), 429 | 503 | 504) => match pauses.next() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            },
            outcome => return outcome,
        }
    }
}

/// The bundles of each of these namespaces, as `verdicts` has them judged; or why they are not known.
pub(crate) async fn bundles(
    client: &Connection,
    namespaces: &[Namespace],
    verdicts: &mut Verdicts,
) -> BTreeMap<Namespace, Result<Vec<Bundle>>> {
    let mut read = BTreeMap::new();
    for namespace in namespaces {
        read.insert(namespace.clone(), bundles_in(client.clone(), namespace, verdicts).await);
    }
    read
}

async fn bundles_in(
    client: Connection,
    namespace: &Namespace,
    verdicts: &mut Verdicts,
) -> Result<Vec<Bundle>> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client.0, namespace.as_str());
    let mut found = Vec::new();
    let mut page = ListParams::default().labels(KIND_LABEL).limit(PAGE_OF_BUNDLES);
    loop {
        let list = config_maps.list(&page).await.map_err(|error| failed("list configmaps", &error))?;
        let next = next(&page, &list);
        found.extend(list.items.into_iter().filter_map(source).map(|one| Bundle::of(one, verdicts)));
        let Some(next) = next else { return Ok(found) };
        page = next;
    }
}

/// The pods of `namespace`, or of all namespaces, that have not ended, each as far as it is within `limits`.
pub(crate) async fn pods(
    client: Connection,
    namespace: Option<&Namespace>,
    limits: Limits,
) -> Result<Vec<FoundPod>> {
    let resource = ApiResource::erase::<v1::Pod>(&());
    let pods: Api<Object<Value, pod::Status>> = match namespace {
        Some(namespace) => Api::namespaced_with(client.0, namespace.as_str(), &resource),
        None => Api::all_with(client.0, &resource),
    };
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(PAGE_OF_PODS);
    loop {
        let list = pods.list(&page).await.map_err(|error| failed("list pods", &error))?;
        let next = next(&page, &list);
        for one in list.items {
            let one = found_pod(one, limits)?;
            found.extend((!one.pod.has_ended).then_some(one));
        }
        let Some(next) = next else { return Ok(found) };
        page = next;
    }
}

/// What of a pod with these `annotations` and this `spec` matters, which the API server or an author wrote, as
/// far as it is within `limits`.
///
/// # Errors
/// `spec` is not what Kubernetes takes.
pub(crate) fn read_pod(
    annotations: &BTreeMap<String, String>,
    spec: &Value,
    status: Option<&pod::Status>,
    limits: Limits,
) -> Result<(Pod, Constraints)> {
    let constraints = Constraints::deserialize(spec).context("reading where the pod can be")?;
    let spec = pod::Spec::deserialize(spec).context("reading its containers")?;
    Ok((Pod::within(limits, annotations, &spec, status), constraints))
}

/// The page after `page`, of which the API server sent `list`.
fn next<T: Clone>(page: &ListParams, list: &ObjectList<T>) -> Option<ListParams> {
    let token = list.metadata.continue_.as_deref().filter(|token| !token.is_empty())?;
    Some(page.clone().continue_token(token))
}

fn node(node: PartialObjectMeta<v1::Node>, matters: impl Fn(&str) -> bool) -> Node {
    let ObjectMeta { name, labels, .. } = node.metadata;
    let mut labels = labels.unwrap_or_default();
    labels.retain(|key, _| matters(key));
    Node::new(name.unwrap_or_default(), labels)
}

fn size_of_labels(labels: &BTreeMap<String, String>) -> usize {
    labels.iter().map(|(key, value)| LABEL + key.len() + value.len()).sum()
}

fn found_pod(found: Object<Value, pod::Status>, limits: Limits) -> Result<FoundPod> {
    let ObjectMeta { namespace, name, annotations, owner_references, .. } = found.metadata;
    let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
    let read = read_pod(&annotations.unwrap_or_default(), &found.spec, found.status.as_ref(), limits);
    let (pod, constraints) = read.with_context(|| format!("reading the pod {namespace}/{name}"))?;
    // That a static pod is of a Node says where it is, and not what makes it.
    let controller = |one: &OwnerReference| one.controller == Some(true) && one.kind != "Node";
    let owner = owner_references.into_iter().flatten().find(controller);
    let owner = owner.map(|OwnerReference { kind, name, .. }| Owner { kind, name });
    Ok(FoundPod { namespace, name, owner, pod, constraints })
}

/// A request that failed.
#[derive(Debug, Error)]
#[error("asking the API server to {permission}: {said}")]
pub(crate) struct Failed {
    /// What it needs.
    pub(crate) permission: &'static str,
    /// The API server's code; 0 if it gave none.
    pub(crate) code: u16,
    said: String,
}

fn failed(permission: &'static str, error: &kube::Error) -> anyhow::Error {
    Failed { permission, code: code(error), said: said(error) }.into()
}

#[cfg(test)]
mod tests {
    use profiles::bundle::Kind;
    use profiles::pod::Asked;
    use serde_json::json;

    use super::*;
    use crate::cluster::script::{self, Exchange};
    use crate::examples::PLATFORM;

    fn list(kind: &str, items: &Value, token: &str) -> Value {
        let kind = format!("{kind}List");
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"continue": token}, "items": items})
    }

    fn answer(asked: &'static str, answer: Value) -> Exchange {
        Exchange { asked, status: 200, answer: vec![answer] }
    }

    fn refusal(asked: &'static str, message: &str, code: u16) -> Exchange {
        let status = json!({"kind": "Status", "status": "Failure", "message": message, "reason": "Forbidden", "code": code});
        Exchange { asked, status: code, answer: vec![status] }
    }

    fn namespaces(names: &[&str]) -> Vec<Namespace> {
        names.iter().map(|name| Namespace::new(name).unwrap()).collect()
    }

    #[tokio::test]
    async fn nodes_come_page_by_page_and_in_order() {
        let node = |name: &str| json!({"metadata": {"name": name, "labels": {"pool": name, "zone": "z"}}});
        let page = |names: &[&str], token| {
            let items: Vec<Value> = names.iter().map(|name| node(name)).collect();
            let list = list("PartialObjectMetadata", &json!(items), token);
            Value::Object(list.as_object().unwrap().clone())
        };
        let client = script::client(vec![
            answer("/api/v1/nodes?&limit=25", page(&["n3", "n1"], "next")),
            answer("continue=next", page(&["n2"], "")),
        ]);
        let nodes = nodes(client, |key| key == "pool", 1000).await.unwrap();
        assert_eq!(nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["n1", "n2", "n3"]);
        assert_eq!(nodes[1].others, [("pool".to_owned(), "n2".to_owned())].into());
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_of_nodes_that_is_put_off_is_asked_for_again_and_not_for_ever() {
        const NEXT: &str = "continue=next";
        let page =
            |name: &str, token| list("PartialObjectMetadata", &json!([{"metadata": {"name": name}}]), token);
        let busy = |code| refusal(NEXT, "busy", code);
        for (put_off, expected) in [
            (vec![busy(429), busy(503), busy(504)], Some(2)),
            (vec![busy(429), busy(429), busy(429), busy(429)], None),
            (vec![busy(403)], None),
        ] {
            let first = answer("/api/v1/nodes?&limit=25", page("n1", "next"));
            let last = expected.map(|_| answer(NEXT, page("n2", "")));
            let client = script::client([first].into_iter().chain(put_off).chain(last).collect());
            assert_eq!(nodes(client, |_| true, 1000).await.ok().map(|nodes| nodes.len()), expected);
        }
    }

    #[tokio::test]
    async fn what_nodes_have_of_ours_takes_memory_once_and_what_they_have_of_others_is_bounded() {
        let list_of = |own_length: usize| {
            let node = |n: usize| {
                let profiles = (0..256).map(|key| (format!("seccomp.pavise.dev/web_{key}"), json!("true")));
                let own = ("own".to_owned(), json!(format!("{n:0own_length$}")));
                json!({"metadata": {"name": format!("n{n}"), "labels": Value::Object(profiles.chain([own]).collect())}})
            };
            let items: Vec<Value> = (10..90).map(node).collect();
            script::client(vec![answer("/api/v1/nodes?", list("PartialObjectMetadata", &json!(items), ""))])
        };
        let found = nodes(list_of(60), |_| true, 100_000).await.unwrap();
        assert_eq!((found.len(), found[0].ours.len()), (80, 256));
        assert!(found.iter().all(|node| Arc::ptr_eq(&node.ours, &found[0].ours)));
        let error = nodes(list_of(2_000), |_| true, 100_000).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "what is to be known of the Nodes takes more than 0 MiB; ask for labels with fewer values in \
             pavise.dev/node-selector of bundles"
        );
    }

    #[tokio::test]
    async fn a_namespace_that_can_not_be_read_keeps_no_other_from_being_read() {
        let bundle = json!({
            "metadata": {"namespace": "open", "name": "web", "labels": {"pavise.dev/profiles": "seccomp"}},
            "data": {"a.json": "{}"},
        });
        let client = script::client(vec![
            refusal("/api/v1/namespaces/closed/configmaps", "configmaps is forbidden", 403),
            answer("/api/v1/namespaces/open/configmaps", list("ConfigMap", &json!([bundle]), "")),
        ]);
        let read = bundles(&client, &namespaces(&["closed", "open"]), &mut Verdicts::new(PLATFORM)).await;
        let [closed, open] = read.values().collect::<Vec<_>>()[..] else { panic!("{read:?}") };
        let refused = "asking the API server to list configmaps: configmaps is forbidden (403)";
        assert_eq!(closed.as_ref().unwrap_err().to_string(), refused);
        assert_eq!(open.as_ref().unwrap()[0].kind, Some(Kind::Seccomp));
    }

    #[tokio::test]
    async fn pods_that_have_not_ended_are_found_with_what_they_refer_to_and_where_they_are() {
        let pod = |name: &str, phase: &str| {
            json!({
                "metadata": {"namespace": "shop", "name": name, "ownerReferences": [
                    {"apiVersion": "v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true},
                ]},
                "spec": {
                    "nodeName": "n1",
                    "containers": [{"name": "c", "securityContext": {
                        "appArmorProfile": {"type": "Localhost", "localhostProfile": "p"},
                    }}],
                },
                "status": {"phase": phase},
            })
        };
        let items = json!([pod("old", "Succeeded"), pod("web", "Running")]);
        let client =
            script::client(vec![answer("/api/v1/namespaces/shop/pods?&limit=200", list("Pod", &items, ""))]);
        let found = pods(client, namespaces(&["shop"]).first(), Limits::BOUNDED).await.unwrap();
        let [web] = &found[..] else { panic!("{found:?}") };
        assert_eq!(web.owner, Some(Owner { kind: "ReplicaSet".to_owned(), name: "r".to_owned() }));
        assert_eq!((web.name.as_str(), web.constraints.node_name()), ("web", Some("n1")));
        assert_eq!(web.pod.containers[0].apparmor, Asked::Localhost("p".to_owned()));

        let client = script::client(vec![refusal("/api/v1/pods?", "pods is forbidden", 403)]);
        let error = pods(client, None, Limits::BOUNDED).await.unwrap_err().to_string();
        assert_eq!(error, "asking the API server to list pods: pods is forbidden (403)");
    }
}
