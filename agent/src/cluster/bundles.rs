//! Bundles, as events.
//!
//! Invariant: a namespace is never [`Event::Listed`] with less than all of its bundles: a list that breaks off halfway
//! is dropped.

use futures::{Stream, StreamExt, future};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use profiles::bundle::{Bundle, BundleId};
use profiles::name::Namespace;
use profiles::platform::Platform;
use profiles::state::Event;
use profiles::verdicts::Verdicts;
use tracing::warn;

use super::{watch_advice, watch_said};

/// What makes a ConfigMap a bundle of seccomp profiles.
const SELECTOR: &str = "pavise.dev/profiles=seccomp";

/// Watches the bundles of `namespace`, for ever, and judges them for a node of `platform`.
pub(crate) fn watch(client: Client, namespace: Namespace, platform: Platform) -> impl Stream<Item = Event> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client, namespace.as_str());
    let config = watcher::Config::default().labels(SELECTOR).streaming_lists();
    let mut listing = Listing::new(namespace, platform);
    watcher(config_maps, config).default_backoff().filter_map(move |event| future::ready(listing.take(event)))
}

/// The bundles of a namespace, while they are being listed, and what was judged of them so far.
struct Listing {
    namespace: Namespace,
    bundles: Vec<Bundle>,
    verdicts: Verdicts,
}

impl Listing {
    fn new(namespace: Namespace, platform: Platform) -> Self {
        Self { namespace, bundles: Vec::new(), verdicts: Verdicts::new(platform) }
    }

    fn take(&mut self, event: watcher::Result<watcher::Event<ConfigMap>>) -> Option<Event> {
        match event {
            Ok(watcher::Event::Init) => {
                self.bundles.clear();
                None
            }
            Ok(watcher::Event::InitApply(config_map)) => {
                let bundle = self.bundle(config_map);
                self.bundles.extend(bundle);
                None
            }
            Ok(watcher::Event::InitDone) => {
                let bundles = std::mem::take(&mut self.bundles);
                self.verdicts.retain(&bundles);
                Some(Event::Listed { namespace: self.namespace.clone(), bundles })
            }
            Ok(watcher::Event::Apply(config_map)) => self.bundle(config_map).map(Event::Applied),
            Ok(watcher::Event::Delete(config_map)) => {
                let id = id(&config_map)?;
                self.verdicts.forget(&id);
                Some(Event::Deleted(id))
            }
            Err(error) => {
                self.complain(&error);
                None
            }
        }
    }

    fn bundle(&mut self, config_map: ConfigMap) -> Option<Bundle> {
        let id = id(&config_map)?;
        let binary_keys = config_map.binary_data.unwrap_or_default().into_keys().collect();
        let data = config_map.data.unwrap_or_default();
        Some(Bundle::of_seccomp(id, data, binary_keys, &mut self.verdicts))
    }

    fn complain(&self, error: &watcher::Error) {
        let advice = watch_advice(error, "list and watch ConfigMaps in this namespace");
        warn!(namespace = %self.namespace, error = watch_said(error), advice, "Bundles can't be watched");
    }
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
    use profiles::bundle::Profile;
    use profiles::platform::{Architecture, Kernel};

    use super::*;

    const PLATFORM: Platform =
        Platform { architecture: Architecture::Amd64, kernel: Kernel { major: 6, minor: 12 } };

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
        let mut listing = Listing::new(Namespace::new("ns").unwrap(), PLATFORM);
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
    fn a_bundle_that_is_listed_again_is_not_judged_again() {
        use watcher::Event::{Init, InitApply, InitDone};
        let mut listing = Listing::new(Namespace::new("ns").unwrap(), PLATFORM);
        let data = [("a".to_owned(), r#"{"defaultAction":"SCMP_ACT_LOG"}"#.to_owned())].into();
        let config_map = ConfigMap { data: Some(data), ..config_map("b") };
        let lists = [Init, InitApply(config_map.clone()), InitDone, Init, InitApply(config_map), InitDone];
        let lists: Vec<Event> = lists.into_iter().filter_map(|event| listing.take(Ok(event))).collect();
        let content = |event: &Event| match event {
            Event::Listed { bundles, .. } => match bundles[0].profiles.values().next() {
                Some(Profile::Accepted(document, _)) => document.content().as_ptr(),
                other => panic!("{other:?} is no accepted profile"),
            },
            other => panic!("{other:?} is no list"),
        };
        assert_eq!(lists.len(), 2);
        assert_eq!(content(&lists[0]), content(&lists[1]), "the content was judged, and stored, twice");
    }

    #[test]
    fn a_list_that_breaks_off_is_dropped() {
        use watcher::Event::{Init, InitApply, InitDone};
        check(vec![Init, InitApply(config_map("a")), Init, InitApply(config_map("b")), InitDone], &["=b"]);
    }
}
