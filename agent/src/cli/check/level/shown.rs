//! The answer of `pavise check --level`, as text.
//!
//! Invariant: each pod that was found is in one of the numbers.

use profiles::level::scope::Exemption;
use profiles::placement::listed;
use serde_json::{Value, json};

use super::super::shown::{counted, text};
use super::{Answer, Count, Entry};

/// What a script reads.
pub(super) fn as_json(answer: &Answer) -> String {
    let entries: Vec<Value> = answer.entries.iter().map(entry).collect();
    let exempt: Vec<Value> = answer.exempt.iter().map(|(why, count)| exempt(why, *count)).collect();
    let count = |count: Count| json!({"judged": count.all, "below": count.below});
    let value = json!({
        "violations": entries,
        "pods": count(answer.pods),
        "templates": count(answer.templates),
        "unrestricted": answer.unrestricted,
        "exempt": exempt,
        "otherObjects": answer.others,
    });
    format!("{value:#}\n")
}

fn entry(entry: &Entry) -> Value {
    json!({
        "place": entry.place,
        "kind": entry.kind,
        "namespace": entry.namespace,
        "name": entry.name,
        "pods": entry.pods,
        "level": entry.level,
        "message": entry.message,
        "problems": entry.problems,
    })
}

fn exempt(why: &Exemption, count: usize) -> Value {
    match why {
        Exemption::Namespace(name) => json!({"namespace": name, "count": count}),
        Exemption::RuntimeClass(name) => json!({"runtimeClass": name, "count": count}),
        Exemption::Windows => json!({"os": "windows", "count": count}),
    }
}

/// What a person reads.
pub(super) fn for_people(answer: &Answer) -> String {
    let mut lines = Vec::new();
    for entry in &answer.entries {
        lines.push(heading(entry));
        lines.push(format!("  {}", entry.message));
    }
    lines.push(summary(answer));
    if answer.unrestricted > 0 {
        lines.push(format!("{} in namespaces that demand nothing", are(answer.unrestricted)));
    }
    lines.extend(exemptions(answer));
    text(lines)
}

fn heading(entry: &Entry) -> String {
    let place = entry.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
    let namespace = entry.namespace.as_ref().map(|one| format!(" (namespace {one})")).unwrap_or_default();
    let pods = match entry.pods {
        Some(pods) if entry.kind != "Pod" => format!(": {}", counted(pods, "pod")),
        _ => String::new(),
    };
    format!("{place}{}/{}{namespace}{pods}", entry.kind.to_lowercase(), entry.name)
}

fn summary(answer: &Answer) -> String {
    let Answer { pods, templates, others, .. } = answer;
    let of = |count: &Count, what: &str| format!("{} of {}", count.below, counted(count.all, what));
    let mut parts = Vec::new();
    if pods.all > 0 || templates.all == 0 {
        parts.push(format!("{} would be refused", of(pods, "pod")));
    }
    if templates.all > 0 {
        parts.push(format!("{} would be warned of, and its pods refused", of(templates, "workload")));
    }
    let others = if *others > 0 { format!(" ({others} of other kinds)") } else { String::new() };
    format!("{}{others}", parts.join("; "))
}

/// What is not judged, so that nobody looks for it.
fn exemptions(answer: &Answer) -> Option<String> {
    let all: usize = answer.exempt.values().sum();
    let (mut namespaces, mut classes, mut windows) = (Vec::new(), Vec::new(), None);
    for (why, count) in &answer.exempt {
        match why {
            Exemption::Namespace(name) => namespaces.push(format!("{name} ({count})")),
            Exemption::RuntimeClass(name) => classes.push(format!("{name} ({count})")),
            Exemption::Windows => windows = Some(format!("for Windows ({count})")),
        }
    }
    let named = |what: &str, names: Vec<String>| {
        let names = names.iter().map(String::as_str);
        (names.len() > 0).then(|| format!("{what} {}", listed(names)))
    };
    let parts = [named("in the namespaces", namespaces), named("with the runtime classes", classes), windows];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (all > 0).then(|| format!("{} exempt: {}", are(all), parts.join("; ")))
}

fn are(count: usize) -> String {
    if count == 1 { "1 is".to_owned() } else { format!("{count} are") }
}
