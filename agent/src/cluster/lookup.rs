//! What the API server has, asked once, for `pavise check`.
//!
//! Invariant: what is asked for changes nothing. Lists come in pages, and of Nodes their metadata alone.

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::{self, ConfigMap};
use kube::Api;
pub(crate) use kube::Client;
use kube::api::{ApiResource, ListParams, ObjectList, ObjectMeta, PartialObjectMeta};
use kube::core::Object;
use profiles::bundle::{Bundle, KIND_LABEL};
use profiles::name::Namespace;
use profiles::placement::{Constraints, Node};
use profiles::pod::{self, Pod};
use profiles::verdicts::Verdicts;
use serde::Deserialize;
use serde_json::Value;

use super::bundles::source;
use super::said;

/// The metadata of a Node with a thousand labels is 100 KB.
const PAGE_OF_NODES: u32 = 200;
/// A pod is some 10 KB.
const PAGE_OF_PODS: u32 = 200;
/// A ConfigMap has 1 MiB at most.
const PAGE_OF_BUNDLES: u32 = 50;

/// A pod, which has not ended.
#[derive(Debug)]
pub(crate) struct FoundPod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) pod: Pod,
    pub(crate) constraints: Constraints,
}

/// All Nodes, by their names.
pub(crate) async fn nodes(client: Client) -> Result<Vec<Node>> {
    let nodes: Api<v1::Node> = Api::all(client);
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(PAGE_OF_NODES);
    loop {
        let list = nodes.list_metadata(&page).await.map_err(|error| failed("list nodes", &error))?;
        let next = next(&page, &list);
        found.extend(list.items.into_iter().map(node));
        let Some(next) = next else { break };
        page = next;
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// The bundles of each of these namespaces, as `verdicts` has them judged; or why they are not known.
pub(crate) async fn bundles(
    client: &Client,
    namespaces: &[Namespace],
    verdicts: &mut Verdicts,
) -> BTreeMap<Namespace, Result<Vec<Bundle>, String>> {
    let mut read = BTreeMap::new();
    for namespace in namespaces {
        let bundles = bundles_in(client.clone(), namespace, verdicts).await;
        read.insert(namespace.clone(), bundles.map_err(|error| format!("{error:#}")));
    }
    read
}

async fn bundles_in(client: Client, namespace: &Namespace, verdicts: &mut Verdicts) -> Result<Vec<Bundle>> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client, namespace.as_str());
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

/// The pods of `namespace`, or of all namespaces, that have not ended.
pub(crate) async fn pods(client: Client, namespace: Option<&Namespace>) -> Result<Vec<FoundPod>> {
    let resource = ApiResource::erase::<v1::Pod>(&());
    let pods: Api<Object<Value, pod::Status>> = match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace.as_str(), &resource),
        None => Api::all_with(client, &resource),
    };
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(PAGE_OF_PODS);
    loop {
        let list = pods.list(&page).await.map_err(|error| failed("list pods", &error))?;
        let next = next(&page, &list);
        for one in list.items {
            let one = found_pod(one)?;
            found.extend((!one.pod.has_ended).then_some(one));
        }
        let Some(next) = next else { return Ok(found) };
        page = next;
    }
}

/// What of a pod with these `annotations` and this `spec` matters, which the API server or an author wrote.
///
/// # Errors
/// `spec` is not what Kubernetes takes.
pub(crate) fn read_pod(
    annotations: &BTreeMap<String, String>,
    spec: &Value,
    status: Option<&pod::Status>,
) -> Result<(Pod, Constraints)> {
    let constraints = Constraints::deserialize(spec).context("reading where the pod can be")?;
    let spec = pod::Spec::deserialize(spec).context("reading its containers")?;
    Ok((Pod::of(annotations, &spec, status), constraints))
}

/// The page after `page`, of which the API server sent `list`.
fn next<T: Clone>(page: &ListParams, list: &ObjectList<T>) -> Option<ListParams> {
    let token = list.metadata.continue_.as_deref().filter(|token| !token.is_empty())?;
    Some(page.clone().continue_token(token))
}

fn node(node: PartialObjectMeta<v1::Node>) -> Node {
    let ObjectMeta { name, labels, .. } = node.metadata;
    Node { name: name.unwrap_or_default(), labels: labels.unwrap_or_default() }
}

fn found_pod(found: Object<Value, pod::Status>) -> Result<FoundPod> {
    let ObjectMeta { namespace, name, annotations, .. } = found.metadata;
    let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
    let read = read_pod(&annotations.unwrap_or_default(), &found.spec, found.status.as_ref());
    let (pod, constraints) = read.with_context(|| format!("reading the pod {namespace}/{name}"))?;
    Ok(FoundPod { namespace, name, pod, constraints })
}

/// What is said of a request that failed, which needed `permission`.
fn failed(permission: &str, error: &kube::Error) -> anyhow::Error {
    let advice = match error {
        kube::Error::Api(status) if status.code == 401 => "log in to the cluster".to_owned(),
        kube::Error::Api(status) if status.code == 403 => format!("let this user {permission}"),
        kube::Error::Api(_) => "try again".to_owned(),
        _ => "is this the right cluster, and does it run? KUBECONFIG and --context choose another".to_owned(),
    };
    anyhow!("asking the API server to {permission}: {}; {advice}", said(error))
}
