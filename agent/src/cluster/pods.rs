//! The pods of our own Node: which profiles they ask for, what they select on, and which containers run.
//!
//! Invariant: of a pod nothing is decoded but its metadata and what makes a [`Pod`], and no more is kept than
//! that, which is bounded. A list that breaks off halfway is dropped: a pod that is left out of
//! [`Event::PodsListed`] does not exist, or has ended.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use futures::{Stream, StreamExt, future};
use k8s_openapi::api::core::v1;
use kube::Api;
use kube::api::{ApiResource, ObjectMeta};
use kube::core::Object;
use kube::runtime::{WatchStreamExt, watcher};
use profiles::name::NodeName;
use profiles::pod::{self, Pod, PodId};
use profiles::state::Event;
use tracing::warn;

use super::{Connection, watch_advice, watch_said};

const PERMISSION: &str = "list and watch Pods";

/// So many pods are told that the kubelet refused for want of AppArmor: each says what all say. Who replicates
/// pods has others made instead, one after the other, and the controller manager lets 12,500 stand
/// (`--terminated-pod-gc-threshold`).
const MOST_REFUSED: usize = 100;

type Seen = Object<pod::Spec, pod::Status>;
type Pods = BTreeMap<PodId, Pod>;

/// Watches the pods of `node`, for ever.
pub(crate) fn watch(client: Connection, node: &NodeName) -> impl Stream<Item = Event> + use<> {
    let pods: Api<Seen> = Api::all_with(client.0, &ApiResource::erase::<v1::Pod>(&()));
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}")).streaming_lists();
    let mut sighting = Sighting::default();
    watcher(pods, config).default_backoff().filter_map(move |event| future::ready(sighting.take(event)))
}

/// What was seen of the pods.
#[derive(Default)]
struct Sighting {
    /// What is being listed.
    listing: Pods,
    /// What was told last. Of the many reports of a pod's state, few are news of what matters.
    told: BTreeMap<PodId, Told>,
    hasher: RandomState,
}

/// A pod that was told.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Told {
    /// Of all that was told of it.
    digest: u64,
    has_ended: bool,
}

impl Sighting {
    fn take(&mut self, event: watcher::Result<watcher::Event<Seen>>) -> Option<Event> {
        match event {
            Ok(watcher::Event::Init) => {
                self.listing.clear();
                None
            }
            Ok(watcher::Event::InitApply(seen)) => {
                let (pod, id) = (pod(&seen), id(seen.metadata));
                let ended = self.listing.iter().filter(|(other, pod)| pod.has_ended && **other != id);
                if matters(&pod) && has_room(ended.count(), &pod) {
                    self.listing.insert(id, pod);
                }
                None
            }
            Ok(watcher::Event::InitDone) => {
                let pods = std::mem::take(&mut self.listing);
                self.told = pods.iter().map(|(id, pod)| (id.clone(), self.told_of(pod))).collect();
                Some(Event::PodsListed(pods))
            }
            Ok(watcher::Event::Apply(seen)) => {
                let pod = pod(&seen);
                self.applied(id(seen.metadata), pod)
            }
            Ok(watcher::Event::Delete(seen)) => self.deleted(id(seen.metadata)),
            Err(error) => {
                let advice = watch_advice(&error, PERMISSION);
                warn!(error = watch_said(&error), advice, "Pods can't be watched");
                None
            }
        }
    }

    /// A pod is this now. One that does not matter is as good as none.
    fn applied(&mut self, id: PodId, pod: Pod) -> Option<Event> {
        let ended = self.told.iter().filter(|(other, told)| told.has_ended && **other != id);
        if !matters(&pod) || !has_room(ended.count(), &pod) {
            return self.deleted(id);
        }
        let told = self.told_of(&pod);
        let before = self.told.insert(id.clone(), told);
        (before != Some(told)).then_some(Event::PodApplied(id, pod))
    }

    fn told_of(&self, pod: &Pod) -> Told {
        Told { digest: self.hasher.hash_one(pod), has_ended: pod.has_ended }
    }

    fn deleted(&mut self, id: PodId) -> Option<Event> {
        self.told.remove(&id).map(|_| Event::PodDeleted(id))
    }
}

