//! Bundles, as events.
//!
//! Invariant: a namespace is never [`Event::Listed`] with less than all of its bundles: a list that breaks off halfway
//! is dropped.

use futures::{Stream, StreamExt, future};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use profiles::bundle::{Bundle, BundleId, Source};
use profiles::name::Namespace;
use profiles::state::Event;
use tracing::warn;

use super::{watch_advice, watch_said};

/// What makes a ConfigMap a bundle of seccomp profiles.
const SELECTOR: &str = "pavise.dev/profiles=seccomp";

/// Watches the bundles of `namespace`, for ever.
pub(crate) fn watch(client: Client, namespace: Namespace) -> impl Stream<Item = Event> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client, namespace.as_str());
    let config = watcher::Config::default().labels(SELECTOR).streaming_lists();
    let mut listing = Listing::new(namespace);
    watcher(config_maps, config).default_backoff().filter_map(move |event| future::ready(listing.take(event)))
}

/// The bundles of a namespace, while they are being listed.
struct Listing {
    namespace: Namespace,
    bundles: Vec<Bundle>,
}

impl Listing {
    fn new(namespace: Namespace) -> Self {
        Self { namespace, bundles: Vec::new() }
    }

    fn take(&mut self, event: watcher::Result<watcher::Event<ConfigMap>>) -> Option<Event> {
        match event {
            Ok(watcher::Event::Init) => {
                self.bundles.clear();
                None
            }
            Ok(watcher::Event::InitApply(config_map)) => {
                self.bundles.extend(bundle(config_map));
                None
            }
            Ok(watcher::Event::InitDone) => Some(Event::Listed {
                namespace: self.namespace.clone(),
                bundles: std::mem::take(&mut self.bundles),
            }),
            Ok(watcher::Event::Apply(config_map)) => bundle(config_map).map(Event::Applied),
            Ok(watcher::Event::Delete(config_map)) => id(&config_map).map(Event::Deleted),
            Err(error) => {
                self.complain(&error);
                None
            }
        }
    }

    fn complain(&self, error: &watcher::Error) {
        let advice = watch_advice(error, "list and watch ConfigMaps in this namespace");
        warn!(namespace = %self.namespace, error = watch_said(error), advice, "Bundles can't be watched");
    }
}

fn bundle(config_map: ConfigMap) -> Option<Bundle> {
    Some(Bundle::of_seccomp(source(config_map)?))
}

fn source(config_map: ConfigMap) -> Option<Source> {
    let id = id(&config_map)?;
    let ConfigMap { metadata, data, binary_data, .. } = config_map;
    Some(Source {
        id,
        annotations: metadata.annotations.unwrap_or_default(),
        created: metadata.creation_timestamp.map(|time| time.0.as_second()),
        data: data.unwrap_or_default(),
        binary_keys: binary_data.unwrap_or_default().into_keys().collect(),
    })
}

fn id(config_map: &ConfigMap) -> Option<BundleId> {
    let namespace = config_map.metadata.namespace.as_deref().unwrap_or_default();
    let name = config_map.metadata.name.as_deref().unwrap_or_default();
    match BundleId::new(namespace, name) {
        Ok(id) => Some(id),
        Err(error) => {
            warn!(namespace, name, %error, "ConfigMap ignored");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;
    use serde_json::json;

    use super::*;

    fn config_map(name: &str) -> ConfigMap {
        let metadata = ObjectMeta {
            namespace: Some("ns".to_owned()),
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    /// Claims what comes out of `events`: `=` a list, `+` a change, `-` a removal, each with its bundles' names.
    fn check(events: Vec<watcher::Event<ConfigMap>>, expected: &[&str]) {
        let mut listing = Listing::new(Namespace::new("ns").unwrap());
        let seen: Vec<String> = events
            .into_iter()
            .filter_map(|event| listing.take(Ok(event)))
            .map(|event| match event {
                Event::Listed { bundles, .. } => {
                    let names: Vec<&str> = bundles.iter().map(|bundle| bundle.id.name.as_str()).collect();
                    format!("={}", names.join(","))
                }
                Event::Applied(bundle) => format!("+{}", bundle.id.name),
                Event::Deleted(id) => format!("-{}", id.name),
                other => panic!("{other:?} is no event of bundles"),
            })
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn all_that_matters_of_a_config_map_is_passed_on() {
        let config_map: ConfigMap = serde_json::from_value(json!({
            "metadata": {
                "namespace": "ns",
                "name": "web",
                "creationTimestamp": "1970-01-02T00:00:01Z",
                "annotations": {"pavise.dev/node-selector": "pool=canary"},
            },
            "data": {"a.json": "{}"},
            "binaryData": {"b.json": ""},
        }))
        .unwrap();
        let source = source(config_map).unwrap();
        assert_eq!(source.id, BundleId::new("ns", "web").unwrap());
        assert_eq!(source.created, Some(86_401));
        assert_eq!(
            source.annotations,
            [("pavise.dev/node-selector".to_owned(), "pool=canary".to_owned())].into()
        );
        assert_eq!(source.data, [("a.json".to_owned(), "{}".to_owned())].into());
        assert_eq!(source.binary_keys, ["b.json"]);
    }

    #[test]
    fn a_list_is_told_when_it_is_complete() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let events = vec![
            Init,
            InitApply(config_map("a")),
            InitApply(config_map("b")),
            InitDone,
            Apply(config_map("c")),
            Delete(config_map("a")),
        ];
        check(events, &["=a,b", "+c", "-a"]);
    }

    #[test]
    fn a_list_that_breaks_off_is_dropped() {
        use watcher::Event::{Init, InitApply, InitDone};
        check(vec![Init, InitApply(config_map("a")), Init, InitApply(config_map("b")), InitDone], &["=b"]);
    }
}
