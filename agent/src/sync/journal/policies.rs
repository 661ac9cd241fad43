//! What the log says about AppArmor texts and profiles, and what is counted of it.
//!
//! Invariant: as of [`super`]. A text is spoken of by the keys that have it, a profile by its name.

use std::collections::BTreeMap;
use std::time::Duration;

use profiles::apparmor::kernel::{FoundPolicy, InKernel};
use profiles::apparmor::name::ProfileName;
use profiles::bundle::{Bundle, BundleId, Kind, Profile};
use profiles::digest::Digest;
use profiles::name::ProfileKey;
use profiles::state::State;
use tracing::{info, warn};

use super::Journal;
use super::drifts::{self, Drifts};
use super::problems::Problems;
use crate::host::apparmor::{Loaded, Unloaded};
use crate::host::error::HostError;
use crate::observe::metrics;

const WITHHELD: &str = "somebody else has another profile of it in the kernel: rename that one in the text, or have \
                        theirs unloaded";

/// What was logged.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// The keys of bundles, by their texts.
    pub(super) texts: BTreeMap<BundleId, BTreeMap<Digest, ProfileKey>>,
    /// Why texts are not compiled.
    uncompiled: Problems<Digest>,
    /// Why profiles that are asked for are not loaded.
    unloaded: Problems<ProfileName>,
    /// Why profiles that nobody asks for, and no pod needs, are still there.
    retained: Problems<ProfileName>,
    drifts: Drifts<ProfileName>,
}

impl Policies {
    pub(super) fn scanned(&mut self, found: &BTreeMap<ProfileName, FoundPolicy>) {
        let seen = |found: &FoundPolicy| match found.kernel {
            InKernel::Ours(_) => None,
            InKernel::Absent => Some(drifts::NOTHING),
            InKernel::Changed(what) => Some(what),
        };
        self.drifts.scanned(found.iter().map(|(name, found)| (name, seen(found))));
    }

    pub(super) fn judged(&mut self, bundle: &Bundle) {
        let texts = bundle.profiles.iter().filter_map(|(key, profile)| match profile {
            Profile::Accepted(document, _) => Some((document.digest(), key.clone())),
            Profile::Refused(_) => None,
        });
        self.texts.remove(&bundle.id);
        if bundle.kind == Some(Kind::AppArmor) {
            self.texts.insert(bundle.id.clone(), texts.collect());
        }
    }

    pub(super) fn acted(&mut self, state: &State) {
        self.uncompiled.0.retain(|text, _| state.has_text(*text));
        self.unloaded.0.retain(|name, _| state.is_claimed(name));
        self.retained.0.retain(|name, _| !state.is_claimed(name));
        for (name, found) in self.drifts.news() {
            warn!(%name, found, "Drift not repaired");
        }
    }

    /// Of how many texts it is remembered why they are not compiled.
    #[cfg(test)]
    pub(super) fn uncompiled(&self) -> usize {
        self.uncompiled.0.len()
    }

    /// The keys that have `text`.
    fn keys(&self, text: Digest) -> Vec<(&BundleId, &ProfileKey)> {
        self.texts.iter().filter_map(|(id, texts)| Some((id, texts.get(&text)?))).collect()
    }
}

impl Journal {
    /// `text` is compiled, whatever came of it.
    pub(crate) fn compiled(&mut self, text: Digest) {
        self.policies.uncompiled.0.remove(&text);
    }

    /// Logs why `text` is not compiled, which is not its fault.
    pub(crate) fn not_compiled(&mut self, text: Digest, error: &str) {
        if !self.policies.uncompiled.is_news(&text, error) {
            return;
        }
        let keys = self.policies.keys(text).into_iter().map(|(id, key)| format!("{id}/{key}"));
        let of = keys.collect::<Vec<_>>().join(", ");
        warn!(of, error, "Text not compiled; trying again");
    }

    /// Logs how loading a profile ended. If that was for a new text, it was asked for since `latency`.
    pub(crate) fn loaded(
        &mut self,
        name: &ProfileName,
        outcome: &Result<Loaded, HostError>,
        latency: Option<Duration>,
    ) {
        let outcome_of = |loaded: &Loaded| match loaded {
            Loaded::Ours(_) => metrics::WRITTEN,
            Loaded::Adopted(_) => metrics::ADOPTED,
            Loaded::Foreign(_) | Loaded::Withheld => metrics::FOREIGN,
        };
        self.metrics.installed(Kind::AppArmor, outcome.as_ref().ok().map(outcome_of), latency);
        let policies = &mut self.policies;
        match outcome {
            Ok(Loaded::Ours(digest)) => {
                policies.unloaded.0.remove(name);
                let drift = policies.drifts.loaded(name);
                if drift.is_some() {
                    self.metrics.drift_repaired(Kind::AppArmor);
                }
                match drift {
                    Some(found @ drifts::NOTHING) => {
                        let advice = "what ran under it before is confined no more until it is started again";
                        warn!(%name, found, advice, "Drift repaired");
                    }
                    Some(found) => warn!(%name, found, "Drift repaired"),
                    None => info!(%name, %digest, "Profile loaded"),
                }
            }
            Ok(Loaded::Adopted(digest)) => {
                policies.unloaded.0.remove(name);
                policies.drifts.loaded(name);
                info!(%name, %digest, "Profile adopted");
            }
            Ok(Loaded::Foreign(what)) if policies.unloaded.is_news(name, what) => {
                let advice = "rename the profile, or have the other one unloaded";
                warn!(%name, there = what, advice, "Profile not loaded: its name is taken in the kernel");
            }
            Err(error) if policies.unloaded.is_news(name, &error.in_full()) => {
                warn!(%name, error = error.in_full(), "Profile not loaded; trying again");
            }
            Ok(Loaded::Withheld) if policies.unloaded.is_news(name, WITHHELD) => {
                warn!(%name, advice = WITHHELD, "Profile not loaded: the kernel takes its text as a whole");
            }
            Ok(Loaded::Foreign(_) | Loaded::Withheld) | Err(_) => {}
        }
    }

    /// Logs how taking a profile out of the kernel ended.
    pub(crate) fn unloaded(&mut self, name: &ProfileName, outcome: &Result<Unloaded, HostError>) {
        if !matches!(outcome, Ok(Unloaded::InUse(_))) {
            self.metrics.removed(Kind::AppArmor, outcome.is_ok());
        }
        let policies = &mut self.policies;
        match outcome {
            Ok(Unloaded::Removed) => {
                policies.retained.0.remove(name);
                policies.drifts.forget(name);
                info!(%name, "Profile removed");
            }
            Ok(Unloaded::InUse(why)) if policies.retained.is_news(name, why) => {
                info!(%name, why, "Profile retained: no bundle has it any more, but it may be in use");
            }
            Err(error) if policies.retained.is_news(name, &error.in_full()) => {
                warn!(%name, error = error.in_full(), "Profile not removed; trying again");
            }
            Ok(Unloaded::InUse(_)) | Err(_) => {}
        }
    }
}
