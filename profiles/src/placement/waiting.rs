//! Why a pod that selects on labels of ours can be on no Node.
//!
//! Invariants: a pod is spoken of only if no Node meets what it selects on, and some Node would, or could,
//! without our labels: what else keeps it from a Node is the scheduler's to say. The gist of what is said
//! does not depend on which Nodes there are beside those that the pod can be on.

use std::collections::BTreeMap;

use super::declared::Target;
use super::{Bundles, Constraints, KINDS, Node};
use crate::bundle::{BundleId, Kind};
use crate::label::LabelKey;
use crate::name::Namespace;
use crate::pod::Pod;
use crate::reference::Reference;
use crate::selector::Selector;
use crate::statement::{LONGEST_NOTE, cut};

/// Of so many labels it is said why they stand nowhere.
const MOST_SAID: usize = 3;
/// So many Nodes are named.
const MOST_NAMED: usize = 3;
/// How much of a reference is shown, in bytes.
const LONGEST_SHOWN: usize = 200;
/// So many references are compared with all others at a time: to compare takes long.
const MOST_COMPARED: usize = 50;

/// What is known of a cluster, to say why pods wait.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// All Nodes, in the order in which they are named, with the labels that [`Bundles::asked`] and
    /// [`Constraints::keys`] ask for.
    pub nodes: &'a [Node],
    /// Its bundles.
    pub bundles: &'a Bundles,
}

/// Why a pod waits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Why {
    /// The same for as long as the pod waits for the same reason.
    pub gist: String,
    /// What to say: at most 1,024 bytes.
    pub note: String,
}

/// What was probably meant by references, as far as they were compared.
#[derive(Debug, Default)]
pub struct Suggestions(BTreeMap<(Kind, String), Option<String>>);

/// What a label stands for.
enum Meaning {
    /// This profile, and how it is referred to.
    Profile(Kind, Target, String),
    /// All that this bundle has.
    Bundle(BundleId),
    /// That can't be told.
    Unknown,
}

/// Why a label stands on no Node that the pod can be on.
struct Problem<'a> {
    /// What there is not, and why.
    said: String,
    /// The Nodes that have the label, and that the pod can't be on.
    elsewhere: Vec<&'a str>,
    meant: Option<String>,
    advice: &'static str,
}

impl Bundles {
    /// The keys of all labels that decide for which Nodes its bundles are.
    pub fn asked(&self) -> impl Iterator<Item = &str> {
        self.all().filter_map(|bundle| bundle.nodes.as_ref()).flat_map(Selector::keys)
    }

    /// What `label` stands for, by what there is, and else by how labels are made.
    fn meaning(&self, label: &LabelKey) -> Meaning {
        let name = label.name();
        let namespace = match label.namespace().map(Namespace::new).transpose() {
            Ok(namespace) => namespace.unwrap_or_else(|| self.home.clone()),
            Err(_) => return Meaning::Unknown,
        };
        let known = if label.is_of_policy() {
            self.known_policy(label)
        } else if label.is_of_profile() {
            self.known_file(label, &namespace)
        } else {
            let mut bundles = self.all().filter(|bundle| bundle.id.namespace == namespace);
            bundles
                .find(|bundle| self.label(&bundle.id) == *label)
                .map(|bundle| Meaning::Bundle(bundle.id.clone()))
        };
        let by_rule = || {
            if label.is_of_policy() {
                return Some(of_profile(Kind::AppArmor, name));
            }
            if !label.is_of_profile() {
                return BundleId::new(namespace.as_str(), name).ok().map(Meaning::Bundle);
            }
            let (bundle, key) = name.split_once('_')?;
            let prefix = label.namespace().map(|namespace| format!("_{namespace}/")).unwrap_or_default();
            Some(of_profile(Kind::Seccomp, &format!("{prefix}{bundle}/{key}")))
        };
        known.or_else(|| by_rule().filter(|_| !label.may_be_shortened())).unwrap_or(Meaning::Unknown)
    }

    fn known_policy(&self, label: &LabelKey) -> Option<Meaning> {
        let name = self.names().find(|name| LabelKey::of_policy(name) == *label)?;
        Some(of_profile(Kind::AppArmor, name.as_str()))
    }

    fn known_file(&self, label: &LabelKey, namespace: &Namespace) -> Option<Meaning> {
        let of_namespace = self.of_kind(Kind::Seccomp).filter(|bundle| bundle.id.namespace == *namespace);
        // Of a bundle's name, so much is in every label of its profiles.
        let may_be = of_namespace.filter(|bundle| label.may_be_of(&bundle.id.name));
        let mut references = may_be.flat_map(|bundle| {
            bundle.profiles.keys().map(|key| Reference::new(&self.home, &bundle.id, key.clone()))
        });
        let reference = references.find(|reference| LabelKey::of_profile(reference) == *label)?;
        Some(of_profile(Kind::Seccomp, &reference.to_string()))
    }
}

