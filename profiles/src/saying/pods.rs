//! What there is to say about the node's pods.
//!
//! Invariants: a container is spoken of once for each kind of profiles, and a pod nine times at most. A pod
//! that is gone, or whose containers have all ended, is not spoken of any more, unless something is still
//! wrong with it: nothing of it was put right. Nor is anything by a container's crash: one that ran without
//! its profile is taken to do so until it runs again.

use std::collections::{BTreeMap, BTreeSet};

use super::{Review, Saying};
use crate::bundle::Kind;
use crate::check::{PodChecks, PodFinding, PodReason, ReferenceState};
use crate::pod::{Container, ContainerKind, Pod, PodId};
use crate::state::State;
use crate::statement::{LONGEST_NOTE, Reason, Statement, Subject, cut};
use crate::time::Time;

/// How many problems of one pod are spoken of by themselves. What is listed below a pod is read by a person.
const MOST_STATEMENTS: usize = 8;

impl Saying {
    /// Takes over what is wrong with the pods that `state` knows, by its `checks`.
    pub fn pods(&mut self, state: &State, checks: &PodChecks, now: Time) {
        let Some(pods) = state.pods.all() else { return };
        let crashed = self.crashed(pods, checks);
        let mut wrong: BTreeMap<&PodId, Vec<&PodFinding>> = BTreeMap::new();
        for finding in checks.findings.iter().chain(&crashed).filter(|finding| finding.reason.is_event()) {
            wrong.entry(&finding.pod).or_default().push(finding);
        }
        let is_spoken_of = |id: &PodId| {
            let pod = pods.get(id);
            pod.is_some_and(|pod| !pod.has_ended || wrong.contains_key(id))
        };
        self.subjects.retain(|subject, known| is_spoken_of(&id_of(subject, &known.uid)));

        let is_pending = checks.references.keys().any(|(_, state)| *state == ReferenceState::Pending);
        let is_known = !checks.references.is_empty();
        // What is wrong before all is known for the first time may have been said before a restart.
        let is_news = self.are_pods_known;
        self.are_pods_known |= is_known && !is_pending;

        let is_right = |id: &PodId| !wrong.contains_key(id);
        let spoken_of = self.subjects.iter().map(|(subject, known)| id_of(subject, &known.uid));
        let right: Vec<PodId> = spoken_of.filter(is_right).collect();
        let is_complete = |id: &PodId| is_known && !checks.undecided.contains(id);
        let right = right.iter().map(|id| review(id, &[], is_complete(id)));
        let wrong = wrong.iter().filter(|(id, _)| is_spoken_of(id));
        let wrong = wrong.map(|(id, findings)| review(id, findings, is_complete(id)));
        for review in right.chain(wrong) {
            self.take(review, is_news, now);
        }
        if !self.retries.is_empty() {
            let namespaces: BTreeSet<&str> = self.subjects.keys().map(|one| one.namespace.as_str()).collect();
            self.retries.retain(|namespace, _| namespaces.contains(namespace.as_str()));
        }
        let found = checks.findings.iter().filter(|finding| finding.reason == PodReason::ProfileNotEnforced);
        self.unconfined = found.cloned().chain(crashed).collect();
    }

    /// What was wrong with containers when they last ran, of those that do not run now, may do so again, and
    /// of which nothing else is known.
    fn crashed(&mut self, pods: &BTreeMap<PodId, Pod>, checks: &PodChecks) -> Vec<PodFinding> {
        let is_down = |finding: &PodFinding| {
            let pod = pods.get(&finding.pod).filter(|pod| !pod.has_ended);
            pod.is_some_and(|Pod { containers, .. }| {
                let is_it = |container: &&Container| container.name == finding.container;
                let container = containers.iter().find(is_it);
                container.is_some_and(|one| one.running.is_none() && one.kind != ContainerKind::Init)
            })
        };
        let mut crashed = std::mem::take(&mut self.unconfined);
        crashed.retain(is_down);
        if crashed.is_empty() {
            return crashed;
        }
        // Pods decide how many there are of each, so they are not compared one by one.
        let known: BTreeSet<_> = checks.findings.iter().map(place).collect();
        crashed.retain(|finding| !known.contains(&place(finding)));
        crashed
    }
}

/// Of whom a finding is, and about which kind of profiles.
fn place(finding: &PodFinding) -> (&PodId, &str, Kind) {
    (&finding.pod, &finding.container, finding.kind)
}

fn id_of(Subject { namespace, name, .. }: &Subject, uid: &str) -> PodId {
    PodId { namespace: namespace.clone(), name: name.clone(), uid: uid.to_owned() }
}

/// What there is to say about one pod.
fn review(id: &PodId, findings: &[&PodFinding], is_complete: bool) -> Review {
    let subject = Subject::from(id);
    let statement = |field, reason, note| Statement {
        subject: subject.clone(),
        uid: id.uid.clone(),
        field,
        reason,
        note,
    };
    let mut of_containers: BTreeMap<(&str, Kind), Vec<&PodFinding>> = BTreeMap::new();
    for finding in findings {
        of_containers.entry((&finding.container, finding.kind)).or_default().push(finding);
    }
    let said = of_containers.into_values().filter_map(|mut findings| {
        findings.sort_by_key(|finding| finding.reason);
        let worst = *findings.first()?;
        let messages: Vec<&str> = findings.iter().map(|finding| finding.message.as_str()).collect();
        let note = format!("container {}: {}", worst.container, messages.join("; "));
        Some(statement(Some(field(worst)), Reason::OfPod(worst.reason), cut(&note, LONGEST_NOTE)))
    });
    let mut statements: Vec<Statement> = said.collect();
    statements.sort_by_key(|statement| statement.reason);
    if statements.len() > MOST_STATEMENTS {
        let rest = statements.split_off(MOST_STATEMENTS).len();
        let note = format!(
            "at least {rest} more profiles that its containers ask for have problems: see the report of its node"
        );
        statements.push(statement(None, Reason::MoreProblems, note));
    }
    Review { statements, uid: id.uid.clone(), is_complete, subject }
}

/// A container as the kubelet's own Events have it (`GenerateContainerRef` in pkg/kubelet/container/ref.go).
fn field(finding: &PodFinding) -> String {
    let list = match finding.container_kind {
        ContainerKind::Init | ContainerKind::Sidecar => "initContainers",
        ContainerKind::Regular => "containers",
        ContainerKind::Ephemeral => "ephemeralContainers",
    };
    format!("spec.{list}{{{}}}", finding.container)
}

#[cfg(test)]
mod tests;
