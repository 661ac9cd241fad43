//! Events on ConfigMaps, by the catalog, and on pods, by the agents: what `kubectl describe` shows of either.
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
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use profiles::name::NodeName;
use profiles::saying::{How, Outcome, Write};
use profiles::statement::{Statement, Subject, SubjectKind};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{AGENT_MANAGER, CATALOG_MANAGER, Connection, advice, code, said};

/// How long the API server may take, after which nobody knows how the write ended.
const TIMEOUT: Duration = Duration::from_secs(10);
const PERMISSION: &str = "create and patch events.k8s.io in this namespace";
/// In so many namespaces at once, the log says only once that writing fails.
const MOST_FAILING: usize = 100;
/// The longest `reportingInstance`, in bytes (`ReportingInstanceLengthLimit`).
const LONGEST_INSTANCE: usize = 128;

/// Writes Events.
pub(crate) struct Writer {
    client: Connection,
    reporter: Reporter,
    /// Where writing failed and the log has said so, with the API server's code (0: it gave none): in
    /// [`MOST_FAILING`] namespaces at most, as one that is gone is not written to again.
    failing: RefCell<BTreeMap<String, u16>>,
}

/// Who says it.
struct Reporter {
    controller: &'static str,
    instance: String,
    /// What was done when something was found.
    action: &'static str,
    field_manager: &'static str,
}

impl Reporter {
    /// The catalog whose pod is `pod`. `pending.yaml` of `components/place` refuses what has another
    /// controller, action, or manager.
    fn catalog(pod: &str) -> Self {
        let (controller, action) = ("pavise.dev/catalog", "Judge");
        Self { controller, instance: instance(pod), action, field_manager: CATALOG_MANAGER }
    }

    /// The agent of `node`. `own-events.yaml` refuses what has another controller, instance, action, or
    /// manager.
    fn agent(node: &NodeName) -> Self {
        let (controller, action) = ("pavise.dev/agent", "Check");
        Self { controller, instance: instance(node.as_str()), action, field_manager: AGENT_MANAGER }
    }
}

fn instance(name: &str) -> String {
    name[..name.floor_char_boundary(LONGEST_INSTANCE)].to_owned()
}

impl Writer {
    /// Writes as the catalog whose pod is `pod`.
    pub(crate) fn of_catalog(client: Connection, pod: &str) -> Self {
        Self { client, reporter: Reporter::catalog(pod), failing: RefCell::default() }
    }

    /// Writes as the agent of `node`.
    pub(crate) fn of_agent(client: Connection, node: &NodeName) -> Self {
        Self { client, reporter: Reporter::agent(node), failing: RefCell::default() }
    }

    /// Writes, and says how that ended.
    pub(crate) async fn write(&self, write: &Write) -> Outcome {
        let namespace = &write.statement.subject.namespace;
        let events: Api<Event> = Api::namespaced(self.client.0.clone(), namespace);
        let attempt = async {
            match write.how {
                How::First => self.create(&events, &write.statement).await,
                How::Again(count) => self.repeat(&events, &write.statement.name(), count).await,
            }
        };
        match tokio::time::timeout(TIMEOUT, attempt).await {
            Ok(Ok(outcome)) => {
                if self.failing.borrow_mut().remove(namespace).is_some() {
                    info!(namespace, "Events can be written again");
                }
                outcome
            }
            Ok(Err(error)) => {
                self.complain(
                    write,
                    code(&error),
                    &said(&error),
                    &advice_on(&error, write.statement.subject.kind),
                );
                outcome_of(&error)
            }
            Err(_) => {
                self.complain(write, 0, &format!("no answer for {TIMEOUT:?}"), "trying again");
                Outcome::Failed
            }
        }
    }