/// Whether there is something to be done about `pod`, or to be said: one that has ended is as good as gone,
/// but for those that the kubelet refused for want of AppArmor.
fn matters(pod: &Pod) -> bool {
    !pod.has_ended || pod.is_rejected
}

/// Whether `pod` is to be told, beside so many others that have ended.
fn has_room(ended: usize, pod: &Pod) -> bool {
    !pod.has_ended || ended < MOST_REFUSED
}

fn pod(seen: &Seen) -> Pod {
    let none = BTreeMap::new();
    let annotations = seen.metadata.annotations.as_ref().unwrap_or(&none);
    Pod::of(annotations, &seen.spec, seen.status.as_ref())
}

fn id(metadata: ObjectMeta) -> PodId {
    PodId {
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use profiles::pod::Asked;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::script::{self, Exchange, end_of_pods, line};

    /// A pod as the API server writes it: much of it does not matter here.
    fn pod(name: &str, profile: &str, phase: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": "ns",
                "name": name,
                "uid": format!("uid-of-{name}"),
                "resourceVersion": "1",
                "labels": {"app": "web"},
                "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {
                "nodeName": "n1",
                "volumes": [{"name": "v", "emptyDir": {}}],
                "securityContext": {"fsGroup": 7, "fieldFromTheFuture": {"a": [1]}},
                "containers": [{
                    "name": "c",
                    "image": "busybox",
                    "securityContext": {
                        "capabilities": {"drop": ["ALL"]},
                        "appArmorProfile": {"type": "Localhost", "localhostProfile": profile},
                    },
                }],
            },
            "status": {"phase": phase, "containerStatuses": [{"name": "c", "restartCount": 3}]},
        })
    }

    /// A pod that refers to nothing.
    fn plain(name: &str) -> Value {
        let mut pod = pod(name, "", "Running");
        pod["spec"]["containers"][0].as_object_mut().unwrap().remove("securityContext");
        pod
    }

    fn decoded(pod: Value) -> Seen {
        serde_json::from_value(pod).unwrap()
    }

    /// That of the [`pod`] which has this identity.
    fn name(id: &PodId) -> &str {
        assert_eq!(id.namespace, "ns");
        id.uid.strip_prefix("uid-of-").unwrap()
    }

    fn shown(event: &Event) -> String {
        let with = |(id, pod): (&PodId, &Pod)| {
            let references = pod.containers.iter().filter_map(|container| match &container.apparmor {
                Asked::Localhost(reference) => Some(reference.as_str()),
                _ => None,
            });
            let references: BTreeSet<&str> = references.collect();
            let runs = if pod.containers.iter().any(|one| one.running.is_some()) { "!" } else { "" };
            format!("{}:{}{runs}", name(id), references.into_iter().collect::<Vec<_>>().join("|"))
        };
        match event {
            Event::PodsListed(pods) => {
                let pods: Vec<String> = pods.iter().map(with).collect();
                format!("={}", pods.join(","))
            }
            Event::PodApplied(id, pod) => format!("+{}", with((id, pod))),
            Event::PodDeleted(id) => format!("-{}", name(id)),
            other => panic!("{other:?} is no event of pods"),
        }
    }

    /// Claims what comes out of `events`: `=` a list, `+` a change, `-` a removal, each with its pods' names
    /// and references, and `!` if a container runs.
    fn check(events: Vec<watcher::Event<Value>>, expected: &[&str]) {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let mut sighting = Sighting::default();
        let mut take = |event| {
            sighting.take(Ok(match event {
                Init => Init,
                InitApply(pod) => InitApply(decoded(pod)),
                InitDone => InitDone,
                Apply(pod) => Apply(decoded(pod)),
                Delete(pod) => Delete(decoded(pod)),
            }))
        };
        let seen: Vec<String> = events.into_iter().filter_map(&mut take).map(|event| shown(&event)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_list_is_told_when_it_is_complete_with_all_pods_that_have_not_ended() {
        use watcher::Event::{Init, InitApply, InitDone};
        let list = vec![
            Init,
            InitApply(pod("a", "p", "Running")),
            InitApply(plain("b")),
            InitApply(pod("c", "p", "Succeeded")),
            InitApply(pod("d", "q", "Pending")),
            InitDone,
        ];
        check(list, &["=a:p,b:,d:q"]);
        check(vec![Init, InitDone], &["="]);
    }

    #[test]
    fn a_list_that_breaks_off_is_dropped() {
        use watcher::Event::{Init, InitApply, InitDone};
        let [a, b] = ["a", "b"].map(|name| InitApply(pod(name, "p", "Running")));
        check(vec![Init, a, Init, b, InitDone], &["=b:p"]);
    }

    #[test]
    fn what_is_no_news_is_not_told() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let [pending, mut running, failed] =
            ["Pending", "Running", "Failed"].map(|phase| pod("a", "p", phase));
        let status = json!([{"name": "c", "containerID": "containerd://c1", "state": {"running": {"startedAt": "x"}}}]);
        running["status"]["containerStatuses"] = status;
        let mut ready = running.clone();
        ready["status"]["containerStatuses"][0]["ready"] = json!(true);
        ready["status"]["conditions"] = json!([{"type": "Ready"}]);
        let mut debugged = running.clone();
        debugged["spec"]["ephemeralContainers"] = json!([{"name": "e", "securityContext":
            {"appArmorProfile": {"type": "Localhost", "localhostProfile": "debug"}}}]);
        let events = vec![
            Init,
            InitApply(pod("z", "p", "Running")),
            InitDone,
            Apply(pod("z", "p", "Running")),
            Apply(plain("b")),
            Delete(plain("b")),
            Apply(pending.clone()),
            Apply(pending),
            Apply(running.clone()),
            Apply(ready),
            Apply(debugged.clone()),
            Apply(debugged),
            Apply(failed.clone()),
            Apply(failed.clone()),
            Delete(failed),
            Delete(pod("z", "p", "Running")),
        ];
        check(events, &["=z:p", "+b:", "-b", "+a:p", "+a:p!", "+a:debug|p!", "-a", "-z"]);
    }

    #[test]
    fn a_pod_that_was_refused_for_apparmor_is_told_although_it_has_ended() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let mut refused = pod("a", "p", "Failed");
        refused["status"]["reason"] = json!("AppArmor");
        check(
            vec![Init, InitApply(refused.clone()), InitDone, Apply(refused.clone()), Delete(refused.clone())],
            &["=a:p", "-a"],
        );
        check(vec![Apply(pod("a", "p", "Pending")), Apply(refused)], &["+a:p", "+a:p"]);
    }

    #[test]
    fn of_pods_that_were_refused_no_more_are_told_than_anybody_reads() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let seen = |number: usize, reason: &str| {
            let mut pod =
                pod(&format!("p{number:03}"), "p", if reason.is_empty() { "Pending" } else { "Failed" });
            pod["status"]["reason"] = json!(reason);
            decoded(pod)
        };
        let mut sighting = Sighting::default();
        let mut take = |event| sighting.take(Ok(event)).map(|event| shown(&event));
        take(Init);
        for number in 0..MOST_REFUSED + 10 {
            take(InitApply(seen(number, "AppArmor")));
        }
        take(InitApply(seen(999, "")));
        let listed = take(InitDone).unwrap();
        assert_eq!(listed.matches("p0").count(), MOST_REFUSED);
        assert!(listed.ends_with(",p999:p"), "{listed}");
        assert_eq!(take(Apply(seen(998, "AppArmor"))), None);
        assert_eq!(take(Apply(seen(999, "AppArmor"))).as_deref(), Some("-p999"));
        assert_eq!(take(Delete(seen(0, "AppArmor"))).as_deref(), Some("-p000"));
        assert_eq!(take(Apply(seen(998, "AppArmor"))).as_deref(), Some("+p998:p"));
    }

    #[test]
    fn a_pod_that_is_made_anew_is_another_one() {
        use watcher::Event::{Apply, Delete};
        let mut sighting = Sighting::default();
        let old = decoded(pod("a", "p", "Running"));
        let mut new = decoded(pod("a", "p", "Running"));
        new.metadata.uid = Some("other".to_owned());
        let uid = |event: Option<Event>| match event {
            Some(Event::PodApplied(id, _) | Event::PodDeleted(id)) => Some(id.uid),
            _ => None,
        };
        assert_eq!(uid(sighting.take(Ok(Apply(old.clone())))).as_deref(), Some("uid-of-a"));
        assert_eq!(uid(sighting.take(Ok(Apply(new)))).as_deref(), Some("other"));
        assert_eq!(uid(sighting.take(Ok(Delete(old)))).as_deref(), Some("uid-of-a"));
    }

    #[test]
    fn what_a_pod_has_besides_is_not_decoded() {
        let odd = json!({
            "metadata": {"name": "a", "namespace": "ns", "uid": "uid-of-a"},
            "spec": {"containers": null, "initContainers": [{}], "securityContext": null, "volumes": 7},
            "status": {"phase": "Running", "conditions": "none"},
        });
        let containers = |pod: Value| super::pod(&decoded(pod)).containers.len();
        assert_eq!(containers(odd), 1);
        assert_eq!(containers(json!({"metadata": {}, "spec": {}})), 0);
    }

    /// With this the API server says that a watch wants to go on from too long ago.
    fn expired() -> Value {
        let status = json!({"status": "Failure", "message": "too old", "reason": "Expired", "code": 410});
        json!({"type": "ERROR", "object": status})
    }

    const LIST: &str = "/api/v1/pods?&watch=true&timeoutSeconds=290&fieldSelector=spec.nodeName%3Dn1";

    /// Claims what is told of pods, in the form of [`check`], when the API server answers so.
    async fn check_watch(script: Vec<Exchange>, expected: &[&str]) {
        let events = watch(script::client(script), &NodeName::new("n1").unwrap());
        let seen: Vec<String> = events.map(|event| shown(&event)).take(expected.len()).collect().await;
        assert_eq!(seen, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn pods_of_the_own_node_are_asked_for_and_a_watch_that_ends_goes_on_where_it_was() {
        let list =
            vec![line("ADDED", pod("a", "p", "Running"), 3), line("ADDED", plain("b"), 4), end_of_pods(5)];
        let more = vec![
            line("ADDED", pod("c", "q", "Pending"), 6),
            line("MODIFIED", pod("a", "p", "Succeeded"), 7),
            line("DELETED", plain("b"), 8),
        ];
        let rest =
            vec![line("MODIFIED", pod("c", "q", "Running"), 9), line("DELETED", pod("c", "q", ""), 10)];
        check_watch(
            vec![
                Exchange { asked: LIST, status: 200, answer: list },
                Exchange { asked: "resourceVersion=5", status: 200, answer: more },
                Exchange { asked: "resourceVersion=8", status: 200, answer: rest },
            ],
            &["=a:p,b:", "+c:q", "-a", "-b", "-c"],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_expired_lists_again_and_misses_nothing() {
        let list = vec![
            line("ADDED", pod("a", "p", "Running"), 3),
            line("ADDED", pod("b", "q", "Running"), 4),
            end_of_pods(5),
        ];
        let anew = vec![line("ADDED", pod("b", "r", "Running"), 90), end_of_pods(91)];
        check_watch(
            vec![
                Exchange { asked: "sendInitialEvents=true", status: 200, answer: list },
                Exchange { asked: "resourceVersion=5", status: 200, answer: vec![expired()] },
                Exchange { asked: "sendInitialEvents=true", status: 200, answer: anew },
            ],
            &["=a:p,b:q", "=b:r"],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_may_not_watch_pods_tells_nothing_until_it_may() {
        let refused = || Exchange { asked: "sendInitialEvents=true", status: 403, answer: Vec::new() };
        let half_a_list = vec![line("ADDED", pod("z", "p", "Running"), 2)];
        let list = vec![line("ADDED", pod("a", "p", "Running"), 3), end_of_pods(5)];
        check_watch(
            vec![
                refused(),
                Exchange { asked: "sendInitialEvents=true", status: 200, answer: half_a_list },
                refused(),
                Exchange { asked: "sendInitialEvents=true", status: 200, answer: list },
            ],
            &["=a:p"],
        )
        .await;
    }
}
