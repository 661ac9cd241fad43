//! Events on ConfigMaps: what `kubectl describe configmap` shows.
//!
//! Invariants: an Event is made once and afterwards nothing of it but its series is written, as the API
//! server wants it (`ValidateEventUpdate`). None is read but through the answer to a patch, so no permission
//! to read is needed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use profiles::catalog::{How, Outcome, Statement, Write};
use profiles::name::Namespace;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{advice, said};

/// How long the API server may take, after which nobody knows how the write ended.
const TIMEOUT: Duration = Duration::from_secs(10);
const PERMISSION: &str = "create and patch events.k8s.io in this namespace";
const FIELD_MANAGER: &str = "pavise-catalog";
const CONTROLLER: &str = "pavise.dev/catalog";
/// What was done when something was found.
const ACTION: &str = "Judge";
/// The longest `reportingInstance`, in bytes (`ReportingInstanceLengthLimit`).
const LONGEST_INSTANCE: usize = 128;

/// Writes Events.
pub(crate) struct Writer {
    client: Client,
    /// Who writes: the name of the pod.
    instance: String,
    /// Where writing failed and the log has said so, with the API server's code (0: it gave none).
    failing: RefCell<BTreeMap<Namespace, u16>>,
}

impl Writer {
    /// Writes as the pod `instance`.
    pub(crate) fn new(client: Client, instance: &str) -> Self {
        let instance = &instance[..instance.floor_char_boundary(LONGEST_INSTANCE)];
        Self { client, instance: instance.to_owned(), failing: RefCell::default() }
    }

    /// Writes, and says how that ended.
    pub(crate) async fn write(&self, write: &Write) -> Outcome {
        let namespace = &write.statement.bundle.namespace;
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace.as_str());
        let attempt = async {
            match write.how {
                How::First => self.create(&events, &write.statement).await,
                How::Again(count) => repeat(&events, &write.statement.name(), count).await,
            }
        };
        match tokio::time::timeout(TIMEOUT, attempt).await {
            Ok(Ok(outcome)) => {
                if self.failing.borrow_mut().remove(namespace).is_some() {
                    info!(%namespace, "Events can be written again");
                }
                outcome
            }
            Ok(Err(error)) => {
                self.complain(write, code(&error), &said(&error), &advice_on(&error));
                outcome_of(&error)
            }
            Err(_) => {
                self.complain(write, 0, &format!("no answer for {TIMEOUT:?}"), "trying again");
                Outcome::Failed
            }
        }
    }

    async fn create(&self, events: &Api<Event>, statement: &Statement) -> kube::Result<Outcome> {
        let event = event(statement, &self.instance, Timestamp::now());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match events.create(&params, &event).await {
            Ok(_) => {
                let Statement { bundle, reason, note, .. } = statement;
                info!(%bundle, reason = reason.as_str(), note, "Event written");
                Ok(Outcome::Said)
            }
            Err(error) if code(&error) == 409 => look(events, &statement.name()).await,
            Err(error) => Err(error),
        }
    }

    /// Once for each time that writing begins to fail in a namespace, or fails in another way.
    fn complain(&self, write: &Write, code: u16, error: &str, advice: &str) {
        let bundle = &write.statement.bundle;
        if self.failing.borrow_mut().insert(bundle.namespace.clone(), code) != Some(code) {
            let reason = write.statement.reason.as_str();
            warn!(%bundle, reason, error, advice, "Event can't be written");
        }
    }
}

/// How often the Event says that it was seen, and when the last time. A patch that changes nothing writes
/// nothing.
async fn look(events: &Api<Event>, name: &str) -> kube::Result<Outcome> {
    match events.patch(name, &params(), &Patch::Merge(json!({}))).await {
        Ok(event) => Ok(was_said(&event, Timestamp::now())),
        Err(error) if code(&error) == 404 => Ok(Outcome::Gone),
        Err(error) => Err(error),
    }
}

