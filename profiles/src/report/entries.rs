//! The report that follows from what is known.

use std::collections::BTreeMap;

use super::limits::{MOST_BUNDLES, MOST_DETAILS, cut, first};
use super::{
    BundleEntry, Circumstances, Condition, Node, Omitted, PodReference, READY, Report, SeccompDefault,
    Totals, Truth,
};
use crate::bundle::{Bundle, BundleId, Kind, Profile};
use crate::check::{PodFinding, PodReason};
use crate::claims::Grant;
use crate::diagnostic::Code;
use crate::digest::Digest;
use crate::policy::KernelProfile;
use crate::state::State;
use crate::time::Time;

/// How many profiles a bundle asks for, and how many of those are loaded.
type Tallies = BTreeMap<BundleId, (usize, usize)>;

impl State {
    /// What is to be reported at `now`: nothing while there is no Node to be seen.
    #[must_use]
    pub fn report(&self, now: Time, circumstances: &Circumstances<'_>) -> Option<Report> {
        self.labels.observed.as_ref()?;
        let Circumstances { agent, platform, findings, clock, .. } = *circumstances;
        let unresolved =
            findings.iter().filter(|finding| finding.reason != PodReason::ProfileOutdated).count();
        let (problems, retained) = (self.reported_problems(now, clock), self.reported_retained(now, clock));
        let (mut desired, mut loaded) = (0, 0);
        for summary in Kind::ALL.map(|kind| self.summary(kind, now)) {
            desired += summary.desired;
            loaded += summary.loaded.saturating_sub(summary.retained);
        }
        let totals = Totals {
            profiles: format!("{loaded}/{desired}"),
            bundles: self.bundles.len(),
            profiles_desired: desired,
            profiles_loaded: loaded,
            problems: problems.len(),
            retained: retained.len(),
            unresolved,
        };
        // What keeps pods from starting comes first: pods decide how many there are, and not all may be said.
        let mut findings: Vec<&PodFinding> = findings.iter().collect();
        findings.sort_by_key(|finding| finding.reason);
        let references =
            findings.iter().take(MOST_DETAILS).map(|finding| reference(finding, clock)).collect();
        let (bundles, bundles_omitted) = first(self.reported_bundles(), MOST_BUNDLES);
        let (problems, problems_omitted) = first(problems, MOST_DETAILS);
        let (retained, retained_omitted) = first(retained, MOST_DETAILS);
        let (references, _) = first::<PodReference>(references, MOST_DETAILS);
        let references_omitted = findings.len() - references.len();
        Some(Report {
            agent: agent.clone(),
            node: Node {
                architecture: platform.architecture.to_string(),
                kernel: platform.kernel.to_string(),
                app_armor: self.config.apparmor,
                kubelet_seccomp_default: match self.seccomp_default() {
                    Some(true) => SeccompDefault::RuntimeDefault,
                    Some(false) => SeccompDefault::Unconfined,
                    None => SeccompDefault::Unknown,
                },
            },
            conditions: self.conditions(unresolved, circumstances),
            totals,
            bundles,
            problems,
            retained,
            references,
            omitted: Omitted {
                bundles: bundles_omitted,
                problems: problems_omitted,
                retained: retained_omitted,
                references: references_omitted,
            },
        })
    }