impl<'a> Site<'a> {
    /// Why `pod` waits, which selects on nothing but what `constraints` ask for; none if that is not for a label
    /// of ours.
    #[must_use]
    pub fn why(&self, pod: &Pod, constraints: &Constraints, suggestions: &mut Suggestions) -> Option<Why> {
        if self.nodes.iter().any(|node| constraints.allow(node)) {
            return None;
        }
        let own = constraints.without_ours();
        let candidates: Vec<&Node> = self.nodes.iter().filter(|node| own.allow(node)).collect();
        let lacking: Vec<&LabelKey> =
            pod.selects.iter().filter(|label| !candidates.iter().any(|node| node.has(label))).collect();
        if lacking.is_empty() {
            return apart(pod, &candidates);
        }
        let mut problems = Vec::new();
        let mut more = 0;
        for label in lacking {
            if problems.len() == MOST_SAID {
                more += 1;
                continue;
            }
            problems.extend(self.problem(label, pod, &own, &candidates, suggestions));
        }
        let first = problems.first()?;
        let told = |names: bool| {
            let said: Vec<String> = problems.iter().map(|problem| problem.told(&own, names)).collect();
            let more = if more > 0 {
                format!(" {more} more of its labels stand on no such node.")
            } else {
                String::new()
            };
            note(&format!("{}{more}", said.join(" ")), first.advice)
        };
        Some(Why { gist: told(false), note: told(true) })
    }

    /// Why `label` stands on none of `candidates`; none if it does not matter, because there is none of these,
    /// whatever the label.
    fn problem(
        &self,
        label: &LabelKey,
        pod: &Pod,
        own: &Constraints,
        candidates: &[&Node],
        suggestions: &mut Suggestions,
    ) -> Option<Problem<'a>> {
        let is_of = |(kind, reference): &(Kind, &str)| {
            let target = Target::of(*kind, reference);
            self.bundles.labels(&target).contains(label)
        };
        let referred = referred(pod).find(is_of);
        let meaning = match referred {
            Some((kind, reference)) => of_profile(kind, reference),
            None => self.bundles.meaning(label),
        };
        let is_unheard_of = self.is_unheard_of(&meaning);
        if candidates.is_empty() && !is_unheard_of {
            return None;
        }
        let elsewhere: Vec<&str> =
            self.nodes.iter().filter(|node| node.has(label) && !own.allow(node)).map(Node::name).collect();
        let what = match (&meaning, referred) {
            (Meaning::Profile(kind, _, reference), Some(_)) => {
                format!("{}, which it selects by the label {label}", shown(*kind, reference))
            }
            (Meaning::Profile(kind, _, reference), None) => {
                format!("the label {label}, which it selects on, of {}", shown(*kind, reference))
            }
            (Meaning::Bundle(id), _) => format!("the label {label}, which it selects on, of the bundle {id}"),
            (Meaning::Unknown, _) => format!("the label {label}, which it selects on"),
        };
        let who = if elsewhere.is_empty() { "no node has" } else { "no node that it can be on has" };
        let why = match &meaning {
            Meaning::Profile(_, target, _) if is_unheard_of || label.is_of_profile() => {
                Some(self.bundles.why(target, candidates))
            }
            Meaning::Profile(_, target, _) => {
                let mut bundles = self.bundles.having(target).map(|(bundle, _)| &bundle.id);
                let id = bundles.find(|id| self.bundles.label(id) == *label)?;
                Some(self.bundles.why_not_whole(id, candidates))
            }
            Meaning::Bundle(id) => Some(self.bundles.why_not_whole(id, candidates)),
            Meaning::Unknown => None,
        };
        let said = [Some(format!("{who} {what}")), why].into_iter().flatten().collect::<Vec<_>>().join(": ");
        let meant = match &meaning {
            Meaning::Profile(kind, _, reference) if is_unheard_of => {
                suggestions.of(*kind, reference, self.bundles)
            }
            _ => None,
        };
        let advice = match (is_unheard_of, elsewhere.is_empty()) {
            (true, _) if referred.is_some() => CORRECT,
            (true, _) => CORRECT_LABEL,
            (false, false) => GO_THERE,
            (false, true) => WAIT,
        };
        Some(Problem { said, elsewhere, meant, advice })
    }

    /// Whether there is nothing that `meaning` is, as far as bundles are known.
    fn is_unheard_of(&self, meaning: &Meaning) -> bool {
        let is_read = |namespace| !matches!(self.bundles.read.get(namespace), Some(Err(_)));
        match meaning {
            Meaning::Profile(_, target, _) => {
                let is_read = match target {
                    Target::File(reference) => is_read(reference.namespace().unwrap_or(&self.bundles.home)),
                    Target::Policy(_) | Target::Nothing(_) => true,
                };
                is_read && self.bundles.having(target).next().is_none()
            }
            Meaning::Bundle(id) => {
                is_read(&id.namespace) && !self.bundles.all().any(|bundle| bundle.id == *id)
            }
            Meaning::Unknown => true,
        }
    }
}

