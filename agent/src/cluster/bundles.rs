//! Bundles, as they are seen.
//!
//! Invariant: a namespace is never [`Seen::Listed`] with less than all that is in it: a list that breaks off
//! halfway is dropped.

use std::collections::BTreeSet;

use futures::{Stream, StreamExt, future};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use profiles::bundle::{Bundle, BundleId, KIND_LABEL, Kind, Source};
use profiles::catalog::asking::Judged;
use profiles::name::Namespace;
use profiles::platform::Platform;
use profiles::state::Event;
use profiles::verdicts::Verdicts;
use tracing::warn;

use super::{Connection, watch_advice, watch_said};

/// What makes a ConfigMap a bundle of some [`Kind`].
fn selector() -> String {
    format!("{KIND_LABEL} in ({})", Kind::ALL.map(Kind::as_str).join(","))
}

/// What is seen in one namespace. `T` is what is made of a ConfigMap.
#[derive(Debug)]
pub(crate) enum Seen<T> {
    /// All that is there.
    Listed(Namespace, Vec<T>),
    /// One that is new, or has changed.
    Applied(T),
    /// One that is gone, or is not selected any more.
    Deleted(BundleId),
}

impl From<Seen<Bundle>> for Event {
    fn from(seen: Seen<Bundle>) -> Self {
        match seen {
            Seen::Listed(namespace, bundles) => Self::Listed { namespace, bundles },
            Seen::Applied(bundle) => Self::Applied(bundle),
            Seen::Deleted(id) => Self::Deleted(id),
        }
    }
}

/// What makes something of each ConfigMap.
trait Judge {
    type Judged;

    fn judge(&mut self, source: Source) -> Self::Judged;

    /// These are all that there are.
    fn listed(&mut self, _: &[Self::Judged]) {}

    /// One is gone.
    fn deleted(&mut self, _: &BundleId) {}
}

impl Judge for Verdicts {
    type Judged = Bundle;

    fn judge(&mut self, source: Source) -> Bundle {
        Bundle::of(source, self)
    }

    fn listed(&mut self, bundles: &[Bundle]) {
        self.retain(&bundles.iter().map(|bundle| &bundle.id).collect());
    }

    fn deleted(&mut self, id: &BundleId) {
        self.forget(id);
    }
}

impl Judge for BTreeSet<Platform> {
    type Judged = Judged;

    fn judge(&mut self, source: Source) -> Judged {
        Judged::of(&source, self)
    }
}

/// Watches the bundles of `namespace`, for ever, and judges them for a node of `platform`.
pub(crate) fn watch(
    client: Connection,
    namespace: Namespace,
    platform: Platform,
) -> impl Stream<Item = Event> {
    seen(client, namespace, &selector(), Verdicts::new(platform)).map(Event::from)
}

/// Watches all that is labelled as a bundle in `namespace`, whatever the label's value, for ever, and judges
/// it for `platforms`.
pub(crate) fn judged(
    client: Connection,
    namespace: Namespace,
    platforms: BTreeSet<Platform>,
) -> impl Stream<Item = Seen<Judged>> {
    seen(client, namespace, KIND_LABEL, platforms)
}

fn seen<J: Judge>(
    client: Connection,
    namespace: Namespace,
    selector: &str,
    judge: J,
) -> impl Stream<Item = Seen<J::Judged>> + use<J> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client.0, namespace.as_str());
    let config = watcher::Config::default().labels(selector).streaming_lists();
    let mut listing = Listing::new(namespace, judge);
    watcher(config_maps, config).default_backoff().filter_map(move |event| future::ready(listing.take(event)))
}

/// The bundles of a namespace, while they are being listed.
struct Listing<J: Judge> {
    namespace: Namespace,
    judge: J,
    bundles: Vec<J::Judged>,
}

impl<J: Judge> Listing<J> {
    fn new(namespace: Namespace, judge: J) -> Self {
        Self { namespace, judge, bundles: Vec::new() }
    }