    fn conditions(&self, unresolved: usize, circumstances: &Circumstances<'_>) -> Vec<Condition> {
        let Circumstances { unready, clock, .. } = circumstances;
        let condition = |kind: &str, (status, reason, message): (Truth, &str, &str)| Condition {
            kind: kind.to_owned(),
            status,
            reason: reason.to_owned(),
            message: cut(message),
            last_transition_time: (*clock).to_owned(),
        };
        let awaited = unready.join("; ");
        let ready = match unready {
            [] => (Truth::True, "InLine", "the node is in line with its bundles"),
            _ => (Truth::False, "NotInLine", awaited.as_str()),
        };
        let is_known = self.is_all_listed() && self.is_all_scanned();
        let profiles = match self.unserved().len() {
            _ if !is_known => (Truth::Unknown, "NotKnown", "the bundles, or the node, are not known yet"),
            0 => (Truth::True, "AllLoaded", "all that bundles ask of this node is loaded"),
            _ => {
                (Truth::False, "NotAllLoaded", "something is not loaded as bundles ask for it: see problems")
            }
        };
        let references = match unresolved {
            _ if !self.pods.are_known() || !is_known => {
                (Truth::Unknown, "NotKnown", "the pods, or the profiles, of the node are not known yet")
            }
            0 => (Truth::True, "AllResolved", "nothing is known to be wrong with what the pods ask for"),
            _ => (
                Truth::False,
                "NotAllResolved",
                "pods ask for profiles that they do not get, or do not run under: see references",
            ),
        };
        vec![
            condition(READY, ready),
            condition("ProfilesLoaded", profiles),
            condition("ReferencesResolved", references),
        ]
    }

    fn reported_bundles(&self) -> Vec<BundleEntry> {
        let tallies = self.tallies();
        let entry = |bundle: &Bundle| {
            let here = self.is_here(bundle);
            let (desired, loaded) = tallies.get(&bundle.id).copied().unwrap_or_default();
            let unusable =
                bundle.diagnostics.iter().filter(|finding| finding.code == Code::InvalidKey).count();
            let is_elsewhere = here == Some(false);
            BundleEntry {
                namespace: bundle.id.namespace.to_string(),
                name: bundle.id.name.to_string(),
                kind: bundle.kind.map(|kind| kind.to_string()),
                here: match here {
                    Some(true) => Truth::True,
                    Some(false) => Truth::False,
                    None => Truth::Unknown,
                },
                digest: (!is_elsewhere).then(|| digest(bundle).to_string()),
                desired: if is_elsewhere { 0 } else { desired + unusable },
                loaded,
            }
        };
        self.bundles.values().map(entry).collect()
    }

    fn tallies(&self) -> Tallies {
        let mut tallies = Tallies::new();
        let mut count = |bundle: BundleId, is_loaded: bool| {
            let (desired, loaded) = tallies.entry(bundle).or_default();
            *desired += 1;
            *loaded += usize::from(is_loaded);
        };
        for (reference, file) in self.files.iter().filter(|(_, file)| file.is_wanted()) {
            count(reference.bundle_id(&self.config.home), file.is_loaded());
        }
        for profile in self.policies.profiles.values() {
            let Some(slot) = profile.slot() else { continue };
            count(slot.bundle.clone(), profile.is_loaded());
        }
        // A text that is refused, and of which no version was ever loaded.
        for (slot, _) in self.policies.grants.iter().filter(|(_, grant)| Grant::document(grant).is_none()) {
            if !self.policies.profiles.values().any(|profile| KernelProfile::slot(profile) == Some(slot)) {
                count(slot.bundle.clone(), false);
            }
        }
        tallies
    }
}

/// Of the keys of `bundle`, and of what each of them is on this node.
fn digest(bundle: &Bundle) -> Digest {
    let mut text = String::new();
    for (key, profile) in &bundle.profiles {
        let content = match profile {
            Profile::Accepted(document, _) => document.digest().to_string(),
            Profile::Refused(_) => "refused".to_owned(),
        };
        text.extend([key.as_str(), " ", &content, "\n"]);
    }
    Digest::of(text.as_bytes())
}

pub(super) fn reference(finding: &PodFinding, clock: &str) -> PodReference {
    PodReference {
        pod: finding.pod.to_string(),
        container: cut(&finding.container),
        container_kind: finding.container_kind.as_str().to_owned(),
        kind: finding.kind.to_string(),
        reference: cut(&finding.reference),
        reason: finding.reason.as_str().to_owned(),
        message: cut(&finding.message),
        since: clock.to_owned(),
    }
}
