//! What levels are decided by: the object `ProfileCatalog`, and the labels of namespaces.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1;
use kube::Api;
use kube::api::{DynamicObject, ListParams, ObjectMeta};
use profiles::catalog::object::{self, ProfileCatalog};
use profiles::name::Namespace;

use super::{failed, next};
use crate::cluster::profile_catalog::{KIND, PLURAL};
use crate::cluster::{Connection, resource};

/// The metadata of a namespace is a few KB.
const PAGE: u32 = 500;

/// What is there of the object `ProfileCatalog`.
#[derive(Debug, Default)]
pub(crate) struct DeclaredProfiles {
    /// What it holds; nothing if it does not exist.
    pub(crate) object: ProfileCatalog,
    /// Whether it exists.
    pub(crate) exists: bool,
    /// Whether what bundles declare was ever written into it.
    pub(crate) is_written: bool,
}

/// What the object `ProfileCatalog` says.
pub(crate) async fn declared_profiles(client: Connection) -> Result<DeclaredProfiles> {
    let api: Api<DynamicObject> = Api::all_with(client.0, &resource(KIND, PLURAL));
    let data = match api.get(object::NAME).await {
        Ok(DynamicObject { data, .. }) => data,
        // So says a cluster, too, that does not know such objects.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(DeclaredProfiles::default()),
        Err(error) => return Err(failed("get profilecatalogs", &error)),
    };
    let is_written = data.get("status").is_some();
    let read = serde_json::from_value(data).map_err(|error| anyhow!("{error}"));
    let object = read.with_context(|| format!("reading the ProfileCatalog {}", object::NAME))?;
    Ok(DeclaredProfiles { object, exists: true, is_written })
}

/// The labels of the namespace `only`, or of all, by their names.
pub(crate) async fn namespaces(
    client: Connection,
    only: Option<&Namespace>,
) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let namespaces: Api<v1::Namespace> = Api::all(client.0);
    let mut found = BTreeMap::new();
    let mut page = ListParams::default().limit(PAGE);
    if let Some(name) = only {
        page = page.fields(&format!("metadata.name={name}"));
    }
    loop {
        let list =
            namespaces.list_metadata(&page).await.map_err(|error| failed("list namespaces", &error))?;
        let next = next(&page, &list);
        found.extend(list.items.into_iter().map(|one| {
            let ObjectMeta { name, labels, .. } = one.metadata;
            (name.unwrap_or_default(), labels.unwrap_or_default())
        }));
        let Some(next) = next else { return Ok(found) };
        page = next;
    }
}

#[cfg(test)]
mod tests {
    use profiles::level::Level;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::script::{self, Exchange};

    fn exchange(asked: &'static str, status: u16, answer: Value) -> Exchange {
        Exchange { asked, status, answer: vec![answer] }
    }

    /// Claims what is known of an object: whether it exists, whether the catalog has written it, and whether
    /// `enforce` has the default confined.
    async fn check(status: u16, answer: Value, expected: (bool, bool, bool)) {
        let asked = "/apis/pavise.dev/v1alpha1/profilecatalogs/pavise";
        let client = script::client(vec![exchange(asked, status, answer)]);
        let DeclaredProfiles { object, exists, is_written } = declared_profiles(client).await.unwrap();
        let is_default = object.spec.defaults.enforce == Level::Confined;
        assert_eq!((exists, is_written, is_default), expected);
    }

    fn refusal(code: u16) -> Value {
        json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "NotFound", "code": code})
    }

    #[tokio::test]
    async fn the_object_is_read_also_if_nobody_has_written_all_of_it() {
        let object = |rest: Value| {
            let mut object = json!({"apiVersion": "pavise.dev/v1alpha1", "kind": "ProfileCatalog", "metadata": {"name": "pavise"}});
            object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            object
        };
        let spec = json!({"defaults": {"enforce": "confined"}});
        check(200, object(json!({})), (true, false, false)).await;
        check(200, object(json!({"spec": spec})), (true, false, true)).await;
        check(200, object(json!({"status": {"totals": {"seccomp": 0}}})), (true, true, false)).await;
        check(404, refusal(404), (false, false, false)).await;
    }

    #[tokio::test]
    async fn an_object_that_can_not_be_read_is_no_object_without_content() {
        let of = |status, answer| script::client(vec![exchange("profilecatalogs/pavise", status, answer)]);
        let refused = declared_profiles(of(403, refusal(403))).await.unwrap_err().to_string();
        assert!(refused.ends_with("get profilecatalogs: no (403)"), "{refused}");
        let newer = json!({"metadata": {"name": "pavise"}, "spec": {"defaults": {"enforce": "newer"}}});
        let error = format!("{:#}", declared_profiles(of(200, newer)).await.unwrap_err());
        assert!(error.starts_with("reading the ProfileCatalog pavise: unknown variant"), "{error}");
    }

    #[tokio::test]
    async fn namespaces_come_with_their_labels_page_by_page() {
        let page = |name: &str, labels: Value, token: &str| {
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                   "metadata": {"continue": token}, "items": [{"metadata": {"name": name, "labels": labels}}]})
        };
        let labels = json!({"pavise.dev/enforce": "known"});
        let client = script::client(vec![
            exchange("/api/v1/namespaces?&limit=500", 200, page("a", labels, "next")),
            exchange("continue=next", 200, page("b", Value::Null, "")),
        ]);
        let found = namespaces(client, None).await.unwrap();
        assert_eq!(found["a"]["pavise.dev/enforce"], "known");
        assert!(found.len() == 2 && found["b"].is_empty());
        let asked = "fieldSelector=metadata.name%3Da";
        let client = script::client(vec![exchange(asked, 200, page("a", Value::Null, ""))]);
        assert_eq!(namespaces(client, Some(&Namespace::new("a").unwrap())).await.unwrap().len(), 1);
    }
}