async fn repeat(events: &Api<Event>, name: &str, count: u32) -> kube::Result<Outcome> {
    match events.patch(name, &params(), &Patch::Merge(series(count, Timestamp::now()))).await {
        Ok(_) => Ok(Outcome::Said),
        Err(error) if code(&error) == 404 => Ok(Outcome::Gone),
        Err(error) => Err(error),
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

fn event(statement: &Statement, instance: &str, now: Timestamp) -> Event {
    let Statement { bundle, uid, field, reason, note } = statement;
    Event {
        metadata: ObjectMeta {
            namespace: Some(bundle.namespace.to_string()),
            name: Some(statement.name()),
            ..ObjectMeta::default()
        },
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("ConfigMap".to_owned()),
            namespace: Some(bundle.namespace.to_string()),
            name: Some(bundle.name.to_string()),
            uid: Some(uid.clone()),
            field_path: field.clone(),
            ..ObjectReference::default()
        }),
        type_: Some(if reason.is_problem() { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(reason.as_str().to_owned()),
        action: Some(ACTION.to_owned()),
        note: Some(note.clone()),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

fn series(count: u32, now: Timestamp) -> Value {
    json!({"series": {"count": count, "lastObservedTime": MicroTime(now)}})
}

fn was_said(event: &Event, now: Timestamp) -> Outcome {
    let count = event.series.as_ref().and_then(|series| u32::try_from(series.count).ok());
    let last = event.series.as_ref().map(|series| &series.last_observed_time).or(event.event_time.as_ref());
    // One from the future, by a clock that was put right since, was said just now.
    let ago = last.and_then(|last| Duration::try_from(now.duration_since(last.0)).ok());
    Outcome::WasSaid(count.unwrap_or(1), ago.unwrap_or_default())
}

/// What the API server answered; 0 if it did not.
fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// 400, 413 and 422: the API server, or a policy, does not take this one. All else is about the namespace or
/// the way there.
fn outcome_of(error: &kube::Error) -> Outcome {
    if matches!(code(error), 400 | 413 | 422) { Outcome::Refused } else { Outcome::Failed }
}

fn advice_on(error: &kube::Error) -> String {
    // The admission plugin `NamespaceLifecycle` answers with 403 while a namespace goes, and with 404 when it
    // is gone.
    let is_going =
        matches!(error, kube::Error::Api(status) if status.message.contains("is being terminated"));
    if is_going || code(error) == 404 {
        return "the namespace is going, or gone; take it out of --bundle-namespace if it stays away"
            .to_owned();
    }
    advice(error, PERMISSION)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use profiles::bundle::BundleId;
    use profiles::catalog::Reason;

    use super::*;

    fn statement(reason: Reason) -> Statement {
        Statement {
            bundle: BundleId::new("pavise-profiles", "web").unwrap(),
            uid: "0b7d".to_owned(),
            field: Some("data[nginx.json]".to_owned()),
            reason,
            note: "nginx.json is refused: …".to_owned(),
        }
    }

    fn refusal(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, "Because").with_code(code).boxed())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn an_event_has_what_the_api_server_wants_and_no_more() {
        let statement = statement(Reason::ProfileRefused);
        let json = serde_json::to_value(event(&statement, "pavise-catalog-1", at(0))).unwrap();
        let expected = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": "pavise-profiles", "name": statement.name()},
            "regarding": {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "namespace": "pavise-profiles",
                "name": "web",
                "uid": "0b7d",
                "fieldPath": "data[nginx.json]",
            },
            "type": "Warning",
            "reason": "ProfileRefused",
            "action": "Judge",
            "note": "nginx.json is refused: …",
            "eventTime": "2027-01-15T08:00:00.000000Z",
            "reportingController": "pavise.dev/catalog",
            "reportingInstance": "pavise-catalog-1",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn good_news_are_normal() {
        assert_eq!(event(&statement(Reason::ProfilesAccepted), "p", at(0)).type_.as_deref(), Some("Normal"));
    }

    #[test]
    fn a_repetition_writes_the_series_alone() {
        let expected = json!({"series": {"count": 3, "lastObservedTime": "2027-01-15T08:00:07.000000Z"}});
        assert_eq!(series(3, at(7)), expected);
    }

    #[test]
    fn what_an_event_says_of_itself_is_understood() {
        let mut said = event(&statement(Reason::ProfileFlaw), "p", at(0));
        assert_eq!(was_said(&said, at(60)), Outcome::WasSaid(1, Duration::from_mins(1)));
        assert_eq!(was_said(&said, at(-60)), Outcome::WasSaid(1, Duration::ZERO));
        said.series = serde_json::from_value(series(4, at(60))["series"].clone()).unwrap();
        assert_eq!(was_said(&said, at(90)), Outcome::WasSaid(4, Duration::from_secs(30)));
    }

    #[test]
    fn a_refusal_is_told_from_what_may_pass() {
        for (code, message, outcome, words) in [
            (422, "note: too long", Outcome::Refused, "create and patch events"),
            (403, "events is forbidden: User", Outcome::Failed, "create and patch events"),
            (
                403,
                "unable to create new content in namespace a because it is being terminated",
                Outcome::Failed,
                "is going",
            ),
            (404, "namespaces \"a\" not found", Outcome::Failed, "--bundle-namespace"),
            (500, "etcd is away", Outcome::Failed, "trying again"),
        ] {
            let error = refusal(code, message);
            assert_eq!(outcome_of(&error), outcome, "{code}");
            assert!(advice_on(&error).contains(words), "{}", advice_on(&error));
        }
    }
}
