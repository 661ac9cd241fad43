//! What keeps profiles from being loaded as they are asked for.
//!
//! Warnings about what an author wrote are not among them: they are the same on all nodes, and the catalog
//! says them. Those about labels are, as they are true on some nodes only.

use std::collections::BTreeMap;

use super::Problem;
use super::limits::cut;
use crate::bundle::{Bundle, BundleId, Document};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::labelling::Finding;
use crate::reference::Reference;
use crate::state::State;
use crate::time::Time;

const FOREIGN: &str = "foreign";
const DRIFTED: &str = "drifted";
const UNCOMPILED: &str = "uncompiled";
const UNWRITTEN: &str = "unwritten";
const UNREMOVED: &str = "unremoved";

/// What a problem is about: a bundle, and something of it.
type Subject = (Option<BundleId>, Option<String>);

impl State {
    /// All of them: by bundle, and in it by name and code.
    pub(super) fn reported_problems(&self, now: Time, clock: &str) -> Vec<Problem> {
        let problem = |(bundle, name): Subject, code: &str, message: &str| Problem {
            bundle: bundle.map(|bundle| bundle.to_string()),
            name,
            code: code.to_owned(),
            message: cut(message),
            since: clock.to_owned(),
        };
        let judged = self.all_diagnostics().into_iter().map(|(subject, mut diagnostics)| {
            diagnostics.sort_by_key(|diagnostic| std::cmp::Reverse(diagnostic.severity()));
            let rest = diagnostics.len() - 1;
            let rest = if rest > 0 { format!(" (and {rest} more)") } else { String::new() };
            let first = &diagnostics[0];
            problem(subject, first.code.as_str(), &format!("{}{rest}", in_words(first)))
        });
        let met = self.troubles(now);
        let met = met.into_iter().map(|(subject, code)| problem(subject, code, advice(code)));
        let mut problems: Vec<Problem> = judged.chain(met).collect();
        problems.sort_by(|one, other| {
            (&one.bundle, &one.name, &one.code).cmp(&(&other.bundle, &other.name, &other.code))
        });
        problems
    }

    /// What is wrong with what authors wrote, and about labels; none of the lists is empty.
    fn all_diagnostics(&self) -> BTreeMap<Subject, Vec<Diagnostic>> {
        let mut all: BTreeMap<Subject, Vec<Diagnostic>> = BTreeMap::new();
        let mut add = |bundle: &BundleId, reference: Option<Reference>, diagnostic: Diagnostic| {
            let is_of_labels = matches!(diagnostic.code, Code::LabelsByBundle | Code::LabelCollision);
            if diagnostic.severity() == Severity::Error || is_of_labels {
                let subject = (Some(bundle.clone()), reference.map(|reference| reference.to_string()));
                all.entry(subject).or_default().push(diagnostic);
            }
        };
        for bundle in self.bundles_here() {
            let Bundle { id, diagnostics, profiles, .. } = bundle;
            for diagnostic in diagnostics {
                add(id, None, diagnostic.clone());
            }
            for (key, profile) in profiles {
                for diagnostic in profile.diagnostics() {
                    let reference = Reference::new(&self.config.home, id, key.clone());
                    add(id, Some(reference), diagnostic.clone());
                }
            }
        }
        for Finding { bundle, reference, diagnostic } in self.findings() {
            add(&bundle, reference, diagnostic);
        }
        all
    }

    /// What the node, or somebody on it, has against profiles.
    fn troubles(&self, now: Time) -> Vec<(Subject, &'static str)> {
        let home = &self.config.home;
        let mut troubles = Vec::new();
        for (reference, file) in &self.files {
            let code = match file.is_wanted() {
                true if file.is_foreign() => FOREIGN,
                true if file.pace.is_failing => UNWRITTEN,
                true if file.is_drifted() => DRIFTED,
                false if file.pace.is_failing => UNREMOVED,
                true | false => continue,
            };
            troubles.push(((Some(reference.bundle_id(home)), Some(reference.to_string())), code));
        }
        let unloaded = self.unloaded(now);
        for (name, profile) in &self.policies.profiles {
            let code = match profile.is_claimed() {
                true if profile.is_foreign() => FOREIGN,
                true if unloaded.contains(name) => UNWRITTEN,
                true if profile.is_drifted() => DRIFTED,
                false if profile.pace.is_failing => UNREMOVED,
                true | false => continue,
            };
            let bundle = profile.slot().map(|slot| slot.bundle.clone());
            troubles.push(((bundle, Some(name.to_string())), code));
        }
        for (slot, grant) in &self.policies.grants {
            let text = grant.document().map(Document::digest);
            if text.is_some_and(|text| self.policies.is_failing(text)) {
                let text = Reference::new(home, &slot.bundle, slot.key.clone());
                troubles.push(((Some(slot.bundle.clone()), Some(text.to_string())), UNCOMPILED));
            }
        }
        troubles
    }
}

/// What is wrong and what to do. The severity and the code stand elsewhere.
fn in_words(diagnostic: &Diagnostic) -> String {
    let Diagnostic { place, message, help, .. } = diagnostic;
    let place = place.to_string();
    let gap = if place.is_empty() { "" } else { ": " };
    format!("{place}{gap}{message}; {help}")
}

fn advice(code: &str) -> &'static str {
    match code {
        FOREIGN => {
            "something that is not Pavise's has this name on the node, and is left alone; take it away there, or \
             rename the profile"
        }
        DRIFTED => "somebody changed it on the node, and it is not put right yet",
        UNCOMPILED => {
            "the text could not be compiled, which is not its fault; it is tried again, see the agent's log"
        }
        UNWRITTEN => "it could not be put on the node; it is tried again, see the agent's log",
        _ => "it could not be taken off the node; it is tried again, see the agent's log",
    }
}