    fn take(&mut self, event: watcher::Result<watcher::Event<ConfigMap>>) -> Option<Seen<J::Judged>> {
        match event {
            Ok(watcher::Event::Init) => {
                self.bundles.clear();
                None
            }
            Ok(watcher::Event::InitApply(config_map)) => {
                self.bundles.extend(source(config_map).map(|source| self.judge.judge(source)));
                None
            }
            Ok(watcher::Event::InitDone) => {
                let bundles = std::mem::take(&mut self.bundles);
                self.judge.listed(&bundles);
                Some(Seen::Listed(self.namespace.clone(), bundles))
            }
            Ok(watcher::Event::Apply(config_map)) => {
                source(config_map).map(|source| Seen::Applied(self.judge.judge(source)))
            }
            Ok(watcher::Event::Delete(config_map)) => {
                let id = id(&config_map)?;
                self.judge.deleted(&id);
                Some(Seen::Deleted(id))
            }
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

pub(super) fn source(config_map: ConfigMap) -> Option<Source> {
    let id = id(&config_map)?;
    let ConfigMap { metadata, data, binary_data, .. } = config_map;
    Some(Source {
        id,
        uid: metadata.uid.unwrap_or_default(),
        kind: metadata.labels.unwrap_or_default().remove(KIND_LABEL).unwrap_or_default(),
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
    use profiles::bundle::Profile;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::script::{self, Exchange};
    use crate::examples::PLATFORM;

    fn config_map(name: &str) -> ConfigMap {
        let metadata = ObjectMeta {
            namespace: Some("ns".to_owned()),
            name: Some(name.to_owned()),
            labels: Some([(KIND_LABEL.to_owned(), Kind::Seccomp.to_string())].into()),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    fn shown(event: &Event) -> String {
        match event {
            Event::Listed { bundles, .. } => {
                let names: Vec<&str> = bundles.iter().map(|bundle| bundle.id.name.as_str()).collect();
                format!("={}", names.join(","))
            }
            Event::Applied(bundle) => format!("+{}", bundle.id.name),
            Event::Deleted(id) => format!("-{}", id.name),
            other => panic!("{other:?} is no event of bundles"),
        }
    }

    /// Claims what comes out of `events`: `=` a list, `+` a change, `-` a removal, each with its bundles'
    /// names.
    fn check(events: Vec<watcher::Event<ConfigMap>>, expected: &[&str]) {
        let mut listing = Listing::new(Namespace::new("ns").unwrap(), Verdicts::new(PLATFORM));
        let seen: Vec<String> = events
            .into_iter()
            .filter_map(|event| listing.take(Ok(event)))
            .map(|seen| shown(&seen.into()))
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn all_that_matters_of_a_config_map_is_passed_on() {
        let config_map: ConfigMap = serde_json::from_value(json!({
            "metadata": {
                "namespace": "ns",
                "name": "web",
                "uid": "u",
                "labels": {"pavise.dev/profiles": "secomp"},
                "creationTimestamp": "1970-01-02T00:00:01Z",
                "annotations": {"pavise.dev/node-selector": "pool=canary"},
            },
            "data": {"a.json": "{}"},
            "binaryData": {"b.json": ""},
        }))
        .unwrap();
        let source = source(config_map).unwrap();
        assert_eq!(source.id, BundleId::new("ns", "web").unwrap());
        assert_eq!((source.uid.as_str(), source.kind.as_str()), ("u", "secomp"));
        assert_eq!(source.created, Some(86_401));
        assert_eq!(
            source.annotations,
            [("pavise.dev/node-selector".to_owned(), "pool=canary".to_owned())].into()
        );
        assert_eq!(source.data, [("a.json".to_owned(), "{}".to_owned())].into());
        assert_eq!(source.binary_keys, ["b.json"]);
    }

    #[test]
    fn bundles_of_all_kinds_are_watched() {
        assert_eq!(selector(), "pavise.dev/profiles in (apparmor,seccomp)");
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
        let mut listing = Listing::new(Namespace::new("ns").unwrap(), Verdicts::new(PLATFORM));
        let data = [("a".to_owned(), r#"{"defaultAction":"SCMP_ACT_LOG"}"#.to_owned())].into();
        let config_map = ConfigMap { data: Some(data), ..config_map("b") };
        let lists = [Init, InitApply(config_map.clone()), InitDone, Init, InitApply(config_map), InitDone];
        let lists: Vec<Event> =
            lists.into_iter().filter_map(|event| listing.take(Ok(event))).map(Event::from).collect();
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

    /// A line of a watch.
    fn line(kind: &str, name: &str, version: u32) -> Value {
        let metadata = json!({"namespace": "ns", "name": name, "resourceVersion": version.to_string()});
        json!({"type": kind, "object": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}})
    }

    /// The line with which the list that a watch begins with ends.
    fn end_of_list(version: u32) -> Value {
        let mut line = line("BOOKMARK", "", version);
        line["object"]["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        line
    }

    /// With this, and not with a refusal, the API server says that a watch wants to go on from too long ago.
    fn expired() -> Value {
        let status = json!({"status": "Failure", "message": "too old", "reason": "Expired", "code": 410});
        json!({"type": "ERROR", "object": status})
    }

    /// Claims which bundles are listed, changed and deleted, in the form of [`check`], when the API server
    /// answers so.
    async fn check_watch(script: Vec<Exchange>, expected: &[&str]) {
        let events = watch(script::client(script), Namespace::new("ns").unwrap(), PLATFORM);
        let events = events.map(|event| shown(&event));
        let seen: Vec<String> = events.take(expected.len()).collect().await;
        assert_eq!(seen, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_ends_goes_on_where_it_was() {
        let list = vec![line("ADDED", "a", 3), end_of_list(5), line("ADDED", "b", 6)];
        let more = vec![line("DELETED", "a", 7)];
        check_watch(
            vec![
                Exchange { asked: "sendInitialEvents=true", status: 200, answer: list },
                Exchange { asked: "resourceVersion=6", status: 200, answer: more },
                Exchange { asked: "resourceVersion=7", status: 200, answer: vec![line("ADDED", "c", 8)] },
            ],
            &["=a", "+b", "-a", "+c"],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_expired_lists_again_and_misses_nothing() {
        let list = || vec![line("ADDED", "a", 3), line("ADDED", "b", 4), end_of_list(5)];
        check_watch(
            vec![
                Exchange { asked: "sendInitialEvents=true", status: 200, answer: list() },
                Exchange { asked: "resourceVersion=5", status: 200, answer: vec![expired()] },
                Exchange {
                    asked: "sendInitialEvents=true",
                    status: 200,
                    answer: vec![line("ADDED", "b", 4), line("ADDED", "c", 90), end_of_list(91)],
                },
            ],
            &["=a,b", "=b,c"],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_comes_back_is_asked_again() {
        let away = || Exchange { asked: "sendInitialEvents=true", status: 503, answer: Vec::new() };
        let list = vec![line("ADDED", "a", 3), end_of_list(5)];
        let half_a_list = vec![line("ADDED", "z", 2)];
        check_watch(
            vec![
                away(),
                Exchange { asked: "sendInitialEvents=true", status: 200, answer: half_a_list },
                away(),
                Exchange { asked: "sendInitialEvents=true", status: 200, answer: list },
            ],
            &["=a"],
        )
        .await;
    }
}
