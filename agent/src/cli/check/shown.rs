//! The answer of `pavise check`, as text.
//!
//! Invariant: what is in the answer is in an order that follows from what was read, so that two answers can
//! be compared line by line; and nothing in it does something else to a terminal than to be seen.

use std::collections::BTreeMap;

use profiles::label::LABEL_VALUE;
use profiles::placement::{Placement, Resolution, Verdict, listed};
use profiles::pod::ContainerKind;
use serde_json::{Value, json};

use super::{Answer, Workload};

/// What a script reads.
pub(super) fn as_json(answer: &Answer<'_>) -> String {
    let workloads: Vec<Value> =
        answer.checked.iter().map(|(one, placement)| workload(one, placement)).collect();
    let counts: BTreeMap<&str, usize> =
        Verdict::ALL.into_iter().map(|verdict| (verdict.as_str(), answer.count(verdict))).collect();
    let value = json!({
        "workloads": workloads,
        "references": counts,
        "withoutReferences": answer.without,
        "otherObjects": answer.others,
    });
    format!("{value:#}\n")
}

fn workload(workload: &Workload, placement: &Placement<'_>) -> Value {
    let selector: BTreeMap<&str, &str> =
        placement.selector.iter().map(|label| (label.as_str(), LABEL_VALUE)).collect();
    let references: Vec<Value> = placement.references.iter().map(reference).collect();
    json!({
        "place": workload.place,
        "kind": workload.kind,
        "namespace": workload.namespace,
        "name": workload.name,
        "isFine": placement.is_fine(),
        "candidates": placement.candidates,
        "references": references,
        "nodeSelector": selector,
        "nodesWithAll": placement.together,
        "uncheckedContainers": placement.unchecked,
    })
}

fn reference(found: &Resolution<'_>) -> Value {
    json!({
        "container": found.container,
        "containerKind": found.container_kind.as_str(),
        "kind": found.kind.as_str(),
        "reference": found.reference,
        "verdict": found.verdict.as_str(),
        "nodes": found.on,
        "otherNodes": found.not_on,
        "why": found.why,
        "didYouMean": found.meant,
    })
}

/// What a person reads.
pub(super) fn for_people(answer: &Answer<'_>) -> String {
    let mut lines = Vec::new();
    for (workload, placement) in &answer.checked {
        lines.push(heading(workload));
        lines.extend(rows(placement));
        lines.extend(advice(workload, placement));
    }
    lines.push(answer.summary());
    if answer.count(Verdict::Missing) > 0 {
        lines.push(
            "Profiles that something else than Pavise put on nodes have no label, and count as missing."
                .to_owned(),
        );
    }
    text(lines)
}

/// `lines`, in which nothing does something else to a terminal than to be seen.
pub(super) fn text(lines: impl IntoIterator<Item = String>) -> String {
    let seen = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
    lines.into_iter().map(|line| line.chars().map(seen).chain(['\n']).collect::<String>()).collect()
}

impl Answer<'_> {
    fn count(&self, verdict: Verdict) -> usize {
        let all = self.checked.iter().flat_map(|(_, placement)| &placement.references);
        all.filter(|one| one.verdict == verdict).count()
    }

    fn summary(&self) -> String {
        let all: usize = self.checked.iter().map(|(_, placement)| placement.references.len()).sum();
        let counts = Verdict::ALL.into_iter().map(|verdict| (self.count(verdict), verdict.as_str()));
        let counts: Vec<String> =
            counts.filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        let of = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
        let beside = [(self.without, "without references"), (self.others, "of other kinds")];
        let beside = beside.into_iter().filter(|(count, _)| *count > 0);
        let beside: Vec<String> = beside.map(|(count, what)| format!("{count} {what}")).collect();
        let beside = if beside.is_empty() { String::new() } else { format!(" ({})", beside.join(", ")) };
        format!("{}{of}{beside}", counted(all, "reference"))
    }
}

fn heading(workload: &Workload) -> String {
    let Workload { place, kind, namespace, name, constraints, .. } = workload;
    let place = place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
    let namespace = namespace.as_ref().map(|one| format!(" (namespace {one})")).unwrap_or_default();
    let node = constraints.node_name().map(|name| format!(" on {name}")).unwrap_or_default();
    format!("{place}{}/{name}{namespace}{node}", kind.to_lowercase())
}

/// A line for each reference, in columns.
fn rows(placement: &Placement<'_>) -> Vec<String> {
    let of = |one: &Resolution<'_>| {
        let kind = match one.container_kind {
            ContainerKind::Regular => "container",
            kind => kind.as_str(),
        };
        [format!("{kind} {}", one.container), one.kind.to_string(), one.reference.clone()]
    };
    let columns: Vec<[String; 3]> = placement.references.iter().map(of).collect();
    let width = |index: usize| columns.iter().map(|row| row[index].chars().count()).max().unwrap_or_default();
    let widths = [0, 1, 2].map(width);
    let row = |(columns, found): (&[String; 3], &Resolution<'_>)| {
        let padded = columns.iter().zip(widths).map(|(text, width)| format!("  {text:width$}"));
        format!("{}  {}", padded.collect::<String>(), outcome(found, placement.candidates))
    };
    columns.iter().zip(&placement.references).map(row).collect()
}