    async fn create(&self, events: &Api<Event>, statement: &Statement) -> kube::Result<Outcome> {
        let event = event(statement, &self.reporter, Timestamp::now());
        let field_manager = Some(self.reporter.field_manager.to_owned());
        let params = PostParams { field_manager, ..PostParams::default() };
        match events.create(&params, &event).await {
            Ok(_) => {
                let Statement { subject, reason, note, .. } = statement;
                let (kind, reason) = (subject.kind.as_str(), reason.as_str());
                info!(kind, object = %subject, reason, note, "Event written");
                Ok(Outcome::Said)
            }
            Err(error) if code(&error) == 409 => self.look(events, &statement.name()).await,
            Err(error) => Err(error),
        }
    }

    /// How often the Event says that it was seen, and when the last time. A patch that changes nothing writes
    /// nothing.
    async fn look(&self, events: &Api<Event>, name: &str) -> kube::Result<Outcome> {
        match events.patch(name, &self.params(), &Patch::Merge(json!({}))).await {
            Ok(event) => Ok(was_said(&event, Timestamp::now())),
            Err(error) if code(&error) == 404 => Ok(Outcome::Gone),
            Err(error) => Err(error),
        }
    }

    async fn repeat(&self, events: &Api<Event>, name: &str, count: u32) -> kube::Result<Outcome> {
        match events.patch(name, &self.params(), &Patch::Merge(series(count, Timestamp::now()))).await {
            Ok(_) => Ok(Outcome::Said),
            Err(error) if code(&error) == 404 => Ok(Outcome::Gone),
            Err(error) => Err(error),
        }
    }

    fn params(&self) -> PatchParams {
        let field_manager = Some(self.reporter.field_manager.to_owned());
        PatchParams { field_manager, ..PatchParams::default() }
    }

    /// Once for each time that writing begins to fail in a namespace, or fails in another way.
    fn complain(&self, write: &Write, code: u16, error: &str, advice: &str) {
        let Statement { subject, reason, .. } = &write.statement;
        let mut failing = self.failing.borrow_mut();
        if failing.len() >= MOST_FAILING && !failing.contains_key(&subject.namespace) {
            failing.pop_first();
        }
        if failing.insert(subject.namespace.clone(), code) != Some(code) {
            let (kind, reason) = (subject.kind.as_str(), reason.as_str());
            warn!(kind, object = %subject, reason, error, advice, "Event can't be written");
        }
    }
}

fn event(statement: &Statement, reporter: &Reporter, now: Timestamp) -> Event {
    let Statement { subject, uid, field, reason, note } = statement;
    let Subject { kind, namespace, name } = subject;
    Event {
        metadata: ObjectMeta {
            namespace: Some(namespace.clone()),
            name: Some(statement.name()),
            ..ObjectMeta::default()
        },
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(kind.as_str().to_owned()),
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            uid: Some(uid.clone()),
            field_path: field.clone(),
            ..ObjectReference::default()
        }),
        type_: Some(if reason.is_problem() { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(reason.as_str().to_owned()),
        action: Some(reporter.action.to_owned()),
        note: Some(note.clone()),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(reporter.controller.to_owned()),
        reporting_instance: Some(reporter.instance.clone()),
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

/// 400, 413 and 422: the API server, or a policy, does not take this one. All else is about the namespace or
/// the way there.
fn outcome_of(error: &kube::Error) -> Outcome {
    if matches!(code(error), 400 | 413 | 422) { Outcome::Refused } else { Outcome::Failed }
}

fn advice_on(error: &kube::Error, kind: SubjectKind) -> String {
    // The admission plugin `NamespaceLifecycle` answers with 403 while a namespace goes, and with 404 when it
    // is gone.
    let is_going =
        matches!(error, kube::Error::Api(status) if status.message.contains("is being terminated"));
    if !is_going && code(error) != 404 {
        return advice(error, PERMISSION);
    }
    let advice = match kind {
        SubjectKind::ConfigMap => "; if it stays away, no --bundle-namespace may name it",
        SubjectKind::Pod => "",
    };
    format!("the namespace is going, or gone{advice}")
}

#[cfg(test)]
mod tests;