const CORRECT: &str =
    "Correct the reference (and delete the pod, if nothing makes it anew), or publish the profile";
const CORRECT_LABEL: &str =
    "Correct what the pod selects on (and delete the pod, if nothing makes it anew), or publish the profile";
const GO_THERE: &str = "Let the pod be there, or have the profile where the pod can be";
const WAIT: &str = "The pod is scheduled as soon as that is put right";
const TOGETHER: &str = "Have their bundles for the same nodes (pavise.dev/node-selector)";

impl Problem<'_> {
    /// It in a sentence, with the `names` of Nodes or without.
    fn told(&self, own: &Constraints, names: bool) -> String {
        let elsewhere = match (&self.elsewhere[..], names) {
            ([], _) => String::new(),
            (_, false) => format!("; it is where the pod can't be ({})", own.said()),
            (elsewhere, true) => {
                format!("; it is where the pod can't be: {} ({})", named(elsewhere), own.said())
            }
        };
        let meant = self.meant.as_ref().map(|meant| format!("; did you mean {meant}?"));
        format!("{}{elsewhere}{}", self.said, meant.as_deref().unwrap_or("."))
    }
}

impl Suggestions {
    fn of(&mut self, kind: Kind, reference: &str, bundles: &Bundles) -> Option<String> {
        let place = (kind, reference.to_owned());
        if let Some(known) = self.0.get(&place) {
            return known.clone();
        }
        if self.0.len() >= MOST_COMPARED {
            return None;
        }
        let meant = bundles.nearest(kind, reference);
        self.0.insert(place, meant.clone());
        meant
    }
}

/// That each of the labels of ours stands on a Node that the pod can be on, and no such Node has all.
fn apart(pod: &Pod, candidates: &[&Node]) -> Option<Why> {
    let has_all = |node: &&Node| pod.selects.iter().all(|label| node.has(label));
    if candidates.iter().any(has_all) {
        return None;
    }
    let told = |names: bool| {
        let labels = pod.selects.iter().take(MOST_SAID + 1).map(|label| {
            let on: Vec<&str> =
                candidates.iter().filter(|node| node.has(label)).map(|node| node.name()).collect();
            if names { format!("{label} is on {}", named(&on)) } else { label.to_string() }
        });
        let labels: Vec<String> = labels.collect();
        let more = pod.selects.len() - labels.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let said = "no node that it can be on has all labels of profiles that it selects on";
        note(&format!("{said}: {}{more}.", labels.join(", ")), TOGETHER)
    };
    Some(Why { gist: told(false), note: told(true) })
}

/// A note with all of `advice`, and as much of what is `said` as there is room for.
fn note(said: &str, advice: &str) -> String {
    let room = LONGEST_NOTE - advice.len() - 1;
    format!("{} {advice}", cut(&format!("the pod waits: {said}"), room))
}

/// What the pod's containers refer to and runtimes look at.
fn referred(pod: &Pod) -> impl Iterator<Item = (Kind, &str)> {
    pod.containers.iter().flat_map(|container| {
        let kinds = KINDS.into_iter().filter(|kind| *kind == Kind::AppArmor || !container.is_privileged);
        kinds.filter_map(|kind| Some((kind, container.localhost(kind)?)))
    })
}

fn of_profile(kind: Kind, reference: &str) -> Meaning {
    Meaning::Profile(kind, Target::of(kind, reference), reference.to_owned())
}

fn shown(kind: Kind, reference: &str) -> String {
    let kind = match kind {
        Kind::Seccomp => "seccomp",
        Kind::AppArmor => "AppArmor",
    };
    format!("the {kind} profile {}", cut(reference, LONGEST_SHOWN))
}

/// The first few of `names`. How many others there are changes too often to be said.
fn named(names: &[&str]) -> String {
    let first = names[..names.len().min(MOST_NAMED)].join(", ");
    if names.len() > MOST_NAMED { format!("{first} and others") } else { first }
}

#[cfg(test)]
mod tests;