fn outcome(found: &Resolution<'_>, candidates: usize) -> String {
    let Resolution { verdict, on, not_on, why, meant, .. } = found;
    let nodes = match (&on[..], &not_on[..]) {
        ([only], []) => format!("resolves on {only}"),
        (_, []) if candidates > 0 => format!("resolves on all {candidates} nodes"),
        ([], [only]) => format!("does not resolve on {only}"),
        ([], _) => "resolves on no node".to_owned(),
        (some, rest) if rest.len() < some.len() => {
            format!(
                "resolves on {} of {candidates} nodes, not on {}",
                some.len(),
                listed(rest.iter().copied())
            )
        }
        (some, _) => {
            format!("resolves on {} of {candidates} nodes: {}", some.len(), listed(some.iter().copied()))
        }
    };
    let meant = meant.as_ref().map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    match verdict {
        Verdict::Resolved => nodes,
        Verdict::Partly => format!("{nodes}; {why}"),
        Verdict::Missing => format!("{nodes}: {why}{meant}"),
        Verdict::Unknown => format!("can't be told: {why}"),
        Verdict::Ignored => format!("does not matter: {why}"),
    }
}

/// What to add to a workload, or why that would not help.
fn advice(workload: &Workload, placement: &Placement<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    if placement.is_torn() {
        lines.push("  no node has all of these: no nodeSelector helps".to_owned());
    }
    if !placement.selector.is_empty() {
        let nodes = listed(placement.together.iter().copied());
        lines.push(format!("  add to {}, for {nodes}:", workload.path));
        lines.push("    nodeSelector:".to_owned());
        lines.extend(placement.selector.iter().map(|label| format!("      {label}: {LABEL_VALUE:?}")));
    }
    if placement.unchecked > 0 {
        lines.push(format!("  {} were not looked at", counted(placement.unchecked, "more container")));
    }
    lines
}

pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use profiles::label::LABEL_VALUE;
    use profiles::name::Namespace;
    use profiles::placement::{Bundles, Cluster, Constraints, Node};
    use profiles::pod::{Asked, Container, Pod};

    use super::*;

    fn node(number: usize, label: &str) -> Node {
        let labels = [(format!("seccomp.pavise.dev/web_{label}"), LABEL_VALUE.to_owned())].into();
        Node::new(format!("n{number}"), labels)
    }

    fn container(name: &str, seccomp: Asked) -> Container {
        Container {
            name: name.to_owned(),
            kind: ContainerKind::Regular,
            is_privileged: false,
            seccomp,
            apparmor: Asked::Nothing,
            running: None,
        }
    }

    fn localhost(reference: &str) -> Asked {
        Asked::Localhost(reference.to_owned())
    }

    /// Claims what is said of a pod on nodes of which one has the profile `web/b`, and all others `web/a`.
    fn check(nodes: usize, pod: Pod, expected: &[&str]) {
        let nodes = (1..=nodes).map(|number| node(number, if number == 1 { "b" } else { "a" })).collect();
        let home = Namespace::new("ns").unwrap();
        let bundles = Bundles { read: [(home.clone(), Ok(Vec::new()))].into(), home };
        let cluster = Cluster { nodes, bundles };
        let workload = Workload {
            place: None,
            kind: "Pod".to_owned(),
            namespace: None,
            name: "p".to_owned(),
            owner: None,
            path: "spec",
            pod,
            constraints: Constraints::default(),
        };
        let placement = cluster.place(&workload.pod, &workload.constraints);
        let answer = Answer { checked: vec![(&workload, placement)], without: 0, others: 0 };
        assert_eq!(for_people(&answer).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn profiles_that_no_node_has_together_are_told() {
        let containers = vec![container("one", localhost("web/a")), container("other", localhost("web/b"))];
        let expected = [
            "pod/p",
            "  container one    seccomp  web/a  resolves on 8 of 9 nodes, not on n1; there is no bundle ns/web",
            "  container other  seccomp  web/b  resolves on 1 of 9 nodes: n1; there is no bundle ns/web",
            "  no node has all of these: no nodeSelector helps",
            "2 references: 2 partly",
        ];
        check(9, Pod { containers, ..Pod::default() }, &expected);
    }

    #[test]
    fn what_does_not_matter_and_what_nobody_knows_are_told_apart() {
        let privileged = Container { is_privileged: true, ..container("a", localhost("x")) };
        let containers = vec![privileged, container("b", Asked::Unknown("O\u{1b}CI".to_owned()))];
        let expected = [
            "pod/p",
            "  container a  seccomp  x     does not matter: runtimes start a privileged container without a seccomp profile",
            "  container b  seccomp  O\u{fffd}CI  can't be told: no such type of a profile is known",
            "  7 more containers were not looked at",
            "2 references: 1 ignored, 1 unknown",
        ];
        check(1, Pod { containers, unchecked: 7, ..Pod::default() }, &expected);
    }
}
